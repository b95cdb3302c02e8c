//! Gzip members: deterministic writing, and finding where one member ends and the next begins.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

/// The time stamp that Go writes for "no time"; control and data members carry it upstream.
const GO_ZERO_TIME: u32 = 0x886e_0900;

/// Which header a member gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// Control or data of a package: the time stamp field holds Go's zero time.
    Package,
    /// A signature or an index: the time stamp field is 0.
    Plain,
}

impl MemberKind {
    fn mtime(self) -> u32 {
        match self {
            Self::Package => GO_ZERO_TIME,
            Self::Plain => 0,
        }
    }
}

/// What a member begins with (RFC 1952): deflate, no flags, the time stamp, no hint about the level, an unknown system.
pub(crate) fn header(kind: MemberKind) -> [u8; 10] {
    let [a, b, c, d] = kind.mtime().to_le_bytes();
    [0x1f, 0x8b, 8, 0, a, b, c, d, 0, 0xff]
}

/// An encoder whose output depends on its input alone.
pub(crate) fn encoder<W: Write>(kind: MemberKind, inner: W) -> GzEncoder<W> {
    GzBuilder::new().mtime(kind.mtime()).operating_system(255).write(inner, Compression::new(6))
}

/// Compresses bytes into one member.
///
/// # Errors
/// None in practice: memory is written to.
pub fn member(kind: MemberKind, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = encoder(kind, Vec::new());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Counts what is consumed of a buffered reader, so that the end of a member is known to the byte.
#[derive(Debug)]
pub struct Counting<R> {
    inner: R,
    consumed: u64,
}

impl<R: BufRead> Counting<R> {
    /// Wraps a reader at position 0.
    pub fn new(inner: R) -> Self {
        Self { inner, consumed: 0 }
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.consumed
    }

    /// Whether nothing is left.
    ///
    /// # Errors
    /// The reader's.
    pub fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.inner.fill_buf()?.is_empty())
    }

    /// The wrapped reader.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Decompresses the next member whole, at most `bytes_max` of it.
    ///
    /// # Errors
    /// `InvalidData` for a broken or too large member.
    pub fn read_member(&mut self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut decoder = GzDecoder::new(&mut *self);
        (&mut decoder).take(bytes_max + 1).read_to_end(&mut content)?;
        if content.len() as u64 > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a section decompresses to more than {bytes_max} bytes"),
            ));
        }
        Ok(content)
    }
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.consumed += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount as u64;
        self.inner.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_upstreams_headers_and_split_exactly() {
        let first = member(MemberKind::Package, b"one").unwrap();
        let second = member(MemberKind::Plain, b"two").unwrap();
        assert_eq!(first[..10], [0x1f, 0x8b, 8, 0, 0, 9, 0x6e, 0x88, 0, 0xff]);
        assert_eq!(
            (&first[..10], &second[..10]),
            (&header(MemberKind::Package)[..], &header(MemberKind::Plain)[..])
        );
        assert_eq!(second[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        let both = [first.clone(), second.clone()].concat();
        let mut reader = Counting::new(&both[..]);
        assert_eq!(reader.read_member(10).unwrap(), b"one");
        assert_eq!(reader.position(), first.len() as u64);
        assert_eq!(reader.read_member(10).unwrap(), b"two");
        assert!(reader.at_end().unwrap());
        assert!(Counting::new(&both[..]).read_member(2).is_err());
    }
}
