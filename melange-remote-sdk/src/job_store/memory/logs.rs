//! Logs, each within its bound.

use std::collections::HashSet;

use super::*;

/// The last line of a log that ran into its bound.
const CUT_NOTICE: &[u8] = b"[the log is cut here: it reached its bound]\n";

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
        let len = entry.log_bytes;
        if self.logs.get(&id).is_some_and(|log| log.cut) {
            return Ok(len);
        }
        let Some(known) = len.checked_sub(offset) else {
            let message = format!("there is no byte {offset} of the log yet: it has {len}");
            return Err(Error::invalid(message).with("job", id));
        };
        let bytes = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(len);
        }
        let room =
            bound.saturating_sub(usize::try_from(len).unwrap_or(usize::MAX)).saturating_sub(CUT_NOTICE.len());
        let (kept, notice) = if bytes.len() <= room && self.set.make_room(bytes.len(), 0, &HashSet::new()) {
            (bytes, &b""[..])
        } else {
            let room = if self.set.make_room(room.min(bytes.len()), 0, &HashSet::new()) { room } else { 0 };
            let part = &bytes[..room.min(bytes.len())];
            // Whole lines only, so that the notice stands on its own line.
            (&part[..part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)], CUT_NOTICE)
        };
        let log = self.logs.entry(id).or_default();
        log.bytes.extend_from_slice(kept);
        log.bytes.extend_from_slice(notice);
        log.cut = !notice.is_empty();
        self.set.grow_log(id, kept.len() + notice.len())
    }
}
