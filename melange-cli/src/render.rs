//! What people read.

pub(crate) mod builds;
pub(crate) mod plan;
pub(crate) mod reports;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use melange_remote_sdk::analysis::lint::LintDetails;
use melange_remote_sdk::api::v1::{
    BackendStateView, BackendView, DiagnosisView, ErrorBody, ErrorResponse, FindingView, JobView,
    diagnostic_details,
};
use melange_remote_sdk::client::Refusal;
use melange_remote_sdk::error::Error;
use melange_remote_sdk::text::quantity::gibibytes;

use crate::exit::mistakes;
use crate::shown;

/// An error with its causes and hint; a definition's mistakes in full.
pub(crate) fn error(error: &Error) -> String {
    if let Some(diagnostics) = mistakes(error) {
        return diagnostics.to_string();
    }
    let mut text = format!("error: {}\n", error.chain());
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// The same as one line of JSON, in the form that the server's errors have.
pub(crate) fn error_json(error: &Error) -> String {
    let refusal = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Refusal>());
    let body = match (refusal, mistakes(error)) {
        (Some(refusal), _) => refusal.body.clone(),
        (None, found) => ErrorBody {
            code: error.kind().code().to_owned(),
            // Mistakes are told one by one in the details.
            message: if found.is_some() { error.to_string() } else { error.chain() },
            hint: error.hint_text().map(str::to_owned),
            details: found.map(diagnostic_details).unwrap_or_default(),
        },
    };
    serde_json::to_string(&ErrorResponse { error: body }).unwrap_or_default()
}

/// A moment as people read it: the local time with its zone, and how long ago.
fn moment(at: Timestamp, now: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
    format!("{local} ({} ago)", age(at, now))
}

/// How long ago a moment was, in its largest unit.
fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A job in a few lines.
pub(crate) fn job(job: &JobView, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line =
        |key: &str, value: &str| text.push_str(&format!("{:<10}{}\n", format!("{key}:"), shown::word(value)));
    line("job", &job.id);
    line("status", &job.status);
    if let Some(package) = &job.package {
        line("package", &format!("{package} {}", job.version.as_deref().unwrap_or_default()));
    }
    if !job.spec.config_name.is_empty() {
        line("file", &job.spec.config_name);
    }
    if let Some(digest) = &job.spec.source {
        line("sources", digest);
    }
    line("arch", &job.spec.arch);
    line("created", &moment(job.created_at, now));
    if let Some(at) = job.started_at {
        line("started", &moment(at, now));
    }
    if let Some(at) = job.finished_at {
        line("finished", &moment(at, now));
    }
    if let (Some(begin), Some(end)) = (job.started_at, job.finished_at) {
        line("took", &format!("{:.1} s", end.duration_since(begin).as_secs_f64()));
    }
    if let Some(backend) = &job.backend {
        line("backend", &backend.addr);
    }
    for (what, removed_at) in [("artifacts", job.artifacts_removed_at), ("log", job.log_removed_at)] {
        if let Some(at) = removed_at {
            line(what, &format!("removed {}", moment(at, now)));
        }
    }
    if job.attempt > 1 {
        line("attempt", &job.attempt.to_string());
    }
    if let Some(reason) = &job.waiting_reason {
        line("waiting", reason);
    }
    if job.project != "default" && !job.project.is_empty() {
        line("project", &job.project);
    }
    for id in &job.blocked_by {
        line("waits for", id);
    }
    if job.status == "running"
        && let Some(step) = job.steps.last()
    {
        line("step", &format!("{} ({})", step.index + 1, step.name));
    }
    if let Some(error) = &job.error {
        let class = job.error_class.as_ref().map(|class| format!(" ({class})")).unwrap_or_default();
        line("error", &format!("{error}{class}"));
    }
    if let Some(note) = &job.note {
        line("note", note);
    }
    for (package, finding) in findings(job) {
        line("lint", &format!("{package}: {}", finding_line(finding)));
    }
    for test in &job.tests {
        let error = test.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        line("test", &format!("{} {}{error}", test.package, test.status));
    }
    for artifact in &job.artifacts {
        line("artifact", &format!("{} ({} bytes)", artifact.name, artifact.size));
    }
    text.push_str(&failure(job));
    text
}

/// What linters found, with the package that it is about.
fn findings(job: &JobView) -> impl Iterator<Item = (&str, &FindingView)> {
    job.lint.iter().flat_map(|lint| lint.findings.iter().map(|finding| (lint.package.as_str(), finding)))
}

/// A finding in one line, with the first of what it is about.
fn finding_line(finding: &FindingView) -> String {
    let details = finding.details.as_ref().map(LintDetails::lines).unwrap_or_default();
    let more =
        u64::try_from(details.len().saturating_sub(1)).unwrap_or(u64::MAX).saturating_add(finding.omitted);
    let about = match (details.first(), more) {
        (None, _) => String::new(),
        (Some(first), 0) => format!(": {first}"),
        (Some(first), more) => format!(": {first} and {more} more"),
    };
    let FindingView { linter, severity, message, .. } = finding;
    format!("{} [{linter}] {}{about}", severity.name(), message.trim_end_matches(':'))
}

/// What failed: the step at fault, when a step is, with the lines around its error or else with its last ones.
pub(crate) fn failure(job: &JobView) -> String {
    let tested = job.tests.iter().find_map(|test| test.failure.as_ref());
    let step = job.failure.as_ref().or(tested);
    let mut text = match step {
        Some(failure) => {
            format!("the step `{}` failed with exit code {}; ", shown::word(&failure.step), failure.exit_code)
        }
        None => String::new(),
    };
    match (&job.diagnosis, step) {
        (Some(diagnosis), _) if !diagnosis.extract.is_empty() => {
            text.push_str(&extract(diagnosis));
            let which = if step.is_some() { " --failed" } else { "" };
            text.push_str(&format!("hint: melange remote logs {}{which}\n", shown::word(&job.id)));
        }
        (_, Some(failure)) => {
            text.push_str("its last lines:\n");
            failure.tail.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        (_, None) => {}
    }
    text
}

/// Lines of a log with their numbers; the one that says what failed is marked.
fn extract(diagnosis: &DiagnosisView) -> String {
    let numbers = diagnosis.extract.iter().map(|line| line.n.to_string().len());
    let width = numbers.max().unwrap_or_default();
    let mut text = "from the log:\n".to_owned();
    for line in &diagnosis.extract {
        let mark = if diagnosis.line == Some(line.n) { '>' } else { ' ' };
        let row = format!("{mark} {:>width$}  {}", line.n, shown::line(&line.text));
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Characters of an id that are shown at least.
const SHORT_ID_MIN: usize = 8;

/// The shortest beginnings that tell these ids apart.
fn short_ids<'a>(ids: &[&'a str]) -> Vec<&'a str> {
    let longest = ids.iter().map(|id| id.len()).max().unwrap_or_default();
    let begin = |id: &'a str, length: usize| id.get(..length).unwrap_or(id);
    let distinct = |length: &usize| {
        let begins: std::collections::BTreeSet<&str> = ids.iter().map(|id| begin(id, *length)).collect();
        // A hyphen at the end tells nothing.
        begins.len() == ids.len() && !begins.iter().any(|begin| begin.ends_with('-'))
    };
    let length = (SHORT_ID_MIN..longest).find(distinct).unwrap_or(longest);
    ids.iter().map(|id| begin(id, length)).collect()
}

/// A table of jobs.
pub(crate) fn jobs(jobs: &[JobView], now: Timestamp) -> String {
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    let head = ["JOB", "PACKAGE", "VERSION", "ARCH", "STATUS", "AGE", "BACKEND"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(jobs.iter().zip(short_ids(&ids)).map(|(job, id)| {
        let backend = job.backend.as_ref().map(|backend| backend.addr.clone());
        // A job whose definition names no package for its architecture is known by its file.
        let package = job.package.clone().unwrap_or_else(|| job.spec.config_name.clone());
        [
            id.to_owned(),
            package,
            job.version.clone().unwrap_or_default(),
            job.spec.arch.clone(),
            job.status.clone(),
            age(job.created_at, now),
            backend.unwrap_or_default(),
        ]
    }));
    table(&rows)
}

/// A table of backends, and how many of all slots are in use.
pub(crate) fn backends(backends: &[BackendView], now: Timestamp) -> String {
    let head = ["ADDR", "ARCH", "STATUS", "JOBS", "USE", "SOURCE", "LABELS", "LAST FAILURE"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(backends.iter().map(|backend| {
        let labels: Vec<String> =
            backend.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let most = backend.max_jobs.map(|jobs| jobs.to_string()).unwrap_or_default();
        let state = backend.state.clone().unwrap_or_default();
        let jobs = format!("{}/{most}", state.running);
        let share = used(backend, &state);
        let ago = state.last_error_at.map(|at| format!(" ({} ago)", age(at, now))).unwrap_or_default();
        let failure = state.last_error.map(|error| error + &ago).unwrap_or_default();
        let place = state.machine.iter().fold(backend.addr.clone(), |addr, on| format!("{addr} on {on}"));
        [place, backend.arch.clone(), state.status, jobs, share, state.source, labels.join(","), failure]
    }));
    let (running, slots) = backends.iter().fold((0u32, 0u32), |(running, slots), backend| {
        let here = backend.state.as_ref().map_or(0, |state| state.running);
        (running.saturating_add(here), slots.saturating_add(backend.max_jobs.unwrap_or_default()))
    });
    let share = share_of(running, slots).map(|share| format!(" ({share})")).unwrap_or_default();
    format!("{}{running} of {slots} slots in use{share}\n", table(&rows))
}

/// What of a backend is in use: of its slots, and of the cores and the memory that somebody said it has.
fn used(backend: &BackendView, state: &BackendStateView) -> String {
    let slots = share_of(state.running, backend.max_jobs.unwrap_or_default());
    let (cores, tenths) = (state.used_cpu_millis / 1_000, state.used_cpu_millis % 1_000 / 100);
    let cores = backend.cpus.as_ref().map(|has| format!("{cores}.{tenths} of {has} cores"));
    let memory =
        backend.memory.as_ref().map(|has| format!("{} of {has}", gibibytes(state.used_memory_bytes)));
    slots.into_iter().chain(cores).chain(memory).collect::<Vec<_>>().join(", ")
}

/// A part of a whole in per cent; none of nothing.
fn share_of(part: u32, whole: u32) -> Option<String> {
    let share = (u64::from(part) * 100).checked_div(u64::from(whole));
    share.map(|share| format!("{share} %"))
}

/// Rows in columns; a cell is one line whatever it holds.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[std::borrow::Cow<'_, str>; N]> =
        rows.iter().map(|row| std::array::from_fn(|column| shown::word(&row[column]))).collect();
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One line of what a job does now.
pub(crate) fn progress(job: &JobView) -> String {
    match job.status.as_str() {
        "pending" => format!("waiting: {}", job.waiting_reason.as_deref().unwrap_or("in the queue")),
        "blocked" => match job.blocked_by.as_slice() {
            [] => "waiting for other jobs".to_owned(),
            [only] => format!("waiting for the job {only}"),
            [first, rest @ ..] => format!("waiting for the job {first} and {} more", rest.len()),
        },
        "running" => match job.steps.last() {
            Some(step) => format!("running step {}: {}", step.index + 1, step.name),
            None => "running".to_owned(),
        },
        _ => String::new(),
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:02} s", milliseconds / 1000, milliseconds % 1000 / 10)
}

/// How a job ended: what failed first, with lines of the log.
pub(crate) fn finished(job: &JobView) -> String {
    let mut text = failure(job);
    for (package, finding) in findings(job) {
        text.push_str(&format!(
            "lint of {}: {}\n",
            shown::word(package),
            shown::word(&finding_line(finding))
        ));
    }
    for test in &job.tests {
        let took = test.duration_ms.map(|took| format!(" ({})", seconds(took))).unwrap_or_default();
        text.push_str(&format!("test {}: {}{took}\n", test.package, test.status));
    }
    let phases: Vec<String> =
        job.phases.iter().map(|phase| format!("{} {}", phase.name, seconds(phase.duration_ms))).collect();
    if !phases.is_empty() {
        text.push_str(&format!("time: {}\n", phases.join(", ")));
    }
    let error = job.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    text.push_str(&format!("{} {}{error}\n", job.id, job.status));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_as_long_as_it_takes() {
        let (a, b) = ("0197a3c2-1111-7aaa-8000-000000000001", "0197a3c2-1111-7aab-8000-000000000001");
        assert_eq!(short_ids(&[a, "0297a3c2-1111-7aaa-8000-000000000001"]), ["0197a3c2", "0297a3c2"]);
        assert_eq!(short_ids(&[a, b]), ["0197a3c2-1111-7aaa", "0197a3c2-1111-7aab"]);
        assert_eq!(short_ids(&["x"]), ["x"]);
        assert_eq!(short_ids(&[]), [""; 0]);
    }

    #[test]
    fn ages_and_moments_are_told_with_their_unit_and_zone() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (ago, expected) in [(0, "0s"), (59, "59s"), (3_599, "59m"), (7_200, "2h"), (200_000, "2d")] {
            assert_eq!(age(Timestamp::from_second(1_000_000 - ago).unwrap(), now), expected);
        }
        // A server's clock may be ahead of ours.
        assert_eq!(age(Timestamp::from_second(1_000_010).unwrap(), now), "0s");
        let shown = moment(now, now);
        assert!(shown.ends_with(" (0s ago)") && shown.contains(['+', '-']), "{shown}");
    }

    #[test]
    fn backends_are_told_with_their_use_and_last_failure() {
        let backends: Vec<BackendView> = serde_json::from_value(serde_json::json!([
            { "addr": "tcp://a:1", "arch": "x86_64", "labels": { "tier": "high" }, "maxJobs": 4, "status": "healthy",
              "running": 3, "source": "configuration", "last_error": "connection refused",
              "last_error_at": "2026-11-26T10:00:00Z" },
            { "addr": "sandbox://local", "arch": "aarch64", "maxJobs": 2, "status": "draining", "running": 0,
              "source": "elsewhere", "machine": "builder-2" },
        ]))
        .unwrap();
        let now = "2026-11-26T10:05:00Z".parse().unwrap();
        let told = super::backends(&backends, now);
        let expected = "\
ADDR                          ARCH     STATUS    JOBS  USE   SOURCE         LABELS     LAST FAILURE
tcp://a:1                     x86_64   healthy   3/4   75 %  configuration  tier=high  connection refused (5m ago)
sandbox://local on builder-2  aarch64  draining  0/2   0 %   elsewhere
3 of 6 slots in use (50 %)
";
        assert_eq!(told, expected);
        assert!(super::backends(&[], now).ends_with("\n0 of 0 slots in use\n"));
    }

    #[test]
    fn a_cell_is_one_line() {
        let rows = [["a\nb\x1b[1m".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a\\u{a}b\\u{1b}[1m  c\n");
    }
}
