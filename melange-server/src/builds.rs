//! What a request for a build must pass, and what is told of its packages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use melange_remote_sdk::api::melange2::SourceFiles;
use melange_remote_sdk::api::v1::{self, ErrorDetail};
use melange_remote_sdk::api::v2::{
    BuildOptionsView, BuildPackageView, CreateBuildRequest, NoBackendView, SourceRequest,
};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend_selector::{Candidate, Requirements};
use melange_remote_sdk::builds::{BuildFiles, BuildOptions, BuildRequest, LoadedBuild, PlannedBuild};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::git::GitSource;
use melange_remote_sdk::job::{BuildSource, DefinitionOrigin, Job, JobState, Priority, Project};
use melange_remote_sdk::labels::{LabelSelector, Labels};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::pipelines::PipelinePath;
use melange_remote_sdk::planner::{ArchPlan, CutAim, PlanRequest, Rebuild, Selection, WithDependencies};
use melange_remote_sdk::rootfs::line::RepositoryLine;
use melange_remote_sdk::sources;

use crate::app::App;
use crate::problem::{Handled, Problem};
use crate::submission::SubmissionRules;

/// Names of packages that one is told to wait for.
const BLOCKED_BY_TOLD: usize = 50;

/// A request that was checked.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whose the build is.
    pub(crate) project: Project,
    /// What is to be built; its definitions are missing when they lie in a git repository.
    pub(crate) request: BuildRequest,
    /// That repository.
    pub(crate) git: Option<GitSource>,
    /// The files that came with it.
    pub(crate) files: SourceFiles,
}

/// Checks a request, but for its definitions.
///
/// # Errors
/// Every mistake.
pub(crate) fn check(
    request: CreateBuildRequest,
    rules: &SubmissionRules,
) -> Result<Checked, Vec<ErrorDetail>> {
    let mut mistakes = Mistakes(Vec::new());
    let CreateBuildRequest { source, packages, glob, options, project, trigger, .. } = request;
    let project = project.as_deref().map_or_else(|| Ok(Project::default()), str::parse);
    let project = mistakes.of("project", project);
    let mut checked = BuildRequest::default();
    checked.trigger = trigger.unwrap_or_default();
    checked.plan = mistakes.plan(&options, Selection { packages, globs: glob });
    checked.options = mistakes.options(options, rules);
    let git = mistakes.source(source, &mut checked);
    if mistakes.0.is_empty() {
        let project = project.unwrap_or_default();
        Ok(Checked { project, request: checked, git, files: SourceFiles::default() })
    } else {
        Err(mistakes.0)
    }
}

/// What is wrong with a request so far.
struct Mistakes(Vec<ErrorDetail>);

impl Mistakes {
    fn of<T>(&mut self, field: &str, read: Result<T, Error>) -> Option<T> {
        read.map_err(|error| self.0.push(ErrorDetail::field(field, &error))).ok()
    }

    fn wrong(&mut self, field: &str, error: &Error) {
        self.0.push(ErrorDetail::field(field, error));
    }

    /// One of a few words; the first when nothing is said.
    fn word<T: Copy + Default>(&mut self, field: &str, said: Option<&str>, known: &[(&str, T)]) -> T {
        let Some(said) = said else { return T::default() };
        match known.iter().find(|(word, _)| *word == said) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
                let error = Error::invalid(format!("{said:?} is none of {}", words.join(", ")));
                self.wrong(field, &error);
                T::default()
            }
        }
    }

    fn plan(&mut self, options: &BuildOptionsView, selection: Selection) -> PlanRequest {
        let mut plan = PlanRequest::default();
        plan.selection = selection;
        plan.with_dependencies = self.word(
            "options.with_dependencies",
            options.with_dependencies.as_deref(),
            &[
                ("none", WithDependencies::None),
                ("missing", WithDependencies::Missing),
                ("all", WithDependencies::All),
            ],
        );
        let rebuild = [("missing", Rebuild::Missing), ("all", Rebuild::All)];
        plan.rebuild = self.word("options.rebuild", options.rebuild.as_deref(), &rebuild);
        let cut = [("fewest", CutAim::Fewest), ("short", CutAim::Short)];
        plan.cut = self.word("options.cut", options.cut.as_deref(), &cut);
        plan
    }

    fn options(&mut self, view: BuildOptionsView, rules: &SubmissionRules) -> BuildOptions {
        let mut options = BuildOptions::default();
        for (number, name) in view.architectures.iter().enumerate() {
            let arch = self.of(&format!("options.architectures.{number}"), name.parse::<Arch>());
            match arch {
                Some(arch) if !options.architectures.contains(&arch) => options.architectures.push(arch),
                _ => {}
            }
        }
        if view.architectures.is_empty() {
            options.architectures.push(rules.default_arch);
        }
        if let Some(key) = &view.signing_key
            && let Err(error) = check_key_name(key, rules.signing_key.as_deref())
        {
            self.wrong("options.signing_key", &error);
        }
        self.places("options.extra_repos", &view.extra_repos, rules);
        self.places("options.extra_keys", &view.extra_keys, rules);
        let priority =
            view.priority.map(|priority| Priority::new(u16::try_from(priority).unwrap_or(u16::MAX)));
        options.priority = priority.and_then(|read| self.of("options.priority", read)).unwrap_or_default();
        let labels = self.of("options.backend_selector", Labels::new(view.backend_selector));
        options.backend_selector = LabelSelector::new(labels.unwrap_or_default());
        let mut origin = DefinitionOrigin::default();
        origin.commit = view.git_commit.unwrap_or_default();
        origin.repository = view.git_repo_url.unwrap_or_default();
        origin.license = view.license.unwrap_or_default();
        match origin.stated() {
            Ok(origin) => options.origin = origin,
            Err(mistakes) => {
                for mistake in mistakes {
                    self.wrong(&format!("options.{}", mistake.field), &mistake.error);
                }
            }
        }
        options.extra_repositories = view.extra_repos;
        options.extra_keyring = view.extra_keys;
        options.with_test = view.with_test;
        options.debug = view.debug;
        options.no_cache = view.no_cache;
        options.fail_fast = view.fail_fast;
        options
    }

    /// Repositories and keys that a request adds.
    fn places(&mut self, field: &str, places: &[String], rules: &SubmissionRules) {
        for (number, place) in places.iter().enumerate() {
            let field = format!("{field}.{number}");
            let has_password = RepositoryLine::parse(place).is_ok_and(|line| {
                let authority = line.place.split("://").nth(1).and_then(|rest| rest.split('/').next());
                authority.is_some_and(|authority| authority.contains('@'))
            });
            if has_password {
                let error = Error::invalid("the address holds a password");
                self.wrong(&field, &error.hint("passwords of repositories are the server's to know"));
            } else if let Some(refused) = rules.refuse_place(place, "") {
                self.0.push(ErrorDetail { field: Some(field), file: None, ..refused });
            }
        }
    }

    /// Where the definitions come from, when they do not come with the request.
    fn source(&mut self, source: SourceRequest, checked: &mut BuildRequest) -> Option<GitSource> {
        let SourceRequest { git, definitions, pipelines, sources, .. } = source;
        for (name, digest) in sources {
            if let Some(digest) = self.of(&format!("source.sources.{name}"), digest.parse()) {
                checked.sources.insert(name, digest);
            }
        }
        match (&git, definitions.is_empty()) {
            (None, true) => {
                let error = Error::invalid("the request has no definitions");
                self.wrong("source", &error.hint("give `source.definitions` or `source.git`"));
            }
            (Some(_), false) => {
                let error =
                    Error::invalid("definitions come from a git repository or with the request, not both");
                self.wrong("source", &error.hint("make two builds of it"));
            }
            (Some(_), true) => {}
            (None, false) => {
                let count = u32::try_from(definitions.len()).unwrap_or(u32::MAX);
                checked.source = BuildSource::Inline { definitions: count };
            }
        }
        for (path, text) in &definitions {
            if let Err(error) = check_definition(path, text) {
                self.wrong(&format!("source.definitions.{path}"), &error);
            }
        }
        for path in pipelines.keys() {
            self.of(&format!("source.pipelines.{path}"), PipelinePath::parse(path));
        }
        (checked.definitions, checked.pipelines) = (definitions, pipelines);
        git.map(|git| {
            let mut source = GitSource::new(git.url);
            source.reference = git.reference.unwrap_or_default();
            source.glob = git.glob.unwrap_or_default();
            source.credential = git.credential;
            source
        })
    }
}

/// A definition's path and size.
fn check_definition(path: &str, text: &str) -> Result<(), Error> {
    let is_plain = PipelinePath::parse(path).is_ok() && !path.split('/').any(|part| part.starts_with('.'));
    if !is_plain {
        let error = Error::invalid(format!("{path:?} is not the path of a definition"));
        return Err(error.hint("a path is relative, such as `zlib.yaml`"));
    }
    if text.len() > limits::DEFINITION_BYTES_MAX {
        let message =
            format!("the definition has {} bytes, more than {}", text.len(), limits::DEFINITION_BYTES_MAX);
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// A key is named, never sent.
fn check_key_name(name: &str, known: Option<&str>) -> Result<(), Error> {
    if name.contains("PRIVATE KEY") || name.contains('\n') || name.len() > limits::FILE_NAME_BYTES_MAX {
        let error = Error::invalid("`signing_key` is the name of a key, never a key");
        return Err(error.hint("a key that was sent is no secret any more: make a new one"));
    }
    if known == Some(name) {
        return Ok(());
    }
    let error = Error::invalid(format!("the server has no signing key {name:?}"));
    Err(match known {
        Some(known) => error.hint(format!("it has {known:?}; without `signing_key` that one signs")),
        None => error.hint("its packages are not signed"),
    })
}

/// Refuses a plan of definitions with mistakes that somebody asked for.
///
/// # Errors
/// A problem with all of these mistakes.
pub(crate) fn refuse_mistakes(request: &BuildRequest, planned: &PlannedBuild) -> Handled<()> {
    let is_inline = matches!(request.source, BuildSource::Inline { .. });
    let packages: BTreeSet<&str> = request.plan.selection.packages.iter().map(String::as_str).collect();
    let skipped = planned.plans.iter().flat_map(|plan| &plan.skipped);
    let asked = skipped.filter(|skip| is_inline || packages.contains(skip.name.as_str()));
    let asked: BTreeSet<&str> = asked.map(|skip| skip.file.as_str()).collect();
    let mut details = Vec::new();
    for (_, diagnostics) in planned.mistakes.iter().filter(|(file, _)| asked.contains(file.as_str())) {
        details.extend(v1::diagnostic_details(diagnostics));
    }
    details.truncate(limits::DIAGNOSTICS_MAX);
    if details.is_empty() { Ok(()) } else { Err(Problem::mistakes(details)) }
}

/// Refuses a plan of what has no beginning.
///
/// # Errors
/// A conflict with a shortest circle of each.
pub(crate) fn refuse_circles(plans: &[ArchPlan]) -> Handled<()> {
    let mut details = Vec::new();
    for plan in plans {
        for refusal in &plan.refused {
            let circle: Vec<String> =
                refusal.cycle.iter().map(|(name, entry)| format!("{name} needs {entry}")).collect();
            let others = refusal.members.saturating_sub(refusal.cycle.len());
            let more =
                if others > 0 { format!(", and {others} more need each other so") } else { String::new() };
            details.push(ErrorDetail {
                message: format!(
                    "on {} nothing published stands in for any need of the circle {}{more}",
                    plan.arch,
                    circle.join(", ")
                ),
                hint: Some("publish one of them first, or leave them out".to_owned()),
                ..ErrorDetail::default()
            });
        }
    }
    if details.is_empty() {
        return Ok(());
    }
    let error =
        Error::new(ErrorKind::Conflict, "definitions need each other, and nothing published stands in");
    Err(Problem::new(error.hint("`details` has a shortest circle of each"), details))
}

/// Stores the files that came with a request beside the definitions that are built, and names them in it.
///
/// # Errors
/// For files that no build takes; the storage's.
pub(crate) async fn store_texts(
    files: &BuildFiles,
    request: &mut BuildRequest,
    mut texts: SourceFiles,
    plans: &[ArchPlan],
    now: Timestamp,
) -> Handled<()> {
    for job in plans.iter().flat_map(|plan| &plan.jobs) {
        let Some(texts) = texts.remove(&job.name) else { continue };
        let packed = tokio::task::spawn_blocking(move || sources::pack_texts(&texts)).await;
        let packed =
            packed.map_err(|error| Error::unexpected("the packing of source files died").source(error))?;
        let Some(packed) = packed.map_err(|error| error.with("package", &job.name))? else { continue };
        files.store_sources(&packed, now).await?;
        request.sources.insert(job.name.clone(), packed.digest);
    }
    Ok(())
}

/// A package as it is now, with the names of those that it waits for.
///
/// # Errors
/// The job store's.
pub(crate) async fn package(app: &App, loaded: &LoadedBuild, job: &Arc<Job>) -> Handled<BuildPackageView> {
    let mut view = BuildPackageView::of_job(job);
    if let Some(planned) = loaded.planned(job.id) {
        view = view.with_plan(planned);
    }
    if job.state == JobState::Blocked {
        let needs = app.job_store.blocked_by(job.id, BLOCKED_BY_TOLD).await?;
        let names =
            needs.iter().map(|id| loaded.planned(*id).map_or_else(|| id.to_string(), |job| job.name.clone()));
        view.blocked_by = names.collect();
    }
    Ok(view)
}

/// The jobs of a plan that no backend of the farm could run, whatever it runs now.
pub(crate) fn without_backend(
    app: &App,
    request: &BuildRequest,
    planned: &PlannedBuild,
) -> Vec<NoBackendView> {
    let idle: Vec<Candidate> = app.pool.fleet_candidates().into_iter().map(Candidate::idle).collect();
    let mut known: BTreeMap<Requirements, Option<String>> = BTreeMap::new();
    let mut told: BTreeMap<(Arch, String), NoBackendView> = BTreeMap::new();
    for (package, needs) in planned.needs(request) {
        let arch = needs.arch;
        let refused = known.entry(needs).or_insert_with_key(|needs| {
            app.backend_selector.select(needs, &idle).err().map(|refusal| refusal.to_string())
        });
        if let Some(reason) = refused {
            let new = || NoBackendView::new(arch.apk_name(), reason.as_str());
            told.entry((arch, reason.clone())).or_insert_with(new).add(package);
        }
    }
    told.into_values().collect()
}
