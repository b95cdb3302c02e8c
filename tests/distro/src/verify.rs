//! Reads a repository back: signatures, sums, and whether every dependency can be met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::analyse::before_version;
use crate::apk::{ARCH, INDEX};
use crate::key::{KEY_NAME, verify};

/// What was checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Packages.
    pub packages: usize,
    /// Files and links with a sum.
    pub sums: usize,
    /// Dependencies.
    pub dependencies: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} packages, {} sums and {} dependencies are right",
            self.packages, self.sums, self.dependencies
        )
    }
}

/// Checks the repository `make` put into a directory.
pub fn repository(directory: &Path) -> Result<Checked> {
    let key_path = directory.join("keys").join(KEY_NAME);
    let key = fs::read_to_string(&key_path).with_context(|| key_path.display().to_string())?;
    let directory = directory.join(ARCH);
    let records = read_index(&directory.join(INDEX), &key).context("index")?;
    let mut checked = Checked::default();
    let mut owners = BTreeMap::new();
    let mut expected: BTreeSet<String> = [INDEX.to_owned()].into();
    for record in &records {
        let file = format!("{}-{}.apk", record.get("P"), record.get("V"));
        let package = read_package(&directory.join(&file), &key).with_context(|| file.clone())?;
        package.agrees_with(record).with_context(|| file.clone())?;
        for path in package.paths {
            if let Some(owner) = owners.insert(path.clone(), record.get("P").to_owned()) {
                bail!("{path} belongs to {owner} and to {}", record.get("P"));
            }
        }
        checked.sums += package.sums;
        checked.packages += 1;
        expected.insert(file);
    }
    for entry in fs::read_dir(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(expected.contains(&name), "{name} is not in the index");
    }
    checked.dependencies = check_dependencies(&records)?;
    Ok(checked)
}

/// One record of the index.
#[derive(Debug, Default)]
struct Record(BTreeMap<String, String>);

impl Record {
    fn get(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    fn list(&self, field: &str) -> Vec<&str> {
        self.get(field).split_whitespace().collect()
    }
}

fn read_index(path: &Path, key: &str) -> Result<Vec<Record>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (signature, rest) = first_member(&bytes)?;
    check_signature(&signature, rest, key)?;
    let mut text = String::new();
    let mut archive = tar::Archive::new(MultiGzDecoder::new(rest));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_os_str() == "APKINDEX" {
            entry.read_to_string(&mut text)?;
        }
    }
    ensure!(text.ends_with("\n\n"), "the last record is not closed by a blank line");
    let record = |block: &str| {
        let fields = block.lines().filter_map(|line| line.split_once(':'));
        Record(fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    };
    Ok(text.trim_end().split("\n\n").map(record).collect())
}

/// Unpacks the first gzip member; returns its content and the bytes behind it.
fn first_member(bytes: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut decoder = GzDecoder::new(bytes);
    let mut content = Vec::new();
    decoder.read_to_end(&mut content)?;
    Ok((content, decoder.into_inner()))
}

fn check_signature(member: &[u8], signed: &[u8], key: &str) -> Result<()> {
    let mut archive = tar::Archive::new(member);
    let mut entry = archive.entries()?.next().context("the signature member is empty")??;
    let name = entry.path()?.to_string_lossy().into_owned();
    ensure!(name == format!(".SIGN.RSA256.{KEY_NAME}"), "unexpected signature {name}");
    let mut signature = Vec::new();
    entry.read_to_end(&mut signature)?;
    ensure!(verify(key, signed, &signature)?, "the signature does not fit");
    Ok(())
}

/// What was read of a package.
struct Package {
    info: BTreeMap<String, Vec<String>>,
    control_sum: [u8; 20],
    bytes: u64,
    /// Everything but directories.
    paths: Vec<String>,
    sums: usize,
}

impl Package {
    fn agrees_with(&self, record: &Record) -> Result<()> {
        let one = |key: &str| self.info.get(key).and_then(|values| values.first()).map_or("", String::as_str);
        let all = |key: &str| self.info.get(key).cloned().unwrap_or_default();
        let sum = format!("Q1{}", STANDARD.encode(self.control_sum));
        ensure!(record.get("C") == sum, "the index has another control sum");
        ensure!(record.get("S") == self.bytes.to_string(), "the index has another size");
        for (field, key) in [
            ("P", "pkgname"),
            ("V", "pkgver"),
            ("A", "arch"),
            ("I", "size"),
            ("T", "pkgdesc"),
            ("U", "url"),
            ("o", "origin"),
            ("t", "builddate"),
            ("k", "provider_priority"),
        ] {
            ensure!(record.get(field) == one(key), "{field} is not {key}");
        }
        ensure!(record.list("D") == all("depend"), "D is not depend");
        ensure!(record.list("p") == all("provides"), "p is not provides");
        Ok(())
    }
}

fn read_package(path: &Path, key: &str) -> Result<Package> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let bytes = file.metadata()?.len();
    // Signature and control are small: they lie within the first part of the file.
    let mut head = vec![0; usize::try_from(bytes.min(1 << 20))?];
    file.read_exact(&mut head)?;
    let (signature, rest) = first_member(&head).context("signature member")?;
    let (control, data) = first_member(rest).context("control member")?;
    let compressed = &rest[..rest.len() - data.len()];
    check_signature(&signature, compressed, key)?;
    let info = read_info(&control)?;

    file.seek(SeekFrom::Start((head.len() - data.len()) as u64))?;
    let mut source = Hashing { inner: BufReader::with_capacity(1 << 16, file), hash: Sha256::new() };
    let (paths, sums, size) = read_data(&mut source)?;
    // The decoder may stop before the last bytes; the sum covers all of them.
    std::io::copy(&mut source, &mut std::io::sink())?;
    let hash = hex::encode(source.hash.finalize());
    ensure!(info.get("datahash").is_some_and(|values| *values == [hash]), "datahash does not fit");
    ensure!(info.get("size").is_some_and(|values| *values == [size.to_string()]), "size does not fit");
    Ok(Package { info, control_sum: Sha1::digest(compressed).into(), bytes, paths, sums })
}

fn read_info(control: &[u8]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut archive = tar::Archive::new(control);
    let mut entry = archive.entries()?.next().context("the control member is empty")??;
    ensure!(entry.path()?.as_os_str() == ".PKGINFO", "the control member does not begin with .PKGINFO");
    let mut text = String::new();
    entry.read_to_string(&mut text)?;
    let mut info: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").with_context(|| format!("line {line:?}"))?;
        info.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Ok(info)
}

/// Reads a data member: the paths that are no directories, how many sums were right, the summed size.
fn read_data(source: &mut impl BufRead) -> Result<(Vec<String>, usize, u64)> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(source));
    let (mut paths, mut sums, mut size) = (Vec::new(), 0, 0);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::Directory {
            continue;
        }
        let recorded = entry
            .pax_extensions()?
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .find(|record| record.key_bytes() == b"APK-TOOLS.checksum.SHA1")
            .map(|record| String::from_utf8_lossy(record.value_bytes()).into_owned());
        let target = entry.link_name()?.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let actual = match kind {
            tar::EntryType::Regular => {
                let mut hash = Sha1::new();
                size += std::io::copy(&mut entry, &mut hash)?;
                hex::encode(hash.finalize())
            }
            tar::EntryType::Symlink => hex::encode(Sha1::digest(target.as_bytes())),
            tar::EntryType::Link => known
                .get(&target)
                .cloned()
                .with_context(|| format!("{path}: {target} does not stand before it"))?,
            other => bail!("{path}: unexpected kind {other:?}"),
        };
        ensure!(recorded.as_ref() == Some(&actual), "{path}: the sum is {actual}, recorded is {recorded:?}");
        known.insert(path.clone(), actual);
        paths.push(path);
        sums += 1;
    }
    Ok((paths, sums, size))
}

/// Whether each dependency has a provider whose version fits; the repository's own use no operators but `=`.
fn check_dependencies(records: &[Record]) -> Result<usize> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for record in records {
        names.insert(record.get("P"));
        names.extend(record.list("p").into_iter().map(before_version));
    }
    let mut count = 0;
    for record in records {
        for need in record.list("D") {
            ensure!(
                names.contains(before_version(need)),
                "{} depends on {need}, which is nowhere",
                record.get("P")
            );
            count += 1;
        }
    }
    Ok(count)
}

/// A reader that hashes what was taken from it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(buffer) = self.inner.fill_buf() {
            self.hash.update(&buffer[..count.min(buffer.len())]);
        }
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::{Metadata, write_data, write_index, write_package};
    use crate::key::SigningKey;
    use crate::tree::{Entry, Node, Tree};

    fn sample(directory: &Path, depends: &[&str]) -> SigningKey {
        let repository = directory.join(ARCH);
        fs::create_dir_all(&repository).unwrap();
        let key = SigningKey::load_or_generate(&directory.join("keys")).unwrap();
        let mut tree = Tree::default();
        tree.set_file("usr/bin/a", 0o755, "#!/bin/sh\n");
        tree.set_link("usr/bin/b", "a");
        let node = Node::Hardlink("usr/bin/a".to_owned());
        tree.0.insert("usr/bin/0".to_owned(), Entry { mode: 0o755, mtime: Some(9), node });
        tree.add_parents().unwrap();
        let data_path = directory.join("data");
        let data = write_data(&tree, &data_path).unwrap();
        let metadata = Metadata {
            name: "a".to_owned(),
            version: "1-r0".to_owned(),
            installed_bytes: data.installed_bytes,
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            provides: vec!["cmd:a=1-r0".to_owned()],
            ..Metadata::default()
        };
        let record = write_package(&repository, &metadata, &data, &data_path, Some("#!x\n"), &key).unwrap();
        write_index(&repository.join(INDEX), "test", &[record], &key).unwrap();
        key
    }

    #[test]
    fn a_written_package_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        sample(directory.path(), &["cmd:a"]);
        let checked = repository(directory.path()).unwrap();
        assert_eq!(checked, Checked { packages: 1, sums: 3, dependencies: 1 });
    }

    #[test]
    fn damage_shows() {
        let directory = tempfile::tempdir().unwrap();
        sample(directory.path(), &["gone"]);
        assert!(format!("{:#}", repository(directory.path()).unwrap_err()).contains("gone"));

        sample(directory.path(), &[]);
        let path = directory.path().join(ARCH).join("a-1-r0.apk");
        let whole = fs::read(&path).unwrap();
        // The gzip trailer of the last member: nothing but the data's sum covers it in time.
        for place in [20, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(repository(directory.path()).is_err(), "a change at {place} went unnoticed");
        }
        fs::write(&path, &whole).unwrap();
        repository(directory.path()).unwrap();

        let other = tempfile::tempdir().unwrap();
        SigningKey::load_or_generate(other.path()).unwrap();
        fs::copy(other.path().join(KEY_NAME), directory.path().join("keys").join(KEY_NAME)).unwrap();
        assert!(repository(directory.path()).is_err());
    }
}
