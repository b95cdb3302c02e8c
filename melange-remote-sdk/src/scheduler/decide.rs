//! Station 4, the policy: what waits and the backends in, offers and reasons out. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::weights::{ProjectWeights, Share};
use crate::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use crate::job::{BackendPlace, JobBackend, JobId, Project};
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
/// has the fewest jobs running for its weight, of these to the one with the oldest job, and in a project to the job with
/// the greatest rank. `candidates` is the decision's own copy: each slot that is given takes one of it.
///
/// No project gets ahead of one that waits beside it by more than one of its own slots: with `r` running jobs and the
/// weight `w`, `(r - 1) / w` never exceeds the other's `r / w` once it got a slot. So projects that begin together each
/// get a slot among as many as all their weights together.
///
/// What does not fit now is passed by, so that smaller jobs fill what is left. For the first group that is passed by, one
/// backend that is large enough takes no others until it has room: small jobs never starve a large one.
pub fn place(
    selector: &dyn BackendSelector,
    weights: &ProjectWeights,
    demand: &[Demand],
    candidates: &mut [Candidate],
) -> Placement {
    let mut round = Round::new(weights, demand, candidates);
    while round.given < limits::CLAIMS_PER_ROUND_MAX
        && let Some((at, place)) = round.next()
    {
        let group = &demand[place].group;
        let index = match choose(selector, group, round.candidates) {
            Ok(index) => index,
            Err(refusal) => {
                round.keep_room(&group.needs, &refusal);
                round.placement.refusals.push((group.clone(), refusal));
                round.wanting.swap_remove(at);
                continue;
            }
        };
        if !round.candidates.get(index).is_some_and(|candidate| group.needs.fit(candidate)) {
            // Selectors are other people's code; a wrong choice must not reach a backend.
            tracing::error!(needs = ?group.needs, index, "the selector chose what it must not choose");
            round.wanting.swap_remove(at);
            continue;
        }
        round.give(at, index);
    }
    round.placement
}

/// A decision while it is made.
struct Round<'a> {
    demand: &'a [Demand],
    candidates: &'a mut [Candidate],
    placement: Placement,
    /// Where the slots of a group on a backend stand among the offers.
    known: BTreeMap<(usize, usize), usize>,
    shares: BTreeMap<&'a Project, Share>,
    /// The oldest first job of each project.
    oldest: BTreeMap<&'a Project, JobId>,
    /// Groups that want slots, with how many.
    wanting: Vec<(usize, usize)>,
    turn: u64,
    given: usize,
    /// Whether a backend is kept for a job that does not fit yet.
    keeps_room: bool,
}

impl<'a> Round<'a> {
    fn new(weights: &ProjectWeights, demand: &'a [Demand], candidates: &'a mut [Candidate]) -> Self {
        let turn = candidates.iter().map(|candidate| candidate.last_chosen).max().unwrap_or(0);
        let (mut shares, mut oldest) = (BTreeMap::new(), BTreeMap::new());
        let mut wanting = Vec::new();
        for (index, demand) in demand.iter().enumerate().filter(|(_, demand)| demand.ready > 0) {
            wanting.push((index, demand.ready));
            let project = &demand.group.project;
            shares.insert(project, Share::new(demand.running, weights.of(project)));
            let first = oldest.entry(project).or_insert(demand.first);
            *first = demand.first.min(*first);
        }
        let (placement, known) = (Placement::default(), BTreeMap::new());
        Self {
            demand,
            candidates,
            placement,
            known,
            shares,
            oldest,
            wanting,
            turn,
            given: 0,
            keeps_room: false,
        }
    }

    /// Who is next: its place among those that want slots, and its group's.
    fn next(&self) -> Option<(usize, usize)> {
        let key = |(index, _): &(usize, usize)| {
            let demand = &self.demand[*index];
            let project = &demand.group.project;
            let project = (self.shares.get(project).copied(), self.oldest.get(project).copied());
            (Reverse(demand.priority), project, Reverse(demand.rank), demand.first)
        };
        let next = self.wanting.iter().enumerate().min_by_key(|(_, wanting)| key(wanting));
        next.map(|(at, (place, _))| (at, *place))
    }

    /// Gives a slot of a candidate to who wants it.
    fn give(&mut self, at: usize, index: usize) {
        let (place, ready) = self.wanting[at];
        let (group, candidate) = (&self.demand[place].group, &mut self.candidates[index]);
        self.turn += 1;
        candidate.running += 1;
        candidate.used = candidate.used.plus(group.needs.resources);
        candidate.last_chosen = self.turn;
        let offer = *self.known.entry((place, index)).or_insert_with(|| {
            self.placement.offers.push(offer(group, candidate));
            self.placement.offers.len() - 1
        });
        self.placement.offers[offer].slots += 1;
        self.given += 1;
        if let Some(share) = self.shares.get_mut(&group.project) {
            share.grow();
        }
        match ready {
            1 => _ = self.wanting.swap_remove(at),
            _ => self.wanting[at].1 = ready - 1,
        }
    }

    /// Keeps the emptiest of the backends that lack only room for what is refused: to the others of this round it is busy.
    fn keep_room(&mut self, needs: &Requirements, refusal: &Refusal) {
        if self.keeps_room || !matches!(refusal, Refusal::AllBusy { .. }) {
            return;
        }
        let lacks_room = |candidate: &&mut Candidate| {
            candidate.has_free_slot() && needs.matched_by(&candidate.backend) && !needs.fit(candidate)
        };
        let share = |candidate: &&mut Candidate| candidate.backend.capacity().share_used(candidate.used);
        if let Some(kept) = self.candidates.iter_mut().filter(lacks_room).min_by_key(share) {
            kept.running = kept.backend.max_jobs();
            self.keeps_room = true;
        }
    }
}

/// An offer without slots so far.
fn offer(group: &Group, candidate: &Candidate) -> Offer {
    let backend = &candidate.backend;
    let max_jobs = backend.max_jobs();
    let BackendPlace { addr, machine } = backend.place();
    let backend = JobBackend { addr, arch: backend.arch(), labels: backend.labels().clone(), machine };
    let capacity = candidate.backend.capacity();
    Offer { capacity, ..Offer::new(group.clone(), backend, 0, max_jobs) }
}

/// A backend for a job of the group: of those that it need not avoid when there is one that works, even when it is
/// busy.
fn choose(selector: &dyn BackendSelector, group: &Group, candidates: &[Candidate]) -> Result<usize, Refusal> {
    let needs: &Requirements = &group.needs;
    if group.avoid.is_empty() {
        return selector.select(needs, candidates);
    }
    let others: Vec<usize> = (0..candidates.len())
        .filter(|index| !group.avoid.contains(&candidates[*index].backend.place().key()))
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
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::arch::Arch;
    use crate::backend::Backend;
    use crate::backend_selector::round_robin::RoundRobin;
    use crate::conformance::backend_selector::{candidate, requirements};
    use crate::job::{BackendCapacity, JobId, JobResources, Priority};
    use crate::labels::Labels;

    fn demand(arch: Arch, labels: &[(&str, &str)], ready: usize) -> Demand {
        let group = Group::new(Project::default(), requirements(arch, labels));
        let (first, priority) = (JobId::new(Timestamp::UNIX_EPOCH), Priority::default());
        Demand::new(group, ready, first, priority, 0)
    }

    fn sized(resources: JobResources, ready: usize, rank: i64) -> Demand {
        let mut demand = demand(Arch::X86_64, &[], ready);
        (demand.group.needs.resources, demand.rank) = (resources, rank);
        demand
    }

    /// A backend with sixteen slots, so many cores, of which some are used.
    fn with_cores(name: &str, cores: u64, used: u64) -> Candidate {
        let backend = Backend::new(format!("tcp://{name}:1"), Arch::X86_64, Labels::default()).unwrap();
        let capacity = BackendCapacity::new(Some(cores * 1_000), None);
        let backend = backend.with_max_jobs(16).unwrap().with_capacity(capacity);
        let mut candidate = Candidate::new(Arc::new(backend));
        candidate.used = JobResources::new(used * 1_000, 0);
        candidate
    }

    #[test]
    fn in_a_project_the_greatest_rank_goes_first_whatever_its_size() {
        let one_slot = || [candidate("a", Arch::X86_64, &[], 3)];
        let sizes = [JobResources::new(1_000, 0), JobResources::new(2_000, 0), JobResources::NONE];
        let jobs: Vec<Demand> =
            sizes.iter().zip([5, 9, 7]).map(|(size, rank)| sized(*size, 1, rank)).collect();
        let offers = place(&RoundRobin, &ProjectWeights::default(), &jobs, &mut one_slot()).offers;
        assert_eq!(offers[0].group.needs.resources, sizes[1]);
        let mut other = sized(JobResources::NONE, 1, 1_000);
        other.group.project = "other".parse().unwrap();
        other.first = JobId::new(Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(9));
        let jobs = [jobs[0].clone(), other];
        let offers = place(&RoundRobin, &ProjectWeights::default(), &jobs, &mut one_slot()).offers;
        assert_eq!(offers[0].group.project, Project::default(), "ranks of other projects say nothing");
    }

    #[test]
    fn no_more_is_given_than_there_is_and_gaps_are_filled() {
        let cores = |cores: u64| JobResources::new(cores * 1_000, 0);
        let jobs = [sized(cores(3), 9, 9), sized(cores(1), 9, 1)];
        let mut set = [with_cores("a", 8, 0)];
        assert_eq!(
            told(&jobs, &mut set),
            ["2 for tcp://a:1", "the only matching backend is busy", "the only matching backend is busy"],
            "what is left is kept for the third one"
        );
        let mut set = [with_cores("a", 8, 0), with_cores("b", 2, 0)];
        let placed = told(&jobs, &mut set);
        assert_eq!(&placed[..2], ["2 for tcp://a:1", "2 for tcp://b:1"], "{placed:?}");
        let huge = [sized(cores(9), 1, 1)];
        assert_eq!(told(&huge, &mut set), ["no x86_64 backend has 9 cores"]);
    }

    /// Small jobs come for ever; the large one gets its backend once what runs there has ended.
    #[test]
    fn small_jobs_never_starve_a_large_one() {
        let cores = |cores: u64| JobResources::new(cores * 1_000, 0);
        let jobs = [sized(cores(8), 1, 9), sized(cores(1), 99, 1)];
        let placed = |used: [u64; 2]| {
            let mut set = [with_cores("a", 8, used[0]), with_cores("b", 8, used[1])];
            let offers = place(&RoundRobin, &ProjectWeights::default(), &jobs, &mut set).offers;
            let told = |offer: &Offer| (offer.backend.addr.clone(), offer.group.needs.resources, offer.slots);
            offers.iter().map(told).collect::<Vec<_>>()
        };
        let (a, b) = ("tcp://a:1".to_owned(), "tcp://b:1".to_owned());
        assert_eq!(placed([5, 3]), [(a.clone(), cores(1), 3)], "the emptier one is kept");
        assert_eq!(placed([7, 1]), [(a.clone(), cores(1), 1)], "until it is empty");
        assert_eq!(placed([7, 0]), [(b, cores(8), 1), (a, cores(1), 1)]);
    }

    fn avoiding(mut demand: Demand, addrs: &[&str]) -> Demand {
        demand.group.avoid = addrs.iter().map(|addr| (*addr).to_owned()).collect();
        demand
    }

    fn told(demand: &[Demand], candidates: &mut [Candidate]) -> Vec<String> {
        let placement = place(&RoundRobin, &ProjectWeights::default(), demand, candidates);
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
            let offers = place(&RoundRobin, &ProjectWeights::default(), demand, &mut four()).offers;
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

    /// Projects that have weights and running jobs and want ever more slots, with the slots of one backend.
    struct Projects {
        weights: ProjectWeights,
        demand: Vec<Demand>,
        backend: Arc<Backend>,
    }

    impl Projects {
        /// Each with its weight, `None` for one that nobody gave one, and its running jobs.
        fn new(projects: &[(Option<u32>, usize)]) -> Self {
            let name = |number: usize| format!("p{number}").parse::<Project>().unwrap();
            let weight = |(number, (weight, _)): (usize, &(Option<u32>, usize))| {
                Some((name(number), NonZeroU32::new((*weight)?).unwrap()))
            };
            let weights = projects.iter().enumerate().filter_map(weight).collect();
            let waiting = |(number, (_, running)): (usize, &(Option<u32>, usize))| {
                let mut demand = demand(Arch::X86_64, &[], 1_000);
                (demand.group.project, demand.running) = (name(number), *running);
                demand
            };
            let demand = projects.iter().enumerate().map(waiting).collect();
            let max_jobs = limits::JOBS_PER_BACKEND_MAX;
            let backend = Backend::new("tcp://a:1", Arch::X86_64, Labels::default()).unwrap();
            Self { weights, demand, backend: Arc::new(backend.with_max_jobs(max_jobs).unwrap()) }
        }

        /// The running jobs of each project once so many free slots are handed out.
        fn after(&self, slots: usize) -> Vec<usize> {
            let mut backend = Candidate::new(Arc::clone(&self.backend));
            backend.running = self.backend.max_jobs() - u32::try_from(slots).unwrap();
            let offers = place(&RoundRobin, &self.weights, &self.demand, &mut [backend]).offers;
            let given = |project: &Project| {
                let own = offers.iter().filter(|offer| offer.group.project == *project);
                own.map(|offer| offer.slots).sum::<usize>()
            };
            self.demand.iter().map(|demand| demand.running + given(&demand.group.project)).collect()
        }

        fn weight(&self, index: usize) -> usize {
            usize::try_from(self.weights.of(&self.demand[index].group.project).get()).unwrap()
        }
    }

    #[test]
    fn slots_are_shared_by_weight() {
        let weighted = Projects::new(&[(Some(3), 0), (None, 0)]);
        assert_eq!(weighted.after(8), [6, 2]);
        assert_eq!(weighted.after(2), [1, 1], "both have one before anybody has two");
        let behind = Projects::new(&[(Some(3), 0), (Some(1), 4)]);
        assert_eq!(behind.after(8), [8, 4], "who has more than its share waits");
        assert_eq!(Projects::new(&[(Some(1_000), 0), (Some(1_000), 0)]).after(8), [4, 4]);
    }

    proptest! {
        /// No one is ahead of another by more than one of its own slots, and whole rounds give each its weight.
        #[test]
        fn shares_converge_to_the_weights_within_one_slot(
            weights in proptest::collection::vec(1u32..9, 1..6), slots in 1usize..120,
        ) {
            let given: Vec<_> = weights.iter().map(|weight| (Some(*weight), 0)).collect();
            let projects = Projects::new(&given);
            let (whole, running) = (weights.iter().sum::<u32>() as usize, projects.after(slots));
            for one in 0..running.len() {
                let weight = projects.weight(one);
                for other in 0..running.len() {
                    let ahead = running[one].saturating_sub(1) * projects.weight(other);
                    prop_assert!(ahead <= running[other] * weight, "{running:?} of {weights:?}");
                }
                prop_assert!(running[one] * whole <= slots * weight + whole, "no more than its share and one");
            }
            let rounds = slots.div_ceil(whole);
            let expected: Vec<usize> = weights.iter().map(|weight| rounds * *weight as usize).collect();
            prop_assert_eq!(projects.after(rounds * whole), expected);
        }

        /// Among any slots in a row, as many as all weights together, each waiting project gets one; one that has
        /// nothing running gets one among the first, as many as there are projects, whatever the others have.
        #[test]
        fn no_project_starves(
            weights in proptest::collection::vec(1u32..7, 1..6), from in 0usize..60, busy in 1usize..50,
        ) {
            let given: Vec<_> = weights.iter().map(|weight| (Some(*weight), 0)).collect();
            let (projects, whole) = (Projects::new(&given), weights.iter().sum::<u32>() as usize);
            let (before, after) = (projects.after(from), projects.after(from + whole));
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
            let some_busy: Vec<_> =
                given.iter().enumerate().map(|(n, (weight, _))| (*weight, if n % 2 == 0 { 0 } else { busy })).collect();
            let first = Projects::new(&some_busy).after(given.len());
            prop_assert!(first.iter().all(|running| *running > 0), "{first:?}");
        }

        /// Without weights, and with equal ones, slots go to the project with the fewest running jobs.
        #[test]
        fn equal_weights_change_nothing(
            running in proptest::collection::vec(0usize..20, 1..6), weight in 1u32..1_000, slots in 0usize..60,
        ) {
            let all = |weight| running.iter().map(|running| (weight, *running)).collect::<Vec<_>>();
            let mut expected = running.clone();
            for _ in 0..slots {
                *expected.iter_mut().min().unwrap() += 1;
            }
            let plain = Projects::new(&all(None)).after(slots);
            prop_assert_eq!(&Projects::new(&all(Some(weight))).after(slots), &plain);
            let sorted = |mut counts: Vec<usize>| { counts.sort_unstable(); counts };
            prop_assert_eq!(sorted(plain), sorted(expected));
        }
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
                let weights = ProjectWeights::default();
                assert_eq!(place(&Broken(choice), &weights, &jobs, &mut set).offers, []);
            }
        }
    }
}
