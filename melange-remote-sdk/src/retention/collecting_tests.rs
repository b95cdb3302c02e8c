//! The collector on stores with many jobs.

use std::collections::BTreeSet;
use std::ops::Range;

use async_trait::async_trait;
use tokio::task::yield_now;

use super::farm::{Farm, filled};
use super::*;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::conformance::artifact_storage::{bytes, key};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::job_store::forward::{Forward, ForwardJobStore};
use crate::job_store::memory::{MemoryBounds, MemoryJobStore};
use crate::job_store::{EndedQuery, Holding, JobStore};

/// Rules of which each one has work on the farm.
fn rules() -> KeepRules {
    let jobs = Keep::within(DAY * 365).and(Keep::at_most(7_000));
    keep(jobs, Keep::within(DAY * 100).and(Keep::at_most(200_000)), Keep::within(DAY * 200))
}

fn in_memory() -> Arc<MemoryJobStore> {
    let bounds = MemoryBounds { jobs: 100_000, pending: 100_000, ..MemoryBounds::default() };
    Arc::new(MemoryJobStore::new(bounds))
}

/// That the storage has what the store says it has, nothing else, and all that live jobs need.
async fn check_objects(farm: &Farm) {
    let ended = farm.all_ended().await;
    let mut expected = BTreeSet::new();
    for job in &ended {
        expected.extend(farm.expected(job));
    }
    assert!(farm.stored().await == expected, "the storage and the store tell the same");
    for id in farm.needed.iter() {
        let job = ended.iter().find(|job| job.id == *id).expect("a job that is needed stays");
        assert_eq!(farm.expected(job), farm.objects[id], "with all that it has");
    }
}

/// That the rules hold: what breaks them is protected.
async fn check_rules(farm: &Farm, rules: KeepRules) {
    let ended = farm.all_ended().await;
    let plan = Plan::new(rules, Usage::default(), START);
    let usage = farm.store.usage().await.unwrap();
    assert_eq!(usage.jobs, u64::try_from(ended.len()).unwrap());
    assert_eq!(usage.artifact_bytes, ended.iter().map(|job| job.artifact_bytes).sum::<u64>());
    assert_eq!(usage.log_bytes, ended.iter().map(|job| job.log_bytes).sum::<u64>());
    let free: Vec<&EndedJob> =
        ended.iter().filter(|job| plan.protection(job).is_none() && !farm.needed.contains(&job.id)).collect();
    for (rule, used, bytes) in [
        (rules.jobs, usage.jobs, (|_| 1) as fn(&EndedJob) -> u64),
        (rules.artifacts, usage.artifact_bytes, |job| job.artifact_bytes),
        (rules.logs, usage.log_bytes, |job| job.log_bytes),
    ] {
        let has: Vec<&&EndedJob> = free.iter().filter(|job| bytes(job) > 0).collect();
        if let Some(age) = rule.age {
            assert!(has.iter().all(|job| job.finished_at >= earlier(START, age)));
        }
        assert!(rule.most.is_none_or(|most| used <= most) || has.is_empty(), "{used} of {rule:?}");
    }
}

/// An object of a job that was handed in long ago and that no store knows.
fn stray() -> ArtifactKey {
    key("01900000-0000-7000-8000-000000000001/1/x86_64/a.apk")
}

/// A pass does what a dry run said, the rules hold afterwards, and there is nothing left to do.
pub(crate) async fn keeps_its_rules(farm: &Farm) {
    let stray = stray();
    let (young, other) = (key(&format!("{}/1/a.apk", JobId::new(START))), key("keys/farm.rsa.pub"));
    for key in [&stray, &young, &other] {
        farm.storage.put(key, bytes(vec![vec![1; 10]])).await.unwrap();
    }
    let before = (farm.all_ended().await, farm.stored().await);
    let told = farm.collector(rules()).pass(Mode::DryRun).await.unwrap();
    assert!((farm.all_ended().await, farm.stored().await) == before, "a dry run changes nothing");
    let done = farm.collector(rules()).pass(Mode::Remove).await.unwrap();
    assert!(told == done, "a dry run says what the run does");
    let many = farm.objects.len() > 5_000;
    for class in [Class::Artifacts, Class::Logs, Class::Jobs, Class::Orphans] {
        assert!(done.totals.contains_key(&class) || !many && class == Class::Jobs, "{class:?} went");
    }
    assert_eq!((done.failed, done.totals[&Class::Orphans].count), (0, 1));
    for key in [&young, &other] {
        farm.storage.delete(key).await.unwrap();
    }
    check_objects(farm).await;
    check_rules(farm, rules()).await;
    let again = farm.collector(rules()).pass(Mode::Remove).await.unwrap();
    assert_eq!(again, Report::default(), "nothing is left to do");
}

/// Keeps nothing but what is protected.
pub(crate) async fn removes_nearly_everything(farm: &Farm) {
    let mut rules = keep(Keep::at_most(0), Keep::ALL, Keep::ALL);
    rules.latest = KeepLatest::No;
    farm.collector(rules).pass(Mode::Remove).await.unwrap();
    check_objects(farm).await;
    check_rules(farm, rules).await;
}

/// Two collectors at once do what one does.
pub(crate) async fn two_at_once(one: &Farm, other: &Farm) {
    let mut rules = keep(Keep::at_most(0), Keep::at_most(0), Keep::at_most(0));
    rules.latest = KeepLatest::No;
    let (first, second) = (one.collector(rules), other.collector(rules));
    let (first, second) = tokio::join!(first.pass(Mode::Remove), second.pass(Mode::Remove));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.failed, second.failed), (0, 0));
    check_objects(one).await;
    check_rules(one, rules).await;
}

#[tokio::test]
async fn ten_thousand_jobs_in_memory() {
    let farm = filled(in_memory(), 10_000).await;
    keeps_its_rules(&farm).await;
    removes_nearly_everything(&farm).await;
}

/// Lets others run before and after each call.
#[derive(Debug)]
struct Slow<T>(T);

#[async_trait]
impl ForwardJobStore for Slow<Arc<dyn JobStore>> {
    fn inner(&self) -> &dyn JobStore {
        &self.0
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        yield_now().await;
        self.0.ended(query).await
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        yield_now().await;
        self.0.is_needed(id).await
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        yield_now().await;
        self.0.get(id).await
    }

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        yield_now().await;
        self.0.note_removed(id, what, at).await?;
        yield_now().await;
        Ok(())
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        yield_now().await;
        self.0.remove(id).await?;
        yield_now().await;
        Ok(())
    }
}

/// A storage whose removals fail for the folder that is told.
#[derive(Debug)]
struct Failing(Arc<dyn ArtifactStorage>, Option<ArtifactKey>);

#[async_trait]
impl ArtifactStorage for Failing {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        self.0.put(key, bytes).await
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        self.0.copy_if_absent(from, to).await
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        self.0.head(key).await
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        self.0.stored_at(key).await
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        yield_now().await;
        self.0.list(prefix).await
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        self.0.folders(behind, limit).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        yield_now().await;
        if self.1.as_ref().is_some_and(|folder| key.as_str().starts_with(folder.as_str())) {
            return Err(Error::new(ErrorKind::Unavailable, "the storage is away"));
        }
        self.0.delete(key).await?;
        yield_now().await;
        Ok(())
    }

    fn url(&self, key: &ArtifactKey) -> String {
        self.0.url(key)
    }
}

fn slow(farm: &Farm, failing: Option<ArtifactKey>) -> Farm {
    let storage = Arc::new(Failing(Arc::clone(&farm.storage), failing));
    let store = Arc::new(Forward(Slow(Arc::clone(&farm.store))));
    Farm { store, storage, ..farm.clone() }
}

/// Rules with work on a small farm.
fn small() -> KeepRules {
    keep(Keep::at_most(60), Keep::at_most(3_000), Keep::at_most(1_000))
}

#[tokio::test]
async fn a_pass_that_is_dropped_anywhere_loses_nothing_but_what_is_left_to_do() {
    let whole = filled(in_memory(), 200).await;
    whole.collector(small()).pass(Mode::Remove).await.unwrap();
    let count = |farm: &Farm| {
        let farm = farm.clone();
        async move { (farm.all_ended().await.len(), farm.stored().await.len()) }
    };
    let expected = count(&whole).await;
    // Each pass comes a little further than the one before, so that the drops hit every await.
    for step in [1, 3] {
        let farm = filled(in_memory(), 200).await;
        let slow = slow(&farm, None);
        let (mut polls, mut crashes) = (0, 0);
        loop {
            let collector = slow.collector(small());
            let mut pass = Box::pin(collector.pass(Mode::Remove));
            let mut done = false;
            for _ in 0..polls {
                if futures_util::poll!(&mut pass).is_ready() {
                    done = true;
                    break;
                }
            }
            drop(pass);
            if done {
                break;
            }
            (polls, crashes) = (polls + step, crashes + 1);
            let (stored, ended) = (farm.stored().await, farm.all_ended().await);
            let known: BTreeSet<ArtifactKey> = ended.iter().flat_map(|job| farm.expected(job)).collect();
            assert!(stored.is_subset(&known), "what the store says is gone is gone");
            for id in farm.needed.iter() {
                assert!(farm.objects[id].is_subset(&stored), "what is needed is there");
            }
        }
        assert!(crashes >= 20, "{crashes}");
        assert_eq!(count(&farm).await, expected);
        check_objects(&farm).await;
        check_rules(&farm, small()).await;
    }
}

#[tokio::test]
async fn several_collectors_at_once_do_what_one_does() {
    let farm = filled(in_memory(), 400).await;
    two_at_once(&slow(&farm, None), &slow(&farm, None)).await;
}

#[tokio::test]
async fn what_cannot_be_removed_is_told_and_tried_by_the_next_pass() {
    let farm = filled(in_memory(), 200).await;
    let told = farm.collector(small()).pass(Mode::DryRun).await.unwrap();
    let first = told.removals[0].job;
    let failing = slow(&farm, Some(key(&first.to_string())));
    let done = failing.collector(small()).pass(Mode::Remove).await.unwrap();
    assert_eq!(done.failed, 1);
    assert!(done.removals.iter().all(|removal| removal.job != first));
    assert_eq!(done.removals.len(), told.removals.len() - 1, "the others went");
    farm.collector(small()).pass(Mode::Remove).await.unwrap();
    check_objects(&farm).await;
    check_rules(&farm, small()).await;
    // A storage that is away altogether ends the pass.
    let farm = filled(in_memory(), 200).await;
    let away = slow(&farm, Some(key("0")));
    assert_eq!(away.collector(small()).pass(Mode::Remove).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn removals_have_a_rate() {
    let farm = filled(in_memory(), 200).await;
    let mut options = CollectorOptions::new(small());
    options.removals_per_second = 100;
    let (store, storage) = (Arc::clone(&farm.store), Arc::clone(&farm.storage));
    let collector = Collector::new(store, storage, Arc::new(SteadyClock::starting_at(START)), options);
    let before = farm.stored().await.len();
    let begun = tokio::time::Instant::now();
    let done = collector.pass(Mode::Remove).await.unwrap();
    let removals = before - farm.stored().await.len() + done.removals.len();
    let (took, least) = (begun.elapsed(), Duration::from_millis(10) * u32::try_from(removals - 1).unwrap());
    assert!(took >= least && took < least * 2, "{removals} removals took {took:?}");
}

#[tokio::test]
async fn objects_stay_when_the_store_knows_no_job_at_all() {
    let storage = Arc::new(ObjectArtifactStorage::memory());
    let stray = stray();
    storage.put(&stray, bytes(vec![vec![1; 10]])).await.unwrap();
    let farm = Farm { store: in_memory(), storage, objects: Arc::default(), needed: Arc::default() };
    assert_eq!(farm.collector(small()).pass(Mode::Remove).await.unwrap(), Report::default());
    farm.storage.head(&stray).await.unwrap();
}
