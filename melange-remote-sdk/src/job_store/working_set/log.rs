//! What attempts tell: rows, and the bytes of their logs.

use std::ops::Range;

use super::*;
use crate::job::LogArchive;

impl Entry {
    /// The bytes that the log has not yet, of those that its owner writes at an offset.
    ///
    /// # Errors
    /// `InvalidRequest` for a gap.
    pub(in crate::job_store) fn new_bytes<'b>(&self, offset: u64, bytes: &'b [u8]) -> Result<&'b [u8]> {
        let Some(known) = self.log_bytes.checked_sub(offset) else {
            let message = format!("there is no byte {offset} of the log yet: it has {}", self.log_bytes);
            return Err(Error::invalid(message).with("job", self.job.id));
        };
        Ok(bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default())
    }
}

/// That a log of so many bytes has room for more below its bound, or for a last word.
///
/// # Errors
/// `LimitExceeded`.
pub(in crate::job_store) fn check_room(bound: u64, length: u64, bytes: usize) -> Result<()> {
    let last_word = if bytes <= limits::LOG_LAST_WORD_BYTES { limits::LOG_LAST_WORD_BYTES } else { 0 };
    let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    if length.saturating_add(count(bytes)) > bound.saturating_add(count(last_word)) {
        return Err(no_room());
    }
    Ok(())
}

/// That a part of a log was archived.
pub(in crate::job_store) fn forgotten(id: JobId, offset: u64) -> Error {
    let error = Error::new(ErrorKind::NotFound, "this part of the log is kept no longer").with("job", id);
    error.with("offset", offset).hint("it was put among the artifacts")
}

/// The bytes of a log from an offset on, at most `limit`, of parts with the offsets at which they begin, in order. They end
/// where a part is missing: it was forgotten.
pub(in crate::job_store) fn joined<'p>(
    parts: impl IntoIterator<Item = (u64, &'p [u8])>,
    offset: u64,
    limit: usize,
) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), offset);
    for (begin, part) in parts {
        let skipped = next.checked_sub(begin).and_then(|skipped| usize::try_from(skipped).ok());
        let Some(rest) = skipped.and_then(|skipped| part.get(skipped..)).filter(|rest| !rest.is_empty())
        else {
            break;
        };
        let taken = &rest[..rest.len().min(limit.saturating_sub(bytes.len()))];
        bytes.extend_from_slice(taken);
        next = next.saturating_add(u64::try_from(taken.len()).unwrap_or(u64::MAX));
    }
    bytes
}

/// That a store takes no more of a log.
pub(in crate::job_store) fn no_room() -> Error {
    Error::new(ErrorKind::LimitExceeded, "the job store has no room for more of this log")
}

/// Notes that the log of an attempt lies among the artifacts; the bytes that are needed no longer, and nothing when that was
/// known.
///
/// # Errors
/// `Conflict` while the attempt runs; `NotFound` when the log was removed.
pub(in crate::job_store) fn note_archive(
    id: JobId,
    attempt: &mut JobAttempt,
    archive: &LogArchive,
) -> Result<Range<u64>> {
    let Some(end) = attempt.log_end else { return Err(conflict(id, "the attempt runs")) };
    if attempt.log_removed_at.is_some() {
        return Err(Error::new(ErrorKind::NotFound, "the log was removed").with("job", id));
    }
    if attempt.log.is_some() {
        return Ok(end..end);
    }
    attempt.log = Some(archive.clone());
    Ok(attempt.log_begin..end)
}

/// Whether the log of an attempt that ended by a time is still to be put among the artifacts.
pub(in crate::job_store) fn is_unarchived(attempt: &JobAttempt, ended_by: Timestamp) -> bool {
    attempt.log.is_none()
        && attempt.log_removed_at.is_none()
        && attempt.log_end.is_some_and(|end| end > attempt.log_begin)
        && attempt.ended_at.is_some_and(|ended_at| ended_at <= ended_by)
}

impl WorkingSet {
    /// As [`JobProgress::archive_log`](crate::job_store::JobProgress::archive_log), for stores whose jobs are all in the
    /// set: the range of the job's log that may be forgotten.
    ///
    /// # Errors
    /// As there.
    pub fn archive_log(&mut self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<Range<u64>> {
        let entry = self.entry_mut(id)?;
        let known = entry.attempts.iter_mut().find(|known| known.number == attempt);
        let range = note_archive(id, known.ok_or_else(|| no_attempt(id, attempt))?, archive)?;
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        entry.forgotten_bytes = entry.forgotten_bytes.saturating_add(range.end - range.start);
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.jobs.get(&id).is_some_and(|entry| entry.job.state.is_terminal()) {
            self.finished_bytes = self.finished_bytes.saturating_sub(bytes);
        }
        self.changes.jobs.insert(id);
        Ok(range)
    }

    /// As [`JobReading::unarchived`](crate::job_store::JobReading::unarchived).
    pub fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Vec<(JobId, u32)> {
        let attempts = self.jobs.iter().flat_map(|(id, entry)| {
            let ended = entry.attempts.iter().filter(move |attempt| is_unarchived(attempt, ended_by));
            ended.map(move |attempt| (*id, attempt.number))
        });
        attempts.take(limit.min(limits::PAGE_ITEMS_MAX)).collect()
    }

    /// The log of a job grew by so many bytes; returns its length.
    pub(in crate::job_store) fn grow_log(&mut self, id: JobId, bytes: usize) -> Result<u64> {
        self.bytes = self.bytes.saturating_add(bytes);
        let entry = self.entry_mut(id)?;
        entry.log_bytes = entry.log_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let length = entry.log_bytes;
        self.changes.logs.insert(id);
        Ok(length)
    }

    /// The rows that the attempt has not told yet.
    pub(in crate::job_store) fn new_rows<'r>(
        &self,
        fence: Fence,
        first: u64,
        rows: &'r [ProgressRow],
    ) -> Result<&'r [ProgressRow]> {
        let entry = self.entry(fence.job)?;
        entry.check_fence(fence)?;
        if rows.len() > limits::PROGRESS_ROWS_MAX {
            return Err(Error::invalid(format!("more than {} rows in a call", limits::PROGRESS_ROWS_MAX)));
        }
        let Some(known) = entry.progress.checked_sub(first) else {
            let message = format!("there is no row {first} yet: there are {}", entry.progress);
            return Err(Error::invalid(message).with("job", fence.job));
        };
        Ok(rows.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default())
    }

    /// As [`JobProgress::append`](crate::job_store::JobProgress::append).
    ///
    /// # Errors
    /// As there.
    pub fn append(&mut self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        let new = self.new_rows(fence, first, rows)?;
        let job = Arc::clone(&self.entry(fence.job)?.job);
        self.changes.events.extend(new.iter().filter_map(|row| Event::job_progress(&job, row)));
        let entry = self.entry_mut(fence.job)?;
        if let Some(attempt) = entry.attempts.last_mut() {
            new.iter().for_each(|row| attempt.apply(row.clone()));
        }
        entry.progress += u64::try_from(new.len()).unwrap_or(u64::MAX);
        let progress = entry.progress;
        if !new.is_empty() {
            self.changes.jobs.insert(fence.job);
        }
        Ok(progress)
    }
}
