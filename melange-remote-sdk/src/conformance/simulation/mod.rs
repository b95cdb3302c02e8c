//! A farm in a box: schedulers, a store and builders under a virtual clock, with faults that a seed decides.
//!
//! One to three servers share the store under test. While there are faults, calls on the store are slow, refused, or
//! done and not answered; hints are lost and come twice; clocks jump; the artifact storage fails; builds break off, hang
//! and do not hear; servers crash in the middle of calls, are stopped, are cut off from the store, and come back. A client
//! hands in jobs that wait for one another, hands them in again, cancels and retries. Then the faults end, and everything
//! must come to its end.
//!
//! Rules, checked at every call:
//! * a job goes from state to state as the table of [`crate::job`] says, and comes to its end once, unless it is asked for
//!   again;
//! * a job has one owner, and whoever is not the owner changes nothing;
//! * nothing begins before what it waits for has succeeded, and nothing stays blocked by what has ended;
//! * a job that was asked to stop is not tried again;
//! * a backend runs no more jobs than it may;
//! * leases are settled when they have ended, and never before.
//!
//! And without faults: nothing waits while a matching slot is free; requests to stop are heard; stale builds stop; logs
//! have each line of an attempt once and in order; attempts are numbered without gaps; the artifacts of a job are there,
//! as its last attempt made them; servers stop and leave nothing behind.
//!
//! # Seeds
//! The same seed gives the same run, to the last line of its trace: everything runs on one thread, time moves only when
//! nobody has anything to do, chance comes from one source, and names do not. That holds for stores that answer without
//! waiting for the outside, as the one in memory does; built files are in memory for the same reason.
//!
//! ```
//! use std::sync::Arc;
//! use melange_remote_sdk::conformance::simulation;
//! use melange_remote_sdk::job_store::memory::MemoryJobStore;
//! let report = simulation::run(7, Arc::new(MemoryJobStore::default()));
//! assert_eq!(report.violation, None, "{report}");
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

mod builder;
mod calm;
mod client;
mod history;
mod servers;
mod storage;
mod store;
#[cfg(test)]
mod tests;
mod world;

pub mod bugs;

use crate::arch::Arch;
use crate::backend::Backend;
use crate::conformance::job_store::StoreUnderTest;
use crate::labels::Labels;
use calm::Watch;
use client::Client;
use servers::Server;
use world::World;

/// How long a farm without faults may take until all jobs have ended.
const CALM_MAX: Duration = Duration::from_secs(1_800);

/// How long what faults left behind may last: leases of clocks that were wrong, pauses of backends.
const SETTLING: Duration = Duration::from_secs(45);

/// Lines at the end of a trace that a report of a violation shows.
const LINES_SHOWN: usize = 60;

/// A mistake of all servers, as a scheduler could have it. Reports of runs with one must tell of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// There is none.
    None,
    /// Leases are not renewed, and builds go on.
    RenewsNothing,
    /// What a renewal says of a lost lease is not heard.
    IgnoresLostLeases,
    /// Nobody asks which jobs shall stop.
    IgnoresRequestsToStop,
    /// Leases that ended are left to others.
    SettlesNothing,
    /// A line that the store did not take is not written again.
    WritesLinesOnce,
    /// Artifacts are sometimes not stored, although the storage says so.
    StoresNothing,
    /// Logs are sometimes not stored, although the storage says so.
    StoresNoLogs,
    /// A slot of each backend is never given back.
    LeaksSlots,
}

impl Mistake {
    /// All mistakes, with what they are called.
    pub const ALL: [(&'static str, Self); 8] = [
        ("servers renew no leases", Self::RenewsNothing),
        ("servers go on without their leases", Self::IgnoresLostLeases),
        ("servers do not ask what shall stop", Self::IgnoresRequestsToStop),
        ("servers settle no leases", Self::SettlesNothing),
        ("lines are written once, taken or not", Self::WritesLinesOnce),
        ("artifacts are lost on their way", Self::StoresNothing),
        ("logs are lost on their way", Self::StoresNoLogs),
        ("slots are not given back", Self::LeaksSlots),
    ];
}

/// What a run came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// What decided the run.
    pub seed: u64,
    /// The first rule that was broken.
    pub violation: Option<String>,
    /// What happened, in order, with the seconds of virtual time before it.
    pub trace: Vec<String>,
    /// How many jobs there were.
    pub jobs: usize,
    /// How many attempts they had.
    pub attempts: u64,
    /// The virtual time that passed.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, jobs, attempts, .. } = self;
        let seconds = self.took.as_secs();
        let end = self.violation.as_deref().unwrap_or("no violation");
        let shown = if self.violation.is_some() { LINES_SHOWN } else { 0 };
        let from = self.trace.len().saturating_sub(shown);
        self.trace[from..].iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "seed {seed}: {jobs} jobs, {attempts} attempts, {seconds} s: {end}")
    }
}

/// One run on a new store.
///
/// # Panics
/// When there is no room for a runtime.
pub fn run(seed: u64, store: Arc<dyn StoreUnderTest>) -> Report {
    run_with(seed, store, Mistake::None)
}

/// One run in which all servers make a mistake.
///
/// # Panics
/// As [`run`].
pub fn run_with(seed: u64, store: Arc<dyn StoreUnderTest>, mistake: Mistake) -> Report {
    runtime().block_on(Box::pin(simulate(seed, store, mistake)))
}

/// One thread and virtual time.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("there is room for a runtime")
}

async fn simulate(seed: u64, store: Arc<dyn StoreUnderTest>, mistake: Mistake) -> Report {
    let begun = Instant::now();
    let world = World::new(seed, store, mistake).await;
    world.violated.run_until_cancelled(live(&world)).await;
    world.observe("look").await;
    let (jobs, attempts) = {
        let history = world.history();
        (history.jobs.len(), history.jobs.values().map(|job| u64::from(job.attempt)).sum())
    };
    let (trace, violation) = world.told();
    Report { seed, violation, trace, jobs, attempts, took: begun.elapsed() }
}

/// The backends of the farm: at least one for each architecture.
fn backends(world: &World) -> Vec<Backend> {
    let mut backends = Vec::new();
    for (place, arch) in [Arch::X86_64, Arch::Aarch64, Arch::X86_64].into_iter().enumerate() {
        if place == 2 && world.chance(0.5) {
            continue;
        }
        let most = u32::try_from(world.number(1, 3)).unwrap_or(1);
        let addr = format!("tcp://b{place}:1");
        world.history().max_jobs.insert(addr.clone(), most);
        let backend = Backend::new(&addr, arch, Labels::default());
        backends.extend(backend.and_then(|backend| backend.with_max_jobs(most)));
    }
    backends
}

/// The whole life of the farm.
async fn live(world: &Arc<World>) {
    let backends = backends(world);
    let count = [1, 2, 2, 3][world.number(0, 3)];
    let servers: Vec<Arc<Server>> = (0..count).map(|index| Server::new(world, index, &backends)).collect();
    world.tell(&format!("{count} servers, leases of {} s, {:?}", world.lease.as_secs(), world.levels));
    let client = Client::new(world).await;
    let mut running = JoinSet::new();
    for server in &servers {
        running.spawn(Arc::clone(server).run());
    }
    let mut acts = JoinSet::new();
    acts.spawn(Arc::clone(&client).submit());
    let (trouble, doing) = (troubles(world, &servers), act(world, &client, &mut acts));
    tokio::join!(biased; trouble, doing);
    world.tell("the faults end");
    world.end_faults();
    servers.iter().for_each(|server| server.set_clock(0));
    while let Some(ended) = acts.join_next().await {
        if let Err(error) = ended {
            world.violate(&format!("the client broke off: {error}"));
        }
    }
    settle(world, &servers, &client).await;
    calm::check_all(world).await;
    stop(world, &servers, running).await;
}

/// A client at work.
async fn act(world: &World, client: &Arc<Client>, acts: &mut JoinSet<()>) {
    for _ in 0..world.number(3, 14) {
        tokio::time::sleep(client::thinking_time(world)).await;
        client.act(acts);
    }
}

/// Crashes, stops, outages and clocks that jump.
async fn troubles(world: &World, servers: &[Arc<Server>]) {
    // Some farms have none.
    for _ in 0..[0, 4, 8, 16][world.number(0, 3)] {
        tokio::time::sleep(world.time(0, 9_000)).await;
        let server = &servers[world.number(0, servers.len() - 1)];
        match world.number(0, 9) {
            0..=1 => server.crash(),
            2 => server.stop(),
            3 => server.cut_off(world.time(100, 40_000)),
            4 => {
                let time = world.time(100, 20_000);
                servers.iter().for_each(|server| server.cut_off(time));
            }
            5..=6 => server.set_clock(jump(world, 500)),
            7..=8 => server.set_clock(jump(world, 60_000)),
            _ => {}
        }
    }
}

fn jump(world: &World, most_ms: u64) -> i64 {
    let ahead = i64::try_from(world.time(0, most_ms).as_millis()).unwrap_or(0);
    if world.chance(0.5) { ahead } else { -ahead }
}

/// Watches until all jobs have ended.
async fn settle(world: &World, servers: &[Arc<Server>], client: &Client) {
    let begun = Instant::now();
    // What was claimed by a call that was slow when the faults ended is over by then.
    world.history().calm_from = Some(begun + world.lease + Duration::from_secs(5));
    let mut watch = Watch::default();
    loop {
        let settled = begun.elapsed() >= SETTLING;
        watch.look(world, servers, settled).await;
        let unfinished = calm::unfinished(world);
        if unfinished.is_empty() && world.builds().live.is_empty() {
            return;
        }
        if begun.elapsed() >= CALM_MAX {
            return world.violate(&format!("nothing ends any more: {}", unfinished.join(", ")));
        }
        client.cancel_hanging().await;
        tokio::time::sleep(calm::LOOK).await;
    }
}

async fn stop(world: &World, servers: &[Arc<Server>], mut running: JoinSet<()>) {
    let patience = servers.iter().map(|server| server.patience()).max().unwrap_or_default();
    servers.iter().for_each(|server| server.close());
    let all = async {
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                world.violate(&format!("a server broke off: {error}"));
            }
        }
    };
    if tokio::time::timeout(patience, all).await.is_err() {
        world.violate("a server does not stop");
    }
    let left = world.builds().live.len();
    if left > 0 {
        world.violate(&format!("{left} builds are left over"));
    }
}
