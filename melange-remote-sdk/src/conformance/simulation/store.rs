//! A handle of the store as one party sees it: slow, refusing, silent after it has done what was asked. Between the
//! store and the faults stands the history, so that a rule is checked at the moment at which it could be broken.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{BoxFuture, poll_immediate};
use jiff::Timestamp;
use tokio::sync::watch;

use super::Mistake;
use super::history::History;
use super::world::{Moment, Party, World, short};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobId, JobSpec, JobState, LogArchive, Outcome, Priority, ProgressRow, ServerId};
use crate::job_store::forward::ForwardJobStore;
use crate::job_store::{
    Claim, ClaimRequest, Demand, EndedJob, EndedQuery, EventPage, EventQuery, ExpireRequest, Fence, Finished,
    GiveUp, GroupWaiting, Holding, JobStore, LogChunk, QueueSummary, Release, Renewal, Selection, Subject,
    Submission, Submitted, Usage,
};
use crate::limits;

/// A handle of the store that belongs to one party.
#[derive(Debug)]
pub(super) struct FaultyStore {
    pub(super) world: Arc<World>,
    pub(super) party: Arc<Party>,
    pub(super) inner: Arc<dyn JobStore>,
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the simulated store {what}"))
}

fn selected(selection: Selection) -> String {
    match selection {
        Selection::Job(id) => short(id),
        Selection::Build(_) => "a build".to_owned(),
    }
}

fn fenced(fence: Fence) -> String {
    format!("{}/{}", short(fence.job), fence.attempt)
}

fn told<T>(result: &Result<T>, tell: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(value) => tell(value),
        Err(error) => format!("{:?}", error.kind()),
    }
}

impl FaultyStore {
    fn tell(&self, what: &str) {
        self.world.tell(&format!("{} {what}", self.party.name));
    }

    async fn die(&self, what: &str) {
        self.tell(&format!("crashes at {what}"));
        self.party.crash();
        self.party.breathe().await;
    }

    /// A call with what becomes of it. `judge` is told what the store answered, once what changed was seen, and says it
    /// for the trace.
    async fn call<T: Send>(
        &self,
        what: &'static str,
        changes: bool,
        call: BoxFuture<'_, Result<T>>,
        judge: impl FnOnce(&mut History, &Result<T>) -> String + Send,
    ) -> Result<T> {
        self.party.breathe().await;
        let luck = self.world.luck(&self.party, what);
        pause(luck.before).await;
        self.party.breathe().await;
        if luck.refused {
            self.tell(&format!("{what}: refused"));
            return Err(unavailable("refuses"));
        }
        if luck.crash == Some(Moment::Before) {
            self.die(what).await;
        }
        let result = if luck.crash == Some(Moment::Within) {
            match poll_immediate(call).await {
                Some(result) => result,
                None => {
                    // The call is dropped half-way.
                    self.die(what).await;
                    return Err(unavailable("is gone"));
                }
            }
        } else {
            call.await
        };
        if changes {
            self.world.observe(what).await;
        }
        let said = judge(&mut self.world.history(), &result);
        self.world.pass_on_violations();
        if changes {
            self.tell(&format!("{what}: {said}"));
            self.world.pass_hints();
        }
        if luck.crash.is_some() {
            self.die(what).await;
        }
        if luck.unanswered {
            self.tell(&format!("{what}: unanswered"));
            return Err(unavailable("does not answer"));
        }
        pause(luck.after).await;
        self.party.breathe().await;
        result
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.party.mortal && self.world.mistake == mistake
    }
}

#[async_trait]
impl ForwardJobStore for FaultyStore {
    fn inner(&self) -> &dyn JobStore {
        &*self.inner
    }

    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        let judge = |history: &mut History, result: &Result<Submitted>| {
            told(result, |submitted| {
                history.submitted(&submitted.jobs);
                format!("{} jobs, created {}", submitted.jobs.len(), submitted.created)
            })
        };
        self.call("submit", true, Box::pin(self.inner.submit(submission)), judge).await
    }

    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        let judge = |history: &mut History, result: &Result<usize>| {
            let jobs: Vec<JobId> = match selection {
                Selection::Job(id) => vec![id],
                Selection::Build(build) => {
                    history.jobs.values().filter(|job| job.build == Some(build)).map(|job| job.id).collect()
                }
            };
            if result.is_ok() {
                jobs.into_iter().for_each(|id| history.cancelled(id));
            }
            format!("{} {}", selected(selection), told(result, usize::to_string))
        };
        self.call("cancel", true, Box::pin(self.inner.cancel(selection, at)), judge).await
    }

    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        let judge = |_: &mut History, result: &Result<usize>| {
            format!("{} {}", selected(selection), told(result, usize::to_string))
        };
        self.call("retry", true, Box::pin(self.inner.retry(selection, at)), judge).await
    }

    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        let judge = |_: &mut History, result: &Result<usize>| told(result, usize::to_string);
        let call = Box::pin(self.inner.set_priority(selection, priority));
        self.call("set_priority", true, call, judge).await
    }

    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        self.call("demand", false, Box::pin(self.inner.demand(now)), |_, _| String::new()).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let judge = |history: &mut History, result: &Result<Vec<Claim>>| {
            told(result, |claims| {
                history.claimed(claims, request);
                claims.iter().map(|claim| fenced(claim.fence)).collect::<Vec<_>>().join(" ")
            })
        };
        self.call("claim", true, Box::pin(self.inner.claim(request)), judge).await
    }

    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        if self.makes(Mistake::RenewsNothing) {
            return Ok(vec![Renewal::Kept { cancel_requested: false }; fences.len()]);
        }
        let judge = |history: &mut History, result: &Result<Vec<Renewal>>| {
            told(result, |renewals| {
                let kept = |(_, renewal): &(&Fence, &Renewal)| **renewal != Renewal::Lost;
                let kept: Vec<Fence> =
                    fences.iter().zip(renewals).filter(kept).map(|(fence, _)| *fence).collect();
                kept.iter().for_each(|fence| history.renewed(*fence, server, until));
                format!("{} of {}", kept.len(), fences.len())
            })
        };
        let mut renewals =
            self.call("renew", true, Box::pin(self.inner.renew(server, fences, until)), judge).await?;
        for renewal in &mut renewals {
            match renewal {
                Renewal::Lost if self.makes(Mistake::IgnoresLostLeases) => {
                    *renewal = Renewal::Kept { cancel_requested: false };
                }
                Renewal::Kept { cancel_requested } if self.makes(Mistake::IgnoresRequestsToStop) => {
                    *cancel_requested = false;
                }
                _ => {}
            }
        }
        Ok(renewals)
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        if self.makes(Mistake::IgnoresRequestsToStop) {
            return Ok(Vec::new());
        }
        let call = Box::pin(self.inner.cancel_requests(server));
        self.call("cancel_requests", false, call, |_, _| String::new()).await
    }

    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let judge = |history: &mut History, result: &Result<Arc<Job>>| {
            let said = told(result, |_| {
                // Repeated, it may wait or be cancelled or given up by now.
                let ends = [JobState::Pending, JobState::Cancelled, JobState::Failed, JobState::Blocked];
                history.ended(fence, &ends);
                "given back".to_owned()
            });
            format!("{} {said}", fenced(fence))
        };
        self.call("release", true, Box::pin(self.inner.release(fence, release, at)), judge).await
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let judge = |history: &mut History, result: &Result<Finished>| {
            let said = told(result, |_| {
                history.ended(fence, &[outcome.state()]);
                outcome.state().to_string()
            });
            format!("{} {said}", fenced(fence))
        };
        self.call("finish", true, Box::pin(self.inner.finish(fence, outcome, at)), judge).await
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        if self.makes(Mistake::SettlesNothing) {
            return Ok(Vec::new());
        }
        let limit = request.limit.min(limits::SETTLED_PER_CALL_MAX);
        let judge = |history: &mut History, result: &Result<Vec<Arc<Job>>>| {
            told(result, |settled| {
                history.expired(request.now, settled.len() < limit);
                settled.len().to_string()
            })
        };
        self.call("expire", true, Box::pin(self.inner.expire(request)), judge).await
    }

    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        let call = Box::pin(self.inner.note_waiting(groups, at));
        self.call("note_waiting", true, call, |_, result| told(result, |since| since.len().to_string())).await
    }

    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        let call = Box::pin(self.inner.give_up(request));
        self.call("give_up", true, call, |_, result| told(result, usize::to_string)).await
    }

    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        let judge = |history: &mut History, result: &Result<u64>| {
            let said = told(result, |count| {
                history.wrote(fence, "a row");
                count.to_string()
            });
            format!("{} {first}+{} -> {said}", fenced(fence), rows.len())
        };
        self.call("append", true, Box::pin(self.inner.append(fence, first, rows)), judge).await
    }

    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let size = bytes.len();
        let judge = |history: &mut History, result: &Result<u64>| {
            let said = told(result, |length| {
                history.wrote(fence, "a line");
                length.to_string()
            });
            format!("{} {offset}+{size} -> {said}", fenced(fence))
        };
        let call = Box::pin(self.inner.append_log(fence, offset, bytes));
        let result = self.call("append_log", true, call, judge).await;
        let length = offset + u64::try_from(size).unwrap_or(0);
        match result {
            Err(error) if error.kind().is_retryable() && self.makes(Mistake::WritesLinesOnce) => Ok(length),
            result => result,
        }
    }

    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        let judge = |_: &mut History, result: &Result<()>| {
            format!("{}-{attempt} -> {}", short(id), told(result, |()| "ok".to_owned()))
        };
        self.call("archive_log", true, Box::pin(self.inner.archive_log(id, attempt, archive)), judge).await
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        self.call("events", false, Box::pin(self.inner.events(query)), |_, _| String::new()).await
    }

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        let judge = |_: &mut History, result: &Result<()>| {
            format!("{} {what:?} -> {}", short(id), told(result, |()| "ok".to_owned()))
        };
        self.call("note_removed", true, Box::pin(self.inner.note_removed(id, what, at)), judge).await
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        let call = Box::pin(self.inner.ended(query));
        self.call("ended", false, call, |_, result| told(result, |all| all.len().to_string())).await
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.call("is_needed", false, Box::pin(self.inner.is_needed(id)), |_, _| String::new()).await
    }

    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        self.call("queue", false, Box::pin(self.inner.queue(now)), |_, _| String::new()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.call("usage", false, Box::pin(self.inner.usage()), |_, _| String::new()).await
    }

    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        let call = Box::pin(self.inner.unarchived(ended_by, limit));
        self.call("unarchived", false, call, |_, result| told(result, |all| all.len().to_string())).await
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        self.call("spec", false, Box::pin(self.inner.spec(id)), |_, _| String::new()).await
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let call = Box::pin(self.inner.read_log(id, offset, limit));
        self.call("read_log", false, call, |_, _| String::new()).await
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        match subject {
            Subject::Queue | Subject::Cancellations => self.world.listen(subject),
            _ => self.inner.changed(subject),
        }
    }
}
