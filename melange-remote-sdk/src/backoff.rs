//! Pauses between tries: each twice as long as the one before, up to a bound, and longer by a random part, so that many
//! who failed together do not come back together.

use std::time::Duration;

/// The largest part of a pause that chance adds.
const SPREAD: f64 = 0.25;

/// The pauses of one call that is tried again and again.
///
/// ```
/// use std::time::Duration;
/// use melange_remote_sdk::backoff::Backoff;
/// let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
/// for least in [1, 2, 3, 3] {
///     let pause = backoff.pause();
///     assert!(pause >= Duration::from_secs(least) && pause <= Duration::from_secs(least) * 5 / 4);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Pauses that begin with `first` and end at `most`, each before chance adds to it.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first.min(most), most }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.most);
        spread(pause)
    }
}

/// A pause, longer by up to a quarter.
pub fn spread(pause: Duration) -> Duration {
    pause.saturating_add(pause.mul_f64(SPREAD * fastrand::f64()))
}
