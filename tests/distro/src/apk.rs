//! APK packages and their index: three gzip members (signature, control, data), and what stands in them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::archive::{Kind, TarEntry, gzip_member, sha1, write_end, write_entry};
use crate::key::{KEY_NAME, SigningKey};
use crate::tree::{Node, Tree};

/// The architecture of all packages.
pub const ARCH: &str = "x86_64";
/// The file name of a repository's index.
pub const INDEX: &str = "APKINDEX.tar.gz";
/// Fast rather than small: level 6 takes twice the time for a tenth less.
const DATA_LEVEL: u32 = 3;
const CONTROL_LEVEL: u32 = 6;

/// What a package says about itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its version with revision.
    pub version: String,
    /// One line about it.
    pub description: String,
    /// Its home page; may be empty.
    pub url: String,
    /// The source it was built from.
    pub origin: String,
    /// Seconds since 1970.
    pub build_date: u64,
    /// The summed size of its files.
    pub installed_bytes: u64,
    /// What it needs.
    pub depends: Vec<String>,
    /// What it answers to, with versions.
    pub provides: Vec<String>,
    /// Rank among packages that provide the same name.
    pub provider_priority: Option<u32>,
    /// Directories whose change runs its trigger.
    pub triggers: Vec<String>,
}

impl Metadata {
    /// The package's file name.
    pub fn file_name(&self) -> String {
        format!("{}-{}.apk", self.name, self.version)
    }

    fn pkginfo(&self, data_hash: &[u8; 32]) -> String {
        let mut lines = vec![
            "# Made of Debian packages".to_owned(),
            format!("pkgname = {}", self.name),
            format!("pkgver = {}", self.version),
            format!("arch = {ARCH}"),
            format!("size = {}", self.installed_bytes),
            format!("origin = {}", self.origin),
            format!("pkgdesc = {}", self.description),
            format!("url = {}", self.url),
            "commit = ".to_owned(),
            format!("builddate = {}", self.build_date),
            "license = NOASSERTION".to_owned(),
        ];
        lines.extend(self.depends.iter().map(|name| format!("depend = {name}")));
        lines.extend(self.provides.iter().map(|name| format!("provides = {name}")));
        lines.extend(self.provider_priority.map(|rank| format!("provider_priority = {rank}")));
        if !self.triggers.is_empty() {
            lines.push(format!("triggers = {}", self.triggers.join(" ")));
        }
        lines.push(format!("datahash = {}", hex::encode(data_hash)));
        lines.join("\n") + "\n"
    }

    fn index_record(&self, control_sum: &[u8; 20], file_bytes: u64) -> String {
        let mut lines = vec![
            format!("C:Q1{}", STANDARD.encode(control_sum)),
            format!("P:{}", self.name),
            format!("V:{}", self.version),
            format!("A:{ARCH}"),
            format!("S:{file_bytes}"),
            format!("I:{}", self.installed_bytes),
            format!("T:{}", self.description),
            format!("U:{}", self.url),
            "L:NOASSERTION".to_owned(),
            format!("o:{}", self.origin),
            format!("t:{}", self.build_date),
        ];
        if !self.depends.is_empty() {
            lines.push(format!("D:{}", self.depends.join(" ")));
        }
        if !self.provides.is_empty() {
            lines.push(format!("p:{}", self.provides.join(" ")));
        }
        lines.extend(self.provider_priority.map(|rank| format!("k:{rank}")));
        lines.join("\n") + "\n\n"
    }
}

/// A data member that was written.
#[derive(Debug, Clone, Copy)]
pub struct DataMember {
    /// SHA-256 of its compressed bytes.
    pub hash: [u8; 32],
    /// Its compressed size.
    pub bytes: u64,
    /// The summed size of the files in it.
    pub installed_bytes: u64,
}

/// Writes a package's data member into a file of its own.
pub fn write_data(tree: &Tree, path: &Path) -> Result<DataMember> {
    let out = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    let newest = tree.newest();
    let mut installed_bytes = 0;
    // A hard link comes after all files, so that its target stands before it.
    let is_link = |node: &Node| matches!(node, Node::Hardlink(_));
    let files = tree.0.iter().filter(|(_, entry)| !is_link(&entry.node));
    let links = tree.0.iter().filter(|(_, entry)| is_link(&entry.node));
    let (hash, bytes) = gzip_member(out, DATA_LEVEL, |mut gz| {
        for (name, entry) in files.chain(links) {
            let kind = match &entry.node {
                Node::Directory => Kind::Directory,
                Node::File(data) => {
                    installed_bytes += data.len() as u64;
                    Kind::File(data)
                }
                Node::Symlink(target) => Kind::Symlink(target),
                Node::Hardlink(target) => Kind::Hardlink(target),
            };
            let checksum = tree.checksum(&entry.node)?;
            let mtime = entry.mtime.unwrap_or(newest);
            write_entry(&mut gz, &TarEntry { path: name, mode: entry.mode, mtime, kind, checksum })?;
        }
        write_end(&mut gz)
    })?;
    Ok(DataMember { hash, bytes, installed_bytes })
}

/// Puts a whole package together; returns its record in the index.
pub fn write_package(
    directory: &Path,
    metadata: &Metadata,
    data: &DataMember,
    data_path: &Path,
    trigger: Option<&str>,
    key: &SigningKey,
) -> Result<String> {
    let info = metadata.pkginfo(&data.hash);
    let entry = |path, mode, text| {
        let kind = Kind::File(text);
        TarEntry { path, mode, mtime: metadata.build_date, kind, checksum: None }
    };
    let mut control = Vec::new();
    gzip_member(&mut control, CONTROL_LEVEL, |mut gz| {
        write_entry(&mut gz, &entry(".PKGINFO", 0o644, info.as_bytes()))?;
        match trigger {
            Some(script) => write_entry(&mut gz, &entry(".trigger", 0o755, script.as_bytes())),
            None => Ok(()),
        }
    })?;
    let path = directory.join(metadata.file_name());
    let mut out = File::create(&path).with_context(|| path.display().to_string())?;
    let signature = signature_member(&control, metadata.build_date, key)?;
    out.write_all(&signature)?;
    out.write_all(&control)?;
    let mut data_file = File::open(data_path).with_context(|| data_path.display().to_string())?;
    std::io::copy(&mut data_file, &mut out)?;
    let file_bytes = (signature.len() + control.len()) as u64 + data.bytes;
    Ok(metadata.index_record(&sha1(&control), file_bytes))
}

/// Writes the signed index of all records.
pub fn write_index(path: &Path, description: &str, records: &[String], key: &SigningKey) -> Result<()> {
    let text = records.concat();
    let mut index = Vec::new();
    gzip_member(&mut index, CONTROL_LEVEL, |mut gz| {
        for (name, content) in [("DESCRIPTION", description.as_bytes()), ("APKINDEX", text.as_bytes())] {
            let kind = Kind::File(content);
            write_entry(&mut gz, &TarEntry { path: name, mode: 0o644, mtime: 0, kind, checksum: None })?;
        }
        write_end(&mut gz)
    })?;
    let mut file = signature_member(&index, 0, key)?;
    file.extend(index);
    std::fs::write(path, file).with_context(|| path.display().to_string())
}

/// The member that stands before what it signs; it has no end of archive, so that the archive goes on behind it.
fn signature_member(signed: &[u8], mtime: u64, key: &SigningKey) -> Result<Vec<u8>> {
    let signature = key.sign(signed)?;
    let name = format!(".SIGN.RSA256.{KEY_NAME}");
    let mut member = Vec::new();
    gzip_member(&mut member, CONTROL_LEVEL, |mut gz| {
        let kind = Kind::File(&signature);
        write_entry(&mut gz, &TarEntry { path: &name, mode: 0o644, mtime, kind, checksum: None })
    })?;
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_and_record_agree() {
        let metadata = Metadata {
            name: "a".to_owned(),
            version: "1-r0".to_owned(),
            depends: vec!["b".to_owned(), "so:libc.so.6".to_owned()],
            provides: vec!["cmd:a=1-r0".to_owned()],
            provider_priority: Some(10),
            triggers: vec!["/bin".to_owned(), "/usr/bin".to_owned()],
            ..Metadata::default()
        };
        let info = metadata.pkginfo(&[0xab; 32]);
        assert!(
            info.contains(
                "depend = b\ndepend = so:libc.so.6\nprovides = cmd:a=1-r0\nprovider_priority = 10\n"
            )
        );
        assert!(info.contains("triggers = /bin /usr/bin\n"));
        assert!(info.ends_with(&format!("datahash = {}\n", "ab".repeat(32))));
        let record = metadata.index_record(&[0; 20], 7);
        assert!(
            record.starts_with("C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:a\nV:1-r0\nA:x86_64\nS:7\n"),
            "{record}"
        );
        assert!(record.ends_with("D:b so:libc.so.6\np:cmd:a=1-r0\nk:10\n\n"));
    }
}
