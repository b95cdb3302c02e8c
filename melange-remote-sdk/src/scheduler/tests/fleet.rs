//! Backends that fail or go away.

use std::collections::BTreeSet;

use super::*;
use crate::backend::registry::{FleetChange, FleetState};

/// Backends some of which do not answer; builds on them break off before their first step.
#[derive(Debug, Default)]
struct Daemons {
    away: std::sync::Mutex<BTreeSet<String>>,
    /// Whether probes find out.
    deaf: bool,
    builds: AtomicU32,
}

impl Daemons {
    fn set_away(&self, addr: &str, away: bool) {
        let mut set = self.away.lock().unwrap();
        if away {
            set.insert(addr.to_owned());
        } else {
            set.remove(addr);
        }
    }

    fn answer(&self, addr: &str) -> Result<()> {
        if self.away.lock().unwrap().contains(addr) {
            let refused = Error::new(ErrorKind::Unavailable, "connection refused");
            return Err(refused.blame(crate::error::Blame::Backend));
        }
        Ok(())
    }
}

#[async_trait]
impl crate::backend::BackendProbe for Daemons {
    async fn probe(&self, address: &crate::backend::BackendAddress) -> Result<()> {
        if self.deaf { Ok(()) } else { self.answer(&address.to_string()) }
    }
}

#[async_trait]
impl Builder for Daemons {
    async fn build(
        &self,
        input: &crate::builder::BuildInput,
        sink: Arc<dyn crate::builder::BuildSink>,
        _cancel: CancellationToken,
    ) -> Result<crate::builder::BuildOutcome> {
        self.answer(&input.backend_addr)?;
        self.builds.fetch_add(1, Ordering::Relaxed);
        sink.emit(BuildEvent::StepStarted { index: 0, total: 1, name: "make".to_owned() });
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(crate::builder::BuildOutcome::without_files(BuildStatus::Succeeded))
    }
}

fn farm_of(daemons: &Arc<Daemons>, addrs: &[&str]) -> Farm {
    let unused = ScriptedBuilder::new([]);
    let parts = SchedulerParts {
        pool: BackendPool::new(addrs.iter().map(|addr| backend(addr, 4))).unwrap(),
        builder: Arc::clone(daemons) as _,
        probe: Arc::clone(daemons) as _,
        ..parts(&unused, 4)
    };
    Farm::start_with(unused, parts)
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_costs_no_job_an_attempt() {
    for deaf in [false, true] {
        let daemons = Arc::new(Daemons { deaf, ..Daemons::default() });
        daemons.set_away("tcp://b:1", true);
        let farm = farm_of(&daemons, &["tcp://a:1", "tcp://b:1", "tcp://c:1"]);
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.push(farm.submit().await);
        }
        for id in ids {
            let job = farm.end(id).await;
            assert_eq!((job.state, job.counted_attempts), (JobState::Success, 1), "{:?}", job.error);
            assert_ne!(job.backend.as_ref().unwrap().addr, "tcp://b:1");
        }
        assert_eq!(daemons.builds.load(Ordering::Relaxed), 40);
        let state = farm.parts.pool.states().swap_remove(1);
        assert_eq!(state.last_failure.unwrap().message, "connection refused");
        farm.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_the_only_backend_and_say_so() {
    let daemons = Arc::new(Daemons::default());
    let farm = farm_of(&daemons, &["tcp://a:1"]);
    let mut ids = Vec::new();
    for _ in 0..24 {
        ids.push(farm.submit().await);
    }
    farm.end(ids[0]).await;
    daemons.set_away("tcp://a:1", true);
    let reason = "the only matching backend does not work: connection refused";
    let says_so = |job: &Job| job.waiting.as_ref().is_some_and(|waiting| waiting.reason == reason);
    farm.wait(ids[23], says_so).await;
    tokio::time::sleep(limits::BACKEND_TROUBLE * 2).await;
    daemons.set_away("tcp://a:1", false);
    for id in ids {
        let job = farm.end(id).await;
        assert_eq!((job.state, job.counted_attempts), (JobState::Success, 1), "{:?}", job.error);
    }
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_answers_and_never_builds_fails_its_jobs_in_the_end() {
    let daemons = Arc::new(Daemons { deaf: true, ..Daemons::default() });
    daemons.set_away("tcp://a:1", true);
    let farm = farm_of(&daemons, &["tcp://a:1"]);
    let (id, begun) = (farm.submit().await, Instant::now());
    let job = farm.end(id).await;
    assert_eq!((job.state, job.counted_attempts), (JobState::Failed, 1));
    assert_eq!(job.error.as_ref().unwrap().class, FailureClass::Infrastructure);
    assert!(begun.elapsed() >= limits::BACKEND_TROUBLE);
    farm.stop().await;
}

/// A store whose backends are full with the jobs of other servers.
#[derive(Debug, Default)]
struct Full {
    inner: MemoryJobStore,
    claims: AtomicU32,
}

#[async_trait]
impl ForwardJobStore for Arc<Full> {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }
    async fn claim(&self, _request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_others_fill_is_not_asked_for_without_a_pause() {
    let (builder, full) = (ScriptedBuilder::new([]), Arc::new(Full::default()));
    let parts = SchedulerParts { job_store: Arc::new(Forward(Arc::clone(&full))), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    farm.submit().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let claims = full.claims.load(Ordering::Relaxed);
    assert!((5..=25).contains(&claims), "{claims} claims in ten seconds");
    assert_eq!(farm.parts.pool.leased(), 0);
    farm.stop().await;
}

/// A store that does not answer for a while.
#[derive(Debug, Default)]
struct Hanging {
    inner: MemoryJobStore,
    hangs: AtomicBool,
}

#[async_trait]
impl ForwardJobStore for Arc<Hanging> {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner.demand(now).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_holds_neither_the_scheduler_nor_its_end_up() {
    let (builder, hanging) = (ScriptedBuilder::new([]), Arc::new(Hanging::default()));
    hanging.hangs.store(true, Ordering::Relaxed);
    let parts = SchedulerParts { job_store: Arc::new(Forward(Arc::clone(&hanging))), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    tokio::time::sleep(limits::LEASE).await;
    hanging.hangs.store(false, Ordering::Relaxed);
    assert_eq!(farm.end(id).await.state, JobState::Success);
    hanging.hangs.store(true, Ordering::Relaxed);
    tokio::time::sleep(limits::SCHEDULER_POLL * 2).await;
    let stops = tokio::time::timeout(limits::LEASE, farm.stop());
    stops.await.expect("it stops");
}

/// A store that takes neither lines nor ends, and renews leases.
#[derive(Debug, Default)]
struct ReadOnly {
    inner: MemoryJobStore,
    refuses: AtomicBool,
}

impl ReadOnly {
    fn answer(&self) -> Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the disk is full"));
        }
        Ok(())
    }
}

#[async_trait]
impl ForwardJobStore for Arc<ReadOnly> {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }
    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.answer()?;
        self.inner.append_log(fence, offset, bytes).await
    }
    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        self.answer()?;
        self.inner.finish(fence, outcome, at).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_keeps_its_lease_loses_neither_lines_nor_its_end() {
    let gate = Arc::new(Notify::new());
    let printed = [Act::line("one"), Act::Wait(Arc::clone(&gate)), Act::line("two")];
    let after = [Act::Wait(Arc::clone(&gate)), Act::line("three"), Act::Wait(Arc::clone(&gate))];
    let (builder, store) = (ScriptedBuilder::new(printed.into_iter().chain(after)), Arc::default());
    let store: Arc<ReadOnly> = store;
    let parts = SchedulerParts { job_store: Arc::new(Forward(Arc::clone(&store))), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    // Lines, then the end: each meets a store that refuses for several leases.
    for refuses in [true, false, true, false] {
        store.refuses.store(refuses, Ordering::Relaxed);
        gate.notify_one();
        tokio::time::sleep(limits::LEASE * 4).await;
    }
    let job = farm.end(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Success, 1));
    let log = farm.log(id).await;
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("---")).collect();
    assert_eq!(lines, ["one", "two", "three"]);
    farm.stop().await;
}

/// Two servers of one store with the same backends in their configurations.
struct TwoServers {
    daemons: Arc<Daemons>,
    store: MemoryJobStore,
    one: Farm,
    two: Farm,
}

impl TwoServers {
    fn start(addrs: &[&str], max_jobs: u32) -> Self {
        let (daemons, store) = (Arc::new(Daemons::default()), MemoryJobStore::default());
        let one = server_of(&daemons, &store, addrs, max_jobs);
        let two = server_of(&daemons, &store, addrs, max_jobs);
        Self { daemons, store, one, two }
    }
}

fn server_of(daemons: &Arc<Daemons>, store: &MemoryJobStore, addrs: &[&str], max_jobs: u32) -> Farm {
    let unused = ScriptedBuilder::new([]);
    let parts = SchedulerParts {
        job_store: Arc::new(store.clone()),
        registry: Arc::new(store.clone()),
        pool: BackendPool::new(addrs.iter().map(|addr| backend(addr, max_jobs))).unwrap(),
        builder: Arc::clone(daemons) as _,
        probe: Arc::clone(daemons) as _,
        ..parts(&unused, 4)
    };
    Farm::start_with(unused, parts)
}

/// Waits until a server sees the backend as asked.
async fn sees(farm: &Farm, addr: &str, what: impl Fn(&crate::backend::pool::BackendState) -> bool) {
    let mut hint = farm.parts.pool.changed();
    let seen = async {
        while !farm.parts.pool.state(addr, None).is_ok_and(|state| what(&state)) {
            hint.changed().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), seen).await;
    waited.unwrap_or_else(|_| panic!("it stays {:?}", farm.parts.pool.states()));
}

#[tokio::test(start_paused = true)]
async fn servers_share_what_they_know_of_backends() {
    use crate::backend::health::BackendStatus;

    let farms = TwoServers::start(&["tcp://a:1", "tcp://b:1"], 4);
    let (one, two) = (&farms.one, &farms.two);
    sees(two, "tcp://a:1", |state| state.status == BackendStatus::Healthy).await;
    // Until the first probes of both are answered.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What one of them finds out or is told, the other one knows.
    one.parts.pool.lease("tcp://a:1", JobResources::NONE).unwrap().unreachable(BackendFailure {
        message: "connection refused".to_owned(),
        hint: None,
        at: one.parts.clock.now(),
    });
    sees(two, "tcp://a:1", |state| state.status == BackendStatus::Failing).await;
    sees(two, "tcp://a:1", |state| state.status == BackendStatus::Healthy).await;
    one.fleet.drain("tcp://b:1", None).await.unwrap();
    sees(two, "tcp://b:1", |state| state.status == BackendStatus::Draining).await;
    two.fleet.add(backend("tcp://c:1", 2)).await.unwrap();
    sees(one, "tcp://c:1", |state| state.is_ours && state.is_added).await;
    assert_eq!(one.fleet.add(backend("tcp://c:1", 2)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    one.fleet.remove("tcp://a:1", None).await.unwrap();
    for _ in 0..10 {
        let job = two.end(two.submit().await).await;
        assert_eq!(job.backend.as_ref().unwrap().addr, "tcp://c:1");
    }
    // Both start again, with the configuration that they had.
    let TwoServers { daemons, store, one, two } = farms;
    one.stop().await;
    two.stop().await;
    let again = server_of(&daemons, &store, &["tcp://a:1", "tcp://b:1"], 4);
    sees(&again, "tcp://c:1", |state| state.status == BackendStatus::Healthy).await;
    let states = again.parts.pool.states();
    let told: Vec<(&str, BackendStatus)> =
        states.iter().map(|state| (state.backend.addr(), state.status)).collect();
    assert_eq!(told, [("tcp://b:1", BackendStatus::Draining), ("tcp://c:1", BackendStatus::Healthy)]);
    again.stop().await;
}

#[tokio::test(start_paused = true)]
async fn servers_share_the_slots_of_a_backend_and_see_their_use() {
    let farms = TwoServers::start(&["tcp://a:1"], 2);
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(farms.one.submit().await);
    }
    for farm in [&farms.one, &farms.two] {
        sees(farm, "tcp://a:1", |state| state.running == 2).await;
    }
    for id in &ids {
        let job = farms.two.end(*id).await;
        assert_eq!((job.state, job.counted_attempts), (JobState::Success, 1));
    }
    let leased = [&farms.one, &farms.two].map(|farm| farm.parts.pool.leased());
    assert_eq!(leased, [0, 0]);
    assert_eq!(farms.daemons.builds.load(Ordering::Relaxed), 6);
    // A server that died without a word is forgotten, and with it what it alone had.
    let other = server_of(&farms.daemons, &farms.store, &["tcp://other:1"], 2);
    sees(&farms.one, "tcp://other:1", |state| !state.is_ours).await;
    other.task.abort();
    tokio::time::sleep(limits::BACKENDS_CONFIGURED * 2).await;
    assert!(farms.one.parts.pool.state("tcp://other:1", None).is_err());
    farms.one.stop().await;
    farms.two.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_another_servers_backend_fits_waits_for_that_one() {
    let farms = TwoServers::start(&["tcp://a:1"], 2);
    let arm = Backend::new("tcp://arm:1", Arch::Aarch64, Labels::default()).unwrap();
    let unused = ScriptedBuilder::new([]);
    let gone = Arc::new(Daemons::default());
    gone.set_away("tcp://arm:1", true);
    let parts = SchedulerParts {
        job_store: Arc::new(farms.store.clone()),
        registry: Arc::new(farms.store.clone()),
        pool: BackendPool::new([arm]).unwrap(),
        probe: Arc::clone(&gone) as _,
        ..parts(&unused, 4)
    };
    let other = Farm::start_with(unused, parts);
    sees(&farms.one, "tcp://arm:1", |state| state.status.name() == "failing").await;
    let id = farms.one.submit_for(Arch::Aarch64).await;
    let reason = "the only matching backend does not work: connection refused";
    let says_so = |job: &Job| job.waiting.as_ref().is_some_and(|waiting| waiting.reason == reason);
    farms.two.wait(id, says_so).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let job = farms.two.parts.job_store.get(id).await.unwrap();
    assert!(says_so(&job), "no server takes the other's reason back: {:?}", job.waiting);
    gone.set_away("tcp://arm:1", false);
    assert_eq!(farms.one.end(id).await.state, JobState::Success);
    for farm in [farms.one, farms.two, other] {
        farm.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_word_has_run_out_gives_it_with_the_next_change() {
    let parts = parts(&ScriptedBuilder::new([]), 4);
    let scheduler = Scheduler::new(parts.clone(), SchedulerOptions::default());
    let fleet = scheduler.fleet();
    fleet.follow().await.unwrap();
    let slot = parts.pool.lease("tcp://a:1", JobResources::NONE).unwrap();
    // As after a time without the database.
    tokio::time::advance(limits::BACKENDS_CONFIGURED * 2).await;
    fleet.add(backend("tcp://c:1", 1)).await.unwrap();
    let addrs: Vec<String> = parts.pool.backends().iter().map(|own| own.addr().to_owned()).collect();
    assert_eq!(addrs, ["tcp://a:1", "tcp://c:1"]);
    assert_eq!(parts.pool.leased(), 1, "what runs is known");
    drop(slot);
    let (added, removed) = fleet.configure(vec![backend("tcp://b:1", 1)]).await.unwrap();
    assert_eq!((added, removed), (1, 1));
    assert!(
        parts.pool.lease("tcp://a:1", JobResources::NONE).is_none()
            && parts.pool.lease("tcp://b:1", JobResources::NONE).is_some()
    );
}

/// A registry that hangs, or refuses what servers say of their configurations.
#[derive(Debug, Default)]
struct Stubborn {
    inner: MemoryRegistry,
    hangs: AtomicBool,
    refuses: AtomicBool,
    words: AtomicU32,
}

impl Stubborn {
    async fn answer(&self) {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl BackendRegistry for Stubborn {
    async fn fleet(&self, server: &ServerId) -> Result<FleetState> {
        self.answer().await;
        self.inner.fleet(server).await
    }

    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        self.answer().await;
        if changes.iter().any(|change| matches!(change, FleetChange::Configure { .. })) {
            self.words.fetch_add(1, Ordering::Relaxed);
            if self.refuses.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::LimitExceeded, "there are too many backends"));
            }
        }
        self.inner.change_fleet(server, changes, at).await
    }

    fn fleet_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.fleet_changed()
    }
}

fn stubborn_farm() -> (Arc<Stubborn>, Farm) {
    let registry = Arc::new(Stubborn::default());
    let daemons = Arc::new(Daemons::default());
    let unused = ScriptedBuilder::new([]);
    let parts = SchedulerParts {
        registry: Arc::clone(&registry) as _,
        builder: Arc::clone(&daemons) as _,
        probe: daemons as _,
        ..parts(&unused, 4)
    };
    (registry, Farm::start_with(unused, parts))
}

#[tokio::test(start_paused = true)]
async fn many_requests_to_a_registry_that_hangs_hold_up_no_job() {
    let (registry, farm) = stubborn_farm();
    assert_eq!(farm.end(farm.submit().await).await.state, JobState::Success);
    registry.hangs.store(true, Ordering::Relaxed);
    let drains = (0..100).map(|_| {
        let fleet = farm.fleet.clone();
        tokio::spawn(async move { fleet.drain("tcp://a:1", None).await.unwrap_err().kind() })
    });
    let drains: Vec<_> = drains.collect();
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(farm.end(farm.submit().await).await.state, JobState::Success);
    }
    assert!(begun.elapsed() < limits::LEASE * 5, "{:?}", begun.elapsed());
    for drain in drains {
        assert_eq!(drain.await.unwrap(), ErrorKind::Unavailable);
    }
    // What is configured meanwhile is told as soon as the registry answers.
    let unanswered = farm.fleet.configure(vec![backend("tcp://a:1", 7), backend("tcp://b:1", 1)]).await;
    assert_eq!(unanswered.unwrap_err().kind(), ErrorKind::Unavailable);
    registry.hangs.store(false, Ordering::Relaxed);
    sees(&farm, "tcp://b:1", |state| state.is_ours).await;
    assert_eq!(farm.parts.pool.backends()[0].max_jobs(), 7);
    farm.fleet.drain("tcp://a:1", None).await.unwrap();
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_word_that_is_under_way_is_not_taken_for_the_next_one() {
    let parts = SchedulerParts { registry: Arc::new(Slow::default()), ..parts(&ScriptedBuilder::new([]), 4) };
    let scheduler = Scheduler::new(parts.clone(), SchedulerOptions::default());
    let fleet = scheduler.fleet();
    let (first, second) =
        tokio::join!(fleet.follow(), fleet.configure(vec![backend("tcp://a:1", 1), backend("tcp://b:1", 1)]));
    first.unwrap();
    assert_eq!(second.unwrap(), (2, 1));
    assert_eq!(parts.pool.backends().len(), 2);
}

/// A registry that answers after a while.
#[derive(Debug, Default)]
struct Slow(MemoryRegistry);

#[async_trait]
impl BackendRegistry for Slow {
    async fn fleet(&self, server: &ServerId) -> Result<FleetState> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.fleet(server).await
    }

    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.change_fleet(server, changes, at).await
    }

    fn fleet_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.fleet_changed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_word_that_is_refused_is_given_again_now_and_then_and_jobs_run_meanwhile() {
    let (registry, farm) = stubborn_farm();
    assert_eq!(farm.end(farm.submit().await).await.state, JobState::Success);
    registry.refuses.store(true, Ordering::Relaxed);
    let words = || registry.words.load(Ordering::Relaxed);
    // The word that holds is not taken for the new one, which is asked for at once.
    let refused = farm.fleet.configure(vec![backend("tcp://a:1", 2)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    let before = words();
    for _ in 0..10 {
        farm.parts.pool.lease("tcp://a:1", JobResources::NONE).unwrap().failed(BackendFailure {
            message: "it broke off".to_owned(),
            hint: None,
            at: farm.parts.clock.now(),
        });
        assert_eq!(farm.end(farm.submit().await).await.state, JobState::Success);
    }
    assert!(!farm.parts.pool.has_observations(), "what is seen is told without it");
    assert!(words() - before <= 2, "{} words", words() - before);
    registry.refuses.store(false, Ordering::Relaxed);
    tokio::time::sleep(limits::BACKENDS_CONFIGURED).await;
    assert_eq!(farm.parts.pool.backends()[0].max_jobs(), 2);
    // A server that ends says nothing more.
    let (fleet, pool) = (farm.fleet.clone(), farm.parts.pool.clone());
    farm.stop().await;
    let before = words();
    fleet.configure(vec![backend("tcp://b:1", 2)]).await.unwrap();
    assert_eq!(words(), before);
    assert!(pool.backends().is_empty());
}
