//! What servers work with goes away and comes back: the disk, the storage, the database, the daemon. Every job ends once and
//! whole.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::servers::{Database, Servers, distro, missing, needed, run};
use super::{end, signal};

/// The longest time for which a daemon that was started again works.
const LONGEST: Duration = Duration::from_secs(3);

/// How long something may take that is a matter of moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether file systems may be mounted; a test that may not says so.
fn mounts() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        missing("only root mounts");
    }
    root
}

/// A file system in memory, gone at the end.
struct Mounted {
    folder: TempDir,
}

impl Mounted {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "melange-test", folder.path().to_str().unwrap()]);
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.path().as_os_str()]).status();
    }
}

/// Fills a file system; the file that does it can be removed.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 20, 4_096, 1] {
        let block = vec![0x55; size];
        while file.write_all(&block).and_then(|()| file.flush()).is_ok() {}
    }
    path
}

/// The folder of a small file system: of one that the caller names, or of one in memory.
fn small_disk() -> (PathBuf, Option<Mounted>) {
    if let Some(named) = std::env::var_os("MELANGE_TRIAL_DISK") {
        return (named.into(), None);
    }
    let mounted = Mounted::new("size=300m");
    (mounted.path().to_owned(), Some(mounted))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_a_full_disk() {
    let Some(distro) = distro().filter(|_| mounts()) else { return };
    let (disk, _mounted) = small_disk();
    let folder = tempfile::tempdir_in(&disk).unwrap();
    let mut servers = Servers::new(folder.path(), distro, None);
    servers.start("one");
    let ids = servers.submit("one", 0..servers.size.jobs).await;
    assert!(servers.busy("one").await);
    let filler = fill(&disk);
    tokio::time::sleep(servers.size.outage).await;
    servers.check_under_way("one", &ids).await;
    fs::remove_file(filler).unwrap();
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_a_storage_that_cannot_be_written() {
    let Some(distro) = distro().filter(|_| mounts()) else { return };
    let (folder, storage) = (tempfile::tempdir().unwrap(), Mounted::new("size=300m"));
    let mut servers = Servers::new(folder.path(), distro, None);
    symlink(storage.path(), servers.output()).unwrap();
    servers.start("one");
    let ids = servers.submit("one", 0..servers.size.jobs).await;
    assert!(servers.busy("one").await);
    let at = storage.path().to_str().unwrap();
    // A file that is written just now holds it up.
    let begun = Instant::now();
    while !Command::new("mount")
        .args(["-o", "remount,ro", at])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
    {
        assert!(begun.elapsed() < PATIENCE, "the storage is written all the time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(servers.size.outage).await;
    servers.check_under_way("one", &ids).await;
    run("mount", &["-o", "remount,rw", at]);
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}

/// How PostgreSQL is ended as a crash would.
const STOP: [&str; 4] = ["stop", "-s", "-m", "immediate"];

/// A database server of the test's own.
struct Postgres {
    folder: TempDir,
    programs: PathBuf,
}

impl Postgres {
    fn new() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|version| version.path()).max_by_key(number).unwrap();
        let programs = newest.join("bin");
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            run("chown", &["postgres:", folder.path().to_str().unwrap()]);
        }
        let postgres = Self { folder, programs };
        postgres.run("initdb", &["-U", "melange", "-A", "trust", "--no-sync"]);
        postgres.start();
        postgres
    }

    /// Runs one of its programs on its data, which must end well.
    fn run(&self, program: &str, arguments: &[&str]) {
        assert!(self.asked(program, arguments), "{program} {arguments:?}");
    }

    /// Runs one of its programs on its data, as a user whom it accepts; whether it ended well.
    fn asked(&self, program: &str, arguments: &[&str]) -> bool {
        let (program, data) = (self.programs.join(program), self.folder.path().join("data"));
        let mut all = vec![program.to_str().unwrap(), "-D", data.to_str().unwrap()];
        all.extend(arguments);
        if rustix::process::geteuid().is_root() {
            all.splice(0..0, ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        let mut command = Command::new(all[0]);
        // What it starts must not hold a pipe of ours.
        command
            .args(&all[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn start(&self) {
        let folder = self.folder.path().display();
        let options = format!("-c listen_addresses= -c unix_socket_directories={folder}");
        let log = self.folder.path().join("log");
        self.run("pg_ctl", &["start", "-w", "-s", "-l", log.to_str().unwrap(), "-o", &options]);
    }

    /// Ends it as a crash would.
    fn stop(&self) {
        self.run("pg_ctl", &STOP);
    }

    fn url(&self) -> String {
        format!("postgres://melange@localhost/postgres?host={}", self.folder.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may be away.
        let _ = self.asked("pg_ctl", &STOP);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_a_database_that_goes_away() {
    // Where that is set PostgreSQL is installed.
    let Some((distro, _)) = distro().zip(needed("MELANGE_TEST_POSTGRES")) else { return };
    let postgres = Postgres::new();
    let database = Database::new(&postgres.url());
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::new(folder.path(), distro, Some(database.url.clone()));
    servers.start("one");
    let ids = servers.submit("one", 0..servers.size.jobs).await;
    assert!(servers.busy("one").await);
    postgres.stop();
    tokio::time::sleep(servers.size.outage).await;
    postgres.start();
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}

/// A daemon of the test's own.
struct Dockerd {
    folder: TempDir,
    child: Option<Child>,
}

impl Dockerd {
    fn new() -> Self {
        let mut dockerd = Self { folder: tempfile::tempdir().unwrap(), child: None };
        dockerd.start();
        dockerd
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn start(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        // Where nobody buries the dead, those that were killed count as alive by these.
        for pid in ["docker.pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(path(pid));
        }
        let log = File::options().create(true).append(true).open(path("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        command.arg("-H").arg(format!("unix://{}", self.socket().display()));
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("docker.pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Kills it together with its containerd, as a machine that goes down would.
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        let parent = format!("PPid:\t{}\n", child.id());
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let own = status.contains(&parent) && status.starts_with("Name:\tcontainerd\n");
            own.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
        });
        let helpers: Vec<i32> = processes.collect();
        child.kill().unwrap();
        child.wait().unwrap();
        for helper in helpers {
            // It may be gone with it.
            let _ = kill_process(Pid::from_raw(helper).unwrap(), Signal::KILL);
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::TERM);
            end(&mut child);
        }
        // What a killed one had mounted, and what one mounts upon itself where "/" is not shared.
        let folder = self.folder.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for place in places.filter(|place| place.starts_with(folder)).collect::<Vec<_>>().iter().rev() {
            let _ = Command::new("umount").args(["-l", place]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_a_daemon_that_is_killed() {
    // Where that is set docker is installed.
    let Some((distro, _)) = distro().filter(|_| mounts()).zip(needed("MELANGE_TEST_DOCKER_SOCK")) else {
        return;
    };
    let (mut dockerd, folder) = (Dockerd::new(), tempfile::tempdir().unwrap());
    let address = format!("docker://{}", dockerd.socket().display());
    let mut servers = Servers::new(folder.path(), distro, None).with_daemon(address);
    servers.start("one");
    let ids = servers.submit("one", 0..servers.size.jobs).await;
    servers
        .disturb(LONGEST, |_| {
            dockerd.kill();
            dockerd.start();
        })
        .await;
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}
