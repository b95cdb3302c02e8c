//! Why a job waits: every kind, as it is told. Nothing runs the jobs here, so that all stands still.

use melange_remote_sdk::backend::health::BackendFailure;
use melange_remote_sdk::job::JobResources;
use melange_remote_sdk::job::{
    ClaimToken, FailureClass, JobBackend, JobError, JobState, Outcome, Priority, ServerId,
};
use melange_remote_sdk::job_store::{
    Claim, ClaimRequest, Group, NewJob, Offer, Release, Selection, Submission,
};

use super::*;

/// A server whose scheduler does not run.
struct Still {
    service: Service,
}

impl Still {
    fn new(backends: impl IntoIterator<Item = Backend>) -> Self {
        let parts = parts_of([], backends);
        let rules = SubmissionRules::new(Arch::X86_64);
        let Assembly { app, .. } = Assembly::new(parts, rules, SchedulerOptions::default());
        Self { service: Service::of(app) }
    }

    async fn submit(&self, more: Value) -> JobId {
        let mut request = hello();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.service.submit(&request).await.parse().unwrap()
    }

    /// Claims the job that is next, for the backend at an address.
    async fn claim(&self, group: Group, addr: &str) -> Claim {
        let app = &self.service.app;
        let backend = JobBackend::new(addr, Arch::X86_64, Labels::default());
        let now = app.clock.now();
        let until = now + jiff::SignedDuration::from_secs(3_600);
        let offers = vec![Offer::new(group, backend, 1, 4)];
        let request = ClaimRequest::new(ClaimToken::new(), ServerId::unique(), offers, now, until);
        app.job_store.claim(&request).await.unwrap().remove(0)
    }

    async fn group_of(&self, id: JobId) -> Group {
        Group::of(&self.service.app.job_store.get(id).await.unwrap())
    }

    /// Submits a job and lets a backend run it: in the store, and in the pool.
    async fn run(&self, addr: &str) -> Claim {
        let id = self.submit(json!({})).await;
        let claim = self.claim(self.group_of(id).await, addr).await;
        // The slot is the test's, and never given back.
        std::mem::forget(self.service.app.pool.lease(addr, JobResources::NONE).unwrap());
        claim
    }

    async fn succeed(&self, claim: &Claim) {
        let outcome = Outcome::made(Vec::new());
        self.service.app.job_store.finish(claim.fence, &outcome, self.service.app.clock.now()).await.unwrap();
    }

    /// Why a job waits, without what is different in every run; times are told from `origin` on.
    async fn why(&self, id: JobId, origin: jiff::Timestamp) -> String {
        let job = self.service.get(&format!("/api/v1/jobs/{id}")).await.json();
        let Some(mut waiting) = job.get("waiting").cloned() else { return "null".to_owned() };
        for name in ["since", "starts_at"] {
            if let Some(at) = waiting.get(name).and_then(Value::as_str) {
                let at: jiff::Timestamp = at.parse().unwrap();
                waiting[name] = format!("{} s", at.duration_since(origin).as_secs()).into();
            }
        }
        let blocking = waiting.get_mut("blocked_by").and_then(Value::as_array_mut);
        for blocking in blocking.into_iter().flatten() {
            blocking["id"] = "[id]".into();
        }
        serde_json::to_string_pretty(&waiting).unwrap().replace(&id.to_string(), "[id]")
    }

    fn now(&self) -> jiff::Timestamp {
        self.service.app.clock.now()
    }
}

fn backend(addr: &str, max_jobs: u32) -> Backend {
    Backend::new(addr, Arch::X86_64, Labels::default()).unwrap().with_max_jobs(max_jobs).unwrap()
}

#[tokio::test(start_paused = true)]
async fn capacity_position_and_start_are_told() {
    let farm = Still::new([backend("tcp://a:1", 1), backend("tcp://b:1", 2)]);
    let origin = farm.now();
    let first = farm.submit(json!({})).await;
    insta::assert_snapshot!("ready", farm.why(first, origin).await);
    // One job of a minute tells how long they take.
    let claim = farm.claim(farm.group_of(first).await, "tcp://a:1").await;
    tokio::time::advance(Duration::from_secs(60)).await;
    farm.succeed(&claim).await;
    farm.run("tcp://a:1").await;
    let waiting = farm.submit(json!({})).await;
    insta::assert_snapshot!("ready_beside_a_busy_backend", farm.why(waiting, origin).await);
    for _ in 0..2 {
        let claim = farm.claim(farm.group_of(waiting).await, "tcp://b:1").await;
        std::mem::forget(farm.service.app.pool.lease("tcp://b:1", JobResources::NONE).unwrap());
        assert_eq!(claim.job.state, JobState::Running);
        farm.submit(json!({})).await;
    }
    tokio::time::advance(Duration::from_secs(20)).await;
    let next =
        farm.service.app.job_store.list(&melange_remote_sdk::job_store::ListQuery::newest(1)).await.unwrap();
    let last = next.jobs[0].id;
    insta::assert_snapshot!("capacity", farm.why(last, origin).await);
    let behind = farm.submit(json!({})).await;
    insta::assert_snapshot!("capacity_behind_another", farm.why(behind, origin).await);
    // More urgent ones, and another project's: they go first, or take turns.
    let urgent = farm.submit(json!({ "priority": 900 })).await;
    insta::assert_snapshot!("capacity_urgent", farm.why(urgent, origin).await);
    for _ in 0..5 {
        farm.submit(json!({ "project": "other" })).await;
    }
    let mine = farm.submit(json!({ "project": "mine" })).await;
    insta::assert_snapshot!("capacity_beside_projects", farm.why(mine, origin).await);
}

#[tokio::test(start_paused = true)]
async fn capacity_without_history_tells_no_start() {
    let farm = Still::new([backend("tcp://a:1", 1)]);
    let origin = farm.now();
    farm.run("tcp://a:1").await;
    let waiting = farm.submit(json!({})).await;
    insta::assert_snapshot!("capacity_without_history", farm.why(waiting, origin).await);
}

#[tokio::test(start_paused = true)]
async fn backends_that_do_not_match_or_work_are_told() {
    let labels = Labels::from_pairs([("tier", "high")]).unwrap();
    let high = Backend::new("tcp://high:1", Arch::X86_64, labels).unwrap();
    let arm = Backend::new("tcp://arm:1", Arch::Aarch64, Labels::default()).unwrap();
    let farm = Still::new([backend("tcp://a:1", 1), high, arm]);
    let origin = farm.now();
    let (fleet, pool) = (farm.service.app.fleet.clone(), farm.service.app.pool.clone());
    let labelled = farm.submit(json!({ "backend_selector": { "tier": "high" } })).await;
    let of_arm = farm.submit(json!({ "arch": "aarch64" })).await;
    let plain = farm.submit(json!({})).await;
    fleet.remove("tcp://high:1", None).await.unwrap();
    fleet.remove("tcp://arm:1", None).await.unwrap();
    insta::assert_snapshot!("no_backend_with_labels", farm.why(labelled, origin).await);
    insta::assert_snapshot!("no_backend_of_the_architecture", farm.why(of_arm, origin).await);
    fleet.drain("tcp://a:1", None).await.unwrap();
    insta::assert_snapshot!("draining", farm.why(plain, origin).await);
    fleet.enable("tcp://a:1", None).await.unwrap();
    let failure = BackendFailure { message: "connection refused".to_owned(), hint: None, at: farm.now() };
    pool.lease("tcp://a:1", JobResources::NONE).unwrap().unreachable(failure);
    insta::assert_snapshot!("unhealthy", farm.why(plain, origin).await);
}

/// All of them in one call.
#[tokio::test(start_paused = true)]
async fn the_queue_is_told_as_a_whole() {
    let high = Backend::new("tcp://high:1", Arch::X86_64, Labels::from_pairs([("tier", "high")]).unwrap());
    let arm = Backend::new("tcp://arm:1", Arch::Aarch64, Labels::default()).unwrap();
    let farm = Still::new([backend("tcp://a:1", 1), high.unwrap(), arm]);
    let queue = async || redacted(farm.service.get("/api/v1/queue").await.json());
    assert!(queue().await.contains("\"pending\": 0"));
    let running = farm.run("tcp://a:1").await;
    for project in ["one", "one", "two"] {
        farm.submit(json!({ "project": project, "backend_selector": { "tier": "high" } })).await;
    }
    farm.submit(json!({ "waits_for": [running.job.id.to_string()] })).await;
    let of_arm = farm.submit(json!({ "arch": "aarch64" })).await;
    farm.service.app.fleet.drain("tcp://arm:1", None).await.unwrap();
    assert!(queue().await.contains("\"pending\": 0"), "what was told is new for a second");
    tokio::time::advance(Duration::from_secs(2)).await;
    insta::assert_snapshot!("queue", queue().await);
    assert_eq!(farm.service.app.job_store.get(of_arm).await.unwrap().state, JobState::Pending);
}

#[tokio::test(start_paused = true)]
async fn other_jobs_and_pauses_are_told() {
    let farm = Still::new([backend("tcp://a:1", 4)]);
    let origin = farm.now();
    let app = &farm.service.app;
    let first = farm.submit(json!({})).await;
    let second = farm.submit(json!({})).await;
    let one = farm.submit(json!({ "waits_for": [first.to_string()] })).await;
    let both = farm.submit(json!({ "waits_for": [first.to_string(), second.to_string()] })).await;
    insta::assert_snapshot!("blocked_by_one", farm.why(one, origin).await);
    insta::assert_snapshot!("blocked_by_several", farm.why(both, origin).await);
    let claim = farm.claim(farm.group_of(first).await, "tcp://a:1").await;
    assert_eq!(claim.job.id, first);
    insta::assert_snapshot!("blocked_by_one_that_runs", farm.why(one, origin).await);
    assert_eq!(farm.why(first, origin).await, "null", "it runs");
    let mut release = Release::new(JobError::new(FailureClass::Infrastructure, "the daemon is gone"));
    release.not_before = Some(farm.now() + jiff::SignedDuration::from_secs(30));
    app.job_store.release(claim.fence, &release, farm.now()).await.unwrap();
    insta::assert_snapshot!("retry_pause", farm.why(first, origin).await);
    tokio::time::advance(Duration::from_secs(31)).await;
    insta::assert_snapshot!("ready_after_a_pause", farm.why(first, origin).await);
    app.job_store.set_priority(Selection::Job(second), Priority::MAX).await.unwrap();
    app.job_store.cancel(Selection::Job(second), farm.now()).await.unwrap();
    assert_eq!(farm.why(second, origin).await, "null", "it has ended");
    let skipped = app.job_store.get(both).await.unwrap();
    assert_eq!(skipped.state, JobState::Skipped);
    // What was handed in by another way than this API has no package.
    let spec = app.job_store.spec(first).await.unwrap();
    let new = NewJob::new(JobId::new(farm.now()), spec).waiting_for([first]);
    let id = new.id;
    app.job_store.submit(&Submission::new([new], farm.now())).await.unwrap();
    assert!(farm.why(id, origin).await.contains("blocked"));
}
