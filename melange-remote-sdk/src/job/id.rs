//! The name of a job: ordered by the time of its submission, printable, validated.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Uuid};

use crate::error::{Error, Result};

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

impl TryFrom<String> for JobId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
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
    }
}
