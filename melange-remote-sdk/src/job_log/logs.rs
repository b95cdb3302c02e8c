//! The logs of all jobs: written by the attempts of this server, read from wherever their lines are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::archive;
use super::block::{Lines, LogBlock};
use super::index::LogIndex;
use super::reader::{LogQuery, LogReader};
use super::source::{ArchivedBlocks, StoredBlocks};
use crate::artifact_storage::ArtifactStorage;
use crate::artifact_storage::layout::{LOG_NAME, artifact_key};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobId, LogArchive};
use crate::job_store::{Fence, JobStore};
use crate::limits;

/// Calls on the store that read blocks are made one after the other for jobs that share a number below this one.
const TURNS: usize = 16;

/// Indexes of archives that are kept.
const INDEXES_KEPT: usize = 64;

/// The logs of all jobs. Clones share what they know.
#[derive(Clone)]
pub struct JobLogs {
    pub(super) job_store: Arc<dyn JobStore>,
    pub(super) artifact_storage: Arc<dyn ArtifactStorage>,
    shared: Arc<Shared>,
}

impl fmt::Debug for JobLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLogs").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    turns: [tokio::sync::Mutex<()>; TURNS],
}

#[derive(Default)]
struct State {
    /// Blocks of running attempts, by the number of their first line.
    blocks: BTreeMap<(JobId, u32, u64), Kept>,
    /// The keys of those, in the order in which they came.
    order: VecDeque<(JobId, u32, u64)>,
    bytes: usize,
    /// The attempts of this server, with the numbers of their last lines.
    live: HashMap<(JobId, u32), watch::Sender<u64>>,
    indexes: VecDeque<((JobId, u32), Arc<LogIndex>)>,
}

/// A block, and where the one behind it begins in the store.
struct Kept {
    block: Arc<LogBlock>,
    end: u64,
}

impl JobLogs {
    /// The logs of the jobs of a store, which lie in a storage once their attempts have ended.
    pub fn new(job_store: Arc<dyn JobStore>, artifact_storage: Arc<dyn ArtifactStorage>) -> Self {
        Self { job_store, artifact_storage, shared: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what a query asks for.
    ///
    /// # Errors
    /// `NotFound` when there is no such job or attempt.
    pub async fn read(&self, job: JobId, query: LogQuery) -> Result<LogReader> {
        LogReader::new(self.clone(), job, query).await
    }

    /// Begins the log of an attempt of this server, whose part of the job's log in the store begins at `begin`.
    pub fn write(&self, fence: Fence, begin: u64) -> LogWriter {
        self.lock().live.insert((fence.job, fence.attempt), watch::Sender::new(0));
        LogWriter { logs: self.clone(), fence, offset: begin, lines: 0, text_bytes: 0 }
    }

    /// Puts the log of an attempt that has ended among the artifacts, and lets the store forget it. Doing it again, also
    /// by several servers at once, changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while the attempt runs; those of the storage.
    pub async fn archive(&self, job: JobId, attempt: u32) -> Result<LogArchive> {
        let known = self.job_store.attempt(job, attempt).await?;
        if let Some(archive) = known.log {
            return Ok(archive);
        }
        if known.log_removed_at.is_some() {
            return Err(Error::new(ErrorKind::NotFound, "the log was removed").with("job", job));
        }
        let Some(end) = known.log_end else {
            return Err(Error::new(ErrorKind::Conflict, "the attempt runs").with("job", job));
        };
        if end == known.log_begin {
            // It wrote nothing.
            return Ok(LogArchive::default());
        }
        let key = artifact_key(job, attempt, LOG_NAME)?;
        let mut blocks = StoredBlocks::new(Arc::clone(&self.job_store), job, attempt, known.log_begin);
        blocks.end_at(Some(end));
        let put = archive::put(&self.artifact_storage, blocks, attempt, &key).await;
        let archive = match put {
            // Another server was quicker, and its archive is whole.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let known = self.job_store.attempt(job, attempt).await?;
                return known.log.ok_or(error);
            }
            put => put?,
        };
        match self.job_store.archive_log(job, attempt, &archive).await {
            Ok(()) => {}
            Err(error) => {
                // The job was removed meanwhile, with the artifacts that it had then.
                if error.kind() == ErrorKind::NotFound {
                    self.artifact_storage.delete(&key).await?;
                }
                return Err(error);
            }
        }
        self.forget(job, attempt);
        Ok(archive)
    }

    /// Blocks of an ended attempt are read from its archive from now on.
    fn forget(&self, job: JobId, attempt: u32) {
        let mut state = self.lock();
        let keys: Vec<_> =
            state.blocks.range((job, attempt, 0)..=(job, attempt, u64::MAX)).map(|(key, _)| *key).collect();
        for key in &keys {
            state.remove(key);
        }
        state.order.retain(|key| (key.0, key.1) != (job, attempt));
    }

    /// Opens the archived log of an attempt.
    pub(super) async fn archived(&self, job: JobId, attempt: u32) -> Result<ArchivedBlocks> {
        let key = artifact_key(job, attempt, LOG_NAME)?;
        let storage = Arc::clone(&self.artifact_storage);
        let known = {
            let state = self.lock();
            state.indexes.iter().find(|(of, _)| *of == (job, attempt)).map(|(_, index)| Arc::clone(index))
        };
        if let Some(index) = known {
            return Ok(ArchivedBlocks::with_index(storage, key, index));
        }
        let archived = ArchivedBlocks::open(storage, key).await?;
        let mut state = self.lock();
        if state.indexes.len() >= INDEXES_KEPT {
            state.indexes.pop_front();
        }
        state.indexes.push_back(((job, attempt), Arc::clone(&archived.index)));
        Ok(archived)
    }

    /// The kept block with a line, and where the one behind it begins.
    pub(super) fn kept(&self, job: JobId, attempt: u32, line: u64) -> Option<(Arc<LogBlock>, u64)> {
        let state = self.lock();
        let (_, kept) = state.blocks.range((job, attempt, 0)..=(job, attempt, line)).next_back()?;
        (kept.block.next() > line).then(|| (Arc::clone(&kept.block), kept.end))
    }

    /// Keeps a block for other readers; the oldest ones leave.
    pub(super) fn keep(&self, job: JobId, block: &Arc<LogBlock>, end: u64) {
        let key = (job, block.attempt(), block.first());
        let mut state = self.lock();
        if state.blocks.contains_key(&key) {
            return;
        }
        state.bytes = state.bytes.saturating_add(block.weight());
        state.blocks.insert(key, Kept { block: Arc::clone(block), end });
        state.order.push_back(key);
        while state.bytes > limits::LOG_BLOCKS_KEPT_BYTES_MAX {
            let Some(oldest) = state.order.pop_front() else { break };
            state.remove(&oldest);
        }
    }

    /// The counter of an attempt of this server: the number of its last line. It is closed when the attempt has ended.
    pub(super) fn live(&self, job: JobId, attempt: u32) -> Option<watch::Receiver<u64>> {
        self.lock().live.get(&(job, attempt)).map(watch::Sender::subscribe)
    }

    /// Lets one reader of a job at a time ask the store: the others find what he found.
    pub(super) fn turn(&self, job: JobId) -> &tokio::sync::Mutex<()> {
        let number = job.as_bytes().last().map_or(0, |byte| usize::from(*byte)) % TURNS;
        &self.shared.turns[number]
    }
}

impl State {
    fn remove(&mut self, key: &(JobId, u32, u64)) {
        if let Some(kept) = self.blocks.remove(key) {
            self.bytes = self.bytes.saturating_sub(kept.block.weight());
        }
    }
}

/// Writes the log of an attempt. The caller puts the bytes into the store and says what became of them.
#[derive(Debug)]
pub struct LogWriter {
    logs: JobLogs,
    fence: Fence,
    offset: u64,
    lines: u64,
    text_bytes: u64,
}

impl LogWriter {
    /// Where the next bytes go in the log of the job.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many lines were written.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The next lines as a block.
    pub fn block(&self, lines: Lines) -> LogBlock {
        lines.into_block(self.fence.attempt, self.lines.saturating_add(1), self.text_bytes)
    }

    /// The store has taken a block, and the log of the job has this length now.
    pub fn wrote(&mut self, block: LogBlock, length: u64) {
        self.offset = length;
        self.lines = block.next().saturating_sub(1);
        let text = u64::try_from(block.text().len()).unwrap_or(u64::MAX);
        self.text_bytes = self.text_bytes.saturating_add(text);
        self.logs.keep(self.fence.job, &Arc::new(block), length);
        if let Some(live) = self.logs.lock().live.get(&(self.fence.job, self.fence.attempt)) {
            live.send_replace(self.lines);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.logs.lock().live.remove(&(self.fence.job, self.fence.attempt));
    }
}
