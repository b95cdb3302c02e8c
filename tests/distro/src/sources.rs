//! Upstream tarballs for the definitions, out of Debian's source packages.
//!
//! A build's cache directory holds them as `sha256:<sum>`, where the `fetch` step looks before it asks the network.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::apt::{Apt, Fetch};
use crate::cache::lock;

/// The table of tarballs.
pub const TABLE: &str = include_str!("../sources.toml");

/// One tarball.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The definition that fetches it: one beside this crate, or one of Wolfi's.
    pub definition: String,
    /// Debian's source package.
    pub package: String,
    /// The Debian suite that has it.
    pub suite: String,
    /// Debian's name of the file.
    pub file: String,
    /// The file's sum.
    pub sha256: String,
    /// Whether a run without it has failed; others are passed over when the archive does not have them.
    #[serde(default)]
    pub required: bool,
    /// Of what it is a part: `base` is what a run fetches that names no definition.
    #[serde(default = "base")]
    pub profile: String,
}

fn base() -> String {
    "base".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    source: Vec<Source>,
}

/// Reads the table.
pub fn table() -> Result<Vec<Source>> {
    Ok(toml::from_str::<Table>(TABLE).context("sources.toml")?.source)
}

/// Fetches the tarballs of some definitions (the base ones, when none is named) into a directory. `say` is told of
/// each.
pub fn fetch(out: &Path, cache: &Path, definitions: &[String], mut say: impl FnMut(&str)) -> Result<()> {
    let _lock = lock(out)?;
    let chosen: Vec<Source> = table()?
        .into_iter()
        .filter(|source| match definitions {
            [] => source.profile == base(),
            named => named.contains(&source.definition),
        })
        .collect();
    for name in definitions {
        ensure!(chosen.iter().any(|source| source.definition == *name), "no tarball is known for {name:?}");
    }
    let mut by_suite: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in &chosen {
        if has(out, source)? {
            say(&format!("{}: there", source.definition));
        } else {
            by_suite.entry(&source.suite).or_default().push(source);
        }
    }
    for (suite, sources) in by_suite {
        let _lock = lock(cache)?;
        let apt = Apt::new(&cache.join("apt").join(format!("{suite}-sources")), suite, Fetch::Sources)?;
        if let Err(error) = apt.update(false) {
            let error = error.context(format!("lists of {suite}'s sources"));
            if sources.iter().any(|source| source.required) {
                return Err(error);
            }
            sources.iter().for_each(|source| pass_over(source, &error, &mut say));
            continue;
        }
        for source in sources {
            match fetch_one(&apt, source, out) {
                Ok(()) => say(&format!("{}: {} fetched", source.definition, source.file)),
                Err(error) if source.required => {
                    return Err(error.context(format!("{} is needed", source.definition)));
                }
                Err(error) => pass_over(source, &error, &mut say),
            }
        }
    }
    Ok(())
}

fn pass_over(source: &Source, error: &anyhow::Error, say: &mut impl FnMut(&str)) {
    let reason = format!("{error:#}");
    let line = reason.lines().find(|line| line.contains("E: ")).unwrap_or(&reason);
    say(&format!("{}: passed over: {line}", source.definition));
}

fn fetch_one(apt: &Apt, source: &Source, out: &Path) -> Result<()> {
    let directory = tempfile::tempdir_in(out)?;
    apt.tarball(&source.package, directory.path())?;
    let path = directory.path().join(&source.file);
    if !path.is_file() {
        bail!("{} has moved on and no longer holds {}", source.package, source.file);
    }
    let sum = sum(&path)?;
    ensure!(sum == source.sha256, "{} has the sum {sum}, not {}", source.file, source.sha256);
    Ok(fs::rename(&path, out.join(format!("sha256:{sum}")))?)
}

/// Whether a tarball is there and whole.
fn has(out: &Path, source: &Source) -> Result<bool> {
    let path = out.join(format!("sha256:{}", source.sha256));
    Ok(path.is_file() && sum(&path)? == source.sha256)
}

fn sum(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let table = table().unwrap();
        assert!(table.iter().any(|source| source.required && source.definition == "hello.yaml"));
        for source in &table {
            assert_eq!(source.sha256.len(), 64, "{}", source.file);
            assert!(source.file.contains(".orig.tar."), "{}", source.file);
        }
    }

    #[test]
    fn definitions_beside_the_crate_fetch_what_the_table_has() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions");
        let table = table().unwrap();
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let sum = text.lines().find_map(|line| line.trim().strip_prefix("expected-sha256: ")).unwrap();
            let source = table.iter().find(|source| source.definition == name).unwrap();
            assert_eq!(source.sha256, sum, "{name}");
            assert!(!text.contains("repositories:") && !text.contains("keyring:"), "{name}");
            count += 1;
        }
        assert!(count >= 3);
    }

    #[test]
    fn a_broken_file_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut source = table().unwrap().remove(0);
        source.sha256 = hex::encode(Sha256::digest(b"whole"));
        let path = directory.path().join(format!("sha256:{}", source.sha256));
        assert!(!has(directory.path(), &source).unwrap());
        fs::write(&path, "broken").unwrap();
        assert!(!has(directory.path(), &source).unwrap());
        fs::write(&path, "whole").unwrap();
        assert!(has(directory.path(), &source).unwrap());
    }
}
