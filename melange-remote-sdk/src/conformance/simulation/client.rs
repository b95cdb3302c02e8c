//! Whoever hands jobs in and changes his mind about them, and asks again when nobody answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::store::FaultyStore;
use super::world::{Party, World, lock, short};
use crate::arch::Arch;
use crate::conformance::job_store::START;
use crate::error::Result;
use crate::job::{BuildId, JobId, JobSpec, JobState, Priority, UncheckedSpec};
use crate::job_store::forward::ForwardJobStore;
use crate::job_store::{NewJob, Selection, Submission};

/// What was handed in.
#[derive(Debug, Clone)]
struct Known {
    submission: Submission,
    /// The jobs that it was answered with.
    jobs: Vec<JobId>,
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    world: Arc<World>,
    store: FaultyStore,
    known: Mutex<Vec<Known>>,
    ids: Mutex<u16>,
}

impl Client {
    pub(super) async fn new(world: &Arc<World>) -> Arc<Self> {
        let party = Party::new("client".to_owned(), false);
        let store = FaultyStore { world: Arc::clone(world), party, inner: world.store.handle().await };
        let (known, ids) = (Mutex::default(), Mutex::default());
        Arc::new(Self { world: Arc::clone(world), store, known, ids })
    }

    /// The next name: those of the library itself are made by chance.
    fn next_id(&self) -> JobId {
        let mut ids = lock(&self.ids);
        *ids += 1;
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&START.as_millisecond().to_be_bytes()[2..]);
        (bytes[6], bytes[8]) = (0x70, 0x80);
        bytes[14..].copy_from_slice(&ids.to_be_bytes());
        JobId::from_bytes(&bytes).expect("the bytes are those of a name")
    }

    /// One of the jobs that are there.
    fn any_job(&self) -> Option<JobId> {
        let jobs: Vec<JobId> = lock(&self.known).iter().flat_map(|known| known.jobs.clone()).collect();
        (!jobs.is_empty()).then(|| jobs[self.world.number(0, jobs.len() - 1)])
    }

    fn running_job(&self) -> Option<JobId> {
        let history = self.world.history();
        let running = history.jobs.values().filter(|job| job.state == JobState::Running);
        let running: Vec<JobId> = running.map(|job| job.id).collect();
        drop(history);
        (!running.is_empty()).then(|| running[self.world.number(0, running.len() - 1)])
    }

    fn any_selection(&self) -> Option<Selection> {
        let builds: Vec<BuildId> =
            lock(&self.known).iter().filter_map(|known| known.submission.build).collect();
        if !builds.is_empty() && self.world.chance(0.2) {
            return Some(Selection::Build(builds[self.world.number(0, builds.len() - 1)]));
        }
        self.any_job().map(Selection::Job)
    }

    fn new_submission(&self) -> Submission {
        let world = &self.world;
        let project = ["default", "other"][world.number(0, 1)];
        let project = project.parse().expect("the name is plain");
        let earlier: Vec<JobId> = {
            let known = lock(&self.known);
            let same = known.iter().filter(|known| known.submission.project == project);
            same.flat_map(|known| known.jobs.clone()).collect()
        };
        let mut jobs: Vec<NewJob> = Vec::new();
        for _ in 0..world.number(1, 5) {
            let arch = if world.chance(0.8) { Arch::X86_64 } else { Arch::Aarch64 };
            let parts = UncheckedSpec {
                config_yaml: "package: {}\n".to_owned(),
                arch: arch.to_string(),
                ..UncheckedSpec::default()
            };
            let spec = JobSpec::validate(parts).expect("the spec is legal");
            let mut job = NewJob::new(self.next_id(), Arc::new(spec));
            job.priority = Priority::new([0, 500, 500, 1_000][world.number(0, 3)]).unwrap_or_default();
            job.rank = i64::try_from(world.number(0, 2)).unwrap_or(0);
            let mut needs: Vec<JobId> =
                jobs.iter().map(|job| job.id).filter(|_| world.chance(0.35)).collect();
            needs.extend(earlier.iter().filter(|_| world.chance(0.05)));
            jobs.push(job.waiting_for(needs));
        }
        let mut submission = Submission::new(jobs, world.now()).in_project(project);
        if world.chance(0.6) {
            submission = submission.with_key(format!("key-{}", world.number(0, 1_000_000)));
        }
        if world.chance(0.5) {
            let id = self.next_id();
            submission = submission.as_build(format!("build-{id}").parse().expect("the id is legal"));
        }
        submission
    }

    /// Repeats a call until it is answered.
    async fn insist<'a, T>(&self, call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
        loop {
            match call().await {
                Err(error) if error.kind().is_retryable() => {
                    tokio::time::sleep(self.world.time(50, 1_500)).await;
                }
                told => return told,
            }
        }
    }

    async fn hand_in(&self, submission: Submission) {
        let told = self.insist(|| self.store.submit(&submission)).await;
        match told {
            Ok(told) => lock(&self.known).push(Known { submission, jobs: told.jobs }),
            Err(error) => self.world.violate(&format!("a submission was refused: {}", error.chain())),
        }
    }

    /// Hands in something new.
    pub(super) async fn submit(self: Arc<Self>) {
        let submission = self.new_submission();
        let needs = submission.jobs.iter().map(|job| (job.id, job.waits_for.clone()));
        self.world.history().needs.extend(needs);
        let jobs: Vec<String> = submission.jobs.iter().map(|job| short(job.id)).collect();
        self.world.tell(&format!("client hands in {}", jobs.join(" ")));
        self.hand_in(submission).await;
    }

    /// Hands in once more what is there already: by its ids, or by its key with other ids.
    pub(super) async fn submit_again(self: Arc<Self>) {
        let known = lock(&self.known).clone();
        if known.is_empty() {
            return;
        }
        let Known { mut submission, jobs } = known[self.world.number(0, known.len() - 1)].clone();
        if submission.key.is_some() && self.world.chance(0.5) {
            let others: Vec<JobId> = submission.jobs.iter().map(|_| self.next_id()).collect();
            let places: Vec<JobId> = submission.jobs.iter().map(|job| job.id).collect();
            let renamed =
                |id: &JobId| places.iter().position(|place| place == id).map_or(*id, |place| others[place]);
            for (job, id) in submission.jobs.iter_mut().zip(&others) {
                job.id = *id;
                job.waits_for = job.waits_for.iter().map(renamed).collect();
            }
        }
        match self.insist(|| self.store.submit(&submission)).await {
            Ok(told) if told.jobs == jobs && !told.created => {}
            Ok(_) => self.world.violate("a repeated submission made other jobs"),
            Err(error) => {
                self.world.violate(&format!("a repeated submission was refused: {}", error.chain()));
            }
        }
    }

    /// Asks for something to stop; that it has ended already is no fault.
    pub(super) async fn cancel(self: Arc<Self>) {
        let running = self.running_job().filter(|_| self.world.chance(0.5)).map(Selection::Job);
        if let Some(selection) = running.or_else(|| self.any_selection()) {
            self.cancel_selected(selection).await;
        }
    }

    pub(super) async fn cancel_selected(&self, selection: Selection) {
        let at = self.world.now();
        _ = self.insist(|| self.store.cancel(selection, at)).await;
    }

    pub(super) async fn retry(self: Arc<Self>) {
        if let Some(selection) = self.any_selection() {
            let at = self.world.now();
            _ = self.insist(|| self.store.retry(selection, at)).await;
        }
    }

    pub(super) async fn set_priority(self: Arc<Self>) {
        if let Some(selection) = self.any_selection() {
            let priority = Priority::new([0, 400, 1_000][self.world.number(0, 2)]).unwrap_or_default();
            _ = self.insist(|| self.store.set_priority(selection, priority)).await;
        }
    }

    /// Everything that a client does in a while, begun at moments of its own.
    pub(super) fn act(self: &Arc<Self>, acts: &mut JoinSet<()>) {
        let client = Arc::clone(self);
        match self.world.number(0, 9) {
            0..=2 => acts.spawn(client.submit()),
            3 => acts.spawn(client.submit_again()),
            4..=6 => acts.spawn(client.cancel()),
            7..=8 => acts.spawn(client.retry()),
            _ => acts.spawn(client.set_priority()),
        };
    }

    /// Stops what would never end by itself.
    pub(super) async fn cancel_hanging(&self) {
        let hanging: Vec<JobId> = {
            let builds = self.world.builds();
            builds.live.values().filter(|live| live.hangs).map(|live| live.job).collect()
        };
        for job in hanging {
            self.cancel_selected(Selection::Job(job)).await;
        }
    }
}

/// How long a client waits between two of its acts.
pub(super) fn thinking_time(world: &World) -> Duration {
    world.time(0, if world.chance(0.5) { 800 } else { 12_000 })
}
