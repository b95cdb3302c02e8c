//! A job store of one's own, and the proof that it keeps the contract.
//!
//! This one counts some calls and hands all of them on to the memory store; a store on a database looks the same from
//! outside. The suite `conformance::job_store` is what every implementation of this project runs.
//!
//! `cargo run --example 05_custom_job_store`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use melange_remote_sdk::conformance::job_store as suite;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::Outcome;
use melange_remote_sdk::job_store::forward::{Forward, ForwardJobStore};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{
    Claim, ClaimRequest, Fence, Finished, JobIntake, JobQueue, JobStore, Submission, Submitted,
};

/// Counts submissions, claims and ends.
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
impl ForwardJobStore for Counting {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }

    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        self.count();
        self.inner.submit(submission).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.count();
        self.inner.claim(request).await
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        self.count();
        self.inner.finish(fence, outcome, at).await
    }
}

/// How the suite gets at the store. A store on a database connects for each handle, and closes and opens it to
/// show that nothing is lost by a restart; this one lives as long as its handles.
#[async_trait]
impl suite::StoreUnderTest for Counting {
    async fn handle(&self) -> Arc<dyn JobStore> {
        Arc::new(Forward(self.clone()))
    }

    async fn reopen(&self) -> Arc<dyn JobStore> {
        Arc::new(Forward(self.clone()))
    }
}

#[tokio::main]
async fn main() {
    let store = Counting { inner: MemoryJobStore::default(), writes: Arc::default() };
    suite::all(&store).await;
    println!(
        "the store keeps the contract; the suite handed in, claimed and ended {} times",
        store.writes.load(Ordering::Relaxed)
    );
}
