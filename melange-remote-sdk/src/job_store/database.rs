//! What stores on databases have in common.

use crate::error::{Error, ErrorKind};
use crate::limits;

/// The bounds of a store on a database.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DatabaseBounds {
    /// Jobs that may wait.
    pub pending: usize,
    /// Bytes of one log, all attempts together.
    pub log_bytes: u64,
}

impl Default for DatabaseBounds {
    fn default() -> Self {
        Self { pending: limits::DATABASE_PENDING_JOBS_MAX, log_bytes: limits::JOB_LOG_BYTES_MAX }
    }
}

/// A database that did not do what it was asked.
pub(super) fn unavailable(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the job database does not work").source(error)
}
