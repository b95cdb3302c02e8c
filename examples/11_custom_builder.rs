//! A builder of one's own, and the proof that it keeps the contract.
//!
//! Its definitions are no YAML but scripts: `/bin/sh` runs one on this machine, and what it leaves in `$OUT` are the
//! files. Nothing keeps such a script from anything; that is what `engine::EngineBuilder` and its guests are for.
//!
//! `cargo run --example 11_custom_builder`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, BuiltFile, LogStream, StepFailure,
};
use melange_remote_sdk::conformance::builder as suite;
use melange_remote_sdk::error::{Blame, Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// Runs scripts.
#[derive(Debug)]
struct Shell;

/// The processes of a script; they end with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The farm is at fault, not the script.
fn trouble(message: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::new(ErrorKind::Unavailable, message).source(source).blame(Blame::Farm)
}

fn start(script: &str, out: &Path) -> Result<(Child, Group)> {
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env("OUT", out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(trouble("the script cannot be started"))?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok((child, Group(leader)))
}

/// Hands on what the script prints, no faster than the sink takes it; the script's code at its end.
async fn follow(
    child: &mut Child,
    lines: &mut Lines<BufReader<ChildStdout>>,
    sink: &dyn BuildSink,
) -> Result<i32> {
    let unreadable = || trouble("the script's output cannot be read");
    while let Some(line) = lines.next_line().await.map_err(unreadable())? {
        sink.ready().await;
        sink.emit(BuildEvent::Log { stream: LogStream::Stdout, step: Some(0), line });
    }
    let status = child.wait().await.map_err(trouble("the script's end is unknown"))?;
    // A signal leaves no code.
    Ok(status.code().unwrap_or(128))
}

/// The files in a folder, as an outcome tells them.
fn files(out: &Path, arch: Arch) -> std::io::Result<Vec<BuiltFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(out)? {
        let entry = entry?;
        let content = std::fs::read(entry.path())?;
        let name = format!("{arch}/{}", entry.file_name().to_string_lossy());
        let (size, sha256) = (content.len() as u64, hex::encode(Sha256::digest(&content)));
        files.push(BuiltFile::new(name, entry.path(), size, sha256));
    }
    Ok(files)
}

#[async_trait::async_trait]
impl Builder for Shell {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        if cancel.is_cancelled() {
            return Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        }
        // Two builds of one input share nothing, and the files live as long as the outcome.
        let scratch = Arc::new(tempfile::tempdir().map_err(trouble("there is no scratch folder"))?);
        let started_at = Instant::now();
        let (mut child, group) = start(&input.config_yaml, scratch.path())?;
        let output = child.stdout.take().ok_or_else(|| Error::unexpected("the script has no output"))?;
        let mut lines = BufReader::new(output).lines();
        sink.emit(BuildEvent::StepStarted { index: 0, total: 1, name: "script".to_owned() });
        let ended = cancel.run_until_cancelled(follow(&mut child, &mut lines, &*sink)).await;
        drop(group);
        let Some(code) = ended.transpose()? else {
            // The pipe ends when the last process that writes to it is gone.
            while let Ok(Some(_)) = lines.next_line().await {}
            child.wait().await.map_err(trouble("the script's end is unknown"))?;
            return Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        };
        if code != 0 {
            let reason = format!("the script ended with {code}");
            let failure = Some(StepFailure::new("script", code));
            return Ok(BuildOutcome::without_files(BuildStatus::Failed { reason, failure }));
        }
        sink.emit(BuildEvent::StepFinished { index: 0, took: started_at.elapsed(), cached: false });
        let files = files(scratch.path(), input.arch).map_err(trouble("the files cannot be read"))?;
        Ok(BuildOutcome::succeeded(files, scratch))
    }
}

/// How many processes have these digits in their arguments, as anybody sees it.
fn running(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let arguments = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments
        .filter(|arguments| String::from_utf8_lossy(arguments).starts_with(&format!("sleep\0{marker}")))
        .count()
}

#[tokio::main]
async fn main() {
    let builder: Arc<dyn Builder> = Arc::new(Shell);
    // Longer than the suite takes, and what no other process waits for.
    let marker = format!("{}.{}", 100_000, std::process::id());
    let inputs = [
        suite::input("echo working; echo done > $OUT/file"),
        suite::input("echo failing >&2; exit 3"),
        suite::input(&format!("echo begun; sleep {marker} & wait")),
    ];
    suite::all(&suite::Case::new(&builder, inputs, move || running(&marker))).await;
    println!("the builder keeps the contract");
}
