//! Names: of jobs and builds, ordered by the time of their submission; of claims, projects and servers.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Uuid};

use crate::error::{Error, Result};

/// Stores a name as its text, which is checked when it is read.
macro_rules! stored_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    };
}

/// A job's name: a version 7 UUID in lower case with hyphens. Names made by one process grow strictly; names of
/// several processes grow with their clocks.
///
/// ```
/// use melange_remote_sdk::job::JobId;
/// let first = JobId::new(jiff::Timestamp::UNIX_EPOCH);
/// let second = JobId::new(jiff::Timestamp::UNIX_EPOCH);
/// assert!(first < second);
/// assert_eq!(first.to_string().parse::<JobId>().unwrap(), first);
/// assert!("../x".parse::<JobId>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Uuid);

/// Keeps names growing within one tick of the clock.
static CONTEXT: Mutex<AssertUnwindSafe<ContextV7>> = Mutex::new(AssertUnwindSafe(ContextV7::new()));

impl JobId {
    /// A new name for a job handed in at `now`.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(&CONTEXT, seconds, nanos)))
    }

    /// When the name was made, in whole milliseconds.
    pub fn created_at(&self) -> Timestamp {
        let made = self.0.get_timestamp().map(|made| made.to_unix());
        let made = made.and_then(|(seconds, nanos)| {
            Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
        });
        made.unwrap_or(Timestamp::MIN)
    }

    /// The 16 bytes, which sort as the names do.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The name with these bytes.
    ///
    /// # Errors
    /// `InvalidRequest` when they are not those of a name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Uuid::from_slice(bytes)
            .ok()
            .filter(|id| id.get_version_num() == 7)
            .map(Self)
            .ok_or_else(|| Error::invalid("these are not the bytes of a job's id"))
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid("this is not the id of a job").hint("an id looks like 0197a3c2-…");
        let id = Uuid::try_parse(text).map_err(|source| refuse().source(source))?;
        // One spelling only: an id is also a storage key.
        let canonical = id.get_version_num() == 7 && id.hyphenated().to_string() == text;
        if canonical { Ok(Self(id)) } else { Err(refuse()) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

stored_as_text!(JobId);

/// A build's name: `build-` and a version 7 UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId(JobId);

impl BuildId {
    const PREFIX: &'static str = "build-";

    /// A new name for a build handed in at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(JobId::new(now))
    }

    /// The 16 bytes, which sort as the names do.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The name with these bytes.
    ///
    /// # Errors
    /// `InvalidRequest` when they are not those of a name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        JobId::from_bytes(bytes).map(Self)
    }
}

impl FromStr for BuildId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = text.strip_prefix(Self::PREFIX).and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| {
            Error::invalid("this is not the id of a build").hint("an id looks like build-0197a3c2-…")
        })
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

stored_as_text!(BuildId);

/// Names one call that claims jobs, so that a repeated call gives the same claims; the jobs' owner shows it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClaimToken(Uuid);

impl ClaimToken {
    /// A token that nobody else has.
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The token with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for ClaimToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for ClaimToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::parse_str(text).map(Self).map_err(|_| Error::invalid("this is no token of a claim"))
    }
}

stored_as_text!(ClaimToken);

/// Defines a short plain name: lower-case letters, digits, `.`, `_` and `-`, 1 to 63 bytes, a letter or digit first.
macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                let legal = matches!(text.len(), 1..=63)
                    && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
                    && text.bytes().next().is_some_and(plain);
                if !legal {
                    let hint = "1 to 63 lower-case letters, digits, dots, underscores and hyphens";
                    return Err(Error::invalid(format!(concat!("{:?} is not the name of ", $what), text)).hint(hint));
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        stored_as_text!($name);
    };
}

plain_name! {
    /// Whose jobs are whose: submissions, keys and turns in the queue are a project's own.
    Project, "a project"
}

plain_name! {
    /// One run of a server; another run of the same server has another name.
    ServerId, "a server"
}

impl Default for Project {
    /// The project of submissions that name none: `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

impl ServerId {
    /// A name that no other run has.
    pub fn unique() -> Self {
        Self(format!("server-{}", Uuid::new_v4().simple()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_have_one_spelling() {
        let ids: Vec<JobId> = (0..10_000).map(|_| JobId::new(Timestamp::UNIX_EPOCH)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        let text = ids[0].to_string();
        assert!(text.to_uppercase().parse::<JobId>().is_err() || text.to_uppercase() == text);
        assert!(text.replace('-', "").parse::<JobId>().is_err());
        assert!("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<JobId>().is_err());
        let build = BuildId::new(Timestamp::UNIX_EPOCH);
        assert_eq!(build.to_string().parse::<BuildId>().unwrap(), build);
        assert!(text.parse::<BuildId>().is_err() && build.to_string().parse::<JobId>().is_err());
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "wolfi-os", "9.a_b"] {
            assert_eq!(name.parse::<Project>().unwrap().as_str(), name);
        }
        for name in ["", "A", "a b", "../x", ".a", "ä", &"x".repeat(64)] {
            assert!(name.parse::<Project>().is_err(), "{name:?}");
        }
        assert_ne!(ServerId::unique(), ServerId::unique());
        assert_eq!(ServerId::unique().as_str().parse::<ServerId>().unwrap().as_str().len(), 39);
    }
}
