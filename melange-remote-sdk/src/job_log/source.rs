//! Where blocks come from: the job store while a log is written, the artifacts afterwards.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::block::{LogBlock, Parsed, broken, read_block, read_head};
use super::index::{FOOTER, LogIndex};
use crate::artifact_storage::{ArtifactKey, ArtifactStorage};
use crate::error::{Error, Result};
use crate::job::JobId;
use crate::job_store::JobStore;
use crate::limits;

/// The blocks of an attempt that the job store has.
#[derive(Debug)]
pub(super) struct StoredBlocks {
    job_store: Arc<dyn JobStore>,
    job: JobId,
    attempt: u32,
    /// Where the first block begins in the log of the job.
    begin: u64,
    /// Bytes that were read and not used yet.
    rest: Bytes,
    /// Where they begin in the log of the job.
    offset: u64,
    /// Where the attempt's part of that ends, when it does.
    end: Option<u64>,
}

impl StoredBlocks {
    /// The blocks of an attempt from a place on where one begins.
    pub(super) fn new(job_store: Arc<dyn JobStore>, job: JobId, attempt: u32, begin: u64) -> Self {
        Self { job_store, job, attempt, begin, rest: Bytes::new(), offset: begin, end: None }
    }

    /// Reads no further than to here, where the attempt's part of the log ends.
    pub(super) fn end_at(&mut self, end: Option<u64>) {
        self.end = end;
    }

    /// Whether all has been read.
    pub(super) fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }

    /// Goes on at another place where a block begins.
    pub(super) fn go_to(&mut self, offset: u64) {
        if self.offset != offset {
            (self.rest, self.offset) = (Bytes::new(), offset);
        }
    }

    /// Goes back to the first block: [`Self::next`] only goes on.
    pub(super) fn rewind(&mut self) {
        self.go_to(self.begin);
    }

    /// The next block that has a line with this number or a later one, and where the one behind it begins; `None` when
    /// there is none so far.
    ///
    /// # Errors
    /// `NotFound` when the store has the log no longer.
    pub(super) async fn next(&mut self, line: u64) -> Result<Option<(LogBlock, u64)>> {
        loop {
            if self.is_at_end() {
                return Ok(None);
            }
            let head = match read_head(&self.rest)? {
                Parsed::Whole(head, _) => head,
                Parsed::Part(least) if self.read(least).await? => continue,
                Parsed::Part(_) => return Ok(None),
                Parsed::Other => return Err(broken("bytes that no block begins with").with("job", self.job)),
            };
            if head.block.attempt() != self.attempt {
                return Ok(None);
            }
            if head.block.next() > line {
                match read_block(&self.rest)? {
                    Parsed::Whole(block, size) => {
                        self.skip(size);
                        return Ok(Some((block, self.offset)));
                    }
                    Parsed::Part(least) if self.read(least).await? => continue,
                    _ => return Ok(None),
                }
            }
            if self.rest.len() < head.stored_bytes && !self.read(head.stored_bytes).await? {
                return Ok(None);
            }
            self.skip(head.stored_bytes);
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.slice(bytes.min(self.rest.len())..);
        self.offset = self.offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Reads more when less than so many bytes are there; whether more came.
    async fn read(&mut self, least: usize) -> Result<bool> {
        if least > limits::LOG_READ_BYTES_MAX {
            return Err(broken("a block is longer than any"));
        }
        let chunk = self.job_store.read_log(self.job, self.offset, limits::LOG_READ_BYTES_MAX).await?;
        let grown = chunk.bytes.len() >= least;
        self.rest = chunk.bytes;
        Ok(grown)
    }
}

/// The blocks of a log among the artifacts.
#[derive(Debug, Clone)]
pub(super) struct ArchivedBlocks {
    artifact_storage: Arc<dyn ArtifactStorage>,
    key: ArtifactKey,
    pub(super) index: Arc<LogIndex>,
}

impl ArchivedBlocks {
    /// Opens an archive: reads its index.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Unexpected` when it is damaged.
    pub(super) async fn open(artifact_storage: Arc<dyn ArtifactStorage>, key: ArtifactKey) -> Result<Self> {
        let size = artifact_storage.head(&key).await?.size_bytes;
        let begin = size.checked_sub(FOOTER).ok_or_else(|| broken("it has no index"))?;
        let footer = read(&artifact_storage, &key, begin..size).await?;
        let length = LogIndex::size_of(&footer)?;
        let begin = size.checked_sub(length).ok_or_else(|| broken("it has no index"))?;
        let index = LogIndex::decode(&read(&artifact_storage, &key, begin..size).await?)?;
        Ok(Self { artifact_storage, key, index: Arc::new(index) })
    }

    /// The same archive by an index that was read before.
    pub(super) fn with_index(
        artifact_storage: Arc<dyn ArtifactStorage>,
        key: ArtifactKey,
        index: Arc<LogIndex>,
    ) -> Self {
        Self { artifact_storage, key, index }
    }

    /// The block with a line; `None` behind the last one.
    pub(super) async fn at(&self, line: u64) -> Result<Option<LogBlock>> {
        Ok(self.blocks(line, 0).await?.pop())
    }

    /// Blocks in a row, the first of them with a line: as many as one read gives.
    pub(super) async fn several_at(&self, line: u64) -> Result<Vec<LogBlock>> {
        self.blocks(line, limits::LOG_READ_BYTES_MAX as u64).await
    }

    /// The block with a line, and those behind it that end within so many bytes from its beginning.
    async fn blocks(&self, line: u64, within: u64) -> Result<Vec<LogBlock>> {
        if line > self.index.lines() {
            return Ok(Vec::new());
        }
        let first = self.index.place_by(|entry| entry.first, &line);
        let Some(mut range) = self.index.bytes_of(first) else { return Ok(Vec::new()) };
        if range.end.saturating_sub(range.start) > limits::LOG_READ_BYTES_MAX as u64 {
            return Err(broken("a block is longer than any"));
        }
        let most = range.start.saturating_add(within);
        let behind = (first.saturating_add(1)..).map_while(|place| self.index.bytes_of(place));
        range.end = behind.map(|next| next.end).take_while(|end| *end <= most).last().unwrap_or(range.end);
        let mut bytes = read(&self.artifact_storage, &self.key, range).await?;
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            match read_block(&bytes)? {
                Parsed::Whole(block, size) => {
                    bytes = bytes.slice(size..);
                    blocks.push(block);
                }
                _ => return Err(broken("a block is not where the index says").with("artifact", &self.key)),
            }
        }
        Ok(blocks)
    }
}

async fn read(
    artifact_storage: &Arc<dyn ArtifactStorage>,
    key: &ArtifactKey,
    range: std::ops::Range<u64>,
) -> Result<Bytes> {
    let body = artifact_storage.get(key, Some(range)).await?;
    let mut bytes = Vec::new();
    let mut parts = body.bytes;
    while let Some(part) = parts.try_next().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > limits::LOG_INDEX_BYTES_MAX {
            return Err(Error::unexpected("the storage gave more than was asked for"));
        }
    }
    Ok(bytes.into())
}
