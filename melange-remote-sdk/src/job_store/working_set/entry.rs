//! One job of a working set, and why a group waits.

use super::*;
use crate::failure::{Failure, FailureInput, diagnose};
use crate::job::AttemptOutcome;

/// What is told of an attempt whose lease ended without a word. What it failed of is told without its number, so that it
/// is equal for all of them.
pub(super) fn lost_lease(attempt: u32) -> JobError {
    let why = "its lease ended without a word";
    let class = FailureClass::Infrastructure;
    JobError::new(class, format!("attempt {attempt} was lost: {why}"))
        .with_failure(diagnose(&FailureInput::new(class, why)))
}

impl Reason {
    /// A new one.
    pub(in crate::job_store) fn new(waiting: &GroupWaiting, at: Timestamp) -> Self {
        Self {
            text: waiting.reason.clone(),
            needs_other_backends: waiting.needs_other_backends,
            kind_since: at,
            since: at,
            noted_at: at,
        }
    }

    /// Notes why the group waits now; whether that is new.
    pub(in crate::job_store) fn note(&mut self, waiting: &GroupWaiting, at: Timestamp) -> bool {
        let before = (self.needs_other_backends, self.kind_since);
        if self.needs_other_backends != waiting.needs_other_backends {
            (self.needs_other_backends, self.kind_since) = (waiting.needs_other_backends, at);
        }
        let changed = self.text != waiting.reason;
        if changed {
            (self.text, self.since) = (waiting.reason.clone(), at);
        }
        self.noted_at = self.noted_at.max(at);
        changed || before != (self.needs_other_backends, self.kind_since)
    }

    /// A pending job of the group as it is told.
    pub(in crate::job_store) fn told(&self, job: &Arc<Job>) -> Arc<Job> {
        let ready_at = job.ready_at.unwrap_or(job.created_at);
        let pause_ends = job.not_before.unwrap_or(ready_at).max(ready_at);
        // Until the pause ends the job has a reason of its own.
        if job.not_before.is_some() && self.noted_at < pause_ends {
            return Arc::clone(job);
        }
        let waiting = Some(Waiting { reason: self.text.clone(), since: self.since.max(ready_at) });
        Arc::new(Job { waiting, ..Job::clone(job) })
    }
}

impl Entry {
    pub(in crate::job_store) fn size(&self) -> usize {
        let texts = self.spec.as_ref().map_or(0, |spec| spec.size_bytes());
        // An edge is an id at each of its ends.
        let edges = self.waits_for.len().saturating_mul(2 * size_of::<JobId>());
        let log = self.log_bytes.saturating_sub(self.forgotten_bytes);
        texts + edges + usize::try_from(log).unwrap_or(usize::MAX)
    }

    pub(in crate::job_store) fn is_due(&self, now: Timestamp) -> bool {
        self.job.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// The fence of the present or last attempt.
    pub(in crate::job_store) fn fence(&self) -> Option<Fence> {
        Some(Fence { job: self.job.id, attempt: self.job.attempt, token: self.token? })
    }

    /// Whether the fence is that of the present or last attempt.
    pub(in crate::job_store) fn is_last(&self, fence: Fence) -> bool {
        self.job.attempt == fence.attempt && self.token == Some(fence.token)
    }

    pub(in crate::job_store) fn check_fence(&self, fence: Fence) -> Result<()> {
        if self.job.state == JobState::Running && self.is_last(fence) {
            return Ok(());
        }
        Err(conflict(self.job.id, "the lease on the job is lost"))
    }

    /// Notes what the present attempt came to; the attempt as it is then.
    pub(super) fn end_attempt(
        &mut self,
        (outcome, counts, error): (AttemptOutcome, bool, Option<JobError>),
        failure: Option<Failure>,
        at: Timestamp,
    ) -> Option<&JobAttempt> {
        let length = self.log_bytes;
        let attempt = self.attempts.last_mut()?;
        (attempt.outcome, attempt.counts) = (outcome, counts);
        (attempt.error, attempt.failure) = (error, failure);
        (attempt.ended_at, attempt.log_end) = (Some(at), Some(length));
        Some(attempt)
    }

    /// Whether the job came to this end.
    pub(in crate::job_store) fn came_to(&self, outcome: &Outcome) -> bool {
        self.job.state == outcome.state()
            && match outcome {
                Outcome::Succeeded { artifacts, note, result, reused } => {
                    (&self.job.artifacts, &self.job.note) == (artifacts, note)
                        && (&self.job.result, &self.job.reused) == (result, reused)
                }
                Outcome::Failed { error } => {
                    let failure = self.attempts.last().and_then(|attempt| attempt.failure.as_ref());
                    self.job.error.as_ref().is_some_and(|known| known.tells_as(error))
                        && failure == error.failure.as_deref()
                }
                Outcome::Cancelled => true,
            }
    }
}
