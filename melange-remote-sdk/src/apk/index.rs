//! `APKINDEX`: what a repository offers. Reading with its signature, merging, writing, signing.

use std::io::{self, Write};

use super::checksum::{self, Sha1Bytes};
use super::dependency::Dependency;
use super::gzip::{self, Counting, MemberKind};
use super::reader::ApkFile;
use super::signature::{Keyring, SigningKey};
use super::tar_reader::TarReader;
use super::tar_writer::{EntryType, Header, TarWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// One record of an index.
#[derive(Debug, Clone)]
pub struct IndexPackage {
    /// `C:`, SHA-1 of the compressed control section; `None` for another kind of checksum.
    pub control_sha1: Option<Sha1Bytes>,
    /// `P:`
    pub name: String,
    /// `V:` as written.
    pub version: String,
    /// `A:`
    pub arch: String,
    /// `S:` size of the package file.
    pub size_bytes: u64,
    /// `I:` installed size.
    pub installed_bytes: u64,
    /// `T:`
    pub description: String,
    /// `U:`
    pub url: String,
    /// `L:`
    pub license: String,
    /// `o:`
    pub origin: String,
    /// `m:`
    pub maintainer: String,
    /// `t:` seconds since 1970.
    pub build_time: i64,
    /// `c:`
    pub commit: String,
    /// `D:` as written, words with spaces between.
    pub depends: String,
    /// `i:` as written.
    pub install_if: String,
    /// `p:` as written.
    pub provides: String,
    /// `k:`
    pub provider_priority: u64,
}

impl IndexPackage {
    /// `<name>-<version>.apk`.
    pub fn file_name(&self) -> String {
        format!("{}-{}.apk", self.name, self.version)
    }

    /// What it needs.
    pub fn depends(&self) -> impl Iterator<Item = Dependency<'_>> {
        words(&self.depends).map(Dependency::parse)
    }

    /// What makes it come along by itself.
    pub fn install_if(&self) -> impl Iterator<Item = Dependency<'_>> {
        words(&self.install_if).map(Dependency::parse)
    }

    /// What it provides besides its own name.
    pub fn provides(&self) -> impl Iterator<Item = Dependency<'_>> {
        words(&self.provides).map(Dependency::parse)
    }

    /// The record of a package on disk.
    pub fn from_apk(apk: &ApkFile) -> Self {
        let info = &apk.info;
        Self {
            control_sha1: Some(apk.control_sha1),
            name: info.pkgname.clone(),
            version: info.pkgver.clone(),
            arch: info.arch.clone(),
            size_bytes: apk.size_bytes,
            installed_bytes: info.size,
            description: before_comment(&info.pkgdesc),
            url: info.url.clone(),
            license: info.license.first().cloned().unwrap_or_default(),
            origin: info.origin.clone(),
            maintainer: info.maintainer.clone(),
            build_time: info.builddate,
            commit: info.commit.clone(),
            depends: info.depend.join(" "),
            install_if: info.install_if.join(" "),
            provides: info.provides.join(" "),
            provider_priority: info.provider_priority.parse().unwrap_or_default(),
        }
    }

    fn write(&self, text: &mut String) {
        let mut line = |key: char, value: &str| {
            text.push(key);
            text.push(':');
            text.push_str(value);
            text.push('\n');
        };
        if let Some(sum) = &self.control_sha1 {
            line('C', &checksum::q1(sum));
        }
        line('P', &self.name);
        line('V', &self.version);
        for (key, value, always) in [
            ('A', self.arch.clone(), false),
            ('S', nonzero(self.size_bytes), false),
            ('I', nonzero(self.installed_bytes), false),
            ('T', self.description.clone(), true),
            ('U', self.url.clone(), false),
            ('L', self.license.clone(), false),
            ('o', self.origin.clone(), false),
            ('m', self.maintainer.clone(), false),
            ('t', self.build_time.to_string(), true),
            ('c', self.commit.clone(), false),
            ('D', self.depends.clone(), false),
            ('i', self.install_if.clone(), false),
            ('p', self.provides.clone(), false),
            ('k', nonzero(self.provider_priority), false),
        ] {
            if always || !value.is_empty() {
                line(key, &value.replace('\n', " "));
            }
        }
        text.push('\n');
    }
}

fn nonzero(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// Upstream's reader of `.PKGINFO` cuts values at `#` and `;`, and indexes carry the cut text.
fn before_comment(text: &str) -> String {
    text.find(['#', ';']).map_or(text, |at| text[..at].trim_end()).to_owned()
}

/// An index: its packages in order, and its description.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// The content of `DESCRIPTION`.
    pub description: Vec<u8>,
    /// The packages.
    pub packages: Vec<IndexPackage>,
}

impl Index {
    /// Reads `APKINDEX.tar.gz`; with a keyring its signature must hold, without one it is not looked at.
    ///
    /// # Errors
    /// `Untrusted` for a bad or missing signature and for damage, `LimitExceeded` for size.
    pub fn read(bytes: &[u8], keyring: Option<&Keyring>) -> Result<Self> {
        let damaged = |e: io::Error| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e);
        if keyring.is_some_and(Keyring::is_empty) {
            return Err(Error::new(ErrorKind::Untrusted, "there is no key to verify the index with")
                .hint("add the repository's public key to the keyring"));
        }
        let mut reader = Counting::new(bytes);
        let mut section = reader.read_member(limits::INDEX_BYTES_MAX).map_err(damaged)?;
        let mut signed = false;
        if section.starts_with(b".SIGN.") {
            let rest = usize::try_from(reader.position()).unwrap_or(usize::MAX);
            if let Some(keyring) = keyring {
                keyring.verify(&section, &bytes[rest..])?;
            }
            signed = true;
            section.clear();
        }
        if !signed && keyring.is_some() {
            return Err(Error::new(ErrorKind::Untrusted, "the index is not signed")
                .hint("sign it, or allow unsigned repositories"));
        }
        while !reader.at_end().map_err(damaged)? {
            let more = reader.read_member(limits::INDEX_BYTES_MAX).map_err(damaged)?;
            section.extend_from_slice(&more);
            if section.len() as u64 > limits::INDEX_BYTES_MAX {
                return Err(Error::new(ErrorKind::LimitExceeded, "the index is too large"));
            }
        }
        Self::read_tar(&section)
    }

    fn read_tar(section: &[u8]) -> Result<Self> {
        let damaged = |e: io::Error| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e);
        let mut index = Self::default();
        let mut reader = TarReader::new(section);
        while let Some(entry) = reader.next().map_err(damaged)? {
            let name = entry.name_lossy();
            let content = reader.read_content(limits::INDEX_BYTES_MAX).map_err(damaged)?;
            match name.as_str() {
                "APKINDEX" => index.packages = parse_records(&String::from_utf8_lossy(&content))?,
                "DESCRIPTION" => index.description = content,
                _ if name.starts_with(".SIGN.") => {}
                _ => {
                    return Err(Error::new(
                        ErrorKind::Untrusted,
                        format!("{name:?} has no place in an index"),
                    ));
                }
            }
        }
        Ok(index)
    }

    /// Puts a package in: the same name and version is replaced in place, anything else goes to the end.
    pub fn put(&mut self, package: IndexPackage) {
        let same = |known: &&mut IndexPackage| known.name == package.name && known.version == package.version;
        match self.packages.iter_mut().find(same) {
            Some(known) => *known = package,
            None => self.packages.push(package),
        }
    }

    /// The archive's bytes, signed when a key is given.
    ///
    /// # Errors
    /// As [`SigningKey::sign`].
    pub fn write(&self, key: Option<&SigningKey>) -> Result<Vec<u8>> {
        let mut text = String::new();
        self.packages
            .iter()
            .filter(|package| !package.name.is_empty())
            .for_each(|package| package.write(&mut text));
        let unsigned = pack(&text, &self.description)
            .map_err(|e| Error::unexpected("cannot write the index").source(e))?;
        match key {
            Some(key) => Ok([key.signature_member(&unsigned, 0, false)?, unsigned].concat()),
            None => Ok(unsigned),
        }
    }
}

fn pack(text: &str, description: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(gzip::encoder(MemberKind::Plain, Vec::new()));
    for (name, content) in [("APKINDEX", text.as_bytes()), ("DESCRIPTION", description)] {
        let mut header = Header::new(name, EntryType::File, 0o644);
        header.size = content.len() as u64;
        tar.append(&header, &mut &content[..])?;
    }
    let mut encoder = tar.finish()?;
    encoder.flush()?;
    encoder.finish()
}

fn parse_records(text: &str) -> Result<Vec<IndexPackage>> {
    let mut packages = Vec::new();
    for record in text.split("\n\n") {
        if let Some(package) = parse_record(record)? {
            packages.push(package);
        }
    }
    Ok(packages)
}

fn parse_record(record: &str) -> Result<Option<IndexPackage>> {
    let mut package = IndexPackage {
        control_sha1: None,
        name: String::new(),
        version: String::new(),
        arch: String::new(),
        size_bytes: 0,
        installed_bytes: 0,
        description: String::new(),
        url: String::new(),
        license: String::new(),
        origin: String::new(),
        maintainer: String::new(),
        build_time: 0,
        commit: String::new(),
        depends: String::new(),
        install_if: String::new(),
        provides: String::new(),
        provider_priority: 0,
    };
    for line in record.lines() {
        if line.len() > limits::INDEX_LINE_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "a line of the index is too long"));
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        match key {
            "C" => package.control_sha1 = checksum::parse_q1(value),
            "P" => value.clone_into(&mut package.name),
            "V" => value.clone_into(&mut package.version),
            "A" => value.clone_into(&mut package.arch),
            "S" => package.size_bytes = value.parse().unwrap_or_default(),
            "I" => package.installed_bytes = value.parse().unwrap_or_default(),
            "T" => value.clone_into(&mut package.description),
            "U" => value.clone_into(&mut package.url),
            "L" => value.clone_into(&mut package.license),
            "o" => value.clone_into(&mut package.origin),
            "m" => value.clone_into(&mut package.maintainer),
            "t" => package.build_time = value.parse().unwrap_or_default(),
            "c" => value.clone_into(&mut package.commit),
            "D" => value.clone_into(&mut package.depends),
            "i" => value.clone_into(&mut package.install_if),
            "p" => value.clone_into(&mut package.provides),
            "k" => package.provider_priority = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    if package.name.is_empty() {
        return Ok(None);
    }
    if package.name.contains('/') || package.version.contains('/') || package.name.starts_with('.') {
        let message = format!("the index names a package {:?}, which is no file name", package.name);
        return Err(Error::new(ErrorKind::Untrusted, message));
    }
    Ok(Some(package))
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::signature::generate_key;

    fn sample() -> Index {
        let text = "C:Q1w0Rl6HA39gsEkqaJArR01meHQmQ=\nP:a\nV:1-r0\nA:x86_64\nS:10\nI:20\nT:text\nt:0\nD:b so:c.so.1\np:cmd:a=1-r0\nk:5\n\nV:9\n\n";
        Index { description: b"d".to_vec(), packages: parse_records(text).unwrap() }
    }

    #[test]
    fn round_trips_signed_and_unsigned() {
        let key = SigningKey::from_pem("k.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
        let mut keyring = Keyring::default();
        keyring.add("k.rsa.pub", key.public_pem().unwrap().as_bytes()).unwrap();
        let index = sample();
        assert_eq!(index.packages.len(), 1);
        let signed = index.write(Some(&key)).unwrap();
        let read = Index::read(&signed, Some(&keyring)).unwrap();
        assert_eq!(read.write(None).unwrap(), index.write(None).unwrap());
        let unsigned = index.write(None).unwrap();
        assert!(Index::read(&unsigned, Some(&keyring)).is_err());
        assert!(Index::read(&unsigned, None).is_ok());
        assert!(Index::read(&signed, Some(&Keyring::default())).is_err());
        let mut damaged = signed.clone();
        let last = damaged.len() - 12;
        damaged[last] ^= 1;
        assert!(Index::read(&damaged, Some(&keyring)).is_err());
    }

    #[test]
    fn the_same_version_is_replaced_in_place() {
        let mut index = sample();
        let mut newer = index.packages[0].clone();
        newer.description = "other".to_owned();
        index.put(newer.clone());
        assert_eq!((index.packages.len(), index.packages[0].description.as_str()), (1, "other"));
        newer.version = "2-r0".to_owned();
        index.put(newer);
        assert_eq!(index.packages.len(), 2);
    }
}
