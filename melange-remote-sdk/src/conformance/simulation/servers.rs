//! Servers that run, crash, stop and come back under another name.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Mistake;
use super::builder::SimulatedBuilder;
use super::storage::FaultyStorage;
use super::store::FaultyStore;
use super::world::{JumpingClock, Party, World, lock};
use crate::backend::Backend;
use crate::backend::pool::{BackendLease, BackendPool};
use crate::job::ServerId;
use crate::job_store::Patience;
use crate::job_store::forward::Forward;
use crate::limits;
use crate::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};

/// A run of a server.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) party: Arc<Party>,
    pub(super) pool: BackendPool,
    pub(super) shutdown: CancellationToken,
    pub(super) since: Instant,
}

/// A server, which has one run after the other.
#[derive(Debug)]
pub(super) struct Server {
    world: Arc<World>,
    index: usize,
    backends: Vec<Backend>,
    clock: JumpingClock,
    present: Mutex<Option<Present>>,
    /// Slots that the mistake of this name took.
    leaked: Mutex<Vec<BackendLease>>,
    /// No further run begins.
    closed: CancellationToken,
}

impl Server {
    pub(super) fn new(world: &Arc<World>, index: usize, backends: &[Backend]) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            index,
            backends: backends.to_vec(),
            clock: world.clock(),
            present: Mutex::default(),
            leaked: Mutex::default(),
            closed: CancellationToken::new(),
        })
    }

    pub(super) fn present(&self) -> Option<Present> {
        lock(&self.present).clone()
    }

    /// Its clock is so much ahead of the true one from now on.
    pub(super) fn set_clock(&self, ahead_ms: i64) {
        self.world.tell(&format!("the clock of server {} is {ahead_ms} ms ahead", self.index));
        self.clock.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    pub(super) fn crash(&self) {
        if let Some(present) = self.present() {
            self.world.tell(&format!("{} crashes", present.party.name));
            present.party.crash();
        }
    }

    pub(super) fn stop(&self) {
        if let Some(present) = self.present() {
            self.world.tell(&format!("{} is told to stop", present.party.name));
            present.shutdown.cancel();
        }
    }

    /// The store does not answer it for a while.
    pub(super) fn cut_off(&self, time: Duration) {
        if let Some(present) = self.present() {
            self.world.tell(&format!("{} is cut off for {} ms", present.party.name, time.as_millis()));
            *lock(&present.party.away_until) = Some(Instant::now() + time);
        }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        self.stop();
    }

    fn options(&self) -> SchedulerOptions {
        SchedulerOptions {
            lease: self.world.lease,
            patience: Patience { attempts: 3, time: Duration::from_secs(60) },
            shutdown_grace: Duration::from_secs(5),
            ..SchedulerOptions::default()
        }
    }

    async fn begin(&self, run: u32) -> (Present, Scheduler) {
        let party = Party::new(format!("s{}.{run}", self.index), true);
        let inner = self.world.store.handle().await;
        let (world, pool) = (&self.world, BackendPool::new(self.backends.clone()));
        let pool = pool.expect("the backends are legal");
        if world.mistake == Mistake::LeaksSlots {
            lock(&self.leaked).extend(
                self.backends.iter().filter_map(|backend| pool.lease(backend.addr(), Default::default())),
            );
        }
        let server: ServerId = party.name.parse().expect("the name is plain");
        let store = FaultyStore { world: Arc::clone(world), party: Arc::clone(&party), inner };
        let storage = FaultyStorage { world: Arc::clone(world), party: Arc::clone(&party) };
        let builder = SimulatedBuilder { world: Arc::clone(world), party: Arc::clone(&party) };
        let (store, builder) = (Arc::new(Forward(store)), Arc::new(builder));
        let parts = SchedulerParts::new(store, Arc::new(storage), builder, pool.clone());
        let mut parts = parts.with_clock(Arc::new(self.clock.clone()));
        parts.server = server;
        let (shutdown, since) = (CancellationToken::new(), Instant::now());
        (Present { party, pool, shutdown, since }, Scheduler::new(parts, self.options()))
    }

    /// Runs until it is closed.
    pub(super) async fn run(self: Arc<Self>) {
        let mut run = 0;
        while !self.closed.is_cancelled() {
            run += 1;
            let (present, scheduler) = self.begin(run).await;
            let name = present.party.name.clone();
            self.world.tell(&format!("{name} begins"));
            *lock(&self.present) = Some(present.clone());
            let shutdown = present.shutdown.clone();
            let mut task = AbortOnDropHandle::new(tokio::spawn(async move { scheduler.run(shutdown).await }));
            let ended = tokio::select! {
                biased;
                () = present.party.crashed.notified() => None,
                ended = &mut task => Some(ended),
            };
            // What was under way is dropped, wherever it waited.
            drop(task);
            *lock(&self.present) = None;
            match ended {
                Some(Err(error)) => self.world.violate(&format!("{name} broke off: {error}")),
                Some(Ok(())) => {
                    self.world.tell(&format!("{name} has stopped"));
                    self.check_leftovers(&present);
                }
                None => present.party.crash(),
            }
            let pause = tokio::time::sleep(self.world.time(10, 20_000));
            let pause = self.world.calm.run_until_cancelled(pause);
            self.closed.run_until_cancelled(pause).await;
        }
    }

    /// A server that stopped in order leaves nothing behind.
    fn check_leftovers(&self, present: &Present) {
        let name = &present.party.name;
        let leased = present.pool.leased();
        if leased > 0 {
            self.world.violate(&format!("{name} stopped and holds {leased} slots"));
        }
        let builds = self.world.builds();
        let left = builds.live.values().any(|live| live.party == *name);
        drop(builds);
        if left {
            self.world.violate(&format!("{name} stopped, and a build of it goes on"));
        }
    }

    /// How long it may take to stop.
    pub(super) fn patience(&self) -> Duration {
        let options = self.options();
        options.shutdown_grace + limits::CANCEL_GRACE + self.world.lease * 3
    }
}
