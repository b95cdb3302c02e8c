//! What is told about a build and about a package, for people.

use std::time::Duration;

use jiff::Timestamp;
use melange_remote_sdk::api::v2::{
    BuildBlockersResponse, BuildChangesResponse, BuildFailuresResponse, PackageHistoryResponse, StandingView,
};

use super::builds::{some, took};
use super::{age, table};
use crate::shown;

/// Failures, a group each.
pub(crate) fn failures(told: &BuildFailuresResponse) -> String {
    let mut text = String::new();
    for group in &told.groups {
        text.push_str(&format!("{} × {}\n", group.total, shown::word(&group.text)));
        text.push_str(&format!("    {}\n", some(group.packages.iter().map(|package| package.name.as_str()))));
        if group.holds_back > 0 {
            let packages = if group.holds_back == 1 { "package waits" } else { "packages wait" };
            let them = if group.total == 1 { "it" } else { "them" };
            text.push_str(&format!("    {} {packages} for {them}\n", group.holds_back));
        }
    }
    let more = told.total.saturating_sub(told.groups.len());
    if more > 0 {
        text.push_str(&format!("and {more} more groups\n"));
    }
    if text.is_empty() { "nothing failed\n".to_owned() } else { text }
}

/// What differs from another build.
pub(crate) fn changes(told: &BuildChangesResponse) -> String {
    let Some(since) = &told.since else {
        return "there is no build before of the same project and source; --since names one\n".to_owned();
    };
    let lists = [
        ("newly failing", &told.newly_failing),
        ("well again", &told.newly_well),
        ("still failing", &told.still_failing),
        ("new", &told.new),
        ("gone", &told.gone),
    ];
    let mut text = format!("{} since {since}\n", told.build_id);
    for ((name, packages), count) in lists.into_iter().zip(&told.counts).filter(|(_, count)| **count > 0) {
        text.push_str(&format!("{count} {name}: {}\n", some(packages.iter().map(|it| it.name.as_str()))));
    }
    if told.counts.iter().all(|count| *count == 0) {
        text.push_str("nothing differs\n");
    }
    if told.undecided > 0 {
        text.push_str(&format!("{} have not ended yet\n", told.undecided));
    }
    text
}

/// What holds others back.
pub(crate) fn blockers(told: &BuildBlockersResponse) -> String {
    if told.blockers.is_empty() {
        return "nothing holds others back\n".to_owned();
    }
    let mut rows = vec![["HOLDS BACK", "PACKAGE", "ARCH", "STATUS", "WHY"].map(str::to_owned)];
    rows.extend(told.blockers.iter().map(
        |StandingView { name, arch, status, holds_back, reason, .. }| {
            let (status, reason) = (status.clone().unwrap_or_default(), reason.clone().unwrap_or_default());
            [holds_back.to_string(), name.clone(), arch.clone(), status, reason]
        },
    ));
    table(&rows)
}

/// The last jobs of a package.
pub(crate) fn history(told: &PackageHistoryResponse, now: Timestamp) -> String {
    if told.jobs.is_empty() {
        return "no job of this package is known\n".to_owned();
    }
    let head = ["VERSION", "ARCH", "STATUS", "AGE", "TOOK", "SIZE", "MEMORY", "JOB", "WHY"];
    let mut rows = vec![head.map(str::to_owned)];
    let mebibytes = |bytes: Option<u64>| {
        bytes.map(|bytes| format!("{} MiB", bytes.div_ceil(1 << 20))).unwrap_or_default()
    };
    rows.extend(told.jobs.iter().map(|job| {
        let status = if job.cached { "cached".to_owned() } else { job.status.clone() };
        let time = job.took_ms.filter(|_| !job.cached);
        [
            job.version.clone().unwrap_or_default(),
            job.arch.clone(),
            status,
            age(job.created_at, now),
            time.map(|ms| took(Duration::from_millis(ms))).unwrap_or_default(),
            mebibytes(job.size),
            mebibytes(job.peak_memory_bytes),
            job.job_id.clone(),
            job.reason.clone().unwrap_or_default(),
        ]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_what_they_are() {
        let package = |name: &str| serde_json::json!({ "name": name, "arch": "x86_64" });
        let view = |since: Option<&str>| {
            serde_json::from_value(serde_json::json!({
                "build_id": "build-2", "since": since, "newly_failing": [package("zlib"), package("xz")],
                "newly_well": [], "still_failing": [package("gtk")], "new": [], "gone": [],
                "counts": [2, 0, 1, 0, 0], "undecided": 3,
            }))
            .unwrap()
        };
        let expected =
            "build-2 since build-1\n2 newly failing: zlib, xz\n1 still failing: gtk\n3 have not ended yet\n";
        assert_eq!(changes(&view(Some("build-1"))), expected);
        assert!(changes(&view(None)).starts_with("there is no build before"));
    }

    #[test]
    fn a_history_has_a_line_for_each_job() {
        let told: PackageHistoryResponse = serde_json::from_value(serde_json::json!({ "jobs": [
            { "job_id": "j2", "arch": "x86_64", "version": "1-r1", "status": "success", "cached": false,
              "created_at": "2026-11-27T10:00:00Z", "took_ms": 61_000, "size": 1_048_577, "peak_memory_bytes": 104_857_600 },
            { "job_id": "j1", "arch": "x86_64", "version": "1-r0", "status": "failed", "cached": false,
              "created_at": "2026-11-26T10:00:00Z", "reason": "make failed" },
        ] }))
        .unwrap();
        let told = history(&told, "2026-11-27T10:01:00Z".parse().unwrap());
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "1-r1 x86_64 success 1m 1 min 01 s 2 MiB 100 MiB j2"
        );
        assert!(lines[2].ends_with("make failed"), "{told}");
    }
}
