//! `melange remote …`: a build server's jobs and backends.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{BackendView, JobView, SubmitRequest};
use melange_remote_sdk::client::{Client, WaitEvent};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::job::JobId;
use serde::Serialize;

use super::{collect_pipelines, print_line};
use crate::args::{BackendsCommand, Output, RemoteCommand, ServerArgs, SubmitArgs};
use crate::exit::Exit;
use crate::render;

pub(super) async fn run(command: RemoteCommand) -> Result<Exit> {
    match command {
        RemoteCommand::Submit(args) => submit(&args).await,
        RemoteCommand::Status { job, server } => {
            let view = client(&server)?.job(id(&job)?).await?;
            show(&server, &view, || render::job(&view))?;
            Ok(Exit::Ok)
        }
        RemoteCommand::List { status, limit, server } => list(&server, limit, status.as_deref()).await,
        RemoteCommand::Wait { job, server, poll_interval } => wait(&server, id(&job)?, poll_interval).await,
        RemoteCommand::Logs { job, follow, test, server } => {
            logs(&server, id(&job)?, follow, test.as_deref()).await
        }
        RemoteCommand::Get { job, names, out_dir, server } => get(&server, id(&job)?, &names, &out_dir).await,
        RemoteCommand::Cancel { job, server } => {
            client(&server)?.cancel(id(&job)?).await?;
            print_line(&format!("asked {job} to stop"));
            Ok(Exit::Ok)
        }
        RemoteCommand::Remove { job, server } => {
            client(&server)?.remove(id(&job)?).await?;
            print_line(&format!("removed {job}"));
            Ok(Exit::Ok)
        }
        RemoteCommand::Backends { command } => backends(command).await,
    }
}

fn client(server: &ServerArgs) -> Result<Client> {
    Client::new(&server.server)
}

fn id(text: &str) -> Result<JobId> {
    text.parse()
}

/// Prints a value as JSON, or the text made of it.
fn show<T: Serialize>(server: &ServerArgs, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    if server.output == Output::Json {
        let json =
            serde_json::to_string_pretty(value).map_err(|e| Error::unexpected("cannot print").source(e))?;
        print_line(&json);
    } else {
        let text = text();
        if !text.is_empty() {
            print_line(text.trim_end());
        }
    }
    Ok(())
}

async fn submit(args: &SubmitArgs) -> Result<Exit> {
    let config_yaml =
        std::fs::read_to_string(&args.config).map_err(|e| Error::io("read", &args.config, e))?;
    let request = SubmitRequest {
        config_yaml,
        config_name: args.config.file_name().map(|name| name.to_string_lossy().into_owned()),
        test_packages: args.test_packages.clone(),
        pipelines: collect_pipelines(&args.pipeline_dirs)?,
        arch: args.arch.map(|arch| arch.to_string()),
        backend_selector: args.backend_selector.iter().cloned().collect(),
        with_test: args.test,
        debug: args.debug,
    };
    let client = client(&args.server)?;
    let id = client.submit(&request).await?;
    if args.wait {
        eprintln!("submitted {id}  {}", client.job_url(id));
        return wait(&args.server, id, Duration::from_secs(2)).await;
    }
    if args.server.output == Output::Json {
        print_line(&serde_json::json!({ "id": id.to_string(), "url": client.job_url(id) }).to_string());
    } else {
        print_line(&id.to_string());
        eprintln!("{}", client.job_url(id));
        eprintln!("next: melange remote wait {id}");
    }
    Ok(Exit::Ok)
}

async fn list(server: &ServerArgs, limit: usize, status: Option<&str>) -> Result<Exit> {
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
    show(server, &jobs, || render::jobs(&jobs))?;
    Ok(Exit::Ok)
}

/// Follows a job to its end; the exit code tells how it ended.
async fn wait(server: &ServerArgs, id: JobId, poll: Duration) -> Result<Exit> {
    let client = client(server)?;
    let mut progress = Progress { shown: String::new(), live: std::io::stderr().is_terminal() };
    let mut observer = |event: WaitEvent<'_>| match event {
        WaitEvent::Log(text) => progress.log(text),
        WaitEvent::Job(job) => progress.job(job),
    };
    let job = client.wait(id, poll, &mut observer).await?;
    progress.clear();
    show(server, &job, String::new)?;
    eprint!("{}", render::finished(&job));
    eprintln!("{}", client.job_url(id));
    if job.status == "success" {
        eprintln!("next: melange remote get {id}");
    }
    Ok(match job.status.as_str() {
        "success" => Exit::Ok,
        "cancelled" => Exit::Cancelled,
        _ if job.error_class.as_deref() == Some("infrastructure") => Exit::Infrastructure,
        _ => Exit::Failed,
    })
}

/// Log lines above, one line of progress below; the latter only on a terminal.
struct Progress {
    shown: String,
    live: bool,
}

impl Progress {
    fn log(&mut self, text: &str) {
        self.clear();
        // Standard error: standard output is for results.
        eprint!("{text}");
        self.draw();
    }

    fn job(&mut self, job: &JobView) {
        let line = render::progress(job);
        if line == self.shown {
            return;
        }
        self.clear();
        self.shown = line;
        if !self.live && !self.shown.is_empty() {
            eprintln!("{}", self.shown);
        }
        self.draw();
    }

    fn clear(&self) {
        if self.live && !self.shown.is_empty() {
            eprint!("\r\x1b[K");
        }
    }

    fn draw(&self) {
        if self.live && !self.shown.is_empty() {
            eprint!("{}", self.shown);
            // A progress line that cannot be drawn is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
}

async fn logs(server: &ServerArgs, id: JobId, follow: bool, test: Option<&str>) -> Result<Exit> {
    let mut log = client(server)?.log(id, 0, follow, test).await?;
    let mut out = std::io::stdout();
    while let Some(chunk) = log.next().await {
        if out.write_all(&chunk?).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Exit::Ok)
}

async fn get(server: &ServerArgs, id: JobId, names: &[String], out_dir: &Path) -> Result<Exit> {
    let client = client(server)?;
    let artifacts = client.artifacts(id).await?;
    let wanted = |name: &str| {
        names.is_empty() || names.iter().any(|end| name == end || name.ends_with(&format!("/{end}")))
    };
    let chosen: Vec<_> = artifacts.iter().filter(|artifact| wanted(&artifact.name)).collect();
    if chosen.is_empty() {
        let have: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let error =
            Error::new(melange_remote_sdk::error::ErrorKind::NotFound, "the job has no such artifact");
        return Err(error
            .hint(format!("it has: {}", if have.is_empty() { "none".to_owned() } else { have.join(", ") })));
    }
    for artifact in chosen {
        // The server's names are not trusted with this machine's paths.
        if artifact.name.split('/').any(|part| matches!(part, "" | "." | ".."))
            || artifact.name.contains('\0')
        {
            return Err(Error::unexpected(format!("the server names an artifact {:?}", artifact.name)));
        }
        let path = out_dir.join(&artifact.name);
        client.download(id, artifact, &path).await?;
        print_line(&path.display().to_string());
    }
    Ok(Exit::Ok)
}

async fn backends(command: BackendsCommand) -> Result<Exit> {
    match command {
        BackendsCommand::List { arch, server } => {
            let arch = arch.map(|arch| arch.to_string());
            let response = client(&server)?.backends(arch.as_deref()).await?;
            show(&server, &response, || render::backends(&response.backends))?;
        }
        BackendsCommand::Add { addr, arch, labels, max_jobs, server } => {
            let labels = labels.into_iter().collect();
            let backend = BackendView { addr, arch: arch.to_string(), labels, max_jobs, state: None };
            let added = client(&server)?.add_backend(&backend).await?;
            show(&server, &added, || format!("added {}", added.addr))?;
        }
        BackendsCommand::Drain { addr, server } => {
            let view = client(&server)?.drain_backend(&addr, true).await?;
            show(&server, &view, || format!("{} gets no further jobs", view.addr))?;
        }
        BackendsCommand::Enable { addr, server } => {
            let view = client(&server)?.drain_backend(&addr, false).await?;
            show(&server, &view, || format!("{} gets jobs again", view.addr))?;
        }
        BackendsCommand::Remove { addr, server } => {
            client(&server)?.remove_backend(&addr).await?;
            print_line(&format!("removed {addr}"));
        }
    }
    Ok(Exit::Ok)
}
