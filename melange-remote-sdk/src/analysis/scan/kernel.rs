//! Kernels and their modules: which version of Linux they are of.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::{GzDecoder, MultiGzDecoder};

/// What is searched through of one file once it is unpacked: kernels with all symbols have some hundred MB.
const SEARCHED_BYTES_MAX: u64 = 1 << 30;
/// What is read of all files of a package together once they are unpacked; what lies behind tells nothing.
pub(super) const PACKAGE_BYTES_MAX: u64 = 8 << 30;
/// The window of a file's compression: modules have 8 MB at most.
const WINDOW_LOG_MAX: u32 = 26;
/// The same for xz, in KiB.
const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;
/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A line with a version: what of it is looked at.
const LINE_BYTES_MAX: usize = 4 << 10;
/// The part of an x86 boot image that its header points into, and a version there.
const HEAD_BYTES: u64 = 0x200 + (64 << 10) + 4096;
/// Sections of a PE file; images that firmware starts have a dozen.
const SECTIONS_MAX: u16 = 96;

const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How an image holds its kernel.
#[derive(Clone, Copy)]
enum Image {
    Whole,
    Gzip,
    /// In a section of a unified kernel image.
    Section {
        offset: u64,
        size: u64,
    },
}

/// A reader that pays for what it gives, and ends when nothing is left.
struct Paid<'c, R> {
    inner: R,
    left: &'c Cell<u64>,
}

impl<R: Read> Read for Paid<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}

/// The version of a kernel image: as its boot header says, otherwise as the kernel in it does.
pub(super) fn image_version<R: Read + Seek>(open: impl Fn() -> R, left: &Cell<u64>) -> Option<String> {
    let image = if begins_with(&mut open(), GZIP) {
        Image::Gzip
    } else {
        linux_section(&mut open()).unwrap_or(Image::Whole)
    };
    let unpacked = || -> io::Result<Box<dyn Read + '_>> {
        let mut reader = open();
        let inner: Box<dyn Read + '_> = match image {
            Image::Whole => Box::new(reader.take(SEARCHED_BYTES_MAX)),
            Image::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(reader)).take(SEARCHED_BYTES_MAX)),
            Image::Section { offset, size } => {
                reader.seek(SeekFrom::Start(offset))?;
                Box::new(reader.take(size.min(SEARCHED_BYTES_MAX)))
            }
        };
        Ok(Box::new(Paid { inner, left }))
    };
    let mut head = Vec::new();
    unpacked().ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok();
    let text = of_boot_header(&head).or_else(|| {
        // Images of ARM hold the kernel compressed behind a program that unpacks it.
        let mut reader = BufReader::with_capacity(CHUNK_BYTES, unpacked().ok()?);
        skip_to(&mut reader, GZIP).ok().filter(|found| *found)?;
        let packed = GZIP.chain(reader);
        let inner = GzDecoder::new(BufReader::new(packed)).take(SEARCHED_BYTES_MAX);
        line_behind(Paid { inner, left }, b"Linux version ")
    });
    version(&text.or_else(|| line_behind(unpacked().ok()?, b"Linux version "))?)
}

/// The version that a module was made for.
pub(super) fn module_version<R: Read + Seek>(open: impl Fn() -> R, left: &Cell<u64>) -> Option<String> {
    let begins = |magic| begins_with(&mut open(), magic);
    let reader = BufReader::with_capacity(CHUNK_BYTES, open());
    let unpacked: Box<dyn Read + '_> = if begins(GZIP) {
        Box::new(MultiGzDecoder::new(reader))
    } else if begins(XZ) {
        Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB_MAX))
    } else if begins(ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(reader).ok()?;
        decoder.window_log_max(WINDOW_LOG_MAX).ok()?;
        Box::new(decoder)
    } else {
        Box::new(reader)
    };
    let inner = unpacked.take(SEARCHED_BYTES_MAX);
    version(&line_behind(Paid { inner, left }, b"vermagic=")?)
}

fn begins_with(reader: &mut impl Read, magic: &[u8]) -> bool {
    let mut begin = Vec::new();
    reader.take(magic.len() as u64).read_to_end(&mut begin).is_ok() && begin == magic
}

/// The version at the begin of `6.12.57-example (gcc …) #1 SMP`.
fn version(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The kernel in a unified kernel image, which is a program for firmware with a section for it.
fn linux_section(reader: &mut (impl Read + Seek)) -> Option<Image> {
    let mut at = |offset: u64, length: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        reader.seek(SeekFrom::Start(offset)).ok()?;
        reader.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let u32_at = |bytes: &[u8], at: usize| {
        Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let u16_at = |bytes: &[u8], at: usize| {
        Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
    };
    let dos = at(0, 0x40)?;
    if !dos.starts_with(b"MZ") {
        return None;
    }
    let header = u64::from(u32_at(&dos, 0x3c)?);
    let coff = at(header, 24)?;
    if !coff.starts_with(b"PE\0\0") {
        return None;
    }
    let sections = header + 24 + u64::from(u16_at(&coff, 20)?);
    for index in 0..u16_at(&coff, 6)?.min(SECTIONS_MAX) {
        let section = at(sections + 40 * u64::from(index), 40)?;
        if section.starts_with(b".linux\0\0") {
            let (size, offset) = (u32_at(&section, 16)?, u32_at(&section, 20)?);
            return Some(Image::Section { offset: offset.into(), size: size.into() });
        }
    }
    None
}

/// What an x86 boot image says in its header.
fn of_boot_header(head: &[u8]) -> Option<String> {
    if head.get(514..518)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes(head.get(526..528)?.try_into().ok()?);
    let text = head.get(usize::from(pointer) + 0x200..).filter(|_| pointer > 0)?;
    line(text)
}

/// The text up to its end, a line's or a NUL; `None` when it is empty.
fn line(text: &[u8]) -> Option<String> {
    let text = text.get(..LINE_BYTES_MAX).unwrap_or(text);
    let end = text.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(text.len());
    let text = String::from_utf8_lossy(text.get(..end)?).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Reads on until the first place behind `words`.
fn skip_to(reader: &mut impl BufRead, words: &[u8]) -> io::Result<bool> {
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let (before, length) = (kept.len(), chunk.len());
        kept.extend_from_slice(chunk);
        if let Some(at) = position(&kept, words) {
            let used = at + words.len() - before;
            reader.consume(used);
            return Ok(true);
        }
        reader.consume(length);
        kept.drain(..kept.len().saturating_sub(words.len().saturating_sub(1)));
    }
}

fn position(text: &[u8], words: &[u8]) -> Option<usize> {
    let first = *words.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first).map(|at| from + at) {
        if text.get(at..)?.starts_with(words) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The rest of the line behind the first place where `words` stand.
fn line_behind(reader: impl Read, words: &[u8]) -> Option<String> {
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, reader);
    if !skip_to(&mut reader, words).ok()? {
        return None;
    }
    let mut rest = Vec::new();
    // What breaks off behind it does not matter.
    let _ = reader.take(LINE_BYTES_MAX as u64).read_to_end(&mut rest);
    line(&rest)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn image(bytes: &[u8]) -> Option<String> {
        image_version(|| Cursor::new(bytes), &Cell::new(PACKAGE_BYTES_MAX))
    }

    fn module(bytes: &[u8]) -> Option<String> {
        module_version(|| Cursor::new(bytes), &Cell::new(PACKAGE_BYTES_MAX))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A kernel whose version stands across the border of two reads.
    fn kernel() -> Vec<u8> {
        let mut kernel = vec![b'L'; CHUNK_BYTES - 5];
        kernel.extend(b"Linux version 6.1.2-foo_1 (a@b) (gcc) #1\n\0rest");
        kernel
    }

    #[test]
    fn images_of_all_kinds() {
        let plain = kernel();
        assert_eq!(image(&plain).unwrap(), "6.1.2-foo_1");
        assert_eq!(image(&gzip(&plain)).unwrap(), "6.1.2-foo_1");
        let mut arm = b"zImage \x1f\x8b unpacks what follows".to_vec();
        arm.extend(gzip(&plain));
        arm.extend(b"and a tail");
        assert_eq!(image(&arm).unwrap(), "6.1.2-foo_1");
        let mut boot = vec![0; 0x400];
        boot[514..518].copy_from_slice(b"HdrS");
        boot[526..528].copy_from_slice(&0x180_u16.to_le_bytes());
        boot[0x380..0x38a].copy_from_slice(b"5.4.0-x y\0");
        assert_eq!(image(&boot).unwrap(), "5.4.0-x");
        let mut unified = vec![0; 0x200];
        unified[..2].copy_from_slice(b"MZ");
        unified[0x3c] = 0x80;
        unified[0x80..0x84].copy_from_slice(b"PE\0\0");
        unified[0x86] = 2;
        unified[0x94] = 8;
        let (begin, section) = (unified.len() as u32, 0x80 + 24 + 8 + 40);
        unified[section..section + 8].copy_from_slice(b".linux\0\0");
        unified[section + 16..section + 20].copy_from_slice(&0x400_u32.to_le_bytes());
        unified[section + 20..section + 24].copy_from_slice(&begin.to_le_bytes());
        unified.extend(&boot);
        assert_eq!(image(&unified).unwrap(), "5.4.0-x");
        for nothing in [&b""[..], b"Linux version \n", b"Linux version (x)", b"MZ", GZIP] {
            assert_eq!(image(nothing), None);
        }
    }

    #[test]
    fn modules_of_all_compressions() {
        let mut plain = b"\x7fELF".repeat(1000);
        plain.extend(b"vermagic=6.6.7-bar SMP mod_unload \0x");
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        // `printf 'vermagic=6.6.7-bar SMP \0' | xz`
        let xz = hex::decode(concat!(
            "fd377a585a000004e6d6b4460200210116000000742fe5a3010017766572",
            "6d616769633d362e362e372d62617220534d502000007ef01463bf2dbf87",
            "000130188e1bacec1fb6f37d010000000004595a"
        ));
        for bytes in [plain.clone(), gzip(&plain), zstd, xz.unwrap()] {
            assert_eq!(module(&bytes).unwrap(), "6.6.7-bar");
        }
        assert_eq!(module(b"vermagic=").as_deref(), None);
        assert_eq!(module(b"").as_deref(), None);
    }
}
