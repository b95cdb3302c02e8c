//! A farm with a long past: jobs of many ages with artifacts and logs, and some that have not ended.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::*;
use crate::artifact_storage::layout::{LOG_NAME, artifact_key};
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::artifact_storage::{ArtifactKey, ArtifactStorage};
use crate::conformance::artifact_storage::bytes;
use crate::conformance::job_store::{artifact, filled, new_job, new_job_of};
use crate::job::{ClaimToken, FailureClass, JobArtifact, JobError, LogArchive, Outcome};
use crate::job_store::{Claim, EndedQuery, JobStore, NewJob, Selection, Submission};
use crate::limits;

/// Jobs of one build.
const BUILD: usize = 10;
/// Jobs that end on one day.
const ON_A_DAY: usize = 500;
/// Calls at once.
const AT_ONCE: usize = 200;

/// The farm.
#[derive(Debug, Clone)]
pub(crate) struct Farm {
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) storage: Arc<dyn ArtifactStorage>,
    /// The objects of each job.
    pub(crate) objects: Arc<BTreeMap<JobId, BTreeSet<ArtifactKey>>>,
    /// Those that are ended and that one waits for that has not, also by way of others.
    pub(crate) needed: Arc<BTreeSet<JobId>>,
}

impl Farm {
    /// The same seen through another store, such as another server's.
    pub(crate) fn with_store(&self, store: Arc<dyn JobStore>) -> Self {
        Self { store, ..self.clone() }
    }

    pub(crate) fn collector(&self, rules: KeepRules) -> Collector {
        let mut options = CollectorOptions::new(rules);
        (options.removals_per_second, options.orphans) = (u32::MAX, Orphans::Remove);
        let clock = Arc::new(SteadyClock::starting_at(START));
        Collector::new(Arc::clone(&self.store), Arc::clone(&self.storage), clock, options)
    }

    pub(crate) async fn all_ended(&self) -> Vec<EndedJob> {
        let (mut query, mut found) = (EndedQuery::oldest(limits::PAGE_ITEMS_MAX), Vec::new());
        loop {
            let page = self.store.ended(&query).await.unwrap();
            let Some(last) = page.last() else { return found };
            query = query.behind(last.place());
            found.extend(page);
        }
    }

    /// What lies in the storage.
    pub(crate) async fn stored(&self) -> BTreeSet<ArtifactKey> {
        let mut stored = BTreeSet::new();
        for folder in self.storage.folders("", usize::MAX).await.unwrap() {
            stored.extend(self.storage.list(&folder).await.unwrap().into_iter().map(|artifact| artifact.key));
        }
        stored
    }

    /// Whether the job has all the objects that the store says it has, and, between a removal and its note, at most less.
    pub(crate) fn expected(&self, job: &EndedJob) -> BTreeSet<ArtifactKey> {
        let mut objects = self.objects.get(&job.id).cloned().unwrap_or_default();
        objects.retain(|key| match key.as_str().ends_with(LOG_NAME) {
            true => job.log_removed_at.is_none(),
            false => job.artifacts_removed_at.is_none(),
        });
        objects
    }
}

/// A job of the farm as it will end.
struct Planned {
    job: NewJob,
    ends: Timestamp,
    artifacts: Vec<JobArtifact>,
}

fn planned(rng: &mut fastrand::Rng, day: Timestamp) -> Planned {
    let job = new_job_of(format!("p{}", rng.u16(..400)));
    let ends = crate::clock::later(day, Duration::from_secs(rng.u64(60..80_000)));
    let made =
        |place: usize| artifact(format!("x86_64/a{place}.apk"), 50 + u64::try_from(place).unwrap() * 17);
    let artifacts = if rng.u8(..5) == 0 { Vec::new() } else { (0..rng.usize(1..3)).map(made).collect() };
    Planned { job, ends, artifacts }
}

/// Claims every job that may begin.
async fn claim_all(store: &dyn JobStore) -> Vec<Claim> {
    let mut offer = filled::offer(limits::CLAIMS_PER_ROUND_MAX);
    offer.max_jobs = 1_000_000;
    let mut claims = Vec::new();
    loop {
        let request = filled::request(ClaimToken::new(), offer.clone(), 0);
        let claimed = store.claim(&request).await.unwrap();
        if claimed.is_empty() {
            return claims;
        }
        claims.extend(claimed);
    }
}

/// Ends a job as it was planned, with its log and its objects; returns those.
async fn end(farm: &Farm, claim: &Claim, planned: &Planned) -> (JobId, BTreeSet<ArtifactKey>) {
    let (id, attempt) = (claim.job.id, claim.fence.attempt);
    farm.store.append_log(claim.fence, 0, Bytes::from_static(b"a log\n")).await.unwrap();
    let outcome = match planned.artifacts.is_empty() {
        true => Outcome::Failed { error: JobError::new(FailureClass::Build, "make failed") },
        false => Outcome::made(planned.artifacts.clone()),
    };
    let mut objects = BTreeSet::new();
    let log_bytes = 20 + u64::from(id.as_bytes()[15]) % 20;
    let named = planned.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.size_bytes));
    for (name, size) in named.chain([(LOG_NAME, log_bytes)]) {
        let key = artifact_key(id, attempt, name).unwrap();
        let object = bytes(vec![vec![7; usize::try_from(size).unwrap()]]);
        farm.storage.put(&key, object).await.unwrap();
        objects.insert(key);
    }
    farm.store.finish(claim.fence, &outcome, planned.ends).await.unwrap();
    farm.store.archive_log(id, attempt, &LogArchive::new(1, 6, log_bytes)).await.unwrap();
    (id, objects)
}

/// Runs everything that may run to its planned end, but for the jobs to leave running.
async fn run_all(farm: &mut Farm, planned: &BTreeMap<JobId, Planned>, leave: &BTreeSet<JobId>) {
    loop {
        let mut claims = claim_all(&*farm.store).await;
        claims.retain(|claim| !leave.contains(&claim.job.id));
        if claims.is_empty() {
            return;
        }
        let ends = claims.iter().map(|claim| end(farm, claim, &planned[&claim.job.id]));
        let ended: Vec<_> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
        Arc::make_mut(&mut farm.objects).extend(ended);
    }
}

/// Fills a store with so many jobs that ended, the oldest of them so many days ago as there are days, and some that have
/// not.
pub(crate) async fn filled(store: Arc<dyn JobStore>, jobs: usize) -> Farm {
    let storage = Arc::new(ObjectArtifactStorage::memory());
    let mut farm = Farm { store, storage, objects: Arc::default(), needed: Arc::default() };
    let mut rng = fastrand::Rng::with_seed(7);
    let mut all: BTreeMap<JobId, Planned> = BTreeMap::new();
    let (mut leave, mut submitted) = (BTreeSet::new(), 0);
    let days = u32::try_from(jobs / ON_A_DAY.min(jobs / 4)).unwrap();
    for day in 0..days {
        // Older by far at the beginning, as after a long pause.
        let age = DAY * ((days - day) * 20);
        let mut builds = Vec::new();
        while builds.len() * BUILD < jobs / usize::try_from(days).unwrap() {
            let mut build: Vec<Planned> =
                (0..BUILD).map(|_| planned(&mut rng, earlier(START, age))).collect();
            // The last one waits for the one before it, which succeeds.
            if build[BUILD - 2].artifacts.is_empty() {
                let other = build.iter().position(|job| !job.artifacts.is_empty());
                build.swap(BUILD - 2, other.unwrap_or(BUILD - 2));
            }
            let need = build[BUILD - 2].job.id;
            let last = &mut build[BUILD - 1];
            last.job = last.job.clone().waiting_for([need]);
            last.ends = last.ends.max(earlier(START, age / 2));
            if rng.u8(..40) == 0 {
                leave.insert(build[0].job.id);
            }
            builds.push(build);
        }
        for build in builds {
            submitted += build.len();
            let jobs = build.iter().map(|planned| planned.job.clone());
            let submission = Submission::new(jobs, earlier(START, age)).as_build(BuildId::new(START));
            farm.store.submit(&submission).await.unwrap();
            all.extend(build.into_iter().map(|planned| (planned.job.id, planned)));
        }
        run_all(&mut farm, &all, &leave).await;
    }
    assert!(submitted >= jobs);
    add_live(&mut farm).await;
    farm
}

/// Adds jobs that have not ended and wait for old ones, also by way of others.
async fn add_live(farm: &mut Farm) {
    let successes = farm.all_ended().await;
    let mut successes = successes.into_iter().filter(|job| job.state == JobState::Success && !job.is_newest);
    let mut needed = BTreeSet::new();
    for _ in 0..10 {
        let (one, other) = (successes.next().unwrap().id, successes.next().unwrap().id);
        let middle = new_job("a").waiting_for([one]);
        let live = new_job("a").waiting_for([middle.id, other]);
        let middle_id = middle.id;
        farm.store.submit(&Submission::new([middle], START)).await.unwrap();
        let claim = claim_all(&*farm.store).await.pop().unwrap();
        assert_eq!(claim.job.id, middle_id);
        let (job, ends) = (new_job("a"), earlier(START, DAY * 300));
        let planned = Planned { job, ends, artifacts: vec![artifact("x86_64/m.apk", 60)] };
        let ended = end(farm, &claim, &planned).await;
        Arc::make_mut(&mut farm.objects).extend([ended]);
        farm.store.submit(&Submission::new([live], START)).await.unwrap();
        needed.extend([one, other, middle_id]);
    }
    // One that waited and does no longer holds nothing.
    let free = successes.next().unwrap().id;
    let idle = new_job("a").waiting_for([free]);
    let id = idle.id;
    farm.store.submit(&Submission::new([idle], START)).await.unwrap();
    farm.store.cancel(Selection::Job(id), START).await.unwrap();
    farm.needed = Arc::new(needed);
}
