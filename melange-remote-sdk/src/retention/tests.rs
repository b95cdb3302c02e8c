//! The rules as tables and properties, and the collector on a store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::clock::{SteadyClock, earlier};
use crate::conformance::job_store::START;
use crate::job::{BuildId, JobId, JobState};
use crate::job_store::{EndedJob, Usage};

#[path = "collecting_tests.rs"]
mod collecting;
#[path = "farm_tests.rs"]
mod farm;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use collecting::keeps_its_rules;
#[cfg(feature = "sqlite")]
pub(crate) use collecting::removes_nearly_everything;
#[cfg(feature = "postgres")]
pub(crate) use collecting::two_at_once;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use farm::filled;

const DAY: Duration = Duration::from_secs(86_400);

/// A job that ended so many days before [`START`].
fn ended(days: u32) -> EndedJob {
    let mut job = EndedJob::new(JobId::new(START), JobState::Success, earlier(START, DAY * days));
    (job.artifact_bytes, job.log_bytes, job.attempt) = (100, 10, 1);
    job
}

fn plan(rules: KeepRules, usage: Usage) -> Plan {
    Plan::new(rules, usage, START)
}

fn keep(jobs: Keep, artifacts: Keep, logs: Keep) -> KeepRules {
    let mut rules = KeepRules::ALL;
    (rules.jobs, rules.artifacts, rules.logs) = (jobs, artifacts, logs);
    rules
}

#[test]
fn what_is_old_goes_by_class() {
    let plan = plan(KeepRules::default(), Usage::default());
    let goes = |days| Class::RULED.map(|class| plan.reason(class, &ended(days)).is_some());
    for (days, expected) in [
        (1, [false, false, false]),
        (14, [false, false, false]),
        (15, [false, true, false]),
        (91, [false, true, true]),
        (366, [true, true, true]),
    ] {
        assert_eq!(goes(days), expected, "{days} days");
        let over = Class::RULED.map(|class| plan.is_over(class, ended(days).finished_at));
        assert_eq!(over, expected.map(|goes| !goes), "{days} days");
    }
}

#[test]
fn what_is_beyond_a_bound_goes_until_it_holds() {
    let rules = keep(Keep::ALL, Keep::at_most(250), Keep::ALL);
    let mut plan = plan(rules, Usage::new(5, 500, 50));
    let jobs: Vec<EndedJob> = (1..=5).rev().map(ended).collect();
    let mut gone = Vec::new();
    for job in &jobs {
        assert_eq!(plan.reason(Class::Logs, job), None, "logs have no bound");
        if let Some(reason) = plan.reason(Class::Artifacts, job) {
            assert_eq!(reason, Reason::Bound);
            assert!(!plan.is_over(Class::Artifacts, job.finished_at));
            gone.push(plan.take(Class::Artifacts, job, reason).artifact_bytes);
        }
    }
    assert_eq!(gone, [100, 100, 100], "200 of 250 are left");
    assert!(plan.is_over(Class::Artifacts, jobs[4].finished_at));
}

#[test]
fn a_removed_job_counts_in_no_class() {
    let rules = keep(Keep::at_most(1), Keep::at_most(150), Keep::at_most(15));
    let mut plan = plan(rules, Usage::new(2, 200, 20));
    let (old, young) = (ended(2), ended(1));
    let reason = plan.reason(Class::Jobs, &old).unwrap();
    let removal = plan.take(Class::Jobs, &old, reason);
    assert_eq!((removal.artifact_bytes, removal.log_bytes), (100, 10));
    for job in [&old, &young] {
        for class in Class::RULED {
            assert_eq!(plan.reason(class, job), None, "{class:?}");
        }
    }
}

#[test]
fn what_is_protected_stays() {
    let rules = keep(Keep::at_most(0), Keep::within(Duration::ZERO), Keep::at_most(0));
    let plan = plan(rules, Usage::new(9, 900, 90));
    let told = |change: fn(&mut EndedJob)| {
        let mut job = ended(500);
        change(&mut job);
        (plan.protection(&job), Class::RULED.map(|class| plan.reason(class, &job).is_some()))
    };
    assert_eq!(told(|_| {}), (None, [true; 3]));
    assert_eq!(told(|job| job.is_newest = true), (Some(Protection::Newest), [false; 3]));
    assert_eq!(told(|job| job.build_is_open = true), (Some(Protection::OpenBuild), [false; 3]));
    assert_eq!(told(|job| job.finished_at = START), (Some(Protection::Recent), [false; 3]));
    let nothing = told(|job| (job.artifact_bytes, job.log_bytes) = (0, 0));
    assert_eq!(nothing, (None, [true, false, false]));
    let rules = KeepRules { latest: KeepLatest::No, ..rules };
    let plan = Plan::new(rules, Usage::new(9, 900, 90), START);
    let newest = EndedJob { is_newest: true, ..ended(500) };
    assert_eq!(plan.reason(Class::Artifacts, &newest), Some(Reason::Age));
}

#[test]
fn two_bounds_are_as_narrow_as_the_narrower_one() {
    let both = Keep::within(DAY).and(Keep::at_most(5)).and(Keep::within(DAY * 2)).and(Keep::ALL);
    assert_eq!((both.age, both.most), (Some(DAY), Some(5)));
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let age = proptest::option::of((0u32..40).prop_map(|days| DAY * days));
    (age, proptest::option::of(0u64..1_500)).prop_map(|(age, most)| Keep { age, most })
}

prop_compose! {
    fn any_job()(
        minutes in 0u32..60_000,
        artifact_bytes in 0u64..200,
        log_bytes in 0u64..50,
        (build_is_open, is_newest, in_build) in any::<(bool, bool, bool)>(),
    ) -> EndedJob {
        let at = earlier(START, Duration::from_secs(60) * minutes);
        let mut job = EndedJob::new(JobId::new(START), JobState::Success, at);
        job.build = in_build.then(|| BuildId::new(START));
        job.build_is_open = in_build && build_is_open;
        (job.is_newest, job.artifact_bytes, job.log_bytes) = (is_newest, artifact_bytes, log_bytes);
        job
    }
}

proptest! {
    /// Gone through as the collector does: nothing protected goes, and what is left is protected or within all bounds.
    #[test]
    fn bounds_hold_and_nothing_protected_goes(
        jobs in proptest::collection::vec(any_job(), 0..30),
        (of_jobs, of_artifacts, of_logs) in (any_keep(), any_keep(), any_keep()),
        keeps_latest in any::<bool>(),
    ) {
        let mut rules = keep(of_jobs, of_artifacts, of_logs);
        rules.latest = if keeps_latest { KeepLatest::Yes } else { KeepLatest::No };
        let mut jobs = jobs;
        jobs.sort_by_key(EndedJob::place);
        let sum = |of: fn(&EndedJob) -> u64| jobs.iter().map(of).sum::<u64>();
        let count = u64::try_from(jobs.len()).unwrap();
        let usage = Usage::new(count, sum(|job| job.artifact_bytes), sum(|job| job.log_bytes));
        let mut plan = plan(rules, usage);
        let mut gone: HashSet<(Class, JobId)> = HashSet::new();
        for class in Class::RULED {
            for job in &jobs {
                if plan.is_over(class, job.finished_at) {
                    break;
                }
                if let Some(reason) = plan.reason(class, job) {
                    prop_assert!(plan.protection(job).is_none());
                    plan.take(class, job, reason);
                    gone.insert((class, job.id));
                }
            }
        }
        let is_there = |class, job: &EndedJob| {
            !gone.contains(&(Class::Jobs, job.id)) && !gone.contains(&(class, job.id))
        };
        for (class, rule, bytes) in [
            (Class::Jobs, rules.jobs, (|_| 1) as fn(&EndedJob) -> u64),
            (Class::Artifacts, rules.artifacts, |job| job.artifact_bytes),
            (Class::Logs, rules.logs, |job| job.log_bytes),
        ] {
            let left: Vec<&EndedJob> = jobs.iter().filter(|job| is_there(class, job) && bytes(job) > 0).collect();
            let free: Vec<&&EndedJob> = left.iter().filter(|job| plan.protection(job).is_none()).collect();
            if let Some(age) = rule.age {
                prop_assert!(free.iter().all(|job| job.finished_at >= earlier(START, age)), "{class:?}");
            }
            if let Some(most) = rule.most {
                let used: u64 = left.iter().map(|job| bytes(job)).sum();
                prop_assert!(used <= most || free.is_empty(), "{class:?}: {used} of {most}");
            }
        }
    }
}
