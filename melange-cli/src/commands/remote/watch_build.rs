//! Following a build: verdicts above, counts and what runs below.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use melange_remote_sdk::api::v2::{BuildFailuresResponse, BuildView};
use melange_remote_sdk::client::{Client, EventFilter};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{BuildId, Event, EventKind, JobId, JobState, StateCounts, StepState};
use melange_remote_sdk::limits;
use tokio::sync::mpsc;

use super::show;
use crate::args::Output;
use crate::commands::local::cancelled_by_signals;
use crate::exit::Exit;
use crate::progress::{Progress, clock};
use crate::render::builds as render;
use crate::{note, render as render_job};

/// Failures whose logs are looked at for the line that says what failed.
const EXTRACTS_MAX: usize = 20;
/// Packages that the last line names.
const RUNNING_SHOWN: usize = 3;

/// What is known of the packages of a build that is followed.
#[derive(Debug, Default)]
struct Seen {
    /// What each job builds, and where it is.
    jobs: BTreeMap<JobId, (String, JobState)>,
    /// How many of them are in each state.
    counts: StateCounts,
    /// Those that run, with their steps once one has begun.
    running: BTreeMap<JobId, Option<String>>,
    /// When the build is expected to end.
    expected_at: Option<Timestamp>,
}

/// How often the server is asked when the build will end.
const EXPECTED: Duration = Duration::from_secs(10);

impl Seen {
    /// The last line of a terminal.
    fn line(&self) -> String {
        let ended = JobState::ALL.into_iter().filter(|state| state.is_terminal());
        let ended = ended.fold(0u32, |sum, state| sum.saturating_add(self.counts.get(state)));
        let mut line = format!("{ended}/{} done", self.jobs.len());
        let failed = self.counts.get(JobState::Failed);
        if failed > 0 {
            line.push_str(&format!(", {failed} failed"));
        }
        if let Some(at) = self.expected_at {
            let left = at.duration_since(Timestamp::now()).max(SignedDuration::ZERO).unsigned_abs();
            line.push_str(&format!(", about {} left", clock(left)));
        }
        if !self.running.is_empty() {
            let more = self.running.len().saturating_sub(RUNNING_SHOWN);
            let told = |(id, step): (&JobId, &Option<String>)| {
                let name = self.jobs.get(id).map_or("", |(name, _)| name);
                step.as_ref().map_or_else(|| name.to_owned(), |step| format!("{name} ({step})"))
            };
            let shown: Vec<String> = self.running.iter().take(RUNNING_SHOWN).map(told).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            line.push_str(&format!("; {}{more}", shown.join(", ")));
        }
        line
    }

    /// Takes in an event; the verdict that it is, if any.
    fn take(&mut self, event: &Event) -> Option<(JobId, JobState)> {
        let job = event.job?;
        match &event.kind {
            EventKind::JobState(state) => {
                let name = state.package.clone().unwrap_or_else(|| job.to_string());
                let before = self.jobs.insert(job, (format!("{name} {}", state.arch), state.state));
                before.into_iter().for_each(|(_, before)| self.counts.take(before));
                self.counts.add(state.state);
                if state.state == JobState::Running {
                    self.running.insert(job, None);
                } else {
                    self.running.remove(&job);
                }
                state.state.is_terminal().then_some((job, state.state))
            }
            EventKind::JobStep(step) if step.state == StepState::Running => {
                if let Some(shown) = self.running.get_mut(&job) {
                    *shown = Some(step.name.clone().unwrap_or_default());
                }
                None
            }
            _ => None,
        }
    }
}

/// Follows a build to its end; the exit code tells how it ended. Who interrupts it leaves the build alone: then there is
/// none.
pub(super) async fn wait(client: &Client, id: BuildId, output: Output) -> Result<Option<Exit>> {
    let progress = Progress::start();
    let (verdicts, mut told) = mpsc::channel(limits::SUBMISSION_JOBS_MAX);
    let seen = Mutex::new(Seen::default());
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    let follow = async {
        let mut observe = |event: &Event| {
            let mut seen = lock();
            if let Some(verdict) = seen.take(event) {
                // Of more than a whole build's at once the summary tells.
                let _ = verdicts.try_send(verdict);
            }
            progress.begin(&seen.line());
            Ok(())
        };
        let followed = client.follow_events(EventFilter::of_build(id), &mut observe).await;
        drop(verdicts);
        followed
    };
    let tell = async {
        let mut extracts = 0usize;
        while let Some((job, state)) = told.recv().await {
            extracts += usize::from(state == JobState::Failed);
            verdict(client, &progress, job, state, extracts <= EXTRACTS_MAX).await;
        }
    };
    let expect = async {
        loop {
            if let Ok(view) = client.build(id).await {
                lock().expected_at = view.expected_at;
            }
            tokio::time::sleep(EXPECTED).await;
        }
    };
    let both = async {
        tokio::select! {
            followed = async { tokio::join!(follow, tell).0 } => followed,
            () = expect => Ok(()),
        }
    };
    let interrupted = cancelled_by_signals();
    let followed = interrupted.run_until_cancelled(Box::pin(both)).await;
    drop(progress);
    let Some(followed) = followed else {
        let next = format!(
            "`melange remote wait {id}` goes on watching, `melange remote cancel {id}` stops the build"
        );
        let message = format!("stopped waiting; the build {id} goes on");
        if output == Output::Json {
            note::error(&Error::new(ErrorKind::Cancelled, message).hint(next), output);
        } else {
            note::line(&format!("\n{message}\nnext: {next}"));
        }
        return Ok(None);
    };
    followed?;
    end(client, id, output).await.map(Some)
}

/// Says what became of a job.
async fn verdict(client: &Client, progress: &Progress, job: JobId, state: JobState, with_extract: bool) {
    let view = match client.job(job).await {
        Ok(view) => view,
        Err(error) => {
            progress.line(&format!("{job} {state} (it cannot be looked at: {})", error.chain()));
            return;
        }
    };
    progress.line(&render::verdict(&view));
    if state == JobState::Failed && with_extract {
        progress.text(&render_job::failure(&view));
    }
}

/// Tells how a build ended.
async fn end(client: &Client, id: BuildId, output: Output) -> Result<Exit> {
    let build = client.build(id).await?;
    let failures = client.build_failures(id).await?;
    show(output, &serde_json::json!({ "build": build, "failures": failures.groups }), String::new)?;
    note::text(&render::summary(&build, &failures));
    note::line(&client.build_url(id));
    if build.counts.success > 0 {
        note::line(&format!("next: melange remote get {id}"));
    }
    Ok(exit_of(&build, &failures))
}

/// How a build ended, as an exit code.
fn exit_of(build: &BuildView, failures: &BuildFailuresResponse) -> Exit {
    let is_farms = |class: &str| matches!(class, "infrastructure" | "unschedulable");
    let groups = &failures.groups;
    match build.status.as_str() {
        "success" => Exit::Ok,
        "cancelled" => Exit::Cancelled,
        _ if !groups.is_empty() && groups.iter().all(|it| is_farms(&it.error_class)) => Exit::Infrastructure,
        _ => Exit::Failed,
    }
}
