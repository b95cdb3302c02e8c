//! The name of the files that lie beside a definition: the digest of the archive that they travel in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the text form begins with.
const PREFIX: &str = "sha256:";

/// The SHA-256 of an archive of source files, written as `sha256:` and 64 lower-case hexadecimal digits.
///
/// ```
/// use melange_remote_sdk::job::SourceDigest;
/// let text = format!("sha256:{}", "0a".repeat(32));
/// assert_eq!(text.parse::<SourceDigest>().unwrap().to_string(), text);
/// for bad in ["", "sha256:", "sha256:0a", &text[7..], &text.to_uppercase(), &format!("{text}0")] {
///     assert!(bad.parse::<SourceDigest>().is_err(), "{bad}");
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceDigest([u8; 32]);

impl SourceDigest {
    /// The digest with these bytes.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The 64 digits alone.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for SourceDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(format!("{text:?} does not name source files"))
                .hint("write the SHA-256 of their archive as `sha256:` and 64 lower-case hexadecimal digits")
        };
        let digits = text.strip_prefix(PREFIX).ok_or_else(refuse)?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digits, &mut sha256).map_err(|_| refuse())?;
        // One digest has one text, since texts are compared and are parts of keys.
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) { Err(refuse()) } else { Ok(Self(sha256)) }
    }
}

impl fmt::Display for SourceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl TryFrom<String> for SourceDigest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SourceDigest> for String {
    fn from(digest: SourceDigest) -> Self {
        digest.to_string()
    }
}
