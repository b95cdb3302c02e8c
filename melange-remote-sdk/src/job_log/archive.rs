//! The log of an attempt that has ended, as one artifact: blocks of a good size, and the index behind them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::block::{Lines, LogBlock};
use super::index::LogIndex;
use super::source::StoredBlocks;
use crate::artifact_storage::{ArtifactKey, ArtifactStorage, ByteStream};
use crate::error::{Error, Result};
use crate::job::LogArchive;
use crate::limits;

/// Puts the log of an attempt that has ended among the artifacts, from the bytes that the job store has of it.
///
/// # Errors
/// Those of the store and of the storage; `Unexpected` when the store's bytes are none of a log.
pub(super) async fn put(
    artifact_storage: &Arc<dyn ArtifactStorage>,
    blocks: StoredBlocks,
    attempt: u32,
    key: &ArtifactKey,
) -> Result<LogArchive> {
    let index = Arc::new(Mutex::new(None));
    let packer = Packer {
        blocks,
        attempt,
        gathered: Lines::default(),
        index: LogIndex::default(),
        ready: VecDeque::new(),
        finished: Arc::clone(&index),
        ended: false,
    };
    let bytes: ByteStream = stream::try_unfold(packer, |mut packer| async move {
        Ok(packer.next().await?.map(|bytes| (bytes, packer)))
    })
    .boxed();
    let stored = artifact_storage.put(key, bytes).await?;
    let index: Option<LogIndex> = index.lock().unwrap_or_else(PoisonError::into_inner).take();
    let index = index.ok_or_else(|| Error::unexpected("the storage did not read the log to its end"))?;
    Ok(index.summary(stored.size_bytes))
}

/// Makes blocks of a good size of those that were written as lines came.
struct Packer {
    blocks: StoredBlocks,
    attempt: u32,
    /// Lines of small blocks.
    gathered: Lines,
    index: LogIndex,
    ready: VecDeque<Bytes>,
    finished: Arc<Mutex<Option<LogIndex>>>,
    ended: bool,
}

impl Packer {
    /// The next bytes of the archive.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if self.ended {
                return Ok(None);
            }
            match self.blocks.next(1).await? {
                Some((block, _)) => {
                    if is_large(block.count(), u64::try_from(block.text().len()).unwrap_or(u64::MAX)) {
                        self.flush()?;
                    }
                    self.gathered.extend(&block);
                    if is_large(self.gathered.count(), self.gathered.text_bytes()) {
                        self.flush()?;
                    }
                }
                None => {
                    self.flush()?;
                    self.ready.push_back(self.index.encode().into());
                    let index = std::mem::take(&mut self.index);
                    *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(index);
                    self.ended = true;
                }
            }
        }
    }

    /// Makes a block of the lines that are gathered.
    fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.gathered);
        let (first, text_offset) = (self.index.lines().saturating_add(1), self.index.text_bytes());
        let block: LogBlock = lines.into_block(self.attempt, first, text_offset);
        let bytes = block.encode()?;
        self.index.push(&block, bytes.len());
        self.ready.push_back(bytes.into());
        Ok(())
    }
}

/// Whether so many lines and bytes make a block of their own.
fn is_large(lines: u64, bytes: u64) -> bool {
    let large = u64::try_from(limits::LOG_WRITE_BYTES).unwrap_or(u64::MAX) / 2;
    lines >= limits::LOG_BLOCK_LINES || bytes >= large
}
