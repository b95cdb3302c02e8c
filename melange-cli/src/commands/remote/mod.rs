//! `melange remote …`: a build server's jobs and backends.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use melange_remote_sdk::api::v1::{ArtifactView, JobView};
use melange_remote_sdk::client::Client;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::JobId;
use serde::Serialize;

use crate::args::{Output, RemoteCommand, ServerArgs};
use crate::exit::Exit;
use crate::{out, render, shown};

mod backends;
mod builds;
mod events;
mod ids;
mod logs;
mod reports;
mod submit;
mod watch;
mod watch_build;
mod why;

/// How often a job is looked at whose log is quiet, unless the caller says otherwise.
const POLL: Duration = Duration::from_secs(2);

pub(super) async fn run(command: RemoteCommand, output: Output) -> Result<Exit> {
    let told = if command.tells_events() { watch::Told::Events } else { watch::Told::Log };
    if let Some(exit) = on_build(&command, output).await? {
        return Ok(exit);
    }
    match command {
        RemoteCommand::Submit(args) => submit::run(&args, output, told).await,
        RemoteCommand::Build(args) => builds::run(&args, output).await,
        RemoteCommand::Builds { status, limit, server } => {
            builds::list(&server, limit, status.as_deref(), output).await
        }
        RemoteCommand::Report(command) => reports::run(command, output).await,
        RemoteCommand::Events(args) => events::run(&args, output).await,
        RemoteCommand::Status { job, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            let view = client.job(id).await?;
            show(output, &view, || render::job(&view, Timestamp::now()))?;
            Ok(Exit::Ok)
        }
        RemoteCommand::Why { job, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            let view = client.job(id).await?;
            show(output, &view.waiting, || why::text(&view, Timestamp::now()))?;
            Ok(Exit::Ok)
        }
        RemoteCommand::Queue { server } => {
            let view = client(&server)?.queue().await?;
            show(output, &view, || why::queue(&view))?;
            Ok(Exit::Ok)
        }
        RemoteCommand::List { status, limit, server } => {
            list(&server, limit, status.as_deref(), output).await
        }
        RemoteCommand::Wait { job, server, poll_interval } => {
            let (client, id) = client_and_id(&server, &job).await?;
            Ok(watch::wait(&client, id, poll_interval, output, told).await?.unwrap_or(Exit::Cancelled))
        }
        RemoteCommand::Logs(args) => logs::run(&args, output).await,
        RemoteCommand::Get { job, names, out_dir, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            get(&client, id, &names, &out_dir, output).await
        }
        RemoteCommand::Cancel { job, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            client.cancel(id).await?;
            show(output, &serde_json::json!({ "id": id.to_string(), "cancel_requested": true }), || {
                format!("asked {id} to stop")
            })?;
            Ok(Exit::Ok)
        }
        RemoteCommand::Retry { job, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            let view = client.retry(id).await?;
            show(output, &view, || format!("{id} is {}\nnext: melange remote wait {id}", view.status))?;
            Ok(Exit::Ok)
        }
        RemoteCommand::Remove { job, server } => {
            let (client, id) = client_and_id(&server, &job).await?;
            client.remove(id).await?;
            show(output, &serde_json::json!({ "id": id.to_string(), "removed": true }), || {
                format!("removed {id}")
            })?;
            Ok(Exit::Ok)
        }
        RemoteCommand::Backends { command } => backends::run(command, output).await,
    }
}

/// What a verb does with a build; `None` when its argument names a job.
async fn on_build(command: &RemoteCommand, output: Output) -> Result<Option<Exit>> {
    let (RemoteCommand::Status { job, server }
    | RemoteCommand::Why { job, server }
    | RemoteCommand::Wait { job, server, .. }
    | RemoteCommand::Get { job, server, .. }
    | RemoteCommand::Cancel { job, server }
    | RemoteCommand::Retry { job, server }) = command
    else {
        return Ok(None);
    };
    let client = client(server)?;
    let Some(id) = ids::find_build(&client, job).await? else { return Ok(None) };
    let exit = match command {
        RemoteCommand::Why { .. } => builds::why(&client, id, output).await?,
        RemoteCommand::Wait { .. } => {
            watch_build::wait(&client, id, output).await?.unwrap_or(Exit::Cancelled)
        }
        RemoteCommand::Get { names, out_dir, .. } => builds::get(&client, id, names, out_dir, output).await?,
        RemoteCommand::Cancel { .. } => builds::cancel(&client, id, output).await?,
        RemoteCommand::Retry { .. } => builds::retry(&client, id, output).await?,
        _ => builds::status(&client, id, output).await?,
    };
    Ok(Some(exit))
}

fn client(server: &ServerArgs) -> Result<Client> {
    Client::new(&server.server)
}

/// A server's client and the job that the caller means by `text`.
async fn client_and_id(server: &ServerArgs, text: &str) -> Result<(Client, JobId)> {
    let client = client(server)?;
    let id = ids::find(&client, text).await?;
    Ok((client, id))
}

/// Prints a value as JSON, or the text made of it.
fn show<T: Serialize>(output: Output, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    match output {
        Output::Json => out::json(value),
        Output::Text => match text() {
            text if text.is_empty() => Ok(()),
            text => out::line(text.trim_end()),
        },
    }
}

async fn list(server: &ServerArgs, limit: usize, status: Option<&str>, output: Output) -> Result<Exit> {
    let client = client(server)?;
    let mut jobs: Vec<JobView> = Vec::new();
    let mut cursor = None;
    while jobs.len() < limit {
        let (page, next) = client.jobs(limit - jobs.len(), cursor.as_deref(), status).await?;
        let empty = page.is_empty();
        jobs.extend(page);
        cursor = next;
        if cursor.is_none() || empty {
            break;
        }
    }
    show(output, &jobs, || render::jobs(&jobs, Timestamp::now()))?;
    Ok(Exit::Ok)
}

async fn get(client: &Client, id: JobId, names: &[String], out_dir: &Path, output: Output) -> Result<Exit> {
    let artifacts = client.artifacts(id).await?;
    let chosen: Vec<ArtifactView> =
        artifacts.iter().filter(|artifact| is_wanted(&artifact.name, names)).cloned().collect();
    if chosen.is_empty() {
        let have: Vec<_> = artifacts.iter().map(|artifact| shown::word(&artifact.name)).collect();
        let error = Error::new(ErrorKind::NotFound, "the job has no such artifact");
        return Err(error
            .hint(format!("it has: {}", if have.is_empty() { "none".to_owned() } else { have.join(", ") })));
    }
    let mut paths = Vec::new();
    download(client, id, &chosen, out_dir, output, &mut paths).await?;
    if output == Output::Json {
        out::json(&paths)?;
    }
    Ok(Exit::Ok)
}

/// Whether an artifact is one of those that were named, by the ends of their names; all are when none is named.
fn is_wanted(name: &str, ends: &[String]) -> bool {
    ends.is_empty() || ends.iter().any(|end| name == end || name.ends_with(&format!("/{end}")))
}

/// Downloads artifacts of a job, and adds their paths.
async fn download(
    client: &Client,
    id: JobId,
    chosen: &[ArtifactView],
    out_dir: &Path,
    output: Output,
    paths: &mut Vec<String>,
) -> Result<()> {
    for artifact in chosen {
        // The server's names are not trusted with this machine's paths.
        if artifact.name.split('/').any(|part| matches!(part, "" | "." | ".."))
            || artifact.name.contains('\0')
        {
            return Err(Error::unexpected(format!("the server names an artifact {:?}", artifact.name)));
        }
        let path = out_dir.join(&artifact.name);
        client.download(id, artifact, &path).await?;
        if output == Output::Text {
            out::line(&path.display().to_string())?;
        }
        paths.push(path.display().to_string());
    }
    Ok(())
}
