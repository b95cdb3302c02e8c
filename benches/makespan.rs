//! What an order of jobs is worth: the time that the build of a distribution takes on 16 to 240 slots, by a virtual clock.
//!
//! The graph is the plan of two thirds of a real distribution; the durations are drawn by lot. Jobs are handed in to the
//! store in memory, `scheduler::decide` places them, the store gives those of the greatest rank, and time passes to the next
//! end. Each time is told as a ratio to a lower bound: the largest, over `h` and `q`, of `h + work / slots + q`, where `work`
//! is that of all jobs before which a chain of at least `h` lies, and behind which one of at least `q`. Of small graphs even
//! the best order does not reach it: for those a closer bound is told too.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use melange_remote_sdk::apk::index::IndexPackage;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::{Backend, Candidate};
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::conformance::backend_selector::candidate;
use melange_remote_sdk::conformance::job_store::{START, new_job};
use melange_remote_sdk::dependencies::jiff::{SignedDuration, Timestamp};
use melange_remote_sdk::job::{ClaimToken, JobId, Outcome, Project, ServerId};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{ClaimRequest, Fence, JobIntake, JobQueue, NewJob, Submission};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};
use melange_remote_sdk::planner::{CutAim, Definition, Durations, PlanInput, PlanRequest, Rebuild, plan};
use melange_remote_sdk::scheduler::ProjectWeights;
use melange_remote_sdk::scheduler::decide::place;
use melange_remote_sdk::solver::RepositoryPackages;
use melange_remote_sdk::text::diagnostics::Source;

mod support;

use support::{distribution, rounds};

/// Draws of durations for each figure.
const SEEDS: usize = 20;

/// Durations: lognormal, in seconds, with a cap.
const MEDIAN_S: f64 = 181.0;
const SIGMA: f64 = 1.1;
const CAP_S: f64 = 7_200.0;

/// Steps in which the bound looks at `h` and `q`.
const BOUND_STEPS: usize = 300;

/// The closer bound is looked for where the first one is missed by this.
const BOUND_MISSED: f64 = 1.005;
/// Halvings on the way to it: it is found to a thousandth of the difference.
const BOUND_HALVINGS: u32 = 10;

/// Jobs that wait for jobs, each behind those that it waits for.
struct Graph {
    names: Vec<String>,
    waits_for: Vec<Vec<usize>>,
}

/// How ranks are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Level by level, each once the one before has ended.
    Levels,
    /// In the order of their levels and names.
    First,
    /// Those first for which most wait.
    Dependents,
    /// By the remaining path, durations known.
    True,
    /// By the remaining path, durations known within a factor.
    Noisy,
    /// By the remaining path, three of ten durations unknown.
    PartlyUnknown,
}

const POLICIES: [(Policy, &str); 6] = [
    (Policy::Levels, "levels with a barrier"),
    (Policy::First, "first ready first"),
    (Policy::Dependents, "most dependents"),
    (Policy::True, "remaining path, true"),
    (Policy::Noisy, "remaining path, noisy 0.5"),
    (Policy::PartlyUnknown, "remaining path, 30 % unknown"),
];

impl Graph {
    fn len(&self) -> usize {
        self.names.len()
    }

    /// The longest time before each job begins and behind its end.
    fn around(&self, durations: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut before, mut behind) = (vec![0.0f64; self.len()], vec![0.0f64; self.len()]);
        for job in 0..self.len() {
            for needed in &self.waits_for[job] {
                before[job] = before[job].max(before[*needed] + durations[*needed]);
            }
        }
        for job in (0..self.len()).rev() {
            for needed in &self.waits_for[job] {
                behind[*needed] = behind[*needed].max(behind[job] + durations[job]);
            }
        }
        (before, behind)
    }

    /// The jobs that wait for each, directly or not, as bits.
    fn waiting(&self) -> Vec<Vec<u64>> {
        let words = self.len().div_ceil(64);
        let mut waiting = vec![vec![0u64; words]; self.len()];
        for job in (0..self.len()).rev() {
            let own = waiting[job].clone();
            for needed in &self.waits_for[job] {
                waiting[*needed].iter_mut().zip(&own).for_each(|(all, own)| *all |= own);
                waiting[*needed][job / 64] |= 1 << (job % 64);
            }
        }
        waiting
    }

    fn dependents(&self) -> Vec<f64> {
        let ones = |words: &Vec<u64>| words.iter().map(|word| word.count_ones()).sum::<u32>();
        self.waiting().iter().map(|words| f64::from(ones(words))).collect()
    }

    /// The same the other way round in time, with the jobs in the opposite order.
    fn reversed(&self) -> Self {
        let mut waits_for = vec![Vec::new(); self.len()];
        for (job, needs) in self.waits_for.iter().enumerate() {
            for needed in needs {
                waits_for[self.len() - 1 - needed].push(self.len() - 1 - job);
            }
        }
        Self { names: self.names.iter().rev().cloned().collect(), waits_for }
    }

    /// The least time behind the end of each job, with so many slots for those that wait for it.
    fn tails(&self, durations: &[f64], slots: u32) -> Vec<f64> {
        let waiting = self.waiting();
        let mut tails = vec![0.0f64; self.len()];
        for job in (0..self.len()).rev() {
            let is_behind = |other: &usize| waiting[job][other / 64] >> (other % 64) & 1 == 1;
            let mut behind: Vec<usize> = (job + 1..self.len()).filter(is_behind).collect();
            behind.sort_by(|a, b| tails[*b].total_cmp(&tails[*a]));
            let mut work = 0.0;
            for other in behind {
                work += durations[other];
                let least = (work / f64::from(slots)).max(durations[other]) + tails[other];
                tails[job] = tails[job].max(least);
            }
        }
        tails
    }

    fn levels(&self) -> Vec<usize> {
        let mut levels = vec![0; self.len()];
        for job in 0..self.len() {
            levels[job] = self.waits_for[job].iter().map(|needed| levels[*needed] + 1).max().unwrap_or(0);
        }
        levels
    }

    /// The jobs of a part, with what they wait for within it.
    fn part(&self, rng: &mut Rng, share: f64) -> Self {
        let mut place_of = vec![None; self.len()];
        let mut part = Self { names: Vec::new(), waits_for: Vec::new() };
        for job in 0..self.len() {
            if rng.f64() < share {
                place_of[job] = Some(part.len());
                part.names.push(self.names[job].clone());
                part.waits_for
                    .push(self.waits_for[job].iter().filter_map(|needed| place_of[*needed]).collect());
            }
        }
        part
    }

    /// No order takes less time.
    fn bound(&self, durations: &[f64], slots: u32) -> f64 {
        let (before, behind) = self.around(durations);
        let longest =
            (0..self.len()).map(|job| before[job] + durations[job] + behind[job]).fold(0.0, f64::max);
        let steps = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let step = (sorted.len() / BOUND_STEPS).max(1);
            sorted.into_iter().step_by(step).collect::<Vec<f64>>()
        };
        let mut bound = longest;
        for least_before in steps(&before) {
            let mut jobs: Vec<usize> = (0..self.len()).filter(|job| before[*job] >= least_before).collect();
            jobs.sort_by(|a, b| behind[*b].total_cmp(&behind[*a]));
            let mut work = 0.0;
            for job in jobs {
                work += durations[job];
                bound = bound.max(least_before + work / f64::from(slots) + behind[job]);
            }
        }
        bound
    }
}

/// When each job can begin at the earliest, and what passes behind its end at least.
struct Windows<'a> {
    heads: Vec<f64>,
    tails: Vec<f64>,
    durations: &'a [f64],
    slots: u32,
}

impl<'a> Windows<'a> {
    fn new(graph: &Graph, durations: &'a [f64], slots: u32) -> Self {
        let backwards: Vec<f64> = durations.iter().rev().copied().collect();
        let heads = graph.reversed().tails(&backwards, slots).into_iter().rev().collect();
        Self { heads, tails: graph.tails(durations, slots), durations, slots }
    }

    /// Whether no order ends within `most`: in some span of time there is more to do than the slots can, of each job the
    /// least that lies in the span wherever the job is put (energetic reasoning).
    fn refute(&self, most: f64) -> bool {
        let jobs = 0..self.durations.len();
        let latest = |job: usize| most - self.tails[job] - self.durations[job];
        let earliest_end = |job: usize| self.heads[job] + self.durations[job];
        let sorted = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times.dedup();
            times
        };
        let begins = jobs.clone().flat_map(|job| [self.heads[job], latest(job), earliest_end(job)]);
        let ends = jobs.clone().flat_map(|job| [most - self.tails[job], earliest_end(job), latest(job)]);
        let (begins, ends) = (sorted(begins.collect()), sorted(ends.collect()));
        begins.iter().any(|begin| {
            ends.iter().filter(|end| *end > begin).any(|end| {
                let room = end - begin;
                let within = |job: usize| {
                    let pushed_early = (earliest_end(job) - begin).max(0.0);
                    let pushed_late = (end - latest(job)).max(0.0);
                    pushed_early.min(pushed_late).min(self.durations[job]).min(room)
                };
                jobs.clone().map(within).sum::<f64>() > f64::from(self.slots) * room + 1e-6
            })
        })
    }

    /// A lower bound between `from`, which is one, and `to`, which is not.
    fn bound(&self, from: f64, to: f64) -> f64 {
        let (mut least, mut most) = (from, to);
        for _ in 0..BOUND_HALVINGS {
            let middle = f64::midpoint(least, most);
            if self.refute(middle) {
                least = middle;
            } else {
                most = middle;
            }
        }
        least
    }
}

fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

fn drawn(rng: &mut Rng, count: usize) -> Vec<f64> {
    (0..count).map(|_| (MEDIAN_S * (SIGMA * normal(rng)).exp()).clamp(1.0, CAP_S)).collect()
}

/// The ranks of the jobs, greater ones first.
fn ranks(graph: &Graph, policy: Policy, durations: &[f64], rng: &mut Rng) -> Vec<i64> {
    let by_path = |durations: &[f64]| {
        let (_, behind) = graph.around(durations);
        behind.iter().zip(durations).map(|(behind, own)| behind + own).collect::<Vec<f64>>()
    };
    let ranks = match policy {
        Policy::Levels | Policy::First => vec![0.0; graph.len()],
        Policy::Dependents => graph.dependents(),
        Policy::True => by_path(durations),
        Policy::Noisy => {
            let noisy: Vec<f64> = durations.iter().map(|time| time * (0.5 * normal(rng)).exp()).collect();
            by_path(&noisy)
        }
        Policy::PartlyUnknown => {
            let known: BTreeMap<String, Duration> = graph
                .names
                .iter()
                .zip(durations)
                .filter(|_| rng.f64() >= 0.3)
                .map(|(name, time)| (name.clone(), Duration::from_secs_f64(*time)))
                .collect();
            let expected = Durations::new(known).expected(graph.names.iter().map(String::as_str));
            by_path(&expected.iter().map(Duration::as_secs_f64).collect::<Vec<f64>>())
        }
    };
    ranks.into_iter().map(|rank| (rank * 1_000.0) as i64).collect()
}

fn at(milliseconds: i64) -> Timestamp {
    START + SignedDuration::from_millis(milliseconds)
}

/// A farm by a virtual clock.
struct Farm {
    store: MemoryJobStore,
    server: ServerId,
    backend: Candidate,
    now_ms: i64,
    /// The ends of what runs.
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    running: Vec<Fence>,
}

impl Farm {
    fn new(slots: u32) -> Self {
        let mut backend = candidate("farm", Arch::X86_64, &[], 0);
        let one = Backend::new("tcp://farm:1", Arch::X86_64, Labels::default());
        let one = one.and_then(|backend| backend.with_max_jobs(slots)).expect("a legal backend");
        backend.backend = Arc::new(one);
        let (store, server) = (MemoryJobStore::default(), ServerId::unique());
        Self { store, server, backend, now_ms: 0, ends: BinaryHeap::new(), running: Vec::new() }
    }

    /// Begins what can begin; the jobs.
    async fn begin(&mut self, mut takes_ms: impl FnMut(JobId) -> i64) -> Vec<JobId> {
        let mut begun = Vec::new();
        loop {
            let now = at(self.now_ms);
            let demand = self.store.demand(now).await.expect("it tells");
            let mut candidates = [self.backend.clone()];
            let offers = place(&RoundRobin, &ProjectWeights::default(), &demand, &mut candidates).offers;
            if offers.is_empty() {
                return begun;
            }
            let until = at(self.now_ms + 86_400_000);
            let request = ClaimRequest::new(ClaimToken::new(), self.server.clone(), offers, now, until);
            for claim in self.store.claim(&request).await.expect("it gives") {
                self.backend.running += 1;
                self.ends.push(Reverse((self.now_ms + takes_ms(claim.job.id), self.running.len())));
                begun.push(claim.job.id);
                self.running.push(claim.fence);
            }
        }
    }

    /// Passes to the next end; `false` when nothing runs.
    async fn pass(&mut self) -> bool {
        let Some(Reverse((end, place))) = self.ends.pop() else { return false };
        self.now_ms = end;
        let outcome = Outcome::made(Vec::new());
        let ended = self.store.finish(self.running[place], &outcome, at(end));
        ended.await.expect("it ends");
        self.backend.running -= 1;
        true
    }
}

/// The jobs of a graph, and the submission of all.
fn submission(graph: &Graph, ranks: &[i64]) -> (Vec<JobId>, Submission) {
    let mut jobs: Vec<NewJob> = (0..graph.len()).map(|_| new_job("package: {}\n")).collect();
    let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    ids.sort_unstable();
    for (place, job) in jobs.iter_mut().enumerate() {
        job.id = ids[place];
        job.rank = ranks[place];
        job.waits_for = graph.waits_for[place].iter().map(|needed| ids[*needed]).collect();
    }
    (ids, Submission::new(jobs, START))
}

/// The seconds that a build takes.
async fn makespan(graph: &Graph, ranks: &[i64], durations: &[f64], slots: u32) -> f64 {
    let (ids, submission) = submission(graph, ranks);
    let takes: BTreeMap<JobId, i64> =
        ids.iter().zip(durations).map(|(id, time)| (*id, (time * 1_000.0) as i64)).collect();
    let mut farm = Farm::new(slots);
    farm.store.submit(&submission).await.expect("it is handed in");
    let mut begun = 0;
    loop {
        begun += farm.begin(|id| takes[&id]).await.len();
        if !farm.pass().await {
            break;
        }
    }
    assert_eq!(begun, graph.len(), "all have run");
    farm.now_ms as f64 / 1_000.0
}

/// The same with a barrier behind each level.
fn with_barriers(graph: &Graph, durations: &[f64], slots: u32) -> f64 {
    let levels = graph.levels();
    let mut by_level: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    levels.iter().zip(durations).for_each(|(level, time)| by_level.entry(*level).or_default().push(*time));
    let level_takes = |times: &Vec<f64>| {
        let mut free: BinaryHeap<Reverse<u64>> = (0..slots).map(|_| Reverse(0)).collect();
        let mut last = 0;
        for time in times {
            let Some(Reverse(at)) = free.pop() else { continue };
            let end = at + (time * 1_000.0) as u64;
            last = last.max(end);
            free.push(Reverse(end));
        }
        last as f64 / 1_000.0
    };
    by_level.values().map(level_takes).sum()
}

/// The seconds that a single job of another project waits which is handed in while a full rebuild has all slots, after so
/// many jobs of that began. It must be the next one that begins.
async fn beside(graph: &Graph, durations: &[f64], slots: u32, behind_jobs: usize) -> f64 {
    let ranks = ranks(graph, Policy::True, durations, &mut Rng::with_seed(0));
    let (ids, submission) = submission(graph, &ranks);
    let takes: BTreeMap<JobId, i64> =
        ids.iter().zip(durations).map(|(id, time)| (*id, (time * 1_000.0) as i64)).collect();
    let mut farm = Farm::new(slots);
    farm.store.submit(&submission).await.expect("it is handed in");
    let (mut begun, mut handed_in) = (0, None);
    loop {
        let started = farm.begin(|id| takes.get(&id).copied().unwrap_or(60_000)).await;
        begun += started.len();
        if let Some((id, since_ms)) = handed_in {
            assert!(started.contains(&id), "the next slot is for the other project");
            return (farm.now_ms - since_ms) as f64 / 1_000.0;
        }
        if begun >= behind_jobs && farm.backend.running == slots {
            let job = new_job("package: {}\n");
            handed_in = Some((job.id, farm.now_ms));
            let mut other = Submission::new([job], at(farm.now_ms));
            other.project = "other".parse::<Project>().expect("a legal name");
            farm.store.submit(&other).await.expect("it is handed in");
        }
        assert!(farm.pass().await, "the farm was full once");
    }
}

/// The plan of the distribution with everything published, as a graph.
fn planned(corpus: &Path, cut: CutAim) -> (Graph, usize, usize) {
    let mut pipelines = BTreeMap::new();
    collect(&corpus.join("pipelines"), &corpus.join("pipelines"), &mut pipelines);
    let pipelines = PipelineSet::new(&pipelines).expect("pipelines");
    let mut definitions = Vec::new();
    for entry in std::fs::read_dir(corpus).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let source = Source::new(file.clone(), std::fs::read_to_string(&path).expect("a text"));
            if let Ok(Compiled::Plan(plan)) =
                compile(&source, Arch::X86_64, &pipelines, &CompileOptions::default())
            {
                definitions.push(Definition::new(file, &plan));
            }
        }
    }
    let published: Vec<IndexPackage> = definitions.iter().flat_map(Definition::records).collect();
    let repositories = [RepositoryPackages { tag: "", packages: &published }];
    let input = PlanInput {
        arch: Arch::X86_64,
        definitions,
        skipped: Vec::new(),
        published: &repositories,
        durations: Durations::default(),
    };
    let mut request = PlanRequest::default();
    (request.rebuild, request.cut) = (Rebuild::All, cut);
    let plan = plan(&input, &request).expect("a plan");
    let (cuts, levels) = (plan.cuts.len(), plan.levels());
    let names = plan.jobs.iter().map(|job| job.name.clone()).collect();
    (Graph { names, waits_for: plan.jobs.into_iter().map(|job| job.waits_for).collect() }, cuts, levels)
}

fn collect(base: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(base, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            found.insert(name, std::fs::read_to_string(&path).expect("a text"));
        }
    }
}

/// Mean and worst of ratios.
fn told(ratios: &[f64]) -> String {
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    format!("{mean:.3} / {:.3}", ratios.iter().copied().fold(0.0, f64::max))
}

async fn compare(graph: &Graph, what: &str, slots: &[u32], seeds: usize, share: f64) {
    println!("makespan/{what}: {seeds} draws, ratio to the bound, mean / worst, on {slots:?} slots");
    let mut closer = vec![Vec::new(); slots.len()];
    for (policy, name) in POLICIES {
        let mut cells = Vec::new();
        for (column, slots) in slots.iter().enumerate() {
            let mut ratios = Vec::new();
            for seed in 0..seeds {
                let mut rng = Rng::with_seed(u64::try_from(seed).unwrap_or(0) + 1_000);
                let part = if share < 1.0 { Some(graph.part(&mut rng, share)) } else { None };
                let graph = part.as_ref().unwrap_or(graph);
                let durations = drawn(&mut rng, graph.len());
                let bound = graph.bound(&durations, *slots);
                let took = if policy == Policy::Levels {
                    with_barriers(graph, &durations, *slots)
                } else {
                    let ranks = ranks(graph, policy, &durations, &mut rng);
                    makespan(graph, &ranks, &durations, *slots).await
                };
                ratios.push(took / bound);
                if policy == Policy::True && share < 1.0 {
                    let is_missed = took > bound * BOUND_MISSED;
                    let windows = is_missed.then(|| Windows::new(graph, &durations, *slots));
                    let bound = windows.map_or(bound, |windows| windows.bound(bound, took));
                    closer[column].push(took / bound);
                }
            }
            cells.push(told(&ratios));
        }
        println!("  {name:<30} {}", cells.join("   "));
    }
    if share < 1.0 {
        let cells: Vec<String> = closer.iter().map(|ratios| told(ratios)).collect();
        println!("  {:<30} {}", "  to the closer bound", cells.join("   "));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(corpus) = distribution(folder.path()) else {
        println!("makespan: skipped, the definitions (shared/corpus) are not beside this checkout");
        return;
    };
    let seeds = rounds(SEEDS, 1);
    let all_slots: &[u32] = if seeds == 1 { &[16] } else { &[16, 32, 64, 240] };
    for cut in [CutAim::Fewest, CutAim::Short] {
        let (graph, cuts, levels) = planned(&corpus, cut);
        println!("makespan/plan {cut:?}: {} jobs, {cuts} cuts, {levels} levels", graph.len());
        compare(&graph, &format!("full, {cut:?}"), all_slots, seeds, 1.0).await;
        if cut == CutAim::Fewest {
            compare(&graph, "a fifth changed", all_slots, seeds, 0.2).await;
            let mut rng = Rng::with_seed(7);
            let durations = drawn(&mut rng, graph.len());
            let mut waits = Vec::new();
            for behind_jobs in (200..graph.len() - 300).step_by(rounds(100, 900)) {
                waits.push(beside(&graph, &durations, 16, behind_jobs).await);
            }
            let longest = waits.iter().copied().fold(0.0, f64::max);
            println!(
                "makespan/beside a full rebuild on 16 slots: {} single jobs of another project got the next slot each, after \
                 {longest:.0} s at most",
                waits.len()
            );
        }
    }
}
