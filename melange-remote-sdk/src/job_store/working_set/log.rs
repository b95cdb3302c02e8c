//! What becomes of bytes that are added to a log.

use super::*;

/// The last line of a log that ran into its bound.
const CUT_NOTICE: &[u8] = b"[the log is cut here: it reached its bound]\n";

/// What a log may hold of new bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::job_store) struct Fitting<'b> {
    /// The bytes.
    pub(in crate::job_store) kept: &'b [u8],
    /// What follows them: that the log is cut, or nothing.
    pub(in crate::job_store) notice: &'static [u8],
}

impl<'b> Fitting<'b> {
    /// As much as a log of so many bytes has room for, below its bound.
    pub(in crate::job_store) fn below(bound: u64, length: u64, bytes: &'b [u8]) -> Self {
        let notice = u64::try_from(CUT_NOTICE.len()).unwrap_or(u64::MAX);
        let room = bound.saturating_sub(length).saturating_sub(notice);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if bytes.len() <= room { Self { kept: bytes, notice: b"" } } else { Self::cut(&bytes[..room]) }
    }

    /// As much of a part as makes whole lines, so that the notice stands on its own line.
    pub(in crate::job_store) fn cut(part: &'b [u8]) -> Self {
        let end = part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Self { kept: &part[..end], notice: CUT_NOTICE }
    }

    /// Whether this is the end of the log.
    pub(in crate::job_store) fn is_cut(&self) -> bool {
        !self.notice.is_empty()
    }
}

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
