//! From a request to jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use jiff::Timestamp;

use super::compile::{self, CompiledAll, file_name};
use super::document::{BuildDocument, KeptIndex, PlannedArch};
use super::storage::BuildFiles;
use super::{BuildOptions, BuildRequest, published};
use crate::apk::checksum::sha256_hex;
use crate::arch::Arch;
use crate::backend_selector::Requirements;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BuildFacts, BuildId, JobId, JobSpec, Project, UncheckedSpec};
use crate::job_store::{JobStore, NewJob, Submission, Submitted};
use crate::limits;
use crate::melange::CompileOptions;
use crate::melange::defaults::RepositoryDefaults;
use crate::melange::pipelines::PipelineSet;
use crate::planner::{self, ArchPlan, Durations, PlanInput, PlanRequest, PlannedJob};
use crate::redact::redact;
use crate::rootfs::{Assembler, KeptRepository};
use crate::text::diagnostics::Diagnostics;

/// What an operator decides about every build; as the builder has it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PlannerRules {
    /// Repositories for definitions that name none.
    pub repository_defaults: RepositoryDefaults,
    /// Packages added to every environment of a build.
    pub extra_packages: Vec<String>,
    /// Repositories behind those of every environment.
    pub extra_repositories: Vec<String>,
    /// Keys besides those of every environment.
    pub extra_keyring: Vec<String>,
}

/// Plans builds and hands their jobs in. Clones share its parts.
#[derive(Debug, Clone)]
pub struct BuildPlanner {
    assembler: Arc<Assembler>,
    job_store: Arc<dyn JobStore>,
    files: BuildFiles,
    rules: Arc<PlannerRules>,
}

/// A build that is planned and not handed in.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedBuild {
    /// The plans, in the order of the architectures.
    pub plans: Vec<ArchPlan>,
    /// The mistakes of definitions by their paths; these are skipped.
    pub mistakes: BTreeMap<String, Diagnostics>,
    /// What each plan was made of.
    parts: Vec<Parts>,
}

impl PlannedBuild {
    /// What each job will need of a backend, with the name of its package.
    pub fn needs<'a>(
        &'a self,
        request: &'a BuildRequest,
    ) -> impl Iterator<Item = (&'a str, Requirements)> + 'a {
        let of_arch = move |(plan, parts): (&'a ArchPlan, &'a Parts)| {
            plan.jobs.iter().filter_map(move |job| {
                let asked = parts.compiled.found.get(&job.file)?.package.resources;
                let needs = Requirements::new(plan.arch, request.options.backend_selector.clone());
                Some((job.name.as_str(), needs.with_resources(asked)))
            })
        };
        self.plans.iter().zip(&self.parts).flat_map(of_arch)
    }
}

/// What the plan of an architecture was made of.
#[derive(Debug)]
struct Parts {
    compiled: CompiledAll,
    indexes: Vec<(KeptIndex, Bytes)>,
}

/// A build to hand in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewBuild {
    /// Whose it is.
    pub project: Project,
    /// Names the submission within the project; see [`Submission::key`].
    pub key: Option<String>,
    /// When it is handed in.
    pub at: Timestamp,
}

impl NewBuild {
    /// A build of the default project.
    pub fn new(at: Timestamp) -> Self {
        Self { project: Project::default(), key: None, at }
    }
}

impl BuildPlanner {
    /// A planner that reads indexes with `assembler`, keeps what builds are made of in `files`, and hands jobs to a store.
    pub fn new(
        assembler: Arc<Assembler>,
        job_store: Arc<dyn JobStore>,
        files: BuildFiles,
        rules: PlannerRules,
    ) -> Self {
        Self { assembler, job_store, files, rules: Arc::new(rules) }
    }

    /// The files of the builds.
    pub fn files(&self) -> &BuildFiles {
        &self.files
    }

    /// Plans a request for a project. Once `cancel` is true it comes to an end with an error.
    ///
    /// # Errors
    /// `InvalidRequest` without definitions or architectures; `NotFound` for packages that no definition makes;
    /// `LimitExceeded`; the repositories' when an index cannot be had that the request or the operator names. A definition
    /// is skipped that names another repository that cannot be had.
    pub async fn plan(
        &self,
        project: &Project,
        request: &Arc<BuildRequest>,
        cancel: Arc<AtomicBool>,
    ) -> Result<PlannedBuild> {
        check(request)?;
        let (mut plans, mut parts, mut mistakes) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut missing, mut is_any) = (None, false);
        for arch in &request.options.architectures {
            let (plan, part) = match self.plan_arch(project, request, *arch, &cancel).await {
                Ok(planned) => planned,
                // One architecture may lack what another one has.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    missing.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            is_any = true;
            mistakes.extend(part.compiled.mistakes.iter().map(|(file, told)| (file.clone(), told.clone())));
            plans.push(plan);
            parts.push(part);
        }
        match missing {
            Some(error) if !is_any => Err(error),
            _ => Ok(PlannedBuild { plans, mistakes, parts }),
        }
    }

    async fn plan_arch(
        &self,
        project: &Project,
        request: &Arc<BuildRequest>,
        arch: Arch,
        cancel: &Arc<AtomicBool>,
    ) -> Result<(ArchPlan, Parts)> {
        let mut compiled = self.compile(request, arch, Arc::clone(cancel)).await?;
        let common = self.common(request);
        let repositories = published::read(&self.assembler, &mut compiled, &common, arch).await?;
        let known = self.job_store.durations(project, arch).await?;
        let known = known.into_iter().map(|known| (known.package, known.took)).collect();
        let request = request.plan.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let definitions = compiled.found.values().map(|one| one.definition.clone()).collect();
            let published: Vec<_> = repositories.iter().map(|kept| kept.loaded.packages()).collect();
            let (skipped, durations) = (compiled.skipped.clone(), Durations::new(known));
            let input = PlanInput { arch, definitions, skipped, published: &published, durations };
            let plan = planner::plan(&input, &request)?;
            let kept = |kept: &KeptRepository| {
                let line_sha256 = sha256_hex(kept.line.as_bytes());
                let (line, sha256) = (redact(&kept.line).into_owned(), kept.loaded.sha256.clone());
                (KeptIndex { line, line_sha256, sha256 }, kept.bytes.clone())
            };
            let indexes = repositories.iter().map(kept).collect();
            Ok((plan, Parts { compiled, indexes }))
        });
        planned.await.map_err(|error| Error::unexpected("the planner died").source(error))?
    }

    async fn compile(
        &self,
        request: &Arc<BuildRequest>,
        arch: Arch,
        cancel: Arc<AtomicBool>,
    ) -> Result<CompiledAll> {
        let (request, rules) = (Arc::clone(request), Arc::clone(&self.rules));
        let compiled = tokio::task::spawn_blocking(move || {
            let pipelines = PipelineSet::new(&request.pipelines)?;
            let mut options = CompileOptions::default();
            (options.defaults, options.cancel) = (Some(rules.repository_defaults.clone()), cancel);
            let with_test = request.options.with_test;
            compile::all(&request.definitions, &pipelines, arch, (&options, with_test), |plan| {
                let (extra, keys) = (&request.options.extra_repositories, &request.options.extra_keyring);
                // In the order in which the builder adds them.
                plan.add_packages(&rules.extra_packages);
                plan.add_repositories(extra, keys);
                plan.add_repositories(&rules.extra_repositories, &rules.extra_keyring);
            })
        });
        compiled.await.map_err(|error| Error::unexpected("the compiler died").source(error))?
    }

    /// The repositories and keys that definitions have because the request or the operator names them.
    fn common(&self, request: &BuildRequest) -> BTreeSet<String> {
        let (options, rules) = (&request.options, &self.rules);
        let defaults = &rules.repository_defaults;
        let all = [
            &options.extra_repositories,
            &options.extra_keyring,
            &rules.extra_repositories,
            &rules.extra_keyring,
            &defaults.repositories,
            &defaults.keyring,
        ];
        all.into_iter().flatten().cloned().collect()
    }

    /// Hands a planned build in: its files first, then all of its jobs at once. Nothing is handed in when there is nothing
    /// to build; `None` then.
    ///
    /// # Errors
    /// `Conflict` for a plan with what has no beginning; the storage's; as
    /// [`JobIntake::submit`](crate::job_store::JobIntake::submit).
    pub async fn submit(
        &self,
        request: &BuildRequest,
        planned: PlannedBuild,
        new: &NewBuild,
    ) -> Result<Option<Submitted>> {
        if planned.plans.iter().any(|plan| !plan.refused.is_empty()) {
            let error = Error::new(
                ErrorKind::Conflict,
                "definitions need each other, and nothing published stands in",
            );
            return Err(error.hint("publish one of each circle, or leave the circle out"));
        }
        if planned.plans.iter().all(|plan| plan.jobs.is_empty()) {
            return Ok(None);
        }
        let id = BuildId::new(new.at);
        let (document, jobs, indexes, facts) = drafted(id, request, planned, new)?;
        let mut submission =
            Submission::new(jobs, new.at).in_project(new.project.clone()).as_build(id).with_facts(facts);
        submission.key.clone_from(&new.key);
        submission.check()?;
        self.files.write(document, &indexes).await?;
        let submitted = self.job_store.submit(&submission).await;
        // An answer that was lost may have been a yes.
        let is_unused = match &submitted {
            Ok(submitted) => !submitted.created,
            Err(error) => error.kind() != ErrorKind::Unavailable,
        };
        if is_unused && let Err(error) = self.files.remove(id).await {
            tracing::warn!(build = %id, error = %error.chain(), "files of a build that was not handed in are left over");
        }
        submitted.map(Some)
    }
}

fn check(request: &BuildRequest) -> Result<()> {
    let (definitions, archs) = (request.definitions.len(), request.options.architectures.len());
    if definitions == 0 {
        return Err(
            Error::invalid("the build has no definition").hint("hand in definitions, or where they are")
        );
    }
    if definitions > limits::PLAN_DEFINITIONS_MAX {
        let message =
            format!("there are {definitions} definitions, at most {}", limits::PLAN_DEFINITIONS_MAX);
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let each: BTreeSet<Arch> = request.options.architectures.iter().copied().collect();
    if archs == 0 || each.len() != archs {
        return Err(Error::invalid("a build names one architecture or more, each once"));
    }
    Ok(())
}

type Drafted = (BuildDocument, Vec<NewJob>, Vec<(String, Bytes)>, BuildFacts);

/// The document of a build and its jobs.
fn drafted(id: BuildId, request: &BuildRequest, planned: PlannedBuild, new: &NewBuild) -> Result<Drafted> {
    let facts = facts(request, &planned.plans);
    let (mut archs, mut jobs, mut indexes) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (plan, parts) in planned.plans.into_iter().zip(planned.parts) {
        let ids: Vec<JobId> = plan.jobs.iter().map(|_| JobId::new(new.at)).collect();
        for (job, id) in plan.jobs.iter().zip(&ids) {
            let spec = spec(request, &parts.compiled, job, plan.arch)?;
            let mut handed = NewJob::new(*id, Arc::new(spec));
            handed.waits_for = job.waits_for.iter().filter_map(|need| ids.get(*need).copied()).collect();
            handed.priority = request.options.priority;
            handed.rank = i64::try_from(job.remaining.as_millis()).unwrap_or(i64::MAX);
            jobs.push(handed);
        }
        let kept = parts.indexes.iter().map(|(kept, _)| kept.clone()).collect();
        indexes.extend(parts.indexes.into_iter().map(|(kept, bytes)| (kept.sha256, bytes)));
        archs.push(PlannedArch { plan, jobs: ids, indexes: kept });
    }
    let (project, source, options) = (new.project.clone(), request.source.clone(), request.options.clone());
    let document = BuildDocument { format: 1, id, project, source, options, archs };
    Ok((document, jobs, indexes.into_iter().collect(), facts))
}

/// What a job of a plan asks for.
fn spec(request: &BuildRequest, compiled: &CompiledAll, job: &PlannedJob, arch: Arch) -> Result<JobSpec> {
    let gone =
        || Error::unexpected("the plan has a definition that was not compiled").with("file", &job.file);
    let one = compiled.found.get(&job.file).ok_or_else(gone)?;
    let text = request.definitions.get(&job.file).ok_or_else(gone)?;
    let BuildOptions { with_test, debug, backend_selector, .. } = &request.options;
    let used = one.pipelines.iter().map(|name| format!("{name}.yaml"));
    let pipelines = used.filter_map(|path| Some((path.clone(), request.pipelines.get(&path)?.clone())));
    let parts = UncheckedSpec {
        config_name: file_name(&job.file).to_owned(),
        package: Some(one.package.clone()),
        pipelines: pipelines.collect(),
        source: request.source_of(&job.name, &job.file).map(String::from),
        backend_selector: backend_selector.labels().as_map().clone(),
        with_test: *with_test,
        debug: *debug,
        ..UncheckedSpec::new(text.clone(), arch.to_string())
    };
    JobSpec::try_from(parts).map_err(|error| error.with("file", &job.file))
}

/// Packages that a title names.
const TITLE_PACKAGES: usize = 3;

/// What was asked for in a few words.
fn title(request: &PlanRequest, plans: &[ArchPlan]) -> String {
    let selection = &request.selection;
    let mut asked: Vec<&str> =
        selection.packages.iter().chain(&selection.globs).map(String::as_str).collect();
    if asked.is_empty() {
        let names: BTreeSet<&str> =
            plans.iter().flat_map(|plan| &plan.jobs).map(|job| job.name.as_str()).collect();
        asked.extend(names);
    }
    let shown: Vec<&str> = asked.iter().take(TITLE_PACKAGES).copied().collect();
    let more = asked.len().saturating_sub(shown.len());
    let title = if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") };
    crate::text::one_line(&title, limits::BUILD_TITLE_BYTES_MAX)
}

fn facts(request: &BuildRequest, plans: &[ArchPlan]) -> BuildFacts {
    let sum = |count: fn(&ArchPlan) -> usize| {
        u32::try_from(plans.iter().map(count).sum::<usize>()).unwrap_or(u32::MAX)
    };
    let levels = plans.iter().map(ArchPlan::levels).max().unwrap_or(0);
    let critical = plans.iter().map(|plan| plan.critical_time).max().unwrap_or_default();
    BuildFacts {
        source: request.source.clone(),
        title: title(&request.plan, plans),
        architectures: request.options.architectures.clone(),
        is_planned: true,
        skipped: sum(|plan| plan.skipped.len()),
        cuts: sum(|plan| plan.cuts.len()),
        levels: u32::try_from(levels).unwrap_or(u32::MAX),
        critical_path_ms: u64::try_from(critical.as_millis()).unwrap_or(u64::MAX),
        fail_fast: request.options.fail_fast,
        trigger: crate::text::one_line(&request.trigger, limits::BUILD_TITLE_BYTES_MAX),
    }
}
