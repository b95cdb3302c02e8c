//! Tar entries and gzip members, written byte by byte.
//!
//! The product has a tar writer of its own; this one shares nothing with it, so that a mistake in either shows.

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use sha1::{Digest, Sha1};
use sha2::Sha256;

const BLOCK: usize = 512;
/// What a tar header holds of a name; longer ones go into a PAX record.
const NAME_BYTES: usize = 100;
/// The record in which APK tools look for a file's checksum.
const CHECKSUM_RECORD: &str = "APK-TOOLS.checksum.SHA1";

/// What one tar entry is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file with its content.
    File(&'a [u8]),
    /// A symbolic link with its target.
    Symlink(&'a str),
    /// A further name of a file that stands earlier in the archive.
    Hardlink(&'a str),
}

/// One tar entry; the owner is always root.
#[derive(Debug, Clone, Copy)]
pub struct TarEntry<'a> {
    /// Path without a leading slash.
    pub path: &'a str,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub kind: Kind<'a>,
    /// The checksum to record, for entries of a package's data.
    pub checksum: Option<[u8; 20]>,
}

/// SHA-1 as an array.
pub fn sha1(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

/// Writes one entry, with a PAX header before it where one is needed.
pub fn write_entry(out: &mut impl Write, entry: &TarEntry<'_>) -> Result<()> {
    let (flag, link, content): (u8, &str, &[u8]) = match entry.kind {
        Kind::Directory => (b'5', "", b""),
        Kind::File(data) => (b'0', "", data),
        Kind::Symlink(target) => (b'2', target, b""),
        Kind::Hardlink(target) => (b'1', target, b""),
    };
    let mut records = Vec::new();
    if let Some(sum) = entry.checksum {
        records.extend(pax_record(CHECKSUM_RECORD, &hex::encode(sum)));
    }
    if !fits(link) {
        records.extend(pax_record("linkpath", link));
    }
    if !fits(entry.path) {
        records.extend(pax_record("path", entry.path));
    }
    if !records.is_empty() {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let name = format!("PaxHeaders/{name}");
        out.write_all(&header(&name, "", b'x', 0o644, 0, records.len())?)?;
        write_padded(out, &records)?;
    }
    out.write_all(&header(entry.path, link, flag, entry.mode, entry.mtime, content.len())?)?;
    write_padded(out, content)
}

/// Writes the two zero blocks that end an archive.
pub fn write_end(out: &mut impl Write) -> Result<()> {
    Ok(out.write_all(&[0; 2 * BLOCK])?)
}

/// A PAX record: its length, which counts its own digits, a blank, `key=value`, a line feed.
pub fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn fits(name: &str) -> bool {
    name.len() <= NAME_BYTES && name.is_ascii()
}

fn write_padded(out: &mut impl Write, data: &[u8]) -> Result<()> {
    out.write_all(data)?;
    Ok(out.write_all(&[0; BLOCK][..(BLOCK - data.len() % BLOCK) % BLOCK])?)
}

/// A ustar header block.
fn header(path: &str, link: &str, flag: u8, mode: u32, mtime: u64, size: usize) -> Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    put_name(&mut block[..100], path);
    put_number(&mut block[100..108], u64::from(mode))?;
    put_number(&mut block[108..116], 0)?;
    put_number(&mut block[116..124], 0)?;
    put_number(&mut block[124..136], u64::try_from(size)?)?;
    put_number(&mut block[136..148], mtime)?;
    block[156] = flag;
    put_name(&mut block[157..257], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_name(&mut block[265..297], "root");
    put_name(&mut block[297..329], "root");
    put_number(&mut block[329..337], 0)?;
    put_number(&mut block[337..345], 0)?;
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_number(&mut block[148..155], sum)?;
    Ok(block)
}

/// A name cut to its field; a PAX record carries what is cut.
fn put_name(field: &mut [u8], name: &str) {
    for (place, byte) in field.iter_mut().zip(name.bytes().filter(u8::is_ascii)) {
        *place = byte;
    }
}

/// An octal number, zero-padded, with a NUL behind it.
fn put_number(field: &mut [u8], value: u64) -> Result<()> {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    ensure!(text.len() == digits, "{value} does not fit into a tar header");
    field[..digits].copy_from_slice(text.as_bytes());
    Ok(())
}

/// A writer that knows the SHA-256 and the length of what went through it.
pub struct Hashed<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hash.update(&data[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Compresses what `content` writes into one gzip member of `out`; returns the SHA-256 and length of the member.
/// The header carries no name and no time, so equal content gives equal bytes.
pub fn gzip_member<W: Write>(
    out: W,
    level: u32,
    content: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<([u8; 32], u64)> {
    let hashed = Hashed { inner: out, hash: Sha256::new(), bytes: 0 };
    let mut encoder = GzBuilder::new().mtime(0).write(hashed, Compression::new(level));
    content(&mut encoder)?;
    let mut hashed = encoder.finish().context("gzip")?;
    hashed.flush()?;
    Ok((hashed.hash.finalize().into(), hashed.bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_length() {
        assert_eq!(pax_record("a", "b"), b"6 a=b\n");
        // 97 and 98 bytes of key and value: the length crosses from two to three digits.
        for value in 80..120 {
            let record = pax_record("path", &"x".repeat(value));
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn another_reader_understands_long_and_foreign_names() {
        let long = format!("usr/{}/Főtanúsítvány", "d/".repeat(60));
        let mut bytes = Vec::new();
        let kind = Kind::File(b"content");
        let checksum = Some(sha1(b"content"));
        let entry = TarEntry { path: &long, mode: 0o4755, mtime: 1_700_000_000, kind, checksum };
        write_entry(&mut bytes, &entry).unwrap();
        let kind = Kind::Symlink(&long);
        write_entry(&mut bytes, &TarEntry { path: "l", mode: 0o777, mtime: 1, kind, checksum: None })
            .unwrap();
        write_end(&mut bytes).unwrap();

        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut file = entries.next().unwrap().unwrap();
        assert_eq!(file.path().unwrap().to_str().unwrap(), long);
        assert_eq!(file.header().mode().unwrap(), 0o4755);
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let records = file.pax_extensions().unwrap().unwrap();
        let found =
            records.map(Result::unwrap).find(|record| record.key().unwrap() == CHECKSUM_RECORD).unwrap();
        assert_eq!(found.value().unwrap(), hex::encode(sha1(b"content")));
        let link = entries.next().unwrap().unwrap();
        assert_eq!(link.link_name().unwrap().unwrap().to_str().unwrap(), long);
        assert!(entries.next().is_none());
    }

    #[test]
    fn equal_content_gives_equal_members() {
        let member = || {
            let mut out = Vec::new();
            let sums = gzip_member(&mut out, 6, |gz| Ok(gz.write_all(b"text")?)).unwrap();
            (out, sums)
        };
        let (bytes, (hash, length)) = member();
        assert_eq!((bytes.clone(), (hash, length)), member());
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), hash);
        assert_eq!(length, bytes.len() as u64);
    }
}
