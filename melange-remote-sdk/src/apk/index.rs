//! `APKINDEX`: what a repository offers. Reading with its signature, merging, writing, signing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use flate2::bufread::{GzDecoder, MultiGzDecoder};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::checksum::{self, Sha1Bytes};
use super::dependency::Dependency;
use super::gzip::{self, Counting, MemberKind};
use super::reader::ApkFile;
use super::signature::{Keyring, Signed, SigningKey};
use super::tar_reader::TarReader;
use super::tar_writer::{EntryType, Header, TarWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// One record of an index.
#[derive(Debug, Clone, Default)]
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

    /// [`Self::depends`] as text.
    pub(crate) fn depends_words(&self) -> impl Iterator<Item = &str> {
        words(&self.depends)
    }

    /// [`Self::install_if`] as text.
    pub(crate) fn install_if_words(&self) -> impl Iterator<Item = &str> {
        words(&self.install_if)
    }

    /// [`Self::provides`] as text.
    pub(crate) fn provides_words(&self) -> impl Iterator<Item = &str> {
        words(&self.provides)
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

    /// The records of packages on disk, in order, read on all processors. Of each its control section is read and not its
    /// data: who needs to know that those are whole opens them with [`ApkFile::open`].
    ///
    /// # Errors
    /// As [`ApkFile::open_control`], of the first package that has some.
    pub fn of_files(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let records = paths.par_iter().map(|path| Ok(Self::from_apk(&ApkFile::open_control(path)?)));
        // Whichever is found first, the one that is told is the same in each run.
        records.collect::<Vec<Result<Self>>>().into_iter().collect()
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
        Self::read_content(Self::verify(bytes, keyring)?)
    }

    /// Checks the signature of `APKINDEX.tar.gz` if there is a keyring, and gives what stands behind it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn verify<'b>(bytes: &'b [u8], keyring: Option<&Keyring>) -> Result<&'b [u8]> {
        let damaged = |e: io::Error| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e);
        if keyring.is_some_and(Keyring::is_empty) {
            return Err(Error::new(ErrorKind::Untrusted, "there is no key to verify the index with")
                .hint("add the repository's public key to the keyring"));
        }
        if bytes.starts_with(b"ADB") {
            return Err(Error::new(ErrorKind::Unsupported, "the index is in the format of apk 3").hint(
                "indexes of this kind are not read; the repository must offer an `APKINDEX.tar.gz` for apk 2",
            ));
        }
        match signature_section(bytes).map_err(damaged)? {
            Some((section, rest)) => {
                if let Some(keyring) = keyring {
                    keyring.verify(&section, rest)?;
                }
                Ok(rest)
            }
            None if keyring.is_some() => Err(Error::new(ErrorKind::Untrusted, "the index is not signed")
                .hint("sign it, or allow unsigned repositories")),
            None => Ok(bytes),
        }
    }

    /// Reads what [`Self::verify`] gives.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_content(content: &[u8]) -> Result<Self> {
        Self::read_tar(MultiGzDecoder::new(content).take(limits::INDEX_BYTES_MAX + 1))
    }

    /// Reads the records as they are decompressed, so that memory holds what is kept and nothing else.
    fn read_tar(section: impl Read) -> Result<Self> {
        let damaged = |e: io::Error| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e);
        let mut index = Self::default();
        let mut reader = TarReader::new(section);
        while let Some(entry) = reader.next().map_err(damaged)? {
            if entry.size > limits::INDEX_BYTES_MAX {
                return Err(beyond(format!("more than {} bytes", limits::INDEX_BYTES_MAX)));
            }
            let name = entry.name_lossy();
            match name.as_str() {
                "APKINDEX" => {
                    let lines = BufReader::with_capacity(READ_BYTES, reader.content());
                    index.packages = read_records(lines)?;
                }
                "DESCRIPTION" => {
                    let content = reader.read_content(limits::INDEX_DESCRIPTION_BYTES_MAX);
                    index.description = content.map_err(damaged)?;
                }
                _ if name.starts_with(".SIGN.") => {}
                _ => {
                    return Err(Error::new(
                        ErrorKind::Untrusted,
                        format!("{name:?} has no place in an index"),
                    ));
                }
            }
        }
        // To the end, where the checksum of the compression stands.
        reader.finish().map_err(damaged)?;
        Ok(index)
    }

    /// About what the index takes in memory, in bytes.
    pub fn kept_bytes(&self) -> usize {
        self.description.len() + self.packages.iter().map(IndexPackage::kept_bytes).sum::<usize>()
    }

    /// Puts a package in: the same name and version is replaced in place, anything else goes to the end.
    pub fn put(&mut self, package: IndexPackage) {
        let same = |known: &&mut IndexPackage| known.name == package.name && known.version == package.version;
        match self.packages.iter_mut().find(same) {
            Some(known) => *known = package,
            None => self.packages.push(package),
        }
    }

    /// As [`Self::put`] for many packages, in their order.
    pub fn put_all(&mut self, packages: impl IntoIterator<Item = IndexPackage>) {
        let key = |package: &IndexPackage| (package.name.clone(), package.version.clone());
        let known = self.packages.iter().enumerate();
        let mut places = HashMap::new();
        known.for_each(|(place, package)| _ = places.entry(key(package)).or_insert(place));
        for package in packages {
            match places.entry(key(&package)) {
                Entry::Occupied(place) => self.packages[*place.get()] = package,
                Entry::Vacant(free) => {
                    free.insert(self.packages.len());
                    self.packages.push(package);
                }
            }
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
            Some(key) => Ok([key.signature_member(&unsigned, Signed::Index)?, unsigned].concat()),
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

/// The first member when it holds signatures, and the bytes behind it.
pub(super) fn signature_section(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, &[u8])>> {
    let mut head = [0; 6];
    // What is shorter is no archive, which the reader of the whole tells.
    if GzDecoder::new(bytes).read_exact(&mut head).is_err() || &head != b".SIGN." {
        return Ok(None);
    }
    let mut reader = Counting::new(bytes);
    let section = reader.read_member(limits::SIGNATURES_BYTES_MAX)?;
    let rest = usize::try_from(reader.position()).unwrap_or(usize::MAX);
    Ok(Some((section, bytes.get(rest..).unwrap_or_default())))
}

fn beyond(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("the index has {what}"))
        .hint("an index of this size is no honest one; ask who publishes it")
}

/// What is decompressed before its lines are read.
const READ_BYTES: usize = 64 << 10;

/// Reads records up to the end; everything kept is counted against the bounds as it is read.
fn read_records(mut text: impl BufRead) -> Result<Vec<IndexPackage>> {
    let mut packages = Vec::new();
    let mut kept_bytes = 0;
    let mut record = IndexPackage::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let bound = limits::INDEX_LINE_BYTES_MAX as u64 + 2;
        let read = (&mut text).take(bound).read_until(b'\n', &mut line);
        let read = read.map_err(|e| Error::new(ErrorKind::Untrusted, "the index is damaged").source(e))?;
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if line.len() > limits::INDEX_LINE_BYTES_MAX {
            let bound = limits::INDEX_LINE_BYTES_MAX;
            return Err(beyond(format!("a line of more than {bound} bytes behind {:?}", record.name)));
        }
        if !line.is_empty() {
            match std::str::from_utf8(&line) {
                Ok(line) => record.put(line)?,
                Err(_) => record.put(&String::from_utf8_lossy(&line))?,
            }
            continue;
        }
        if !record.name.is_empty() {
            let package = std::mem::take(&mut record);
            package.check_name()?;
            kept_bytes += package.kept_bytes();
            packages.push(package);
            if packages.len() > limits::INDEX_PACKAGES_MAX {
                return Err(beyond(format!("more than {} packages", limits::INDEX_PACKAGES_MAX)));
            }
            if kept_bytes > limits::INDEX_KEPT_BYTES_MAX {
                let bound = limits::INDEX_KEPT_BYTES_MAX;
                return Err(beyond(format!("records that take more than {bound} bytes of memory")));
            }
        } else {
            record = IndexPackage::default();
        }
        if read == 0 {
            return Ok(packages);
        }
    }
}

impl IndexPackage {
    /// Takes one line of the record.
    fn put(&mut self, line: &str) -> Result<()> {
        let Some((key, value)) = line.split_once(':') else { return Ok(()) };
        match key {
            "C" => self.control_sha1 = checksum::parse_q1(value),
            "P" => value.clone_into(&mut self.name),
            "V" => value.clone_into(&mut self.version),
            "A" => value.clone_into(&mut self.arch),
            "S" => self.size_bytes = value.parse().unwrap_or_default(),
            "I" => self.installed_bytes = value.parse().unwrap_or_default(),
            "T" => value.clone_into(&mut self.description),
            "U" => value.clone_into(&mut self.url),
            "L" => value.clone_into(&mut self.license),
            "o" => value.clone_into(&mut self.origin),
            "m" => value.clone_into(&mut self.maintainer),
            "t" => self.build_time = value.parse().unwrap_or_default(),
            "c" => value.clone_into(&mut self.commit),
            "D" | "i" | "p" => {
                // Short lines cannot have so many, which spares counting them.
                if value.len() > limits::INDEX_WORDS_MAX && words(value).count() > limits::INDEX_WORDS_MAX {
                    let bound = limits::INDEX_WORDS_MAX;
                    let what = format!("more than {bound} words in the line `{key}:` of {:?}", self.name);
                    return Err(beyond(what));
                }
                let field = match key {
                    "D" => &mut self.depends,
                    "i" => &mut self.install_if,
                    _ => &mut self.provides,
                };
                value.clone_into(field);
            }
            "k" => self.provider_priority = value.parse().unwrap_or_default(),
            _ => {}
        }
        Ok(())
    }

    /// About what the record takes in memory, in bytes: each text has the header of its allocation.
    pub(crate) fn kept_bytes(&self) -> usize {
        let texts = [
            &self.name,
            &self.version,
            &self.arch,
            &self.description,
            &self.url,
            &self.license,
            &self.origin,
            &self.maintainer,
            &self.commit,
            &self.depends,
            &self.install_if,
            &self.provides,
        ];
        let heap = |text: &&String| if text.is_empty() { 0 } else { text.len() + 16 };
        size_of::<Self>() + texts.iter().map(heap).sum::<usize>()
    }

    fn check_name(&self) -> Result<()> {
        if self.name.contains('/') || self.version.contains('/') || self.name.starts_with('.') {
            let message = format!("the index names a package {:?}, which is no file name", self.name);
            return Err(Error::new(ErrorKind::Untrusted, message));
        }
        Ok(())
    }
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
        Index { description: b"d".to_vec(), packages: read_records(text.as_bytes()).unwrap() }
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
    fn broken_records_are_refused_by_their_bound() {
        let words = format!("P:a\nV:1\nD:{}\n\n", "b ".repeat(limits::INDEX_WORDS_MAX + 1));
        let line = format!("P:a\nT:{}\n\n", "x".repeat(limits::INDEX_LINE_BYTES_MAX));
        for (text, bound) in [(words, "words in the line `D:` of \"a\""), (line, "a line of more than")] {
            let error = read_records(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            assert!(error.to_string().contains(bound), "{error}");
        }
        for name in ["a/b", ".."] {
            assert!(read_records(format!("P:{name}\nV:1").as_bytes()).is_err(), "{name}");
        }
        let open = read_records(&b"V:1\n\nP:a\r\nV:1"[..]).unwrap();
        assert_eq!((open.len(), open[0].name.as_str(), open[0].version.as_str()), (1, "a", "1"));
    }

    #[test]
    fn the_same_version_is_replaced_in_place() {
        let mut index = sample();
        let mut newer = index.packages[0].clone();
        newer.description = "other".to_owned();
        index.put(newer.clone());
        assert_eq!((index.packages.len(), index.packages[0].description.as_str()), (1, "other"));
        newer.version = "2-r0".to_owned();
        index.put(newer.clone());
        assert_eq!(index.packages.len(), 2);
        let mut one_by_one = index.clone();
        let mut other = newer.clone();
        other.name = "other".to_owned();
        newer.description = "newest".to_owned();
        let many = [other.clone(), newer.clone(), other, newer];
        many.iter().for_each(|package| one_by_one.put(package.clone()));
        index.put_all(many);
        assert_eq!(format!("{index:?}"), format!("{one_by_one:?}"));
        assert_eq!(index.packages.len(), 3);
    }
}
