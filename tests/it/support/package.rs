//! Reading packages without the SDK: gzip members, tar headers and extended headers as bytes.
//!
//! It knows the format from its description alone, so that a mistake in the SDK's writer cannot hide behind the
//! same mistake in the SDK's reader.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

use sha1::Sha1;
use sha2::{Digest, Sha256};

const BLOCK: usize = 512;

/// The members of a package, unpacked: signature, control, data.
pub(crate) struct Sections {
    pub(crate) signature: Vec<u8>,
    pub(crate) control: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// SHA-256 of the compressed data section.
    pub(crate) data_sha256: String,
}

impl Sections {
    pub(crate) fn of(apk: &[u8]) -> Self {
        let mut rest = apk;
        let mut members = Vec::new();
        let mut last = rest;
        while !rest.is_empty() {
            last = rest;
            let mut member = Vec::new();
            // The decoder takes exactly one member out of a slice.
            flate2::bufread::GzDecoder::new(&mut rest).read_to_end(&mut member).unwrap();
            members.push(member);
        }
        let [signature, control, data] = members.try_into().expect("three members");
        Self { signature, control, data, data_sha256: hex::encode(Sha256::digest(last)) }
    }

    /// `.PKGINFO` with what changes from machine to machine replaced by a star.
    pub(crate) fn pkginfo(&self) -> String {
        let entries = entries(&self.control, false);
        let text = String::from_utf8(entries[0].content.clone()).unwrap();
        assert_eq!(entries[0].name(), ".PKGINFO");
        assert!(text.contains(&format!("datahash = {}\n", self.data_sha256)));
        let mut shown = String::new();
        for line in text.lines() {
            match line.split_once(" = ") {
                Some((key @ ("size" | "datahash"), _)) => writeln!(shown, "{key} = *").unwrap(),
                _ => writeln!(shown, "{line}").unwrap(),
            }
        }
        shown
    }
}

/// Records of an extended header.
type Records = BTreeMap<String, Vec<u8>>;

/// One entry of a tar as its bytes say.
pub(crate) struct RawEntry {
    pub(crate) header: [u8; BLOCK],
    pub(crate) extended: Option<[u8; BLOCK]>,
    pub(crate) records: Records,
    pub(crate) content: Vec<u8>,
}

/// Every entry of `tar`, which must end in exactly two zero blocks, or in none when it is not `ended`.
pub(crate) fn entries(tar: &[u8], ended: bool) -> Vec<RawEntry> {
    let end = if ended { tar.len() - 2 * BLOCK } else { tar.len() };
    assert!(tar[end..].iter().all(|byte| *byte == 0));
    let (mut at, mut entries) = (0, Vec::new());
    let mut pending: Option<([u8; BLOCK], Records)> = None;
    while at < end {
        let header: [u8; BLOCK] = tar[at..at + BLOCK].try_into().unwrap();
        check_header(&header);
        let size = usize::try_from(octal(&header[124..136])).unwrap();
        let content = tar[at + BLOCK..at + BLOCK + size].to_vec();
        let padded = size.div_ceil(BLOCK) * BLOCK;
        assert!(tar[at + BLOCK + size..at + BLOCK + padded].iter().all(|byte| *byte == 0));
        at += BLOCK + padded;
        if header[156] == b'x' {
            assert!(pending.replace((header, records(&content))).is_none());
            continue;
        }
        let (extended, records) = pending.take().map_or((None, BTreeMap::new()), |(h, r)| (Some(h), r));
        entries.push(RawEntry { header, extended, records, content });
    }
    assert!(at == end && pending.is_none());
    entries
}

/// What every header of a package has in common.
fn check_header(header: &[u8; BLOCK]) {
    assert_eq!(&header[257..265], b"ustar\x0000");
    let mut blank = *header;
    blank[148..156].fill(b' ');
    let sum: u64 = blank.iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(&header[148..156], format!("{sum:06o}\0 ").as_bytes());
    let numbers =
        [&header[100..108], &header[108..116], &header[116..124], &header[124..136], &header[136..148]];
    for number in numbers {
        assert_eq!(number.last(), Some(&0));
        assert!(number[..number.len() - 1].iter().all(|digit| (b'0'..=b'7').contains(digit)), "{number:?}");
    }
    let devices: &[u8] = if header[156] == b'x' { &[0; 16] } else { b"0000000\x000000000\0" };
    assert_eq!(&header[329..345], devices);
}

fn octal(field: &[u8]) -> u64 {
    u64::from_str_radix(text(field), 8).unwrap()
}

/// The text of a field up to its first NUL.
fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).unwrap()
}

/// `<length> <key>=<value>\n`, sorted by key.
fn records(mut body: &[u8]) -> Records {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = text(&body[..space]).parse().unwrap();
        let (record, rest) = body.split_at(length);
        assert_eq!(record.last(), Some(&b'\n'));
        let record = &record[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        let key = text(&record[..equals]).to_owned();
        assert!(records.last_key_value().is_none_or(|(last, _)| *last < key), "records are sorted");
        records.insert(key, record[equals + 1..].to_vec());
        body = rest;
    }
    records
}

impl RawEntry {
    /// The whole path.
    pub(crate) fn name(&self) -> String {
        if let Some(path) = self.records.get("path") {
            return String::from_utf8(path.clone()).unwrap();
        }
        match text(&self.header[345..500]) {
            "" => text(&self.header[..100]).to_owned(),
            prefix => format!("{prefix}/{}", text(&self.header[..100])),
        }
    }

    pub(crate) fn flag(&self) -> char {
        char::from(self.header[156])
    }

    pub(crate) fn mode(&self) -> u64 {
        octal(&self.header[100..108])
    }

    /// The numbers of user and group.
    pub(crate) fn owner(&self) -> String {
        format!("{}:{}", octal(&self.header[108..116]), octal(&self.header[116..124]))
    }

    pub(crate) fn mtime(&self) -> u64 {
        octal(&self.header[136..148])
    }

    pub(crate) fn link(&self) -> String {
        match self.records.get("linkpath") {
            Some(path) => String::from_utf8(path.clone()).unwrap(),
            None => text(&self.header[157..257]).to_owned(),
        }
    }

    /// Checks what section 5.4 of the format's description says about every entry of a data section.
    pub(crate) fn check(&self) {
        let name = self.name();
        assert!(!name.ends_with('/') && !name.starts_with(['/', '.']), "{name}");
        let hashed = match self.flag() {
            '0' => Some(self.content.as_slice()),
            '2' => Some(self.link().into_bytes()).map(|_| &[][..]),
            _ => None,
        };
        let sum = self.records.get("APK-TOOLS.checksum.SHA1").map(|sum| text(sum));
        let link = self.link();
        let expected = hashed.map(|content| match self.flag() {
            '2' => hex::encode(Sha1::digest(link.as_bytes())),
            _ => hex::encode(Sha1::digest(content)),
        });
        assert_eq!(sum, expected.as_deref(), "{name}");
        let Some(extended) = &self.extended else { return };
        let (folder, base) =
            name.rsplit_once('/').map_or((String::new(), name.as_str()), |(f, b)| (format!("{f}/"), b));
        let long: String = format!("{folder}PaxHeaders.0/{base}").chars().filter(char::is_ascii).collect();
        assert_eq!(text(&extended[..100]), long[..long.len().min(100)].trim_end_matches('/'));
        for number in [&extended[100..108], &extended[108..116], &extended[116..124], &extended[136..148]] {
            assert_eq!(octal(number), 0);
        }
        assert!(extended[265..329].iter().chain(&self.header[345..500]).all(|byte| *byte == 0), "{name}");
    }

    /// One line for a snapshot: flag, mode, owner, names, size, time, path, link, records. Digits of a path
    /// that is long are counted, not shown.
    pub(crate) fn line(&self) -> String {
        let (uid, gid) = (octal(&self.header[108..116]), octal(&self.header[116..124]));
        let (uname, gname) = (text(&self.header[265..297]), text(&self.header[297..329]));
        let mut line = format!(
            "{} {:04o} {uid}:{gid} {uname:?}:{gname:?} {} {}",
            self.flag(),
            self.mode(),
            self.mtime(),
            shorten(&self.name()),
        );
        if !self.link().is_empty() {
            write!(line, " -> {}", shorten(&self.link())).unwrap();
        }
        for (key, value) in self.records.iter().filter(|(key, _)| !key.starts_with("APK-TOOLS")) {
            let shown = match key.as_str() {
                "path" | "linkpath" => "(long)".to_owned(),
                "SCHILY.xattr.security.capability" => hex::encode(value),
                _ => format!("{:?}", String::from_utf8_lossy(value)),
            };
            write!(line, " {key}={shown}").unwrap();
        }
        line
    }
}

/// Runs of one character as a count.
fn shorten(path: &str) -> String {
    let mut shown = String::new();
    let characters: Vec<char> = path.chars().collect();
    for run in characters.chunk_by(|a, b| a == b) {
        match run.len() {
            0..8 => shown.extend(run),
            count => write!(shown, "{}{{{count}}}", run[0]).unwrap(),
        }
    }
    shown
}
