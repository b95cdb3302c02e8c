//! What is read of ELF files: headers, the dynamic section and its strings, however large the file is.

use object::elf;
use object::read::ReadRef;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// The most of one part of an ELF file that is read: the names in the largest programs take a few MB.
const PART_BYTES_MAX: u64 = 16 << 20;
/// The names that are read of one file; programs with the most libraries need some hundred.
const NAMES_MAX: usize = 4_096;
/// What is read of a name.
const NAME_BYTES_MAX: usize = 4_096;
/// A count of segments that stands for one that lies elsewhere in the file, and may be any number.
const COUNT_ELSEWHERE: u16 = 0xffff;

/// What is read of an ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ElfFacts {
    /// `PT_INTERP`.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub sonames: Vec<String>,
    /// Whether it is of the type of shared objects, `ET_DYN`.
    pub shared: bool,
}

/// Reads interpreter, needs and sonames; `None` when the bytes are no ELF file.
pub(crate) fn elf_facts<'d, R: ReadRef<'d>>(data: R) -> Option<ElfFacts> {
    match data.read_bytes_at(0, 5).ok()? {
        [b'\x7f', b'E', b'L', b'F', 1] => facts_of::<elf::FileHeader32<object::Endianness>, R>(data),
        [b'\x7f', b'E', b'L', b'F', 2] => facts_of::<elf::FileHeader64<object::Endianness>, R>(data),
        _ => None,
    }
}

fn facts_of<'d, H, R>(data: R) -> Option<ElfFacts>
where
    H: FileHeader<Endian = object::Endianness>,
    R: ReadRef<'d>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut facts = ElfFacts { shared: header.e_type(endian) == elf::ET_DYN, ..ElfFacts::default() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if header.e_phnum(endian) == COUNT_ELSEWHERE {
        return Some(facts);
    }
    let segments = header.program_headers(endian, data).ok()?;
    let small = |segment: &&H::ProgramHeader| segment.p_filesz(endian).into() <= PART_BYTES_MAX;
    for segment in segments.iter().filter(small) {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, data) {
            facts.interpreter = Some(text(interpreter));
        }
    }
    let mut dynamic = segments.iter().filter(small);
    let dynamic = dynamic.find_map(|segment| segment.dynamic(endian, data).ok().flatten());
    let Some(dynamic) = dynamic else { return Some(facts) };
    let value = |wanted: elf::DynamicTag| -> Option<u64> {
        dynamic.iter().find(|entry| entry.tag(endian) == wanted).map(|entry| entry.d_val(endian).into())
    };
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return Some(facts);
    };
    let offset = segments.iter().find_map(|segment| file_offset(segment, endian, address, size))?;
    if size > PART_BYTES_MAX {
        return None;
    }
    let strings = data.read_bytes_at(offset, size).ok()?;
    let is_name = |entry: &&H::Dyn| matches!(entry.tag(endian), elf::DT_NEEDED | elf::DT_SONAME);
    for entry in dynamic.iter().filter(is_name).take(NAMES_MAX) {
        let tag = entry.tag(endian);
        let at = usize::try_from(entry.d_val(endian).into()).ok()?;
        let rest = strings.get(at..)?;
        let rest = rest.get(..NAME_BYTES_MAX).unwrap_or(rest);
        let name = text(rest.split(|byte| *byte == 0).next().unwrap_or_default());
        if tag == elf::DT_NEEDED { facts.needed.push(name) } else { facts.sonames.push(name) }
    }
    Some(facts)
}

/// Where in the file the memory of a loaded segment begins to hold `address`, when it holds `size` bytes from there.
fn file_offset<P: ProgramHeader<Endian = object::Endianness>>(
    segment: &P,
    endian: object::Endianness,
    address: u64,
    size: u64,
) -> Option<u64> {
    if segment.p_type(endian) != elf::PT_LOAD {
        return None;
    }
    let within = address.checked_sub(segment.p_vaddr(endian).into())?;
    let fits = within.checked_add(size)? <= segment.p_filesz(endian).into();
    fits.then(|| segment.p_offset(endian).into().checked_add(within)).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use object::read::ReadCache;

    use super::*;

    /// Counts what is read.
    struct Counted(std::fs::File, std::rc::Rc<std::cell::Cell<usize>>);

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1.set(self.1.get() + read);
            Ok(read)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(position)
        }
    }

    #[test]
    fn of_a_large_program_little_is_read() {
        let path = std::env::current_exe().unwrap();
        let read = std::rc::Rc::default();
        let counted = Counted(std::fs::File::open(&path).unwrap(), std::rc::Rc::clone(&read));
        let facts = elf_facts(&ReadCache::new(counted)).unwrap();
        assert!(facts.interpreter.as_ref().unwrap().contains("ld-"), "{facts:?}");
        assert!(facts.needed.iter().any(|name| name.starts_with("libc.")), "{facts:?}");
        let size = path.metadata().unwrap().len();
        assert!(read.get() < 1 << 20 && size > 10 << 20, "{} of {size} bytes", read.get());
        assert_eq!(elf_facts(&std::fs::read(&path).unwrap()[..]), Some(facts));
        assert_eq!(elf_facts(&b"\x7fELF\x02\x01\x01"[..]), None);
    }
}
