//! When a scheduler last went round, for those who watch over it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the scheduler of these parts last ended a round, whether the job store answered it or not. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LastRound(Arc<Mutex<Option<Instant>>>);

impl LastRound {
    /// A round has ended.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The time since then; `None` before the first one.
    pub fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}
