//! What all parts of a run share: chance, time, faults, the trace and the first violation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Mistake;
use super::builder::Builds;
use super::history::History;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::clock::{Clock, SteadyClock};
use crate::conformance::job_store::{START, StoreUnderTest};
use crate::job::JobId;
use crate::job_store::{JobStore, ListQuery, Subject};
use crate::limits;

/// Failures in a row of one kind of call, outages apart: whoever tries again gets through in the end.
const FAILURES_IN_A_ROW: u32 = 3;

/// How often what happens, drawn for each run anew: some runs know only one kind of fault.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    pub(super) refused: f64,
    pub(super) unanswered: f64,
    pub(super) slow: f64,
    pub(super) crashes: f64,
    pub(super) hints_lost: f64,
    pub(super) hints_doubled: f64,
    pub(super) storage: f64,
    pub(super) builds: f64,
}

impl Levels {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut level = |levels: [f64; 4]| levels[rng.usize(..levels.len())];
        Self {
            refused: level([0.0, 0.0, 0.03, 0.2]),
            unanswered: level([0.0, 0.0, 0.05, 0.2]),
            slow: level([0.0, 0.05, 0.2, 0.6]),
            crashes: level([0.0, 0.0, 0.002, 0.01]),
            hints_lost: level([0.0, 0.0, 0.3, 0.9]),
            hints_doubled: level([0.0, 0.0, 0.1, 0.5]),
            storage: level([0.0, 0.0, 0.1, 0.4]),
            builds: level([0.0, 0.1, 0.2, 0.5]),
        }
    }
}

/// One run of a server, or the client: it may fall silent for ever at any moment.
#[derive(Debug)]
pub(super) struct Party {
    /// For the trace.
    pub(super) name: String,
    /// Whether it may crash.
    pub(super) mortal: bool,
    dead: AtomicBool,
    /// Wakes whoever clears the dead one away.
    pub(super) crashed: Notify,
    /// Calls are refused until then.
    pub(super) away_until: Mutex<Option<Instant>>,
    failures: Mutex<BTreeMap<&'static str, u32>>,
}

impl Party {
    pub(super) fn new(name: String, mortal: bool) -> Arc<Self> {
        let (dead, crashed) = (AtomicBool::new(false), Notify::new());
        let (away_until, failures) = (Mutex::default(), Mutex::default());
        Arc::new(Self { name, mortal, dead, crashed, away_until, failures })
    }

    /// It does nothing any more from here on.
    pub(super) fn crash(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.crashed.notify_one();
    }

    /// Comes back to the living only.
    pub(super) async fn breathe(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    fn is_away(&self) -> bool {
        lock(&self.away_until).is_some_and(|until| Instant::now() < until)
    }
}

/// When a party crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    /// When the call waits for something inside of the store.
    Within,
    After,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Luck {
    pub(super) before: Duration,
    pub(super) refused: bool,
    pub(super) crash: Option<Moment>,
    pub(super) unanswered: bool,
    pub(super) after: Duration,
}

/// A clock that jumps.
#[derive(Debug, Clone)]
pub(super) struct JumpingClock {
    steady: SteadyClock,
    pub(super) ahead_ms: Arc<AtomicI64>,
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        self.steady.now().checked_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

/// Somebody who waits for hints.
#[derive(Debug)]
struct Listener {
    subject: Subject,
    counter: Arc<watch::Sender<u64>>,
}

/// The hints of the store, and who waits for them.
#[derive(Debug)]
struct Hints {
    queue: watch::Receiver<u64>,
    cancellations: watch::Receiver<u64>,
    listeners: Vec<Listener>,
}

/// Everything around the servers of one run.
pub(super) struct World {
    pub(super) store: Arc<dyn StoreUnderTest>,
    /// Looks without faults.
    pub(super) reader: Arc<dyn JobStore>,
    pub(super) mistake: Mistake,
    pub(super) levels: Levels,
    pub(super) lease: Duration,
    /// Cancelled at the first violation.
    pub(super) violated: CancellationToken,
    pub(super) artifacts: ObjectArtifactStorage,
    history: Mutex<History>,
    builds: Mutex<Builds>,
    clock: SteadyClock,
    begun: Instant,
    rng: Mutex<fastrand::Rng>,
    trace: Mutex<Vec<String>>,
    violation: Mutex<Option<String>>,
    /// Cancelled when the faults end.
    pub(super) calm: CancellationToken,
    hints: Mutex<Hints>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("levels", &self.levels).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job's name in the trace.
pub(super) fn short(id: JobId) -> String {
    let bytes = id.as_bytes();
    format!("j{}", u16::from_be_bytes([bytes[14], bytes[15]]))
}

impl World {
    pub(super) async fn new(seed: u64, store: Arc<dyn StoreUnderTest>, mistake: Mistake) -> Arc<Self> {
        // The pauses of the scheduler draw from here.
        fastrand::seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let levels = Levels::draw(&mut rng);
        let lease = Duration::from_secs([3, 6, 15][rng.usize(..3)]);
        let reader = store.handle().await;
        let hints = Hints {
            queue: reader.changed(Subject::Queue),
            cancellations: reader.changed(Subject::Cancellations),
            listeners: Vec::new(),
        };
        Arc::new(Self {
            store,
            reader,
            mistake,
            levels,
            lease,
            violated: CancellationToken::new(),
            artifacts: ObjectArtifactStorage::memory(),
            history: Mutex::default(),
            builds: Mutex::default(),
            clock: SteadyClock::starting_at(START),
            begun: Instant::now(),
            rng: Mutex::new(rng),
            trace: Mutex::default(),
            violation: Mutex::default(),
            calm: CancellationToken::new(),
            hints: Mutex::new(hints),
        })
    }

    /// The true time of day.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn clock(&self) -> JumpingClock {
        JumpingClock { steady: self.clock, ahead_ms: Arc::default() }
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(super) fn builds(&self) -> MutexGuard<'_, Builds> {
        lock(&self.builds)
    }

    pub(super) fn chance(&self, of_one: f64) -> bool {
        lock(&self.rng).f64() < of_one
    }

    /// A number from `least` to `most`.
    pub(super) fn number(&self, least: usize, most: usize) -> usize {
        lock(&self.rng).usize(least..=most)
    }

    /// A time of whole milliseconds.
    pub(super) fn time(&self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(lock(&self.rng).u64(least_ms..=most_ms))
    }

    /// A fault that happens so often, while there are faults.
    pub(super) fn fault(&self, of_one: f64) -> bool {
        self.has_faults() && self.chance(of_one)
    }

    pub(super) fn has_faults(&self) -> bool {
        !self.calm.is_cancelled()
    }

    pub(super) fn end_faults(&self) {
        self.calm.cancel();
    }

    pub(super) fn tell(&self, what: &str) {
        let at = self.begun.elapsed();
        lock(&self.trace).push(format!("{:>8.3} {what}", at.as_secs_f64()));
    }

    /// A rule is broken; the first one is told.
    pub(super) fn violate(&self, what: &str) {
        self.tell(&format!("VIOLATION {what}"));
        lock(&self.violation).get_or_insert_with(|| what.to_owned());
        self.violated.cancel();
    }

    /// What was seen, and the first violation.
    pub(super) fn told(&self) -> (Vec<String>, Option<String>) {
        (std::mem::take(&mut *lock(&self.trace)), lock(&self.violation).take())
    }

    /// What becomes of a call.
    pub(super) fn luck(&self, party: &Party, what: &'static str) -> Luck {
        if !self.has_faults() {
            return Luck::default();
        }
        if party.is_away() {
            let before = if self.chance(0.3) { self.time(1, 4_000) } else { Duration::ZERO };
            return Luck { before, refused: true, ..Luck::default() };
        }
        let mut luck = Luck::default();
        if party.mortal && self.chance(self.levels.crashes) {
            luck.crash = Some([Moment::Before, Moment::Within, Moment::After][self.number(0, 2)]);
        }
        let slow = |chance: f64| {
            let most =
                if self.chance(0.1) { u64::try_from(self.lease.as_millis()).unwrap_or(0) } else { 300 };
            if self.chance(chance) { self.time(1, most) } else { Duration::ZERO }
        };
        (luck.before, luck.after) = (slow(self.levels.slow), slow(self.levels.slow / 2.0));
        luck.refused = self.chance(self.levels.refused);
        luck.unanswered = self.chance(self.levels.unanswered);
        let mut failures = lock(&party.failures);
        let failures = failures.entry(what).or_default();
        let fails = luck.refused || luck.unanswered || luck.before + luck.after >= self.lease / 3;
        *failures = if fails { *failures + 1 } else { 0 };
        if *failures > FAILURES_IN_A_ROW {
            *failures = 0;
            return Luck::default();
        }
        luck
    }

    /// Looks at all jobs, and at what changed by a call.
    pub(super) async fn observe(&self, cause: &'static str) {
        let query = ListQuery::newest(limits::PAGE_ITEMS_MAX);
        match self.reader.list(&query).await {
            Ok(page) => {
                let mut history = self.history();
                history.observe(cause, page.jobs);
                let told = history.take_told();
                drop(history);
                told.iter().for_each(|line| self.tell(line));
            }
            Err(error) => self.violate(&format!("the store cannot be read: {}", error.chain())),
        }
        self.pass_on_violations();
    }

    /// Takes over what the history found.
    pub(super) fn pass_on_violations(&self) {
        let found = std::mem::take(&mut self.history().violations);
        found.iter().for_each(|violation| self.violate(violation));
    }

    /// A counter of hints that may be lost, doubled and late. Each listener has one of its own: those who share one are
    /// woken in an order that no seed decides.
    pub(super) fn listen(&self, subject: Subject) -> watch::Receiver<u64> {
        let counter = Arc::new(watch::Sender::new(0));
        let receiver = counter.subscribe();
        lock(&self.hints).listeners.push(Listener { subject, counter });
        receiver
    }

    /// Hands the hints of the store on.
    pub(super) fn pass_hints(&self) {
        let mut hints = lock(&self.hints);
        let moved = |hint: &mut watch::Receiver<u64>| {
            let moved = hint.has_changed().unwrap_or(false);
            hint.mark_unchanged();
            moved
        };
        let (queue, cancellations) = (moved(&mut hints.queue), moved(&mut hints.cancellations));
        hints.listeners.retain(|listener| !listener.counter.is_closed());
        for listener in &hints.listeners {
            let told = match listener.subject {
                Subject::Queue => queue,
                Subject::Cancellations => cancellations,
                _ => false,
            };
            if !told || self.fault(self.levels.hints_lost) {
                continue;
            }
            move_on(&listener.counter);
            if self.fault(self.levels.hints_doubled) {
                let (counter, pause) = (Arc::clone(&listener.counter), self.time(1, 3_000));
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    move_on(&counter);
                });
            }
        }
    }
}

fn move_on(counter: &watch::Sender<u64>) {
    counter.send_modify(|count| *count = count.wrapping_add(1));
}
