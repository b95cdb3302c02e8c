//! Root filesystems of builds: cold, warm, and beside a peer in the same run.
//!
//! `cargo bench --bench environment`. The peer is apko where `MELANGE_BENCH_APKO` names it, otherwise `tar` over the same
//! packages, one after another. Every cold run has a folder of its own, all removed in the end: file systems are slow to
//! give away what was removed a moment ago.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::guest::RootForm;
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::rootfs::fetch::NoNetwork;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::rootfs::{Assembler, Resolution};

/// Runs of each kind, taken in turns so that what else the machine does hits all alike.
const RUNS: usize = 5;

fn main() {
    let Some(distro) = std::env::var_os("MELANGE_TEST_DISTRO").map(PathBuf::from) else {
        println!("MELANGE_TEST_DISTRO names no repository; `make test-distro` makes one");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let apko = std::env::var_os("MELANGE_BENCH_APKO").map(PathBuf::from);
    let environment = environment(&distro);
    let peer = if apko.is_some() { "apko" } else { "tar" };
    let [mut cold, mut archive, mut warm, mut peers] = [const { Vec::new() }; 4];
    for run in 0..RUNS {
        let state = |kind: &str| folder.path().join(format!("{kind}-{run}"));
        let (assembler, resolution) = runtime.block_on(resolved(&state("layered"), &environment));
        let assemble = |assembler: &Assembler, form, resolution: &Resolution| {
            let begin = Instant::now();
            let made = assembler.assemble_as(form, resolution, &environment, Arch::X86_64);
            let made = runtime.block_on(made).expect("a root filesystem");
            (begin.elapsed(), made.cached)
        };
        let (took, cached) = assemble(&assembler, RootForm::Layered, &resolution);
        assert!(!cached);
        cold.push(took);
        // As another process finds it.
        let (assembler, resolution) = runtime.block_on(resolved(&state("layered"), &environment));
        let (took, cached) = assemble(&assembler, RootForm::Layered, &resolution);
        assert!(cached);
        warm.push(took);
        let (assembler, resolution) = runtime.block_on(resolved(&state("archive"), &environment));
        archive.push(assemble(&assembler, RootForm::Archive, &resolution).0);
        peers.push(match &apko {
            Some(apko) => run_apko(apko, &distro, &state("apko")),
            None => run_tar(&distro, &resolution, &state("tar")),
        });
    }
    let peer_time = median(peers);
    for (name, times) in [("cold, over layers", cold), ("cold, one archive", archive), ("warm", warm)] {
        let time = median(times);
        let ratio = time.as_secs_f64() / peer_time.as_secs_f64();
        println!("{name:<20} {:>8.1} ms  {ratio:.3} of {peer}", time.as_secs_f64() * 1e3);
    }
    println!("{peer:<20} {:>8.1} ms", peer_time.as_secs_f64() * 1e3);
}

fn environment(distro: &Path) -> PlanEnvironment {
    PlanEnvironment {
        repositories: vec![distro.display().to_string()],
        keyring: vec![distro.join("keys/test-distro.rsa.pub").display().to_string()],
        packages: vec!["build-base".to_owned(), "busybox".to_owned()],
        ..PlanEnvironment::default()
    }
}

async fn resolved(state: &Path, environment: &PlanEnvironment) -> (Assembler, Resolution) {
    let cache = StateCache::new(state, limits::CACHE_BYTES_DEFAULT);
    let assembler = Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any);
    let resolution = assembler.resolve(environment, Arch::X86_64).await.expect("a choice");
    (assembler, resolution)
}

/// Has apko write the same environment, with a cache of its own.
fn run_apko(apko: &Path, distro: &Path, folder: &Path) -> Duration {
    std::fs::create_dir(folder).expect("a folder");
    let config = folder.join("image.yaml");
    let text = format!(
        "contents:\n  keyring: [{0}/keys/test-distro.rsa.pub]\n  repositories: [{0}]\n  packages: [build-base, busybox]\narchs: [x86_64]\n",
        distro.display()
    );
    std::fs::write(&config, text).expect("room on the disk");
    let mut command = Command::new(apko);
    command.args(["build-minirootfs", "--build-arch", "x86_64", "--log-level", "error"]);
    command.arg(&config).arg(folder.join("root.tar")).env("XDG_CACHE_HOME", folder.join("cache"));
    timed(&mut command)
}

/// Unpacks the packages one after another.
fn run_tar(distro: &Path, resolution: &Resolution, folder: &Path) -> Duration {
    std::fs::create_dir(folder).expect("a folder");
    let mut took = Duration::ZERO;
    for package in resolution.packages() {
        let mut command = Command::new("tar");
        command.args(["--warning=no-unknown-keyword", "-xzf"]);
        command.arg(distro.join("x86_64").join(package.file_name())).arg("-C").arg(folder);
        took += timed(&mut command);
    }
    took
}

fn timed(command: &mut Command) -> Duration {
    let begin = Instant::now();
    assert!(command.status().expect("the peer runs").success());
    begin.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
