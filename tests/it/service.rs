//! The whole service over HTTP: the real server with the real engine, a BuildKit daemon and the sandbox behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{JobView, SubmitRequest};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::client::{Client, LogQuery, WaitEvent};
use melange_remote_sdk::job::JobId;
use melange_server::assembly;
use melange_server::config::Config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::events::processes_with;
use crate::support::farm::{daemon, distro};

/// How often a waiting client looks when the log is quiet.
const POLL: Duration = Duration::from_millis(200);

/// A server of this process.
pub(crate) struct Service {
    pub(crate) client: Client,
    /// Where it listens.
    pub(crate) host: String,
    shutdown: CancellationToken,
    folder: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A server whose daemon is called `x86_64` and whose sandbox is called `aarch64`: architectures by configuration,
/// so that both ways are taken on one machine. Repositories below its folder `published` may be named.
pub(crate) async fn start() -> Option<Service> {
    start_with(&[]).await
}

/// The same with more flags.
pub(crate) async fn start_with(flags: &[&str]) -> Option<Service> {
    let (distro, socket) = (distro()?, daemon()?);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("repo")).unwrap();
    std::fs::create_dir(folder.path().join("published")).unwrap();
    for arch in ["x86_64", "aarch64"] {
        std::os::unix::fs::symlink(distro.join("x86_64"), folder.path().join("repo").join(arch)).unwrap();
    }
    let backends = format!(
        "backends:\n  - addr: docker://{}\n    arch: x86_64\n    labels: {{tier: daemon}}\n    maxJobs: 2\n  \
         - addr: sandbox://local\n    arch: aarch64\n    labels: {{tier: sandbox}}\n    maxJobs: 2\n    \
         cpus: 8\n    memory: 4Gi\n",
        socket.display()
    );
    std::fs::write(folder.path().join("backends.yaml"), backends).unwrap();
    let key = distro.join("keys/test-distro.rsa.pub").display().to_string();
    let args = [
        "melange-server",
        "--listen-addr",
        "127.0.0.1:0",
        "--backends-config",
        &at("backends.yaml"),
        "--output-dir",
        &at("output"),
        "--state-dir",
        &at("state"),
        "--repository",
        &at("repo"),
        "--keyring",
        &key,
        "--allow-local-repository",
        &at("published"),
    ];
    let args = args.iter().chain(flags).map(Into::into);
    let mut config = Config::read(args, &|_| None).unwrap();
    config.build.sandbox_launcher = Some(crate::support::farm::launcher());
    let parts = assembly::assemble(&config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let client = Client::new(&format!("http://{host}")).unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(melange_server::serve(listener, parts.app, shutdown.clone()));
    let stop = shutdown.clone();
    tokio::spawn(async move { parts.scheduler.run(stop).await });
    if let Some(publisher) = parts.publisher {
        tokio::spawn(publisher.run(shutdown.clone()));
    }
    Some(Service { client, host, shutdown, folder })
}

fn definition(name: &str, script: &str) -> String {
    let script = script.replace('\n', "\n      ");
    format!(
        "package:\n  name: {name}\n  version: \"1.0\"\n  epoch: 0\nenvironment:\n  contents:\n    packages: [busybox]\n\
         pipeline:\n  - name: work\n    runs: |\n      {script}\n"
    )
}

impl Service {
    /// A folder whose repositories requests may name.
    pub(crate) fn published(&self) -> PathBuf {
        self.folder.path().join("published").canonicalize().unwrap()
    }

    /// The folder of what it stores.
    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    pub(crate) async fn submit(&self, arch: &str, tier: &str, config_yaml: String) -> JobId {
        let mut request = SubmitRequest::new(config_yaml);
        request.arch = Some(arch.to_owned());
        request.backend_selector = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
        self.client.submit(&request).await.unwrap()
    }

    pub(crate) async fn wait(&self, id: JobId) -> JobView {
        self.client.wait(id, POLL, &mut |_: WaitEvent<'_>| {}).await.unwrap()
    }

    /// What the test of a package wrote.
    async fn log_of(&self, id: JobId, package: &str) -> String {
        self.text(id, &LogQuery::default().following().of_test(package)).await
    }

    pub(crate) async fn log(&self, id: JobId) -> String {
        self.text(id, &LogQuery::default()).await
    }

    async fn text(&self, id: JobId, query: &LogQuery) -> String {
        let mut log = self.client.log(id, query).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = log.next().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn package(&self, id: JobId, folder: &Path) -> ApkFile {
        let artifacts = self.client.artifacts(id).await.unwrap();
        let apk = artifacts.iter().find(|artifact| artifact.name.ends_with(".apk")).unwrap();
        let path = folder.join(format!("{id}.apk"));
        self.client.download(id, apk, &path).await.unwrap();
        ApkFile::open(&path).unwrap()
    }
}

pub(crate) const BACKENDS: [(&str, &str, &str); 2] =
    [("x86_64", "daemon", "docker://"), ("aarch64", "sandbox", "sandbox://local")];

#[tokio::test(flavor = "multi_thread")]
async fn eight_jobs_run_over_two_backends_with_labels_and_architectures() {
    let Some(service) = start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    for number in 0..8 {
        let (arch, tier, addr) = BACKENDS[number % 2];
        let script = "mkdir -p ${{targets.destdir}}/usr/share\necho ${{build.arch}} > ${{targets.destdir}}/usr/share/arch";
        let id = service.submit(arch, tier, definition(&format!("job-{number}"), script)).await;
        jobs.push((id, arch, addr));
    }
    for (id, arch, addr) in jobs {
        let job = service.wait(id).await;
        assert_eq!(job.status, "success", "{:?}", job.error);
        assert!(job.backend.unwrap().addr.starts_with(addr));
        assert_eq!(service.package(id, folder.path()).await.info.arch, arch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_named_with_its_code_and_last_lines() {
    let Some(service) = start().await else { return };
    for (arch, tier, _) in BACKENDS {
        let id = service
            .submit(arch, tier, definition("broken", "echo before\necho the reason >&2\nexit 37"))
            .await;
        let job = service.wait(id).await;
        assert_eq!((job.status.as_str(), job.error_class.as_deref()), ("failed", Some("build")));
        let failure = job.failure.unwrap();
        assert_eq!((failure.step.as_str(), failure.exit_code), ("broken: work", 37));
        assert!(failure.tail.iter().any(|line| line == "the reason"), "{:?}", failure.tail);
        let left = service.client.artifacts(id).await.unwrap();
        assert_eq!(left, [], "{tier}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_with_its_processes() {
    let Some(service) = start().await else { return };
    for (arch, tier, _) in BACKENDS {
        let seconds = format!("{}987", std::process::id());
        let id =
            service.submit(arch, tier, definition("slow", &format!("echo begun\nsleep {seconds}"))).await;
        let client = service.client.clone();
        let mut asked = false;
        let mut observer = |event: WaitEvent<'_>| {
            let WaitEvent::Log(text) = event else { return };
            if !asked && text.lines().any(|line| line == "begun") {
                asked = true;
                let client = client.clone();
                tokio::spawn(async move { client.cancel(id).await.unwrap() });
            }
        };
        let job = service.client.wait(id, POLL, &mut observer).await.unwrap();
        assert_eq!(job.status, "cancelled", "{:?}", job.error);
        assert!(processes_with(&seconds).is_empty(), "the step of {tier} still runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_tests_tells_how_each_ended_and_what_it_wrote() {
    let Some(service) = start().await else { return };
    let tested = |name: &str, script: &str| {
        let test = |line: &str| {
            format!(
                "environment: {{contents: {{packages: [busybox]}}}}\n      pipeline:\n        - runs: {line}\n"
            )
        };
        let definition = definition(name, "true");
        format!(
            "{definition}subpackages:\n  - name: {name}-sub\n    test:\n      {}test:\n  {}",
            test("echo of the sub"),
            test(script).replace("\n    ", "\n")
        )
    };
    for (arch, tier, _) in BACKENDS {
        for (script, status, tests) in [
            ("echo of the main", "success", ["passed", "passed"]),
            ("echo of the main; exit 9", "failed", ["failed", "passed"]),
        ] {
            let mut request = SubmitRequest::new(tested("tested", script));
            request.arch = Some(arch.to_owned());
            request.backend_selector = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
            request.with_test = true;
            let id = service.client.submit(&request).await.unwrap();
            let job = service.wait(id).await;
            assert_eq!(job.status, status, "{:?}", job.error);
            let ended: Vec<(&str, &str)> =
                job.tests.iter().map(|test| (test.package.as_str(), test.status.as_str())).collect();
            assert_eq!(ended, [("tested", tests[0]), ("tested-sub", tests[1])]);
            assert!(job.tests.iter().all(|test| test.duration_ms.is_some()));
            assert!(job.phases.iter().any(|phase| phase.name == "test"));
            if status == "failed" {
                let failure = job.tests[0].failure.as_ref().unwrap();
                assert_eq!((failure.step.as_str(), failure.exit_code), ("test tested: runs", 9));
            }
            let (main, sub) = (service.log_of(id, "tested").await, service.log_of(id, "tested-sub").await);
            assert!(main.contains("of the main\n") && !main.contains("of the sub"), "{main}");
            assert!(sub.contains("of the sub\n") && !sub.contains("of the main"), "{sub}");
            assert!(service.client.log(id, &LogQuery::default().of_test("nobody")).await.is_err());
        }
    }
}

/// As fast as a shell can print: every line in order, in what a follower sees, in the log and in the artifact.
#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_fast_output_is_lost() {
    let Some(service) = start().await else { return };
    const LINES: usize = 300_000;
    for (arch, tier, _) in BACKENDS {
        let script = format!("seq 1 {LINES}\necho the end >&2");
        let id = service.submit(arch, tier, definition("fast", &script)).await;
        let mut followed = String::new();
        let mut observer = |event: WaitEvent<'_>| {
            if let WaitEvent::Log(text) = event {
                followed.push_str(text);
            }
        };
        let job = service.client.wait(id, POLL, &mut observer).await.unwrap();
        assert_eq!(job.status, "success", "{:?}", job.error);
        let read = service.log(id).await;
        while service.client.attempts(id).await.unwrap()[0].log_lines.is_none() {
            tokio::time::sleep(POLL).await;
        }
        let archived = service.log(id).await;
        for (where_, text) in [("follower", followed), ("log", read), ("archive", archived)] {
            let numbers = text.lines().filter_map(|line| line.parse::<usize>().ok());
            assert!(numbers.eq(1..=LINES), "lines are missing in the {where_} of {tier}");
            assert!(text.contains("the end\n") && text.ends_with("--- the build succeeded\n"), "{where_}");
        }
    }
}

/// The kernel ends the step at the bound that its definition sets, and the server gives it twice as much.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_runs_out_of_memory_is_tried_once_with_more() {
    let Some(service) = start().await else { return };
    let hungry = |memory: &str| {
        let definition = definition("hungry", "dd if=/dev/zero of=/dev/null bs=130M count=1");
        definition.replace("  epoch: 0\n", &format!("  epoch: 0\n  resources:\n    memory: {memory}\n"))
    };
    let id = service.submit("aarch64", "sandbox", hungry("96Mi")).await;
    let job = service.wait(id).await;
    assert_eq!((job.status.as_str(), job.memory_bytes), ("success", 192 << 20), "{job:?}");
    let attempts = service.client.attempts(id).await.unwrap();
    assert_eq!(attempts[0].error_class.as_deref(), Some("resources"));
    let error = attempts[0].error.clone().unwrap();
    assert!(
        error.ends_with(": 96 MiB of memory are not enough, it is tried with 192 MiB of memory"),
        "{error}"
    );
    for (attempt, least) in attempts.iter().zip([90 << 20, 130 << 20]) {
        let peak = attempt.peak_memory_bytes.unwrap();
        assert!((least..200 << 20).contains(&peak), "{peak}");
    }
    let id = service.submit("aarch64", "sandbox", hungry("96Mi").replace("130M", "300M")).await;
    let job = service.wait(id).await;
    let error = job.error.unwrap();
    assert!(error.ends_with("are not enough, twice as much as it asked for"), "{error}");
    let mut huge = SubmitRequest::new(hungry("5Gi"));
    huge.arch = Some("aarch64".to_owned());
    let error = service.client.submit(&huge).await.unwrap_err().to_string();
    assert!(error.contains("no aarch64 backend has 5.0 GiB of memory"), "{error}");
}
