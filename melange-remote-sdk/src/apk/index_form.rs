//! An index as it is kept beside its file, so that the same file needs neither decompression nor parsing again.
//!
//! Pure. The form holds the SHA-256 of the file that it was read from, and the length and the CRC-32 of its own content: what
//! was cut off, mixed up or written by another version is no form, and the file is read instead. Against whoever may write
//! into the folder no checksum helps, and the sum is what a resolution waits for. It says nothing of signatures, which are
//! checked on the file itself.
//!
//! `magic, source, length, checksum, description, count, heads, text`: each head has the numbers of a record and the lengths of its
//! texts, which stand behind all heads, one after the other.

use flate2::Crc;

use super::index::{Index, IndexPackage};
use crate::limits;

/// The last byte is the version of the form. Raise it with each change of what is written here, and of what
/// `Index::read_content` keeps of a file or refuses: forms that lie there would still be read.
const MAGIC: &[u8; 8] = b"MRINDEX\x02";
const DIGEST_BYTES: usize = 32;
/// How many texts a record has.
const TEXTS: usize = 12;

/// The form of an index that was read from a file with this SHA-256; `None` for one too large to be kept.
pub(crate) fn write(index: &Index, source: &[u8; DIGEST_BYTES]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    put_length(&mut content, index.description.len())?;
    content.extend(&index.description);
    put_length(&mut content, index.packages.len())?;
    for package in &index.packages {
        content.push(u8::from(package.control_sha1.is_some()));
        content.extend(package.control_sha1.unwrap_or_default());
        content.extend(package.size_bytes.to_le_bytes());
        content.extend(package.installed_bytes.to_le_bytes());
        content.extend(package.build_time.to_le_bytes());
        content.extend(package.provider_priority.to_le_bytes());
        for text in texts(package) {
            put_length(&mut content, text.len())?;
        }
    }
    for text in index.packages.iter().flat_map(texts) {
        content.extend(text.as_bytes());
    }
    if content.len() as u64 > limits::INDEX_BYTES_MAX {
        return None;
    }
    Some([MAGIC, source.as_slice(), &seal(&content), &content].concat())
}

/// The index that a form was made of, if it is whole and of the file with this SHA-256.
pub(crate) fn read(bytes: &[u8], source: &[u8; DIGEST_BYTES]) -> Option<Index> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(source)?;
    let (sealed, content) = rest.split_first_chunk()?;
    if *sealed != seal(content) {
        return None;
    }
    let mut heads = Reader { rest: content };
    let length = heads.length()?;
    let description = heads.take(length)?.to_vec();
    let count = heads.length().filter(|count| *count <= limits::INDEX_PACKAGES_MAX)?;
    let head_bytes = count.checked_mul(1 + 20 + 4 * 8 + TEXTS * 4)?;
    let (heads, text) = heads.rest.split_at_checked(head_bytes)?;
    let (mut heads, mut text) = (Reader { rest: heads }, std::str::from_utf8(text).ok()?);
    let mut packages = Vec::with_capacity(count);
    for _ in 0..count {
        packages.push(heads.package(&mut text)?);
    }
    text.is_empty().then_some(Index { description, packages })
}

/// The length and the checksum of a content.
fn seal(content: &[u8]) -> [u8; 12] {
    let mut checksum = Crc::new();
    checksum.update(content);
    let mut sealed = [0; 12];
    sealed[..8].copy_from_slice(&(content.len() as u64).to_le_bytes());
    sealed[8..].copy_from_slice(&checksum.sum().to_le_bytes());
    sealed
}

fn put_length(content: &mut Vec<u8>, length: usize) -> Option<()> {
    content.extend(u32::try_from(length).ok()?.to_le_bytes());
    Some(())
}

fn texts(package: &IndexPackage) -> [&String; TEXTS] {
    [
        &package.name,
        &package.version,
        &package.arch,
        &package.description,
        &package.url,
        &package.license,
        &package.origin,
        &package.maintainer,
        &package.commit,
        &package.depends,
        &package.install_if,
        &package.provides,
    ]
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    /// The next record; its texts come off the front of `text`.
    fn package(&mut self, text: &mut &str) -> Option<IndexPackage> {
        let [has_sum] = self.array()?;
        let sum = self.array()?;
        let mut package = IndexPackage {
            control_sha1: (has_sum != 0).then_some(sum),
            size_bytes: u64::from_le_bytes(self.array()?),
            installed_bytes: u64::from_le_bytes(self.array()?),
            build_time: i64::from_le_bytes(self.array()?),
            provider_priority: u64::from_le_bytes(self.array()?),
            ..IndexPackage::default()
        };
        for field in [
            &mut package.name,
            &mut package.version,
            &mut package.arch,
            &mut package.description,
            &mut package.url,
            &mut package.license,
            &mut package.origin,
            &mut package.maintainer,
            &mut package.commit,
            &mut package.depends,
            &mut package.install_if,
            &mut package.provides,
        ] {
            let (taken, rest) = text.split_at_checked(self.length()?)?;
            (*field, *text) = (taken.to_owned(), rest);
        }
        Some(package)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let package = |name: &str, sum| IndexPackage {
            control_sha1: sum,
            name: name.to_owned(),
            version: "1.2-r3".to_owned(),
            description: "ä text".to_owned(),
            depends: "so:libc.so.6 b".to_owned(),
            provides: "cmd:a=1.2-r3".to_owned(),
            size_bytes: 7,
            build_time: -1,
            provider_priority: 9,
            ..IndexPackage::default()
        };
        Index {
            description: b"a repository".to_vec(),
            packages: vec![package("a", Some([3; 20])), package("b", None)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (index, source) = (sample(), [5; 32]);
        let form = write(&index, &source).unwrap();
        let read = read(&form, &source).unwrap();
        assert_eq!(format!("{read:?}"), format!("{index:?}"));
    }

    #[test]
    fn a_form_that_is_not_whole_is_none() {
        let (index, source) = (sample(), [5; 32]);
        let form = write(&index, &source).unwrap();
        assert!(read(&form, &[6; 32]).is_none(), "of another file");
        for end in 0..form.len() {
            assert!(read(&form[..end], &source).is_none(), "cut at {end}");
        }
        for at in 0..form.len() {
            let mut damaged = form.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged, &source).is_none(), "damaged at {at}");
        }
        // Whoever knows the checksums still cannot make it read beyond its end.
        for at in 52..form.len() {
            let mut forged = form.clone();
            forged[at] = 0xff;
            let sealed = seal(&forged[52..]);
            forged[40..52].copy_from_slice(&sealed);
            let _ = read(&forged, &source);
        }
    }
}
