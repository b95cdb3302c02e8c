//! Station 5: which backend runs a job. The contract, what it sees, and the reasons for saying no.
//!
//! Implementations: [`round_robin`], [`least_loaded`], and [`best_fit`] before either. Capacity is leased by [`crate::backend::pool`], not here.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::backend::Backend;
pub use crate::backend::{Candidate, Closed};
use crate::job::{Job, JobFacts, JobResources};
use crate::labels::LabelSelector;
use crate::pointers::hand_on;

pub mod best_fit;
pub mod least_loaded;
pub mod round_robin;

/// What a job needs of a backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Requirements {
    /// The architecture.
    pub arch: Arch,
    /// Labels that must all be there.
    pub labels: LabelSelector,
    /// Processor time and memory that must be free.
    pub resources: JobResources,
}

impl Requirements {
    /// An architecture and labels that must all be there.
    pub fn new(arch: Arch, labels: LabelSelector) -> Self {
        Self { arch, labels, resources: JobResources::default() }
    }

    /// The same with processor time and memory that must be free.
    #[must_use]
    pub fn with_resources(mut self, resources: JobResources) -> Self {
        self.resources = resources;
        self
    }

    /// What a job needs at first.
    pub fn of_facts(facts: &JobFacts) -> Self {
        Self::new(facts.arch, facts.backend_selector.clone()).with_resources(facts.resources())
    }

    /// What a job needs now.
    pub fn of_job(job: &Job) -> Self {
        Self::of_facts(&job.facts).with_resources(job.resources())
    }

    /// Whether `backend` could run the job if nothing else ran there.
    pub fn matched_by(&self, backend: &Backend) -> bool {
        self.are_named_by(backend) && backend.capacity().holds(self.resources)
    }

    /// Whether `candidate` can take one more such job now.
    pub fn fit(&self, candidate: &Candidate) -> bool {
        let room = || candidate.backend.capacity().room(candidate.used, self.resources);
        self.matched_by(&candidate.backend) && candidate.has_free_slot() && room() > 0
    }

    /// Whether `backend` has the architecture and the labels.
    fn are_named_by(&self, backend: &Backend) -> bool {
        backend.arch() == self.arch && self.labels.matches(backend.labels())
    }
}

/// Why no backend was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No backend has the architecture.
    NoArch {
        /// The asked one.
        arch: Arch,
        /// Those that there are.
        known: BTreeSet<Arch>,
    },
    /// No backend of the architecture has the labels.
    NoLabels {
        /// The architecture.
        arch: Arch,
        /// The asked labels.
        labels: LabelSelector,
    },
    /// No backend with the architecture and the labels is large enough.
    TooLarge {
        /// The architecture.
        arch: Arch,
        /// What is asked for.
        asked: JobResources,
    },
    /// Backends match, and none of them is fit for work: they fail or are drained.
    Closed {
        /// How many match.
        matching: usize,
        /// Why the first of them gets no jobs.
        why: Closed,
    },
    /// Backends match, and all of those that are fit for work are busy: they run as many jobs as they may, or have too
    /// little left.
    AllBusy {
        /// How many match.
        matching: usize,
    },
}

impl Refusal {
    /// The reason in a word, as it is told on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoArch { .. } | Self::NoLabels { .. } | Self::TooLarge { .. } => "no_backend",
            Self::Closed { why: Closed::Draining, .. } => "draining",
            Self::Closed { .. } => "unhealthy",
            Self::AllBusy { .. } => "capacity",
        }
    }

    /// Whether only another set of backends can help, not time.
    pub fn needs_other_backends(&self) -> bool {
        matches!(self, Self::NoArch { .. } | Self::NoLabels { .. } | Self::TooLarge { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArch { arch, known } if known.is_empty() => {
                write!(f, "no {arch} backend, and no other backend either")
            }
            Self::NoArch { arch, known } => {
                let known: Vec<&str> = known.iter().map(|arch| arch.apk_name()).collect();
                write!(f, "no {arch} backend (there are {})", known.join(", "))
            }
            Self::NoLabels { arch, labels } => write!(f, "no {arch} backend with {labels}"),
            Self::TooLarge { arch, asked } => write!(f, "no {arch} backend has {asked}"),
            Self::Closed { matching: 1, why: Closed::Failing { message } } => {
                write!(f, "the only matching backend does not work: {message}")
            }
            Self::Closed { matching, why: Closed::Failing { message } } => {
                write!(f, "none of the {matching} matching backends works: {message}")
            }
            Self::Closed { matching: 1, why: Closed::Draining } => {
                write!(f, "the only matching backend is drained")
            }
            Self::Closed { matching, why: Closed::Draining } => {
                write!(f, "none of the {matching} matching backends takes jobs: they are drained or fail")
            }
            Self::Closed { .. } => write!(f, "a job shows whether the matching backend works again"),
            Self::AllBusy { matching: 1 } => write!(f, "the only matching backend is busy"),
            Self::AllBusy { matching } => write!(f, "all {matching} matching backends are busy"),
        }
    }
}

/// Chooses a backend for a job.
///
/// # Contract
/// * Pure: the answer depends on the arguments alone; no clock, no memory, no IO.
/// * The choice is the index of a candidate that matches the requirements, has a free slot, and has what is asked for
///   left: [`Requirements::fit`].
/// * A refusal tells the strongest reason: architecture before labels before size before health before capacity.
/// * Fair: with equal candidates, whose `last_chosen` the caller keeps, no one gets two choices more than another, as
///   long as jobs ask for nothing.
/// * Neither the order of labels nor that of candidates changes which backends may be chosen.
pub trait BackendSelector: Send + Sync + fmt::Debug {
    /// The index of the chosen candidate, or why there is none.
    ///
    /// # Errors
    /// [`Refusal`], which also tells whether waiting can help.
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal>;
}

hand_on!(BackendSelector; {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal>;
});

/// The strongest reason why none of the candidates, of which `matching` match, can take the job.
fn refusal(requirements: &Requirements, candidates: &[Candidate], matching: usize) -> Refusal {
    let arch = requirements.arch;
    if matching > 0 {
        let mut fit = candidates.iter().filter(|candidate| requirements.matched_by(&candidate.backend));
        let closed = fit.clone().find_map(|candidate| candidate.closed.clone());
        return match closed {
            Some(why) if fit.all(|candidate| candidate.closed.is_some()) => Refusal::Closed { matching, why },
            _ => Refusal::AllBusy { matching },
        };
    }
    if candidates.iter().any(|candidate| requirements.are_named_by(&candidate.backend)) {
        return Refusal::TooLarge { arch, asked: requirements.resources };
    }
    if candidates.iter().any(|candidate| candidate.backend.arch() == arch) {
        return Refusal::NoLabels { arch, labels: requirements.labels.clone() };
    }
    let known = candidates.iter().map(|candidate| candidate.backend.arch()).collect();
    Refusal::NoArch { arch, known }
}
