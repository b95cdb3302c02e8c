//! The life of a job: states, events, and the one table of legal transitions.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AttemptOutcome, Job, JobArtifact, JobBackend, JobError, JobId, ResultDigest, ServerId, Waiting};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
use crate::limits;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits for other jobs.
    Blocked,
    /// It waits for a backend.
    Pending,
    /// An attempt holds a lease on it.
    Running,
    /// It made its packages, or there was nothing to do.
    Success,
    /// It is given up.
    Failed,
    /// Somebody asked for it to stop, and it did.
    Cancelled,
    /// A job that it waited for did not succeed, or its build stopped at another one's failure.
    Skipped,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Blocked,
        Self::Pending,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// Whether it has come to its end; only a retry takes it up again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// Its place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Blocked => 0,
            Self::Pending => 1,
            Self::Running => 2,
            Self::Success => 3,
            Self::Failed => 4,
            Self::Cancelled => 5,
            Self::Skipped => 6,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for JobState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("unknown status {text:?}")).hint(format!("known: {known}"))
        })
    }
}

/// What a job came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It made its packages, or there was nothing to do.
    Succeeded {
        /// The files.
        artifacts: Vec<JobArtifact>,
        /// What is worth knowing.
        note: Option<String>,
        /// Names all that it came from, when that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<ResultDigest>,
        /// The job whose files these are, because they come from the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reused: Option<JobId>,
    },
    /// It is given up.
    Failed {
        /// Why.
        error: JobError,
    },
    /// It was stopped as asked.
    Cancelled,
}

impl Outcome {
    /// The success of a job that made these files.
    pub fn made(artifacts: Vec<JobArtifact>) -> Self {
        Self::Succeeded { artifacts, note: None, result: None, reused: None }
    }

    /// The success of a job that had nothing to do, and why.
    pub fn nothing_to_do(note: impl Into<String>) -> Self {
        Self::Succeeded { artifacts: Vec::new(), note: Some(note.into()), result: None, reused: None }
    }

    /// The state of a job that came to it.
    pub fn state(&self) -> JobState {
        match self {
            Self::Succeeded { .. } => JobState::Success,
            Self::Failed { .. } => JobState::Failed,
            Self::Cancelled => JobState::Cancelled,
        }
    }
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// All jobs that it waits for succeeded.
    Unlocked,
    /// A job that it waits for, perhaps by way of others, did not succeed; or one of its build failed, and the build stops
    /// at the first failure.
    Skipped {
        /// That job.
        by: JobId,
        /// What to tell.
        error: JobError,
    },
    /// An attempt took a lease on it.
    Claimed {
        /// The server that runs it.
        server: ServerId,
        /// Where it runs.
        backend: JobBackend,
    },
    /// Somebody asked for it to stop.
    CancelRequested,
    /// The attempt gives it back.
    Released {
        /// Why.
        error: JobError,
        /// It is not claimed before this time.
        not_before: Option<Timestamp>,
        /// Whether the attempt counts; it does not when a server stops, or a backend broke off before the first step.
        counts: bool,
        /// Whether other backends shall be asked first.
        avoid: bool,
        /// Memory in bytes that it asks for at least from now on.
        memory_bytes: Option<u64>,
    },
    /// Its lease ended without a word of the attempt.
    LeaseLost {
        /// What to tell.
        error: JobError,
    },
    /// It came to its end.
    Finished {
        /// Which one.
        outcome: Outcome,
    },
    /// Somebody asked for it again.
    Retried {
        /// How many of the jobs that it waits for have not succeeded.
        blocked_by: u32,
    },
}

/// The kinds of [`JobEvent`], for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unlocked,
    Skipped,
    Claimed,
    CancelRequested,
    GivenBack,
    Succeeded,
    Failed,
    Cancelled,
    Retried,
    RetriedBlocked,
}

/// The one table of legal transitions: from, event, to.
const TABLE: [(JobState, Kind, JobState); 19] = [
    (JobState::Blocked, Kind::Unlocked, JobState::Pending),
    (JobState::Blocked, Kind::Skipped, JobState::Skipped),
    (JobState::Blocked, Kind::Cancelled, JobState::Cancelled),
    (JobState::Pending, Kind::Claimed, JobState::Running),
    (JobState::Pending, Kind::Skipped, JobState::Skipped),
    (JobState::Pending, Kind::Failed, JobState::Failed),
    (JobState::Pending, Kind::Cancelled, JobState::Cancelled),
    (JobState::Running, Kind::CancelRequested, JobState::Running),
    (JobState::Running, Kind::GivenBack, JobState::Pending),
    (JobState::Running, Kind::Succeeded, JobState::Success),
    (JobState::Running, Kind::Failed, JobState::Failed),
    (JobState::Running, Kind::Cancelled, JobState::Cancelled),
    (JobState::Cancelled, Kind::CancelRequested, JobState::Cancelled),
    (JobState::Failed, Kind::Retried, JobState::Pending),
    (JobState::Cancelled, Kind::Retried, JobState::Pending),
    (JobState::Skipped, Kind::Retried, JobState::Pending),
    (JobState::Failed, Kind::RetriedBlocked, JobState::Blocked),
    (JobState::Cancelled, Kind::RetriedBlocked, JobState::Blocked),
    (JobState::Skipped, Kind::RetriedBlocked, JobState::Blocked),
];

impl JobEvent {
    fn kind(&self) -> Kind {
        match self {
            Self::Unlocked => Kind::Unlocked,
            Self::Skipped { .. } => Kind::Skipped,
            Self::Claimed { .. } => Kind::Claimed,
            Self::CancelRequested => Kind::CancelRequested,
            Self::Released { .. } | Self::LeaseLost { .. } => Kind::GivenBack,
            Self::Finished { outcome: Outcome::Succeeded { .. } } => Kind::Succeeded,
            Self::Finished { outcome: Outcome::Failed { .. } } => Kind::Failed,
            Self::Finished { outcome: Outcome::Cancelled } => Kind::Cancelled,
            Self::Retried { blocked_by: 0 } => Kind::Retried,
            Self::Retried { .. } => Kind::RetriedBlocked,
        }
    }

    /// What the attempt under way comes to by this event, when it ends it: the outcome, whether it counts, and why.
    pub(crate) fn end_of_attempt(&self) -> Option<(AttemptOutcome, bool, Option<&JobError>)> {
        Some(match self {
            Self::Released { error, counts, .. } => (AttemptOutcome::GivenBack, *counts, Some(error)),
            Self::LeaseLost { error } => (AttemptOutcome::Lost, true, Some(error)),
            Self::Finished { outcome } => match outcome {
                Outcome::Succeeded { .. } => (AttemptOutcome::Success, true, None),
                Outcome::Failed { error } => (AttemptOutcome::Failed, true, Some(error)),
                Outcome::Cancelled => (AttemptOutcome::Cancelled, true, None),
            },
            _ => return None,
        })
    }

    /// Takes out what the attempt failed of, which is kept with the attempt and not with the job.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        let error = match self {
            Self::Released { error, .. }
            | Self::LeaseLost { error }
            | Self::Finished { outcome: Outcome::Failed { error } } => error,
            _ => return None,
        };
        error.failure.take().map(|failure| *failure)
    }

    /// The event's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unlocked => "unlocked",
            Self::Skipped { .. } => "skipped",
            Self::Claimed { .. } => "claimed",
            Self::CancelRequested => "cancel_requested",
            Self::Released { .. } => "released",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Finished { outcome } => match outcome {
                Outcome::Succeeded { .. } => "succeeded",
                Outcome::Failed { .. } => "failed",
                Outcome::Cancelled => "cancelled",
            },
            Self::Retried { .. } => "retried",
        }
    }
}

impl Job {
    /// Applies an event that happened at `at`: state, version and what follows from them.
    ///
    /// # Errors
    /// `Conflict` when the table has no such transition; the job is then unchanged.
    pub fn apply(&mut self, event: JobEvent, at: Timestamp) -> Result<()> {
        let kind = event.kind();
        let Some((_, _, to)) = TABLE.iter().find(|row| row.0 == self.state && row.1 == kind) else {
            let message = format!("a {} job cannot take the event {}", self.state, event.name());
            return Err(Error::new(ErrorKind::Conflict, message).with("job", self.id));
        };
        let from = self.state;
        self.state = *to;
        self.version += 1;
        if to.is_terminal() && !from.is_terminal() {
            self.finished_at = Some(at);
            self.waiting = None;
            self.not_before = None;
        }
        match to {
            JobState::Pending => self.ready_at = Some(at),
            JobState::Blocked => self.ready_at = None,
            _ => {}
        }
        self.change(event, at);
        Ok(())
    }

    fn change(&mut self, event: JobEvent, at: Timestamp) {
        match event {
            JobEvent::Unlocked => self.blocked_by = 0,
            JobEvent::Skipped { by, error } => {
                self.skipped_for = Some(by);
                self.error = Some(error);
            }
            JobEvent::Claimed { server, backend } => {
                self.attempt += 1;
                self.counted_attempts += 1;
                self.started_at = Some(at);
                self.waiting = None;
                self.not_before = None;
                self.server = Some(server);
                self.backend = Some(backend);
            }
            JobEvent::CancelRequested => self.cancel_requested = true,
            JobEvent::Released { error, not_before, counts, avoid, memory_bytes } => {
                self.memory_bytes = self.memory_bytes.max(memory_bytes);
                self.counted_attempts -= u32::from(!counts && self.counted_attempts > 0);
                if counts {
                    self.failing_since.get_or_insert(at);
                }
                // An attempt that is given back to be tried again at once, as by a server that stops, was in no trouble.
                match !counts && not_before.is_some() {
                    true => _ = self.trouble_since.get_or_insert(at),
                    false => self.trouble_since = None,
                }
                if let Some(backend) = self.backend.as_ref().filter(|_| avoid) {
                    let key = backend.key();
                    self.avoid.retain(|known| *known != key);
                    self.avoid.push(key);
                    let surplus = self.avoid.len().saturating_sub(limits::BACKENDS_AVOIDED_MAX);
                    self.avoid.drain(..surplus);
                }
                self.give_back(error, not_before, at);
            }
            JobEvent::LeaseLost { error } => {
                self.failing_since.get_or_insert(at);
                self.give_back(error, None, at);
            }
            JobEvent::Finished { outcome } => match outcome {
                Outcome::Succeeded { artifacts, note, result, reused } => {
                    self.artifacts = artifacts;
                    self.note = note;
                    (self.result, self.reused) = (result, reused);
                    self.error = None;
                }
                Outcome::Failed { error } => self.error = Some(error),
                Outcome::Cancelled => {
                    self.cancel_requested = true;
                    self.error = None;
                }
            },
            JobEvent::Retried { blocked_by } => {
                self.blocked_by = blocked_by;
                self.counted_attempts = 0;
                self.finished_at = None;
                self.cancel_requested = false;
                self.skipped_for = None;
                self.trouble_since = None;
                self.failing_since = None;
                // What it will have is there again; its attempts say whose logs are not.
                (self.artifacts_removed_at, self.log_removed_at) = (None, None);
                self.avoid.clear();
                self.memory_bytes = None;
                self.error = None;
            }
        }
    }

    fn give_back(&mut self, error: JobError, not_before: Option<Timestamp>, at: Timestamp) {
        self.waiting = Some(Waiting { reason: error.message.clone(), since: at });
        self.error = Some(error);
        self.not_before = not_before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::job::{FailureClass, JobSpec, UncheckedSpec};

    fn job() -> Job {
        let parts =
            UncheckedSpec { config_yaml: "a".to_owned(), arch: "x86_64".to_owned(), ..Default::default() };
        let at = Timestamp::UNIX_EPOCH;
        Job::new(JobId::new(at), &JobSpec::validate(parts).unwrap(), at)
    }

    fn claimed(addr: &str) -> JobEvent {
        let backend = JobBackend::new(addr, Arch::X86_64, Default::default());
        JobEvent::Claimed { server: ServerId::unique(), backend }
    }

    fn error() -> JobError {
        JobError::new(FailureClass::Infrastructure, "gone")
    }

    fn released(counts: bool, not_before: Option<Timestamp>, avoid: bool) -> JobEvent {
        JobEvent::Released { error: error(), not_before, counts, avoid, memory_bytes: None }
    }

    fn finished(outcome: Outcome) -> JobEvent {
        JobEvent::Finished { outcome }
    }

    fn events() -> Vec<JobEvent> {
        vec![
            JobEvent::Unlocked,
            JobEvent::Skipped { by: JobId::new(Timestamp::UNIX_EPOCH), error: error() },
            claimed("tcp://a:1"),
            JobEvent::CancelRequested,
            released(true, None, false),
            JobEvent::LeaseLost { error: error() },
            finished(Outcome::made(Vec::new())),
            finished(Outcome::Failed { error: error() }),
            finished(Outcome::Cancelled),
            JobEvent::Retried { blocked_by: 0 },
            JobEvent::Retried { blocked_by: 2 },
        ]
    }

    #[test]
    fn every_event_does_what_the_table_says_and_nothing_else() {
        for state in JobState::ALL {
            for event in events() {
                let mut job = job();
                job.state = state;
                let before = job.clone();
                let legal = TABLE.iter().find(|row| row.0 == state && row.1 == event.kind());
                match job.apply(event.clone(), Timestamp::UNIX_EPOCH) {
                    Ok(()) => {
                        let to = legal.expect("the table has it").2;
                        assert_eq!((job.state, job.version), (to, before.version + 1));
                        assert_eq!(job.finished_at.is_some(), to.is_terminal() && !state.is_terminal());
                    }
                    Err(error) => {
                        assert!(legal.is_none(), "{state} {}", event.name());
                        assert_eq!((error.kind(), &job), (ErrorKind::Conflict, &before));
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_of_attempts_grow_and_those_given_back_do_not_count() {
        let (mut job, at) = (job(), Timestamp::UNIX_EPOCH);
        for (counts, expected) in [(false, (1, 0)), (true, (2, 1)), (false, (3, 1))] {
            job.apply(claimed("tcp://a:1"), at).unwrap();
            job.apply(released(counts, None, false), at).unwrap();
            assert_eq!((job.attempt, job.counted_attempts), expected);
        }
        job.apply(claimed("tcp://a:1"), at).unwrap();
        job.apply(finished(Outcome::Failed { error: error() }), at).unwrap();
        job.apply(JobEvent::Retried { blocked_by: 0 }, at).unwrap();
        assert_eq!((job.attempt, job.counted_attempts, job.error), (4, 0, None));
    }

    #[test]
    fn trouble_begins_once_and_ends_with_an_attempt_that_counts() {
        let mut job = job();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut back = |counts, second, pause: Option<i64>| {
            job.apply(claimed("tcp://a:1"), at(second)).unwrap();
            job.apply(released(counts, pause.map(at), false), at(second)).unwrap();
            job.trouble_since
        };
        assert_eq!(back(false, 1, Some(2)), Some(at(1)));
        assert_eq!(back(false, 3, Some(4)), Some(at(1)));
        assert_eq!(back(true, 5, Some(6)), None);
        assert_eq!(back(false, 7, Some(8)), Some(at(7)));
        assert_eq!(back(false, 9, None), None, "a server that stops is no trouble");
    }

    #[test]
    fn backends_to_avoid_are_the_latest_ones_each_once() {
        let (mut job, at) = (job(), Timestamp::UNIX_EPOCH);
        let mut fail = |addr: &str| {
            job.apply(claimed(addr), at).unwrap();
            job.apply(released(true, None, true), at).unwrap();
            job.avoid.clone()
        };
        fail("tcp://a:1");
        assert_eq!(fail("tcp://b:1"), ["tcp://a:1", "tcp://b:1"]);
        assert_eq!(fail("tcp://a:1"), ["tcp://b:1", "tcp://a:1"]);
        for number in 0..limits::BACKENDS_AVOIDED_MAX {
            fail(&format!("tcp://x{number}:1"));
        }
        assert_eq!(job.avoid.len(), limits::BACKENDS_AVOIDED_MAX);
        assert_eq!(job.avoid[0], "tcp://x0:1");
    }

    #[test]
    fn names_of_states_read_back() {
        for (index, state) in JobState::ALL.into_iter().enumerate() {
            assert_eq!((state.name().parse::<JobState>().unwrap(), state.index()), (state, index));
        }
        assert!("done".parse::<JobState>().is_err());
    }
}
