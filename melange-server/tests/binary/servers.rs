//! Servers that build in sandboxes of this machine or on a daemon, and what must hold when their jobs have ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{JobView, SubmitRequest};
use melange_remote_sdk::client::{Client, LogQuery};
use melange_remote_sdk::job::JobId;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{address, end, server, signal};

/// Lines that the step of a job prints.
const LINES: usize = 40;

/// How much is tried. `make trials` asks for more than `make test`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Jobs of a test.
    pub(super) jobs: usize,
    /// How often something is killed.
    pub(super) kills: usize,
    /// The longest time from one kill of a server to the next.
    pub(super) apart: Duration,
    /// How long something is away.
    pub(super) outage: Duration,
    /// Jobs that a server runs at once.
    slots: usize,
    /// What a step waits after each line.
    pub(super) pause: Duration,
    /// Lines of a job that is followed.
    pub(super) lines: usize,
    /// How long a connection of a follower lasts.
    pub(super) cut: Duration,
}

impl Size {
    pub(super) fn new() -> Self {
        let number = |name: &str, default: usize| {
            std::env::var(format!("MELANGE_TRIAL_{name}")).map_or(default, |value| value.parse().unwrap())
        };
        let millis = |name, default| Duration::from_millis(u64::try_from(number(name, default)).unwrap());
        Self {
            jobs: number("JOBS", 12),
            kills: number("KILLS", 4),
            apart: millis("APART_MS", 1_500),
            outage: millis("OUTAGE_MS", 3_000),
            slots: number("SLOTS", 3),
            pause: millis("PAUSE_MS", 20),
            lines: number("LINES", 300),
            cut: millis("CUT_MS", 400),
        }
    }

    /// How long all jobs of a test may take.
    fn patience(self) -> Duration {
        Duration::from_secs(240) + Duration::from_secs(2) * u32::try_from(self.jobs + self.kills).unwrap()
    }

    /// Moments at which something is killed, from one to the next; others in each run, told when it fails.
    pub(super) fn moments(self, longest: Duration) -> Vec<Duration> {
        let longest = u64::try_from(longest.as_millis()).unwrap();
        let moments: Vec<Duration> =
            (0..self.kills).map(|_| Duration::from_millis(fastrand::u64(longest / 30..longest))).collect();
        eprintln!("killed after {moments:?}");
        moments
    }
}

/// Says why something is not tested; that fails where nothing may be missing.
pub(super) fn missing(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("NOT TESTED: {why}");
}

/// What a test needs, or none after saying what is missing.
pub(super) fn needed(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        missing(&format!("{variable} is not set; `make test` sets it"));
    }
    value
}

/// Runs a program, which must end well.
pub(super) fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The folder of the test distribution.
pub(super) fn distro() -> Option<PathBuf> {
    needed("MELANGE_TEST_DISTRO").map(|folder| std::path::absolute(folder).unwrap())
}

/// Servers with one storage and one database.
pub(super) struct Servers {
    pub(super) size: Size,
    /// What is theirs.
    folder: PathBuf,
    /// What is the test's: their log, and what is downloaded.
    beside: TempDir,
    distro: PathBuf,
    database: String,
    /// They build in sandboxes of this machine when it is none.
    daemon: Option<String>,
    running: BTreeMap<&'static str, (Child, Client)>,
}

impl Servers {
    pub(super) fn new(folder: &Path, distro: PathBuf, database: Option<String>) -> Self {
        let folder = folder.to_owned();
        let database = database.unwrap_or_else(|| format!("sqlite:{}", folder.join("jobs.db").display()));
        let (size, beside) = (Size::new(), tempfile::tempdir().unwrap());
        Self { size, folder, beside, distro, database, daemon: None, running: BTreeMap::new() }
    }

    /// The same servers, which build on a daemon.
    pub(super) fn with_daemon(mut self, address: String) -> Self {
        self.daemon = Some(address);
        self
    }

    /// The folder of a server's own state.
    fn state(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of artifacts.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    pub(super) fn start(&mut self, name: &'static str) {
        let (state, port_file) = (self.state(name), self.beside.path().join(format!("{name}.port")));
        let output = self.output();
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
            ("--max-jobs", self.size.slots.to_string()),
        ];
        let daemon = self.daemon.iter().map(|address| ("--buildkit-addr", address.clone()));
        let flags: Vec<_> = flags.into_iter().chain(daemon).collect();
        let arguments: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
        let log = fs::File::options().create(true).append(true).open(self.beside.path().join("log")).unwrap();
        let mut command = server(&arguments);
        // The sandbox finds its programs there.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let child = command.stdout(Stdio::null()).stderr(Stdio::from(log)).spawn().unwrap();
        let client = Client::new(&format!("http://{}", address(&port_file))).unwrap();
        self.running.insert(name, (child, client));
    }

    pub(super) fn client(&self, name: &str) -> &Client {
        &self.running[name].1
    }

    /// Ends a server without a word.
    pub(super) fn kill(&mut self, name: &str) {
        let (mut child, _) = self.running.remove(name).unwrap();
        signal(&child, Signal::KILL);
        child.wait().unwrap();
    }

    /// Asks a server to end, and waits until it has.
    pub(super) async fn stop(&mut self, name: &str) {
        let (mut child, _) = self.running.remove(name).unwrap();
        signal(&child, Signal::TERM);
        let ended = tokio::task::spawn_blocking(move || end(&mut child)).await.unwrap();
        assert_eq!(ended, Some(0), "{name}: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.beside.path().join("log")).unwrap()
    }

    pub(super) async fn submit(&self, name: &str, jobs: std::ops::Range<usize>) -> Vec<JobId> {
        let mut ids = Vec::new();
        for number in jobs {
            ids.push(self.submit_printing(name, number, LINES).await);
        }
        ids
    }

    /// A job with a number that prints so many lines, with a pause behind each.
    pub(super) async fn submit_printing(&self, name: &str, number: usize, lines: usize) -> JobId {
        let pause = self.size.pause.as_secs_f64();
        let config = format!(
            "package:\n  name: job{number}\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    \
             packages: [busybox]\npipeline:\n  - runs: |\n      i=0\n      while [ $i -lt {lines} ]; do i=$((i + 1)); \
             echo line $i; sleep {pause}; done\n      mkdir -p ${{{{targets.destdir}}}}/usr/share\n      \
             echo {number} > ${{{{targets.destdir}}}}/usr/share/number\n"
        );
        self.client(name).submit(&SubmitRequest::new(config)).await.unwrap()
    }

    /// Where a server listens.
    pub(super) fn address(&self, name: &str) -> String {
        address(&self.beside.path().join(format!("{name}.port")))
    }

    /// How many jobs have succeeded, as a server tells it.
    pub(super) async fn succeeded(&self, name: &str) -> usize {
        let (mut count, mut cursor) = (0, None);
        loop {
            let (jobs, next) = self.client(name).jobs(100, cursor.as_deref(), Some("success")).await.unwrap();
            count += jobs.len();
            cursor = next;
            if cursor.is_none() {
                return count;
            }
        }
    }

    /// That something was held up: some of the jobs have not succeeded yet.
    pub(super) async fn check_under_way(&self, name: &str, ids: &[JobId]) {
        assert!(self.succeeded(name).await < ids.len(), "all had ended before:\n{}", self.log());
    }

    /// Waits until all jobs have ended, as a server tells it.
    async fn ended(&self, name: &str, ids: &[JobId]) -> Vec<JobView> {
        let (begun, patience) = (Instant::now(), self.size.patience());
        let mut ended = Vec::new();
        for id in ids {
            loop {
                let job = self.client(name).job(*id).await.unwrap();
                if ["success", "failed", "cancelled", "skipped"].contains(&job.status.as_str()) {
                    ended.push(job);
                    break;
                }
                assert!(begun.elapsed() < patience, "{job:?}\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        ended
    }

    /// That jobs ended well: once, with whole artifacts and logs without gap or repeat.
    pub(super) async fn check(&self, name: &str, ids: &[JobId]) {
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
                let to = self.beside.path().join("got").join(&artifact.name);
                client.download(id, &artifact, &to).await.unwrap();
            }
        }
    }

    /// Waits until a job runs; whether there is one, or all have ended.
    pub(super) async fn busy(&self, name: &str) -> bool {
        let begun = Instant::now();
        let some = async |state| !self.client(name).jobs(1, None, Some(state)).await.unwrap().0.is_empty();
        loop {
            // A job may go from one to the other between two looks, and back.
            let waited = some("pending").await;
            if some("running").await {
                return true;
            }
            if !waited && !some("pending").await {
                return false;
            }
            assert!(begun.elapsed() < self.size.patience(), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Does something to the servers, or to what they work with, again and again while jobs run.
    pub(super) async fn disturb(&mut self, longest: Duration, mut what: impl FnMut(&mut Self)) {
        let mut times = 0;
        for moment in self.size.moments(longest) {
            if !self.busy("one").await {
                break;
            }
            tokio::time::sleep(moment).await;
            what(self);
            times += 1;
        }
        eprintln!("killed {times} times");
        assert!(times > 0);
    }

    /// That nothing is left of what killed servers ran, once servers with their folders have started and ended.
    pub(super) async fn check_left_overs(mut self) {
        let names: Vec<&str> = self.running.keys().copied().collect();
        for name in names {
            // What a killed server ran may take a moment to end, and is swept then. One folder is that of the launcher
            // that waits for the next guest.
            let begun = Instant::now();
            let guests = entries(self.state(name).join("guests"));
            while guests().len() > 1 {
                assert!(begun.elapsed() < self.size.patience(), "{:?}", guests());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.stop(name).await;
            for folder in ["builds", "guests"] {
                let left = entries(self.state(name).join(folder))();
                assert!(left.is_empty(), "{left:?}\n{}", self.log());
            }
        }
        // Its folders are in the mounts of whatever runs in them.
        let folder = self.folder.file_name().unwrap().to_str().unwrap();
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

impl Drop for Servers {
    fn drop(&mut self) {
        for (child, _) in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What lies in a folder whenever it is asked.
fn entries(folder: PathBuf) -> impl Fn() -> Vec<PathBuf> {
    move || fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The whole log of a job.
async fn read(client: &Client, id: JobId) -> String {
    let mut log = client.log(id, &LogQuery::default()).await.unwrap();
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

/// A database of its own on the server for tests.
pub(super) struct Database {
    server: String,
    name: String,
    pub(super) url: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        // Its server may be gone.
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = Command::new("psql").args(["-X", "-q", "-c", &statement, &self.server]).output();
    }
}

impl Database {
    pub(super) fn new(server: &str) -> Self {
        let name = format!("melange_{}", fastrand::u64(..));
        run("psql", &["-X", "-q", "-c", &format!("CREATE DATABASE {name}"), server]);
        let (before, options) = server.split_once('?').unwrap_or((server, ""));
        let base = before.rsplit_once('/').map_or(before, |(base, _)| base);
        let url = format!("{base}/{name}?{options}");
        Self { server: server.to_owned(), name, url }
    }
}
