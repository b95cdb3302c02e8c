//! How long jobs are expected to take.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;

/// How long the jobs of packages took of late, on one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    known: BTreeMap<String, Duration>,
}

/// Of the known durations, in hundredths, the one that stands for unknown ones: whoever begins a long job late waits for it,
/// who begins a short one early does not.
const UNKNOWN_QUANTILE: usize = 95;

impl Durations {
    /// The durations by the name of the package.
    pub fn new(known: BTreeMap<String, Duration>) -> Self {
        Self { known }
    }

    /// What stands for a duration that is not known: a high quantile of those that are, or
    /// [`limits::PLAN_JOB_DURATION`] when none is.
    pub fn unknown(&self) -> Duration {
        let mut known: Vec<Duration> = self.known.values().copied().collect();
        known.sort_unstable();
        let place = (known.len() * UNKNOWN_QUANTILE / 100).min(known.len().saturating_sub(1));
        known.get(place).copied().unwrap_or(limits::PLAN_JOB_DURATION)
    }

    /// The expected durations of packages, in their order.
    pub fn expected<'n>(&self, packages: impl Iterator<Item = &'n str>) -> Vec<Duration> {
        let unknown = self.unknown();
        packages.map(|name| self.known.get(name).copied().unwrap_or(unknown)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_ones_are_taken_for_long() {
        let none = Durations::default();
        assert_eq!(none.expected(["a"].into_iter()), [limits::PLAN_JOB_DURATION]);
        let seconds = (1..=100).map(|number| (format!("p{number}"), Duration::from_secs(number)));
        let known = Durations::new(seconds.collect());
        assert_eq!(
            known.expected(["p7", "x"].into_iter()),
            [Duration::from_secs(7), Duration::from_secs(96)]
        );
    }
}
