//! Seeded bugs, and what finds each of them: the simulation, or the suite of the contract.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Mistake, Report, run_with, runtime};
use crate::conformance::mutants::job_store;
use crate::job_store::memory::MemoryJobStore;

/// Mistakes of a store that matter to a farm as a whole; see [`job_store::names`] for all of them.
pub const STORE_BUGS: [&str; 28] = [
    "any fence ends a job",
    "any fence writes the log",
    "any fence tells of steps",
    "any fence renews",
    "a renewal revives a settled lease",
    "a repeated end unlocks again",
    "a failure unlocks what waits",
    "only the next jobs are skipped",
    "what waits is unlocked later",
    "artifacts come after the state",
    "a request to stop is lost",
    "a cancelled job that is given back waits again",
    "a cancelled job whose owner died waits again",
    "a running job is claimed again",
    "a claim takes what has a lease that ended",
    "a backend runs what is offered",
    "each server counts its own jobs",
    "a claim takes job after job",
    "a repeated claim takes other jobs",
    "a token whose claims have ended claims anew",
    "a claim does not tell where the log begins",
    "lines are written twice",
    "repeated bytes are added",
    "leases never end",
    "leases end early",
    "a renewal changes nothing",
    "a retry erases attempts",
    "jobs wait for nobody",
];

/// Letters shown of what a suite says.
const WORDS_SHOWN: usize = 100;

/// What found a bug.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FoundBy {
    /// A run of the simulation.
    Simulation {
        /// Which one.
        seed: u64,
        /// The rule that was broken.
        violation: String,
    },
    /// The suite of the contract.
    Suite(String),
    /// Nothing.
    Nothing,
}

/// A bug, and what found it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Hunted {
    /// What the bug is called.
    pub bug: &'static str,
    /// What found it.
    pub by: FoundBy,
}

impl fmt::Display for Hunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bug = self.bug;
        match &self.by {
            FoundBy::Simulation { seed, violation } => write!(f, "{bug} | seed {seed} | {violation}"),
            FoundBy::Suite(told) => {
                let told: String =
                    told.lines().next().unwrap_or_default().chars().take(WORDS_SHOWN).collect();
                write!(f, "{bug} | suite | {told}")
            }
            FoundBy::Nothing => write!(f, "{bug} | nothing |"),
        }
    }
}

/// Looks for a mistake of a store: with each seed, then with the suite.
///
/// # Panics
/// When there is no mistake of this name, or no room for a runtime.
pub fn hunt_store(bug: &'static str, seeds: RangeInclusive<u64>) -> Hunted {
    let run = |seed| run_with(seed, job_store::named(bug).expect("the mistake has this name"), Mistake::None);
    let by = hunt(seeds, run).unwrap_or_else(|| {
        runtime().block_on(job_store::caught(bug)).map_or(FoundBy::Nothing, FoundBy::Suite)
    });
    Hunted { bug, by }
}

/// Looks for a mistake of all servers.
///
/// # Panics
/// When there is no room for a runtime.
pub fn hunt_mistake(bug: &'static str, mistake: Mistake, seeds: RangeInclusive<u64>) -> Hunted {
    let run = |seed| run_with(seed, Arc::new(MemoryJobStore::default()), mistake);
    Hunted { bug, by: hunt(seeds, run).unwrap_or(FoundBy::Nothing) }
}

/// The first run that breaks a rule.
fn hunt(mut seeds: RangeInclusive<u64>, run: impl Fn(u64) -> Report) -> Option<FoundBy> {
    seeds.find_map(|seed| run(seed).violation.map(|violation| FoundBy::Simulation { seed, violation }))
}
