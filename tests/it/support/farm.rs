//! The engine over both builders, with the test distribution as its repository.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use melange_remote_sdk::apk::index::IndexPackage;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::BackendAddress;
use melange_remote_sdk::builder::{BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder};
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, RunnerProvider};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::guest::{Blob, GuestRunner};
use melange_remote_sdk::limits::CACHE_BYTES_DEFAULT;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::rootfs::addresses::AddressPolicy;
use melange_remote_sdk::rootfs::fetch::{FetchOptions, HttpFetcher};
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::rootfs::{Assembler, Resolution};
use melange_remote_sdk::sandbox::{self, SandboxOptions, SandboxRunner};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::events::Collected;
use super::{missing, root};

/// The name of the key that signs what the tests build.
pub(crate) const KEY_NAME: &str = "farm.rsa";

/// A builder of the farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Backend {
    Sandbox,
    Buildkit,
}

/// Where things lie: the test distribution and the folders of the farm.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) distro: PathBuf,
    /// Unpacked root filesystems, named by their content, so that runs may share them.
    pub(crate) sandbox: PathBuf,
    /// Everything else; made anew for each run.
    pub(crate) state: PathBuf,
}

/// The folder of the test distribution, or `None` after saying that the test is skipped.
pub(crate) fn distro() -> Option<PathBuf> {
    made("MELANGE_TEST_DISTRO", "")
}

/// The folder that a variable names, made by `test-distro make` with some arguments.
fn made(variable: &str, arguments: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        missing(&format!("{variable} does not name a folder made by `test-distro make{arguments}`"));
    }
    folder.map(|folder| std::path::absolute(folder).unwrap())
}

/// The socket of a dockerd, or `None` after saying that the test is skipped.
pub(crate) fn daemon() -> Option<PathBuf> {
    let socket = std::env::var_os("MELANGE_TEST_DOCKER_SOCK").map(PathBuf::from);
    if socket.is_none() {
        missing("MELANGE_TEST_DOCKER_SOCK does not name the socket of a dockerd");
    }
    socket
}

/// Runs a test on the runtime that all of them share: builders and their connections outlive one test.
pub(crate) fn on_farm(test: impl AsyncFnOnce(&'static Farm)) {
    if let Some(farm) = farm() {
        on_runtime(test(farm));
    }
}

/// Runs a test on the farm of toolchains.
pub(crate) fn on_toolchains(test: impl AsyncFnOnce(&'static Farm)) {
    if let Some(farm) = toolchains() {
        on_runtime(test(farm));
    }
}

fn on_runtime(test: impl Future<Output = ()>) {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(test);
}

/// The farm, or `None` after saying what is missing.
pub(crate) fn farm() -> Option<&'static Farm> {
    static FARM: OnceLock<Farm> = OnceLock::new();
    let distro = distro()?;
    Some(FARM.get_or_init(|| Farm::new(scratch("farm", distro), &generate_key(2048).unwrap(), daemon())))
}

/// A farm over the distribution's toolchains, or `None` after saying what is missing. What compilers do is the same
/// on every builder, so it has the sandbox alone.
pub(crate) fn toolchains() -> Option<&'static Farm> {
    static TOOLCHAINS: OnceLock<Farm> = OnceLock::new();
    let distro = made("MELANGE_TEST_TOOLCHAINS", " --suite trixie --profile toolchains")?;
    Some(
        TOOLCHAINS
            .get_or_init(|| Farm::new(scratch("toolchains", distro), &generate_key(2048).unwrap(), None)),
    )
}

/// The sandbox of tests, whose launcher is a program of its own and waits for guests as a server's does.
pub(crate) fn sandbox_options(state_dir: &Path) -> SandboxOptions {
    let mut options = SandboxOptions::new(state_dir);
    options.launcher = Some(launcher());
    options.ready_launcher = true;
    options
}

/// The launcher; a test that runs as another user has it at another place.
pub(crate) fn launcher() -> PathBuf {
    std::env::var_os("MELANGE_TEST_LAUNCHER")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sandbox-launcher")), PathBuf::from)
}

/// The folders of a farm over a distribution.
fn scratch(name: &str, distro: PathBuf) -> Places {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    remove_left_overs(&scratch);
    let state = scratch.join(format!("run-{}", std::process::id()));
    Places { distro, sandbox: scratch.join("sandbox"), state }
}

/// State of runs that are over: their process is gone.
fn remove_left_overs(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix("run-") else { continue };
        if !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// One engine over all runners.
pub(crate) struct Farm {
    pub(crate) places: Places,
    pub(crate) runners: Runners,
    key: String,
    engine: EngineBuilder,
    built: Mutex<HashMap<(Backend, String), SharedBuild>>,
    /// Listens at the only port of this machine that the sandbox's guests reach.
    offered: std::net::TcpListener,
}

/// A build that several tests ask for and one makes.
type SharedBuild = Arc<OnceCell<Arc<Built>>>;

/// A runner for each address.
#[derive(Debug, Clone)]
pub(crate) struct Runners {
    pub(crate) sandbox: Option<Arc<SandboxRunner>>,
    pub(crate) buildkit: Option<Arc<BuildkitRunner>>,
}

impl RunnerProvider for Runners {
    fn runner(&self, addr: &str) -> Result<Arc<dyn GuestRunner>> {
        let sandbox = self.sandbox.clone().map(|runner| runner as Arc<dyn GuestRunner>);
        let buildkit = self.buildkit.clone().map(|runner| runner as Arc<dyn GuestRunner>);
        let runner = if addr == sandbox::ADDRESS { sandbox } else { buildkit };
        runner.ok_or_else(|| Error::invalid(format!("no runner at {addr}")))
    }
}

impl Farm {
    pub(crate) fn new(places: Places, key: &str, socket: Option<PathBuf>) -> Self {
        fs::create_dir_all(&places.state).unwrap();
        fs::create_dir_all(&places.sandbox).unwrap();
        let offered = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        offered.set_nonblocking(true).unwrap();
        let mut options = sandbox_options(&places.sandbox);
        options.host_ports = vec![offered.local_addr().unwrap().port()];
        let sandbox = SandboxRunner::new(&options);
        if let Err(error) = &sandbox {
            missing(&error.to_string());
        }
        let buildkit = socket
            .map(|socket| BuildkitRunner::new(BackendAddress::Docker(socket), BuildkitOptions::default()));
        let runners = Runners { sandbox: sandbox.ok().map(Arc::new), buildkit: buildkit.map(Arc::new) };
        let engine = engine(&places, key, &runners, distro_defaults(&places.distro));
        Self { places, runners, key: key.to_owned(), engine, built: Mutex::default(), offered }
    }

    /// The builders of this machine; what is missing was said aloud.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let sandbox = self.runners.sandbox.as_ref().map(|_| Backend::Sandbox);
        let buildkit = self.runners.buildkit.as_ref().map(|_| Backend::Buildkit);
        sandbox.into_iter().chain(buildkit).collect()
    }

    /// A listener that guests of the sandbox reach; one test of a farm uses it.
    pub(crate) fn listener(&self) -> tokio::net::TcpListener {
        tokio::net::TcpListener::from_std(self.offered.try_clone().unwrap()).unwrap()
    }

    /// An engine over the same runners with other repositories.
    pub(crate) fn engine_with(&self, defaults: RepositoryDefaults) -> EngineBuilder {
        engine(&self.places, &self.key, &self.runners, defaults)
    }

    /// The same with a state of its own: what it verified it reads again.
    pub(crate) fn new_engine_with(&self, defaults: RepositoryDefaults, state: &Path) -> EngineBuilder {
        let options = engine_options(&self.places, &self.key, defaults);
        EngineBuilder::new(options, assembler(state), Arc::new(self.runners.clone()))
    }

    /// An engine over the same runners and repositories with other options.
    pub(crate) fn engine_with_options(&self, change: impl FnOnce(&mut EngineOptions)) -> EngineBuilder {
        let mut options = engine_options(&self.places, &self.key, self.defaults());
        change(&mut options);
        EngineBuilder::new(options, assembler(&self.places.state), Arc::new(self.runners.clone()))
    }

    /// What builds of `yaml` are given.
    pub(crate) fn input(backend: Backend, name: &str, yaml: &str) -> BuildInput {
        let mut input = BuildInput::new(yaml, Arch::host().unwrap());
        input.attempt = name.to_owned();
        input.config_name = format!("{name}.yaml");
        input.backend_addr = match backend {
            Backend::Sandbox => sandbox::ADDRESS.to_owned(),
            Backend::Buildkit => "docker://".to_owned(),
        };
        input
    }

    /// Builds `yaml` to its end, whatever the end is.
    pub(crate) async fn build(&self, backend: Backend, name: &str, yaml: &str) -> Built {
        run(&self.engine, Self::input(backend, name, yaml)).await
    }

    /// Starts a build of `yaml` that can be cancelled.
    pub(crate) fn start(
        &'static self,
        backend: Backend,
        name: &str,
        yaml: &str,
    ) -> (Arc<Collected>, CancellationToken, tokio::task::JoinHandle<Result<BuildOutcome>>) {
        let (events, cancel) = (Arc::new(Collected::default()), CancellationToken::new());
        let (sink, token) = (Arc::clone(&events) as Arc<dyn BuildSink>, cancel.clone());
        let input = Self::input(backend, name, yaml);
        let task = tokio::spawn(async move { self.engine.build(&input, sink, token).await });
        (events, cancel, task)
    }

    /// The packages of one of the distribution's definitions: built once, however many tests ask.
    pub(crate) async fn built(&self, backend: Backend, definition: &str) -> Arc<Built> {
        let cell = {
            let mut built = self.built.lock().unwrap();
            Arc::clone(built.entry((backend, definition.to_owned())).or_default())
        };
        let build = || async {
            let built = self.build(backend, definition, &distro_definition(definition)).await;
            built.assert_succeeded();
            Arc::new(built)
        };
        Arc::clone(cell.get_or_init(build).await)
    }

    /// The assembled root filesystem of some packages of the distribution.
    pub(crate) async fn root_of(&self, packages: &[&str]) -> Blob {
        let (assembler, environment, resolution) = self.resolve(packages).await;
        assembler.assemble(&resolution, &environment, Arch::host().unwrap()).await.unwrap().blob
    }

    /// Some packages of the distribution with all that they need.
    pub(crate) async fn closure_of(&self, packages: &[&str]) -> Vec<IndexPackage> {
        self.resolve(packages).await.2.packages().cloned().collect()
    }

    async fn resolve(&self, packages: &[&str]) -> (Assembler, PlanEnvironment, Resolution) {
        let assembler = assembler(&self.places.state);
        let defaults = distro_defaults(&self.places.distro);
        let environment = PlanEnvironment {
            repositories: defaults.repositories,
            keyring: defaults.keyring,
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            ..PlanEnvironment::default()
        };
        let resolution = assembler.resolve(&environment, Arch::host().unwrap()).await.unwrap();
        (assembler, environment, resolution)
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &EngineBuilder {
        &self.engine
    }

    /// The repositories of definitions that name none.
    pub(crate) fn defaults(&self) -> RepositoryDefaults {
        distro_defaults(&self.places.distro)
    }

    /// A repository of what was built, with the key beside it as `farm.rsa.pub`.
    pub(crate) fn repository(&self, name: &str, built: &Built) -> PathBuf {
        let repository = self.places.state.join(name);
        fs::create_dir_all(repository.join("x86_64")).unwrap();
        for (name, bytes) in built.bytes() {
            fs::write(repository.join(name), bytes).unwrap();
        }
        fs::write(repository.join("farm.rsa.pub"), self.public_key()).unwrap();
        repository
    }

    /// The farm's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The public half of the farm's key.
    pub(crate) fn public_key(&self) -> String {
        signing_key(&self.key).public_pem().unwrap()
    }

    /// A keyring that holds the farm's key alone.
    pub(crate) fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(&format!("{KEY_NAME}.pub"), self.public_key().as_bytes()).unwrap();
        keyring
    }
}

/// One of `tests/distro/definitions`.
pub(crate) fn distro_definition(name: &str) -> String {
    fs::read_to_string(root().join(format!("tests/distro/definitions/{name}.yaml"))).unwrap()
}

/// The distribution as the repository of definitions that name none.
pub(crate) fn distro_defaults(distro: &Path) -> RepositoryDefaults {
    let key = distro.join("keys/test-distro.rsa.pub");
    RepositoryDefaults::new(vec![distro.display().to_string()], vec![key.display().to_string()])
}

fn signing_key(pem: &str) -> SigningKey {
    SigningKey::from_pem(KEY_NAME, pem.as_bytes()).unwrap()
}

fn assembler(state: &Path) -> Assembler {
    let mut options = FetchOptions::default();
    options.addresses = AddressPolicy::allow_any();
    Assembler::new(
        StateCache::new(state, CACHE_BYTES_DEFAULT),
        Arc::new(HttpFetcher::new(options).unwrap()),
        LocalAccess::Any,
    )
}

fn engine_options(places: &Places, key: &str, defaults: RepositoryDefaults) -> EngineOptions {
    let mut options = EngineOptions::new(&places.state);
    options.source_cache = Some(places.distro.join("cache"));
    options.signing_key = Some(Arc::new(signing_key(key)));
    options.repository_defaults = defaults;
    options
}

fn engine(places: &Places, key: &str, runners: &Runners, defaults: RepositoryDefaults) -> EngineBuilder {
    let options = engine_options(places, key, defaults);
    EngineBuilder::new(options, assembler(&places.state), Arc::new(runners.clone()))
}

/// Builds `input` and keeps what happened.
pub(crate) async fn run(engine: &EngineBuilder, input: BuildInput) -> Built {
    let events = Arc::new(Collected::default());
    let sink = Arc::clone(&events) as Arc<dyn BuildSink>;
    let outcome = engine.build(&input, sink, CancellationToken::new()).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:?}\n{}", events.text()));
    Built { outcome, events }
}

/// A build that came to an end.
pub(crate) struct Built {
    pub(crate) outcome: BuildOutcome,
    pub(crate) events: Arc<Collected>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}\n{}", self.outcome.status, self.events.text())
    }
}

impl Built {
    pub(crate) fn assert_succeeded(&self) {
        assert_eq!(self.outcome.status, BuildStatus::Succeeded, "{}", self.events.text());
    }

    /// Every file by its name: its bytes.
    pub(crate) fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        self.assert_succeeded();
        let files = &self.outcome.files;
        files.iter().map(|file| (file.name.clone(), fs::read(&file.path).unwrap())).collect()
    }

    /// Where the file whose name ends in `end` lies.
    pub(crate) fn path(&self, end: &str) -> &Path {
        self.assert_succeeded();
        let found = self.outcome.files.iter().find(|file| file.name.ends_with(end));
        &found.unwrap_or_else(|| panic!("no {end} in {:?}", self.outcome.files)).path
    }

    /// The package called `name`.
    pub(crate) fn package(&self, name: &str) -> ApkFile {
        ApkFile::open(self.path(&format!("/{name}.apk"))).unwrap()
    }

    /// The reason of a failed build with what the engine said about it.
    pub(crate) fn complaint(&self) -> String {
        let (BuildStatus::Failed { reason, .. } | BuildStatus::LimitExceeded { reason, .. }) =
            &self.outcome.status
        else {
            panic!("it did not fail: {self:?}")
        };
        assert!(self.outcome.files.is_empty());
        format!("reason: {reason}\n{}", self.events.text())
    }

    /// How long each phase took, for reports.
    pub(crate) fn timings(&self) -> String {
        let phases = self.outcome.timings.iter();
        let phases: Vec<String> =
            phases.map(|(phase, took)| format!("{} {:.2} s", phase.name(), took.as_secs_f64())).collect();
        phases.join(", ")
    }
}

/// All bytes of two builds are equal; names the first file that is not.
pub(crate) fn assert_same(what: &str, one: &Built, two: &Built) {
    let (one, two) = (one.bytes(), two.bytes());
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&two), "{what}");
    for (name, bytes) in &one {
        assert!(*bytes == two[name], "{what}: {name} differs");
    }
}
