//! What goes on and since when, for steps that say nothing: a status line with the time on a terminal, a line a
//! minute elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::note;

/// How long nothing is said elsewhere than on a terminal before a line tells what goes on.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// How often the status line is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A time as people read it: `7 s`, `3 min 05 s`, `2 h 07 min`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The state, without clock and terminal.
#[derive(Debug)]
struct Current {
    what: String,
    since: Instant,
    /// When a person last heard something.
    heard: Instant,
}

impl Current {
    fn new(now: Instant) -> Self {
        Self { what: String::new(), since: now, heard: now }
    }

    fn begin(&mut self, what: &str, now: Instant) {
        if self.what != what {
            what.clone_into(&mut self.what);
            self.since = now;
        }
    }

    fn status(&self, now: Instant) -> String {
        if self.what.is_empty() {
            return String::new();
        }
        format!("{}  {}", self.what, clock(now.saturating_duration_since(self.since)))
    }

    /// What is due after a minute without a word.
    fn reminder(&mut self, now: Instant) -> Option<String> {
        if self.what.is_empty() || now.saturating_duration_since(self.heard) < SILENCE {
            return None;
        }
        self.heard = now;
        Some(format!("still: {} ({})", self.what, clock(now.saturating_duration_since(self.since))))
    }
}

/// Tells what goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    current: Arc<Mutex<Current>>,
    ticker: tokio::task::AbortHandle,
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Begins with nothing going on.
    pub(crate) fn start() -> Self {
        let current = Arc::new(Mutex::new(Current::new(Instant::now())));
        let seen = Arc::clone(&current);
        let ticker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                let (status, reminder) = {
                    let mut current = lock(&seen);
                    let now = Instant::now();
                    let reminder = if note::is_terminal() { None } else { current.reminder(now) };
                    (current.status(now), reminder)
                };
                note::status(&status);
                if let Some(line) = reminder {
                    note::line(&line);
                }
            }
        });
        Self { current, ticker: ticker.abort_handle() }
    }

    /// Something begins; an empty text means that nothing goes on.
    pub(crate) fn begin(&self, what: &str) {
        lock(&self.current).begin(what, Instant::now());
    }

    /// Says whole lines above the status.
    pub(crate) fn text(&self, text: &str) {
        lock(&self.current).heard = Instant::now();
        note::text(text);
    }

    /// Says one line above the status.
    pub(crate) fn line(&self, line: &str) {
        self.text(&format!("{line}\n"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ticker.abort();
        note::status("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_broken_once_a_minute_with_the_time_that_it_took() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut current = Current::new(begin);
        assert_eq!(current.reminder(at(600)), None, "nothing goes on");
        current.heard = begin;
        current.begin("[1/2] make", at(10));
        assert_eq!(current.status(at(17)), "[1/2] make  7 s");
        assert_eq!(current.reminder(at(59)), None);
        assert_eq!(current.reminder(at(60)).as_deref(), Some("still: [1/2] make (50 s)"));
        assert_eq!(current.reminder(at(119)), None, "once");
        current.begin("[1/2] make", at(119));
        assert_eq!(current.reminder(at(120)).as_deref(), Some("still: [1/2] make (1 min 50 s)"));
        assert_eq!(clock(Duration::from_secs(7_630)), "2 h 07 min");
    }
}
