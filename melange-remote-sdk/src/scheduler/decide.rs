//! Station 4, the policy: what waits and the backends in, offers and reasons out. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use crate::job::{JobBackend, Project};
use crate::job_store::{Demand, Group, Offer};
use crate::limits;

/// What shall happen to the jobs that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Slots for groups, each backend and group once.
    pub offers: Vec<Offer>,
    /// Why the other jobs of a group wait.
    pub refusals: Vec<(Group, Refusal)>,
}

/// Gives free slots to groups, one at a time: to those with the most urgent jobs first, of these to the project that
/// has the fewest jobs running, of these to the oldest job. `candidates` is the decision's own copy: each slot that is
/// given takes one of it.
pub fn place(selector: &dyn BackendSelector, demand: &[Demand], candidates: &mut [Candidate]) -> Placement {
    let mut turn = candidates.iter().map(|candidate| candidate.last_chosen).max().unwrap_or(0);
    let mut placement = Placement::default();
    // Where the slots of a group on a backend stand among the offers.
    let mut known: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut running: BTreeMap<&Project, usize> = BTreeMap::new();
    let mut wanting: Vec<(usize, usize)> = Vec::new();
    for (index, demand) in demand.iter().enumerate().filter(|(_, demand)| demand.ready > 0) {
        wanting.push((index, demand.ready));
        running.insert(&demand.group.project, demand.running);
    }
    let mut given = 0;
    while given < limits::CLAIMS_PER_ROUND_MAX {
        let key = |(index, _): &(usize, usize)| {
            let demand = &demand[*index];
            (Reverse(demand.priority), running.get(&demand.group.project).copied(), demand.first)
        };
        let next = wanting.iter().enumerate().min_by_key(|(_, wanting)| key(wanting));
        let Some((at, &(place, ready))) = next else { break };
        let group = &demand[place].group;
        let index = match choose(selector, group, candidates) {
            Ok(index) => index,
            Err(refusal) => {
                placement.refusals.push((group.clone(), refusal));
                wanting.swap_remove(at);
                continue;
            }
        };
        let usable = |c: &Candidate| group.needs.matched_by(&c.backend) && c.has_free_slot();
        let Some(candidate) = candidates.get_mut(index).filter(|c| usable(c)) else {
            // Selectors are other people's code; a wrong choice must not reach a backend.
            tracing::error!(needs = ?group.needs, index, "the selector chose what it must not choose");
            wanting.swap_remove(at);
            continue;
        };
        turn += 1;
        candidate.running += 1;
        candidate.last_chosen = turn;
        let offer = *known.entry((place, index)).or_insert_with(|| {
            placement.offers.push(offer(group, candidate));
            placement.offers.len() - 1
        });
        placement.offers[offer].slots += 1;
        given += 1;
        *running.entry(&group.project).or_default() += 1;
        match ready {
            1 => _ = wanting.swap_remove(at),
            _ => wanting[at].1 = ready - 1,
        }
    }
    placement
}

/// An offer without slots so far.
fn offer(group: &Group, candidate: &Candidate) -> Offer {
    let backend = &candidate.backend;
    let (addr, labels) = (backend.addr().to_owned(), backend.labels().clone());
    let max_jobs = backend.max_jobs();
    let backend = JobBackend { addr, arch: backend.arch(), labels };
    Offer { group: group.clone(), backend, slots: 0, max_jobs }
}

/// A backend for a job of the group: of those that it need not avoid when there is one that works, even when it is
/// busy.
fn choose(selector: &dyn BackendSelector, group: &Group, candidates: &[Candidate]) -> Result<usize, Refusal> {
    let needs: &Requirements = &group.needs;
    if group.avoid.is_empty() {
        return selector.select(needs, candidates);
    }
    let others: Vec<usize> = (0..candidates.len())
        .filter(|index| !group.avoid.iter().any(|addr| addr == candidates[*index].backend.addr()))
        .collect();
    let kept: Vec<Candidate> = others.iter().map(|index| candidates[*index].clone()).collect();
    match selector.select(needs, &kept) {
        Ok(index) => others.get(index).copied().ok_or(Refusal::AllBusy { matching: 0 }),
        Err(refusal @ Refusal::AllBusy { .. }) => Err(refusal),
        Err(_) => selector.select(needs, candidates),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::arch::Arch;
    use crate::backend_selector::round_robin::RoundRobin;
    use crate::conformance::backend_selector::{candidate, requirements};
    use crate::job::{JobId, Priority};

    fn demand(arch: Arch, labels: &[(&str, &str)], ready: usize) -> Demand {
        let group = Group::new(Project::default(), requirements(arch, labels));
        let (first, priority) = (JobId::new(Timestamp::UNIX_EPOCH), Priority::default());
        Demand { group, ready, first, priority, running: 0 }
    }

    fn avoiding(mut demand: Demand, addrs: &[&str]) -> Demand {
        demand.group.avoid = addrs.iter().map(|addr| (*addr).to_owned()).collect();
        demand
    }

    fn told(demand: &[Demand], candidates: &mut [Candidate]) -> Vec<String> {
        let placement = place(&RoundRobin, demand, candidates);
        let offers =
            placement.offers.iter().map(|offer| format!("{} for {}", offer.slots, offer.backend.addr));
        let refusals = placement.refusals.iter().map(|(_, refusal)| refusal.to_string());
        offers.chain(refusals).collect()
    }

    #[test]
    fn slots_are_handed_out_in_turn_and_never_twice() {
        let mut set = [candidate("a", Arch::X86_64, &[], 2), candidate("b", Arch::X86_64, &[], 3)];
        let demand = [
            demand(Arch::X86_64, &[], 4),
            demand(Arch::Aarch64, &[], 1),
            demand(Arch::X86_64, &[("tier", "high")], 1),
        ];
        assert_eq!(
            told(&demand, &mut set),
            [
                "2 for tcp://a:1",
                "1 for tcp://b:1",
                "all 2 matching backends are busy",
                "no aarch64 backend (there are x86_64)",
                "no x86_64 backend with tier=high",
            ]
        );
    }

    #[test]
    fn the_most_urgent_go_first_then_projects_take_turns() {
        let four = || [candidate("a", Arch::X86_64, &[], 0)];
        let mut two = [demand(Arch::X86_64, &[], 100), demand(Arch::X86_64, &[], 100)];
        two[1].group.project = "other".parse().unwrap();
        let shares = |demand: &[Demand]| {
            let offers = place(&RoundRobin, demand, &mut four()).offers;
            let share =
                |project: &str| offers.iter().find(|o| o.group.project.as_str() == project).map(|o| o.slots);
            (share("default"), share("other"))
        };
        assert_eq!(shares(&two), (Some(2), Some(2)));
        two[0].running = 2;
        assert_eq!(shares(&two), (Some(1), Some(3)));
        two[0].running = 1_000;
        assert_eq!(shares(&two), (None, Some(4)), "ten thousand jobs do not hold one up");
        two[0].priority = Priority::MAX;
        assert_eq!(shares(&two), (Some(4), None), "what is urgent goes first");
    }

    #[test]
    fn backends_to_avoid_are_taken_when_no_other_works() {
        let set = || [candidate("a", Arch::X86_64, &[], 3), candidate("b", Arch::X86_64, &[], 0)];
        let two = |avoid: &[&str]| [avoiding(demand(Arch::X86_64, &[], 2), avoid)];
        assert_eq!(told(&two(&["tcp://a:1"]), &mut set()), ["2 for tcp://b:1"]);
        assert_eq!(
            told(&two(&["tcp://b:1"]), &mut set()),
            ["1 for tcp://a:1", "the only matching backend is busy"]
        );
        let both = two(&["tcp://a:1", "tcp://b:1"]);
        assert_eq!(told(&both, &mut set()).len(), 2, "both take one");
        let mut alone = [candidate("a", Arch::X86_64, &[], 0)];
        assert_eq!(told(&two(&["tcp://a:1"]), &mut alone), ["2 for tcp://a:1"]);
    }

    /// Chooses what is not there.
    #[derive(Debug)]
    struct Broken(usize);

    impl BackendSelector for Broken {
        fn select(&self, _needs: &Requirements, _candidates: &[Candidate]) -> Result<usize, Refusal> {
            Ok(self.0)
        }
    }

    #[test]
    fn a_wrong_choice_starts_nothing() {
        let mut set = [candidate("a", Arch::X86_64, &[], 4), candidate("b", Arch::Aarch64, &[], 0)];
        for choice in [0, 1, 2] {
            for avoid in [&[][..], &["tcp://x:1"]] {
                let jobs = [avoiding(demand(Arch::X86_64, &[], 1), avoid)];
                assert_eq!(place(&Broken(choice), &jobs, &mut set).offers, []);
            }
        }
    }
}
