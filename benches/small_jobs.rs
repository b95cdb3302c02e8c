//! What a job that does next to nothing costs: through the server on the sandbox and on a BuildKit daemon, by
//! `melange build`, by the runner of BuildKit alone, by `buildctl`, and by `bwrap` alone on the same root. All of them
//! in turns, so that a busy machine slows all of them alike.
//!
//! `MELANGE_TEST_DISTRO` names the test distribution. `MELANGE_BENCH_BUILDKIT` gives the address of a daemon that
//! `buildctl` of the search path knows too, such as `unix:///run/buildkit/buildkitd.sock`; without it
//! `MELANGE_TEST_DOCKER_SOCK` names the socket of a dockerd. The program `melange` is the one beside this bench's own, or
//! what `MELANGE_BIN` names. What is missing is said, and left out.

#![expect(clippy::print_stdout, reason = "figures are the bench's result")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use melange_remote_sdk::api::v1::SubmitRequest;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::BackendAddress;
use melange_remote_sdk::builder::NullSink;
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::client::{Client, WaitEvent};
use melange_remote_sdk::guest::{
    Blob, DEFAULT_CAPABILITIES, GuestOutcome, GuestPlan, GuestRunner, GuestStep, RootForm,
};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::NoNetwork;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::text::diagnostics::Source;
use melange_server::assembly;
use melange_server::config::Config;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

mod support;

use support::rounds;

/// Jobs of one measurement.
const JOBS: usize = 30;

/// Jobs of this run.
fn count() -> usize {
    rounds(JOBS, 2)
}

/// How often a waiting client looks when nothing tells it of a change.
const POLL: Duration = Duration::from_millis(200);
/// The script of the job.
const SCRIPT: &str = "mkdir -p /home/build/melange-out/trivial/usr && echo done > \
                      /home/build/melange-out/trivial/usr/file";

fn definition() -> String {
    format!(
        "package:\n  name: trivial\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    packages: [busybox]\n\
         pipeline:\n  - runs: {SCRIPT}\n"
    )
}

/// One way to run the job, with the times of its runs. A run of a server tells what its steps took.
struct Way<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Option<Duration> + 'a>,
    times: Vec<Duration>,
    steps: Vec<Duration>,
}

impl<'a> Way<'a> {
    fn new(name: &'static str, run: impl FnMut() -> Option<Duration> + 'a) -> Self {
        Self { name, run: Box::new(run), times: Vec::new(), steps: Vec::new() }
    }
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// The server with both backends, as far as they are there, and its client.
async fn serve(folder: &Path, distro: &Path, daemon: Option<&BackendAddress>) -> Client {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut backends =
        "backends:\n  - addr: sandbox://local\n    arch: host\n    labels: {on: sandbox}\n".to_owned();
    if let Some(addr) = daemon {
        backends.push_str(&format!("  - addr: {addr}\n    arch: host\n    labels: {{on: buildkit}}\n"));
    }
    let backends = backends.replace("host\n", &format!("{}\n", host()));
    std::fs::write(folder.join("backends.yaml"), backends).expect("the file is written");
    let (repository, key) =
        (distro.display().to_string(), distro.join("keys/test-distro.rsa.pub").display().to_string());
    let (backends, output, state) = (at("backends.yaml"), at("output"), at("state"));
    let args =
        ["melange-server", "--backends-config", &backends, "--output-dir", &output, "--state-dir", &state];
    let args = args.into_iter().chain(["--repository", &repository, "--keyring", &key]);
    let mut config = Config::read(args.map(Into::into), &|_| None).expect("the flags are right");
    config.build.sandbox_launcher = Some(PathBuf::from(env!("CARGO_BIN_EXE_sandbox-launcher")));
    let parts = assembly::assemble(&config).await.expect("the server starts");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(melange_server::serve(listener, parts.app, CancellationToken::new()));
    tokio::spawn(async move { parts.scheduler.run(CancellationToken::new()).await });
    Client::new(&format!("http://{address}")).expect("the address is legal")
}

fn host() -> Arch {
    Arch::host().expect("this machine's architecture")
}

/// Submits the job and waits for its end; the time of its steps.
async fn job(client: &Client, on: &str) -> Option<Duration> {
    let mut request = SubmitRequest::new(definition());
    request.arch = Some(host().to_string());
    request.backend_selector = BTreeMap::from([("on".to_owned(), on.to_owned())]);
    let id = client.submit(&request).await.expect("it is taken");
    let job = client.wait(id, POLL, &mut |_: WaitEvent<'_>| {}).await.expect("it ends");
    assert_eq!(job.status, "success", "{:?}", job.error);
    let steps = job.phases.iter().find(|phase| phase.name == "steps");
    steps.map(|phase| Duration::from_millis(phase.duration_ms))
}

/// The job by the command line.
fn local(program: &Path, folder: &Path, distro: &Path) {
    let file = folder.join("trivial.yaml");
    std::fs::write(&file, definition()).expect("the definition is written");
    let mut build = Command::new(program);
    build.arg("build").arg(&file).arg("--state-dir").arg(folder.join("cli-state"));
    build.arg("--out-dir").arg(folder.join("packages")).arg("-r").arg(distro);
    build.arg("-k").arg(distro.join("keys/test-distro.rsa.pub"));
    let output = build.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The job's script in bubblewrap alone, with the namespaces that a step has.
fn bare(root: &Path) {
    std::fs::create_dir_all(root.join("home/build/melange-out")).expect("the folder is made");
    let status = Command::new("bwrap")
        .arg("--bind")
        .args([root, Path::new("/")])
        .args(["--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-ipc", "--unshare-uts"])
        .args(["--unshare-net", "--unshare-cgroup-try", "--new-session", "--die-with-parent"])
        .args(["/bin/sh", "-c", SCRIPT])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("bwrap").success());
}

/// The job's script by `buildctl` in the same root filesystem, which the daemon keeps from one run to the next; a file
/// that differs is copied, as between packages.
fn buildctl(address: &str, folder: &Path, root: &Path, number: usize) {
    let context = folder.join("context");
    std::fs::create_dir_all(&context).expect("the folder is made");
    if number == 1 {
        std::fs::copy(root, context.join("root.tar")).expect("the root filesystem is copied");
        let text = format!(
            "FROM scratch AS job\nADD root.tar /\nCOPY note /\nRUN {SCRIPT}\n\
             FROM scratch\nCOPY --from=job /home/build/melange-out /\n"
        );
        std::fs::write(context.join("Dockerfile"), text).expect("the file is written");
    }
    std::fs::write(context.join("note"), format!("{number} {}", std::process::id())).expect("a note");
    let mut build = Command::new("buildctl");
    build.args(["--addr", address, "build", "--frontend", "dockerfile.v0"]);
    for name in ["context", "dockerfile"] {
        build.arg("--local").arg(format!("{name}={}", context.display()));
    }
    build.arg("--output").arg(format!("type=tar,dest={}", folder.join("buildctl.tar").display()));
    let output = build.output().expect("buildctl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The root filesystem of the job as one archive, and the same unpacked.
async fn root(folder: &Path, distro: &Path) -> (Blob, PathBuf) {
    let source = Source::new("trivial.yaml", definition());
    let compiled = compile(&source, host(), &PipelineSet::default(), &CompileOptions::default());
    let Ok(Compiled::Plan(mut plan)) = compiled else { panic!("the definition is right") };
    let (distro, key) = (distro.display().to_string(), distro.join("keys/test-distro.rsa.pub"));
    (plan.environment.repositories, plan.environment.keyring) =
        (vec![distro], vec![key.display().to_string()]);
    let cache = StateCache::new(&folder.join("whole"), limits::CACHE_BYTES_DEFAULT);
    let assembler = Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any);
    let resolution = assembler.resolve(&plan.environment, host()).await.expect("a choice");
    let made = assembler.assemble_as(RootForm::Archive, &resolution, &plan.environment, host());
    let tar = made.await.expect("a root filesystem").blob.path;
    let tree = folder.join("root");
    std::fs::create_dir_all(&tree).expect("the folder is made");
    let unpacked = Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&tree).status();
    assert!(unpacked.expect("tar").success());
    (blob(tar), tree)
}

fn blob(path: PathBuf) -> Blob {
    let bytes = std::fs::read(&path).expect("the tar is read");
    Blob { path, sha256: hex::encode(Sha256::digest(&bytes)), size_bytes: bytes.len() as u64 }
}

/// What is in one tar of a workspace.
fn pack(work: &Path, tar: PathBuf, names: &[&str]) -> Blob {
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(work).args(names).status();
    assert!(packed.expect("tar").success());
    blob(tar)
}

/// Guests that do the job, one for each run. Their workspaces hold as many files as the engine's; a note differs from
/// one to the next, as between packages. What all of them have travels apart, or all in one.
fn guests(folder: &Path, root: &Blob, apart: bool) -> Vec<GuestPlan> {
    let work = folder.join(format!("work-{apart}"));
    std::fs::create_dir_all(work.join("melange-out")).expect("folders are made");
    for version in 0..28 {
        let folder = work.join(format!(".config/clang-{version}"));
        std::fs::create_dir_all(&folder).expect("folders are made");
        for name in ["a", "b", "c", "d"] {
            std::fs::write(folder.join(name), "@../../.note\n").expect("the file is written");
        }
    }
    let guest = |number: usize| {
        std::fs::write(work.join(".note"), format!("{apart} {number} {}", std::process::id()))
            .expect("a note");
        let tar = |name: &str| folder.join(format!("{name}-{apart}-{number}.tar"));
        let workspace = match apart {
            true => vec![
                pack(&work, tar("common"), &["--mtime=@0", "--sort=name", ".config"]),
                pack(&work, tar("own"), &[".note", "melange-out"]),
            ],
            false => vec![pack(&work, tar("all"), &["."])],
        };
        plan(root.clone(), workspace)
    };
    (0..=count()).map(guest).collect()
}

fn plan(root: Blob, workspace: Vec<Blob>) -> GuestPlan {
    let mut step = GuestStep::new("trivial", SCRIPT);
    step.environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    // As the steps of a build have it.
    step.network = true;
    let mut plan = GuestPlan::new("trivial", host(), root, workspace, vec![step]);
    plan.shared_root = true;
    plan.capabilities = DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    plan
}

/// The program `melange`: the one that is named, or the one that was built beside this bench.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("MELANGE_BIN").map(PathBuf::from);
    let built = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("melange"));
    named.or_else(built).filter(|path| path.exists())
}

/// The daemon to measure, and whether `buildctl` knows its address.
fn daemon() -> (Option<BackendAddress>, bool) {
    let named = std::env::var("MELANGE_BENCH_BUILDKIT").ok();
    let docker = || Some(format!("docker://{}", std::env::var("MELANGE_TEST_DOCKER_SOCK").ok()?));
    let with_buildctl = named.is_some();
    let address = named.or_else(docker);
    (address.map(|address| address.parse().expect("the address of a daemon")), with_buildctl)
}

/// Runs all ways in turns, after a first time that fills their caches.
fn measure(ways: &mut [Way<'_>]) {
    for way in &mut *ways {
        (way.run)();
    }
    for _ in 0..count() {
        for way in &mut *ways {
            let begin = Instant::now();
            way.steps.extend((way.run)());
            way.times.push(begin.elapsed());
        }
    }
}

fn report(ways: &[Way<'_>]) {
    let least = ways.iter().map(|way| median(&way.times)).fold(f64::INFINITY, f64::min);
    println!(
        "{} trivial jobs in turns, warm caches:\n\n{:<34} {:>9} {:>7} {:>9}",
        count(),
        "",
        "p50 in ms",
        "ratio",
        "its steps"
    );
    for way in ways {
        let p50 = median(&way.times);
        let steps = if way.steps.is_empty() { String::new() } else { format!("{:.0}", median(&way.steps)) };
        println!("{:<34} {p50:>9.1} {:>7.2} {steps:>9}", way.name, p50 / least);
    }
}

fn main() {
    let Some(distro) = std::env::var_os("MELANGE_TEST_DISTRO").map(PathBuf::from) else {
        println!("left out: MELANGE_TEST_DISTRO does not name the test distribution");
        return;
    };
    let (daemon, with_buildctl) = daemon();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(serve(folder, &distro, daemon.as_ref()));
    // The first job makes the root filesystem.
    runtime.block_on(job(&client, "sandbox"));
    let (blob, tree) = runtime.block_on(root(folder, &distro));
    let bare = || {
        bare(&tree);
        None
    };
    let mut ways = vec![
        Way::new("bwrap alone on the same root", bare),
        Way::new("server, sandbox", || runtime.block_on(job(&client, "sandbox"))),
    ];
    match program() {
        Some(program) => {
            let distro = distro.as_path();
            ways.push(Way::new("melange build, sandbox", move || {
                local(&program, folder, distro);
                None
            }));
        }
        None => println!("left out: there is no program `melange` beside this bench"),
    }
    match daemon {
        Some(daemon) => {
            if with_buildctl {
                let (address, tar, mut number) = (daemon.to_string(), blob.path.clone(), 0);
                ways.push(Way::new("buildctl, a Dockerfile", move || {
                    number += 1;
                    buildctl(&address, folder, &tar, number);
                    None
                }));
            } else {
                println!("left out: buildctl; MELANGE_BENCH_BUILDKIT does not name a daemon for it");
            }
            let runner = BuildkitRunner::new(daemon, BuildkitOptions::default());
            let runner = Arc::new(runner);
            let (runtime, client) = (&runtime, &client);
            ways.push(Way::new("server, BuildKit", move || runtime.block_on(job(client, "buildkit"))));
            for (name, apart) in
                [("BuildKit alone, workspace in one", false), ("the same, workspace apart", true)]
            {
                let (mut plans, runner) = (guests(folder, &blob, apart), Arc::clone(&runner));
                ways.push(Way::new(name, move || {
                    let plan = plans.pop().expect("a plan for each run");
                    let (output, cancel) = (folder.join("out.tar"), CancellationToken::new());
                    let outcome = runtime.block_on(runner.run(&plan, &output, Arc::new(NullSink), cancel));
                    assert_eq!(outcome.expect("the daemon works"), GuestOutcome::Succeeded);
                    None
                }));
            }
        }
        None => {
            println!("left out: neither MELANGE_BENCH_BUILDKIT nor MELANGE_TEST_DOCKER_SOCK names a daemon")
        }
    }
    measure(&mut ways);
    report(&ways);
}
