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
use uuid::Uuid;

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
pub enum Seen {
    /// A job ran on it as it should, whatever became of the job.
    Worked,
    /// A probe was answered.
    Answered,
    /// A probe was answered while the one job is under way that shows whether it works again.
    Tries,
    /// It failed: nobody answered, or an attempt broke off.
    Failed {
        /// What happened.
        failure: BackendFailure,
        /// Whether nobody answered.
        unreachable: bool,
    },
}

/// What a server saw, and what is needed to know what it says about now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What it saw.
    pub seen: Seen,
    /// When.
    pub at: Timestamp,
    /// How often the breaker had opened ([`Health::opened`]) when that began which shows it, an attempt say. What began
    /// before the breaker opened last says nothing about now.
    pub opened: u64,
    /// A number drawn by lot: by it an observation is known that is told again, because the first answer was lost.
    pub id: u64,
}

impl Observation {
    /// Something that began when the breaker had opened as often as said.
    pub fn new(seen: Seen, at: Timestamp, opened: u64) -> Self {
        let (id, _) = Uuid::new_v4().as_u64_pair();
        Self { seen, at, opened, id }
    }
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
    /// How often the breaker opened.
    #[serde(default)]
    opened: u64,
    /// The failures in a row, by their numbers, while the breaker is closed.
    #[serde(default)]
    failures_in_a_row: Vec<u64>,
    /// Whether the breaker opened because nobody answered; then an answer is enough.
    unreachable: bool,
    pause: Duration,
    answered: bool,
    last_failure: Option<BackendFailure>,
    failing_since: Option<Timestamp>,
    /// The lease of the one job that shows whether it works again. Only the server knows whose job it is.
    #[serde(skip)]
    trial: Option<u64>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            breaker: Breaker::Closed,
            opened: 0,
            failures_in_a_row: Vec::new(),
            unreachable: false,
            pause: limits::BREAKER_PAUSE,
            answered: false,
            last_failure: None,
            failing_since: None,
            trial: None,
        }
    }
}

/// Whether a moment that was set to lie at most `most` ahead has come. One that lies further ahead by far was set by a clock
/// that has gone back since; by a little, by a server whose clock is ahead.
fn is_over(until: Timestamp, most: Duration, now: Timestamp) -> bool {
    until <= now || until > after(now, most * 2)
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
            Breaker::HalfOpen { by: None, .. } => self.trial.is_none(),
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

    /// How often its breaker has opened: what began under another number says nothing about now.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// A job was given to it, under a lease with this number.
    pub fn began(&mut self, lease: u64) {
        if matches!(self.breaker, Breaker::HalfOpen { .. }) {
            self.trial = Some(lease);
        }
    }

    /// The job of a lease says nothing about it: it was cancelled, say.
    pub fn ended_without_a_word(&mut self, lease: u64) {
        if self.trial == Some(lease) {
            self.trial = None;
        }
    }

    /// Whether the one job is under way, on this server, that shows whether it works again.
    pub fn is_trying(&self) -> bool {
        self.trial.is_some() && matches!(self.breaker, Breaker::HalfOpen { by: None, .. })
    }

    /// The same as the server of this name keeps it, whose own copy was `own`.
    #[must_use]
    pub fn seen_by(mut self, server: &ServerId, own: &Self) -> Self {
        if let Breaker::HalfOpen { by, .. } = &mut self.breaker
            && by.as_ref() == Some(server)
        {
            *by = None;
            self.trial = own.trial.filter(|_| own.is_trying() && own.opened == self.opened);
        }
        self
    }

    /// A server ends: a trial of its is free for others.
    pub fn left(&mut self, server: &ServerId) {
        if let Breaker::HalfOpen { by, until } = &mut self.breaker
            && by.as_ref() == Some(server)
        {
            *until = Timestamp::MIN;
        }
    }

    /// Takes what a server saw; `by` is its name, `None` for the one that keeps this.
    pub fn observe(&mut self, observation: &Observation, by: Option<&ServerId>) -> Turn {
        let Observation { seen, at, opened, .. } = observation;
        let is_of_before = *opened < self.opened;
        match seen {
            Seen::Worked => self.worked(is_of_before),
            Seen::Answered => self.answered(by, *at, is_of_before),
            Seen::Tries => self.tries(by, *at),
            Seen::Failed { failure, unreachable } => {
                self.last_failure = Some(failure.clone());
                if is_of_before && !matches!(self.breaker, Breaker::Open { .. }) {
                    return Turn::None;
                }
                self.failed(observation, failure, *unreachable, is_of_before)
            }
        }
    }

    /// Whether what a server saw would change anything.
    pub fn would_change(&self, observation: &Observation) -> bool {
        let mut changed = self.clone();
        changed.observe(observation, None);
        changed != *self
    }

    fn worked(&mut self, is_of_before: bool) -> Turn {
        self.answered = true;
        if is_of_before || matches!(self.breaker, Breaker::Open { .. }) {
            return Turn::None;
        }
        self.close()
    }

    /// The trial is under way, and nobody else is to begin one. Told now and then only: the others need no more.
    fn tries(&mut self, by: Option<&ServerId>, at: Timestamp) -> Turn {
        if let Breaker::HalfOpen { by: owner, until } = &mut self.breaker
            && owner.as_ref() == by
            && *until <= after(at, limits::BREAKER_TRIAL / 2)
        {
            *until = after(at, limits::BREAKER_TRIAL);
        }
        Turn::None
    }

    fn answered(&mut self, by: Option<&ServerId>, at: Timestamp, is_of_before: bool) -> Turn {
        self.answered = true;
        if is_of_before {
            return Turn::None;
        }
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
            self.trial = None;
        }
        Turn::None
    }

    fn failed(
        &mut self,
        observation: &Observation,
        failure: &BackendFailure,
        unreachable: bool,
        is_of_before: bool,
    ) -> Turn {
        let Observation { at, id, .. } = *observation;
        let was_closed = self.breaker == Breaker::Closed;
        self.failing_since.get_or_insert(failure.at);
        match self.breaker {
            Breaker::Closed => {
                if !self.failures_in_a_row.contains(&id) {
                    self.failures_in_a_row.push(id);
                }
                if !unreachable && self.failures_in_a_row.len() < limits::BREAKER_FAILURES {
                    return Turn::None;
                }
                self.pause = limits::BREAKER_PAUSE;
            }
            Breaker::HalfOpen { .. } => self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX),
            // Only what was asked after the pause makes it longer: attempts that end together are one failure.
            Breaker::Open { until } if !is_of_before && is_over(until, limits::BREAKER_PAUSE_MAX, at) => {
                self.pause = (self.pause * 2).min(limits::BREAKER_PAUSE_MAX);
            }
            Breaker::Open { .. } => {
                self.unreachable = self.unreachable && unreachable;
                return Turn::None;
            }
        }
        self.unreachable = unreachable;
        self.failures_in_a_row.clear();
        self.trial = None;
        self.opened = self.opened.saturating_add(1);
        self.breaker = Breaker::Open { until: after(at, self.pause) };
        if was_closed { Turn::Fails } else { Turn::None }
    }

    fn close(&mut self) -> Turn {
        let was_open = self.breaker != Breaker::Closed;
        self.breaker = Breaker::Closed;
        self.failures_in_a_row.clear();
        self.failing_since = None;
        self.pause = limits::BREAKER_PAUSE;
        self.trial = None;
        if was_open { Turn::WorksAgain } else { Turn::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn failed(unreachable: bool) -> Seen {
        let failure = BackendFailure { message: "refused".to_owned(), hint: None, at: START };
        Seen::Failed { failure, unreachable }
    }

    /// What a server sees of an attempt that began just now.
    fn sees(health: &mut Health, by: Option<&ServerId>, seen: &Seen, now: Timestamp) -> Turn {
        let observation = Observation::new(seen.clone(), now, health.opened());
        health.observe(&observation, by)
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

        fn sees(&mut self, seen: &Seen) -> Turn {
            sees(&mut self.health, None, seen, self.now)
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
        assert_eq!(backend.sees(&Seen::Answered), Turn::WorksAgain);
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
        let turn = backend.sees(&Seen::Answered);
        assert_eq!(turn, Turn::None, "an answer alone does not show that builds work");
        assert_eq!(backend.health.status(), BackendStatus::Trial);
        assert!(backend.health.admits());
        backend.health.began(2);
        assert!(!backend.health.admits(), "one trial only");
        backend.sees(&Seen::Answered);
        assert!(!backend.health.admits(), "also when it goes on answering");
        backend.health.ended_without_a_word(1);
        assert!(!backend.health.admits(), "an attempt of before says nothing about the trial");
        backend.health.ended_without_a_word(2);
        assert!(backend.health.admits(), "a cancelled trial shows nothing");
        backend.health.began(3);
        assert_eq!(backend.sees(&failed(false)), Turn::None);
        assert!(!backend.health.admits());
        backend.sees(&Seen::Answered);
        backend.health.began(3);
        assert_eq!(backend.sees(&Seen::Worked), Turn::WorksAgain);
        assert_eq!(backend.health.status(), BackendStatus::Healthy);
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_add_up_and_late_ends_do_not_close() {
        let mut backend = Watched::new();
        for _ in 0..limits::BREAKER_FAILURES * 2 {
            backend.sees(&failed(false));
            backend.sees(&Seen::Worked);
        }
        assert!(backend.health.admits());
        backend.sees(&failed(true));
        assert_eq!(backend.sees(&Seen::Worked), Turn::None, "it began before the backend went away");
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

    /// A breaker that several attempts opened, at the beginning of time.
    fn broken(by: &ServerId) -> Health {
        let mut health = Health::default();
        (0..limits::BREAKER_FAILURES).for_each(|_| _ = sees(&mut health, Some(by), &failed(false), START));
        health
    }

    #[test]
    fn the_trial_is_one_servers_until_it_was_not_heard_of_for_long() {
        let [one, two] = [ServerId::unique(), ServerId::unique()];
        let mut shared = broken(&one);
        sees(&mut shared, Some(&two), &Seen::Answered, START);
        let of = |shared: &Health, server| shared.clone().seen_by(server, &Health::default());
        assert!(of(&shared, &two).admits() && !of(&shared, &one).admits());
        let mut own = of(&shared, &two);
        own.began(1);
        assert!(!shared.clone().seen_by(&two, &own).admits(), "it knows of its trial");
        sees(&mut shared, Some(&one), &Seen::Answered, START);
        assert!(!of(&shared, &one).admits());
        let mut now = START;
        for _ in 0..4 {
            now = after(now, limits::BREAKER_TRIAL * 3 / 4);
            sees(&mut shared, Some(&two), &Seen::Tries, now);
            sees(&mut shared, Some(&one), &Seen::Answered, now);
            assert!(!of(&shared, &one).admits(), "a trial may take its time");
        }
        now = after(now, limits::BREAKER_TRIAL);
        sees(&mut shared, Some(&one), &Seen::Answered, now);
        assert!(of(&shared, &one).admits() && !of(&shared, &two).admits());
        assert_eq!(sees(&mut shared, Some(&two), &Seen::Worked, now), Turn::WorksAgain);
    }

    #[test]
    fn what_began_before_the_breaker_opened_neither_closes_nor_opens_it() {
        let one = ServerId::unique();
        let mut shared = broken(&one);
        sees(&mut shared, Some(&one), &Seen::Answered, START);
        let of_before = |seen: Seen| Observation::new(seen, START, 0);
        assert_eq!(shared.observe(&of_before(Seen::Worked), Some(&one)), Turn::None);
        shared.observe(&of_before(Seen::Answered), Some(&one));
        assert_eq!(shared.status(), BackendStatus::Trial);
        shared.observe(&of_before(failed(false)), Some(&one));
        assert_eq!(shared.status(), BackendStatus::Trial);
        sees(&mut shared, Some(&one), &Seen::Worked, START);
        for _ in 0..limits::BREAKER_FAILURES {
            shared.observe(&of_before(failed(true)), Some(&one));
        }
        assert_eq!((shared.status(), shared.failing_since()), (BackendStatus::Healthy, None));
    }

    #[test]
    fn what_is_told_again_counts_once() {
        let mut health = Health::default();
        let observation = Observation::new(failed(false), START, 0);
        (0..limits::BREAKER_FAILURES * 2).for_each(|_| _ = health.observe(&observation, None));
        assert_ne!(health.status(), BackendStatus::Failing);
        let gone = Observation::new(failed(true), START, 0);
        assert_eq!(health.observe(&gone, None), Turn::Fails);
        sees(&mut health, None, &Seen::Answered, START);
        assert_eq!(health.observe(&gone, None), Turn::None, "it works again since");
        assert_eq!(health.status(), BackendStatus::Healthy);
    }

    #[test]
    fn what_changes_nothing_is_known_before() {
        let mut health = Health::default();
        let sees = |seen| Observation::new(seen, START, 0);
        assert!(health.would_change(&sees(Seen::Worked)), "it was not known to answer");
        health.observe(&sees(Seen::Worked), None);
        assert!(!health.would_change(&sees(Seen::Worked)));
        assert!(!health.would_change(&sees(Seen::Answered)));
        assert!(health.would_change(&sees(failed(false))));
    }

    #[test]
    fn a_health_of_an_earlier_version_is_read() {
        let stored = r#"{"breaker":{"Open":{"until":"2026-11-01T00:00:00Z"}},"failures":3,"unreachable":true,
            "pause":{"secs":1,"nanos":0},"answered":true,"last_failure":null,"failing_since":null}"#;
        let health: Health = serde_json::from_str(stored).unwrap();
        assert_eq!(health.status(), BackendStatus::Failing);
    }
}
