//! Servers that are killed while they build: every job ends once and whole, and nothing is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{JobView, SubmitRequest};
use melange_remote_sdk::client::Client;
use melange_remote_sdk::job::JobId;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{address, end, server, signal};

/// Lines that the step of a job prints.
const LINES: usize = 40;

/// How long all jobs of a test may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a test needs, or none after saying what is missing; that fails where nothing may be missing.
fn needed(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set");
        eprintln!("NOT TESTED: {variable} is not set; `make test` sets it");
    }
    value
}

/// The folder of the test distribution.
fn distro() -> Option<PathBuf> {
    needed("MELANGE_TEST_DISTRO").map(|folder| std::path::absolute(folder).unwrap())
}

/// Servers that build in sandboxes of this machine, with one storage and one database.
struct Servers {
    folder: TempDir,
    distro: PathBuf,
    database: String,
    running: BTreeMap<&'static str, (Child, Client)>,
}

impl Servers {
    fn new(folder: TempDir, distro: PathBuf, database: String) -> Self {
        Self { folder, distro, database, running: BTreeMap::new() }
    }

    /// The folder of a server's own state.
    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self, name: &'static str) {
        let (state, port_file) = (self.state(name), self.folder.path().join(format!("{name}.port")));
        let output = self.folder.path().join("output");
        let _ = fs::remove_file(&port_file);
        let key = self.distro.join("keys/test-distro.rsa.pub");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let flags = [
            ("--listen-addr", "127.0.0.1:0".to_owned()),
            ("--port-file", text(&port_file)),
            ("--output-dir", text(&output)),
            ("--state-dir", text(&state)),
            ("--repository", text(&self.distro)),
            ("--keyring", text(&key)),
            ("--database", self.database.clone()),
            ("--job-lease", "3s".to_owned()),
            ("--max-jobs", "3".to_owned()),
        ];
        let arguments: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = server(&arguments);
        // The sandbox finds its programs there.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let child = command.stdout(Stdio::null()).stderr(Stdio::from(log)).spawn().unwrap();
        let client = Client::new(&format!("http://{}", address(&port_file))).unwrap();
        self.running.insert(name, (child, client));
    }

    fn client(&self, name: &str) -> &Client {
        &self.running[name].1
    }

    /// Ends a server without a word.
    fn kill(&mut self, name: &str) {
        let (mut child, _) = self.running.remove(name).unwrap();
        signal(&child, Signal::KILL);
        child.wait().unwrap();
    }

    /// Asks a server to end, and waits until it has.
    async fn stop(&mut self, name: &str) {
        let (mut child, _) = self.running.remove(name).unwrap();
        signal(&child, Signal::TERM);
        let ended = tokio::task::spawn_blocking(move || end(&mut child)).await.unwrap();
        assert_eq!(ended, Some(0), "{name}: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn submit(&self, name: &str, jobs: std::ops::Range<usize>) -> Vec<JobId> {
        let mut ids = Vec::new();
        for number in jobs {
            let config = format!(
                "package:\n  name: job{number}\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    \
                 packages: [busybox]\npipeline:\n  - runs: |\n      i=0\n      while [ $i -lt {LINES} ]; do i=$((i + 1)); \
                 echo line $i; sleep 0.02; done\n      mkdir -p ${{{{targets.destdir}}}}/usr/share\n      \
                 echo {number} > ${{{{targets.destdir}}}}/usr/share/number\n"
            );
            ids.push(self.client(name).submit(&SubmitRequest::new(config)).await.unwrap());
        }
        ids
    }

    /// Waits until all jobs have ended, as a server tells it.
    async fn ended(&self, name: &str, ids: &[JobId]) -> Vec<JobView> {
        let begun = Instant::now();
        let mut ended = Vec::new();
        for id in ids {
            loop {
                let job = self.client(name).job(*id).await.unwrap();
                if ["success", "failed", "cancelled", "skipped"].contains(&job.status.as_str()) {
                    ended.push(job);
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{job:?}\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        ended
    }

    /// That jobs ended well: once, with whole artifacts and logs without gap or repeat.
    async fn check(&self, name: &str, ids: &[JobId]) {
        let client = self.client(name);
        for job in self.ended(name, ids).await {
            let id: JobId = job.id.parse().unwrap();
            assert_eq!(job.status, "success", "{job:?}\n{}", self.log());
            let attempts = client.attempts(id).await.unwrap();
            let outcomes: Vec<&str> = attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
            let (last, before) = outcomes.split_last().unwrap();
            assert_eq!(*last, "success");
            assert!(before.iter().all(|outcome| ["lost", "given_back"].contains(outcome)), "{outcomes:?}");
            let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
            assert_eq!(numbers, (1..=job.attempt).collect::<Vec<u32>>());
            check_log(&read(client, id).await, attempts.len());
            let artifacts = client.artifacts(id).await.unwrap();
            assert!(artifacts.iter().any(|artifact| artifact.name.ends_with(".apk")), "{artifacts:?}");
            for artifact in artifacts {
                let to = self.folder.path().join("got").join(&artifact.name);
                client.download(id, &artifact, &to).await.unwrap();
            }
        }
    }

    /// That nothing is left of what killed servers ran, once servers with their folders have started and ended.
    async fn check_left_overs(mut self) {
        let names: Vec<&str> = self.running.keys().copied().collect();
        for name in names {
            // What a killed server ran may take a moment to end, and is swept then. One folder is that of the launcher
            // that waits for the next guest.
            let begun = Instant::now();
            let guests = entries(self.state(name).join("guests"));
            while guests().len() > 1 {
                assert!(begun.elapsed() < PATIENCE, "{:?}", guests());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.stop(name).await;
            for folder in ["builds", "guests"] {
                let left = entries(self.state(name).join(folder))();
                assert!(left.is_empty(), "{left:?}\n{}", self.log());
            }
        }
        // Its folders are in the mounts of whatever runs in them.
        let folder = self.folder.path().file_name().unwrap().to_str().unwrap();
        let uses = |process: &Path| {
            let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
            let texts = [read("mountinfo"), read("cmdline")];
            texts.iter().any(|text| String::from_utf8_lossy(text).contains(folder))
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let left: Vec<_> = processes
            .filter(|process| uses(process))
            .map(|process| fs::read_to_string(process.join("stat")))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What lies in a folder whenever it is asked.
fn entries(folder: PathBuf) -> impl Fn() -> Vec<PathBuf> {
    move || fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The whole log of a job.
async fn read(client: &Client, id: JobId) -> String {
    let mut log = client.log(id, 0, false, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = log.next().await {
        bytes.extend(chunk.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// Each attempt counts from 1 without a gap, the last one up to the end.
fn check_log(log: &str, attempts: usize) {
    let printed =
        log.lines().filter_map(|line| line.trim_start().strip_prefix("line ")?.parse::<usize>().ok());
    let (mut expected, mut begun) = (1, 0);
    for number in printed {
        if number == 1 {
            (expected, begun) = (1, begun + 1);
        }
        assert_eq!(number, expected, "{log}");
        expected += 1;
    }
    assert_eq!(expected, LINES + 1, "the last attempt told all:\n{log}");
    assert!(begun <= attempts, "{begun} beginnings in {attempts} attempts:\n{log}");
}

/// Moments at which servers are killed; others in each run, told when it fails.
fn moments(count: usize) -> Vec<Duration> {
    let moments: Vec<Duration> =
        (0..count).map(|_| Duration::from_millis(fastrand::u64(50..1_500))).collect();
    eprintln!("killed after {moments:?}");
    moments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let mut servers = Servers::new(folder, distro, database);
    servers.start("one");
    let ids = servers.submit("one", 0..12).await;
    for moment in moments(4) {
        tokio::time::sleep(moment).await;
        servers.kill("one");
        servers.start("one");
    }
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_database_and_one_may_die_and_one_may_leave() {
    let Some((distro, postgres)) = distro().zip(needed("MELANGE_TEST_POSTGRES")) else { return };
    let database = Database::new(&postgres);
    let mut servers = Servers::new(tempfile::tempdir().unwrap(), distro, database.url.clone());
    servers.start("one");
    servers.start("two");
    let mut ids = servers.submit("one", 0..8).await;
    ids.extend(servers.submit("two", 8..16).await);
    let moments = moments(2);
    tokio::time::sleep(moments[0]).await;
    servers.kill("one");
    tokio::time::sleep(moments[1]).await;
    // One more server while this one is about to go; it takes up what the killed one left on the machine.
    servers.start("one");
    servers.stop("two").await;
    servers.check("one", &ids).await;
    servers.start("two");
    assert_eq!(servers.client("two").jobs(100, None, Some("success")).await.unwrap().0.len(), ids.len());
    servers.check_left_overs().await;
    database.remove();
}

/// A database of its own on the server for tests.
struct Database {
    server: String,
    name: String,
    url: String,
}

impl Database {
    fn new(server: &str) -> Self {
        let name = format!("melange_{}", fastrand::u64(..));
        psql(server, &format!("CREATE DATABASE {name}"));
        let (before, options) = server.split_once('?').unwrap_or((server, ""));
        let base = before.rsplit_once('/').map_or(before, |(base, _)| base);
        let url = format!("{base}/{name}?{options}");
        Self { server: server.to_owned(), name, url }
    }

    fn remove(&self) {
        psql(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn psql(server: &str, statement: &str) {
    let done =
        std::process::Command::new("psql").args(["-X", "-q", "-c", statement, server]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
