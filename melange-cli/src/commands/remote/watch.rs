//! Following a job: its log above, what goes on and since when below.

use std::time::Duration;

use melange_remote_sdk::api::v1::JobView;
use melange_remote_sdk::client::{Client, EventFilter, WaitEvent};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{Event, JobId};

use super::show;
use crate::args::Output;
use crate::commands::local::cancelled_by_signals;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::{note, render};

/// Follows a job to its end; the exit code tells how it ended. Who interrupts it leaves the job alone: then there is
/// none.
pub(super) async fn wait(
    client: &Client,
    id: JobId,
    poll: Duration,
    output: Output,
    told: Told,
) -> Result<Option<Exit>> {
    if told == Told::Events {
        return wait_with_events(client, id, output).await;
    }
    let progress = Progress::start();
    let mut shown = String::new();
    let mut observer = |event: WaitEvent<'_>| match event {
        WaitEvent::Log(text) => progress.text(text),
        WaitEvent::Job(job) => tell(&progress, &mut shown, job),
    };
    let interrupted = cancelled_by_signals();
    let job = interrupted.run_until_cancelled(client.wait(id, poll, &mut observer)).await;
    drop(progress);
    let Some(job) = job else {
        detached(id, output);
        return Ok(None);
    };
    let job = job?;
    show(output, &job, String::new)?;
    note::text(&render::finished(&job));
    note::line(&client.job_url(id));
    if job.status == "success" {
        note::line(&format!("next: melange remote get {id}"));
    }
    Ok(Some(exit_of(&job)))
}

/// What is printed while a job is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Its log.
    Log,
    /// Its events.
    Events,
}

/// Prints the events of a job until it has ended.
async fn wait_with_events(client: &Client, id: JobId, output: Output) -> Result<Option<Exit>> {
    let interrupted = cancelled_by_signals();
    let mut print = |event: &Event| super::events::print(event, Output::Json);
    let followed = client.follow_events(EventFilter::of_job(id), &mut print);
    match interrupted.run_until_cancelled(followed).await {
        Some(followed) => followed?,
        None => {
            detached(id, output);
            return Ok(None);
        }
    }
    Ok(Some(exit_of(&client.job(id).await?)))
}

/// A line for each new thing that goes on, except on a terminal, whose last line is about it.
fn tell(progress: &Progress, shown: &mut String, job: &JobView) {
    let line = render::progress(job);
    if line == *shown {
        return;
    }
    if !note::is_terminal() && !line.is_empty() {
        progress.line(&line);
    }
    progress.begin(&line);
    *shown = line;
}

fn detached(id: JobId, output: Output) {
    let next =
        format!("`melange remote wait {id}` goes on watching, `melange remote cancel {id}` stops the job");
    if output == Output::Json {
        let error = Error::new(ErrorKind::Cancelled, format!("stopped waiting; the job {id} goes on"));
        return note::error(&error.hint(next), output);
    }
    note::line(&format!("\nstopped waiting; the job {id} goes on"));
    note::line(&format!("next: {next}"));
}

/// How a finished job ended, as an exit code.
pub(super) fn exit_of(job: &JobView) -> Exit {
    match (job.status.as_str(), job.error_class.as_deref()) {
        ("success", _) => Exit::Ok,
        ("cancelled", _) => Exit::Cancelled,
        (_, Some("infrastructure" | "unschedulable")) => Exit::Infrastructure,
        (_, Some("policy")) => Exit::Auth,
        _ => Exit::Failed,
    }
}
