//! Digests as packages write them.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use super::hashing::HashingWriter;

/// A SHA-1 as indexes write it: `Q1` and base64.
pub type Sha1Bytes = [u8; 20];

/// `Q1` and the base64 of a SHA-1.
pub fn q1(sum: &Sha1Bytes) -> String {
    format!("Q1{}", STANDARD.encode(sum))
}

/// Reads `Q1` and base64; `None` for anything else.
pub fn parse_q1(text: &str) -> Option<Sha1Bytes> {
    STANDARD.decode(text.strip_prefix("Q1")?).ok()?.try_into().ok()
}

/// The SHA-1 of bytes.
pub fn sha1(bytes: &[u8]) -> Sha1Bytes {
    Sha1::digest(bytes).into()
}

/// The SHA-256 of bytes in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-1 of everything a reader gives.
///
/// # Errors
/// The reader's.
pub fn sha1_of(reader: &mut impl Read) -> io::Result<Sha1Bytes> {
    let mut hasher = Sha1::new();
    io::copy(reader, &mut hasher)?;
    Ok(hasher.finalize().into())
}
