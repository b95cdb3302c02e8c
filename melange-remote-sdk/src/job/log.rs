//! What is known of the log of an attempt, and places in the log of a job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The log of an attempt that has ended, as it lies among the artifacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogArchive {
    /// How many lines it has.
    pub lines: u64,
    /// How many bytes they have, each with its newline.
    pub text_bytes: u64,
    /// How many bytes it takes in the storage.
    pub stored_bytes: u64,
    /// Where the lines of each step are, in the order of the steps; at most [`crate::limits::STEPS_RECORDED_MAX`].
    pub steps: Vec<StepLines>,
}

impl LogArchive {
    /// An archived log with so many lines, bytes of text and bytes in the storage.
    pub fn new(lines: u64, text_bytes: u64, stored_bytes: u64) -> Self {
        Self { lines, text_bytes, stored_bytes, steps: Vec::new() }
    }
}

/// Where the lines of a step are in the log of its attempt. Lines of others may stand between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepLines {
    /// The step's position, from 0.
    pub step: u32,
    /// The number of its first line, from 1.
    pub first: u64,
    /// The number of its last line.
    pub last: u64,
}

impl StepLines {
    /// Lines `first` to `last` of a step.
    pub fn new(step: u32, first: u64, last: u64) -> Self {
        Self { step, first, last }
    }
}

/// A place in the log of a job: behind a line of an attempt. Written as `2:120`: behind line 120 of attempt 2.
///
/// ```
/// use melange_remote_sdk::job::LogPosition;
/// let place: LogPosition = "2:120".parse().unwrap();
/// assert_eq!(place, LogPosition { attempt: 2, line: 120 });
/// assert_eq!(place.to_string(), "2:120");
/// assert!(LogPosition { attempt: 1, line: 9_999 } < place);
/// assert!("120".parse::<LogPosition>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The number of the attempt, from 1; 0 is before all attempts.
    pub attempt: u32,
    /// The number of the line, from 1; 0 is before the first one.
    pub line: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.attempt, self.line)
    }
}

impl FromStr for LogPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = text.split_once(':').and_then(|(attempt, line)| {
            Some(Self { attempt: attempt.parse().ok()?, line: line.parse().ok()? })
        });
        place.ok_or_else(|| {
            Error::invalid(format!("{text:?} is no place in a log"))
                .hint("a place is ATTEMPT:LINE, such as 1:120")
        })
    }
}
