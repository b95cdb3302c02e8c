//! Whether an attempt that failed is followed by another one.

use std::time::Duration;

use super::attempt::{Attempt, End};
use crate::backend_selector::Requirements;
use crate::backoff::spread;
use crate::clock::{elapsed, later};
use crate::error::{Blame, Error, ErrorKind};
use crate::job::{FailureClass, JobError, JobResources};
use crate::job_store::Release;
use crate::limits;

impl Attempt {
    /// Another attempt for what may pass, the end for everything else. What the backend is at fault for before the
    /// first step costs no attempt: the job goes elsewhere, or waits until the backend is back.
    pub(super) fn retry_or_fail(&self, error: &Error) -> End {
        let failure = job_error("", error);
        // What is gone does not come back by itself.
        if failure.class != FailureClass::Infrastructure || error.kind() == ErrorKind::Gone {
            return End::failed(failure);
        }
        let now = self.parts.clock.now();
        if error.blamed() == Some(Blame::Backend) && !self.events.step_began() {
            let troubled = self.job.trouble_since.map_or(Duration::ZERO, |since| elapsed(since, now));
            if troubled >= limits::BACKEND_TROUBLE {
                return End::failed(failure);
            }
            let pause = (troubled / 4).clamp(self.options.retry_pause, limits::RETRY_PAUSE_MAX);
            let not_before = Some(later(now, spread(pause)));
            return End::Release(Release { not_before, avoid: true, ..Release::new(failure) });
        }
        if self.options.patience.is_over(&self.job, now) {
            return End::failed(failure);
        }
        let doublings = self.job.counted_attempts.saturating_sub(1).min(16);
        let pause = self.options.retry_pause.saturating_mul(1 << doublings).min(limits::RETRY_PAUSE_MAX);
        let not_before = Some(later(now, spread(pause)));
        let avoid = error.blamed() == Some(Blame::Backend);
        End::Release(Release { not_before, counts: true, avoid, ..Release::new(failure) })
    }

    /// Another attempt with twice the memory, once, where a backend has that; the end otherwise.
    pub(super) fn out_of_memory(&self, mut error: JobError) -> End {
        let asked = self.job.resources();
        let more = JobResources::new(asked.cpu_millis, asked.memory_bytes.saturating_mul(2));
        let needs = Requirements::of_job(&self.job).with_resources(more);
        let had = JobResources::new(0, asked.memory_bytes);
        let backends = self.parts.pool.fleet_candidates();
        let is_somewhere = backends.iter().any(|candidate| needs.matched_by(&candidate.backend));
        let end = match asked.memory_bytes {
            0 => "the definition may say in `package.resources.memory` how much it needs".to_owned(),
            _ if self.job.memory_bytes.is_some() => {
                format!("{had} are not enough, twice as much as it asked for")
            }
            _ if !is_somewhere => format!("{had} are not enough, and no backend has twice as much"),
            _ => {
                let memory_bytes = Some(more.memory_bytes);
                let more = JobResources::new(0, more.memory_bytes);
                error.message = format!("{}: {had} are not enough, it is tried with {more}", error.message);
                return End::Release(Release { counts: true, memory_bytes, ..Release::new(error) });
            }
        };
        error.message = format!("{}: {end}", error.message);
        End::failed(error)
    }
}

/// An error as the job tells it, with whose fault it is.
pub(super) fn job_error(before: &str, error: &Error) -> JobError {
    let class = match error.blamed() {
        Some(Blame::Definition) => FailureClass::Build,
        Some(Blame::Policy) => FailureClass::Policy,
        Some(Blame::Farm | Blame::Backend) | None => FailureClass::Infrastructure,
    };
    let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
    JobError::new(class, format!("{before}{}{hint}", error.chain()))
}
