//! Go programs: the settings that they were built with.

use object::elf;
use object::read::ReadRef;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

/// Where the place is looked for, and the most of what stands there: modules of the largest programs take 200 KB.
const INFO_BYTES_MAX: u64 = 4 << 20;
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The information begins at a multiple of this.
const ALIGNMENT: u64 = 16;
/// The bytes of the header before the texts.
const HEADER_BYTES: usize = 32;
/// The flag of texts that follow the header; before Go 1.18 they stood elsewhere, and no settings were among them.
const INLINE: u8 = 2;
/// What frames the text about modules on both sides.
const FRAME_BYTES: usize = 16;

/// Whether a program was built with cgo and a cryptography that takes OpenSSL's, which it opens when it runs.
pub(super) fn needs_openssl<'d, R: ReadRef<'d>>(data: R) -> bool {
    let Some(modules) = modules(data) else { return false };
    let settings: Vec<(&str, &str)> =
        modules.lines().filter_map(|line| line.strip_prefix("build\t")?.split_once('=')).collect();
    let has = |key: &str, values: &[&str]| settings.iter().any(|(k, v)| *k == key && values.contains(v));
    let crypto = has("GOEXPERIMENT", &["boringcrypto", "systemcrypto", "opensslcrypto"])
        || has("microsoft_systemcrypto", &["1"]);
    has("CGO_ENABLED", &["1"]) && crypto
}

/// The text about modules and settings.
fn modules<'d, R: ReadRef<'d>>(data: R) -> Option<String> {
    let (address, bytes) = match data.read_bytes_at(0, 5).ok()? {
        [b'\x7f', b'E', b'L', b'F', 1] => place::<elf::FileHeader32<object::Endianness>, R>(data)?,
        [b'\x7f', b'E', b'L', b'F', 2] => place::<elf::FileHeader64<object::Endianness>, R>(data)?,
        _ => return None,
    };
    let is_aligned = |at: &usize| (address + *at as u64).is_multiple_of(ALIGNMENT);
    let at = bytes
        .windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == MAGIC)
        .map(|(at, _)| at)
        .find(is_aligned)?;
    let info = bytes.get(at..)?;
    if info.get(15)? & INLINE == 0 {
        return None;
    }
    let (_version, rest) = text(info.get(HEADER_BYTES..)?)?;
    let (modules, _) = text(rest)?;
    // Sentinels that tell a text from what looks like one.
    let framed = modules.len() > 2 * FRAME_BYTES && modules.get(modules.len() - FRAME_BYTES - 1)? == &b'\n';
    let modules = modules.get(FRAME_BYTES..modules.len().checked_sub(FRAME_BYTES)?).filter(|_| framed)?;
    Some(String::from_utf8_lossy(modules).into_owned())
}

/// A text behind its length.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            let rest = bytes.get(index + 1..)?;
            return Some((rest.get(..length)?, rest.get(length..)?));
        }
    }
    None
}

/// The section of the information, or the begin of the segment with data, with its address.
fn place<'d, H, R>(data: R) -> Option<(u64, &'d [u8])>
where
    H: FileHeader<Endian = object::Endianness>,
    R: ReadRef<'d>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let read = |address: u64, offset: u64, size: u64| {
        Some((address, data.read_bytes_at(offset, size.min(INFO_BYTES_MAX)).ok()?))
    };
    // A count that stands elsewhere may be of any size; no Go program has so many sections.
    let sections = (header.e_shnum(endian) != 0).then(|| header.sections(endian, data).ok()).flatten();
    if let Some((_, section)) = sections.and_then(|all| all.section_by_name(endian, b".go.buildinfo")) {
        let size = section.sh_size(endian).into();
        return read(section.sh_addr(endian).into(), section.sh_offset(endian).into(), size);
    }
    // This count stands for one that lies elsewhere in the file, and may be any number.
    if header.e_phnum(endian) == 0xffff {
        return None;
    }
    let segments = header.program_headers(endian, data).ok()?;
    let is_data = |segment: &&H::ProgramHeader| {
        let flags = segment.p_flags(endian);
        segment.p_type(endian) == elf::PT_LOAD && flags & (elf::PF_X | elf::PF_W) == elf::PF_W
    };
    let segment = segments.iter().find(is_data)?;
    let size = segment.p_filesz(endian).into();
    read(segment.p_vaddr(endian).into(), segment.p_offset(endian).into(), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of one segment that holds the information, as Go's linker writes it.
    fn program(settings: &str) -> Vec<u8> {
        let mut info = MAGIC.to_vec();
        info.extend([8, INLINE]);
        info.resize(HEADER_BYTES, 0);
        let modules = format!("{}path\tx\n{settings}{}", "<".repeat(FRAME_BYTES), ">".repeat(FRAME_BYTES));
        for text in ["go1.24.1", &modules] {
            info.extend(if text.len() < 128 {
                vec![text.len() as u8]
            } else {
                vec![(text.len() & 0x7f) as u8 | 0x80, (text.len() >> 7) as u8]
            });
            info.extend(text.as_bytes());
        }
        let mut file = vec![0; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 2;
        file[18] = 62;
        file[20] = 1;
        file[32] = 64;
        file[52] = 64;
        file[54] = 56;
        file[56] = 1;
        file[58] = 64;
        file[64] = 1;
        file[68] = 6;
        // At 0x1000 in memory, at 128 in the file.
        file[64 + 8] = 128;
        file[64 + 17] = 0x10;
        file[64 + 32..64 + 40].copy_from_slice(&(info.len() as u64).to_le_bytes());
        file[64 + 40..64 + 48].copy_from_slice(&(info.len() as u64).to_le_bytes());
        file.resize(128, 0);
        file.extend(info);
        file
    }

    #[test]
    fn programs_that_open_openssl() {
        let build = |settings: &[&str]| -> String {
            settings.iter().map(|setting| format!("build\t{setting}\n")).collect()
        };
        for settings in [
            ["CGO_ENABLED=1", "GOEXPERIMENT=boringcrypto"],
            ["GOEXPERIMENT=systemcrypto", "CGO_ENABLED=1"],
            ["CGO_ENABLED=1", "GOEXPERIMENT=opensslcrypto"],
            ["CGO_ENABLED=1", "microsoft_systemcrypto=1"],
        ] {
            assert!(needs_openssl(&program(&build(&settings))[..]), "{settings:?}");
        }
        for settings in [
            ["CGO_ENABLED=0", "GOEXPERIMENT=boringcrypto"],
            ["CGO_ENABLED=1", "GOEXPERIMENT=rangefunc"],
            ["CGO_ENABLED=1", "microsoft_systemcrypto=0"],
        ] {
            assert!(!needs_openssl(&program(&build(&settings))[..]), "{settings:?}");
        }
        let whole = program(&build(&["CGO_ENABLED=1", "GOEXPERIMENT=boringcrypto"]));
        for length in 0..whole.len() {
            assert!(!needs_openssl(&whole[..length]), "{length}");
        }
    }
}
