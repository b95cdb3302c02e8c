//! `melange remote events`.

use jiff::Timestamp;
use melange_remote_sdk::client::EventFilter;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::{Event, EventKind, StepState};

use super::reports::build_id;
use super::{client, ids};
use crate::args::{EventsArgs, Output};
use crate::exit::Exit;
use crate::{out, shown};

pub(super) async fn run(args: &EventsArgs, output: Output) -> Result<Exit> {
    let client = client(&args.server)?;
    let mut filter = EventFilter::default();
    if let Some(job) = &args.job {
        filter.job = Some(ids::find(&client, job).await?);
    }
    if let Some(build) = &args.build {
        filter.build = Some(build_id(&client, build).await?);
    }
    filter.project = args.project.as_deref().map(str::parse).transpose()?;
    filter.after = args.after;
    client.follow_events(filter, &mut |event| print(event, output)).await?;
    Ok(Exit::Ok)
}

/// Prints an event.
pub(super) fn print(event: &Event, output: Output) -> Result<()> {
    match output {
        Output::Text => out::line(&line(event)),
        _ => out::json_line(event),
    }
}

/// An event for people.
fn line(event: &Event) -> String {
    let about = match (event.job, event.build) {
        (Some(job), _) => job.to_string(),
        (None, Some(build)) => build.to_string(),
        (None, None) => String::new(),
    };
    let took = |ms: Option<u64>| ms.map(|ms| format!(" after {ms} ms")).unwrap_or_default();
    let why = |error: &Option<String>| {
        error.as_deref().map(|error| format!(": {}", shown::word(error))).unwrap_or_default()
    };
    let word = |state: StepState| match state {
        StepState::Running => "begins",
        StepState::Success => "ends",
        StepState::Failed => "fails",
    };
    let what = match &event.kind {
        EventKind::JobState(state) => {
            let package = state.package.as_deref().map(|name| format!(" {}", shown::word(name)));
            let package = package.unwrap_or_default();
            let on = state.backend.as_deref().map(|addr| format!(" on {}", shown::word(addr)));
            let on = on.filter(|_| !state.state.is_terminal()).unwrap_or_default();
            format!("{}{package} {}{on}{}", state.state, state.arch, why(&state.error))
        }
        EventKind::JobAttempt(ended) => {
            format!("attempt {} {}{}", ended.number, ended.outcome.name(), why(&ended.error))
        }
        EventKind::JobStep(step) => {
            let name =
                step.name.as_deref().map(|name| format!(" ({})", shown::word(name))).unwrap_or_default();
            let number = step.index.map(|index| format!(" {}", index.saturating_add(1))).unwrap_or_default();
            let code = step.exit_code.filter(|code| *code != 0);
            let code = code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            format!("step{number}{name} {}{}{code}", word(step.state), took(step.duration_ms))
        }
        EventKind::JobPhase(phase) => format!("{} took {} ms", phase.phase, phase.duration_ms),
        EventKind::JobTest(test) => {
            let name = test.package.as_deref().map(|name| format!(" of {}", shown::word(name)));
            let name = name.unwrap_or_else(|| format!(" {}", test.index.saturating_add(1)));
            format!("test{name} {}{}{}", word(test.state), took(test.duration_ms), why(&test.error))
        }
        EventKind::JobCancelRequested {} => "is asked to stop".to_owned(),
        EventKind::BuildState { state } => state.to_string(),
        EventKind::StreamGap { from, to } => format!("events {from} to {to} are kept no longer"),
        other => other.name().to_owned(),
    };
    format!("{} {} {about} {what}", event.seq, clock(event.time))
}

fn clock(time: Timestamp) -> String {
    format!("{time:.3}")
}
