//! Round robin: of the matching backends with a free slot, the one whose last turn is longest ago.

use super::{BackendSelector, Candidate, Refusal, Requirements, refusal};

/// The selector of the service. With a stable set of free backends the turns of two of them never differ by
/// more than one; a backend that joins gets the next turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

impl BackendSelector for RoundRobin {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let mut best: Option<(u64, usize)> = None;
        let mut matching = 0;
        for (index, candidate) in candidates.iter().enumerate() {
            if !requirements.matched_by(&candidate.backend) {
                continue;
            }
            matching += 1;
            let longest_ago = best.is_none_or(|(turn, _)| candidate.last_chosen < turn);
            if requirements.fit(candidate) && longest_ago {
                best = Some((candidate.last_chosen, index));
            }
        }
        best.map(|(_, index)| index).ok_or_else(|| refusal(requirements, candidates, matching))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::arch::Arch;
    use crate::backend::{Backend, Closed};
    use crate::labels::{LabelSelector, Labels};

    const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    fn candidate(number: usize, arch: usize, tier: usize, running: u32) -> Candidate {
        let labels = Labels::from_pairs([("tier", tier.to_string()), ("disk", "ssd".to_owned())]).unwrap();
        let backend = Backend::new(format!("tcp://b{number}:1"), ARCHES[arch], labels).unwrap();
        Candidate { running, ..Candidate::new(Arc::new(backend)) }
    }

    fn needs(arch: usize, tier: usize) -> Requirements {
        let labels = LabelSelector::from_pairs([("tier", tier.to_string())]).unwrap();
        Requirements::new(ARCHES[arch], labels)
    }

    proptest! {
        #[test]
        fn a_choice_matches_and_is_free_and_a_refusal_is_true(
            set in proptest::collection::vec((0usize..2, 0usize..2, 0u32..6), 0..8),
            arch in 0usize..2,
            tier in 0usize..3,
        ) {
            let set: Vec<Candidate> =
                set.iter().enumerate().map(|(n, (a, t, r))| candidate(n, *a, *t, *r)).collect();
            let needs = needs(arch, tier);
            let matching = set.iter().filter(|c| needs.matched_by(&c.backend)).count();
            match RoundRobin.select(&needs, &set) {
                Ok(index) => {
                    prop_assert!(needs.matched_by(&set[index].backend));
                    prop_assert!(set[index].has_free_slot());
                }
                Err(Refusal::TooLarge { .. }) => prop_assert!(false, "nothing is asked for"),
                Err(Refusal::AllBusy { matching: told }) => {
                    prop_assert_eq!(told, matching);
                    prop_assert!(matching > 0);
                    prop_assert!(set.iter().all(|c| !needs.matched_by(&c.backend) || !c.has_free_slot()));
                }
                Err(Refusal::Closed { .. }) => prop_assert!(false, "none is closed"),
                Err(Refusal::NoLabels { .. }) => {
                    prop_assert!(matching == 0 && set.iter().any(|c| c.backend.arch() == ARCHES[arch]));
                }
                Err(Refusal::NoArch { .. }) => {
                    prop_assert!(set.iter().all(|c| c.backend.arch() != ARCHES[arch]));
                }
            }
        }

        #[test]
        fn turns_are_fair_and_stay_so_when_backends_come_and_go(
            before in 1usize..7, rounds in 1u64..60, removed in 0usize..7, joins in any::<bool>(),
        ) {
            let needs = Requirements::new(Arch::X86_64, LabelSelector::default());
            let mut set: Vec<Candidate> = (0..before).map(|n| candidate(n, 0, 0, 0)).collect();
            let mut turn = 0;
            let mut play = |set: &mut Vec<Candidate>, rounds: u64| {
                let mut counts = vec![0u64; set.len()];
                for _ in 0..rounds {
                    let index = RoundRobin.select(&needs, set).unwrap();
                    turn += 1;
                    set[index].last_chosen = turn;
                    counts[index] += 1;
                }
                counts.iter().max().unwrap() - counts.iter().min().unwrap()
            };
            prop_assert!(play(&mut set, rounds) <= 1);
            if set.len() > 1 {
                set.remove(removed % set.len());
            }
            if joins {
                set.push(candidate(99, 0, 0, 0));
            }
            prop_assert!(play(&mut set, rounds) <= 1);
        }
    }

    #[test]
    fn keeps_the_contract() {
        crate::conformance::backend_selector::all(&RoundRobin);
    }

    #[test]
    fn refusals_say_why() {
        let set = [candidate(0, 0, 0, 4), candidate(1, 0, 0, 4)];
        let told = |needs: &Requirements| RoundRobin.select(needs, &set).unwrap_err().to_string();
        assert_eq!(told(&needs(1, 0)), "no aarch64 backend (there are x86_64)");
        assert_eq!(told(&needs(0, 7)), "no x86_64 backend with tier=7");
        assert_eq!(told(&needs(0, 0)), "all 2 matching backends are busy");
        let mut set = set.clone();
        let mut close = |index: usize, why| {
            set[index].closed = Some(why);
            RoundRobin.select(&needs(0, 0), &set).unwrap_err().to_string()
        };
        assert_eq!(close(0, Closed::Draining), "all 2 matching backends are busy");
        let failing = Closed::Failing { message: "connection refused".to_owned() };
        assert_eq!(
            close(1, failing.clone()),
            "none of the 2 matching backends takes jobs: they are drained or fail"
        );
        assert_eq!(close(0, failing), "none of the 2 matching backends works: connection refused");
    }
}
