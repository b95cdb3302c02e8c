//! The embedded sandbox: a [`GuestRunner`] for machines without a BuildKit daemon.
//!
//! Each step is one `bwrap` (bubblewrap) in its own mount, process, ipc and host name namespace over an overlay
//! of the unpacked root filesystem. As root it uses real ids and drops every capability that a container would
//! not have; as another user it works in a user namespace with a mapped range of ids (`newuidmap`), so that
//! `chown` and `install -o` behave as in a container. No new privileges, a seccomp filter, no network unless
//! the step may need it. `/var/cache/melange` belongs to the guest alone: what builds shared there, one could
//! poison for the others.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildEvent, BuildSink, StepFailure};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{self, GuestOutcome, GuestPlan, GuestRunner, GuestStep};

mod output;
mod seccomp;

use output::{Pumped, pump};

/// The address of the embedded sandbox in a list of backends.
pub const ADDRESS: &str = "sandbox://local";

/// Moves the guest's folder to a place that every user can reach, whatever lies above the state folder. The
/// mounts are the step's own; `-c` because the folder may itself lie below `/tmp`.
const REACHABLE: &str = "mount -t tmpfs -o mode=755 guest /tmp; mkdir /tmp/guest; mount -c --rbind . /tmp/guest; \
                         cd /tmp/guest; ";
/// Tries of removing a guest's folder.
const REMOVALS_MAX: u32 = 3;
/// How long the kernel may take to end the processes of a guest that was killed.
const END_GRACE: Duration = Duration::from_secs(5);

/// What an operator decides about the sandbox.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Unpacked root filesystems and running guests are kept below it.
    pub state_dir: PathBuf,
}

/// The runner.
#[derive(Debug)]
pub struct SandboxRunner {
    state_dir: PathBuf,
    privileged: bool,
    /// One lock per root filesystem, so that it is unpacked once.
    unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    overlay: tokio::sync::OnceCell<bool>,
}

/// One guest's folders; dropping it waits for the end of its last step, which was told to stop, and removes
/// them.
struct Guest {
    folder: PathBuf,
    /// Whether the tree is mounted anew for each command.
    overlay: bool,
    lower: PathBuf,
    _remover: Remover,
}

/// What bubblewrap tells about a step it started.
#[derive(serde::Deserialize)]
struct Started {
    #[serde(rename = "child-pid")]
    process: u32,
}

/// Removes a tree whose files may belong to mapped ids.
struct Remover {
    folder: PathBuf,
    privileged: bool,
}

impl Drop for Remover {
    fn drop(&mut self) {
        // A process that was killed a moment ago may still add to the tree.
        for _ in 0..REMOVALS_MAX {
            let mut command = std::process::Command::new("unshare");
            if !self.privileged {
                command.args(["--user", "--map-root-user", "--map-auto"]);
            }
            let output = command.args(["--", "rm", "-rf", "--"]).arg(&self.folder).output();
            if output.is_ok_and(|output| output.status.success()) {
                return;
            }
        }
        tracing::warn!(folder = %self.folder.display(), "the sandbox's folder could not be removed");
    }
}

impl SandboxRunner {
    /// A runner, after looking for the programs it needs.
    ///
    /// # Errors
    /// `Unsupported`, naming the missing program and its Debian package.
    pub fn new(options: &SandboxOptions) -> Result<Self> {
        let privileged = rustix::process::geteuid().is_root();
        let mut needed = vec![
            ("bwrap", "bubblewrap"),
            ("unshare", "util-linux"),
            ("tar", "tar"),
            ("setpriv", "util-linux"),
        ];
        if !privileged {
            needed.push(("newuidmap", "uidmap"));
        }
        for (program, package) in needed {
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
        for folder in ["roots", "guests"] {
            let path = options.state_dir.join(folder);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
        }
        let state_dir =
            options.state_dir.canonicalize().map_err(|e| Error::io("open", &options.state_dir, e))?;
        Ok(Self {
            state_dir,
            privileged,
            unpacking: Mutex::new(HashMap::new()),
            overlay: tokio::sync::OnceCell::new(),
        })
    }

    /// A shell script run with the right to mount, in a mount namespace of its own. `$1`… are `args`. What it
    /// creates does not depend on the umask of the engine.
    fn shell(&self, options: &[&str], script: &str, args: &[OsString]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).args(options);
        if !self.privileged {
            command.args(["--user", "--map-root-user", "--map-auto"]);
        }
        command.args(["--", "sh", "-ec", &format!("umask 022; {script}"), "sh"]).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs such a script to its end. When the future is dropped, all its processes end: they live in a process
    /// namespace whose first process dies with its parent.
    async fn run_shell(&self, what: &str, script: &str, args: &[OsString]) -> Result<()> {
        let output = self
            .shell(&["--pid", "--fork", "--kill-child"], script, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .await
            .map_err(|e| Error::unexpected(format!("cannot {what}")).source(e))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        Err(Error::unexpected(format!("cannot {what}"))
            .with("because", last.into_iter().rev().collect::<Vec<_>>().join("; ")))
    }

    /// The unpacked root filesystem, shared by all guests that use it and never changed.
    async fn lower(&self, plan: &GuestPlan) -> Result<PathBuf> {
        let path = self.state_dir.join("roots").join(&plan.root.sha256);
        let lock = {
            let mut locks = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(plan.root.sha256.clone()).or_default())
        };
        let _guard = lock.lock().await;
        if path.exists() {
            return Ok(path);
        }
        let unfinished = tempfile::Builder::new()
            .prefix("unpacking.")
            .tempdir_in(self.state_dir.join("roots"))
            .map_err(|e| Error::io("create a folder in", &self.state_dir, e))?;
        let folder = unfinished.keep();
        let remover = Remover { folder: folder.clone(), privileged: self.privileged };
        let script = "chmod 755 \"$2\"; tar --numeric-owner --same-owner --xattrs --xattrs-include='*' -xpf \"$1\" -C \"$2\"";
        self.run_shell(
            "unpack the root filesystem",
            script,
            &[plan.root.path.clone().into(), folder.clone().into()],
        )
        .await?;
        match std::fs::rename(&folder, &path) {
            Ok(()) => std::mem::forget(remover),
            // Another process was faster; ours is removed.
            Err(_) if path.exists() => {}
            Err(error) => return Err(Error::io("create", &path, error)),
        }
        Ok(path)
    }

    /// Whether overlays can be mounted below the state folder.
    async fn overlay_works(&self) -> bool {
        let probe = async {
            let Ok(folder) =
                tempfile::Builder::new().prefix("probe.").tempdir_in(self.state_dir.join("guests"))
            else {
                return false;
            };
            let script = "cd \"$1\"; mkdir lower upper work merged; touch lower/a; \
                          mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; \
                          test -e merged/a; touch merged/b; umount merged; rm -rf work";
            self.run_shell("mount an overlay", script, &[folder.path().into()]).await.is_ok()
        };
        *self.overlay.get_or_init(|| probe).await
    }

    async fn prepare(&self, plan: &GuestPlan) -> Result<Guest> {
        let lower = self.lower(plan).await?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}.", plan.name))
            .tempdir_in(self.state_dir.join("guests"))
            .map_err(|e| Error::io("create a folder in", &self.state_dir, e))?
            .keep();
        let remover = Remover { folder: folder.clone(), privileged: self.privileged };
        let overlay = self.overlay_works().await;
        for name in ["upper", "work", "merged", "scripts", "sources"] {
            std::fs::create_dir(folder.join(name)).map_err(|e| Error::io("create", &folder, e))?;
        }
        let guest = Guest { folder, overlay, lower, _remover: remover };
        for (index, step) in plan.steps.iter().enumerate() {
            let path = guest.folder.join("scripts").join(script_name(index));
            std::fs::write(&path, &step.script).map_err(|e| Error::io("write", &path, e))?;
        }
        seccomp::write(&guest.folder.join("seccomp"))?;
        if plan.user.uid != 0 {
            copy_sources(plan, &guest).await?;
        }
        if !overlay {
            tracing::info!("overlays are not available here; the root filesystem is copied for this guest");
            let script = "cp -a --reflink=auto \"$1/.\" \"$2/\"";
            self.run_shell(
                "copy the root filesystem",
                script,
                &[guest.lower.clone().into(), guest.folder.join("merged").into()],
            )
            .await?;
        }
        let script = format!(
            "cd \"$1\"; chmod 755 . upper merged; chmod -R u=rwX,go=rX scripts sources; \
             {}mkdir -p merged{ws} merged{cache}; chmod 755 merged{ws} merged{cache}; \
             chown {uid}:{gid} merged{ws} merged{cache}; \
             tar --numeric-owner --same-owner -xpf \"$3\" -C merged{ws}",
            mount_script(&guest),
            ws = guest::WORKSPACE,
            cache = guest::CACHE,
            uid = plan.user.uid,
            gid = plan.user.gid,
        );
        self.run_shell("unpack the workspace", &script, &guest.args([plan.workspace.path.clone().into()]))
            .await?;
        self.make_mount_points(plan, &guest).await?;
        Ok(guest)
    }

    /// Lets root make the places where things are mounted: another user may not, and root must not follow the
    /// guest's links outside of the sandbox.
    async fn make_mount_points(&self, plan: &GuestPlan, guest: &Guest) -> Result<()> {
        if plan.user.uid == 0 {
            return Ok(());
        }
        let script = format!("{}shift 2; exec bwrap \"$@\"", mount_script(guest));
        let mut args = mounts(plan, true);
        args.extend(["--", "/bin/sh", "-c", ":"].map(OsString::from));
        self.run_shell("prepare the sandbox", &script, &guest.args(args)).await
    }

    /// The command of one step.
    fn step_command(&self, plan: &GuestPlan, guest: &Guest, index: usize, step: &GuestStep) -> Command {
        let as_root = plan.user.uid == 0;
        let drop_user = if as_root {
            String::new()
        } else {
            format!("setpriv --reuid {} --regid {} --clear-groups ", plan.user.uid, plan.user.gid)
        };
        let reachable = if as_root { "" } else { REACHABLE };
        let script = format!(
            "{}{reachable}shift 2; exec {drop_user}bwrap \"$@\" 8>process 9<seccomp",
            mount_script(guest)
        );
        let mut args = mounts(plan, step.network);
        let mut put = |items: &[&str]| args.extend(items.iter().map(OsString::from));
        put(&["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        put(&["--unshare-cgroup-try", "--hostname", "melange", "--die-with-parent", "--new-session"]);
        put(&["--info-fd", "8", "--seccomp", "9", "--cap-drop", "ALL"]);
        if as_root {
            plan.capabilities.iter().for_each(|capability| put(&["--cap-add", capability]));
        } else {
            let (uid, gid) = (plan.user.uid.to_string(), plan.user.gid.to_string());
            put(&["--unshare-user", "--uid", &uid, "--gid", &gid]);
        }
        if !step.network {
            put(&["--unshare-net"]);
        }
        args.push("--clearenv".into());
        for (name, value) in &step.environment {
            args.extend(["--setenv".into(), name.into(), value.into()]);
        }
        let file = format!("{}/{}", guest::SCRIPTS, script_name(index));
        args.extend(["--chdir", guest::WORKSPACE, "--", "/bin/sh", &file].map(OsString::from));
        let mut command = self.shell(&[], &script, &guest.args(args));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the chain and collects what it leaves.
    async fn run_steps(
        &self,
        plan: &GuestPlan,
        guest: &Guest,
        output: &Path,
        sink: &Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> Result<GuestOutcome> {
        for index in 0..plan.steps.len() {
            if let Some(outcome) = self.run_step(plan, guest, index, sink, cancel).await? {
                return Ok(outcome);
            }
        }
        let script = format!(
            "{}tar --format=posix --pax-option=delete=atime,delete=ctime --numeric-owner --sort=name \
             --xattrs --xattrs-include='*' -cf \"$3\" -C merged{} .",
            mount_script(guest),
            guest::OUTPUT
        );
        let args = guest.args([output.into()]);
        let collect = self.run_shell("collect the output", &script, &args);
        match cancel.run_until_cancelled(collect).await {
            Some(collected) => collected.map(|()| GuestOutcome::Succeeded),
            None => Ok(GuestOutcome::Cancelled),
        }
    }

    async fn run_step(
        &self,
        plan: &GuestPlan,
        guest: &Guest,
        index: usize,
        sink: &Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> Result<Option<GuestOutcome>> {
        let step = &plan.steps[index];
        let name = step.name.clone();
        sink.emit(BuildEvent::StepStarted { index, total: plan.steps.len(), name: name.clone() });
        let begin = Instant::now();
        let mut child = self
            .step_command(plan, guest, index, step)
            .spawn()
            .map_err(|e| Error::unexpected("cannot start the sandbox").source(e))?;
        let Pumped { status, tail } = match pump(&mut child, index, sink, cancel).await? {
            Some(pumped) => pumped,
            None => return Ok(Some(GuestOutcome::Cancelled)),
        };
        if status == 0 {
            sink.emit(BuildEvent::StepFinished { index, took: begin.elapsed(), cached: false });
            return Ok(None);
        }
        let failure = StepFailure { step: name, exit_code: status, tail };
        Ok(Some(GuestOutcome::StepFailed { index, failure }))
    }
}

/// What every step finds where, seen from the guest's folder.
fn mounts(plan: &GuestPlan, network: bool) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut put = |items: &[&str]| args.extend(items.iter().map(OsString::from));
    put(&["--bind", "merged", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/dev/shm"]);
    put(&["--ro-bind", "/sys", "/sys", "--ro-bind", "scripts", guest::SCRIPTS]);
    if network {
        put(&["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]);
    }
    for (index, source) in plan.sources.iter().enumerate() {
        let inside = format!("{}/{}", guest::CACHE, source.name);
        let file = if plan.user.uid == 0 {
            source.blob.path.clone().into()
        } else {
            format!("sources/{index}").into()
        };
        args.extend(["--ro-bind".into(), file, inside.into()]);
    }
    args
}

/// Copies of the sources that another user than root can reach and read.
async fn copy_sources(plan: &GuestPlan, guest: &Guest) -> Result<()> {
    for (index, source) in plan.sources.iter().enumerate() {
        let copy = guest.folder.join("sources").join(index.to_string());
        tokio::fs::copy(&source.blob.path, &copy)
            .await
            .map_err(|e| Error::io("copy", &source.blob.path, e))?;
    }
    Ok(())
}

fn script_name(index: usize) -> String {
    format!("step-{index:04}.sh")
}

/// Goes to the guest's folder and mounts its tree at `merged`; `$1` is the folder, `$2` the lower tree.
fn mount_script(guest: &Guest) -> &'static str {
    if guest.overlay {
        "cd \"$1\"; ln -sfn \"$2\" lower; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; "
    } else {
        "cd \"$1\"; "
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let begin = Instant::now();
        while self.is_running() && begin.elapsed() < END_GRACE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Guest {
    /// Whether the first process of the last step is there. It ends after all others of its namespace.
    fn is_running(&self) -> bool {
        let Ok(told) = std::fs::read_to_string(self.folder.join("process")) else { return false };
        let process = serde_json::from_str(&told).map(|told: Started| told.process);
        let Ok(process) = process else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses; a zombie only waits to be counted.
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    }

    /// The folder and the lower tree, which every script expects, and what follows them.
    fn args(&self, more: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![self.folder.clone().into(), self.lower.clone().into()];
        args.extend(more);
        args
    }
}

#[async_trait]
impl GuestRunner for SandboxRunner {
    async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<GuestOutcome> {
        let guest = tokio::select! {
            guest = self.prepare(plan) => guest?,
            () = cancel.cancelled() => return Ok(GuestOutcome::Cancelled),
        };
        let outcome = self.run_steps(plan, &guest, output, &sink, &cancel).await;
        tokio::task::spawn_blocking(move || drop(guest))
            .await
            .map_err(|e| Error::unexpected("the clean-up died").source(e))?;
        outcome
    }
}
