//! The definitions: where they come from, which of them are built, and what the builds need to know of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The list the program is built with.
pub(crate) const LIST: &str = include_str!("../corpus.toml");

/// Which definitions are built, and with what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// How many must build.
    pub(crate) minimum: usize,
    /// The Debian suite of the test distribution.
    pub(crate) suite: String,
    /// Its profile.
    pub(crate) profile: String,
    /// File names.
    pub(crate) definitions: Vec<String>,
}

impl List {
    pub(crate) fn read() -> Result<Self> {
        toml::from_str(LIST).context("corpus.toml")
    }
}

/// What the driver knows of one definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// The name of its package, its file without `.yaml`.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// The folder of the same name, if there is one.
    pub(crate) side: Option<PathBuf>,
    /// The package's version, as written.
    pub(crate) version: String,
    /// The packages it says it makes.
    pub(crate) makes: Vec<String>,
    /// The packages its builds ask for.
    pub(crate) needs: Vec<String>,
    /// What it fetches.
    pub(crate) tarballs: Vec<Tarball>,
}

/// One thing a definition fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tarball {
    /// The last part of its address.
    pub(crate) name: String,
    /// Its name in the source cache.
    pub(crate) cached: String,
}

#[derive(Deserialize)]
struct Raw {
    package: RawPackage,
    #[serde(default)]
    environment: RawEnvironment,
    #[serde(default)]
    subpackages: Vec<RawPackage>,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
}

#[derive(Default, Deserialize)]
struct RawEnvironment {
    #[serde(default)]
    contents: RawContents,
}

#[derive(Default, Deserialize)]
struct RawContents {
    #[serde(default)]
    packages: Vec<String>,
}

impl Definition {
    pub(crate) fn read(corpus: &Path, file: &str) -> Result<Self> {
        let path = corpus.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let side = Some(path.with_extension("")).filter(|side| side.is_dir());
        Self::parse(&text, path, side).with_context(|| file.to_owned())
    }

    fn parse(text: &str, path: PathBuf, side: Option<PathBuf>) -> Result<Self> {
        let raw: Raw = serde_yaml::from_str(text)?;
        let name = raw.package.name;
        let subpackages = raw.subpackages.into_iter().map(|sub| sub.name.replace("${{package.name}}", &name));
        Ok(Self {
            makes: std::iter::once(name.clone()).chain(subpackages).collect(),
            version: field(text, "version").context("no version")?.to_owned(),
            needs: raw.environment.contents.packages,
            tarballs: tarballs(text),
            name,
            path,
            side,
        })
    }

    /// The tarballs that are not in the source cache.
    pub(crate) fn missing(&self, cache: &Path) -> Vec<&Tarball> {
        self.tarballs.iter().filter(|tarball| !cache.join(&tarball.cached).is_file()).collect()
    }
}

/// The first field of a name, as written: `version: 2.0` must not become the number two.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| value(line, name))
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.trim().trim_start_matches("- ").strip_prefix(name)?.strip_prefix(':')?;
    let value = value.split(" #").next().unwrap_or(value);
    Some(value.trim().trim_matches(['"', '\'']))
}

/// Every sum a definition expects, with the address beside it.
fn tarballs(text: &str) -> Vec<Tarball> {
    let mut found = Vec::new();
    let mut address = None;
    let mut cached = None;
    for line in text.lines() {
        if line.trim().starts_with("- uses:") {
            (address, cached) = (None, None);
        }
        address = value(line, "uri").or(address);
        for (field, kind) in [("expected-sha256", "sha256"), ("expected-sha512", "sha512")] {
            cached = value(line, field).map(|sum| format!("{kind}:{sum}")).or(cached);
        }
        if let (Some(uri), Some(cached)) = (address, &cached) {
            let name = filled(uri.rsplit('/').next().unwrap_or(uri), text);
            found.push(Tarball { name, cached: cached.clone() });
        }
        if address.is_some() && cached.is_some() {
            (address, cached) = (None, None);
        }
    }
    found
}

/// A name with the definition's own fields in place of `${{package.version}}`, `${{vars.some-version}}` and the like.
fn filled(name: &str, text: &str) -> String {
    let mut whole = String::new();
    let mut rest = name;
    while let Some((before, (word, after))) =
        rest.split_once("${{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        let word = word.trim();
        let value = word.split_once('.').and_then(|(_, key)| field(text, key)).unwrap_or(word);
        whole.push_str(before);
        whole.push_str(value);
        rest = after;
    }
    whole + rest
}

/// The folder of the definitions: `given` itself, or what the archive `given` holds, unpacked below `work`.
pub(crate) fn unpack(given: &Path, work: &Path) -> Result<PathBuf> {
    if given.is_dir() {
        return Ok(std::path::absolute(given)?);
    }
    let archive = fs::read(given).with_context(|| {
        format!(
            "no definitions at {}; give an archive or a checkout of github.com/wolfi-dev/os with --corpus",
            given.display()
        )
    })?;
    let folder = work.join("corpus");
    let stamp = folder.join(".archive");
    let sum = hex::encode(Sha256::digest(&archive));
    if fs::read_to_string(&stamp).is_ok_and(|text| text == sum) {
        return Ok(folder);
    }
    test_distro::cache::remove_directory(&folder)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let status = Command::new("tar")
        .args(["--extract", "--strip-components=1", "--no-same-owner", "--file"])
        .arg(std::path::absolute(given)?)
        .current_dir(&folder)
        .status()
        .context("cannot run tar")?;
    ensure!(status.success(), "tar could not unpack {}", given.display());
    fs::write(&stamp, sum)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
package:
  name: thing
  version: 2.0 # not two
environment:
  contents:
    packages:
      - build-base
      - other-dev
pipeline:
  - uses: fetch
    with:
      uri: https://a.invalid/b/thing-${{package.version}}.tar.gz
      expected-sha256: 12ab
  - uses: git-checkout
    with:
      repository: https://a.invalid/x
  - uses: fetch
    with:
      expected-sha512: '34cd'
      uri: https://a.invalid/data.tar.xz
subpackages:
  - name: ${{package.name}}-dev
    pipeline:
      - uses: split/dev
";

    #[test]
    fn definitions_say_what_they_need_and_make() {
        let thing = Definition::parse(TEXT, "thing.yaml".into(), None).unwrap();
        assert_eq!((thing.name.as_str(), thing.version.as_str()), ("thing", "2.0"));
        assert_eq!(thing.makes, ["thing", "thing-dev"]);
        assert_eq!(thing.needs, ["build-base", "other-dev"]);
        let tarball = |name: &str, cached: &str| Tarball { name: name.to_owned(), cached: cached.to_owned() };
        let expected = [tarball("thing-2.0.tar.gz", "sha256:12ab"), tarball("data.tar.xz", "sha512:34cd")];
        assert_eq!(thing.tarballs, expected);
        let cache = tempfile::tempdir().unwrap();
        fs::write(cache.path().join("sha256:12ab"), "").unwrap();
        assert_eq!(thing.missing(cache.path()), [&expected[1]]);
    }

    #[test]
    fn every_listed_definition_has_a_tarball() {
        let list = List::read().unwrap();
        assert!(list.minimum <= list.definitions.len());
        let table = test_distro::sources::table().unwrap();
        for name in &list.definitions {
            assert!(table.iter().any(|source| source.definition == *name), "{name} has no tarball");
        }
    }

    /// The list is the whole of what was found in Debian's archive, where that finding is at hand.
    #[test]
    fn the_list_is_whole() {
        let beside = crate::beside_the_checkout("oracles/debian-identical-sources.json");
        let Ok(text) = fs::read_to_string(&beside) else {
            eprintln!("skipped: {} is not there", beside.display());
            assert!(std::env::var_os("CI").is_none(), "CI must have it");
            return;
        };
        let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let found: Vec<&str> = found.iter().filter_map(|row| row["definition"].as_str()).collect();
        assert_eq!(List::read().unwrap().definitions, found);
    }

    #[test]
    fn archives_are_unpacked_once() {
        let work = tempfile::tempdir().unwrap();
        let top = work.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("a.yaml"), "a").unwrap();
        let archive = work.path().join("a.tar");
        let tar = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(work.path()).arg("top").status();
        assert!(tar.unwrap().success());
        let folder = unpack(&archive, work.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a.yaml")).unwrap(), "a");
        fs::write(folder.join("b.yaml"), "b").unwrap();
        assert!(unpack(&archive, work.path()).unwrap().join("b.yaml").exists(), "unpacked again");
        fs::write(folder.join(".archive"), "another").unwrap();
        assert!(!unpack(&archive, work.path()).unwrap().join("b.yaml").exists(), "not unpacked again");
        assert_eq!(unpack(&top, work.path()).unwrap(), top);
        let error = unpack(&work.path().join("none.tar"), work.path()).unwrap_err().to_string();
        assert!(error.contains("--corpus"), "{error}");
    }
}
