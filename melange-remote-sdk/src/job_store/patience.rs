//! For how long a job is tried again.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::Job;

/// For how long a job is tried again when its attempts break off for reasons of the farm: until both are used up. So a
/// long build has its attempts, and a short one does not lose all of them to one trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Patience {
    /// Attempts that count.
    pub attempts: u32,
    /// Time since the first of them broke off.
    pub time: Duration,
}

impl Patience {
    /// For ever.
    pub const ENDLESS: Self = Self { attempts: u32::MAX, time: Duration::MAX };

    /// Until so many attempts and that much time are used up.
    pub fn new(attempts: u32, time: Duration) -> Self {
        Self { attempts, time }
    }

    /// Whether the job, whose present attempt breaks off now, is not tried again.
    pub fn is_over(&self, job: &Job, now: Timestamp) -> bool {
        // A clock that went back has not moved.
        let since = job.failing_since.unwrap_or(now);
        let time = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        job.counted_attempts >= self.attempts && time >= self.time
    }
}
