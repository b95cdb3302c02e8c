//! Reading packages: sections, description, files; nothing is trusted before its checksum held.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::checksum::{self, Sha1Bytes};
use super::gzip::Counting;
use super::pkginfo::PkgInfo;
use super::signature::Keyring;
use super::tar_reader::{RawEntry, TarReader};
use super::tar_writer::EntryType;
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// A package on disk whose sections were found and whose data section has the digest that it claims.
#[derive(Debug, Clone)]
pub struct ApkFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its description.
    pub info: PkgInfo,
    /// The unpacked signature section, when there is one.
    pub signature: Option<Vec<u8>>,
    /// Bytes of the compressed control section within the file.
    pub control_range: (u64, u64),
    /// SHA-1 of the compressed control section: the identity of the package in an index.
    pub control_sha1: Sha1Bytes,
    /// Files of the control section besides `.PKGINFO`, with their modes.
    pub scripts: BTreeMap<String, (u32, Vec<u8>)>,
    /// Where the data section begins.
    pub data_offset: u64,
    /// The size of the file.
    pub size_bytes: u64,
}

/// A file of a package's data section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApkEntry {
    /// The path without a leading slash.
    pub path: String,
    /// `file`, `directory`, `symlink`, `hardlink` or `device`.
    pub kind: String,
    /// The mode in octal, such as `0755`.
    pub mode: String,
    /// The owner's id.
    pub uid: u64,
    /// The group's id.
    pub gid: u64,
    /// The owner's name.
    pub uname: String,
    /// The group's name.
    pub gname: String,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// The target of a link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// The SHA-1 that the package records, hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum: String,
    /// Extended attributes, values in hex.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

fn broken(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |e| Error::new(ErrorKind::Untrusted, format!("{} is no intact package", path.display())).source(e)
}

impl ApkFile {
    /// Reads a package's sections, verifies its `datahash` and that the data decompresses to its end.
    ///
    /// # Errors
    /// `NotFound`, or `Untrusted` when the file is damaged or no package.
    pub fn open(path: &Path) -> Result<Self> {
        let apk = Self::open_control(path)?;
        let mut data = apk.data()?;
        io::copy(&mut data, &mut io::sink()).map_err(broken(path))?;
        data.finish()?;
        Ok(apk)
    }

    /// As [`Self::open`] without a look at the data; whoever reads that ends with [`ApkData::finish`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_control(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let size_bytes = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let damaged = broken(path);
        let mut reader = Counting::new(BufReader::new(file));
        refuse_version_3(&mut reader, path)?;
        let mut start = 0;
        let mut section = reader.read_member(limits::APK_CONTROL_BYTES_MAX).map_err(&damaged)?;
        let mut signature = None;
        if first_name(&section).map_err(&damaged)?.starts_with(".SIGN.") {
            signature = Some(section);
            start = reader.position();
            section = reader.read_member(limits::APK_CONTROL_BYTES_MAX).map_err(&damaged)?;
        }
        let data_offset = reader.position();
        let (info, scripts) = read_control(&section, path)?;
        let control_sha1 = hash_range(path, start, data_offset).map_err(&damaged)?;
        Ok(Self {
            path: path.to_owned(),
            info,
            signature,
            control_range: (start, data_offset),
            control_sha1,
            scripts,
            data_offset,
            size_bytes,
        })
    }

    /// The files of the data section, unpacked into a file without a name that goes when the tree does.
    ///
    /// # Errors
    /// `Untrusted` for damage, `LimitExceeded` for more than [`limits::APK_UNPACKED_BYTES_MAX`] bytes, otherwise as
    /// [`Tree::read_tar`].
    pub fn tree(&self) -> Result<Tree> {
        let mut data = self.data()?;
        let mut file =
            tempfile::tempfile().map_err(|e| Error::unexpected("cannot make a temporary file").source(e))?;
        let most = limits::APK_UNPACKED_BYTES_MAX;
        let copied = io::copy(&mut Read::by_ref(&mut data).take(most + 1), &mut file);
        if copied.map_err(broken(&self.path))? > most {
            let message = format!("{} unpacks to more than {most} bytes", self.path.display());
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        data.finish()?;
        Tree::from_tar(file, &self.path)
    }

    fn data_file(&self) -> Result<File> {
        let mut file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        file.seek(SeekFrom::Start(self.data_offset)).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(file)
    }

    /// The decompressed data section, a tar; it is hashed as it is read.
    ///
    /// # Errors
    /// The disk's.
    pub fn data(&self) -> Result<ApkData> {
        let hashed = Hashed { file: self.data_file()?, hasher: Sha256::new() };
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(1 << 20, hashed));
        Ok(ApkData { decoder, path: self.path.clone(), datahash: self.info.datahash.clone() })
    }

    /// Verifies the package's own signature.
    ///
    /// # Errors
    /// `Untrusted` when there is none, or none of a known key that holds.
    pub fn verify_signature(&self, keyring: &Keyring) -> Result<String> {
        let Some(section) = &self.signature else {
            return Err(Error::new(ErrorKind::Untrusted, format!("{} is not signed", self.path.display())));
        };
        let mut control = Vec::new();
        let mut file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        file.seek(SeekFrom::Start(self.control_range.0)).map_err(|e| Error::io("read", &self.path, e))?;
        file.take(self.control_range.1 - self.control_range.0)
            .read_to_end(&mut control)
            .map_err(|e| Error::io("read", &self.path, e))?;
        keyring.verify(section, &control)
    }

    /// Every file of the data section, each regular file checked against its recorded SHA-1.
    ///
    /// # Errors
    /// `Untrusted` for damage.
    pub fn entries(&self) -> Result<Vec<ApkEntry>> {
        let mut entries = Vec::new();
        self.for_each_entry(|entry| entries.push(entry))?;
        Ok(entries)
    }

    /// As [`Self::entries`], one after another: what is not kept takes no memory.
    ///
    /// # Errors
    /// `Untrusted` for damage.
    pub fn for_each_entry(&self, mut visit: impl FnMut(ApkEntry)) -> Result<()> {
        let damaged = broken(&self.path);
        let mut reader = TarReader::new(self.data()?);
        while let Some(entry) = reader.next().map_err(&damaged)? {
            let listed = listed(&entry);
            if entry.kind == EntryType::File && !listed.checksum.is_empty() {
                let found = hex::encode(checksum::sha1_of(&mut reader.content()).map_err(&damaged)?);
                if found != listed.checksum {
                    let message = format!("{} in {} is damaged", listed.path, self.path.display());
                    return Err(Error::new(ErrorKind::Untrusted, message));
                }
            }
            visit(listed);
        }
        reader.finish().map_err(&damaged)?.finish()
    }
}

/// The data section of a package while it is read.
#[derive(Debug)]
pub struct ApkData {
    decoder: MultiGzDecoder<BufReader<Hashed>>,
    path: PathBuf,
    datahash: String,
}

impl Read for ApkData {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer)
    }
}

impl ApkData {
    /// Reads what is left to the end, and compares all of it with the recorded digest.
    ///
    /// # Errors
    /// `Untrusted` for data that is cut off, does not have its checksums, or is followed by something else.
    pub fn finish(mut self) -> Result<()> {
        io::copy(&mut self.decoder, &mut io::sink()).map_err(broken(&self.path))?;
        if self.datahash.is_empty() {
            return Err(Error::new(ErrorKind::Untrusted, format!("{} has no datahash", self.path.display())));
        }
        let hashed = self.decoder.into_inner().into_inner();
        let found = hex::encode(hashed.hasher.finalize());
        if found != self.datahash {
            let message = format!("the data of {} does not have its recorded digest", self.path.display());
            return Err(Error::new(ErrorKind::Untrusted, message)
                .with("recorded", &self.datahash)
                .with("found", found));
        }
        Ok(())
    }
}

/// A file that is hashed as it is read.
#[derive(Debug)]
struct Hashed {
    file: File,
    hasher: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Packages and indexes of apk 3 are another format, which begins with `ADB`.
fn refuse_version_3(reader: &mut Counting<BufReader<File>>, path: &Path) -> Result<()> {
    let head = reader.fill_buf().map_err(|e| Error::io("read", path, e))?;
    if head.starts_with(b"ADB") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} is a package in the format of apk 3", path.display()),
        )
        .hint("packages of this kind are not read; make it with `abuild` or melange for apk 2"));
    }
    Ok(())
}

fn listed(entry: &RawEntry) -> ApkEntry {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ApkEntry {
        path: entry.name_lossy(),
        kind: match entry.kind {
            EntryType::Directory => "directory",
            EntryType::Symlink => "symlink",
            EntryType::HardLink => "hardlink",
            EntryType::CharDevice | EntryType::BlockDevice | EntryType::Fifo => "device",
            EntryType::File => "file",
        }
        .to_owned(),
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        uname: lossy(&entry.uname),
        gname: lossy(&entry.gname),
        size: entry.size,
        mtime: entry.mtime,
        link: lossy(&entry.link),
        checksum: entry.records.get("APK-TOOLS.checksum.SHA1").map(|sum| lossy(sum)).unwrap_or_default(),
        xattrs: entry.xattrs().map(|(name, value)| (name.to_owned(), hex::encode(value))).collect(),
    }
}

fn first_name(section: &[u8]) -> io::Result<String> {
    match TarReader::new(section).next()? {
        Some(entry) => Ok(entry.name_lossy()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "an empty section")),
    }
}

type Scripts = BTreeMap<String, (u32, Vec<u8>)>;

fn read_control(section: &[u8], path: &Path) -> Result<(PkgInfo, Scripts)> {
    let damaged = broken(path);
    let mut info = None;
    let mut scripts = BTreeMap::new();
    let mut reader = TarReader::new(section);
    while let Some(entry) = reader.next().map_err(&damaged)? {
        let name = entry.name_lossy();
        let mode = entry.mode;
        let content = reader.read_content(limits::APK_CONTROL_BYTES_MAX).map_err(&damaged)?;
        if name == ".PKGINFO" {
            let text = String::from_utf8_lossy(&content);
            info = Some(PkgInfo::parse(&text).map_err(|line| {
                Error::new(ErrorKind::Untrusted, format!("{} has a broken .PKGINFO", path.display()))
                    .with("line", line)
            })?);
        } else {
            scripts.insert(name, (mode, content));
        }
    }
    reader.finish().map_err(&damaged)?;
    let info =
        info.ok_or_else(|| Error::new(ErrorKind::Untrusted, format!("{} has no .PKGINFO", path.display())))?;
    Ok((info, scripts))
}

fn hash_range(path: &Path, start: u64, end: u64) -> io::Result<Sha1Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    checksum::sha1_of(&mut file.take(end - start))
}
