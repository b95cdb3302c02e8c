//! Whether a backend is fit for work: a circuit breaker fed by probes and by the ends of attempts. Pure: time comes
//! from the caller. Several servers may feed one breaker, by way of the [`super::registry`].
//!
//! ```text
//!            BREAKER_FAILURES failures, or one failure to connect
//!  closed ────────────────────────────────────────────────────────▶ open, for a pause that doubles
//!    ▲                                                               │ the pause is over, and a probe is answered
//!    └───────── the one trial goes well ────── half open ◀───────────┘
//!                                                  └── it fails ──▶ open
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::job::ServerId;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendFailure {
    /// One line, with the cause.
    pub message: String,
    /// What to do about it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it happened last.
    pub at: Timestamp,
}

/// What a server saw of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// A job ran on it as it should, whatever became of the job.
    Worked,
    /// A probe was answered.
    Answered,
    /// It failed: nobody answered, or an attempt broke off.
    Failed {
        /// What happened.
        failure: BackendFailure,
        /// Whether nobody answered.
        unreachable: bool,
    },
}

/// What an observation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is as fit for work as it was.
    None,
    /// It gets no jobs from now on.
    Fails,
    /// It is fit for work again.
    WorksAgain,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Breaker {
    Closed,
    /// No jobs, and no probe before this moment.
    Open {
        until: Timestamp,
    },
    /// A probe was answered; one job may try.
    HalfOpen {
        /// The server whose job it is; `None` for the one that keeps this.
        by: Option<ServerId>,
        /// Until when others leave it alone.
        until: Timestamp,
    },
}

/// The health of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    breaker: Breaker,
    /// Failures in a row.
    failures: u32,
    /// Whether the breaker opened because nobody answered; then an answer is enough.
    unreachable: bool,
    pause: Duration,
    answered: bool,
    last_failure: Option<BackendFailure>,
    failing_since: Option<Timestamp>,
    /// Whether the one job is under way that shows whether it works again. Only the server knows whose job it is.
    #[serde(skip)]
    tried: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            breaker: Breaker::Closed,
            failures: 0,
            unreachable: false,
            pause: limits::BREAKER_PAUSE,
            answered: false,
            last_failure: None,
            failing_since: None,
            tried: false,
        }
    }
}

/// Whether a moment that lies at most `most` ahead has come. One that lies further ahead was set by a clock that has
/// gone back since.
fn is_over(until: Timestamp, most: Duration, now: Timestamp) -> bool {
    until <= now || until > after(now, most)
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    at.checked_add(time).unwrap_or(Timestamp::MAX)
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

    /// The last failure, also of a backend that works again.
    pub fn last_failure(&self) -> Option<&BackendFailure> {
        self.last_failure.as_ref()
    }

    /// Since when it fails; `None` when it does not.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// Whether this server may give it a job.
    pub fn admits(&self) -> bool {
        match self.breaker {
            Breaker::Closed => true,
            Breaker::HalfOpen { by: None, .. } => !self.tried,
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => false,
        }
    }

    /// Whether it shall be asked now whether it is there; while it fails, not before its pause is over.
    pub fn is_probe_due(&self, now: Timestamp) -> bool {
        match self.breaker {
            Breaker::Open { until } => is_over(until, limits::BREAKER_PAUSE_MAX, now),
            Breaker::Closed | Breaker::HalfOpen { .. } => true,
        }
    }

    /// A job was given to it.
    pub fn began(&mut self) {
        self.tried = matches!(self.breaker, Breaker::HalfOpen { .. });
    }

    /// A job was given to it and says nothing about it: it was cancelled, say.
    pub fn ended_without_a_word(&mut self) {
        self.tried = false;
    }

    /// The same as the server of this name keeps it, whose own copy was `own`.
    #[must_use]
    pub fn seen_by(mut self, server: &ServerId, own: &Self) -> Self {
        if let Breaker::HalfOpen { by, .. } = &mut self.breaker
            && by.as_ref() == Some(server)
        {
            *by = None;
            self.tried = own.tried && matches!(own.breaker, Breaker::HalfOpen { by: None, .. });
        }
        self
    }

    /// Takes what a server saw; `by` is its name, `None` for the one that keeps this.
    pub fn observe(&mut self, seen: &Observation, by: Option<&ServerId>, at: Timestamp) -> Turn {
        match seen {
            Observation::Worked => self.worked(),
            Observation::Answered => self.answered(by, at),
            Observation::Failed { failure, unreachable } => self.failed(failure, *unreachable, at),
        }
    }

    /// Whether what a server saw would change anything.
    pub fn would_change(&self, seen: &Observation, at: Timestamp) -> bool {
        let mut changed = self.clone();
        changed.observe(seen, None, at);
        changed != *self
    }

    fn worked(&mut self) -> Turn {
        self.answered = true;
        // Attempts that began before the breaker opened say nothing about now.
        if matches!(self.breaker, Breaker::Open { .. }) {
            return Turn::None;
        }
        self.close()
    }

    fn answered(&mut self, by: Option<&ServerId>, at: Timestamp) -> Turn {
        self.answered = true;
        let is_tried = match &self.breaker {
            Breaker::Closed => return Turn::None,
            Breaker::Open { .. } if self.unreachable => return self.close(),
            Breaker::Open { .. } => false,
            Breaker::HalfOpen { by: owner, until } => {
                owner.as_ref() == by || !is_over(*until, limits::BREAKER_TRIAL, at)
            }
        };
        if !is_tried {
            self.breaker = Breaker::HalfOpen { by: by.cloned(), until: after(at, limits::BREAKER_TRIAL) };
            self.tried = false;
        }
        Turn::None
    }

    fn failed(&mut self, failure: &BackendFailure, unreachable: bool, at: Timestamp) -> Turn {
        let was_closed = self.breaker == Breaker::Closed;
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(failure.at);
        self.last_failure = Some(failure.clone());
        match self.breaker {
            Breaker::Closed if !unreachable && self.failures < limits::BREAKER_FAILURES => return Turn::None,
            Breaker::Closed => self.pause = limits::BREAKER_PAUSE,
            Breaker::HalfOpen { .. } => self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX),
            // Only what was asked after the pause makes it longer: attempts that end together are one failure.
            Breaker::Open { until } if is_over(until, limits::BREAKER_PAUSE_MAX, at) => {
                self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX);
            }
            Breaker::Open { .. } => {
                self.unreachable = self.unreachable && unreachable;
                return Turn::None;
            }
        }
        self.unreachable = unreachable;
        self.breaker = Breaker::Open { until: after(at, self.pause) };
        if was_closed { Turn::Fails } else { Turn::None }
    }

    fn close(&mut self) -> Turn {
        let was_open = self.breaker != Breaker::Closed;
        self.breaker = Breaker::Closed;
        self.failures = 0;
        self.failing_since = None;
        self.pause = limits::BREAKER_PAUSE;
        self.tried = false;
        if was_open { Turn::WorksAgain } else { Turn::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn failed(unreachable: bool) -> Observation {
        let failure = BackendFailure { message: "refused".to_owned(), hint: None, at: START };
        Observation::Failed { failure, unreachable }
    }

    /// A breaker, and the time.
    struct Watched {
        health: Health,
        now: Timestamp,
    }

    impl Watched {
        fn new() -> Self {
            Self { health: Health::default(), now: START }
        }

        fn sees(&mut self, seen: &Observation) -> Turn {
            self.health.observe(seen, None, self.now)
        }

        fn wait(&mut self, time: Duration) {
            self.now = after(self.now, time);
        }

        fn is_probe_due(&self) -> bool {
            self.health.is_probe_due(self.now)
        }
    }

    #[test]
    fn one_unanswered_call_opens_and_one_answer_closes() {
        let mut backend = Watched::new();
        assert_eq!(backend.health.status(), BackendStatus::Unknown);
        assert_eq!(backend.sees(&failed(true)), Turn::Fails, "it was fit before");
        assert!(!backend.health.admits() && !backend.is_probe_due());
        assert_eq!(backend.sees(&failed(true)), Turn::None, "others that end together are told once");
        backend.wait(limits::BREAKER_PAUSE);
        assert!(backend.is_probe_due());
        assert_eq!(backend.sees(&failed(true)), Turn::None);
        backend.wait(limits::BREAKER_PAUSE);
        assert!(!backend.is_probe_due(), "the pause doubles");
        assert_eq!(backend.sees(&Observation::Answered), Turn::WorksAgain);
        assert_eq!((backend.health.status(), backend.health.failing_since()), (BackendStatus::Healthy, None));
        assert!(backend.health.admits() && backend.health.last_failure().is_some());
    }

    #[test]
    fn attempts_that_break_off_open_it_after_some_and_one_trial_closes_it() {
        let mut backend = Watched::new();
        for _ in 1..limits::BREAKER_FAILURES {
            assert_eq!(backend.sees(&failed(false)), Turn::None);
            assert!(backend.health.admits());
        }
        assert_eq!(backend.sees(&failed(false)), Turn::Fails);
        let turn = backend.sees(&Observation::Answered);
        assert_eq!(turn, Turn::None, "an answer alone does not show that builds work");
        assert_eq!(backend.health.status(), BackendStatus::Trial);
        assert!(backend.health.admits());
        backend.health.began();
        assert!(!backend.health.admits(), "one trial only");
        backend.sees(&Observation::Answered);
        assert!(!backend.health.admits(), "also when it goes on answering");
        backend.health.ended_without_a_word();
        assert!(backend.health.admits(), "a cancelled trial shows nothing");
        backend.health.began();
        assert_eq!(backend.sees(&failed(false)), Turn::None);
        assert!(!backend.health.admits());
        backend.sees(&Observation::Answered);
        backend.health.began();
        assert_eq!(backend.sees(&Observation::Worked), Turn::WorksAgain);
        assert_eq!(backend.health.status(), BackendStatus::Healthy);
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_add_up_and_late_ends_do_not_close() {
        let mut backend = Watched::new();
        for _ in 0..limits::BREAKER_FAILURES * 2 {
            backend.sees(&failed(false));
            backend.sees(&Observation::Worked);
        }
        assert!(backend.health.admits());
        backend.sees(&failed(true));
        assert_eq!(backend.sees(&Observation::Worked), Turn::None, "it began before the backend went away");
        assert!(!backend.health.admits());
    }

    #[test]
    fn the_pause_has_a_bound_and_survives_a_clock_that_goes_back() {
        let mut backend = Watched::new();
        for _ in 0..40 {
            backend.sees(&failed(true));
            backend.wait(limits::BREAKER_PAUSE_MAX);
            assert!(backend.is_probe_due());
        }
        backend.sees(&failed(true));
        assert!(!backend.is_probe_due());
        backend.now = START;
        assert!(backend.is_probe_due());
    }

    #[test]
    fn the_trial_is_one_servers_until_it_was_not_heard_of_for_long() {
        let [one, two] = [ServerId::unique(), ServerId::unique()];
        let mut shared = Health::default();
        (0..limits::BREAKER_FAILURES).for_each(|_| _ = shared.observe(&failed(false), Some(&one), START));
        shared.observe(&Observation::Answered, Some(&two), START);
        let of = |shared: &Health, server| shared.clone().seen_by(server, &Health::default());
        assert!(of(&shared, &two).admits() && !of(&shared, &one).admits());
        let mut own = of(&shared, &two);
        own.began();
        assert!(!shared.clone().seen_by(&two, &own).admits(), "it knows of its trial");
        shared.observe(&Observation::Answered, Some(&one), START);
        assert!(!of(&shared, &one).admits());
        let later = after(START, limits::BREAKER_TRIAL);
        shared.observe(&Observation::Answered, Some(&one), later);
        assert!(of(&shared, &one).admits() && !of(&shared, &two).admits());
        assert_eq!(shared.observe(&Observation::Worked, Some(&two), later), Turn::WorksAgain);
    }

    #[test]
    fn what_changes_nothing_is_known_before() {
        let mut health = Health::default();
        assert!(health.would_change(&Observation::Worked, START), "it was not known to answer");
        health.observe(&Observation::Worked, None, START);
        assert!(!health.would_change(&Observation::Worked, START));
        assert!(!health.would_change(&Observation::Answered, START));
        assert!(health.would_change(&failed(false), START));
    }
}
