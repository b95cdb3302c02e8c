//! A job store of one's own: a journal in one file, and the proof that it keeps the contract.
//!
//! The rules of the contract are `job_store::working_set`: the same calls in the same order give the same answers. So
//! this store writes every call that changes something into its file before it makes the call, and makes all of them
//! again when it is opened. A real one would also wait for the disk, and write down now and then what the set holds, so
//! that its file does not grow for ever.
//!
//! The suite `conformance::job_store` is what every implementation of this project runs.
//!
//! `cargo run --example 05_custom_job_store`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::conformance::job_store as suite;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{
    Build, BuildId, Job, JobAttempt, JobId, JobSpec, LogArchive, Outcome, Priority, ProgressRow, Project,
    ResultDigest, ServerId, SourceDigest,
};
use melange_remote_sdk::job_store::working_set::{Bounds, Changes, WorkingSet};
use melange_remote_sdk::job_store::{
    BuildPage, BuildQuery, Claim, ClaimRequest, Demand, EndedJob, EndedQuery, EventLog, EventPage,
    EventQuery, ExpireRequest, Fence, Finished, GiveUp, GroupWaiting, Hints, Holding, JobIntake, JobPage,
    JobProgress, JobQueue, JobReading, JobStore, ListQuery, LogChunk, PackageDuration, QueueSummary, Release,
    Renewal, Selection, Subject, Submission, Submitted, Usage,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A call that changes something, as the journal has it.
#[derive(Debug, Serialize, Deserialize)]
enum Call {
    Submit(Submission),
    Cancel(Selection, Timestamp),
    Retry(Selection, Timestamp),
    SetPriority(Selection, Priority),
    Remove(JobId),
    NoteRemoved(JobId, Holding, Timestamp),
    Claim(ClaimRequest),
    Renew(ServerId, Vec<Fence>, Timestamp),
    Release(Fence, Release, Timestamp),
    Finish(Fence, Outcome, Timestamp),
    Expire(ExpireRequest),
    NoteWaiting(Vec<GroupWaiting>, Timestamp),
    GiveUp(GiveUp),
    Append(Fence, u64, Vec<ProgressRow>),
    AppendLog(Fence, u64, Vec<u8>),
    ArchiveLog(JobId, u32, LogArchive),
}

/// What the calls of the journal come to.
#[derive(Debug)]
struct State {
    set: WorkingSet,
    logs: HashMap<JobId, Vec<u8>>,
    events: EventLog,
    journal: File,
    /// How long the journal is.
    length: u64,
}

impl State {
    /// Makes a call of the journal again; its answer was given long ago.
    fn repeat(&mut self, call: &Call) {
        let set = &mut self.set;
        match call {
            Call::Submit(submission) => drop(set.submit(submission, submission.content())),
            Call::Cancel(selection, at) => drop(set.cancel(*selection, *at)),
            Call::Retry(selection, at) => drop(set.retry(*selection, *at)),
            Call::SetPriority(selection, priority) => drop(set.set_priority(*selection, *priority)),
            Call::Remove(id) => drop(set.remove(*id)),
            Call::NoteRemoved(id, what, at) => drop(self.note_removed(*id, *what, *at)),
            Call::Claim(request) => drop(set.claim(request)),
            Call::Renew(server, fences, until) => drop(set.renew_all(server, fences, *until)),
            Call::Release(fence, release, at) => drop(set.release(*fence, release, *at)),
            Call::Finish(fence, outcome, at) => drop(set.finish(*fence, outcome, *at)),
            Call::Expire(request) => drop(set.expire(request)),
            Call::NoteWaiting(groups, at) => groups.iter().for_each(|group| {
                set.note_waiting(group, *at);
            }),
            Call::GiveUp(request) => drop(set.give_up(request)),
            Call::Append(fence, first, rows) => drop(set.append(*fence, *first, rows)),
            Call::AppendLog(fence, offset, bytes) => drop(self.append_log(*fence, *offset, bytes)),
            Call::ArchiveLog(id, attempt, archive) => drop(self.archive_log(*id, *attempt, archive)),
        }
        self.forget();
    }

    fn append_log(&mut self, fence: Fence, offset: u64, bytes: &[u8]) -> Result<u64> {
        let new = self.set.append_log(fence, offset, bytes)?;
        let log = self.logs.entry(fence.job).or_default();
        log.extend_from_slice(new);
        Ok(u64::try_from(log.len()).unwrap_or(u64::MAX))
    }

    /// The bytes of an archived log are needed no longer; here they keep their place, and become nothing.
    fn archive_log(&mut self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        let range = self.set.archive_log(id, attempt, archive)?;
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(bytes) =
            self.logs.get_mut(&id).and_then(|log| log.get_mut(place(range.start)..place(range.end)))
        {
            bytes.fill(0);
        }
        Ok(())
    }

    /// The bytes of removed logs become nothing too.
    fn note_removed(&mut self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.set.note_removed(id, what, at)?;
        if let (Holding::Logs, Some(log)) = (what, self.logs.get_mut(&id)) {
            log.fill(0);
        }
        Ok(())
    }

    /// What changed; what happened gets its numbers, and the logs of removed jobs go.
    fn forget(&mut self) -> Changes {
        let mut changes = self.set.take_changes();
        self.events.add(std::mem::take(&mut changes.events));
        changes.forgotten.iter().for_each(|id| drop(self.logs.remove(id)));
        changes
    }

    fn write(&mut self, call: &Call) -> Result<()> {
        let failed =
            |message| move |error: std::io::Error| Error::new(ErrorKind::Unavailable, message).source(error);
        let mut line =
            serde_json::to_vec(call).map_err(|error| failed("a call cannot be told")(error.into()))?;
        line.push(b'\n');
        self.journal.write_all(&line).map_err(|error| {
            // What was written of the line goes, so that the next one stands alone.
            let _ = self.journal.set_len(self.length);
            failed("the journal cannot be written")(error)
        })?;
        self.length += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// The store.
#[derive(Debug)]
struct Journal {
    state: Mutex<State>,
    hints: Hints,
}

impl Journal {
    /// Opens the file and makes its calls again.
    fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::io("read", path, source);
        let mut journal = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        let mut text = String::new();
        journal.read_to_string(&mut text).map_err(io)?;
        let set = WorkingSet::new(Bounds::default());
        let mut state = State { set, logs: HashMap::new(), events: EventLog::default(), journal, length: 0 };
        // A last line without its end is a call whose answer nobody got.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            state.repeat(&serde_json::from_str(line).map_err(|error| io(error.into()))?);
            state.length += u64::try_from(line.len()).unwrap_or(u64::MAX);
        }
        state.journal.set_len(state.length).map_err(io)?;
        Ok(Self { state: Mutex::new(state), hints: Hints::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a call down and makes it.
    fn call<T>(&self, call: &Call, make: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.state();
        state.write(call)?;
        let told = make(&mut state);
        let changes = state.forget();
        drop(state);
        self.hints.tell(&changes);
        Ok(told)
    }
}

#[async_trait]
impl JobIntake for Journal {
    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        submission.check()?;
        let content = submission.content();
        self.call(&Call::Submit(submission.clone()), |state| state.set.submit(submission, content))?
    }

    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.call(&Call::Cancel(selection, at), |state| state.set.cancel(selection, at))?
    }

    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.call(&Call::Retry(selection, at), |state| state.set.retry(selection, at))?
    }

    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        self.call(&Call::SetPriority(selection, priority), |state| {
            state.set.set_priority(selection, priority)
        })?
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        self.call(&Call::Remove(id), |state| state.set.remove(id))?
    }

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.call(&Call::NoteRemoved(id, what, at), |state| state.note_removed(id, what, at))?
    }
}

#[async_trait]
impl JobQueue for Journal {
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        Ok(self.state().set.demand(now))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.call(&Call::Claim(request.clone()), |state| state.set.claim(request))
    }

    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        let call = Call::Renew(server.clone(), fences.to_vec(), until);
        self.call(&call, |state| state.set.renew_all(server, fences, until))?
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        Ok(self.state().set.cancel_requests(server))
    }

    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        self.call(&Call::Release(fence, release.clone(), at), |state| state.set.release(fence, release, at))?
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        self.call(&Call::Finish(fence, outcome.clone(), at), |state| state.set.finish(fence, outcome, at))?
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        self.call(&Call::Expire(*request), |state| state.set.expire(request))
    }

    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        self.call(&Call::NoteWaiting(groups.to_vec(), at), |state| {
            groups.iter().map(|group| state.set.note_waiting(group, at)).collect()
        })
    }

    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        self.call(&Call::GiveUp(request.clone()), |state| state.set.give_up(request))
    }
}

#[async_trait]
impl JobProgress for Journal {
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        self.call(&Call::Append(fence, first, rows.to_vec()), |state| state.set.append(fence, first, rows))?
    }

    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let call = Call::AppendLog(fence, offset, bytes.to_vec());
        self.call(&call, |state| state.append_log(fence, offset, &bytes))?
    }

    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        let call = Call::ArchiveLog(id, attempt, archive.clone());
        self.call(&call, |state| state.archive_log(id, attempt, archive))?
    }
}

#[async_trait]
impl JobReading for Journal {
    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.state().set.get(id)
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        self.state().set.spec(id)
    }

    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        self.state().set.blocked_by(id, limit)
    }

    async fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        self.state().set.ahead(id)
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        Ok(self.state().events.read(query))
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.state().set.attempts(id)
    }

    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        self.state().set.attempt(id, number)
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        Ok(self.state().set.list(query))
    }

    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        Ok(self.state().set.list_builds(query))
    }

    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>> {
        Ok(self.state().set.with_result(project, result))
    }

    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>> {
        Ok(self.state().set.durations(project, arch))
    }

    async fn build(&self, id: BuildId) -> Result<Build> {
        self.state().set.build(id)
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let state = self.state();
        let log = state.logs.get(&id).map(Vec::as_slice).unwrap_or_default();
        state.set.read_log(id, log, offset, limit)
    }

    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        Ok(self.state().set.unarchived(ended_by, limit))
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        Ok(self.state().set.ended(query))
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.state().set.is_needed(id)
    }

    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        Ok(self.state().set.queue(now))
    }

    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        self.state().set.needed_sources(sources)
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(self.state().set.usage())
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.hints.subscribe(subject)
    }
}

/// How the suite gets at the store. One process has the file; its handles share the store.
struct UnderTest {
    path: PathBuf,
    open: Mutex<Arc<Journal>>,
}

#[async_trait]
impl suite::StoreUnderTest for UnderTest {
    async fn handle(&self) -> Arc<dyn JobStore> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&open) as _
    }

    async fn reopen(&self) -> Arc<dyn JobStore> {
        let journal = Arc::new(Journal::open(&self.path).expect("the journal reads"));
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&journal);
        journal
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("journal");
    let open = Mutex::new(Arc::new(Journal::open(&path)?));
    suite::all(&UnderTest { path: path.clone(), open }).await;
    let calls = std::fs::read_to_string(&path)?.lines().count();
    println!("the store keeps the contract; its journal has {calls} calls");
    Ok(())
}
