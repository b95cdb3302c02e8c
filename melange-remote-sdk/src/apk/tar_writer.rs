//! Tar as Go's `archive/tar` writes it, byte for byte: USTAR headers, extended headers in PAX form where a
//! record is needed.
//!
//! The bytes matter: they are hashed, and packages of other tools are compared with ours.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A hard link to an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

impl EntryType {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// One entry's header.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    /// The path, relative, without a trailing slash.
    pub name: &'a str,
    /// What it is.
    pub kind: EntryType,
    /// The 12 mode bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The owner's name, may be empty.
    pub uname: &'a str,
    /// The group's name, may be empty.
    pub gname: &'a str,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// The target of a link.
    pub link: &'a str,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Further records, such as `APK-TOOLS.checksum.SHA1`; values may be any bytes.
    pub records: BTreeMap<String, Vec<u8>>,
}

impl<'a> Header<'a> {
    /// A header for `name` owned by root, without content.
    pub fn new(name: &'a str, kind: EntryType, mode: u32) -> Self {
        Self {
            name,
            kind,
            mode,
            uid: 0,
            gid: 0,
            uname: "",
            gname: "",
            size: 0,
            mtime: 0,
            link: "",
            device: (0, 0),
            records: BTreeMap::new(),
        }
    }
}

/// Writes entries to `W`.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `inner` from its current position.
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes a header and its content, which must have exactly `header.size` bytes.
    ///
    /// # Errors
    /// The writer's and the reader's; `InvalidData` when the content has another length.
    pub fn append(&mut self, header: &Header<'_>, content: &mut dyn Read) -> io::Result<()> {
        self.write_header(header)?;
        let copied = io::copy(&mut content.take(header.size), &mut self.inner)?;
        if copied != header.size {
            let message = format!("{} has {copied} bytes instead of {}", header.name, header.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.pad(copied)
    }

    /// Ends the archive with two zero blocks and returns the writer.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    /// Returns the writer without ending the archive, as signature and control sections want it.
    pub fn finish_open(self) -> W {
        self.inner
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let over = usize::try_from(written % BLOCK as u64).unwrap_or(0);
        if over > 0 {
            self.inner.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }

    fn write_header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let mut records = header.records.clone();
        if header.link.len() > 100 || !header.link.is_ascii() {
            records.insert("linkpath".to_owned(), header.link.as_bytes().to_vec());
        }
        for (key, value, most) in [
            ("size", header.size, 0o77_777_777_777),
            ("uid", u64::from(header.uid), 0o7_777_777),
            ("gid", u64::from(header.gid), 0o7_777_777),
        ] {
            if value > most {
                records.insert(key.to_owned(), value.to_string().into_bytes());
            }
        }
        for (key, value) in [("uname", header.uname), ("gname", header.gname)] {
            if value.len() > 32 || !value.is_ascii() {
                records.insert(key.to_owned(), value.as_bytes().to_vec());
            }
        }
        let split = split_prefix(header.name, !records.is_empty());
        if split.is_none() {
            records.insert("path".to_owned(), header.name.as_bytes().to_vec());
        }
        if !records.is_empty() {
            self.write_records(header.name, &records)?;
        }
        // A name that stands in a record is cut.
        let (prefix, name) = split.unwrap_or(("", header.name));
        self.inner.write_all(&block(header, prefix, name))
    }

    fn write_records(&mut self, name: &str, records: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend_from_slice(&record(key, value));
        }
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        let separator = if folder.is_empty() { "" } else { "/" };
        let long = to_ascii(&format!("{folder}{separator}PaxHeaders.0/{base}"));
        let cut = long[..long.len().min(100)].trim_end_matches('/');
        let mut raw = [0u8; BLOCK];
        put(&mut raw, 0, 100, cut.as_bytes());
        for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            put_octal(&mut raw, at, width, 0);
        }
        put_octal(&mut raw, 124, 12, body.len() as u64);
        raw[156] = b'x';
        seal(&mut raw);
        self.inner.write_all(&raw)?;
        self.inner.write_all(&body)?;
        self.pad(body.len() as u64)
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Where a name goes, prefix and name field; `None` when it needs a `path` record. Beside records of other fields the prefix
/// stays unused.
fn split_prefix(name: &str, has_records: bool) -> Option<(&str, &str)> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some(("", name));
    }
    if has_records {
        return None;
    }
    let limit = name.len().min(156);
    let limit =
        if name.as_bytes().get(limit - 1) == Some(&b'/') && limit == name.len() { limit - 1 } else { limit };
    let at = name[..limit].rfind('/')?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    (!prefix.is_empty() && !rest.is_empty() && rest.len() <= 100 && prefix.len() <= 155)
        .then_some((prefix, rest))
}

fn to_ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

fn block(header: &Header<'_>, prefix: &str, name: &str) -> [u8; BLOCK] {
    let mut raw = [0u8; BLOCK];
    put_cut(&mut raw, 0, 100, &to_ascii(name));
    put_octal(&mut raw, 100, 8, u64::from(header.mode));
    put_octal(&mut raw, 108, 8, u64::from(header.uid));
    put_octal(&mut raw, 116, 8, u64::from(header.gid));
    put_octal(&mut raw, 124, 12, header.size);
    put_octal(&mut raw, 136, 12, header.mtime);
    raw[156] = header.kind.flag();
    put_cut(&mut raw, 157, 100, &to_ascii(header.link));
    put_cut(&mut raw, 265, 32, &to_ascii(header.uname));
    put_cut(&mut raw, 297, 32, &to_ascii(header.gname));
    put_octal(&mut raw, 329, 8, u64::from(header.device.0));
    put_octal(&mut raw, 337, 8, u64::from(header.device.1));
    put(&mut raw, 345, 155, prefix.as_bytes());
    seal(&mut raw);
    raw
}

fn put(raw: &mut [u8; BLOCK], at: usize, width: usize, bytes: &[u8]) {
    let length = bytes.len().min(width);
    raw[at..at + length].copy_from_slice(&bytes[..length]);
}

/// A cut text must not end in a slash, which old readers take for a directory.
fn put_cut(raw: &mut [u8; BLOCK], at: usize, width: usize, text: &str) {
    let cut = if text.len() > width { text[..width].trim_end_matches('/') } else { text };
    put(raw, at, width, cut.as_bytes());
}

/// Zero-padded octal with a closing NUL; a number that does not fit is written as 0 and stands in a record.
fn put_octal(raw: &mut [u8; BLOCK], at: usize, width: usize, number: u64) {
    let digits = format!("{number:0>width$o}", width = width - 1);
    let digits = if digits.len() < width { digits } else { "0".repeat(width - 1) };
    put(raw, at, width, digits.as_bytes());
}

/// Magic, version and checksum.
fn seal(raw: &mut [u8; BLOCK]) {
    put(raw, 257, 8, b"ustar\x0000");
    raw[148..156].fill(b' ');
    let sum: u32 = raw.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    put(raw, 148, 8, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_record_is_68_bytes() {
        let record = record("APK-TOOLS.checksum.SHA1", &[b'a'; 40]);
        assert_eq!(record.len(), 68);
        assert!(record.starts_with(b"68 APK-TOOLS.checksum.SHA1=aaaa"));
    }

    #[test]
    fn long_directories_use_the_prefix_and_long_files_with_records_do_not() {
        let name = format!("{}/{}", "d".repeat(90), "n".repeat(60));
        assert_eq!(split_prefix(&name, false), Some(("d".repeat(90).as_str(), "n".repeat(60).as_str())));
        assert_eq!(split_prefix(&name, true), None);
    }
}
