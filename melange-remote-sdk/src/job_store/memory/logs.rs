//! Logs, each within its bound.

use super::*;

/// The last line of a log that ran into its bound.
const CUT_NOTICE: &[u8] = b"[the log is cut here: it reached its bound]\n";

impl State {
    pub(super) fn append_log(&mut self, fence: Fence, offset: u64, bytes: &[u8]) -> Result<u64> {
        let (id, bound) = (fence.job, self.bounds.log_bytes);
        let entry = self.entry(id)?;
        entry.check_fence(fence)?;
        let (len, cut) = (entry.log.len(), entry.log_cut);
        if cut {
            return Ok(entry.log_len());
        }
        let Some(known) = entry.log_len().checked_sub(offset) else {
            let message = format!("there is no byte {offset} of the log yet: it has {len}");
            return Err(Error::invalid(message).with("job", id));
        };
        let bytes = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(entry.log_len());
        }
        let fits = len.saturating_add(bytes.len()).saturating_add(CUT_NOTICE.len()) <= bound
            && self.evict(bytes.len(), 0);
        let (kept, notice) = if fits {
            (bytes, &b""[..])
        } else {
            let room = bound.saturating_sub(len.saturating_add(CUT_NOTICE.len()));
            let room = if self.evict(room.min(bytes.len()), 0) { room } else { 0 };
            let part = &bytes[..room.min(bytes.len())];
            // Whole lines only, so that the notice stands on its own line.
            (&part[..part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)], CUT_NOTICE)
        };
        self.bytes += kept.len() + notice.len();
        let entry = self.entry_mut(id)?;
        entry.log.extend_from_slice(kept);
        entry.log.extend_from_slice(notice);
        entry.log_cut = !notice.is_empty();
        notify(&entry.log_hint);
        Ok(entry.log_len())
    }
}
