//! Jobs through the scheduler on each store: the build graph of a distribution, independent jobs, and how soon a job begins
//! on an idle server. PostgreSQL takes part when `BENCH_POSTGRES` names an
//! empty database; its durability is the server's.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builder::{BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder};
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::conformance::job_store::new_job;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::{BuildId, JobId, JobState};
use melange_remote_sdk::job_store::database::DatabaseBounds;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::postgres::PostgresJobStore;
use melange_remote_sdk::job_store::sqlite::SqliteJobStore;
use melange_remote_sdk::job_store::{JobStore, ListQuery, NewJob, Subject, Submission};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

mod support;

use support::rounds;

/// Jobs of the graph: a whole distribution. Where fewer definitions are at hand some come twice.
const GRAPH: usize = 3_401;

/// Independent jobs.
const PLAIN: usize = 10_000;

/// Jobs handed in one by one to an idle server.
const SINGLE: usize = 300;

/// Does nothing, and notes when it was asked to.
#[derive(Debug, Default)]
struct Scripted {
    begun: Mutex<HashMap<JobId, Instant>>,
}

#[async_trait]
impl Builder for Scripted {
    async fn build(
        &self,
        input: &BuildInput,
        _: Arc<dyn BuildSink>,
        _: CancellationToken,
    ) -> Result<BuildOutcome> {
        // It is named after its job and its number.
        let job = input.attempt.get(..36).and_then(|job| job.parse().ok()).expect("the id of a job");
        self.begun.lock().expect("nobody panics").insert(job, Instant::now());
        Ok(BuildOutcome::without_files(BuildStatus::Succeeded))
    }
}

/// What each definition waits for, by its place. Circles are cut where a walk in the order of names meets them.
fn graph(corpus: &Path) -> Vec<BTreeSet<usize>> {
    let program = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.join("melange")));
    let program =
        program.filter(|program| program.exists()).expect("a release build of melange: `make bench-queue`");
    let compiled = Command::new(program)
        .args(["compile", "--format", "json", "--arch", "x86_64", "--pipeline-dir"])
        .arg(corpus.join("pipelines"))
        .arg(corpus)
        .stderr(Stdio::null())
        .output()
        .expect("the command starts");
    let lines: Vec<serde_json::Value> = compiled
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter(|line: &serde_json::Value| line["package"]["name"].is_string())
        .collect();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        let name = |entry: &serde_json::Value| {
            let entry = entry.as_str()?;
            Some(entry.split(['=', '<', '>', '~', '@']).next()?.to_owned())
        };
        value.as_array().into_iter().flatten().filter_map(name).collect()
    };
    let mut makers: BTreeMap<String, usize> = BTreeMap::new();
    for (place, line) in lines.iter().enumerate() {
        for package in
            std::iter::once(&line["package"]).chain(line["subpackages"].as_array().into_iter().flatten())
        {
            let provides = texts(&package["dependencies"]["provides"]);
            for name in package["name"].as_str().map(str::to_owned).into_iter().chain(provides) {
                makers.entry(name).or_insert(place);
            }
        }
    }
    let needs = |(place, line): (usize, &serde_json::Value)| -> BTreeSet<usize> {
        let names = texts(&line["environment"]["packages"]);
        names.iter().filter_map(|name| makers.get(name)).copied().filter(|need| *need != place).collect()
    };
    let mut all: Vec<BTreeSet<usize>> = lines.iter().enumerate().map(needs).collect();
    cut(&mut all);
    all.truncate(rounds(GRAPH, 300));
    let known = all.len();
    all.iter_mut().for_each(|needs| needs.retain(|need| *need < known));
    for place in known..rounds(GRAPH, known) {
        // A second copy of a part: among itself where it has both ends.
        let copy = |need: &usize| if known + need < place { known + need } else { *need };
        let needs = all[place % known].iter().map(copy).collect();
        all.push(needs);
    }
    all
}

/// Leaves out the edges that lead back into the walk.
fn cut(all: &mut [BTreeSet<usize>]) {
    let mut state = vec![0u8; all.len()];
    for root in 0..all.len() {
        let mut path: Vec<(usize, Vec<usize>)> = vec![(root, all[root].iter().copied().collect())];
        if state[root] == 0 {
            state[root] = 1;
        } else {
            continue;
        }
        while let Some((place, left)) = path.last_mut() {
            let place = *place;
            match left.pop() {
                None => {
                    state[place] = 2;
                    path.pop();
                }
                Some(need) if state[need] == 1 => _ = all[place].remove(&need),
                Some(need) if state[need] == 0 => {
                    state[need] = 1;
                    path.push((need, all[need].iter().copied().collect()));
                }
                Some(_) => {}
            }
        }
    }
}

struct Run {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    builder: Arc<Scripted>,
}

impl Run {
    /// A scheduler with two backends of so many slots.
    fn start(job_store: &Arc<dyn JobStore>, slots: u32) -> Self {
        let builder = Arc::new(Scripted::default());
        let backend = |name: &str| {
            let backend = Backend::new(name, Arch::X86_64, Labels::default());
            backend.and_then(|backend| backend.with_max_jobs(slots)).expect("the backend is legal")
        };
        let parts = SchedulerParts::new(
            Arc::clone(job_store),
            Arc::new(ObjectArtifactStorage::memory()),
            Arc::clone(&builder) as _,
            BackendPool::new([backend("tcp://one:1"), backend("tcp://two:1")]).expect("two backends"),
        );
        let stop = CancellationToken::new();
        let scheduler = Scheduler::new(parts, SchedulerOptions::default());
        let shutdown = stop.clone();
        Self { stop, task: tokio::spawn(async move { scheduler.run(shutdown).await }), builder }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("the scheduler stops");
    }
}

/// Waits for the end of a build.
async fn ended(job_store: &dyn JobStore, build: BuildId) {
    while job_store.build(build).await.expect("it is there").finished_at.is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Hands jobs in as a build and sees it to its end: both times.
async fn build(job_store: &Arc<dyn JobStore>, jobs: Vec<NewJob>) -> (Duration, Duration) {
    let id = BuildId::new(SystemClock.now());
    let begun = Instant::now();
    job_store
        .submit(&Submission::new(jobs, SystemClock.now()).as_build(id))
        .await
        .expect("they are handed in");
    let inserted = begun.elapsed();
    let begun = Instant::now();
    let run = Run::start(job_store, 256);
    ended(&**job_store, id).await;
    let took = begun.elapsed();
    run.end().await;
    (inserted, took)
}

fn jobs(needs: &[BTreeSet<usize>]) -> Vec<NewJob> {
    let mut jobs: Vec<NewJob> =
        (0..needs.len()).map(|place| new_job(&format!("package: {{name: p{place}}}\n"))).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    for (job, needs) in jobs.iter_mut().zip(needs) {
        job.waits_for = needs.iter().map(|need| ids[*need]).collect();
    }
    jobs
}

/// That each job ended well, after those that it waits for.
async fn check(job_store: &dyn JobStore, jobs: &[NewJob]) {
    let mut all = HashMap::new();
    for job in jobs {
        let job = job_store.get(job.id).await.expect("it is there");
        assert_eq!((job.state, job.attempt), (JobState::Success, 1), "{job:?}");
        all.insert(job.id, job);
    }
    for job in jobs {
        for need in &job.waits_for {
            assert!(
                all[need].finished_at <= all[&job.id].started_at,
                "{} began before {need} had ended",
                job.id
            );
        }
    }
}

/// The times from handing a job in to its beginning, sorted.
async fn single(job_store: &Arc<dyn JobStore>) -> Vec<Duration> {
    let run = Run::start(job_store, 4);
    let mut times = Vec::new();
    for _ in 0..rounds(SINGLE, 3) {
        let job = new_job("package: {}\n");
        let id = job.id;
        let mut changed = job_store.changed(Subject::Job(id));
        let begun = Instant::now();
        job_store.submit(&Submission::new([job], SystemClock.now())).await.expect("it is handed in");
        while !job_store.get(id).await.expect("it is there").state.is_terminal() {
            let _ = tokio::time::timeout(Duration::from_secs(1), changed.changed()).await;
        }
        let at = run.builder.begun.lock().expect("nobody panics")[&id];
        times.push(at.saturating_duration_since(begun));
        // An idle server is one that has nothing to do for a while.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.end().await;
    times.sort_unstable();
    times
}

/// The processor time of this process: its ticks are hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// What the database has written ahead so far, in bytes; 0 for the stores that are no server.
fn wal(name: &str) -> f64 {
    let Some(url) = std::env::var("BENCH_POSTGRES").ok().filter(|_| name == "postgres") else { return 0.0 };
    let asked = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')";
    let output =
        Command::new("psql").args(["-X", "-A", "-t", "-c", asked, &url]).output().expect("psql is there");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

async fn measure(name: &str, job_store: Arc<dyn JobStore>, needs: &[BTreeSet<usize>]) {
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    let times = single(&job_store).await;
    let graph = jobs(needs);
    let (wal_before, cpu_before) = (wal(name), cpu());
    let (inserted, took) = build(&job_store, graph.clone()).await;
    check(&*job_store, &graph).await;
    let (graph_wal, graph_cpu) = (wal(name) - wal_before, cpu() - cpu_before);
    let (wal_before, cpu_before) = (wal(name), cpu());
    let count = rounds(PLAIN, 100);
    let plain = jobs(&vec![BTreeSet::new(); count]);
    let (plain_inserted, plain_took) = build(&job_store, plain).await;
    let rate = |jobs: usize, took: Duration| jobs as f64 / took.as_secs_f64();
    let (plain_wal, plain_cpu) = (wal(name) - wal_before, cpu() - cpu_before);
    let per = |whole: f64, jobs: usize| whole / jobs as f64;
    let cells = [
        rate(count, plain_inserted),
        rate(count, plain_took),
        millis(times[times.len() / 2]),
        millis(times[times.len() * 99 / 100]),
        per(plain_wal, count),
        per(millis(plain_cpu) * 1_000.0, count),
        millis(inserted),
        rate(graph.len(), took),
        per(graph_wal, graph.len()),
        per(millis(graph_cpu) * 1_000.0, graph.len()),
    ];
    println!("{name:<24}{}", cells.iter().map(|cell| format!(" {cell:>10.1}")).collect::<String>());
    assert!(!job_store.list(&ListQuery::newest(1)).await.expect("it lists").jobs.is_empty());
}

#[tokio::main]
async fn main() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/wolfi-os.tar.xz");
    if !archive.exists() {
        println!("queue: skipped, the definitions (shared/corpus) are not beside this checkout");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unpacked = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.is_ok_and(|status| status.success()), "tar and xz must be there");
    let needs = graph(&folder.path().join("wolfi-os"));
    let edges: usize = needs.iter().map(BTreeSet::len).sum();
    println!(
        "a graph of {} jobs with {edges} edges, {PLAIN} independent jobs, {SINGLE} single ones",
        needs.len()
    );
    let heads = [
        "insert /s",
        "plain /s",
        "p50 ms",
        "p99 ms",
        "WAL B/job",
        "CPU us/job",
        "graph ms",
        "graph /s",
        "WAL B/job",
        "CPU us/job",
    ];
    println!("{:<24}{}", "", heads.iter().map(|head| format!(" {head:>10}")).collect::<String>());
    measure("memory", Arc::new(MemoryJobStore::default()), &needs).await;
    let sqlite = SqliteJobStore::open(&folder.path().join("jobs.db"), DatabaseBounds::default()).await;
    measure("sqlite", Arc::new(sqlite.expect("it opens")), &needs).await;
    match std::env::var("BENCH_POSTGRES") {
        Ok(url) => {
            let postgres = PostgresJobStore::open(&url, DatabaseBounds::default()).await;
            measure("postgres", Arc::new(postgres.expect("it opens")), &needs).await;
        }
        Err(_) => println!("postgres   left out: BENCH_POSTGRES names no database"),
    }
}
