//! Weights of projects: how many of the running jobs a project gets beside others that wait too. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::job::Project;

/// How many running jobs a project gets for one of another's: with weights 3 and 1, three of four slots. A project that
/// is not named has the weight 1. Clones share the map.
///
/// ```
/// use std::num::NonZeroU32;
/// use melange_remote_sdk::job::Project;
/// use melange_remote_sdk::scheduler::ProjectWeights;
///
/// let release: Project = "release".parse().unwrap();
/// let weights = ProjectWeights::from_iter([(release.clone(), NonZeroU32::new(3).unwrap())]);
/// assert_eq!(weights.of(&release).get(), 3);
/// assert_eq!(weights.of(&Project::default()).get(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectWeights(Arc<BTreeMap<Project, NonZeroU32>>);

impl ProjectWeights {
    /// The weight of a project.
    pub fn of(&self, project: &Project) -> NonZeroU32 {
        self.0.get(project).copied().unwrap_or(NonZeroU32::MIN)
    }
}

impl FromIterator<(Project, NonZeroU32)> for ProjectWeights {
    /// Of two weights of one project the later one counts.
    fn from_iter<I: IntoIterator<Item = (Project, NonZeroU32)>>(weights: I) -> Self {
        Self(Arc::new(weights.into_iter().collect()))
    }
}

/// What a project has of the farm: its running jobs for each unit of its weight. The lesser share goes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    running: usize,
    weight: NonZeroU32,
}

impl Share {
    pub(super) fn new(running: usize, weight: NonZeroU32) -> Self {
        Self { running, weight }
    }

    /// One more of its jobs runs.
    pub(super) fn grow(&mut self) {
        self.running = self.running.saturating_add(1);
    }
}

impl Ord for Share {
    /// Cross-multiplied, and so exact; 128 bits hold the products.
    fn cmp(&self, other: &Self) -> Ordering {
        let scaled = |one: &Self, by: &Self| one.running as u128 * u128::from(by.weight.get());
        scaled(self, other).cmp(&scaled(other, self))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_compared_exactly() {
        let share = |running, weight| Share::new(running, NonZeroU32::new(weight).unwrap());
        assert_eq!(share(0, 1), share(0, 1_000));
        assert_eq!(share(2, 4), share(1, 2));
        assert!(share(1, 3) < share(34, 100));
        assert!(share(usize::MAX, u32::MAX) > share(usize::MAX - 1, u32::MAX));
        let mut grown = share(usize::MAX, 1);
        grown.grow();
        assert_eq!(grown, share(usize::MAX, 1));
    }
}
