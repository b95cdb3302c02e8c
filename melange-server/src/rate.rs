//! How many submissions a server takes for each second: a token bucket, kept as the time at which it is full again.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use melange_remote_sdk::limits;
use tokio::time::Instant;

/// A bucket that fills by a number of submissions each second and holds those of [`limits::SUBMIT_BURST`].
#[derive(Debug)]
pub struct SubmitRate {
    /// The time between two submissions at the rate; `None` without a bound.
    interval: Option<Duration>,
    full_at: Mutex<Instant>,
}

impl SubmitRate {
    /// A full bucket; without a rate it never empties.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        let interval = per_second.map(|rate| Duration::from_secs(1) / rate.get());
        Self { interval, full_at: Mutex::new(Instant::now()) }
    }

    /// Takes one submission, or says after which time there is room for it.
    ///
    /// # Errors
    /// The time until then.
    pub fn take(&self) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let now = Instant::now();
        // What is in the bucket is one number: it is right whatever happened to the one who changed it last.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let then = (*full_at).max(now) + interval;
        match (then - now).checked_sub(limits::SUBMIT_BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *full_at = then;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &SubmitRate) -> usize {
        std::iter::from_fn(|| rate.take().ok()).take(1_000_000).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_then_the_rate_is_kept() {
        for per_second in [1, 3, 1_000] {
            let rate = SubmitRate::new(NonZeroU32::new(per_second));
            let burst = usize::try_from(per_second).unwrap() * 10;
            // A third of a second is no whole number of nanoseconds.
            assert!((burst..=burst + 1).contains(&taken(&rate)), "{per_second}");
            let wait = rate.take().unwrap_err();
            assert!(wait <= Duration::from_secs(1) / per_second, "{wait:?}");
            tokio::time::advance(wait).await;
            assert_eq!(taken(&rate), 1, "there is room when it was said, for one");
            tokio::time::advance(Duration::from_secs(2)).await;
            let two = usize::try_from(per_second).unwrap() * 2;
            assert!((two..=two + 1).contains(&taken(&rate)), "{per_second}");
            tokio::time::advance(Duration::from_secs(3_600)).await;
            assert!((burst..=burst + 1).contains(&taken(&rate)), "it never holds more than a burst");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_there_is_no_bound() {
        assert_eq!(taken(&SubmitRate::new(None)), 1_000_000);
    }
}
