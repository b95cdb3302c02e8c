//! Many seeds, some of them twice, and every seeded bug. `make sim SEEDS=…` runs more of them.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bugs::{self, FoundBy};
use super::*;
use crate::job_store::memory::MemoryJobStore;

/// Seeds of the usual tests.
const SEEDS: u64 = 200;

/// Seeds with which a bug is looked for before the suite is asked.
const SEEDS_FOR_A_BUG: u64 = 60;

/// Seeds with which a mistake of servers is looked for, which no suite finds.
const SEEDS_FOR_A_MISTAKE: u64 = 300;

/// Reports of violations that are shown.
const SHOWN: usize = 3;

fn memory() -> Arc<MemoryJobStore> {
    Arc::new(MemoryJobStore::default())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The seeds that were asked for: so many, from the first one on.
fn seeds() -> RangeInclusive<u64> {
    let (first, count) =
        (number("MELANGE_SIM_FIRST").unwrap_or(1), number("MELANGE_SIM_SEEDS").unwrap_or(SEEDS));
    first..=first + count - 1
}

/// Works on all numbers, on as many threads as there are processors.
fn on_all<T: Send>(numbers: RangeInclusive<u64>, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicU64::new(*numbers.start()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !numbers.contains(&number) {
                        return;
                    }
                    let told = work(number);
                    done.lock().unwrap().push((number, told));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, told)| told).collect()
}

#[test]
fn no_seed_breaks_a_rule() {
    let begun = std::time::Instant::now();
    let reports = on_all(seeds(), |seed| {
        let mut report = run(seed, memory());
        if report.violation.is_none() {
            report.trace = Vec::new();
        }
        report
    });
    let took = begun.elapsed();
    let sum = |what: fn(&Report) -> u64| reports.iter().map(what).sum::<u64>();
    let (jobs, attempts) = (sum(|report| report.jobs as u64), sum(|report| report.attempts));
    let hours = sum(|report| report.took.as_secs()) / 3_600;
    let rate = reports.len() as f64 / took.as_secs_f64();
    let seeds = reports.len();
    println!("{seeds} seeds in {took:.1?}, {rate:.0} a second: {jobs} jobs, {attempts} attempts, {hours} h");
    let broken: Vec<&Report> = reports.iter().filter(|report| report.violation.is_some()).collect();
    for report in broken.iter().take(SHOWN) {
        println!("{report}\nagain: make sim FIRST={} SEEDS=1\n", report.seed);
    }
    let broken: Vec<u64> = broken.iter().map(|report| report.seed).collect();
    assert!(broken.is_empty(), "seeds that break a rule: {broken:?}");
    if seeds as u64 >= SEEDS {
        assert!(jobs > seeds as u64 * 4 && attempts > jobs, "there is something to see");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let first = *seeds().start();
    on_all(first..=first + 29, |seed| {
        let (one, two) = (run(seed, memory()), run(seed, memory()));
        for (one, two) in one.trace.iter().zip(&two.trace) {
            assert_eq!(one, two, "seed {seed}");
        }
        assert_eq!((one.trace.len(), one.took), (two.trace.len(), two.took), "seed {seed}");
    });
}

#[test]
fn every_seeded_bug_is_found() {
    let count = (bugs::STORE_BUGS.len() + Mistake::ALL.len()) as u64;
    let found = on_all(0..=count - 1, |number| {
        let number = usize::try_from(number).unwrap();
        match bugs::STORE_BUGS.get(number) {
            Some(bug) => bugs::hunt_store(bug, 1..=SEEDS_FOR_A_BUG),
            None => {
                let (bug, mistake) = Mistake::ALL[number - bugs::STORE_BUGS.len()];
                bugs::hunt_mistake(bug, mistake, 1..=SEEDS_FOR_A_MISTAKE)
            }
        }
    });
    println!("bug | found by | what was said");
    found.iter().for_each(|hunted| println!("{hunted}"));
    let by_simulation = |hunted: &&bugs::Hunted| matches!(hunted.by, FoundBy::Simulation { .. });
    let by_simulation = found.iter().filter(by_simulation).count();
    println!("{by_simulation} of {} by the simulation", found.len());
    let missed: Vec<&str> = found
        .iter()
        .filter(|hunted| matches!(hunted.by, FoundBy::Nothing))
        .map(|hunted| hunted.bug)
        .collect();
    assert_eq!(missed, [""; 0], "bugs that nothing finds");
    assert!(by_simulation >= 25, "the simulation finds most of them");
}
