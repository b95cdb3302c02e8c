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
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildEvent, BuildSink, StepFailure};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::{self, GuestOutcome, GuestPlan, GuestRunner, GuestStep};
use crate::limits;

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

/// The exit code of scripts that refuse what a guest left.
const REFUSED_CODE: i32 = 3;

/// Shell functions that keep root from following a guest's links out of its tree.
const GUARDS: &str = r#"
refuse() { echo "$1 is a link or a file where the guest must have a folder" >&2; exit 3; }
inside() { p=merged; for part; do p="$p/$part"; if [ -L "$p" ] || [ ! -d "$p" ]; then refuse "${p#merged}"; fi; done; }
make_folders() { p=merged; for part; do p="$p/$part"; if [ -L "$p" ]; then refuse "${p#merged}"; fi
  [ -d "$p" ] || mkdir "$p" || refuse "${p#merged}"; done; }
mountable() {
  for path in dev proc sys etc run run/melange var var/cache var/cache/melange; do
    if [ -L "merged/$path" ] || { [ -e "merged/$path" ] && [ ! -d "merged/$path" ]; }; then refuse "/$path"; fi
  done
  for path in merged/etc/resolv.conf merged/var/cache/melange/sha*:*; do
    if [ -L "$path" ] || { [ -e "$path" ] && [ ! -f "$path" ]; }; then rm -rf "$path"; fi
  done
}
"#;

/// What an operator decides about the sandbox.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Unpacked root filesystems and running guests are kept below it, readable by nobody else.
    pub state_dir: PathBuf,
    /// Whether definitions may ask for capabilities beyond [`guest::DEFAULT_CAPABILITIES`]. As root these are the
    /// machine's own: only for definitions that are trusted with it.
    pub extra_capabilities: bool,
}

/// The runner.
#[derive(Debug)]
pub struct SandboxRunner {
    state_dir: PathBuf,
    extra_capabilities: bool,
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
    /// Held while the guest lives, so that a later engine knows what a killed one left.
    _lock: std::fs::File,
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
            // A setuid file that a step makes must not be within reach of this machine's other users.
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&path, private).map_err(|e| Error::io("protect", &path, e))?;
        }
        let state_dir =
            options.state_dir.canonicalize().map_err(|e| Error::io("open", &options.state_dir, e))?;
        sweep(&state_dir.join("guests"), privileged);
        Ok(Self {
            state_dir,
            extra_capabilities: options.extra_capabilities,
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
        if output.status.code() == Some(REFUSED_CODE) {
            let message = last.first().copied().unwrap_or_default().to_owned();
            return Err(Error::invalid(message).blame(Blame::Definition));
        }
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
        self.unpack(&plan.root.path, &folder).await?;
        match std::fs::rename(&folder, &path) {
            Ok(()) => std::mem::forget(remover),
            // Another process was faster; ours is removed.
            Err(_) if path.exists() => {}
            Err(error) => return Err(Error::io("create", &path, error)),
        }
        Ok(path)
    }

    async fn unpack(&self, root: &Path, folder: &Path) -> Result<()> {
        let script = "chmod 755 \"$2\"; tar --numeric-owner --same-owner --xattrs --xattrs-include='*' -xpf \"$1\" -C \"$2\"";
        self.run_shell("unpack the root filesystem", script, &[root.into(), folder.into()]).await
    }

    /// Whether overlays can be mounted below the state folder.
    async fn overlay_works(&self) -> bool {
        let probe = async {
            let Ok(folder) =
                tempfile::Builder::new().prefix("probe.").tempdir_in(self.state_dir.join("guests"))
            else {
                return false;
            };
            let script = format!(
                "cd \"$1\"; mkdir lower lower/d upper work merged; touch lower/a; {}; test -e merged/a; \
                 touch merged/b; rmdir merged/d; mkdir merged/d; umount merged; rm -rf work",
                self.overlay_mount()
            );
            self.run_shell("mount an overlay", &script, &[folder.path().into()]).await.is_ok()
        };
        *self.overlay.get_or_init(|| probe).await
    }

    /// The command that mounts the overlay in the guest's folder.
    fn overlay_mount(&self) -> &'static str {
        if self.privileged {
            "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged"
        } else {
            // In a user namespace only this user's own attributes can mark what is hidden.
            "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged"
        }
    }

    /// Goes to the guest's folder and mounts its tree at `merged`; `$1` is the folder, `$2` the lower tree. The
    /// functions that follow keep the engine from following the guest's links: no process of the guest runs
    /// while a script does.
    fn mount_script(&self, guest: &Guest) -> String {
        let mount = if guest.overlay {
            format!("ln -sfn \"$2\" lower; {}; ", self.overlay_mount())
        } else {
            String::new()
        };
        format!("cd \"$1\"; {mount}{GUARDS}")
    }

    fn check_capabilities(&self, plan: &GuestPlan) -> Result<()> {
        let known = |name: &String| guest::DEFAULT_CAPABILITIES.contains(&name.as_str());
        match plan.capabilities.iter().find(|name| !known(name)) {
            Some(name) if !self.extra_capabilities => Err(Error::new(
                ErrorKind::Unsupported,
                format!("this sandbox does not give the capability {name}"),
            )
            .blame(Blame::Policy)
            .hint("drop it from `capabilities.add`, or build on a machine of your own with `melange build`")),
            _ => Ok(()),
        }
    }

    async fn prepare(&self, plan: &GuestPlan) -> Result<Guest> {
        self.check_capabilities(plan)?;
        let lower = if plan.shared_root { self.lower(plan).await? } else { PathBuf::new() };
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}.", plan.name))
            .tempdir_in(self.state_dir.join("guests"))
            .map_err(|e| Error::io("create a folder in", &self.state_dir, e))?
            .keep();
        let remover = Remover { folder: folder.clone(), privileged: self.privileged };
        let lock = locked(&folder)?;
        let overlay = plan.shared_root && self.overlay_works().await;
        for name in ["upper", "work", "merged", "scripts", "sources"] {
            std::fs::create_dir(folder.join(name)).map_err(|e| Error::io("create", &folder, e))?;
        }
        let guest = Guest { folder, overlay, lower, _lock: lock, _remover: remover };
        for (index, step) in plan.steps.iter().enumerate() {
            let path = guest.folder.join("scripts").join(script_name(index));
            std::fs::write(&path, &step.script).map_err(|e| Error::io("write", &path, e))?;
        }
        for (index, script) in plan.scripts.iter().enumerate() {
            let path = guest.folder.join("scripts").join(guest::script_name(index));
            std::fs::write(&path, script).map_err(|e| Error::io("write", &path, e))?;
        }
        seccomp::write(&guest.folder.join("seccomp"))?;
        if plan.user.uid != 0 {
            copy_sources(plan, &guest).await?;
        }
        if !plan.shared_root {
            let tree = guest.folder.join("merged");
            self.unpack(&plan.root.path, &tree).await?;
        } else if !overlay {
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
             {}make_folders home build; make_folders var cache melange; \
             chmod 755 merged{ws} merged{cache}; chown -h {uid}:{gid} merged{ws} merged{cache}; \
             tar --numeric-owner --same-owner -xpf \"$3\" -C merged{ws}",
            self.mount_script(&guest),
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
        let script = format!("{}mountable; shift 2; exec bwrap \"$@\"", self.mount_script(guest));
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
            "{}mountable; {reachable}shift 2; exec {drop_user}bwrap \"$@\" 8>process 9<seccomp",
            self.mount_script(guest)
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
            "{}inside home build melange-out; ulimit -f {}; tar --format=posix --pax-option=delete=atime,delete=ctime --numeric-owner --sort=name \
             --xattrs --xattrs-include='*' -cf \"$3\" -C merged{} .",
            self.mount_script(guest),
            limits::OUTPUT_BYTES_MAX / 512,
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
        guest.forget_process();
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
        if !guest.was_started() {
            let last = tail.last().cloned().unwrap_or_default();
            if status == REFUSED_CODE {
                return Err(Error::invalid(last).blame(Blame::Definition));
            }
            return Err(
                Error::new(ErrorKind::Unavailable, "the sandbox could not be started").with("because", last)
            );
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

/// A lock on a guest's folder.
fn locked(folder: &Path) -> Result<std::fs::File> {
    let path = folder.join("lock");
    let file = std::fs::File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::io("lock", &path, e.into()))?;
    Ok(file)
}

/// Removes the guests of engines that were killed: nobody holds their locks.
fn sweep(guests: &Path, privileged: bool) {
    for entry in std::fs::read_dir(guests).into_iter().flatten().flatten() {
        let Ok(lock) = std::fs::File::open(entry.path().join("lock")) else { continue };
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            drop(Remover { folder: entry.path(), privileged });
        }
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
    /// What bubblewrap told of the step before does not count for the next one.
    fn forget_process(&self) {
        // It may never have been there.
        let _ = std::fs::remove_file(self.folder.join("process"));
    }

    /// Whether bubblewrap came as far as starting a process.
    fn was_started(&self) -> bool {
        std::fs::metadata(self.folder.join("process")).is_ok_and(|told| told.len() > 0)
    }

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
