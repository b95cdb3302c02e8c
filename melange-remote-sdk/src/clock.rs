//! The only reader of wall time; whoever needs the time of day takes a [`Clock`] and tests hand in their own.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::pointers::hand_on;

/// Tells the time of day.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

hand_on!(Clock; {
    fn now(&self) -> Timestamp;
});

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that starts at a given time and follows tokio's clock, so that a paused test moves both at once.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    started_at: Timestamp,
    started: tokio::time::Instant,
}

impl SteadyClock {
    /// A clock that says `started_at` now.
    pub fn starting_at(started_at: Timestamp) -> Self {
        Self { started_at, started: tokio::time::Instant::now() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.started.elapsed()).unwrap_or(SignedDuration::MAX);
        self.started_at.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// `at` plus `duration`, stopping at the end of time.
pub fn later(at: Timestamp, duration: std::time::Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// `at` minus `duration`, stopping at the beginning of time.
pub fn earlier(at: Timestamp, duration: std::time::Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_sub(duration).ok())
        .unwrap_or(Timestamp::MIN)
}

/// The time from `since` to `now`; nothing when the clock went back.
pub fn elapsed(since: Timestamp, now: Timestamp) -> std::time::Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steady_clock_follows_the_paused_one() {
        let clock = SteadyClock::starting_at(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), later(Timestamp::UNIX_EPOCH, Duration::from_secs(5)));
        assert_eq!(later(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
    }
}
