//! The same calls on a database and in memory come to the same, also when many of them share a transaction.

use std::fmt::Debug;

use fastrand::Rng;
use futures_util::future::join_all;

use super::*;
use crate::arch::Arch;
use crate::backend_selector::Requirements;
use crate::conformance::job_store::{at, new_job_for};
use crate::job::spec::JobPackage;
use crate::job::{
    BackendCapacity, ClaimToken, FailureClass, JobArtifact, JobBackend, JobError, JobResources, Progress,
    Project,
};
use crate::job_store::memory::MemoryJobStore;
use crate::job_store::{EndedQuery, Group, Holding, JobStore, NewJob, Offer, Patience};
use crate::labels::{LabelSelector, Labels};

/// A call. Those in front know what they are about; the others ask the database and come last in a transaction.
#[derive(Debug, Clone)]
enum Call {
    Renew(ServerId, Vec<Fence>, Timestamp),
    Release(Fence, Release, Timestamp),
    Finish(Fence, Outcome, Timestamp),
    Append(Fence, u64, Vec<ProgressRow>),
    AppendLog(Fence, u64, &'static str),
    Submit(Submission),
    Claim(ClaimRequest),
    Cancel(Selection, Timestamp),
    Retry(Selection, Timestamp),
    SetPriority(Selection, Priority),
    Remove(JobId),
    NoteRemoved(JobId, Holding, Timestamp),
    Expire(ExpireRequest),
    GiveUp(GiveUp),
}

impl Call {
    fn asks(&self) -> bool {
        !matches!(
            self,
            Self::Renew(..) | Self::Release(..) | Self::Finish(..) | Self::Append(..) | Self::AppendLog(..)
        )
    }

    /// Makes the call; what it came to, in words, and the fences of what it claimed.
    async fn make(&self, store: &dyn JobStore) -> (String, Vec<Fence>) {
        fn told<T: Debug>(result: Result<T>) -> (String, Vec<Fence>) {
            (format!("{:?}", result.map_err(|error| error.kind())), Vec::new())
        }
        match self.clone() {
            Self::Renew(server, fences, until) => told(store.renew(&server, &fences, until).await),
            Self::Release(fence, release, at) => {
                told(store.release(fence, &release, at).await.map(|job| (job.state, job.version)))
            }
            Self::Finish(fence, outcome, at) => {
                let finished = store.finish(fence, &outcome, at).await;
                told(finished.map(|finished| (finished.job.state, finished.unlocked, finished.skipped)))
            }
            Self::Append(fence, first, rows) => told(store.append(fence, first, &rows).await),
            Self::AppendLog(fence, offset, text) => {
                told(store.append_log(fence, offset, Bytes::from_static(text.as_bytes())).await)
            }
            Self::Submit(submission) => told(store.submit(&submission).await),
            Self::Claim(request) => {
                let claims = store.claim(&request).await.unwrap();
                let fences: Vec<Fence> = claims.iter().map(|claim| claim.fence).collect();
                let specs: Vec<&str> = claims.iter().map(|claim| claim.spec.config_yaml()).collect();
                (format!("{fences:?} {specs:?}"), fences)
            }
            Self::Cancel(selection, at) => told(store.cancel(selection, at).await),
            Self::Retry(selection, at) => told(store.retry(selection, at).await),
            Self::SetPriority(selection, priority) => told(store.set_priority(selection, priority).await),
            Self::Remove(id) => told(store.remove(id).await),
            Self::NoteRemoved(id, what, at) => told(store.note_removed(id, what, at).await),
            Self::Expire(request) => {
                let settled = store.expire(&request).await;
                told(settled.map(|jobs| jobs.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>()))
            }
            Self::GiveUp(request) => told(store.give_up(&request).await),
        }
    }
}

/// What calls may be about.
struct World {
    rng: Rng,
    now: u64,
    jobs: Vec<JobId>,
    builds: Vec<BuildId>,
    fences: Vec<Fence>,
    server: ServerId,
}

impl World {
    fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let server = ServerId::unique();
        Self { rng, now: 0, jobs: Vec::new(), builds: Vec::new(), fences: Vec::new(), server }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        // What is new is asked for most.
        let from = if self.rng.bool() { all.len().saturating_sub(6) } else { 0 };
        (!all.is_empty()).then(|| all[self.rng.usize(from..all.len())])
    }

    fn id(&mut self) -> JobId {
        let id = format!("01a3185c-5000-7000-8000-{:012}", self.jobs.len());
        let id = id.parse().unwrap();
        self.jobs.push(id);
        id
    }

    fn submission(&mut self) -> Submission {
        let known = self.jobs.clone();
        let jobs: Vec<JobId> = (0..self.rng.usize(1..6)).map(|_| self.id()).collect();
        let mut new: Vec<NewJob> = Vec::new();
        for (place, id) in jobs.iter().enumerate() {
            let arch = if self.rng.u8(..5) == 0 { Arch::Aarch64 } else { Arch::X86_64 };
            let text = format!("package: {{name: p{}}}\n", self.rng.u8(..3));
            let mut job = NewJob { id: *id, ..new_job_for(&text, arch) };
            (job.priority, job.rank) = (self.priority(), self.rng.i64(0..3));
            let mut package = JobPackage::new("p", "1-r0");
            package.resources = self.resources();
            if !package.resources.is_none() {
                job.spec = Arc::new(JobSpec::clone(&job.spec).with_package(package));
            }
            for _ in 0..self.rng.usize(..4) {
                let earlier = self.one_of(&jobs[..place]);
                job.waits_for.extend(if self.rng.u8(..4) == 0 { self.one_of(&known) } else { earlier });
            }
            new.push(job);
        }
        let submission = Submission::new(new, at(self.now));
        if self.rng.bool() {
            return submission;
        }
        let id = self.id();
        let build = BuildId::from_bytes(id.as_bytes()).unwrap();
        self.jobs.pop();
        // So that no job gets the build's number.
        self.jobs.push(id);
        self.builds.push(build);
        submission.as_build(build)
    }

    fn priority(&mut self) -> Priority {
        Priority::new(self.rng.u16(499..502)).unwrap()
    }

    fn resources(&mut self) -> JobResources {
        if self.rng.u8(..4) == 0 { JobResources::new(2_000, 1 << 30) } else { JobResources::NONE }
    }

    fn selection(&mut self) -> Option<Selection> {
        let (jobs, builds) = (self.jobs.clone(), self.builds.clone());
        if self.rng.u8(..4) == 0 {
            return self.one_of(&builds).map(Selection::Build);
        }
        self.one_of(&jobs).map(Selection::Job)
    }

    fn group(&mut self) -> Group {
        let arch = if self.rng.u8(..5) == 0 { Arch::Aarch64 } else { Arch::X86_64 };
        let needs = Requirements::new(arch, LabelSelector::default()).with_resources(self.resources());
        let avoid = if self.rng.u8(..3) == 0 { vec!["tcp://one:1".to_owned()] } else { Vec::new() };
        Group { project: Project::default(), needs, avoid }
    }

    fn offer(&mut self) -> Offer {
        let addr = if self.rng.bool() { "tcp://one:1" } else { "tcp://two:1" };
        let backend = JobBackend::new(addr, Arch::X86_64, Labels::default());
        let capacity = self.rng.bool().then(|| BackendCapacity::new(Some(5_000), Some(4 << 30)));
        let (group, slots, max_jobs) = (self.group(), self.rng.usize(1..4), self.rng.u32(2..8));
        Offer { capacity: capacity.unwrap_or_default(), ..Offer::new(group, backend, slots, max_jobs) }
    }

    fn release(&mut self) -> Release {
        let error = JobError::new(FailureClass::Infrastructure, "it went");
        let not_before = self.rng.bool().then(|| at(self.now + 3));
        let memory_bytes = (self.rng.u8(..4) == 0).then_some(2 << 30);
        let (counts, avoid) = (self.rng.bool(), self.rng.bool());
        Release { not_before, counts, avoid, memory_bytes, ..Release::new(error) }
    }

    fn outcome(&mut self) -> Outcome {
        let artifact = JobArtifact { name: "a.apk".to_owned(), size_bytes: 1, sha256: "0".repeat(64) };
        match self.rng.u8(..8) {
            0 => Outcome::Failed { error: JobError::new(FailureClass::Build, "make failed") },
            1 => Outcome::Cancelled,
            _ => Outcome::made(vec![artifact]),
        }
    }

    fn call(&mut self) -> Option<Call> {
        let (now, fences, jobs) = (at(self.now), self.fences.clone(), self.jobs.clone());
        let row = |index| ProgressRow {
            at: now,
            progress: Progress::StepStarted { index, name: "step".to_owned() },
        };
        Some(match self.rng.u8(..21) {
            0 | 1 => Call::Submit(self.submission()),
            2..=4 => {
                let offers = (0..self.rng.usize(1..3)).map(|_| self.offer()).collect();
                let (token, server) =
                    (ClaimToken::from_bytes(self.rng.u128(..).to_be_bytes()), self.server.clone());
                Call::Claim(ClaimRequest { token, server, offers, now, until: at(self.now + 10) })
            }
            5 => Call::Renew(self.server.clone(), vec![self.one_of(&fences)?], at(self.now + 10)),
            6 => Call::Release(self.one_of(&fences)?, self.release(), now),
            7..=11 => Call::Finish(self.one_of(&fences)?, self.outcome(), now),
            12 => Call::Append(self.one_of(&fences)?, self.rng.u64(..3), vec![row(0), row(1)]),
            13 => Call::AppendLog(self.one_of(&fences)?, self.rng.u64(..12), "a line\n"),
            14 => Call::Cancel(self.selection()?, now),
            15 => Call::Retry(self.selection()?, now),
            16 => Call::SetPriority(self.selection()?, self.priority()),
            17 => Call::Remove(self.one_of(&jobs)?),
            20 => {
                let what = if self.rng.bool() { Holding::Logs } else { Holding::Artifacts };
                Call::NoteRemoved(self.one_of(&jobs)?, what, now)
            }
            18 => {
                let patience = Patience { attempts: 2, time: Duration::from_secs(self.rng.u64(..30)) };
                Call::Expire(ExpireRequest { now, patience, limit: self.rng.usize(1..4) })
            }
            _ => {
                let error = JobError::new(FailureClass::Unschedulable, "nobody could run it");
                let ready_before = at(self.now.saturating_sub(5));
                Call::GiveUp(GiveUp { group: self.group(), ready_before, error, at: now })
            }
        })
    }

    /// All that a store tells of what is there.
    async fn told(&self, store: &dyn JobStore) -> Vec<String> {
        let mut told = Vec::new();
        for id in &self.jobs {
            let Ok(job) = store.get(*id).await else { continue };
            told.push(format!("{job:?}"));
            told.push(format!("{:?}", store.attempts(*id).await.unwrap()));
            told.push(format!("{:?}", store.blocked_by(*id, 100).await.unwrap()));
            let kind = |error: Error| error.kind();
            told.push(format!("{:?}", store.read_log(*id, 0, 1_000).await.map_err(kind)));
            told.push(format!("{:?}", store.is_needed(*id).await.unwrap()));
        }
        for id in &self.builds {
            let kind = |error: Error| error.kind();
            told.push(format!("{:?}", store.build(*id).await.map_err(kind)));
        }
        let mut demand = store.demand(at(self.now)).await.unwrap();
        demand.sort_by(|one, other| one.group.cmp(&other.group));
        told.extend(demand.iter().map(|demand| format!("{demand:?}")));
        told.push(format!("{:?}", store.cancel_requests(&self.server).await.unwrap()));
        for holding in [None, Some(Holding::Artifacts), Some(Holding::Logs)] {
            let query = EndedQuery::oldest(1_000).holding(holding);
            told.push(format!("{:?}", store.ended(&query).await.unwrap()));
        }
        told.push(format!("{:?}", store.usage().await.unwrap()));
        told
    }
}

/// Makes calls, several at once, on the store and one after the other in memory. The runtime must have one thread, so
/// that calls that are made at once are one transaction.
pub(super) async fn do_the_same(store: &dyn JobStore, seed: u64, rounds: usize) {
    let memory = MemoryJobStore::default();
    let mut world = World::new(seed);
    let mut seen = 0;
    for round in 0..rounds {
        let count = world.rng.usize(1..12);
        let mut calls: Vec<Call> = std::iter::repeat_with(|| world.call()).take(count).flatten().collect();
        calls.sort_by_key(Call::asks);
        let mut expected = Vec::new();
        for call in &calls {
            let (told, fences) = call.make(&memory).await;
            expected.push(told);
            world.fences.extend(fences);
        }
        let made = join_all(calls.iter().map(|call| call.make(store))).await;
        for ((call, expected), (told, _)) in calls.iter().zip(expected).zip(made) {
            assert_eq!(told, expected, "seed {seed}, round {round}: {call:?} of {calls:#?}");
        }
        for (told, expected) in world.told(store).await.into_iter().zip(world.told(&memory).await) {
            assert_eq!(told, expected, "seed {seed}, round {round}: after {calls:#?}");
        }
        let query = EventQuery::after(seen);
        let (told, expected) = (store.events(&query).await.unwrap(), memory.events(&query).await.unwrap());
        let differing = told.events.iter().zip(&expected.events).find(|(told, expected)| told != expected);
        assert_eq!(differing, None, "seed {seed}, round {round}: after {calls:#?}");
        assert_eq!(told, expected, "seed {seed}, round {round}: after {calls:#?}");
        seen = told.last;
        world.now += world.rng.u64(..4);
    }
}
