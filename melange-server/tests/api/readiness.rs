//! `GET /readyz`: each part that fails is named, and nothing else.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use melange_remote_sdk::artifact_storage::{
    ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact,
};
use melange_remote_sdk::job_store::{Claim, ClaimRequest, JobPage, ListQuery};

use super::*;

/// What a part does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Works,
    Fails,
    Hangs,
}

impl Part {
    async fn act(self) -> Result<()> {
        match self {
            Self::Works => Ok(()),
            Self::Fails => Err(Error::new(ErrorKind::Unavailable, "the disk is gone")),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// A job store that answers as told, and counts the times that it was read.
#[derive(Debug)]
struct Store {
    inner: Arc<dyn JobStore>,
    read: Part,
    write: Part,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl ForwardJobStore for Store {
    fn inner(&self) -> &dyn JobStore {
        &*self.inner
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read.act().await?;
        self.inner.list(query).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        assert!(request.offers.is_empty(), "nothing is claimed");
        self.write.act().await?;
        self.inner.claim(request).await
    }
}

/// A storage that lists as told.
#[derive(Debug)]
struct Storage(Arc<dyn ArtifactStorage>, Part);

#[async_trait]
impl ArtifactStorage for Storage {
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
        self.1.act().await?;
        self.0.list(prefix).await
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        self.0.folders(behind, limit).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        self.0.delete(key).await
    }

    fn url(&self, key: &ArtifactKey) -> String {
        self.0.url(key)
    }
}

/// A service whose requests meet these parts; its scheduler meets sound ones and has gone round.
async fn with_parts(read: Part, write: Part, storage: Part) -> (Service, Arc<AtomicUsize>) {
    let mut service = Service::start([]);
    while service.app.last_round.age().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reads = Arc::new(AtomicUsize::new(0));
    let app = &mut service.app;
    let inner = Arc::clone(&app.job_store);
    app.job_store = Arc::new(Forward(Store { inner, read, write, reads: Arc::clone(&reads) }));
    app.artifact_storage = Arc::new(Storage(Arc::clone(&app.artifact_storage), storage));
    service.router = router(service.app.clone());
    (service, reads)
}

/// The status, and each check that failed with its reason.
fn told(answer: &Answer) -> (u16, Vec<String>) {
    let body = answer.json();
    let checks = body["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["job_store_read", "job_store_write", "artifact_storage", "scheduler"]);
    let failed = checks.iter().filter(|check| check["status"] == "failed");
    let failed = failed.map(|check| {
        let text = |key: &str| check[key].as_str().unwrap().to_owned();
        format!("{}: {}", text("name"), text("reason"))
    });
    (answer.status.as_u16(), failed.collect())
}

#[tokio::test(start_paused = true)]
async fn each_part_that_fails_is_named() {
    use Part::{Fails, Hangs, Works};
    let (gone, silent) = ("the disk is gone", "there was no answer within 2 s");
    let cases = [
        ([Works, Works, Works], None),
        ([Fails, Works, Works], Some(("job_store_read", gone))),
        ([Works, Fails, Works], Some(("job_store_write", gone))),
        ([Works, Works, Fails], Some(("artifact_storage", gone))),
        ([Hangs, Works, Works], Some(("job_store_read", silent))),
        ([Works, Hangs, Works], Some(("job_store_write", silent))),
        ([Works, Works, Hangs], Some(("artifact_storage", silent))),
    ];
    for ([read, write, storage], failed) in cases {
        let (service, _) = with_parts(read, write, storage).await;
        let begun = tokio::time::Instant::now();
        let answer = service.get("/readyz").await;
        assert!(begun.elapsed() <= limits::READINESS_CHECK);
        let expected: Vec<_> = failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        assert_eq!(told(&answer), (if failed.is_none() { 200 } else { 503 }, expected));
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
        let retry = if failed.is_none() { "" } else { "5" };
        assert_eq!(answer.header(header::RETRY_AFTER), retry);
        assert_eq!(service.get("/healthz").await.status, StatusCode::OK, "it lives");
    }
    let (service, _) = with_parts(Works, Fails, Works).await;
    insta::assert_snapshot!("not_ready", redacted(service.get("/readyz").await.json()));
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_does_not_go_round_is_named() {
    let backend = Backend::new("tcp://a:1", Arch::X86_64, Labels::default()).unwrap();
    let parts = parts([], backend);
    let rules = SubmissionRules::new(Arch::X86_64);
    let Assembly { app, scheduler, .. } = Assembly::new(parts, rules, SchedulerOptions::default());
    let service = Service::of(app);
    let failed = async || told(&service.get("/readyz").await);
    assert_eq!(failed().await, (503, vec!["scheduler: it has not looked at the queue yet".to_owned()]));
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { scheduler.run(stop).await }
    });
    tokio::time::sleep(limits::SCHEDULER_ROUND_MAX * 2).await;
    assert_eq!(failed().await, (200, vec![]), "it goes round without anything to do");
    stop.cancel();
    running.await.unwrap();
    tokio::time::sleep(limits::SCHEDULER_ROUND_MAX + Duration::from_secs(1)).await;
    let (status, failed) = failed().await;
    assert_eq!(status, 503);
    assert!(failed[0].starts_with("scheduler: it looked at the queue last 3"), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn probes_cost_one_look_each_second_and_a_stopping_server_says_so_at_once() {
    let (service, reads) = with_parts(Part::Works, Part::Works, Part::Works).await;
    let probes = (0..50).map(|_| service.get("/readyz"));
    let answers = futures_util::future::join_all(probes).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(reads.load(Ordering::Relaxed), 1);
    tokio::time::sleep(limits::READINESS_KEPT).await;
    assert_eq!(service.get("/readyz").await.status, StatusCode::OK);
    assert_eq!(reads.load(Ordering::Relaxed), 2);
    service.app.stopping.cancel();
    let stopping = service.get("/readyz").await;
    assert_eq!(
        (stopping.status, &stopping.json()["status"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("stopping"))
    );
    assert_eq!(reads.load(Ordering::Relaxed), 2, "nothing is asked any more");
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_a_part_that_hangs_wait_for_one_look() {
    let (service, reads) = with_parts(Part::Hangs, Part::Works, Part::Works).await;
    let begun = tokio::time::Instant::now();
    let answers = futures_util::future::join_all((0..50).map(|_| service.get("/readyz"))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!((reads.load(Ordering::Relaxed), begun.elapsed()), (1, limits::READINESS_CHECK));
}
