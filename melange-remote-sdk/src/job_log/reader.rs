//! Reading logs: from a place on, of a step or a stream, to the end or for as long as lines come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::block::{LogBlock, LogForm, LogLine};
use super::index::LogIndex;
use super::logs::JobLogs;
use super::source::{ArchivedBlocks, StoredBlocks};
use crate::artifact_storage::layout::{LOG_NAME, job_folder};
use crate::builder::LogStream;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobId, JobState, LogPosition};
use crate::job_store::{Subject, hinted};
use crate::limits;

/// Which lines of the log of a job are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogQuery {
    /// Only those of this attempt; of all attempts, one after the other, when nothing is said.
    pub attempt: Option<u32>,
    /// Only those of this step, from 0.
    pub step: Option<u32>,
    /// Only those of this stream.
    pub stream: Option<LogStream>,
    /// Only those behind this place.
    pub behind: Option<LogPosition>,
    /// Only those that were read at this time or later.
    pub since: Option<Timestamp>,
    /// Of each attempt only lines up to this number.
    pub last: Option<u64>,
    /// Only so many, the last ones of those that are there at the beginning; at most [`limits::LOG_TAIL_MAX`].
    pub tail: Option<u64>,
    /// Also those that will come, until the job has finished, or the attempt has.
    pub follow: bool,
}

impl LogQuery {
    /// All lines of an attempt.
    pub fn of_attempt(attempt: u32) -> Self {
        Self { attempt: Some(attempt), ..Self::default() }
    }

    /// The same, and those that will come.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Of the same only lines behind a place.
    #[must_use]
    pub fn behind(mut self, place: LogPosition) -> Self {
        self.behind = Some(place);
        self
    }

    /// Whether it asks for all lines that there are, perhaps of an attempt.
    pub fn is_whole(&self) -> bool {
        *self == Self { attempt: self.attempt, ..Self::default() }
    }

    fn has(&self, line: &LogLine<'_>) -> bool {
        self.step.is_none_or(|step| line.origin.step == Some(step))
            && self.stream.is_none_or(|stream| line.origin.stream == stream)
            && self.since.is_none_or(|since| line.origin.at >= since)
            && self.last.is_none_or(|last| line.number <= last)
    }

    /// Whether it takes all lines from some place on.
    fn is_plain(&self) -> bool {
        self.step.is_none() && self.stream.is_none() && self.since.is_none() && self.last.is_none()
    }
}

/// Lines of a block that were asked for.
#[derive(Debug, Clone)]
pub struct LogPart {
    block: Arc<LogBlock>,
    /// The number of the first line that may be among them.
    first: u64,
    query: Arc<LogQuery>,
}

impl LogPart {
    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = LogLine<'_>> {
        self.block.lines().filter(|line| line.number >= self.first && self.query.has(line))
    }

    /// The text of the lines, each with its newline.
    pub fn text(&self) -> Bytes {
        if self.is_whole() {
            return self.block.text().clone();
        }
        let mut text = Vec::new();
        for line in self.lines() {
            text.extend_from_slice(line.text);
            text.push(b'\n');
        }
        text.into()
    }

    /// What `make` makes of the lines for a form. Of a whole block it is made once, for all who read that: it must depend
    /// on the lines alone.
    pub fn made(&self, form: LogForm, make: impl FnOnce(&Self) -> Vec<Bytes>) -> Arc<[Bytes]> {
        if self.is_whole() {
            return Arc::clone(self.block.made(form).get_or_init(|| make(self).into()));
        }
        make(self).into()
    }

    /// Whether all lines of the block are among them.
    fn is_whole(&self) -> bool {
        self.query.is_plain() && self.first <= self.block.first()
    }

    /// The number of the attempt.
    pub fn attempt(&self) -> u32 {
        self.block.attempt()
    }

    /// Behind the last of the lines that were looked at: where a reader that is cut off goes on.
    pub fn position(&self) -> LogPosition {
        LogPosition { attempt: self.block.attempt(), line: self.block.next().saturating_sub(1) }
    }
}

/// The attempts of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempts {
    /// The number of the present or last one; 0 before the first one.
    last: u32,
    /// Whether that one runs.
    is_running: bool,
    /// Whether the job has finished.
    is_finished: bool,
    /// When the logs of all of them were removed.
    removed_at: Option<Timestamp>,
}

/// Reads the log of a job. Dropping the future of [`Self::next`] loses nothing.
#[derive(Debug)]
pub struct LogReader {
    logs: JobLogs,
    job: JobId,
    query: Arc<LogQuery>,
    /// The attempt that is read; none before the first one began.
    blocks: Option<Blocks>,
    /// The place behind which lines are wanted.
    place: LogPosition,
    /// What was known of a job that the store has forgotten.
    forgotten: Option<Attempts>,
}

impl LogReader {
    pub(super) async fn new(logs: JobLogs, job: JobId, query: LogQuery) -> Result<Self> {
        let place = query.behind.unwrap_or_default();
        let query = Arc::new(query);
        let mut reader = Self { logs, job, query, blocks: None, place, forgotten: None };
        let attempts = match reader.attempts().await {
            Err(error) if error.kind() == ErrorKind::NotFound => reader.archives(error).await?,
            attempts => attempts?,
        };
        reader.check_kept(attempts).await?;
        if let Some(attempt) = reader.query.attempt.filter(|attempt| !(1..=attempts.last).contains(attempt)) {
            let error = Error::new(ErrorKind::NotFound, format!("the job has no attempt {attempt}"));
            return Err(error.with("job", job).hint(format!("it had {} so far", attempts.last)));
        }
        if let Some(lines) = reader.query.tail {
            reader.go_to_tail(lines, attempts).await?;
        }
        Ok(reader)
    }

    /// That what is asked for was not removed.
    async fn check_kept(&self, attempts: Attempts) -> Result<()> {
        let removed_at = match self.query.attempt {
            Some(attempt) if self.forgotten.is_none() => {
                let known = self.logs.job_store.attempt(self.job, attempt).await;
                known.ok().and_then(|known| known.log_removed_at)
            }
            _ => attempts.removed_at,
        };
        removed_at.map_or(Ok(()), |at| Err(removed(self.job, at)))
    }

    async fn attempts(&self) -> Result<Attempts> {
        if let Some(known) = self.forgotten {
            return Ok(known);
        }
        let job = self.logs.job_store.get(self.job).await?;
        Ok(Attempts {
            last: job.attempt,
            is_running: job.state == JobState::Running,
            is_finished: job.state.is_terminal(),
            removed_at: job.log_removed_at,
        })
    }

    /// The attempts of a job that the store has forgotten, from the logs among the artifacts.
    async fn archives(&mut self, missing: Error) -> Result<Attempts> {
        let folder = job_folder(self.job)?;
        let stored = self.logs.artifact_storage.list(&folder).await?;
        let number = |key: &str| -> Option<u32> {
            let (attempt, name) = key.strip_prefix(&format!("{folder}/"))?.split_once('/')?;
            (name == LOG_NAME).then(|| attempt.parse().ok())?
        };
        let last = stored.iter().filter_map(|artifact| number(artifact.key.as_str())).max().ok_or(missing)?;
        let attempts = Attempts { last, is_running: false, is_finished: true, removed_at: None };
        self.forgotten = Some(attempts);
        // Of the earlier ones it is not known whether they are there.
        if self.query.attempt.is_none() && self.place.attempt < last {
            self.place = LogPosition { attempt: last, line: 0 };
        }
        Ok(attempts)
    }

    /// The next lines; `None` when there are no more, and none will come that were asked for.
    ///
    /// # Errors
    /// `NotFound` when the log is kept no longer; those of the store and of the storage.
    pub async fn next(&mut self) -> Result<Option<LogPart>> {
        loop {
            // Taken before the look: what comes after it moves it.
            let mut hint = self.logs.job_store.changed(Subject::Log(self.job));
            let live = self.blocks.as_ref().and_then(|blocks| self.logs.live(self.job, blocks.attempt));
            if let Some(part) = self.next_part().await? {
                return Ok(Some(part));
            }
            if self.query.follow
                && !self.has_all()
                && let Some(mut live) = live
            {
                let line = self.place.line;
                // Closed when the attempt ends: then the store is asked.
                let more = live.wait_for(|last| *last > line).await.is_ok();
                if more {
                    continue;
                }
            }
            let attempts = self.attempts().await?;
            if self.is_over(attempts) {
                // Lines that were written between the look at them and the look at the job.
                if let Some(part) = self.next_part().await? {
                    return Ok(Some(part));
                }
                if self.next_attempt(attempts).await? {
                    continue;
                }
                if !self.query.follow || attempts.is_finished || self.query.attempt.is_some() {
                    return Ok(None);
                }
            } else if !self.query.follow {
                return Ok(None);
            }
            wait(&mut hint).await;
        }
    }

    /// Whether the attempt that is read will write no more that was asked for.
    fn is_over(&self, attempts: Attempts) -> bool {
        let attempt = self.blocks.as_ref().map_or(0, |blocks| blocks.attempt);
        attempt < attempts.last || !attempts.is_running || self.blocks.is_some() && self.has_all()
    }

    /// Whether no line of the attempt that is read is asked for behind the place.
    fn has_all(&self) -> bool {
        self.query.last.is_some_and(|last| self.place.line >= last)
    }

    /// Goes to the next attempt that is asked for; whether there is one.
    async fn next_attempt(&mut self, attempts: Attempts) -> Result<bool> {
        let next = match (&self.blocks, self.query.attempt) {
            (None, Some(attempt)) => attempt,
            (Some(_), Some(_)) => return Ok(false),
            (None, None) => self.place.attempt.max(1),
            (Some(blocks), None) => blocks.attempt.saturating_add(1),
        };
        if next > attempts.last {
            return Ok(false);
        }
        if self.place.attempt != next {
            self.place = LogPosition { attempt: next, line: 0 };
        }
        // Of a job that was tried again the logs before that may be gone.
        self.blocks = Some(match Blocks::open(&self.logs, self.job, next).await {
            Err(error) if error.kind() == ErrorKind::Gone && self.query.attempt.is_none() => {
                Blocks::gone(&self.logs, self.job, next)
            }
            blocks => blocks?,
        });
        Ok(true)
    }

    /// The next lines that are there.
    async fn next_part(&mut self) -> Result<Option<LogPart>> {
        if self.has_all() {
            return Ok(None);
        }
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        let first = self.place.line.saturating_add(1);
        let block = blocks.at(first).await?;
        Ok(block.map(|block| {
            let part = LogPart { block, first, query: Arc::clone(&self.query) };
            self.place = part.position();
            part
        }))
    }

    /// Goes to where the last lines of those that are there begin.
    async fn go_to_tail(&mut self, lines: u64, attempts: Attempts) -> Result<()> {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX).min(limits::LOG_TAIL_MAX);
        let attempt = self.query.attempt.unwrap_or(attempts.last);
        if attempt == 0 {
            return Ok(());
        }
        // Only its own lines: those of attempts before it are another failure's.
        let begin = LogPosition { attempt, line: 0 }.max(self.place);
        self.place = begin;
        let mut blocks = Blocks::open(&self.logs, self.job, attempt).await?;
        if self.query.is_plain() {
            let last = blocks.last_line().await?;
            let behind = last.saturating_sub(u64::try_from(lines).unwrap_or(u64::MAX));
            self.place.line = begin.line.max(behind);
            return Ok(());
        }
        let mut last = VecDeque::new();
        let mut next = begin.line.saturating_add(1);
        while let Some(block) = blocks.at(next).await? {
            for line in block.lines().filter(|line| line.number >= next && self.query.has(line)) {
                if last.len() == lines {
                    last.pop_front();
                }
                last.push_back(line.number);
            }
            next = block.next();
        }
        let behind = last.front().map_or(next, |first| *first).saturating_sub(1);
        self.place.line = begin.line.max(behind);
        Ok(())
    }
}

/// That a log was removed, when and why.
fn removed(job: JobId, at: Timestamp) -> Error {
    let error = Error::new(ErrorKind::Gone, format!("the log was removed at {at:.0}")).with("job", job);
    error.hint("the rules of the server say for how long logs are kept (--keep-logs)")
}

/// Waits for a hint, which may be missed.
async fn wait(hint: &mut watch::Receiver<u64>) {
    tokio::time::timeout(limits::SCHEDULER_POLL, hinted(hint)).await.unwrap_or_default();
}

/// The blocks of an attempt, wherever they are.
#[derive(Debug)]
pub(super) struct Blocks {
    logs: JobLogs,
    job: JobId,
    attempt: u32,
    stored: StoredBlocks,
    archived: Option<ArchivedBlocks>,
}

impl Blocks {
    pub(super) async fn open(logs: &JobLogs, job: JobId, attempt: u32) -> Result<Self> {
        let store = Arc::clone(&logs.job_store);
        let known = match store.attempt(job, attempt).await {
            Ok(known) => Some(known),
            // The store forgets what the artifacts have.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(at) = known.as_ref().and_then(|known| known.log_removed_at) {
            return Err(removed(job, at));
        }
        let begin = known.as_ref().map_or(0, |known| known.log_begin);
        let mut stored = StoredBlocks::new(store, job, attempt, begin);
        stored.end_at(known.as_ref().and_then(|known| known.log_end));
        let is_archived = known.is_none_or(|known| known.log.is_some());
        let mut blocks = Self { logs: logs.clone(), job, attempt, stored, archived: None };
        if is_archived {
            blocks.archived = Some(logs.archived(job, attempt).await?);
        }
        Ok(blocks)
    }

    /// The blocks of an attempt whose log was removed: none.
    fn gone(logs: &JobLogs, job: JobId, attempt: u32) -> Self {
        let mut stored = StoredBlocks::new(Arc::clone(&logs.job_store), job, attempt, 0);
        stored.end_at(Some(0));
        Self { logs: logs.clone(), job, attempt, stored, archived: None }
    }

    /// The block with a line; `None` when there is none so far.
    pub(super) async fn at(&mut self, line: u64) -> Result<Option<Arc<LogBlock>>> {
        loop {
            if let Some(archived) = &self.archived {
                return Ok(archived.at(line).await?.map(Arc::new));
            }
            if let Some(block) = self.kept(line) {
                return Ok(Some(block));
            }
            if self.logs.live(self.job, self.attempt).is_some_and(|live| *live.borrow() < line) {
                return Ok(None);
            }
            let logs = self.logs.clone();
            let turn = logs.turn(self.job).lock().await;
            if let Some(block) = self.kept(line) {
                return Ok(Some(block));
            }
            match self.stored.next(line).await {
                Ok(Some((block, end))) => {
                    let block = Arc::new(block);
                    self.logs.keep(self.job, &block, end);
                    return Ok(Some(block));
                }
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    drop(turn);
                    self.look_elsewhere(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The store has no bytes where the next block was: the attempt has ended, and this log was archived, or one behind it.
    async fn look_elsewhere(&mut self, missing: Error) -> Result<()> {
        let known = self.logs.job_store.attempt(self.job, self.attempt).await;
        if let Ok(known) = &known
            && known.log.is_none()
        {
            let was_at_end = self.stored.is_at_end();
            self.stored.end_at(known.log_end);
            return if self.stored.is_at_end() && !was_at_end { Ok(()) } else { Err(missing) };
        }
        match self.logs.archived(self.job, self.attempt).await {
            Ok(archived) => self.archived = Some(archived),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn kept(&mut self, line: u64) -> Option<Arc<LogBlock>> {
        let (block, end) = self.logs.kept(self.job, self.attempt, line)?;
        self.stored.go_to(end);
        Some(block)
    }

    /// Blocks in a row, the first of them with a line, in as few reads as one; none when there is none so far.
    pub(super) async fn several_at(&mut self, line: u64) -> Result<Vec<Arc<LogBlock>>> {
        match &self.archived {
            Some(archived) => Ok(archived.several_at(line).await?.into_iter().map(Arc::new).collect()),
            None => Ok(self.at(line).await?.into_iter().collect()),
        }
    }

    /// Where the lines are that are there; of a running attempt, the places in the storage mean nothing.
    pub(super) async fn outline(&mut self) -> Result<Arc<LogIndex>> {
        if let Some(archived) = &self.archived {
            return Ok(Arc::clone(&archived.index));
        }
        let mut outline = LogIndex::default();
        while let Some(block) = self.at(outline.lines().saturating_add(1)).await? {
            outline.push(&block, 0);
        }
        self.stored.rewind();
        Ok(Arc::new(outline))
    }

    /// The number of the last line that is there; 0 for none.
    pub(super) async fn last_line(&mut self) -> Result<u64> {
        if let Some(archived) = &self.archived {
            return Ok(archived.index.lines());
        }
        if let Some(live) = self.logs.live(self.job, self.attempt) {
            return Ok(*live.borrow());
        }
        let mut last = 0;
        while let Some(block) = self.at(last + 1).await? {
            last = block.next().saturating_sub(1);
        }
        self.stored.rewind();
        Ok(last)
    }
}
