//! When a job that waits will begin, from what runs, what goes before it and how long such jobs took. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// How long jobs took, by name; for names that are unknown, by all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    by_name: HashMap<String, (Duration, u32)>,
    all: (Duration, u32),
}

impl History {
    /// Adds a job that took so long.
    pub fn add(&mut self, name: &str, took: Duration) {
        let known = self.by_name.entry(name.to_owned()).or_default();
        for (sum, count) in [known, &mut self.all] {
            *sum = sum.saturating_add(took);
            *count = count.saturating_add(1);
        }
    }

    /// How long jobs take on average.
    pub fn usual(&self) -> Option<Duration> {
        mean(self.all)
    }

    /// How long a job takes: as those of its name on average, or as all of them.
    pub fn expected(&self, name: Option<&str>) -> Option<Duration> {
        let known = name.and_then(|name| self.by_name.get(name)).copied();
        known.and_then(mean).or_else(|| self.usual())
    }
}

fn mean((sum, count): (Duration, u32)) -> Option<Duration> {
    (count > 0).then(|| sum / count)
}

/// How long a job still runs that has run for `elapsed` and takes `expected` on average. One that is late is likely to
/// take longer still.
pub fn remaining(elapsed: Duration, expected: Duration) -> Duration {
    expected.saturating_sub(elapsed).max(elapsed / 4)
}

/// After which time a job gets a slot, of those that become free after `slots`, when `ahead` others with these durations go
/// before it; `None` without a slot.
pub fn starts_after(
    slots: impl IntoIterator<Item = Duration>,
    ahead: impl IntoIterator<Item = Duration>,
) -> Option<Duration> {
    let mut free: BinaryHeap<Reverse<Duration>> = slots.into_iter().map(Reverse).collect();
    for took in ahead {
        let Reverse(at) = free.pop()?;
        free.push(Reverse(at.saturating_add(took)));
    }
    free.pop().map(|Reverse(at)| at)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn slots_are_taken_as_they_become_free() {
        let at = |slots: &[u64], ahead: &[u64]| {
            starts_after(slots.iter().copied().map(seconds), ahead.iter().copied().map(seconds))
        };
        assert_eq!(at(&[], &[]), None);
        assert_eq!(at(&[0], &[]), Some(seconds(0)));
        assert_eq!(at(&[5, 9], &[]), Some(seconds(5)));
        assert_eq!(at(&[5, 9], &[10]), Some(seconds(9)));
        assert_eq!(at(&[5, 9], &[10, 10]), Some(seconds(15)));
        assert_eq!(at(&[0, 0], &[3, 4, 5]), Some(seconds(4)));
    }

    #[test]
    fn what_is_late_is_not_about_to_end() {
        assert_eq!(remaining(seconds(10), seconds(60)), seconds(50));
        assert_eq!(remaining(seconds(80), seconds(60)), seconds(20));
    }

    #[test]
    fn names_that_are_unknown_take_as_long_as_all() {
        let mut history = History::default();
        assert_eq!(history.expected(Some("a")), None);
        history.add("a", seconds(10));
        history.add("b", seconds(30));
        assert_eq!(history.expected(Some("a")), Some(seconds(10)));
        assert_eq!(history.expected(Some("c")), Some(seconds(20)));
        assert_eq!(history.expected(None), Some(seconds(20)));
    }

    /// A day of a farm: jobs come at random, more at some times than at others, each package with durations of its own,
    /// which vary by half. Estimates are those that a job gets when it is handed in.
    #[test]
    fn estimates_of_a_simulated_day_are_within_a_factor_of_two() {
        let mut rng = Rng::with_seed(9);
        let usual: Vec<f64> = (0..40).map(|_| 20.0 * (rng.f64() * 3.5).exp()).collect();
        let took = |rng: &mut Rng, package: usize| usual[package] * (0.75 + rng.f64() * 0.5);
        let mut history = History::default();
        for package in 0..40 {
            (0..3).for_each(|_| {
                let took = Duration::from_secs_f64(took(&mut rng, package));
                history.add(&package.to_string(), took);
            });
        }
        // A few hours of more work than eight slots can do, and as many of less.
        let (mut now, mut arrivals) = (0.0, Vec::new());
        while now < 86_400.0 {
            let busy = ((now / 10_800.0) as u64).is_multiple_of(2);
            now += -(1.0 - rng.f64()).ln() * if busy { 18.0 } else { 40.0 };
            arrivals.push((now, rng.usize(..40)));
        }
        let expected = |package: usize| history.expected(Some(&package.to_string())).unwrap();
        // Running jobs by their end: (end, start, package); and the starts of those that were handed in before.
        let mut running: Vec<(f64, f64, usize)> = Vec::new();
        let mut waiting: Vec<(f64, usize)> = Vec::new();
        let (mut good, mut all) = (0, 0);
        for (now, package) in arrivals {
            waiting.retain(|(start, _)| *start > now);
            running.retain(|(end, _, _)| *end > now);
            let begun: Vec<_> = running.iter().filter(|(_, start, _)| *start <= now).collect();
            let free = 8 - begun.len().min(8);
            let busy = begun.iter().map(|(_, start, package)| {
                remaining(Duration::from_secs_f64(now - start), expected(*package))
            });
            let slots = busy.chain(std::iter::repeat_n(Duration::ZERO, free));
            let ahead = waiting.iter().map(|(_, package)| expected(*package));
            let estimate = starts_after(slots, ahead).unwrap().as_secs_f64();
            // What really happens: first come, first served.
            let mut ends: Vec<f64> = running.iter().map(|(end, _, _)| *end).collect();
            ends.sort_by(f64::total_cmp);
            let start = if ends.len() < 8 { now } else { ends[ends.len() - 8].max(now) };
            running.push((start + took(&mut rng, package), start, package));
            if start > now {
                waiting.push((start, package));
            }
            let wait = start - now;
            if wait >= 60.0 {
                all += 1;
                good += usize::from((0.5..=2.0).contains(&(estimate / wait)));
            }
        }
        assert!(all > 500, "{all} jobs waited");
        assert!(good * 100 >= all * 95, "{good} of {all}");
    }
}
