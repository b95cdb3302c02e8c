//! Whether a backend is fit for work: a circuit breaker fed by probes and by the ends of attempts. Pure: time comes
//! from the caller.
//!
//! ```text
//!            BREAKER_FAILURES failures, or one failure to connect
//!  closed ────────────────────────────────────────────────────────▶ open, for a pause that doubles
//!    ▲                                                               │ the pause is over, and a probe is answered
//!    └───────── the one trial goes well ────── half open ◀───────────┘
//!                                                  └── it fails ──▶ open
//! ```

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::limits;

/// What a backend is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendStatus {
    /// Nobody has asked it yet.
    Unknown,
    /// It answered last time.
    Healthy,
    /// It is given one job to show whether it works again.
    Trial,
    /// It failed, and gets no jobs until a probe is answered.
    Failing,
    /// It finishes what it runs and gets no more.
    Draining,
}

impl BackendStatus {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Trial => "trial",
            Self::Failing => "failing",
            Self::Draining => "draining",
        }
    }
}

/// A failure of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFailure {
    /// One line, with the cause.
    pub message: String,
    /// What to do about it, when known.
    pub hint: Option<String>,
    /// When it happened last.
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed,
    /// No jobs, and no probe before this moment.
    Open {
        until: Instant,
    },
    /// A probe was answered; one job may try.
    HalfOpen {
        tried: bool,
    },
}

/// The health of one backend.
#[derive(Debug, Clone)]
pub struct Health {
    breaker: Breaker,
    /// Failures in a row.
    failures: u32,
    /// Whether the breaker opened because nobody answered; then an answer is enough.
    unreachable: bool,
    pause: Duration,
    answered: bool,
    latency: Option<Duration>,
    last_failure: Option<BackendFailure>,
    failing_since: Option<Timestamp>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            breaker: Breaker::Closed,
            failures: 0,
            unreachable: false,
            pause: limits::BREAKER_PAUSE,
            answered: false,
            latency: None,
            last_failure: None,
            failing_since: None,
        }
    }
}

impl Health {
    /// What the backend is good for.
    pub fn status(&self) -> BackendStatus {
        match self.breaker {
            Breaker::Closed if self.answered => BackendStatus::Healthy,
            Breaker::Closed => BackendStatus::Unknown,
            Breaker::Open { .. } => BackendStatus::Failing,
            Breaker::HalfOpen { .. } => BackendStatus::Trial,
        }
    }

    /// The time that the last answered probe took.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// The last failure, also of a backend that works again.
    pub fn last_failure(&self) -> Option<&BackendFailure> {
        self.last_failure.as_ref()
    }

    /// Since when it fails; `None` when it does not.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// Whether it may be given a job.
    pub fn admits(&self) -> bool {
        matches!(self.breaker, Breaker::Closed | Breaker::HalfOpen { tried: false })
    }

    /// Whether it shall be asked now whether it is there; while it fails, not before its pause is over.
    pub fn is_probe_due(&self, now: Instant) -> bool {
        match self.breaker {
            Breaker::Open { until } => until <= now,
            Breaker::Closed | Breaker::HalfOpen { .. } => true,
        }
    }

    /// A job was given to it.
    pub fn began(&mut self) {
        if let Breaker::HalfOpen { tried } = &mut self.breaker {
            *tried = true;
        }
    }

    /// A job was given to it and says nothing about it: it was cancelled, say.
    pub fn ended_without_a_word(&mut self) {
        if let Breaker::HalfOpen { tried } = &mut self.breaker {
            *tried = false;
        }
    }

    /// A job ran on it as it should, whatever became of the job. Returns whether it works again.
    pub fn worked(&mut self) -> bool {
        self.answered = true;
        // Attempts that began before the breaker opened say nothing about now.
        if matches!(self.breaker, Breaker::Open { .. }) {
            return false;
        }
        self.close()
    }

    /// A probe was answered. Returns whether it works again.
    pub fn answered(&mut self, latency: Duration) -> bool {
        self.answered = true;
        self.latency = Some(latency);
        match self.breaker {
            Breaker::Open { .. } if self.unreachable => self.close(),
            Breaker::Open { .. } => {
                self.breaker = Breaker::HalfOpen { tried: false };
                false
            }
            Breaker::Closed | Breaker::HalfOpen { .. } => false,
        }
    }

    /// It failed: nobody answered (`unreachable`), or an attempt broke off. Returns whether it was fit for work
    /// before.
    pub(super) fn failed(&mut self, failure: BackendFailure, unreachable: bool, now: Instant) -> bool {
        let was_closed = self.breaker == Breaker::Closed;
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(failure.at);
        self.last_failure = Some(failure);
        match self.breaker {
            Breaker::Closed if !unreachable && self.failures < limits::BREAKER_FAILURES => return false,
            Breaker::Closed => self.pause = limits::BREAKER_PAUSE,
            Breaker::HalfOpen { .. } => self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX),
            // Only what was asked after the pause makes it longer: attempts that end together are one failure.
            Breaker::Open { until } if until <= now => {
                self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX);
            }
            Breaker::Open { .. } => {
                self.unreachable = self.unreachable && unreachable;
                return false;
            }
        }
        self.unreachable = unreachable;
        self.breaker = Breaker::Open { until: now + self.pause };
        was_closed
    }

    fn close(&mut self) -> bool {
        let was_open = self.breaker != Breaker::Closed;
        self.breaker = Breaker::Closed;
        self.failures = 0;
        self.failing_since = None;
        self.pause = limits::BREAKER_PAUSE;
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> BackendFailure {
        BackendFailure { message: "refused".to_owned(), hint: None, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn one_unanswered_call_opens_and_one_answer_closes() {
        let (mut health, start) = (Health::default(), Instant::now());
        assert_eq!(health.status(), BackendStatus::Unknown);
        assert!(health.failed(failure(), true, start), "it was fit before");
        assert!(!health.admits() && !health.is_probe_due(start));
        assert!(!health.failed(failure(), true, start), "others that end together are told once");
        let later = start + limits::BREAKER_PAUSE;
        assert!(health.is_probe_due(later));
        assert!(!health.failed(failure(), true, later));
        assert!(!health.is_probe_due(later + limits::BREAKER_PAUSE), "the pause doubles");
        assert!(health.answered(Duration::from_millis(3)), "it works again");
        assert_eq!((health.status(), health.failing_since()), (BackendStatus::Healthy, None));
        assert!(health.admits() && health.last_failure().is_some());
    }

    #[test]
    fn attempts_that_break_off_open_it_after_some_and_one_trial_closes_it() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 1..limits::BREAKER_FAILURES {
            assert!(!health.failed(failure(), false, now));
            assert!(health.admits());
        }
        assert!(health.failed(failure(), false, now));
        assert!(!health.answered(Duration::ZERO), "an answer alone does not show that builds work");
        assert_eq!(health.status(), BackendStatus::Trial);
        assert!(health.admits());
        health.began();
        assert!(!health.admits(), "one trial only");
        health.ended_without_a_word();
        assert!(health.admits(), "a cancelled trial shows nothing");
        health.began();
        assert!(!health.failed(failure(), false, now));
        assert!(!health.admits());
        health.answered(Duration::ZERO);
        health.began();
        assert!(health.worked());
        assert_eq!(health.status(), BackendStatus::Healthy);
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_add_up_and_late_ends_do_not_close() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..limits::BREAKER_FAILURES * 2 {
            health.failed(failure(), false, now);
            health.worked();
        }
        assert!(health.admits());
        health.failed(failure(), true, now);
        assert!(!health.worked(), "it began before the backend went away");
        assert!(!health.admits());
    }

    #[test]
    fn the_pause_has_a_bound() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..40 {
            health.failed(failure(), true, now);
            now += limits::BREAKER_PAUSE_MAX;
            assert!(health.is_probe_due(now));
        }
    }
}
