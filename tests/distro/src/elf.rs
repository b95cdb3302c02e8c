//! The three facts of an ELF file that packages depend on: its interpreter, its name as a library, what it needs.

use anyhow::{Context, Result};
use object::LittleEndian;
use object::elf::{DT_NEEDED, DT_SONAME, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// What the dynamic linker reads of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ElfInfo {
    /// The program interpreter's path, for programs.
    pub interpreter: Option<String>,
    /// The names of the needed libraries.
    pub needed: Vec<String>,
    /// The library's own name.
    pub soname: Option<String>,
}

/// Reads a file; nothing for what is no 64-bit little-endian ELF file.
pub fn read(data: &[u8]) -> Result<Option<ElfInfo>> {
    // 64 bits, little endian: the only kind the repository is made of.
    if !data.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let header = FileHeader64::<LittleEndian>::parse(data).context("ELF header")?;
    let endian = header.endian().context("ELF byte order")?;
    let segments = header.program_headers(endian, data).context("ELF program headers")?;
    let mut info = ElfInfo::default();
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP {
            let bytes = segment.data(endian, data).ok().context("ELF interpreter lies outside the file")?;
            info.interpreter = Some(text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())?);
        }
        let Ok(Some(entries)) = segment.dynamic(endian, data) else { continue };
        let mut names = None;
        let mut string_table = (0, 0);
        for entry in entries {
            match entry.tag(endian) {
                tag if tag == object::elf::DT_STRTAB => string_table.0 = entry.val(endian),
                tag if tag == object::elf::DT_STRSZ => string_table.1 = entry.val(endian),
                _ => {}
            }
        }
        for load in segments {
            if let Ok(Some(bytes)) = load.data_range(endian, data, string_table.0, string_table.1) {
                names = Some(bytes);
            }
        }
        // Files of debug information keep the dynamic segment's header but not its content.
        let Some(names) = names else { continue };
        for entry in entries {
            let tag = entry.tag(endian);
            if tag == DT_NEEDED {
                info.needed.push(string_at(names, entry.val(endian))?);
            } else if tag == DT_SONAME {
                info.soname = Some(string_at(names, entry.val(endian))?);
            }
        }
    }
    Ok(Some(info))
}

fn string_at(names: &[u8], offset: u64) -> Result<String> {
    let tail = names.get(usize::try_from(offset)?..).context("ELF string lies outside its table")?;
    text(tail.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes).context("ELF string is no UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_test_itself() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let info = read(&own).unwrap().unwrap();
        assert!(info.interpreter.unwrap().contains("ld-linux"));
        assert!(info.needed.iter().any(|name| name == "libc.so.6"));
        assert_eq!(info.soname, None);
    }

    #[test]
    fn other_files_are_no_elf_files() {
        assert_eq!(read(b"#!/bin/sh\n").unwrap(), None);
        assert_eq!(read(b"").unwrap(), None);
    }
}
