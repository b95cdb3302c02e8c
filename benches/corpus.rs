//! `melange compile` over two thirds of a real distribution, as its users call it: wall time and peak memory of the
//! whole command, pipelines read, results written as JSON.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod support;

use support::{distribution, rounds};

/// Runs of each architecture; the median counts, the first one warms the disk's cache.
const RUNS: usize = 7;

struct Run {
    wall: Duration,
    /// Peak resident memory.
    kib: u64,
    lines: usize,
}

fn main() {
    let Some(program) = program() else {
        eprintln!("corpus: there is no release build of melange; `make bench` makes one");
        std::process::exit(1);
    };
    let folder = tempfile::tempdir().expect("a folder");
    let Some(corpus) = distribution(folder.path()) else {
        println!("corpus: skipped, the definitions (shared/corpus) are not beside this checkout");
        return;
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for arch in ["x86_64", "aarch64"] {
        let mut runs: Vec<Run> =
            (0..rounds(RUNS, 1)).map(|_| run(&program, &corpus, arch, folder.path())).collect();
        runs.sort_by_key(|run| run.wall);
        let median = &runs[runs.len() / 2];
        let most = runs.iter().map(|run| run.kib).max().unwrap_or_default();
        println!(
            "corpus/{arch:<8} {} definitions on {cores} cores: median {:.2} s (least {:.2} s, most {:.2} s), peak {:.1} MiB",
            median.lines,
            median.wall.as_secs_f64(),
            runs[0].wall.as_secs_f64(),
            runs[runs.len() - 1].wall.as_secs_f64(),
            most as f64 / 1024.0
        );
    }
}

/// The command beside this bench: `target/release/melange`.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join("melange");
    path.exists().then_some(path)
}

fn run(program: &Path, corpus: &Path, arch: &str, folder: &Path) -> Run {
    let output = folder.join("out.json");
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(["compile", "--format", "json", "--arch", arch, "--pipeline-dir"])
        .arg(corpus.join("pipelines"))
        .arg(corpus)
        .stdout(std::fs::File::create(&output).expect("a file"))
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut kib = 0;
    // The kernel keeps the peak as long as the process is there.
    let ended = loop {
        kib = kib.max(std::fs::read_to_string(&status).ok().and_then(|text| peak(&text)).unwrap_or_default());
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let wall = begun.elapsed();
    assert!(ended.success(), "not every definition compiled");
    let lines = std::fs::read(&output).expect("the result").iter().filter(|byte| **byte == b'\n').count();
    Run { wall, kib, lines }
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
