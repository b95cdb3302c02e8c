//! A job store of one's own, and the proof that it keeps the contract.
//!
//! This one counts calls and hands them on to the memory store; a store on a database looks the same from
//! outside. The suite `conformance::job_store` is what every implementation of this project runs.
//!
//! `cargo run --example 05_custom_job_store`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use melange_remote_sdk::conformance::job_store as suite;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::{Job, JobAttempt, JobId};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{
    Claim, ClaimRequest, Fence, Inserted, JobPage, JobStore, Lease, ListQuery, LogChunk, NewJob, QueueQuery,
    QueuedJob, Record, Renewal, Subject,
};
use tokio::sync::watch;

/// Counts the calls that change something.
#[derive(Debug, Clone)]
struct Counting {
    inner: MemoryJobStore,
    writes: Arc<AtomicU64>,
}

impl Counting {
    fn count(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl JobStore for Counting {
    async fn insert(&self, job: NewJob) -> Result<Inserted> {
        self.count();
        self.inner.insert(job).await
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.inner.get(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        self.inner.list(query).await
    }

    async fn queue(&self, query: &QueueQuery) -> Result<Vec<QueuedJob>> {
        self.inner.queue(query).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.count();
        self.inner.claim(request).await
    }

    async fn renew(&self, leases: &[Lease], until: jiff::Timestamp) -> Result<Vec<Renewal>> {
        self.count();
        self.inner.renew(leases, until).await
    }

    async fn record(&self, record: Record) -> Result<Arc<Job>> {
        self.count();
        self.inner.record(record).await
    }

    async fn request_cancel(&self, id: JobId, at: jiff::Timestamp) -> Result<Arc<Job>> {
        self.count();
        self.inner.request_cancel(id, at).await
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        self.count();
        self.inner.remove(id).await
    }

    async fn retry(&self, id: JobId, at: jiff::Timestamp) -> Result<Arc<Job>> {
        self.inner.retry(id, at).await
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.inner.attempts(id).await
    }

    async fn append_log(&self, id: JobId, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.count();
        self.inner.append_log(id, fence, offset, bytes).await
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        self.inner.read_log(id, offset, limit).await
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.inner.changed(subject)
    }
}

/// How the suite gets at the store. A store on a database connects for each handle, and closes and opens it to
/// show that nothing is lost by a restart; this one lives as long as its handles.
#[async_trait]
impl suite::StoreUnderTest for Counting {
    async fn handle(&self) -> Arc<dyn JobStore> {
        Arc::new(self.clone())
    }

    async fn reopen(&self) -> Arc<dyn JobStore> {
        Arc::new(self.clone())
    }
}

#[tokio::main]
async fn main() {
    let store = Counting { inner: MemoryJobStore::default(), writes: Arc::default() };
    suite::all(&store).await;
    println!("the store keeps the contract; the suite wrote {} times", store.writes.load(Ordering::Relaxed));
}
