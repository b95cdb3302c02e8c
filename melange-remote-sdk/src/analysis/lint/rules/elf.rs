//! Reads of a program or library what rules ask: its machine, and whether it has debugging sections of the old names.

use std::io::{self, Read, Seek, SeekFrom};

use object::elf;

use super::{Subject, ending};
use crate::apk::tree::{ContentReader, EntryKind};

/// The most of one table that is read: of the largest libraries they take some KB.
const PART_BYTES_MAX: u64 = 16 << 20;

/// A file that claims to be a program or a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    pub(super) path: String,
    /// What is in it, or why it cannot be read.
    pub(super) facts: Result<Facts, String>,
}

/// What is in a program or library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// `e_machine`.
    pub(super) machine: u16,
    /// Whether a section is called `.debug` or `.zdebug`.
    pub(super) has_debug: bool,
}

/// The programs and libraries among the files that can be run or are named like libraries.
pub(super) fn all(subject: &Subject<'_>) -> io::Result<Vec<Elf>> {
    let mut found = Vec::new();
    for file in subject.entries.iter().filter(|file| !file.is_ignored()) {
        let EntryKind::File(content) = &file.entry.kind else { continue };
        let ending = ending(&file.path);
        let is_library = [".a", ".so", ".dylib"].iter().any(|kind| ending.starts_with(kind));
        if content.size() < 4 || file.entry.mode & 0o111 == 0 && !is_library {
            continue;
        }
        if subject.tree.read(content, 4)? != *b"\x7fELF" {
            continue;
        }
        let facts = facts(subject.tree.open(content))?;
        found.push(Elf { path: file.path.clone(), facts });
    }
    Ok(found)
}

/// The numbers of a program's header that are looked at.
struct Header {
    is_64: bool,
    is_big: bool,
    machine: u16,
    segments: Table,
    sections: Table,
    /// The number of the section with the names of all.
    names: u64,
}

/// Where a table lies, how many entries it has, and how large each is.
struct Table {
    offset: u64,
    count: u64,
    size: u64,
}

/// The bytes of a file, read where they are asked for.
struct Bytes(ContentReader);

impl Bytes {
    /// As many bytes from there on.
    fn at(&mut self, offset: u64, size: u64) -> io::Result<Result<Vec<u8>, String>> {
        if size > PART_BYTES_MAX {
            return Ok(Err("a table is too large".to_owned()));
        }
        let mut bytes = Vec::new();
        self.0.seek(SeekFrom::Start(offset))?;
        Read::by_ref(&mut self.0).take(size).read_to_end(&mut bytes)?;
        let is_whole = u64::try_from(bytes.len()).unwrap_or(u64::MAX) == size;
        Ok(if is_whole { Ok(bytes) } else { Err("unexpected EOF".to_owned()) })
    }
}

/// Goes on with what was read, or ends with why it could not be.
macro_rules! or_refuse {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(cause) => return Ok(Err(cause.into())),
        }
    };
}

fn number(bytes: &[u8], at: usize, size: usize, is_big: bool) -> u64 {
    let part = bytes.get(at..at.saturating_add(size)).unwrap_or_default();
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    if is_big { part.iter().fold(0, add) } else { part.iter().rev().fold(0, add) }
}

/// Places and sizes beyond what files have.
fn is_negative(number: u64) -> bool {
    number > i64::MAX.unsigned_abs()
}

fn header(bytes: &mut Bytes) -> io::Result<Result<Header, String>> {
    let ident = or_refuse!(bytes.at(0, 16)?);
    let is_64 = match ident.get(4) {
        Some(1) => false,
        Some(2) => true,
        _ => return Ok(Err("unknown ELF class".to_owned())),
    };
    let is_big = match ident.get(5) {
        Some(1) => false,
        Some(2) => true,
        _ => return Ok(Err("unknown ELF data encoding".to_owned())),
    };
    let whole = or_refuse!(bytes.at(0, if is_64 { 64 } else { 52 })?);
    let at = |narrow: usize, wide: usize, size: usize| {
        number(&whole, if is_64 { wide } else { narrow }, size, is_big)
    };
    let place = if is_64 { 8 } else { 4 };
    // Go looks at the lowest byte of the version alone.
    if ident.get(6) != Some(&1) || at(20, 20, 4) & 0xff != 1 {
        return Ok(Err("unknown ELF version".to_owned()));
    }
    let segments = Table { offset: at(28, 32, place), count: at(44, 56, 2), size: at(42, 54, 2) };
    let sections = Table { offset: at(32, 40, place), count: at(48, 60, 2), size: at(46, 58, 2) };
    let machine = u16::try_from(at(18, 18, 2)).unwrap_or_default();
    let header = Header { is_64, is_big, machine, segments, sections, names: at(50, 62, 2) };
    let (segments, sections) = (&header.segments, &header.sections);
    let cause = if is_negative(segments.offset) || is_negative(sections.offset) {
        "a table lies nowhere"
    } else if sections.offset == 0 && sections.count != 0 {
        "sections without a table of them"
    } else if sections.count > 0 && header.names >= sections.count {
        "the names of sections are in no section"
    } else if segments.count > 0 && segments.size < if is_64 { 56 } else { 32 } {
        "segments are too small"
    } else {
        return Ok(Ok(header));
    };
    Ok(Err(cause.to_owned()))
}

/// Whether the segments are where files can have them.
fn check_segments(bytes: &mut Bytes, header: &Header) -> io::Result<Result<(), String>> {
    let Table { offset, count, size } = header.segments;
    if !header.is_64 || count == 0 {
        // Numbers of 32 bits are all possible.
        return Ok(bytes.at(offset, count.saturating_mul(size))?.map(drop));
    }
    let table = or_refuse!(bytes.at(offset, count.saturating_mul(size))?);
    for segment in table.chunks(usize::try_from(size).unwrap_or(usize::MAX).max(1)) {
        let part = |at| number(segment, at, 8, header.is_big);
        if is_negative(part(8)) || is_negative(part(32)) {
            return Ok(Err("a segment lies nowhere".to_owned()));
        }
    }
    Ok(Ok(()))
}

/// A file with very many sections has their number in the first of them.
fn count_sections(bytes: &mut Bytes, header: &mut Header) -> io::Result<Result<(), String>> {
    let is_64 = header.is_64;
    if header.sections.offset > 0 && header.sections.count == 0 {
        let first = or_refuse!(bytes.at(header.sections.offset, if is_64 { 64 } else { 40 })?);
        let at = |narrow: usize, wide: usize, size: usize| {
            number(&first, if is_64 { wide } else { narrow }, size, header.is_big)
        };
        let (kind, count, link) = (at(4, 4, 4), at(20, 32, if is_64 { 8 } else { 4 }), at(24, 40, 4));
        if kind != 0 || count < RESERVED_SECTIONS {
            return Ok(Err("the number of sections is wrong".to_owned()));
        }
        if header.names == NAMES_ELSEWHERE {
            header.names = link;
        }
        header.sections.count = count;
        if header.names >= count {
            return Ok(Err("the names of sections are in no section".to_owned()));
        }
    }
    if header.sections.count > 0 && header.sections.size < if is_64 { 64 } else { 40 } {
        return Ok(Err("sections are too small".to_owned()));
    }
    Ok(Ok(()))
}

/// `SHN_LORESERVE`: as many sections do not fit into the header.
const RESERVED_SECTIONS: u64 = 0xff00;
/// `SHN_XINDEX`.
const NAMES_ELSEWHERE: u64 = 0xffff;
/// `SHT_STRTAB`.
const KIND_NAMES: u64 = 3;
/// `SHF_COMPRESSED`.
const FLAG_COMPRESSED: u64 = 1 << 11;

/// A section of the table.
struct Section {
    name: u64,
    kind: u64,
    flags: u64,
    offset: u64,
    size: u64,
}

fn sections(bytes: &mut Bytes, header: &Header) -> io::Result<Result<Vec<Section>, String>> {
    let Table { offset, count, size } = header.sections;
    let table = or_refuse!(bytes.at(offset, count.saturating_mul(size))?);
    let place = if header.is_64 { 8 } else { 4 };
    let mut sections = Vec::new();
    for part in table.chunks(usize::try_from(size).unwrap_or(usize::MAX).max(1)) {
        let at = |narrow: usize, wide: usize, size: usize| {
            number(part, if header.is_64 { wide } else { narrow }, size, header.is_big)
        };
        let section = Section {
            name: at(0, 0, 4),
            kind: at(4, 4, 4),
            flags: at(8, 8, place),
            offset: at(16, 24, place),
            size: at(20, 32, place),
        };
        if is_negative(section.offset) || is_negative(section.size) {
            return Ok(Err("a section lies nowhere".to_owned()));
        }
        if section.flags & FLAG_COMPRESSED != 0 {
            let head = if header.is_64 { 24 } else { 12 };
            if section.size < head {
                return Ok(Err("a compressed section is too small".to_owned()));
            }
            or_refuse!(bytes.at(section.offset, head)?);
        }
        sections.push(section);
    }
    Ok(Ok(sections))
}

/// What is refused is what Go's reader of programs refuses, which melange looks with.
fn facts(content: ContentReader) -> io::Result<Result<Facts, String>> {
    let mut bytes = Bytes(content);
    let mut header = or_refuse!(header(&mut bytes)?);
    or_refuse!(check_segments(&mut bytes, &header)?);
    or_refuse!(count_sections(&mut bytes, &mut header)?);
    let sections = or_refuse!(sections(&mut bytes, &header)?);
    let mut facts = Facts { machine: header.machine, has_debug: false };
    if sections.is_empty() || header.names == 0 {
        return Ok(Ok(facts));
    }
    let Some(table) = usize::try_from(header.names).ok().and_then(|at| sections.get(at)) else {
        return Ok(Err("the names of sections are in no section".to_owned()));
    };
    if table.kind != KIND_NAMES || table.flags & FLAG_COMPRESSED != 0 {
        return Ok(Err("the section of names holds none".to_owned()));
    }
    let names = or_refuse!(bytes.at(table.offset, table.size)?);
    for section in &sections {
        let rest = usize::try_from(section.name).ok().and_then(|at| names.get(at..)).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == 0) else {
            return Ok(Err("a section has no name".to_owned()));
        };
        facts.has_debug |= rest.get(..end).is_some_and(|name| name == b".debug" || name == b".zdebug");
    }
    Ok(Ok(facts))
}

/// The name of a machine that packages are not built for; `None` of the two that they are built for.
pub(super) fn unsupported_machine(machine: u16) -> Option<String> {
    let name = match elf::Machine(machine) {
        elf::EM_X86_64 | elf::EM_AARCH64 => return None,
        elf::EM_386 => "i386",
        elf::EM_ARM => "arm",
        elf::EM_PPC64 => "ppc64",
        elf::EM_S390 => "s390",
        elf::EM_MIPS => "mips",
        elf::EM_RISCV => "riscv",
        elf::EM_68K => "unknown (EM_68K)",
        elf::EM_PPC => "unknown (EM_PPC)",
        elf::EM_SPARC => "unknown (EM_SPARC)",
        elf::EM_SPARCV9 => "unknown (EM_SPARCV9)",
        elf::EM_IA_64 => "unknown (EM_IA_64)",
        elf::EM_AVR => "unknown (EM_AVR)",
        elf::EM_CUDA => "unknown (EM_CUDA)",
        elf::EM_AMDGPU => "unknown (EM_AMDGPU)",
        elf::EM_BPF => "unknown (EM_BPF)",
        elf::EM_LOONGARCH => "unknown (EM_LOONGARCH)",
        _ => return Some(format!("unknown ({machine})")),
    };
    Some(name.to_owned())
}
