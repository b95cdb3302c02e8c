//! The life of a job: states, events, and the one table of legal transitions.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AttemptOutcome, Job, JobArtifact, JobAttempt, JobBackend, JobError, JobPhase, JobStep, JobStepFailure,
    JobTest, JobTestState, Waiting,
};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
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
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Success, Self::Failed, Self::Cancelled];

    /// Whether nothing can happen any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
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

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// It cannot start yet.
    Waiting {
        /// Why, in one line.
        reason: String,
    },
    /// An attempt took a lease on it; only [`crate::job_store::JobStore::claim`] makes this event.
    Claimed,
    /// The attempt has a backend.
    Assigned {
        /// Which one.
        backend: JobBackend,
    },
    /// A phase ended.
    PhaseFinished {
        /// Which one, and how long it took.
        phase: JobPhase,
    },
    /// A step began.
    StepStarted {
        /// Its position, from 0.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A step ended well.
    StepFinished {
        /// Its position, from 0.
        index: usize,
        /// How long it took in milliseconds.
        took_ms: u64,
        /// Whether its result was there already.
        cached: bool,
    },
    /// The test of a package began.
    TestStarted {
        /// Its position among the tests, from 0.
        index: usize,
        /// The package under test.
        package: String,
        /// How long the log was.
        log_offset: u64,
    },
    /// The test of a package ended.
    TestFinished {
        /// Its position among the tests, from 0.
        index: usize,
        /// How long it took in milliseconds.
        took_ms: u64,
        /// Why it failed; `None` when it passed.
        error: Option<String>,
        /// The step at fault, when a step is.
        step: Option<JobStepFailure>,
        /// How long the log was.
        log_offset: u64,
    },
    /// Somebody asked for it to stop.
    CancelRequested,
    /// The attempt gives it back.
    Requeued {
        /// Why.
        error: JobError,
        /// It is not claimed before this time.
        not_before: Option<Timestamp>,
        /// Whether the attempt does not count: a server stops, or a backend broke off before the first step.
        refund: bool,
    },
    /// Its lease ended without a word of the attempt.
    LeaseLost {
        /// What to tell.
        error: JobError,
    },
    /// It made its packages.
    Succeeded {
        /// The files.
        artifacts: Vec<JobArtifact>,
        /// What is worth knowing.
        note: Option<String>,
    },
    /// It is given up.
    Failed {
        /// Why.
        error: JobError,
    },
    /// It was stopped as asked.
    Cancelled,
    /// Somebody asked for it again.
    Retried,
}

/// The kinds of [`JobEvent`], for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Claimed,
    Progress,
    CancelRequested,
    GivenBack,
    Succeeded,
    Failed,
    Cancelled,
    Retried,
}

/// The one table of legal transitions: from, event, to.
const TABLE: [(JobState, Kind, JobState); 13] = [
    (JobState::Pending, Kind::Waiting, JobState::Pending),
    (JobState::Pending, Kind::Claimed, JobState::Running),
    (JobState::Pending, Kind::Failed, JobState::Failed),
    (JobState::Pending, Kind::Cancelled, JobState::Cancelled),
    (JobState::Running, Kind::Progress, JobState::Running),
    (JobState::Running, Kind::CancelRequested, JobState::Running),
    (JobState::Running, Kind::GivenBack, JobState::Pending),
    (JobState::Running, Kind::Succeeded, JobState::Success),
    (JobState::Running, Kind::Failed, JobState::Failed),
    (JobState::Running, Kind::Cancelled, JobState::Cancelled),
    // Asking twice is no mistake.
    (JobState::Cancelled, Kind::CancelRequested, JobState::Cancelled),
    (JobState::Failed, Kind::Retried, JobState::Pending),
    (JobState::Cancelled, Kind::Retried, JobState::Pending),
];

impl JobEvent {
    fn kind(&self) -> Kind {
        match self {
            Self::Waiting { .. } => Kind::Waiting,
            Self::Claimed => Kind::Claimed,
            Self::Assigned { .. }
            | Self::PhaseFinished { .. }
            | Self::StepStarted { .. }
            | Self::StepFinished { .. }
            | Self::TestStarted { .. }
            | Self::TestFinished { .. } => Kind::Progress,
            Self::CancelRequested => Kind::CancelRequested,
            Self::Requeued { .. } | Self::LeaseLost { .. } => Kind::GivenBack,
            Self::Succeeded { .. } => Kind::Succeeded,
            Self::Failed { .. } => Kind::Failed,
            Self::Cancelled => Kind::Cancelled,
            Self::Retried => Kind::Retried,
        }
    }

    /// What the attempt under way comes to by this event, when it ends it: the outcome, whether it counts, and why.
    pub fn end_of_attempt(&self) -> Option<(AttemptOutcome, bool, Option<&JobError>)> {
        Some(match self {
            Self::Requeued { error, refund, .. } => (AttemptOutcome::GivenBack, !refund, Some(error)),
            Self::LeaseLost { error } => (AttemptOutcome::Lost, true, Some(error)),
            Self::Succeeded { .. } => (AttemptOutcome::Success, true, None),
            Self::Failed { error } => (AttemptOutcome::Failed, true, Some(error)),
            Self::Cancelled => (AttemptOutcome::Cancelled, true, None),
            _ => return None,
        })
    }

    /// The event with the length of the log, where it tells of it.
    #[must_use]
    pub fn at_log_offset(mut self, length: u64) -> Self {
        if let Self::TestStarted { log_offset, .. } | Self::TestFinished { log_offset, .. } = &mut self {
            *log_offset = length;
        }
        self
    }

    /// The event's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Claimed => "claimed",
            Self::Assigned { .. } => "assigned",
            Self::PhaseFinished { .. } => "phase_finished",
            Self::StepStarted { .. } => "step_started",
            Self::StepFinished { .. } => "step_finished",
            Self::TestStarted { .. } => "test_started",
            Self::TestFinished { .. } => "test_finished",
            Self::CancelRequested => "cancel_requested",
            Self::Requeued { .. } => "requeued",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
        }
    }
}

impl Job {
    /// Applies an event that happened at `at`: state, version and history.
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
        self.change(event, at);
        Ok(())
    }

    fn change(&mut self, event: JobEvent, at: Timestamp) {
        match event {
            JobEvent::Waiting { reason } => {
                let since = match &self.waiting {
                    Some(waiting) if waiting.reason == reason => waiting.since,
                    _ => at,
                };
                self.waiting = Some(Waiting { reason, since });
            }
            JobEvent::Claimed => self.begin_attempt(at),
            JobEvent::Assigned { backend } => self.backend = Some(backend),
            JobEvent::PhaseFinished { phase } => {
                self.phases.retain(|known| known.name != phase.name);
                self.phases.push(phase);
            }
            JobEvent::StepStarted { index, name } => {
                self.trouble_since = None;
                self.begin_step(index, name);
            }
            JobEvent::StepFinished { index, took_ms, cached } => {
                // The step that ends is nearly always the last one that began.
                if let Some(step) = self.steps.iter_mut().rev().find(|step| step.index == index) {
                    step.took_ms = Some(took_ms);
                    step.cached = cached;
                }
            }
            JobEvent::TestStarted { index, package, log_offset } => {
                self.begin_test(index, package, log_offset);
            }
            JobEvent::TestFinished { index, took_ms, error, step, log_offset } => {
                if let Some(test) = self.tests.iter_mut().rev().find(|test| test.index == index) {
                    test.state = if error.is_some() { JobTestState::Failed } else { JobTestState::Passed };
                    (test.error, test.step) = (error, step);
                    test.took_ms = Some(took_ms);
                    test.log_end = Some(log_offset);
                }
            }
            JobEvent::CancelRequested => self.cancel_requested = true,
            JobEvent::Requeued { error, not_before, refund } => {
                self.counted_attempts -= u32::from(refund && self.counted_attempts > 0);
                // An attempt that is given back to be tried again at once, as by a server that stops, was in no trouble.
                match refund && not_before.is_some() {
                    true => _ = self.trouble_since.get_or_insert(at),
                    false => self.trouble_since = None,
                }
                self.give_back(error, not_before, at);
            }
            JobEvent::LeaseLost { error } => self.give_back(error, None, at),
            JobEvent::Succeeded { artifacts, note } => {
                self.artifacts = artifacts;
                self.note = note;
                self.error = None;
            }
            JobEvent::Failed { error } => self.error = Some(error),
            JobEvent::Cancelled => {
                self.cancel_requested = true;
                self.error = None;
            }
            JobEvent::Retried => {
                self.counted_attempts = 0;
                self.finished_at = None;
                self.cancel_requested = false;
                self.trouble_since = None;
                self.error = None;
            }
        }
    }

    /// The present or last attempt as it is now, `None` before the first one.
    pub fn present_attempt(&self) -> Option<JobAttempt> {
        Some(JobAttempt {
            number: self.attempt,
            started_at: self.started_at.filter(|_| self.attempt > 0)?,
            ended_at: None,
            outcome: AttemptOutcome::Running,
            counts: true,
            error: None,
            backend: self.backend.clone(),
            steps: self.steps.clone(),
            phases: self.phases.clone(),
            tests: self.tests.clone(),
            log_begin: 0,
            log_end: None,
        })
    }

    fn begin_attempt(&mut self, at: Timestamp) {
        self.attempt += 1;
        self.counted_attempts += 1;
        self.started_at = Some(at);
        self.waiting = None;
        self.not_before = None;
        self.backend = None;
        self.steps.clear();
        self.phases.clear();
        self.tests.clear();
    }

    fn begin_test(&mut self, index: usize, package: String, log_begin: u64) {
        if self.tests.len() < limits::STEPS_RECORDED_MAX {
            let state = JobTestState::Running;
            let (error, step, took_ms, log_end) = (None, None, None, None);
            self.tests.push(JobTest { index, package, state, error, step, took_ms, log_begin, log_end });
        }
    }

    fn begin_step(&mut self, index: usize, name: String) {
        if self.steps.len() < limits::STEPS_RECORDED_MAX {
            self.steps.push(JobStep { index, name, took_ms: None, cached: false });
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
    use std::sync::Arc;

    use super::*;
    use crate::job::{FailureClass, JobId, JobSpec, UncheckedSpec};

    fn job() -> Job {
        let parts =
            UncheckedSpec { config_yaml: "a".to_owned(), arch: "x86_64".to_owned(), ..Default::default() };
        let at = Timestamp::UNIX_EPOCH;
        Job::new(JobId::new(at), Arc::new(JobSpec::validate(parts).unwrap()), at)
    }

    fn events() -> Vec<JobEvent> {
        let error = JobError::new(FailureClass::Infrastructure, "gone");
        let backend = JobBackend {
            addr: "tcp://a:1".to_owned(),
            arch: crate::arch::Arch::X86_64,
            labels: Default::default(),
        };
        vec![
            JobEvent::Waiting { reason: "busy".to_owned() },
            JobEvent::Claimed,
            JobEvent::Assigned { backend },
            JobEvent::StepStarted { index: 0, name: "a".to_owned() },
            JobEvent::StepFinished { index: 0, took_ms: 1, cached: false },
            JobEvent::PhaseFinished { phase: JobPhase { name: "steps".to_owned(), took_ms: 1 } },
            JobEvent::TestStarted { index: 0, package: "a".to_owned(), log_offset: 3 },
            JobEvent::TestFinished { index: 0, took_ms: 1, error: None, step: None, log_offset: 5 },
            JobEvent::CancelRequested,
            JobEvent::Requeued { error: error.clone(), not_before: None, refund: false },
            JobEvent::LeaseLost { error: error.clone() },
            JobEvent::Succeeded { artifacts: Vec::new(), note: None },
            JobEvent::Failed { error },
            JobEvent::Cancelled,
            JobEvent::Retried,
        ]
    }

    #[test]
    fn whatever_the_table_lacks_is_refused_and_changes_nothing() {
        for state in JobState::ALL {
            for event in events() {
                let mut before = job();
                before.state = state;
                let mut after = before.clone();
                let row = TABLE.iter().find(|row| row.0 == state && row.1 == event.kind());
                match (after.apply(event.clone(), Timestamp::UNIX_EPOCH), row) {
                    (Ok(()), Some(row)) => {
                        assert_eq!(after.state, row.2);
                        assert_eq!(after.version, before.version + 1);
                    }
                    (Err(error), None) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict);
                        assert_eq!(after, before, "{}", event.name());
                    }
                    (result, row) => panic!("{state} {}: {result:?} {row:?}", event.name()),
                }
            }
        }
    }

    #[test]
    fn a_refunded_attempt_does_not_count_and_a_new_one_forgets_the_old_steps() {
        let at = Timestamp::UNIX_EPOCH;
        let mut job = job();
        job.apply(JobEvent::Claimed, at).unwrap();
        job.apply(JobEvent::StepStarted { index: 0, name: "a".to_owned() }, at).unwrap();
        let error = JobError::new(FailureClass::Infrastructure, "the server stops");
        job.apply(JobEvent::Requeued { error, not_before: None, refund: true }, at).unwrap();
        assert_eq!((job.attempt, job.counted_attempts, job.steps.len()), (1, 0, 1));
        job.apply(JobEvent::Claimed, at).unwrap();
        assert_eq!((job.attempt, job.counted_attempts, job.steps.len()), (2, 1, 0));
    }
}
