//! The embedded sandbox: a [`GuestRunner`] for machines without a BuildKit daemon.
//!
//! A guest has a process of its own, the launcher (see [`run_if_asked`]), which mounts an overlay of the unpacked
//! root filesystem and runs each step in `bwrap` (bubblewrap) with its own mount, process, ipc, network and host
//! name namespace. As root it uses real ids and drops every capability that a container would not have; as another
//! user it works in a user namespace with a mapped range of ids (`newuidmap`), so that `chown` and `install -o`
//! behave as in a container. No new privileges, a filter of system calls, nothing writable of the kernel, bounds on
//! memory, processes and disk, and a network only for steps that may need one, from which this machine is not
//! reached. `/var/cache/melange` belongs to the guest alone, unless the operator shares a folder
//! ([`SandboxOptions::shared_cache`]): what builds share there, one can poison for the others.
//!
//! What is masked, refused, bounded and reachable stands in `docs/sandbox.md`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::builder::{BuildEvent, BuildSink, Shortage, StepFailure};
use crate::error::{Blame, Error, ErrorKind, Result, causes};
use crate::guest::{self, Blob, GuestOutcome, GuestPlan, GuestRunner, GuestStep, Layers, RootForm};
use crate::limits;

mod folders;
mod launch;
mod launcher;
mod masks;
mod options;
mod output;
mod protocol;
mod ready;
mod seccomp;

use folders::{Folders, HeldRoot};
use launch::{Launched, ProcessKilled, Starter, Told};
use launcher::Met;
pub use launcher::run_if_asked;
pub use options::{SandboxBounds, SandboxOptions};
use output::Lines;
use protocol::{GuestOrder, Lack, Message, Order, Root, StepEnd, StepOrder};
use ready::{Prepared, Ready};

/// The address of the embedded sandbox in a list of backends.
pub const ADDRESS: &str = "sandbox://local";

/// How often a guest is started of which no step has begun, because a process of the sandbox's own was killed.
const STARTS_MAX: u32 = 6;
/// The pause before a guest is started again, which doubles up to the longest.
const START_PAUSE: Duration = Duration::from_millis(50);
const START_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The number of the signal that ends a process at once.
const SIGKILL: i32 = 9;

/// The runner.
#[derive(Debug)]
pub struct SandboxRunner {
    options: SandboxOptions,
    starter: Starter,
    ready: Arc<Ready>,
    folders: Arc<Folders>,
    overlay: tokio::sync::OnceCell<bool>,
    machine_bytes: u64,
    /// Options that mask what steps must not see; what the kernel has does not change while it runs.
    masks: Vec<String>,
}

/// The programs that the sandbox runs, with their Debian packages.
fn needed_programs(privileged: bool) -> Vec<(&'static str, &'static str)> {
    let mut needed = vec![
        ("bwrap", "bubblewrap"),
        ("slirp4netns", "slirp4netns"),
        ("tar", "tar"),
        ("rm", "coreutils"),
        ("setpriv", "util-linux"),
    ];
    if !privileged {
        needed.extend([("unshare", "util-linux"), ("newuidmap", "uidmap")]);
    }
    needed
}

impl SandboxRunner {
    /// A runner, after looking for the programs it needs. Removes what killed engines left below the state folder.
    ///
    /// # Errors
    /// `Unsupported`, naming the missing program and its Debian package, or when this program cannot be the
    /// launcher of guests.
    pub fn new(options: &SandboxOptions) -> Result<Self> {
        let privileged = rustix::process::geteuid().is_root();
        for (program, package) in needed_programs(privileged) {
            let probe = std::process::Command::new("sh")
                .args(["-c", "command -v \"$1\" >/dev/null", "sh", program])
                .status();
            if !probe.is_ok_and(|status| status.success()) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the sandbox needs the program `{program}`"),
                )
                .hint(format!("install the package `{package}`, or configure a BuildKit backend")));
            }
        }
        let starter = Starter::new(options, privileged)?;
        let folders = Folders::open(Arc::clone(&options.cache), starter.clone())?;
        launcher::sweep_groups();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let machine_bytes = options::machine_memory(&memory)
            .ok_or_else(|| Error::unexpected("cannot read how much memory this machine has"))?;
        Ok(Self {
            options: options.clone(),
            starter,
            ready: Arc::new(Ready::default()),
            folders: Arc::new(folders),
            overlay: tokio::sync::OnceCell::new(),
            machine_bytes,
            masks: masks::masks(),
        })
    }

    /// Whether overlays can be mounted below the state folder.
    async fn overlay_works(&self) -> bool {
        let probe = async {
            let folder = self.folders.probe()?;
            let works = self.starter.run(&Order::ProbeOverlay { folder: folder.path().to_owned() }).await;
            match works {
                // That tells nothing of overlays.
                Err(error) if was_killed(&error) => Err(error),
                Err(error) => {
                    let reason = error.chain();
                    tracing::info!(reason, "overlays are not available here; root filesystems are copied");
                    Ok(false)
                }
                Ok(()) => Ok(true),
            }
        };
        self.overlay.get_or_try_init(|| probe).await.is_ok_and(|works| *works)
    }

    fn check_capabilities(&self, plan: &GuestPlan) -> Result<()> {
        let allowed = &self.options.allowed_capabilities;
        let known =
            |name: &String| guest::DEFAULT_CAPABILITIES.contains(&name.as_str()) || allowed.contains(name);
        match plan.capabilities.iter().find(|name| !known(name)) {
            Some(name) if !self.options.extra_capabilities => Err(Error::new(
                ErrorKind::Unsupported,
                format!("this sandbox does not give the capability {name}"),
            )
            .blame(Blame::Policy)
            .hint("drop it from `capabilities.add`, or build on a machine of your own with `melange build`")),
            _ => Ok(()),
        }
    }

    async fn root(&self, plan: &GuestPlan) -> Result<(Root, Option<HeldRoot>)> {
        let layers = plan.layers.folders();
        if !plan.shared_root {
            let archive = plan.root.path.clone();
            let root = match layers {
                [] => Root::Archive(archive),
                layers => Root::ArchiveOver(archive, layers.to_vec()),
            };
            return Ok((root, None));
        }
        let held = self.folders.root(&plan.root, common_workspace(plan), plan.user).await?;
        let root = match (self.overlay_works().await, layers) {
            (true, layers) => {
                Root::Overlay(std::iter::once(held.tree()).chain(layers.iter().cloned()).collect())
            }
            (false, []) => Root::Copy(held.tree()),
            (false, _) => {
                return Err(Error::unexpected("a root filesystem has layers where overlays do not work"));
            }
        };
        Ok((root, Some(held)))
    }

    fn order(&self, plan: &GuestPlan, folder: &Path, root: Root, output: &Path) -> GuestOrder {
        let steps = plan.steps.iter().enumerate().map(|(index, step)| StepOrder {
            script: step_script(index),
            environment: step.environment.clone(),
            network: step.network,
        });
        let of_steps = plan.steps.iter().enumerate().map(|(index, step)| (step_script(index), &step.script));
        let others = plan.scripts.iter().enumerate().map(|(index, text)| (guest::script_name(index), text));
        let own_workspace = plan.workspace.iter().skip(common_workspace(plan).len());
        let environment_bytes: usize =
            plan.steps.iter().flat_map(|step| &step.environment).map(variable_bytes).sum();
        let environment_bytes = u64::try_from(environment_bytes).unwrap_or(u64::MAX);
        // Whom the guest's steps run as otherwise may not reach the folder, nor write to it.
        let shared = self.options.shared_cache.as_ref().filter(|_| plan.user.uid == 0);
        GuestOrder {
            folder: folder.to_owned(),
            scripts: of_steps.chain(others).map(|(name, text)| (name, text.clone())).collect(),
            root,
            workspace: own_workspace.map(|blob| blob.path.clone()).collect(),
            output: output.to_owned(),
            license_files: plan.license_files.clone(),
            steps: steps.collect(),
            sources: plan
                .sources
                .iter()
                // What lies in the shared folder is there already.
                .filter(|file| shared.is_none_or(|folder| !file.blob.path.starts_with(folder)))
                .map(|file| (file.blob.path.clone(), file.name.clone()))
                .collect(),
            shared_cache: shared.cloned(),
            uid: plan.user.uid,
            gid: plan.user.gid,
            masks: self.masks.clone(),
            capabilities: plan.capabilities.clone(),
            host_ports: self.options.host_ports.clone(),
            bounds: self.options.bounds.of_guest(&plan.resources, environment_bytes, self.machine_bytes),
        }
    }

    /// Everything until the launcher runs.
    async fn start(&self, plan: &GuestPlan, output: &Path) -> Result<Running> {
        self.check_capabilities(plan)?;
        check_environments(plan)?;
        let (root, held) = self.root(plan).await?;
        let output = std::path::absolute(output).map_err(|e| Error::io("find", output, e))?;
        let Prepared { mut launched, folder, lock } =
            self.ready.take(&self.starter, &self.folders, is_online(plan)).await?;
        launched.order(&Order::Guest(Box::new(self.order(plan, folder.path(), root, &output)))).await?;
        // From here on the launcher removes it.
        Ok(Running {
            launched,
            folder: folder.keep(),
            _lock: lock,
            _root: held,
            _layers: plan.layers.clone(),
        })
    }

    /// Runs the guest once.
    async fn run_once(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: &Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> Result<GuestOutcome, NotRun> {
        let mut running = tokio::select! {
            started = self.start(plan, output) => started.map_err(|error| NotRun { error, began: false })?,
            () = cancel.cancelled() => return Ok(GuestOutcome::Cancelled),
        };
        let mut progress = Progress { plan, sink, began: false, step: None, failure: None };
        let outcome = Self::hear(&mut running, &mut progress, cancel).await;
        if matches!(outcome, Ok(GuestOutcome::Succeeded | GuestOutcome::StepFailed { .. })) {
            // Nothing of the guest runs any more; its folder goes while the next one starts.
            let (folders, ready) = (Arc::clone(&self.folders), Arc::clone(&self.ready));
            let online = is_online(plan);
            let starter = self.options.ready_launcher.then(|| self.starter.clone());
            tokio::spawn(async move {
                if let Some(starter) = starter {
                    ready.refill(&starter, &folders, online).await;
                }
                running.clear(&folders).await;
            });
        } else {
            let folders = Arc::clone(&self.folders);
            // In a task, which goes on when nobody waits for the guest any more.
            let removal = tokio::spawn(async move {
                // It may be at work still.
                if let Err(error) = running.launched.stop().await {
                    tracing::warn!(reason = %error.chain(), "a guest's launcher was lost");
                }
                folders.remove(&running.folder).await;
            });
            if let Err(error) = removal.await {
                tracing::warn!(%error, "the removal of a guest died");
            }
        }
        outcome.map_err(|error| NotRun { error, began: progress.began })
    }

    async fn hear(
        running: &mut Running,
        progress: &mut Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<GuestOutcome> {
        loop {
            let told = tokio::select! {
                told = running.launched.next() => told?,
                () = cancel.cancelled() => {
                    running.launched.stop().await?;
                    return Ok(GuestOutcome::Cancelled);
                }
            };
            let Some(told) = told else {
                let error = running.launched.died().await;
                return progress.died(launcher::memory_met(running.name()), error);
            };
            if let Some(outcome) = progress.hear(&mut running.launched, told).await? {
                return Ok(outcome);
            }
            // A reader that lags slows the step down: its pipes fill up. The next turn sees a cancellation.
            let _ = cancel.run_until_cancelled(progress.sink.ready()).await;
        }
    }
}

/// Whether an error is of a process that was killed.
fn was_killed(error: &Error) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<ProcessKilled>)
}

/// Why a guest came to no end of its own.
struct NotRun {
    error: Error,
    /// Whether a step had begun.
    began: bool,
}

fn starved() -> Error {
    Error::new(ErrorKind::Unavailable, "this machine ran out of memory")
        .blame(Blame::Farm)
        .source(Shortage::Memory)
        .hint("run fewer jobs on it at one time, or give them less memory each")
}

fn full(failure: &StepFailure) -> Error {
    let message = "the disk of this machine was full when a step failed";
    let error = Error::new(ErrorKind::Unavailable, message).blame(Blame::Farm).with("step", &failure.step);
    let error = match failure.tail.last() {
        Some(last) => error.with("last_line", last),
        None => error,
    };
    error.source(Shortage::Disk).hint("make room where the state folder is, or run fewer jobs at one time")
}

/// The bytes of a variable, with its name.
fn variable_bytes((name, value): &(String, String)) -> usize {
    name.len() + value.len()
}

/// What bubblewrap and the kernel take.
fn check_environments(plan: &GuestPlan) -> Result<()> {
    let refuse = |step: &GuestStep, what: String| {
        let error = Error::invalid(format!("the step `{}` {what}", step.name)).blame(Blame::Definition);
        Err(error.hint("write what is large or many into a file of the workspace"))
    };
    for step in &plan.steps {
        if step.environment.len() > limits::SANDBOX_VARIABLES_MAX {
            let (count, most) = (step.environment.len(), limits::SANDBOX_VARIABLES_MAX);
            return refuse(step, format!("has {count} environment variables, more than {most}"));
        }
        let is_large = |pair: &&(String, String)| variable_bytes(pair) > limits::SANDBOX_VARIABLE_BYTES_MAX;
        let large = step.environment.iter().find(is_large);
        if let Some((name, value)) = large {
            let (length, most) = (value.len(), limits::SANDBOX_VARIABLE_BYTES_MAX);
            return refuse(step, format!("has {length} bytes in the variable {name}, more than {most}"));
        }
    }
    Ok(())
}

fn is_online(plan: &GuestPlan) -> bool {
    plan.steps.iter().any(|step| step.network)
}

/// The name of a step's script in the guest's folder of scripts.
fn step_script(index: usize) -> String {
    format!("step-{index:04}.sh")
}

/// What the guest has of its workspace in common with others: all archives but the last, where it shares its root
/// filesystem too.
fn common_workspace(plan: &GuestPlan) -> &[Blob] {
    match plan.workspace.split_last() {
        Some((_, common)) if plan.shared_root => common,
        _ => &[],
    }
}

/// A guest that runs.
struct Running {
    launched: Launched,
    folder: PathBuf,
    /// Says that the folder is in use.
    _lock: std::fs::File,
    /// Keeps the root filesystem below its tree, until nothing is mounted any more.
    _root: Option<HeldRoot>,
    /// The same of what lies below that.
    _layers: Layers,
}

impl Running {
    /// The guest's name, which its control groups have too.
    fn name(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// Waits until the launcher has removed the folder, and has it removed when the launcher could not.
    async fn clear(mut self, folders: &Folders) {
        if let Err(error) = self.launched.wait().await {
            tracing::warn!(reason = %error.chain(), "a guest's launcher was lost");
        }
        folders.remove(&self.folder).await;
    }
}

/// A guest that runs: what was heard of it so far.
struct Progress<'a> {
    plan: &'a GuestPlan,
    sink: &'a Arc<dyn BuildSink>,
    began: bool,
    step: Option<(usize, Lines, Instant)>,
    failure: Option<(usize, StepFailure)>,
}

impl Progress<'_> {
    /// Takes what the launcher told; an outcome once there is one.
    async fn hear(&mut self, launched: &mut Launched, told: Told) -> Result<Option<GuestOutcome>> {
        match told {
            Told::Log(stream, bytes) => {
                if let Some((_, lines, _)) = &mut self.step {
                    lines.take(stream, &bytes);
                }
            }
            Told::Message(Message::Started(index)) => {
                let name = self.plan.steps.get(index).map(|step| step.name.clone()).unwrap_or_default();
                self.sink.emit(BuildEvent::StepStarted { index, total: self.plan.steps.len(), name });
                self.began = true;
                self.step = Some((index, Lines::new(self.sink, index), Instant::now()));
            }
            Told::Message(Message::Ended(end)) => self.ended(&end)?,
            Told::Message(Message::Quiet) => {}
            Told::Message(Message::Done) => {
                return Ok(Some(match self.failure.take() {
                    Some((index, failure)) => GuestOutcome::StepFailed { index, failure },
                    None => GuestOutcome::Succeeded,
                }));
            }
            Told::Message(message) => return Err(launched.trouble(message).await),
        }
        Ok(None)
    }

    /// The end of a launcher that died with `error`: where the kernel took memory away, it may have chosen it.
    fn died(&mut self, met: Option<Met>, error: Error) -> Result<GuestOutcome> {
        let (words, out_of_memory) = match met {
            Some(Met::Memory(words)) => (words, true),
            Some(Met::Processes(words)) => (words, false),
            Some(Met::MachineMemory) => return Err(starved().source(error)),
            None => return Err(error),
        };
        let Some((index, mut lines, _)) = self.step.take() else { return Err(error) };
        lines.note(&words);
        let failure = self.failure_of(index, 128 + SIGKILL, lines.finish());
        Ok(GuestOutcome::StepFailed { index, failure: StepFailure { out_of_memory, ..failure } })
    }

    fn failure_of(&self, index: usize, exit_code: i32, tail: Vec<String>) -> StepFailure {
        let step = self.plan.steps.get(index).map(|step| step.name.clone()).unwrap_or_default();
        StepFailure { tail, ..StepFailure::new(step, exit_code) }
    }

    fn ended(&mut self, end: &StepEnd) -> Result<()> {
        let Some((index, mut lines, begin)) = self.step.take() else {
            return Err(Error::unexpected("the sandbox told of the end of no step"));
        };
        if let Some(bytes) = end.peak_bytes {
            self.sink.emit(BuildEvent::MemoryPeak { bytes });
        }
        if end.status == 0 {
            lines.finish();
            self.sink.emit(BuildEvent::StepFinished { index, took: begin.elapsed(), cached: false });
            return Ok(());
        }
        if let Some(met) = &end.met {
            lines.note(met);
        }
        let tail = lines.finish();
        match end.lacked {
            Some(Lack::Memory) => return Err(starved()),
            Some(Lack::Disk) => return Err(full(&self.failure_of(index, end.status, tail))),
            None => {}
        }
        if end.lost && end.met.is_none() {
            let error = Error::new(ErrorKind::Unavailable, "a process of the sandbox's own was killed");
            return Err(error.blame(Blame::Farm));
        }
        let last = tail.last().cloned().unwrap_or_default();
        // All mounts are made by then: it is the root that has no shell, or one that does not run.
        let is_shell_at_fault = last.starts_with("bwrap: execvp ");
        if !end.started && end.met.is_none() && !is_shell_at_fault {
            return Err(Error::new(ErrorKind::Unavailable, "the sandbox could not be started")
                .blame(Blame::Farm)
                .with("because", last));
        }
        let failure = self.failure_of(index, end.status, tail);
        self.failure = Some((index, StepFailure { out_of_memory: end.out_of_memory, ..failure }));
        Ok(())
    }
}

#[async_trait]
impl GuestRunner for SandboxRunner {
    async fn root_form(&self) -> RootForm {
        if self.overlay_works().await { RootForm::Layered } else { RootForm::Archive }
    }

    async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<GuestOutcome> {
        let mut pauses = Backoff::new(START_PAUSE, START_PAUSE_MAX);
        let mut starts = 1;
        loop {
            let NotRun { error, began } = match self.run_once(plan, output, &sink, &cancel).await {
                Ok(outcome) => return Ok(outcome),
                Err(not_run) => not_run,
            };
            if began || starts >= STARTS_MAX || !was_killed(&error) {
                return Err(error);
            }
            tracing::warn!(guest = plan.name, starts, error = %error.chain(), "a guest is started again");
            starts += 1;
            if cancel.run_until_cancelled(tokio::time::sleep(pauses.pause())).await.is_none() {
                return Ok(GuestOutcome::Cancelled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_looked_for_with_its_package() {
        assert!(needed_programs(true).contains(&("slirp4netns", "slirp4netns")));
        assert!(!needed_programs(true).iter().any(|(program, _)| *program == "newuidmap"));
        assert!(needed_programs(false).contains(&("newuidmap", "uidmap")));
    }

    #[test]
    fn a_program_that_is_no_launcher_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let options = SandboxOptions {
            launcher: Some(PathBuf::from("/nonexistent/launcher")),
            ..SandboxOptions::new(folder.path())
        };
        assert!(Starter::new(&options, true).unwrap_err().chain().contains("/nonexistent/launcher"));
        let error = Starter::new(&SandboxOptions::new(folder.path()), true).unwrap_err();
        assert!(error.hint_text().unwrap().contains("run_if_asked"));
    }
}
