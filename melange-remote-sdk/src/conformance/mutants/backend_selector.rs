//! Selectors with one mistake each: round robin that sees something else than there is, or tells something else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Verdict;
use crate::backend::Closed;
use crate::backend_selector::round_robin::RoundRobin;
use crate::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use crate::conformance::backend_selector::all;
use crate::labels::LabelSelector;

/// The mistake.
#[derive(Debug, Clone, Copy)]
enum Bug {
    None,
    AlwaysFirst,
    AlwaysLast,
    FirstFewest,
    IgnoresClosed,
    IgnoresDraining,
    IgnoresFailing,
    IgnoresTrial,
    IgnoresLabels,
    OneLabelIsEnough,
    IgnoresCapacity,
    OneTooMany,
    IgnoresArch,
    CountsMatching,
    Remembers,
    SaysBusy,
    SaysNoArch,
    SaysNoLabels,
    CountsAll,
    RefusesTheLastSlot,
}

const BUGS: [(&str, Bug); 19] = [
    ("always the first match", Bug::AlwaysFirst),
    ("always the last match", Bug::AlwaysLast),
    ("the first of those with the fewest jobs", Bug::FirstFewest),
    ("ignores that a backend is closed", Bug::IgnoresClosed),
    ("ignores that a backend is drained", Bug::IgnoresDraining),
    ("ignores that a backend fails", Bug::IgnoresFailing),
    ("ignores that a backend is on trial", Bug::IgnoresTrial),
    ("ignores labels", Bug::IgnoresLabels),
    ("one of the labels is enough", Bug::OneLabelIsEnough),
    ("ignores capacity", Bug::IgnoresCapacity),
    ("one job too many", Bug::OneTooMany),
    ("ignores the architecture", Bug::IgnoresArch),
    ("the index counts the matching ones alone", Bug::CountsMatching),
    ("remembers its own turns", Bug::Remembers),
    ("every refusal says busy", Bug::SaysBusy),
    ("every refusal says no architecture", Bug::SaysNoArch),
    ("busy is told as no labels", Bug::SaysNoLabels),
    ("a refusal counts those that do not match", Bug::CountsAll),
    ("the last slot stays free", Bug::RefusesTheLastSlot),
];

/// Tries the suite on the sound selector, then on every mutant.
pub fn run() -> Verdict {
    all(&Mutant::new(Bug::None));
    let mut verdict = Verdict::new("BackendSelector");
    for (name, bug) in BUGS {
        verdict.count(name, catch_unwind(AssertUnwindSafe(|| all(&Mutant::new(bug)))));
    }
    verdict
}

#[derive(Debug)]
struct Mutant {
    bug: Bug,
    turns: AtomicUsize,
}

impl Mutant {
    fn new(bug: Bug) -> Self {
        Self { bug, turns: AtomicUsize::new(0) }
    }

    /// A candidate as the mistake sees it.
    fn see(&self, needs: &Requirements, candidate: &Candidate) -> Candidate {
        let mut seen = candidate.clone();
        let full = seen.backend.max_jobs();
        match self.bug {
            Bug::AlwaysFirst => seen.last_chosen = 0,
            Bug::FirstFewest => seen.last_chosen = u64::from(seen.running),
            Bug::IgnoresClosed => seen.closed = None,
            Bug::IgnoresDraining => seen.closed = seen.closed.filter(|why| *why != Closed::Draining),
            Bug::IgnoresTrial => seen.closed = seen.closed.filter(|why| *why != Closed::Trial),
            Bug::IgnoresFailing => {
                seen.closed = seen.closed.filter(|why| !matches!(why, Closed::Failing { .. }));
            }
            Bug::IgnoresCapacity => seen.running = 0,
            Bug::OneTooMany if seen.running == full => seen.running = full - 1,
            Bug::RefusesTheLastSlot if seen.running + 1 == full => seen.running = full,
            Bug::IgnoresArch => {
                let backend = crate::backend::Backend::new(
                    seen.backend.addr(),
                    needs.arch,
                    seen.backend.labels().clone(),
                );
                seen.backend = backend.expect("it was legal").into();
            }
            _ => {}
        }
        seen
    }

    fn tell(&self, needs: &Requirements, candidates: &[Candidate], refusal: Refusal) -> Refusal {
        let known = candidates.iter().map(|candidate| candidate.backend.arch()).collect();
        match (self.bug, &refusal) {
            (Bug::SaysBusy, _) => Refusal::AllBusy { matching: 1 },
            (Bug::SaysNoArch, _) => Refusal::NoArch { arch: needs.arch, known },
            (Bug::SaysNoLabels, Refusal::AllBusy { .. }) => {
                Refusal::NoLabels { arch: needs.arch, labels: needs.labels.clone() }
            }
            (Bug::CountsAll, Refusal::AllBusy { .. }) => Refusal::AllBusy { matching: candidates.len() },
            _ => refusal,
        }
    }
}

impl BackendSelector for Mutant {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let mut needs = requirements.clone();
        match self.bug {
            Bug::IgnoresLabels => needs.labels = LabelSelector::default(),
            Bug::OneLabelIsEnough => {
                let first = needs
                    .labels
                    .labels()
                    .iter()
                    .next()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()));
                needs.labels = LabelSelector::from_pairs(first).expect("it was legal");
            }
            _ => {}
        }
        let mut seen: Vec<Candidate> =
            candidates.iter().map(|candidate| self.see(&needs, candidate)).collect();
        let matching: Vec<usize> = (0..seen.len())
            .filter(|at| needs.matched_by(&seen[*at].backend) && seen[*at].has_free_slot())
            .collect();
        match self.bug {
            Bug::CountsMatching => seen.retain(|candidate| needs.matched_by(&candidate.backend)),
            Bug::AlwaysLast if !matching.is_empty() => return Ok(matching[matching.len() - 1]),
            Bug::Remembers if !matching.is_empty() => {
                return Ok(matching[self.turns.fetch_add(1, Ordering::Relaxed) % matching.len()]);
            }
            _ => {}
        }
        RoundRobin.select(&needs, &seen).map_err(|refusal| self.tell(&needs, candidates, refusal))
    }
}
