//! Least loaded: of the matching backends with a free slot, the one with the smallest share of its slots in use.

use std::cmp::Ordering;

use super::{BackendSelector, Candidate, Refusal, Requirements, refusal};

/// Evens out how full backends of different sizes are, where [`RoundRobin`](super::round_robin::RoundRobin) gives each
/// the same number of jobs. Equally full ones take turns; of those that never had one, the one with the least address
/// goes first.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoaded;

impl BackendSelector for LeastLoaded {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let matching = || {
            let all = candidates.iter().enumerate();
            all.filter(|(_, candidate)| requirements.matched_by(&candidate.backend))
        };
        let free = matching().filter(|(_, candidate)| requirements.fit(candidate));
        let best = free.min_by(|(_, one), (_, other)| order(one, other));
        best.map(|(index, _)| index).ok_or_else(|| refusal(requirements, candidates, matching().count()))
    }
}

/// Who goes first: the smaller share of slots in use, then the older turn, then the lesser address.
fn order(one: &Candidate, other: &Candidate) -> Ordering {
    let turn = || one.last_chosen.cmp(&other.last_chosen);
    let addr = || one.backend.addr().cmp(other.backend.addr());
    share(one, other).then_with(turn).then_with(addr)
}

/// Compares `running / max_jobs` by cross-multiplication: exact, and 64 bits hold any product of two 32-bit numbers.
fn share(one: &Candidate, other: &Candidate) -> Ordering {
    let scaled = |candidate: &Candidate, by: &Candidate| {
        u64::from(candidate.running) * u64::from(by.backend.max_jobs())
    };
    scaled(one, other).cmp(&scaled(other, one))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::arch::Arch;
    use crate::backend::{Backend, Closed};
    use crate::labels::{LabelSelector, Labels};

    fn candidate(number: usize, max_jobs: u32, running: u32) -> Candidate {
        let backend = Backend::new(format!("tcp://b{number:02}:1"), Arch::X86_64, Labels::default()).unwrap();
        let mut candidate = Candidate::new(Arc::new(backend.with_max_jobs(max_jobs).unwrap()));
        candidate.running = running;
        candidate
    }

    fn needs() -> Requirements {
        Requirements::new(Arch::X86_64, LabelSelector::default())
    }

    #[test]
    fn keeps_the_contract() {
        crate::conformance::backend_selector::all(&LeastLoaded);
    }

    #[test]
    fn the_smallest_share_goes_first_then_the_oldest_turn_then_the_address() {
        let chosen = |set: &[Candidate]| LeastLoaded.select(&needs(), set).unwrap();
        let shares = [candidate(0, 4, 2), candidate(1, 100, 34), candidate(2, 3, 1)];
        assert_eq!(chosen(&shares), 2, "a third is less than 34 of a hundred");
        let mut equal = [candidate(2, 8, 4), candidate(1, 4, 2), candidate(0, 2, 1)];
        assert_eq!(chosen(&equal), 2, "the least address");
        (equal[0].last_chosen, equal[1].last_chosen, equal[2].last_chosen) = (5, 3, 4);
        assert_eq!(chosen(&equal), 1, "the oldest turn");
        equal[1].closed = Some(Closed::Draining);
        assert_eq!(chosen(&equal), 2, "a drained one gets nothing");
    }

    #[test]
    fn shares_that_floats_would_confuse_are_told_apart() {
        let most = crate::limits::JOBS_PER_BACKEND_MAX;
        let set = [candidate(0, most, most - 1), candidate(1, most - 1, most - 2)];
        assert_eq!(LeastLoaded.select(&needs(), &set), Ok(1));
        let over = [candidate(0, 1, u32::MAX), candidate(1, most, u32::MAX)];
        assert!(LeastLoaded.select(&needs(), &over).is_err(), "more jobs than slots overflow nothing");
    }

    proptest! {
        #[test]
        fn no_free_backend_is_less_full_than_the_chosen_one(
            set in proptest::collection::vec((1u32..20, 0u32..20), 1..8),
        ) {
            let set: Vec<Candidate> = set.iter().enumerate().map(|(n, (m, r))| candidate(n, *m, *r)).collect();
            match LeastLoaded.select(&needs(), &set) {
                Ok(index) => {
                    prop_assert!(set[index].has_free_slot());
                    let free = set.iter().filter(|candidate| candidate.has_free_slot());
                    for other in free {
                        prop_assert_ne!(share(other, &set[index]), Ordering::Less);
                    }
                }
                Err(refusal) => {
                    prop_assert!(set.iter().all(|candidate| !candidate.has_free_slot()));
                    prop_assert_eq!(refusal, Refusal::AllBusy { matching: set.len() });
                }
            }
        }

        /// Backends of any sizes fill up together: none is ahead of another by more than one of its own slots.
        #[test]
        fn backends_fill_up_together(sizes in proptest::collection::vec(1u32..12, 1..6)) {
            let mut set: Vec<Candidate> = sizes.iter().enumerate().map(|(n, m)| candidate(n, *m, 0)).collect();
            for turn in 1..=sizes.iter().sum::<u32>() {
                let index = LeastLoaded.select(&needs(), &set).unwrap();
                set[index].running += 1;
                set[index].last_chosen = u64::from(turn);
                for one in &set {
                    for other in &set {
                        let before = u64::from(one.running.saturating_sub(1));
                        let (mine, theirs) = (u64::from(one.backend.max_jobs()), u64::from(other.backend.max_jobs()));
                        prop_assert!(before * theirs <= u64::from(other.running) * mine);
                    }
                }
            }
            prop_assert!(LeastLoaded.select(&needs(), &set).is_err(), "all slots are in use");
        }
    }
}
