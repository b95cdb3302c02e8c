//! What people read.

use melange_remote_sdk::api::v1::{BackendView, JobView};
use melange_remote_sdk::error::Error;
use melange_remote_sdk::text::diagnostics::Diagnostics;

/// An error with its causes and hint; a definition's mistakes in full.
pub(crate) fn error(error: &Error) -> String {
    if let Some(diagnostics) =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<Diagnostics>())
    {
        return diagnostics.to_string();
    }
    let mut text = format!("error: {}\n", error.chain());
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// A job in a few lines.
pub(crate) fn job(job: &JobView) -> String {
    let mut text = format!("job:      {}\nstatus:   {}\narch:     {}\n", job.id, job.status, job.spec.arch);
    let mut line = |key: &str, value: String| text.push_str(&format!("{:<10}{value}\n", format!("{key}:")));
    line("created", job.created_at.to_string());
    if let Some(backend) = &job.backend {
        line("backend", backend.addr.clone());
    }
    if let Some(reason) = &job.waiting_reason {
        line("waiting", reason.clone());
    }
    if let Some(error) = &job.error {
        line("error", error.clone());
    }
    if let (Some(begin), Some(end)) = (job.started_at, job.finished_at) {
        line("took", format!("{:.1} s", end.duration_since(begin).as_secs_f64()));
    }
    for test in &job.tests {
        line("test", format!("{} {}", test.package, test.status));
    }
    for artifact in &job.artifacts {
        line("artifact", format!("{} ({} bytes)", artifact.name, artifact.size));
    }
    text
}

/// A table of jobs.
pub(crate) fn jobs(jobs: &[JobView]) -> String {
    let mut rows = vec![["JOB", "STATUS", "ARCH", "CREATED"].map(str::to_owned)];
    rows.extend(jobs.iter().map(|job| {
        [
            job.id.clone(),
            job.status.clone(),
            job.spec.arch.clone(),
            job.created_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        ]
    }));
    table(&rows)
}

/// A table of backends.
pub(crate) fn backends(backends: &[BackendView]) -> String {
    let mut rows = vec![["ADDR", "ARCH", "STATUS", "JOBS", "LABELS", "LAST FAILURE"].map(str::to_owned)];
    rows.extend(backends.iter().map(|backend| {
        let labels: Vec<String> =
            backend.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let most = backend.max_jobs.map(|jobs| jobs.to_string()).unwrap_or_default();
        let state = backend.state.clone().unwrap_or_default();
        let jobs = format!("{}/{most}", state.running);
        let failure = state.last_error.unwrap_or_default();
        [backend.addr.clone(), backend.arch.clone(), state.status, jobs, labels.join(","), failure]
    }));
    table(&rows)
}

/// Rows in columns.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
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

/// How a job ended: the failing step first, with its last lines.
pub(crate) fn finished(job: &JobView) -> String {
    let mut text = String::new();
    if let Some(failure) = &job.failure {
        text.push_str(&format!(
            "the step `{}` failed with exit code {}; its last lines:\n",
            failure.step, failure.exit_code
        ));
        failure.tail.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
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
