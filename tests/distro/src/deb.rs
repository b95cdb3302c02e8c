//! Debian packages, read with `dpkg-deb` (every Debian machine has it, and it knows all compressions).

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A downloaded Debian package.
#[derive(Debug, Clone)]
pub struct Deb {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its description of itself.
    pub control: Control,
}

impl Deb {
    /// Reads the description of a package file.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let output = Command::new("dpkg-deb").arg("--field").arg(path).output().context("dpkg-deb")?;
        ensure!(
            output.status.success(),
            "dpkg-deb cannot read {}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let control =
            Control::parse(std::str::from_utf8(&output.stdout).context("control file is no UTF-8")?);
        let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
        Ok(Self { name: name.to_owned(), path: path.to_owned(), bytes, control })
    }
}

/// The fields of a control file.
#[derive(Debug, Clone, Default)]
pub struct Control(BTreeMap<String, String>);

impl Control {
    /// Reads one paragraph; the lines that continue a field are joined to it.
    pub fn parse(text: &str) -> Self {
        let mut fields = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                let value: &mut String = fields.entry(current.clone()).or_default();
                value.push('\n');
                value.push_str(line.trim());
            } else if let Some((key, value)) = line.split_once(':') {
                current = key.to_owned();
                fields.insert(current.clone(), value.trim().to_owned());
            }
        }
        Self(fields)
    }

    /// A field's text; empty where it is missing.
    pub fn get(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    /// Everything the package needs, each need as its alternatives, without versions and architectures.
    pub fn depends(&self) -> Vec<Vec<String>> {
        let fields = ["Pre-Depends", "Depends"].map(|field| self.get(field).replace('\n', " "));
        fields
            .iter()
            .flat_map(|field| field.split(','))
            .map(|need| need.split('|').filter_map(relation_name).collect::<Vec<_>>())
            .filter(|alternatives| !alternatives.is_empty())
            .collect()
    }

    /// The further names it answers to.
    pub fn provides(&self) -> Vec<String> {
        self.get("Provides").split(',').filter_map(relation_name).collect()
    }
}

/// The package name in `name:any (>= 1.2)`.
fn relation_name(text: &str) -> Option<String> {
    let name = text.split_whitespace().next()?;
    let name = name.split(['(', ':']).next().unwrap_or(name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// One entry of a package's file tree, as Debian has it.
#[derive(Debug)]
pub struct DebEntry {
    /// Path without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub kind: DebKind,
}

/// The kinds of entries Debian packages have.
#[derive(Debug)]
pub enum DebKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Symlink(String),
    /// A further name of the file of that path.
    Hardlink(String),
}

/// Calls `take` with every entry of a package's file tree for which `wanted` holds.
pub fn read_files(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
    mut take: impl FnMut(DebEntry) -> Result<()>,
) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb")?;
    let mut stream =
        BufReader::with_capacity(1 << 18, child.stdout.take().context("dpkg-deb has no output")?);
    let read = read_tar(&mut stream, wanted, &mut take);
    // dpkg-deb would die of a closed pipe if the padding behind the archive stayed unread.
    std::io::copy(&mut stream, &mut std::io::sink())?;
    let status = child.wait()?;
    read.with_context(|| path.display().to_string())?;
    ensure!(status.success(), "dpkg-deb cannot unpack {}", path.display());
    Ok(())
}

fn read_tar(
    stream: &mut impl Read,
    wanted: impl Fn(&str) -> bool,
    take: &mut impl FnMut(DebEntry) -> Result<()>,
) -> Result<()> {
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(entry.path()?.to_str().context("file name is no UTF-8")?);
        if path.is_empty() || !wanted(&path) {
            continue;
        }
        let target = entry.link_name()?.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => DebKind::Directory,
            tar::EntryType::Symlink => DebKind::Symlink(target),
            tar::EntryType::Link => DebKind::Hardlink(clean(&target)),
            tar::EntryType::Regular => {
                let mut data = Vec::with_capacity(usize::try_from(entry.size())?);
                entry.read_to_end(&mut data)?;
                DebKind::File(data)
            }
            other => bail!("{path}: entries of type {other:?} are not supported"),
        };
        let header = entry.header();
        take(DebEntry { mode: header.mode()? & 0o7777, mtime: header.mtime()?, path, kind })?;
    }
    Ok(())
}

/// `./usr/bin/` as `usr/bin`.
fn clean(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path == "." { String::new() } else { path.trim_start_matches("./").trim_start_matches('/').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_fields_may_continue() {
        let control =
            Control::parse("Package: a\nDepends: b,\n c (>= 2) | d:any\nDescription: short\n long\n");
        assert_eq!(control.get("Package"), "a");
        assert_eq!(control.get("Description"), "short\nlong");
        assert_eq!(control.get("Homepage"), "");
        assert_eq!(control.depends(), [vec!["b"], vec!["c", "d"]]);
    }

    #[test]
    fn entry_paths_lose_their_decoration() {
        for (path, expected) in
            [("./", ""), (".", ""), ("./usr/bin/", "usr/bin"), ("./.hidden", ".hidden"), ("a..", "a..")]
        {
            assert_eq!(clean(path), expected);
        }
    }

    #[test]
    fn relations_lose_versions_and_architectures() {
        let control = Control::parse("Pre-Depends: x(>= 1)\nProvides: y (= 2), z:amd64\n");
        assert_eq!(control.depends(), [vec!["x"]]);
        assert_eq!(control.provides(), ["y", "z"]);
    }
}
