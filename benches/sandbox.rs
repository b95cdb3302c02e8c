//! What a guest of the sandbox costs beside its bare runtime: trivial guests through the runner, and the same program
//! in `bwrap` alone on the same root, each as often, in turns. Each begins when nothing of the one before is left.

#![expect(clippy::print_stdout, reason = "figures are the bench's result")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::NullSink;
use melange_remote_sdk::guest::{
    Blob, DEFAULT_CAPABILITIES, GuestOutcome, GuestPlan, GuestRunner, GuestStep,
};
use melange_remote_sdk::sandbox::{SandboxOptions, SandboxRunner};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

mod support;

use support::rounds;

/// Guests of one measurement.
const GUESTS: usize = 30;

/// Guests of this run.
fn count() -> usize {
    rounds(GUESTS, 2)
}

/// How long a guest's folder and groups may take to be gone, and the next launcher to be ready.
const REST: Duration = Duration::from_millis(200);

/// A shell that does nothing: what is measured is everything around it.
const SHELL: &str = "int main(void) { return 0; }\n";

fn blob(path: PathBuf) -> Blob {
    let bytes = std::fs::read(&path).expect("the tar is read");
    Blob { path, sha256: hex::encode(Sha256::digest(&bytes)), size_bytes: bytes.len() as u64 }
}

/// A root filesystem with that shell, unpacked and as a tar.
fn root(folder: &Path) -> (PathBuf, Blob) {
    let tree = folder.join("root");
    std::fs::create_dir_all(tree.join("bin")).expect("folders are made");
    std::fs::write(folder.join("sh.c"), SHELL).expect("the source is written");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-o"]).arg(tree.join("bin/sh")).arg(folder.join("sh.c"));
    assert!(compiler.status().expect("a C compiler").success());
    let tar = folder.join("root.tar");
    assert!(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status()
            .expect("tar")
            .success()
    );
    (tree, blob(tar))
}

fn plan(folder: &Path, root: Blob, network: bool) -> GuestPlan {
    let work = folder.join("work");
    std::fs::create_dir_all(work.join("melange-out")).expect("folders are made");
    let tar = folder.join("work.tar");
    assert!(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&work)
            .arg(".")
            .status()
            .expect("tar")
            .success()
    );
    let arch = Arch::host().expect("this machine's architecture");
    let mut step = GuestStep::new("nothing", "");
    step.network = network;
    let mut plan = GuestPlan::new("trivial", arch, root, vec![blob(tar)], vec![step]);
    plan.shared_root = true;
    plan.capabilities = DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    plan
}

/// The program in bubblewrap alone, with the namespaces that a step has.
fn bare(root: &Path) -> Duration {
    let begin = Instant::now();
    let status = Command::new("bwrap")
        .arg("--bind")
        .args([root, Path::new("/")])
        .args(["--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-ipc", "--unshare-uts"])
        .args(["--unshare-net", "--unshare-cgroup-try", "--new-session", "--die-with-parent", "/bin/sh"])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("bwrap").success());
    begin.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = SandboxOptions::new(folder.path().join("state"));
    options.launcher = Some(PathBuf::from(env!("CARGO_BIN_EXE_sandbox-launcher")));
    options.ready_launcher = true;
    let runner = SandboxRunner::new(&options).expect("the sandbox works here");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (tree, root) = root(folder.path());
    let guest = |plan: &GuestPlan| {
        let begin = Instant::now();
        let output = folder.path().join("out.tar");
        let outcome =
            runtime.block_on(runner.run(plan, &output, Arc::new(NullSink), CancellationToken::new()));
        assert_eq!(outcome.expect("the sandbox works"), GuestOutcome::Succeeded);
        begin.elapsed()
    };
    for network in [false, true] {
        let plan = plan(folder.path(), root.clone(), network);
        // The first guest unpacks the root filesystem.
        guest(&plan);
        let (mut alone, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..count() {
            alone.push(bare(&tree));
            whole.push(guest(&plan));
            std::thread::sleep(REST);
        }
        let (alone, whole) = (median(alone), median(whole));
        let what = if network { "with network" } else { "without network" };
        println!(
            "{} trivial guests {what}: p50 {whole:.1} ms; bwrap alone {alone:.1} ms; ratio {:.2}",
            count(),
            whole / alone
        );
    }
}
