//! Logs, each within its bound.

use std::collections::HashSet;

use super::*;
use crate::job::LogArchive;
use crate::job_store::working_set::{check_room, forgotten, joined, no_room};

impl State {
    pub(super) fn append_log(
        &mut self,
        fence: Fence,
        offset: u64,
        bytes: &[u8],
        bound: usize,
    ) -> Result<u64> {
        let id = fence.job;
        let entry = self.set.entry(id)?;
        entry.check_fence(fence)?;
        let length = entry.log_bytes;
        let begin = entry.attempts.last().map_or(0, |attempt| attempt.log_begin);
        let bytes = entry.new_bytes(offset, bytes)?;
        if bytes.is_empty() {
            return Ok(length);
        }
        check_room(u64::try_from(bound).unwrap_or(u64::MAX), length, bytes.len())?;
        if !self.set.make_room(bytes.len(), 0, &HashSet::new()) {
            return Err(no_room());
        }
        self.logs.entry(id).or_default().entry(begin).or_default().extend_from_slice(bytes);
        self.set.grow_log(id, bytes.len())
    }

    pub(super) fn archive_log(&mut self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        let range = self.set.archive_log(id, attempt, archive)?;
        if !range.is_empty()
            && let Some(parts) = self.logs.get_mut(&id)
        {
            parts.remove(&range.start);
        }
        Ok(())
    }

    pub(super) fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let length = self.set.entry(id)?.log_bytes;
        if offset >= length || limit == 0 {
            return Ok(LogChunk::new(Bytes::new(), length));
        }
        let gone = || forgotten(id, offset);
        let parts = self.logs.get(&id).ok_or_else(gone)?;
        let (begin, _) = parts.range(..=offset).next_back().ok_or_else(gone)?;
        let parts = parts.range(begin..).map(|(begin, part)| (*begin, part.as_slice()));
        let bytes = joined(parts, offset, limit.min(limits::LOG_READ_BYTES_MAX));
        if bytes.is_empty() { Err(gone()) } else { Ok(LogChunk::new(bytes.into(), length)) }
    }
}
