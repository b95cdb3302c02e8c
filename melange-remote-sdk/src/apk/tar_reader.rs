//! Reading tar streams: USTAR, PAX records with any bytes in their values, GNU long names.
//!
//! The crate `tar` splits PAX records at newlines, which breaks on binary extended attributes such as file
//! capabilities; this reader goes by their lengths. Formats: POSIX.1-2001 `pax`, GNU tar's manual.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::tar_writer::EntryType;
use crate::limits;

const BLOCK: u64 = 512;
/// What an entry and a record of it take beside their texts.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// The longest name of an owner or a group.
const OWNER_BYTES_MAX: usize = 256;

/// The description of one entry; names are raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// The path as it stands in the archive.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// The 12 mode bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// The owner's name.
    pub uname: Vec<u8>,
    /// The group's name.
    pub gname: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// PAX records that do not stand for one of the fields above.
    pub records: BTreeMap<String, Vec<u8>>,
    /// Where the content begins in the stream.
    pub offset: u64,
}

impl RawEntry {
    /// The path as text; invalid UTF-8 is replaced.
    pub fn name_lossy(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The extended attributes among the records.
    pub fn xattrs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?, value.as_slice())))
    }
}

/// Reads entries one after another. An archive ends at its zero blocks or at the end of the stream.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    position: u64,
    /// Bytes of the current entry, padding included, not yet read.
    left: u64,
    padding: u64,
    entries: usize,
    kept_bytes: usize,
}

fn broken(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl<R: Read> TarReader<R> {
    /// Reads from the current position of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, position: 0, left: 0, padding: 0, entries: 0, kept_bytes: 0 }
    }

    /// The next entry; what is left of the current one is passed over.
    ///
    /// # Errors
    /// `InvalidData` for anything that is no tar, the reader's own otherwise.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend the content of the entry")]
    pub fn next(&mut self) -> io::Result<Option<RawEntry>> {
        let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let (mut long_name, mut long_link) = (None, None);
        let mut before = 0u64;
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let size = number(&block[124..136])?;
            if matches!(block[156], b'x' | b'g' | b'L' | b'K') {
                before = before.saturating_add(size).saturating_add(BLOCK);
                if before > limits::TAR_RECORDS_BYTES_MAX {
                    let bound = limits::TAR_RECORDS_BYTES_MAX;
                    return Err(broken(format!(
                        "an entry has more than {bound} bytes of attributes and names"
                    )));
                }
            }
            match block[156] {
                b'x' => {
                    let body = self.extension(size)?;
                    records.extend(parse_records(&body)?);
                }
                // Global records speak of the archive, not of entries we care about.
                b'g' => drop(self.extension(size)?),
                b'L' => long_name = Some(trim_nul(self.extension(size)?)),
                b'K' => long_link = Some(trim_nul(self.extension(size)?)),
                flag => {
                    let entry = self.entry(&block, flag, size, records, long_name, long_link)?;
                    self.count(&entry)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Bytes of names, link targets, owners and attributes of the entries read so far.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Reads to the end of the stream behind the last entry, where nothing but zeros may stand.
    ///
    /// # Errors
    /// `InvalidData` for anything else; the reader's, such as a checksum of its own that does not hold.
    pub fn finish(self) -> io::Result<R> {
        let mut inner = self.inner;
        let mut buffer = [0u8; 8 << 10];
        loop {
            match inner.read(&mut buffer)? {
                0 => return Ok(inner),
                read if buffer[..read].iter().all(|byte| *byte == 0) => {}
                _ => return Err(broken("something stands behind the end of the archive")),
            }
        }
    }

    /// Counts what callers keep of an entry against the bounds of the whole archive.
    fn count(&mut self, entry: &RawEntry) -> io::Result<()> {
        let records = entry.records.iter().filter(|(key, _)| !key.starts_with("APK-TOOLS."));
        let records =
            records.map(|(key, value)| RECORD_OVERHEAD_BYTES + key.len() + value.len()).sum::<usize>();
        let owners = entry.uname.len() + entry.gname.len();
        self.entries += 1;
        self.kept_bytes =
            self.kept_bytes.saturating_add(entry.name.len() + entry.link.len() + owners + records);
        let path_max = limits::TREE_PATH_BYTES_MAX;
        if entry.name.len() > path_max || entry.link.len() > path_max {
            return Err(broken(format!("a name or a link target has more than {path_max} bytes")));
        }
        if entry.uname.len() > OWNER_BYTES_MAX || entry.gname.len() > OWNER_BYTES_MAX {
            return Err(broken(format!("the name of an owner has more than {OWNER_BYTES_MAX} bytes")));
        }
        if self.entries > limits::TREE_ENTRIES_MAX {
            return Err(broken(format!("the archive has more than {} entries", limits::TREE_ENTRIES_MAX)));
        }
        if self.kept_bytes > limits::TAR_KEPT_BYTES_MAX {
            let bound = limits::TAR_KEPT_BYTES_MAX;
            let what = "names, link targets and attributes";
            return Err(broken(format!("the archive has more than {bound} bytes of {what}")));
        }
        Ok(())
    }

    /// Reads the content of the current entry, then nothing.
    pub fn content(&mut self) -> impl Read + '_ {
        EntryContent { reader: self }
    }

    /// The content of the current entry, at most `bytes_max` of it.
    ///
    /// # Errors
    /// `InvalidData` when it is larger.
    pub fn read_content(&mut self, bytes_max: u64) -> io::Result<Vec<u8>> {
        if self.left > bytes_max {
            return Err(broken(format!("an entry has {} bytes, more than {bytes_max}", self.left)));
        }
        let mut content = Vec::new();
        self.content().read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        self.position += skipped;
        if skipped < self.left {
            return Err(broken("the archive ends within an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn block(&mut self) -> io::Result<Option<[u8; 512]>> {
        let mut block = [0u8; 512];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(broken("the archive ends within a header")),
                read => filled += read,
            }
        }
        self.position += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let recorded = number(&block[148..156])?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if recorded != sum {
            return Err(broken("a header's checksum does not hold"));
        }
        Ok(Some(block))
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        self.begin(size);
        self.read_content(limits::TAR_RECORDS_BYTES_MAX)
    }

    fn entry(
        &mut self,
        block: &[u8; 512],
        flag: u8,
        size: u64,
        mut records: BTreeMap<String, Vec<u8>>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<RawEntry> {
        let kind = match flag {
            b'0' | 0 | b'7' => EntryType::File,
            b'1' => EntryType::HardLink,
            b'2' => EntryType::Symlink,
            b'3' => EntryType::CharDevice,
            b'4' => EntryType::BlockDevice,
            b'5' => EntryType::Directory,
            b'6' => EntryType::Fifo,
            other => return Err(broken(format!("an entry has the unknown type {:?}", char::from(other)))),
        };
        let mut name = trim_nul(block[..100].to_vec());
        let ustar = &block[257..262] == b"ustar";
        // GNU's own format uses the prefix field for times.
        if ustar && block[262] == 0 && block[345] != 0 {
            let prefix = trim_nul(block[345..500].to_vec());
            name = [prefix, vec![b'/'], name].concat();
        }
        let mut text = |key: &str, plain: Vec<u8>| records.remove(key).unwrap_or(plain);
        let name = text("path", long_name.unwrap_or(name));
        let link = text("linkpath", long_link.unwrap_or_else(|| trim_nul(block[157..257].to_vec())));
        let uname = text("uname", trim_nul(block[265..297].to_vec()));
        let gname = text("gname", trim_nul(block[297..329].to_vec()));
        let mut amount = |key: &str, plain: u64| match records.remove(key) {
            // Only times lie before their zero.
            Some(value) if key == "mtime" && value.starts_with(b"-") => Ok(0),
            Some(value) => decimal(&value),
            None => Ok(plain),
        };
        let size = amount("size", size)?;
        let uid = amount("uid", number(&block[108..116])?)?;
        let gid = amount("gid", number(&block[116..124])?)?;
        let mtime = amount("mtime", number(&block[136..148])?)?;
        let is_file = kind == EntryType::File;
        let small = |number: u64| u32::try_from(number).map_err(|_| broken("a number is too large"));
        let device = if matches!(kind, EntryType::CharDevice | EntryType::BlockDevice) {
            (small(number(&block[329..337])?)?, small(number(&block[337..345])?)?)
        } else {
            (0, 0)
        };
        self.begin(if is_file { size } else { 0 });
        // Old writers mark directories by a trailing slash alone.
        let kind = if is_file && name.ends_with(b"/") { EntryType::Directory } else { kind };
        Ok(RawEntry {
            name,
            kind,
            mode: small(number(&block[100..108])?)? & 0o7777,
            uid,
            gid,
            size: if is_file { size } else { 0 },
            mtime,
            uname,
            gname,
            link,
            device,
            records,
            offset: self.position,
        })
    }
}

struct EntryContent<'a, R> {
    reader: &'a mut TarReader<R>,
}

impl<R: Read> Read for EntryContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.reader.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let read = self.reader.inner.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(broken("the archive ends within an entry"));
        }
        self.reader.left -= read as u64;
        self.reader.position += read as u64;
        Ok(read)
    }
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Octal text, or base 256 where the first bit is set.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for byte in &field[1..] {
            value = value.checked_mul(256).ok_or_else(|| broken("a number is too large"))? | u64::from(*byte);
        }
        return Ok(value);
    }
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(|c: char| c == '\0' || c == ' ');
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| broken(format!("{text:?} is no octal number")))
}

/// A decimal number; times may have a fraction, which is dropped.
fn decimal(value: &[u8]) -> io::Result<u64> {
    let text = String::from_utf8_lossy(value);
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().map_err(|_| broken(format!("{text:?} is no number")))
}

/// Records of the form `<length> <key>=<value>\n`, the length counting the whole record.
fn parse_records(mut body: &[u8]) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let malformed = || broken("a PAX record is malformed");
    let mut records = BTreeMap::new();
    while !body.is_empty() && body[0] != 0 {
        let space = body.iter().take(12).position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length: usize = std::str::from_utf8(&body[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(malformed)?;
        let record = body
            .get(space + 1..length)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let key = String::from_utf8(record[..equals].to_vec()).map_err(|_| malformed())?;
        records.insert(key, record[equals + 1..].to_vec());
        body = &body[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::apk::tar_writer::{Header, TarWriter};

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            parts in proptest::collection::vec("[a-zé]{1,60}", 1..6),
            mode in 0u32..0o10000,
            uid in 0u32..3_000_000,
            value in proptest::collection::vec(any::<u8>(), 0..40),
            content in proptest::collection::vec(any::<u8>(), 0..1500),
            open in any::<bool>(),
        ) {
            let name = parts.join("/");
            let mut writer = TarWriter::new(Vec::new());
            let mut header = Header::new(&name, EntryType::File, mode);
            header.uid = uid;
            header.size = content.len() as u64;
            header.records.insert("SCHILY.xattr.user.x".to_owned(), value.clone());
            writer.append(&header, &mut &content[..]).unwrap();
            let link = Header { link: &name, ..Header::new("l", EntryType::Symlink, 0o777) };
            writer.append(&link, &mut io::empty()).unwrap();
            let bytes = if open { writer.finish_open() } else { writer.finish().unwrap() };
            let mut reader = TarReader::new(&bytes[..]);
            let entry = reader.next().unwrap().unwrap();
            prop_assert_eq!(&entry.name, name.as_bytes());
            prop_assert_eq!((entry.mode, entry.uid), (mode, u64::from(uid)));
            prop_assert_eq!(entry.xattrs().next(), Some(("user.x", &value[..])));
            prop_assert_eq!(reader.read_content(2000).unwrap(), content);
            prop_assert_eq!(reader.next().unwrap().unwrap().link, name.into_bytes());
            prop_assert_eq!(reader.next().unwrap(), None);
        }

        #[test]
        fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), sealed in any::<bool>()) {
            if sealed && bytes.len() >= 512 {
                let sum: u64 = bytes[..512].iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) }).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = TarReader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {
                let _ = reader.read_content(1 << 20);
            }
        }
    }

    /// One header block with a checksum that holds.
    fn header(name: &str, flag: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = flag;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
        bytes
    }

    fn extended(records: &str) -> Vec<u8> {
        [header("x", b'x', records.len() as u64), padded(records.as_bytes().to_vec()), header("f", b'0', 0)]
            .concat()
    }

    #[test]
    fn what_an_archive_may_not_hold_is_refused_by_name() {
        let long = "x".repeat(limits::TREE_PATH_BYTES_MAX + 1);
        let link = format!("{} linkpath={long}\n", long.len() + 15);
        let cases = [
            (extended("11 size=-5\n"), "no number"),
            (extended("10 uid=-5\n"), "no number"),
            (extended(&link), "link target"),
            ([header("x", b'x', 2 << 20), padded(vec![b'x'; 2 << 20])].concat(), "attributes and names"),
            (
                vec![header("x", b'L', 512); 1_100]
                    .into_iter()
                    .flat_map(|head| [head, vec![b'a'; 512]].concat())
                    .collect(),
                "attributes and names",
            ),
        ];
        for (bytes, bound) in cases {
            let error = TarReader::new(&bytes[..]).next().unwrap_err().to_string();
            assert!(error.contains(bound), "{bound}: {error}");
        }
        assert_eq!(TarReader::new(&extended("12 mtime=-5\n")[..]).next().unwrap().unwrap().mtime, 0);
        let behind = [header("f", b'0', 0), vec![0; 1024], b"more".to_vec()].concat();
        let mut reader = TarReader::new(&behind[..]);
        while reader.next().unwrap().is_some() {}
        assert!(reader.finish().unwrap_err().to_string().contains("behind the end"));
    }
}
