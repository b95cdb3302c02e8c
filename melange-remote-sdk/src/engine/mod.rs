//! Stations 7 to 11: the builder that really builds, over any [`GuestRunner`].
//!
//! compile → resolve → environment → steps → package, in that order, one function each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::analysis::lint::{LinterSets, unknown_linters};
use crate::analysis::sbom::UNKNOWN_REPOSITORY;
use crate::apk::index::Index;
use crate::apk::signature::SigningKey;
use crate::builder::{
    BuildEvent, BuildInput, BuildLimit, BuildOutcome, BuildSink, BuildStatus, Builder, LogStream, Phase,
    StepFailure,
};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::script::{self, ScriptOptions};
use crate::guest::{
    DEFAULT_CAPABILITIES, GuestOutcome, GuestPlan, GuestResources, GuestRunner, GuestStep, GuestUser,
    SourceCache,
};
use crate::melange::defaults::{self, RepositoryDefaults};
use crate::melange::pipelines::PipelineSet;
use crate::melange::plan::{Plan, PlanEnvironment};
use crate::melange::{self, CompileOptions, Compiled};
use crate::pointers::hand_on;
use crate::rootfs::repository::LoadedRepository;
use crate::rootfs::{Assembler, Rootfs, workspace};
use crate::scratch::ScratchFolder;
use crate::text::diagnostics::{Diagnostics, Source};

mod emission;
mod licenses;
pub mod package_tests;
pub mod preflight;
mod result;
#[cfg(all(feature = "buildkit", feature = "sandbox"))]
pub mod runners;
mod session;
mod sources;
mod watch;

use emission::{Emission, Emitted};
use package_tests::Tests;
use sources::{StepSources, source_files};
use watch::{Watch, Watched};

/// Finds the runner for a backend's address.
pub trait RunnerProvider: Send + Sync + std::fmt::Debug {
    /// The runner for `addr`; the same address may give the same runner.
    ///
    /// # Errors
    /// `InvalidRequest` for an address that no runner understands.
    fn runner(&self, addr: &str) -> Result<Arc<dyn GuestRunner>>;
}

hand_on!(RunnerProvider; {
    fn runner(&self, addr: &str) -> Result<Arc<dyn GuestRunner>>;
});

/// Gives one runner for every address.
#[derive(Debug, Clone)]
pub struct SingleRunner(pub Arc<dyn GuestRunner>);

impl RunnerProvider for SingleRunner {
    fn runner(&self, _addr: &str) -> Result<Arc<dyn GuestRunner>> {
        Ok(Arc::clone(&self.0))
    }
}

/// What an operator decides about every build.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Scratch folders are made below it.
    pub state_dir: PathBuf,
    /// A folder of the operator's with files `sha256:<hex>` and `sha512:<hex>`, which steps may take instead of
    /// downloading; it comes before [`EngineBuilder::with_source_cache`].
    pub source_cache: Option<PathBuf>,
    /// The key that signs packages and indexes.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Repositories for definitions that name none.
    pub repository_defaults: RepositoryDefaults,
    /// The namespace of package URLs and the maintainer of packages.
    pub namespace: String,
    /// Seconds since 1970 stamped on everything.
    pub epoch_seconds: i64,
    /// Packages added to every environment of a build, also to those of its tests.
    pub extra_packages: Vec<String>,
    /// Repositories behind those of every environment, whether its definition names some or takes the defaults.
    pub extra_repositories: Vec<String>,
    /// Keys besides those of every environment.
    pub extra_keyring: Vec<String>,
    /// The licence of definitions.
    pub config_license: String,
    /// Where definitions come from, `https://host/owner/name`.
    pub config_repository: String,
    /// The commit of definitions that name none.
    pub commit: String,
    /// Whether each package is its own origin, as bootstraps have it.
    pub strip_origin: bool,
    /// What steps may use whose definition says nothing.
    pub default_resources: GuestResources,
    /// The time that a build may take whose definition says nothing; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The time that a guest may be silent before it is stopped; `None` for no limit.
    pub silence: Option<Duration>,
    /// The linters of packages, and which of them fail a build.
    pub linters: LinterSets,
}

impl EngineOptions {
    /// Defaults with scratch folders below `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            source_cache: None,
            signing_key: None,
            repository_defaults: RepositoryDefaults::default(),
            namespace: defaults::NAMESPACE.to_owned(),
            epoch_seconds: 0,
            extra_packages: Vec::new(),
            extra_repositories: Vec::new(),
            extra_keyring: Vec::new(),
            config_license: "NOASSERTION".to_owned(),
            config_repository: UNKNOWN_REPOSITORY.to_owned(),
            commit: "unknown".to_owned(),
            strip_origin: false,
            default_resources: GuestResources::default(),
            timeout: None,
            silence: None,
            linters: LinterSets::default(),
        }
    }

    /// What is said of the definition of a build, and what of all where nothing is.
    fn of(&self, input: &BuildInput) -> Self {
        let mut options = self.clone();
        let told = [
            (&mut options.commit, &input.origin.commit),
            (&mut options.config_repository, &input.origin.repository),
            (&mut options.config_license, &input.origin.license),
        ];
        told.into_iter().filter(|(_, own)| !own.is_empty()).for_each(|(all, own)| all.clone_from(own));
        options
    }
}

/// The builder.
#[derive(Debug)]
pub struct EngineBuilder {
    pub(super) options: EngineOptions,
    pub(super) assembler: Arc<Assembler>,
    pub(super) runners: Arc<dyn RunnerProvider>,
    pub(super) source_cache: Option<Arc<dyn SourceCache>>,
    scratch: ScratchFolder,
}

/// One build under way: where events go and how long phases took.
pub(super) struct Run {
    pub(super) sink: Arc<dyn BuildSink>,
    timings: BTreeMap<Phase, Duration>,
}

impl Run {
    pub(super) fn new(sink: Arc<dyn BuildSink>) -> Self {
        Self { sink, timings: BTreeMap::new() }
    }

    pub(super) async fn phase<T>(&mut self, phase: Phase, work: impl Future<Output = T>) -> T {
        self.sink.emit(BuildEvent::PhaseStarted { phase });
        let begin = Instant::now();
        let result = work.await;
        let took = begin.elapsed();
        self.timings.insert(phase, took);
        self.sink.emit(BuildEvent::PhaseFinished { phase, took });
        result
    }

    fn say(&self, line: impl Into<String>) {
        self.sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line: line.into() });
    }

    pub(super) fn outcome(self, status: BuildStatus) -> BuildOutcome {
        BuildOutcome { timings: self.timings, ..BuildOutcome::without_files(status) }
    }
}

#[async_trait]
impl Builder for EngineBuilder {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        let mut run = Run::new(sink);
        let compiled = run.phase(Phase::Compile, self.compile(input)).await.and_then(with_known_linters);
        let plan = match compiled {
            Ok(Compiled::Plan(mut plan)) => {
                plan.add_packages(&self.options.extra_packages);
                plan.add_repositories(&input.extra_repositories, &input.extra_keyring);
                plan.add_repositories(&self.options.extra_repositories, &self.options.extra_keyring);
                plan.tests.iter_mut().for_each(|test| test.add_packages(&input.test_packages));
                *plan
            }
            Ok(Compiled::Skipped { reason, .. }) => return Ok(run.outcome(BuildStatus::Skipped { reason })),
            Err(error) => return into_outcome(run, error.blame_if_unknown(Blame::Definition)),
        };
        let deadline = plan.timeout.or(self.options.timeout);
        let stop = cancel.child_token();
        let result = {
            let work = self.run_plan(input, plan, &mut run, &stop);
            tokio::pin!(work);
            match deadline {
                None => Some(work.await),
                Some(limit) => match tokio::time::timeout(limit, &mut work).await {
                    Ok(result) => Some(result),
                    Err(_) => {
                        // The work is seen to its end, so that nothing of the guest is left.
                        stop.cancel();
                        let _ = work.await;
                        None
                    }
                },
            }
        };
        let Some(result) = result else {
            let limit = deadline.unwrap_or_default();
            let reason = format!("the build took longer than its timeout of {} s", limit.as_secs());
            return Ok(run.outcome(BuildStatus::LimitExceeded { reason, limit: BuildLimit::Time }));
        };
        match result {
            Ok(outcome) => Ok(BuildOutcome { timings: run.timings, ..outcome }),
            Err(error) => into_outcome(run, error),
        }
    }
}

/// Refuses a plan that switches off linters which there are not: before its steps run, not after them.
fn with_known_linters(compiled: Compiled) -> Result<Compiled> {
    let mistakes = match &compiled {
        Compiled::Plan(plan) => unknown_linters(&plan.document),
        Compiled::Skipped { .. } => Vec::new(),
    };
    if mistakes.is_empty() { Ok(compiled) } else { Err(Diagnostics(mistakes).into_error()) }
}

/// Runs blocking work where it does not hold up the async world.
pub(super) async fn aside<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::unexpected(format!("{what} died")).source(e))?
}

/// Errors of the definition's own fail the build; everything else is the caller's to act on.
pub(super) fn into_outcome(run: Run, error: Error) -> Result<BuildOutcome> {
    if error.kind() == ErrorKind::Cancelled {
        return Ok(run.outcome(BuildStatus::Cancelled));
    }
    if error.blamed() != Some(Blame::Definition) {
        return Err(error.blame_if_unknown(Blame::Farm));
    }
    let diagnostics =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Diagnostics>());
    // Diagnostics tell it all, their hints too, and the error's own message is the first one's summary.
    let (text, reason) = match diagnostics {
        Some(diagnostics) => (diagnostics.to_string(), error.to_string()),
        None => {
            let hint = error.hint_text().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            (format!("error: {}{hint}", error.chain()), error.chain())
        }
    };
    text.lines().for_each(|line| run.say(line));
    let reason = reason.lines().next().unwrap_or_default().to_owned();
    Ok(run.outcome(BuildStatus::Failed { reason, failure: None }))
}

/// Why a step failed, in one line. A guest without a shell is told as such: what the runner says of it names neither
/// the reason nor the remedy. `packages` is the field of the definition that lists the environment's packages.
pub(super) fn step_reason(failure: &StepFailure, packages: &str) -> String {
    let no_shell = |line: &String| {
        line.to_ascii_lowercase().contains("no such file or directory")
            && ["execvp /bin/sh:", "exec: \"/bin/sh\":"].iter().any(|begin| line.contains(begin))
    };
    if failure.tail.iter().any(no_shell) {
        return format!(
            "the environment of the step `{}` has no /bin/sh to run it; add a package with a shell, such as busybox, to `{packages}`",
            failure.step
        );
    }
    format!("the step `{}` failed with exit code {}", failure.step, failure.exit_code)
}

/// A runner's errors are its own unless it knows better.
pub(super) fn blame_backend(error: Error) -> Error {
    error.blame_if_unknown(Blame::Backend)
}

/// Plans and packages follow from the definition and from what its steps left.
pub(super) fn blame_plan(error: Error) -> Error {
    let blame = if error.kind() == ErrorKind::Unexpected { Blame::Farm } else { Blame::Definition };
    error.blame_if_unknown(blame)
}

/// What cannot be resolved or assembled is the fault of the definition that names it, unless nobody answered or a
/// file of the farm's own is at fault, which says so itself.
pub(super) fn blame_environment(error: Error) -> Error {
    let blame = if error.kind().is_retryable() { Blame::Farm } else { Blame::Definition };
    error.blame_if_unknown(blame)
}

impl EngineBuilder {
    /// A builder over `runners`; others may use the assembler too.
    pub fn new(
        options: EngineOptions,
        assembler: impl Into<Arc<Assembler>>,
        runners: Arc<dyn RunnerProvider>,
    ) -> Self {
        let assembler = assembler.into();
        let scratch = ScratchFolder::new(&options.state_dir.join("builds"), "engine");
        Self { options, assembler, runners, source_cache: None, scratch }
    }

    /// Asks `cache` for what steps fetch by a checksum, before they run.
    #[must_use]
    pub fn with_source_cache(mut self, cache: Arc<dyn SourceCache>) -> Self {
        self.source_cache = Some(cache);
        self
    }

    pub(super) async fn compile(&self, input: &BuildInput) -> Result<Compiled> {
        let source = Source::new(input.config_name.as_str(), input.config_yaml.as_str());
        let pipelines = PipelineSet::new(&input.pipelines)?;
        let sources = |files: &[(String, String)]| {
            files.iter().map(|(name, text)| Source::new(name.as_str(), text.as_str())).collect()
        };
        let options = CompileOptions {
            defaults: Some(self.options.repository_defaults.clone()),
            commit: self.options.of(input).commit,
            build_options: input.options.build_options.iter().cloned().collect(),
            vars_files: sources(&input.options.vars_files),
            env_files: sources(&input.options.env_files),
            libc_flavor: input.options.libc_flavor.clone(),
            ..CompileOptions::default()
        };
        let arch = input.arch;
        let compile =
            move || melange::compile(&source, arch, &pipelines, &options).map_err(Diagnostics::into_error);
        aside("the compiler", compile).await
    }

    async fn run_plan(
        &self,
        input: &BuildInput,
        plan: Plan,
        run: &mut Run,
        cancel: &CancellationToken,
    ) -> Result<BuildOutcome> {
        let cancelled = || Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        if cancel.is_cancelled() {
            return cancelled();
        }
        let runner = self.runners.runner(&input.backend_addr).map_err(blame_backend)?;
        let license_files = licenses::files(&plan.package).map_err(blame_plan)?;
        let build = input.repositories.as_ref();
        let resolve = self.assembler.resolve_in(build, &plan.environment, input.arch);
        // A runner may have to look what this machine can do.
        let resolve = run.phase(Phase::Resolve, async { tokio::join!(resolve, runner.root_form()).0 });
        let resolution = tokio::select! {
            result = resolve => result.map_err(blame_environment)?,
            () = cancel.cancelled() => return cancelled(),
        };
        run.say(format!("environment of {} packages", resolution.lock.len()));
        let lock = Some(Arc::new(resolution.environment_lock(input.arch, build)));
        let result = self.result_of(input, &plan, &resolution).await?;
        if let Some(job) = self.known(input, result.as_ref()).await {
            let status = BuildStatus::Known { job };
            return Ok(BuildOutcome { lock, result, ..BuildOutcome::without_files(status) });
        }
        let sink = Arc::clone(&run.sink);
        let assemble =
            run.phase(Phase::Environment, self.prepare_guest(&plan, &resolution, &*runner, &*sink));
        let (rootfs, sources) = tokio::select! {
            result = assemble => result.map_err(blame_environment)?,
            () = cancel.cancelled() => return cancelled(),
        };
        let scratch = self.scratch(&input.attempt)?;
        let output = scratch.path().join("output.tar");
        let mut guest = self.guest(input, &plan, (&rootfs, &sources), scratch.path())?;
        guest.license_files = license_files;
        let count = guest.steps.len();
        if let Some(status) = self.run_steps(&*runner, &guest, &output, run, cancel).await? {
            return Ok(BuildOutcome::without_files(status));
        }
        let plan = Arc::new(plan);
        let emission = Emission {
            options: self.options.of(input),
            config_name: input.config_name.clone(),
            plan: Arc::clone(&plan),
            resolution,
            rootfs,
            output,
            folder: scratch.path().to_owned(),
        };
        let Emitted { files, lint, refusal } = Self::emit(emission, run).await?;
        if let Some(reason) = refusal {
            let status = BuildStatus::Failed { reason, failure: None };
            return Ok(BuildOutcome { lock, lint, ..BuildOutcome::without_files(status) });
        }
        let tests = if input.with_test && !plan.tests.is_empty() {
            let own = self.made_packages(&plan, scratch.path()).await?;
            let plan = Arc::new(plan.with_exact_subjects());
            let tests = Tests { input, plan: &plan, own: Some(own), first_step: count };
            let sink = Arc::clone(&run.sink);
            match run.phase(Phase::Test, self.run_tests(tests, &*runner, sink, cancel)).await? {
                Some(reports) => reports,
                None => return cancelled(),
            }
        } else {
            Vec::new()
        };
        let status = package_tests::status_of(&tests);
        let files = if status == BuildStatus::Succeeded { files } else { Vec::new() };
        let scratch = Some(Arc::new(scratch));
        Ok(BuildOutcome { files, lock, result, lint, tests, scratch, ..BuildOutcome::without_files(status) })
    }

    /// Lints and packs what the steps left.
    async fn emit(emission: Emission, run: &mut Run) -> Result<Emitted> {
        let sink = Arc::clone(&run.sink);
        let emit = tokio::task::spawn_blocking(move || emission.emit(&*sink));
        run.phase(Phase::Package, emit)
            .await
            .map_err(|e| Error::unexpected("the packaging died").source(e))?
            .map_err(blame_plan)
    }

    /// What the runner of a build needs to know.
    fn guest(
        &self,
        input: &BuildInput,
        plan: &Plan,
        (rootfs, sources): (&Rootfs, &StepSources),
        scratch: &Path,
    ) -> Result<GuestPlan> {
        let options = ScriptOptions::new(self.options.epoch_seconds).with_debug(input.debug);
        let steps = script::guest_steps(plan, &options)
            .map_err(|e| Error::invalid(e.to_string()).blame(Blame::Definition))?;
        let parts = GuestParts { plan, environment: &plan.environment, rootfs, sources, steps };
        self.guest_plan(input, parts, scratch).map_err(blame_plan)
    }

    /// Runs the guest; how the build ended when it did not go well.
    async fn run_steps(
        &self,
        runner: &dyn GuestRunner,
        guest: &GuestPlan,
        output: &Path,
        run: &mut Run,
        cancel: &CancellationToken,
    ) -> Result<Option<BuildStatus>> {
        let watch = Watch { runner, silence: self.options.silence };
        run.sink.emit(BuildEvent::PhaseStarted { phase: Phase::Steps });
        let begin = Instant::now();
        let (ended, upload) = watch.run(guest, output, Arc::clone(&run.sink), cancel).await;
        // What the upload took is a phase of its own, so that the times add up to the whole.
        let took = begin.elapsed().saturating_sub(upload);
        if !upload.is_zero() {
            run.timings.insert(Phase::Upload, upload);
        }
        run.timings.insert(Phase::Steps, took);
        run.sink.emit(BuildEvent::PhaseFinished { phase: Phase::Steps, took });
        Ok(match ended.map_err(blame_backend)? {
            Watched::Ended(GuestOutcome::Succeeded) => None,
            Watched::Ended(GuestOutcome::Cancelled) => Some(BuildStatus::Cancelled),
            Watched::Silent(reason) => {
                Some(BuildStatus::LimitExceeded { reason, limit: BuildLimit::Silence })
            }
            Watched::Ended(GuestOutcome::StepFailed { failure, .. }) => {
                let reason = step_reason(&failure, "environment.contents.packages");
                Some(BuildStatus::Failed { reason, failure: Some(failure) })
            }
        })
    }

    /// The packages that were just made, as a repository.
    async fn made_packages(&self, plan: &Plan, scratch: &Path) -> Result<Arc<LoadedRepository>> {
        let (folder, arch) = (scratch.to_owned(), plan.arch);
        aside("the reader", move || {
            let path = folder.join(arch.apk_name()).join("APKINDEX.tar.gz");
            let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
            Ok(Arc::new(LoadedRepository::made(&folder, Index::read(&bytes, None)?)))
        })
        .await
    }

    pub(super) fn scratch(&self, attempt: &str) -> Result<tempfile::TempDir> {
        let folder = self.scratch.path()?;
        tempfile::Builder::new()
            .prefix(&format!("{}.", folder_name(attempt)))
            .tempdir_in(folder)
            .map_err(|e| Error::io("create a folder in", folder, e))
    }

    /// What a runner needs to know; the workspace is written into `scratch`.
    pub(super) fn guest_plan(
        &self,
        input: &BuildInput,
        parts: GuestParts<'_>,
        scratch: &Path,
    ) -> Result<GuestPlan> {
        let GuestParts { plan, environment, rootfs, sources, steps } = parts;
        let user = guest_user(environment, rootfs)?;
        let beside = (input.source_dir.as_deref(), &input.source_rules);
        let workspace = workspace::write(scratch, plan, &self.options.namespace, beside, user)?;
        let scripts: Vec<&str> = steps.iter().map(|step| step.script.as_str()).collect();
        let sources = source_files(self.options.source_cache.as_deref(), &scripts, sources)?;
        let mut capabilities: BTreeSet<String> =
            DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
        capabilities.extend(plan.capabilities_add.iter().cloned());
        plan.capabilities_drop.iter().for_each(|name| {
            capabilities.remove(name);
        });
        Ok(GuestPlan {
            name: folder_name(&input.attempt),
            arch: input.arch,
            root: rootfs.blob.clone(),
            layers: rootfs.layers.clone(),
            workspace,
            sources,
            steps,
            scripts: Vec::new(),
            shared_root: true,
            user,
            capabilities: capabilities.into_iter().collect(),
            resources: GuestResources::of(&plan.document.package.resources)?
                .or(self.options.default_resources)
                .with_memory(input.memory_bytes),
            license_files: Vec::new(),
        })
    }
}

/// What a guest is made of.
pub(super) struct GuestParts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) environment: &'a PlanEnvironment,
    pub(super) rootfs: &'a Rootfs,
    pub(super) sources: &'a StepSources,
    pub(super) steps: Vec<GuestStep>,
}

/// A name for scratch folders.
fn folder_name(attempt: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    attempt.chars().map(plain).take(64).collect()
}

/// The account of `run-as`: root when it says nothing.
fn guest_user(environment: &PlanEnvironment, rootfs: &Rootfs) -> Result<GuestUser> {
    let name = environment.run_as.as_str();
    if matches!(name, "" | "root" | "0") {
        return Ok(GuestUser { uid: 0, gid: 0 });
    }
    let uid = match name.parse() {
        Ok(uid) => uid,
        Err(_) => {
            let declared = environment.users.iter().find(|user| user.name == name).map(|user| user.uid);
            let installed = rootfs.names.users.iter().find(|(_, known)| *known == name).map(|(uid, _)| *uid);
            declared.or(installed).ok_or_else(|| {
                Error::invalid(format!("`run-as` names the account {name:?}, which the environment lacks"))
                    .hint("add it under `environment.accounts.users`")
            })?
        }
    };
    let gid = environment.users.iter().find(|user| user.uid == uid).map_or(uid, |user| user.gid);
    Ok(GuestUser { uid, gid })
}
