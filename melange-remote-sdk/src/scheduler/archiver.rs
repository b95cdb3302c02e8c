//! Puts the logs of ended attempts among the artifacts: at once those of this server's attempts, later those whose server
//! did not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::SchedulerParts;
use crate::clock::earlier;
use crate::error::ErrorKind;
use crate::job::JobId;
use crate::job_log::JobLogs;
use crate::limits;

/// Ended attempts that wait; those beyond are found by the next look at the store.
const QUEUE_MAX: usize = 1_024;

/// Attempts whose logs could not be read, of which that is not told again.
const BROKEN_MAX: usize = 1_000;

/// How long a stopping scheduler waits for the logs of its attempts.
const CLOSING: Duration = Duration::from_secs(5);

/// The way to the task.
#[derive(Debug, Clone)]
pub(super) struct Archiver {
    ended: mpsc::Sender<(JobId, u32)>,
}

impl Archiver {
    /// Starts the task.
    pub(super) fn start(parts: Arc<SchedulerParts>, logs: JobLogs) -> (Self, Archiving) {
        let (ended, waiting) = mpsc::channel(QUEUE_MAX);
        let task =
            Task { parts, logs, under_way: JoinSet::new(), seen: HashSet::new(), broken: HashSet::new() };
        (Self { ended }, Archiving { task: AbortOnDropHandle::new(tokio::spawn(task.run(waiting))) })
    }

    /// An attempt of this server has ended.
    pub(super) fn ended(&self, job: JobId, attempt: u32) {
        // When too many wait, the next look at the store finds it.
        self.ended.try_send((job, attempt)).unwrap_or_default();
    }
}

/// The task.
#[derive(Debug)]
pub(super) struct Archiving {
    task: AbortOnDropHandle<()>,
}

impl Archiving {
    /// Waits for what is left, once all ways to the task are gone.
    pub(super) async fn finish(self) {
        if tokio::time::timeout(CLOSING, self.task).await.is_err() {
            tracing::warn!(
                "logs of ended attempts are still in the job store; the next server takes them on"
            );
        }
    }
}

struct Task {
    parts: Arc<SchedulerParts>,
    logs: JobLogs,
    under_way: JoinSet<((JobId, u32), bool)>,
    /// Those under way.
    seen: HashSet<(JobId, u32)>,
    /// Those whose logs are none.
    broken: HashSet<(JobId, u32)>,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<(JobId, u32)>) {
        let first = Instant::now() + limits::LOG_ARCHIVE_WAIT;
        let mut looks = tokio::time::interval_at(first, limits::LOG_ARCHIVE_WAIT);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.under_way.len() < limits::LOGS_ARCHIVED_AT_ONCE;
            tokio::select! {
                ended = waiting.recv(), if room => match ended {
                    Some((job, attempt)) => self.begin(job, attempt),
                    None => break,
                },
                Some(done) = self.under_way.join_next(), if !self.under_way.is_empty() => self.note(done),
                _ = looks.tick(), if room => self.look().await,
            }
        }
        while let Some(done) = self.under_way.join_next().await {
            self.note(done);
        }
    }

    fn begin(&mut self, job: JobId, attempt: u32) {
        if self.broken.contains(&(job, attempt)) || !self.seen.insert((job, attempt)) {
            return;
        }
        let logs = self.logs.clone();
        self.under_way.spawn(async move {
            let is_broken = match logs.archive(job, attempt).await {
                Ok(_) => false,
                // The job is gone, or somebody else runs it by now: its log is archived when that has ended.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => false,
                Err(error) => {
                    let is_broken = error.kind() == ErrorKind::Unexpected;
                    tracing::warn!(%job, attempt, error = %error.chain(), "a log is kept in the job store for now");
                    is_broken
                }
            };
            ((job, attempt), is_broken)
        });
    }

    fn note(&mut self, done: Result<((JobId, u32), bool), tokio::task::JoinError>) {
        match done {
            Ok((attempt, is_broken)) => {
                self.seen.remove(&attempt);
                if is_broken && self.broken.len() < BROKEN_MAX {
                    self.broken.insert(attempt);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the archiving of a log panicked");
                // Which one it was is not known.
                self.seen.clear();
            }
        }
    }

    /// Takes on what other servers, or an earlier run, have left.
    async fn look(&mut self) {
        let ended_by = earlier(self.parts.clock.now(), limits::LOG_ARCHIVE_WAIT);
        match self.parts.job_store.unarchived(ended_by, limits::PAGE_ITEMS_MAX).await {
            Ok(attempts) => {
                for (job, attempt) in attempts {
                    while self.under_way.len() >= limits::LOGS_ARCHIVED_AT_ONCE {
                        let Some(done) = self.under_way.join_next().await else { break };
                        self.note(done);
                    }
                    self.begin(job, attempt);
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the job store did not tell which logs are left");
            }
        }
    }
}
