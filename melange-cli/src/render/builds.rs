//! Builds of many packages, for people.

use std::time::Duration;

use jiff::Timestamp;
use melange_remote_sdk::api::v1::JobView;
use melange_remote_sdk::api::v2::{BuildCountsView, BuildFailuresResponse, BuildPackageView, BuildView};

use super::{age, moment, reports, table};
use crate::progress::clock;
use crate::shown;

/// Names of a group that are told.
const NAMES_SHOWN: usize = 8;

/// How many jobs are in which state, without what is none.
pub(crate) fn counts(counts: &BuildCountsView) -> String {
    let cached = if counts.cached > 0 { format!(" ({} cached)", counts.cached) } else { String::new() };
    let states = [
        (counts.success, format!("success{cached}")),
        (counts.running, "running".to_owned()),
        (counts.pending, "pending".to_owned()),
        (counts.blocked, "blocked".to_owned()),
        (counts.failed, "failed".to_owned()),
        (counts.skipped, "skipped".to_owned()),
        (counts.cancelled, "cancelled".to_owned()),
    ];
    let told: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if told.is_empty() { "no jobs".to_owned() } else { told.join(", ") }
}

/// A table of builds.
pub(crate) fn builds(builds: &[BuildView], now: Timestamp) -> String {
    let mut rows = vec![["BUILD", "STATUS", "AGE", "DONE", "FAILED", "WHAT"].map(str::to_owned)];
    rows.extend(builds.iter().map(|build| {
        let counts = &build.counts;
        let ended = [counts.success, counts.failed, counts.skipped, counts.cancelled];
        let ended = ended.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
        [
            build.build_id.clone(),
            build.status.clone(),
            age(build.created_at, now),
            format!("{ended}/{}", counts.total),
            counts.failed.to_string(),
            build.title.clone(),
        ]
    }));
    table(&rows)
}

/// A build with its packages.
pub(crate) fn build(build: &BuildView, packages: &[BuildPackageView], now: Timestamp) -> String {
    let mut text = String::new();
    let mut line =
        |key: &str, value: &str| text.push_str(&format!("{:<10}{}\n", format!("{key}:"), shown::word(value)));
    line("build", &build.build_id);
    line("status", &build.status);
    line("what", &build.title);
    if let Some(git) = &build.git {
        line("git", &format!("{} {} ({})", git.url, git.reference, git.commit));
    }
    line("created", &moment(build.created_at, now));
    if !build.trigger.is_empty() {
        line("by", &build.trigger);
    }
    if let Some(at) = build.expected_at {
        let left = at.duration_since(now).max(jiff::SignedDuration::ZERO).unsigned_abs();
        line("ends", &format!("in about {}", clock(left)));
    }
    if let Some(at) = build.finished_at {
        line("finished", &moment(at, now));
        line("took", &took(at.duration_since(build.created_at).unsigned_abs()));
    }
    line("jobs", &counts(&build.counts));
    let plan = &build.plan;
    let archs = plan.architectures.join(", ");
    let left_out = if plan.skipped > 0 { format!(", {} left out", plan.skipped) } else { String::new() };
    line("plan", &format!("{archs}; {} levels, {} cuts{left_out}", plan.levels, plan.cuts));
    text.push('\n');
    text.push_str(&package_table(packages));
    text
}

pub(super) fn took(time: Duration) -> String {
    if time < Duration::from_secs(60) { format!("{:.1} s", time.as_secs_f64()) } else { clock(time) }
}

fn package_table(packages: &[BuildPackageView]) -> String {
    let mut rows = vec![["PACKAGE", "VERSION", "ARCH", "STATUS", "TOOK", "WHY"].map(str::to_owned)];
    rows.extend(packages.iter().map(|package| {
        let status = if package.cached { "cached".to_owned() } else { package.status.clone() };
        let time = package.took_ms.map(|ms| took(Duration::from_millis(ms))).unwrap_or_default();
        [
            package.name.clone(),
            package.version.clone().unwrap_or_default(),
            package.arch.clone(),
            status,
            time,
            why(package),
        ]
    }));
    table(&rows)
}

/// Why a package is where it is, in a few words.
fn why(package: &BuildPackageView) -> String {
    match &package.blocked_by[..] {
        [] => package.reason.clone().unwrap_or_default(),
        names => format!("waits for {}", some(names.iter().map(String::as_str))),
    }
}

/// The first of some names, and how many more there are.
pub(super) fn some<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let all: Vec<&str> = names.collect();
    let more = all.len().saturating_sub(NAMES_SHOWN);
    let shown: Vec<String> =
        all.iter().take(NAMES_SHOWN).map(|name| shown::word(name).into_owned()).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// Packages that wait, with what they wait for.
pub(crate) fn waiting(packages: &[BuildPackageView]) -> String {
    if packages.is_empty() {
        return "no package of the build waits\n".to_owned();
    }
    let mut rows = vec![["PACKAGE", "ARCH", "STATUS", "WHY"].map(str::to_owned)];
    rows.extend(packages.iter().map(|package| {
        let why = Some(why(package)).filter(|why| !why.is_empty());
        let why = why.unwrap_or_else(|| "its turn comes with the next free slot".to_owned());
        [package.name.clone(), package.arch.clone(), package.status.clone(), why]
    }));
    table(&rows)
}

/// What was left out, a line each.
pub(crate) fn skipped(packages: &[BuildPackageView]) -> String {
    let line = |package: &BuildPackageView| {
        let reason = package.reason.as_deref().unwrap_or_default();
        format!("  {} {}: {}\n", shown::word(&package.name), package.arch, shown::word(reason))
    };
    packages.iter().map(line).collect()
}

/// What became of a job, in one line.
pub(crate) fn verdict(job: &JobView) -> String {
    let name = job.package.as_deref().unwrap_or(&job.spec.config_name);
    let times = job.started_at.zip(job.finished_at).filter(|_| job.status != "skipped");
    let time = times.map(|(began, ended)| took(ended.duration_since(began).unsigned_abs()));
    let status = if job.reused.is_some() { "cached" } else { &job.status };
    let version = job.version.as_deref().unwrap_or_default();
    let mut line = format!("{status:<9} {} {version} {}", shown::word(name), job.spec.arch);
    if let Some(time) = time {
        line.push_str(&format!("  {time}"));
    }
    if let Some(error) = &job.error {
        line.push_str(&format!("  {}", shown::word(error)));
    }
    line
}

/// How a build ended: what failed, grouped by cause, and what was not built because of it.
pub(crate) fn summary(build: &BuildView, failures: &BuildFailuresResponse) -> String {
    let mut text = if failures.groups.is_empty() { String::new() } else { reports::failures(failures) };
    let time = build.finished_at.map(|at| took(at.duration_since(build.created_at).unsigned_abs()));
    let time = time.map(|time| format!(" in {time}")).unwrap_or_default();
    text.push_str(&format!("{} {}{time}: {}\n", build.build_id, build.status, counts(&build.counts)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependents: usize) -> BuildPackageView {
        serde_json::from_value(serde_json::json!({
            "name": name, "arch": "x86_64", "status": "failed", "dependents": dependents, "reason": "exit code 2",
        }))
        .unwrap()
    }

    fn view() -> BuildView {
        serde_json::from_value(serde_json::json!({
            "build_id": "build-01a21be7-3363-748f-9434-92c40ee720c7", "status": "partial", "project": "default",
            "title": "all", "created_at": "2026-11-27T10:00:00Z", "finished_at": "2026-11-27T10:02:05Z",
            "counts": { "total": 9, "blocked": 0, "pending": 0, "running": 0, "success": 4, "cached": 1, "failed": 3,
                        "cancelled": 0, "skipped": 2 },
            "plan": { "architectures": ["x86_64"], "levels": 3, "cuts": 1, "skipped": 2, "critical_path_s": 9 },
        }))
        .unwrap()
    }

    #[test]
    fn a_summary_has_the_failures_by_cause() {
        let group = |text: &str, names: &[&str], holds_back: usize| {
            let packages: Vec<serde_json::Value> =
                names.iter().map(|name| serde_json::json!({ "name": name, "arch": "x86_64" })).collect();
            serde_json::json!({ "signature": text, "error_class": "build", "text": text, "packages": packages,
                                "total": names.len(), "holds_back": holds_back })
        };
        let groups = [group("a.c:7: error", &["zstd", "xz"], 1), group("no space left", &["zlib"], 4)];
        let failures = serde_json::from_value(serde_json::json!({ "groups": groups, "total": 2 })).unwrap();
        let expected = "\
2 × a.c:7: error
    zstd, xz
    1 package waits for them
1 × no space left
    zlib
    4 packages wait for it
build-01a21be7-3363-748f-9434-92c40ee720c7 partial in 2 min 05 s: 4 success (1 cached), 3 failed, 2 skipped
";
        assert_eq!(summary(&view(), &failures), expected);
    }

    #[test]
    fn a_build_is_told_with_its_packages() {
        let mut waits = package("gtk", 0);
        (waits.status, waits.reason) = ("blocked".to_owned(), None);
        waits.blocked_by = (0..10).map(|number| format!("p{number}")).collect();
        let told = build(&view(), &[package("zlib", 4), waits], "2026-11-27T10:03:00Z".parse().unwrap());
        let rows: Vec<&str> = told.lines().skip_while(|line| !line.starts_with("PACKAGE")).collect();
        assert_eq!(
            rows,
            [
                "PACKAGE  VERSION  ARCH    STATUS   TOOK  WHY",
                "zlib              x86_64  failed         exit code 2",
                "gtk               x86_64  blocked        waits for p0, p1, p2, p3, p4, p5, p6, p7 and 2 more",
            ]
        );
        assert!(told.contains("jobs:     4 success (1 cached), 3 failed, 2 skipped\n"), "{told}");
        assert!(told.contains("took:     2 min 05 s\n"), "{told}");
    }
}
