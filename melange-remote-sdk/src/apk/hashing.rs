//! Hashing what is written, on its way.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

/// Passes bytes on while counting and hashing them.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    sha256: Sha256,
    count: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, sha256: Sha256::new(), count: 0 }
    }

    /// The writer, the SHA-256 in lower-case hex and the number of bytes.
    pub fn finish(self) -> (W, String, u64) {
        (self.inner, hex::encode(self.sha256.finalize()), self.count)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
