//! `melange-server gc`: one pass of the collector, and what it came to.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use melange_remote_sdk::retention::{Class, Mode, Reason, Report, UnusedSources};
use serde::Serialize;

use crate::args::Output;
use crate::assembly;
use crate::config::{Config, GcOptions};

/// Removals that are told one by one to people.
const SHOWN: usize = 20;

/// Removes once what the rules do not keep, or tells what that would be, and says so on standard output.
///
/// # Errors
/// When the database or the storage cannot be opened, the database is a running server's, or the pass broke off.
pub async fn run(config: &Config, options: GcOptions) -> Result<()> {
    let collector = assembly::lone_collector(config).await?;
    let report = collector.pass(options.mode).await?;
    // What was removed is told whatever comes of the sources.
    let (sources, failed) = match collector.remove_unused_sources(options.mode).await {
        Ok(sources) => (sources, None),
        Err(error) => (UnusedSources::default(), Some(error)),
    };
    let told = match options.output {
        Output::Text => text(&report, &sources, options.mode),
        Output::Json => json(&report, &sources, options.mode)?,
    };
    std::io::stdout().write_all(told.as_bytes()).context("cannot write to standard output")?;
    failed.map_or(Ok(()), |error| Err(error).context("unused sources could not be removed"))
}

/// The report as scripts read it.
#[derive(Serialize)]
struct Told<'r> {
    /// Whether nothing was removed.
    dry_run: bool,
    #[serde(flatten)]
    report: &'r Report,
    /// What belongs to no job.
    sources: &'r UnusedSources,
}

fn json(report: &Report, sources: &UnusedSources, mode: Mode) -> Result<String> {
    let told = Told { dry_run: mode == Mode::DryRun, report, sources };
    Ok(format!("{}\n", serde_json::to_string_pretty(&told).context("the report cannot be told")?))
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for next in UNITS {
        if whole < 1_024 {
            break;
        }
        (tenths, whole, unit) = (whole % 1_024 * 10 / 1_024, whole / 1_024, next);
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenths} {unit}") }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Age => "too old",
        Reason::Bound => "beyond the bound",
        Reason::Unknown => "not in the database",
    }
}

/// The report as people read it.
fn text(report: &Report, sources: &UnusedSources, mode: Mode) -> String {
    let mut told = String::new();
    let verb = if mode == Mode::DryRun { "would be removed" } else { "removed" };
    // Writing to a text cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(told, "{text}").unwrap_or_default();
    if report.removals.is_empty() && sources.count() == 0 {
        line(format_args!("nothing {verb}"));
    }
    for class in [Class::Jobs, Class::Artifacts, Class::Logs, Class::Orphans] {
        let Some(total) = report.totals.get(&class) else { continue };
        let of = if class == Class::Jobs { "" } else { " of jobs" };
        let (artifacts, logs) = (size(total.artifact_bytes), size(total.log_bytes));
        line(format_args!(
            "{} {}{of} {verb}: {artifacts} of artifacts, {logs} of logs",
            total.count,
            class.name()
        ));
        if let (Some(oldest), Some(newest)) = (total.oldest, total.newest) {
            line(format_args!("  ended between {oldest:.0} and {newest:.0}"));
        }
    }
    for removal in report.removals.iter().take(SHOWN) {
        let bytes = size(removal.artifact_bytes.saturating_add(removal.log_bytes));
        let (class, why) = (removal.class.name(), reason(removal.reason));
        line(format_args!(
            "{class:<9} {} {} {:.0} {bytes} ({why})",
            removal.job, removal.package, removal.ended_at
        ));
    }
    let rest = report.removals.len().saturating_sub(SHOWN);
    if rest > 0 {
        line(format_args!("and {rest} more; --output json tells all of them"));
    }
    for (files, what) in [
        (sources.fetched, "sources that no job used for a month"),
        (sources.archives, "archives of source files that no job needs"),
    ] {
        if files.count > 0 {
            line(format_args!("{} {what} {verb}: {}", files.count, size(files.bytes)));
        }
    }
    if report.failed > 0 {
        line(format_args!("{} could not be removed; run it again", report.failed));
    }
    if report.more || sources.more {
        line(format_args!("there is more than one pass removes; run it again"));
    }
    told
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use melange_remote_sdk::job::{JobId, JobState};
    use melange_remote_sdk::job_store::{EndedJob, Usage};
    use melange_remote_sdk::retention::{KeepRules, Plan};

    use super::*;

    #[test]
    fn sizes_are_read_by_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (200 << 30, "200.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn people_read_what_goes_and_why() {
        let now: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        let mut plan = Plan::new(KeepRules::default(), Usage::default(), now);
        let id: JobId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let ended_at: Timestamp = "2026-10-01T08:30:15Z".parse().unwrap();
        let mut job = EndedJob::new(id, JobState::Success, ended_at);
        (job.package, job.artifact_bytes) = ("hello".to_owned(), 3 << 20);
        let mut report = Report::default();
        for _ in 0..21 {
            report.removals.push(plan.take(Class::Artifacts, &job, Reason::Age));
        }
        let total = report.totals.entry(Class::Artifacts).or_default();
        (total.count, total.artifact_bytes) = (21, 63 << 20);
        (total.oldest, total.newest) = (Some(ended_at), Some(ended_at));
        (report.failed, report.more) = (1, true);
        let mut sources = UnusedSources::default();
        (sources.archives.count, sources.archives.bytes) = (3, 5 << 10);
        let told = text(&report, &sources, Mode::DryRun);
        let lines: Vec<&str> = told.lines().collect();
        insta::assert_snapshot!([&lines[..3], &lines[22..]].concat().join("\n"), @r"
        21 artifacts of jobs would be removed: 63.0 MiB of artifacts, 0 B of logs
          ended between 2026-10-01T08:30:15Z and 2026-10-01T08:30:15Z
        artifacts 0190163d-8694-739b-aea5-966c26f8ad91 hello 2026-10-01T08:30:15Z 3.0 MiB (too old)
        and 1 more; --output json tells all of them
        3 archives of source files that no job needs would be removed: 5.0 KiB
        1 could not be removed; run it again
        there is more than one pass removes; run it again
        ");
        let told: serde_json::Value =
            serde_json::from_str(&json(&report, &sources, Mode::DryRun).unwrap()).unwrap();
        let expected = serde_json::json!({
            "class": "artifacts", "reason": "age", "job": id.to_string(), "attempt": 0, "package": "hello",
            "ended_at": "2026-10-01T08:30:15Z", "artifact_bytes": 3 << 20, "log_bytes": 0,
        });
        assert_eq!(told["removals"][0], expected);
        assert_eq!(told["totals"]["artifacts"]["count"], 21);
        let none = serde_json::json!({ "count": 0, "bytes": 0 });
        let archives = serde_json::json!({ "count": 3, "bytes": 5 << 10 });
        let expected = serde_json::json!({ "fetched": none, "archives": archives, "more": false });
        assert_eq!(told["sources"], expected);
        assert_eq!((&told["removals"].as_array().unwrap().len(), &told["dry_run"]), (&21, &true.into()));
    }

    #[test]
    fn nothing_is_told_too() {
        assert_eq!(
            text(&Report::default(), &UnusedSources::default(), Mode::DryRun),
            "nothing would be removed\n"
        );
        let told = json(&Report::default(), &UnusedSources::default(), Mode::Remove).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["dry_run"], false);
        assert_eq!(told["removals"], serde_json::json!([]));
    }
}
