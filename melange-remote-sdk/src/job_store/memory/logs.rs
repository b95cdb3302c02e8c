//! Logs, each within its bound.

use std::collections::HashSet;

use super::*;
use crate::job_store::working_set::Fitting;

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
        let bytes = entry.new_bytes(offset, bytes)?;
        if bytes.is_empty() {
            return Ok(len);
        }
        let mut fitting = Fitting::below(u64::try_from(bound).unwrap_or(u64::MAX), len, bytes);
        if !self.set.make_room(fitting.kept.len(), 0, &HashSet::new()) {
            fitting = Fitting::cut(b"");
        }
        let log = self.logs.entry(id).or_default();
        log.bytes.extend_from_slice(fitting.kept);
        log.bytes.extend_from_slice(fitting.notice);
        log.cut = fitting.is_cut();
        self.set.grow_log(id, fitting.kept.len() + fitting.notice.len())
    }
}
