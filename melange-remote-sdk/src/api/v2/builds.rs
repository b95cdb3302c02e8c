//! Builds on the wire.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::NoBackendView;
use crate::api::v1::ErrorDetail;
use crate::api::v1::read::Fields;
use crate::job::{Build, BuildId, BuildSource, Job, JobState};

/// `POST`: build packages; `GET`: list builds.
pub const BUILDS: &str = "/api/v2/builds";

/// `POST`: plan a build, and build nothing.
pub const PLANS: &str = "/api/v2/plans";

/// `GET`: one build.
pub fn build(id: BuildId) -> String {
    format!("{BUILDS}/{id}")
}

/// `GET`: the packages of a build.
pub fn build_packages(id: BuildId) -> String {
    format!("{BUILDS}/{id}/packages")
}

/// `GET`: one package of a build, with `?arch=` when there are several.
pub fn build_package(id: BuildId, package: &str) -> String {
    format!("{BUILDS}/{id}/packages/{package}")
}

/// `GET`: the plan of a build.
pub fn build_plan(id: BuildId) -> String {
    format!("{BUILDS}/{id}/plan")
}

/// `GET`: the events of a build and of its jobs.
pub fn build_events(id: BuildId) -> String {
    format!("{BUILDS}/{id}/events")
}

/// `POST`: ask for all jobs of a build to stop.
pub fn build_cancel(id: BuildId) -> String {
    format!("{BUILDS}/{id}/cancel")
}

/// `POST`: try the jobs of a build again that came to a bad end.
pub fn build_retry(id: BuildId) -> String {
    format!("{BUILDS}/{id}/retry")
}

/// What `apk --repository` takes to install what a build has made so far.
pub fn build_repository(id: BuildId) -> String {
    format!("{REPOSITORIES}/{id}")
}

/// The folder of the repositories of builds.
pub const REPOSITORIES: &str = "/apk/builds";

/// `GET`: the public key by its name, such as `farm.rsa.pub`, as apk keeps it in `/etc/apk/keys`.
pub fn repository_key(name: &str) -> String {
    format!("/apk/keys/{name}")
}

/// The body of `POST /api/v2/builds` and of `POST /api/v2/plans`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct CreateBuildRequest {
    /// Where the definitions come from.
    #[serde(default)]
    pub source: SourceRequest,
    /// Names of packages or subpackages; without them and without `glob`, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Patterns over the paths of definitions, such as `py3-*.yaml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub glob: Vec<String>,
    /// How they are built.
    #[serde(default)]
    pub options: BuildOptionsView,
    /// Whose the build is; `default` when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Who or what asks for it, such as `alice` or `nightly`; nobody checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
}

/// Where the definitions of a build come from: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct SourceRequest {
    /// A git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSourceRequest>,
    /// The definitions themselves, by their paths, such as `zlib.yaml`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub definitions: BTreeMap<String, String>,
    /// Pipelines that come with the definitions, by their paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, String>,
    /// The files beside definitions, as digests of archives that were sent before, by the names of the packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// A git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct GitSourceRequest {
    /// Its address.
    pub url: String,
    /// A branch, a tag, a commit or a full reference; the default branch when it is missing.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// A pattern of the paths of definitions; `*.yaml` when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// The name of a credential that the server's operator has configured for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// How a build is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildOptionsView {
    /// The architectures; the server's default when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// The name of the key that signs, which the server must know; its own when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// Repositories behind those of every environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_repos: Vec<String>,
    /// Keys besides those of every environment, as paths or addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_keys: Vec<String>,
    /// Which definitions are built besides those that are asked for: `none`, `missing` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_dependencies: Option<String>,
    /// What becomes of packages whose version is published: `missing`, they are skipped, or `all`, they are built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<String>,
    /// How needs are chosen that are cut: `fewest` or `short`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Whether the definitions' tests run too.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub with_test: bool,
    /// How urgent the jobs are, from 0 to 1,000; 500 when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Whether what has not begun is left out once a job has failed.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub fail_fast: bool,
    /// Whether what was made already is made again.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub no_cache: bool,
    /// Labels that the backends must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether steps trace each command.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub debug: bool,
    /// The commit of the definitions' repository, for packages and SBOMs; that of a git source is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_commit: Option<String>,
    /// The address of the definitions' repository, such as `https://host/owner/name`; that of a git source is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_repo_url: Option<String>,
    /// The licence of the definitions themselves, an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// Reads the body of `POST /api/v2/builds` and `POST /api/v2/plans`. A git repository may also stand under `git_source`,
/// beside `source`.
///
/// # Errors
/// Every mistake: bad JSON with its line and column, unknown fields, wrong types, missing fields.
pub fn read_build(body: &[u8]) -> Result<CreateBuildRequest, Vec<ErrorDetail>> {
    let mut fields = Fields::read(body)?;
    let mut source = match fields.object("source") {
        Some(within) => {
            let read = read_source(within);
            fields.absorb("source", read)
        }
        None => SourceRequest::default(),
    };
    if let Some(within) = fields.object("git_source") {
        let read = read_git(within);
        source.git = source.git.or(Some(fields.absorb("git_source", read)));
    }
    let options = match fields.object("options") {
        Some(within) => {
            let read = read_options(within);
            fields.absorb("options", read)
        }
        None => BuildOptionsView::default(),
    };
    let request = CreateBuildRequest {
        source,
        packages: fields.list("packages"),
        glob: fields.one_or_many("glob"),
        options,
        project: fields.text("project"),
        trigger: fields.text("trigger"),
    };
    fields.finish(request)
}

fn read_source(mut fields: Fields) -> Result<SourceRequest, Vec<ErrorDetail>> {
    let git = fields.object("git").map(|within| {
        let read = read_git(within);
        fields.absorb("git", read)
    });
    let source = SourceRequest {
        git,
        definitions: fields.texts("definitions"),
        pipelines: fields.texts("pipelines"),
        sources: fields.texts("sources"),
    };
    fields.finish(source)
}

fn read_git(mut fields: Fields) -> Result<GitSourceRequest, Vec<ErrorDetail>> {
    let git = GitSourceRequest {
        url: fields.required("url"),
        reference: fields.text("ref"),
        glob: fields.text("glob"),
        credential: fields.text("credential"),
    };
    fields.finish(git)
}

fn read_options(mut fields: Fields) -> Result<BuildOptionsView, Vec<ErrorDetail>> {
    let options = BuildOptionsView {
        architectures: fields.list("architectures"),
        signing_key: fields.text("signing_key"),
        extra_repos: fields.list("extra_repos"),
        extra_keys: fields.list("extra_keys"),
        with_dependencies: fields.text("with_dependencies"),
        rebuild: fields.text("rebuild"),
        cut: fields.text("cut"),
        with_test: fields.flag("with_test"),
        priority: fields.number("priority"),
        fail_fast: fields.flag("fail_fast"),
        no_cache: fields.flag("no_cache"),
        backend_selector: fields.texts("backend_selector"),
        debug: fields.flag("debug"),
        git_commit: fields.text("git_commit"),
        git_repo_url: fields.text("git_repo_url"),
        license: fields.text("license"),
    };
    fields.finish(options)
}

/// The answer to `POST /api/v2/builds`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct CreateBuildResponse {
    /// The build's name; missing when there is nothing to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The packages in the order of the plan, the skipped ones last; at most 1,000.
    pub packages: Vec<BuildPackageView>,
    /// How many there are.
    pub total: usize,
    /// Whether the build is new; not so when it was handed in before with the same key.
    pub created: bool,
    /// Jobs that no backend of the farm could run now: they wait for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_backend: Vec<NoBackendView>,
}

impl CreateBuildResponse {
    /// An answer.
    pub fn new(
        build_id: Option<String>,
        packages: Vec<BuildPackageView>,
        total: usize,
        created: bool,
    ) -> Self {
        Self { build_id, packages, total, created, no_backend: Vec::new() }
    }
}

/// A package of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildPackageView {
    /// The name of the main package.
    pub name: String,
    /// The architecture.
    pub arch: String,
    /// `blocked`, `pending`, `running`, `success`, `failed`, `cancelled` or `skipped`.
    pub status: String,
    /// The job; missing for what was left out when the build was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The packages of the build that it waits for and that have not succeeded, the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// Its version with the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it failed, was skipped, or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who is at fault: `build`, `resources`, `infrastructure`, `unschedulable`, `policy` or `dependency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// Whether it was made already, and nothing ran.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub cached: bool,
    /// The job that made it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<String>,
    /// How many jobs the longest chain has that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// How many jobs of the build wait for it, directly and over others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependents: Option<usize>,
    /// What it was expected to take when it was planned, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// What its last attempt took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The number of the present or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The address of the backend of that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// When that attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
}

impl BuildPackageView {
    /// What was left out when the build was planned.
    pub fn skipped(name: impl Into<String>, arch: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            arch: arch.into(),
            status: JobState::Skipped.to_string(),
            reason: Some(reason.into()),
            ..Self::default()
        }
    }

    /// What a job tells.
    pub fn of_job(job: &Job) -> Self {
        let error = job.error.as_ref();
        let waiting = job.waiting.as_ref().map(|waiting| waiting.reason.clone());
        let times = job.started_at.zip(job.finished_at);
        let took = times.map(|(began, ended)| ended.duration_since(began).as_millis());
        let attempted = job.attempt > 0;
        Self {
            name: job.title().to_owned(),
            arch: job.facts.arch.apk_name().to_owned(),
            status: job.state.to_string(),
            job_id: Some(job.id.to_string()),
            version: job.facts.package.as_ref().map(|package| package.version.clone()),
            reason: error.map(|error| error.message.clone()).or(waiting).or_else(|| job.note.clone()),
            error_class: error.map(|error| error.class.name().to_owned()),
            cached: job.state == JobState::Success && job.reused.is_some(),
            cached_from: job.reused.map(|id| id.to_string()),
            took_ms: took
                .and_then(|took| u64::try_from(took).ok())
                .filter(|_| job.state.is_terminal() && attempted),
            attempt: Some(job.attempt).filter(|_| attempted),
            backend: job.backend.as_ref().map(|backend| backend.addr.clone()),
            started_at: job.started_at,
            finished_at: job.finished_at,
            ..Self::default()
        }
    }

    /// The same with what the plan says of it.
    #[cfg(feature = "apk")]
    #[must_use]
    pub fn with_plan(mut self, planned: &crate::planner::PlannedJob) -> Self {
        self.name.clone_from(&planned.name);
        self.version = Some(planned.version.clone());
        (self.level, self.dependents) = (Some(planned.level), Some(planned.dependents));
        self.expected_ms = u64::try_from(planned.expected.as_millis()).ok();
        self
    }
}

/// A page of packages of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildPackagesResponse {
    /// The packages, in the order of the plan.
    pub packages: Vec<BuildPackageView>,
    /// The cursor of the next page; missing on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl BuildPackagesResponse {
    /// A page.
    pub fn new(packages: Vec<BuildPackageView>, next: Option<String>) -> Self {
        Self { packages, next }
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildView {
    /// Its name.
    pub build_id: String,
    /// `pending`, `running`, `success`, `failed`, `partial` or `cancelled`.
    pub status: String,
    /// Whose it is.
    pub project: String,
    /// What was asked for in a few words.
    pub title: String,
    /// Where its definitions come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<BuildGitView>,
    /// When it was handed in, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When the last of its jobs came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
    /// Its jobs by state.
    pub counts: BuildCountsView,
    /// Its plan in a few words.
    pub plan: BuildPlanSummary,
    /// Whether what has not begun is left out once a job has failed.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub fail_fast: bool,
    /// Who or what asked for it, as the client says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trigger: String,
    /// When it is expected to end, from what its packages took before; only the answer for one build tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expected_at: Option<Timestamp>,
}

/// The git repository of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildGitView {
    /// Its address.
    pub url: String,
    /// What was asked for.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit that it was then.
    pub commit: String,
}

/// How many jobs of a build are in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildCountsView {
    /// All of them.
    pub total: u32,
    /// They wait for other jobs.
    pub blocked: u32,
    /// They wait for a backend.
    pub pending: u32,
    /// They run.
    pub running: u32,
    /// They succeeded.
    pub success: u32,
    /// Those of them that were made already.
    pub cached: u32,
    /// They failed.
    pub failed: u32,
    /// They were cancelled.
    pub cancelled: u32,
    /// A job that they waited for did not succeed.
    pub skipped: u32,
}

/// The plan of a build in a few words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildPlanSummary {
    /// The architectures.
    pub architectures: Vec<String>,
    /// How many jobs the longest chain has.
    pub levels: u32,
    /// Needs that published packages serve, so that there is no circle.
    pub cuts: u32,
    /// Definitions that are not built.
    pub skipped: u32,
    /// The seconds that the chain was expected to take that takes longest.
    pub critical_path_s: u64,
}

impl From<&Build> for BuildView {
    fn from(build: &Build) -> Self {
        let (facts, count) = (&build.facts, |state| build.counts.get(state));
        Self {
            build_id: build.id.to_string(),
            status: build.state().to_string(),
            project: build.project.to_string(),
            title: facts.title.clone(),
            git: match &facts.source {
                BuildSource::Git { url, reference, commit } => Some(BuildGitView {
                    url: url.clone(),
                    reference: reference.clone(),
                    commit: commit.clone(),
                }),
                BuildSource::Unknown | BuildSource::Inline { .. } => None,
            },
            created_at: build.created_at,
            finished_at: build.finished_at,
            counts: BuildCountsView {
                total: build.counts.total(),
                blocked: count(JobState::Blocked),
                pending: count(JobState::Pending),
                running: count(JobState::Running),
                success: count(JobState::Success),
                cached: build.reused,
                failed: count(JobState::Failed),
                cancelled: count(JobState::Cancelled),
                skipped: count(JobState::Skipped),
            },
            plan: BuildPlanSummary {
                architectures: facts.architectures.iter().map(|arch| arch.apk_name().to_owned()).collect(),
                levels: facts.levels,
                cuts: facts.cuts,
                skipped: facts.skipped,
                critical_path_s: facts.critical_path_ms / 1_000,
            },
            fail_fast: facts.fail_fast,
            trigger: facts.trigger.clone(),
            expected_at: None,
        }
    }
}

/// A page of builds, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildsResponse {
    /// The builds.
    pub builds: Vec<BuildView>,
    /// The cursor of the next page; missing on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl BuildsResponse {
    /// A page.
    pub fn new(builds: Vec<BuildView>, next: Option<String>) -> Self {
        Self { builds, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of the owner's document.
    const REQUEST: &str = r#"{
  "source": {
    "git": {
      "url": "https://github.com/wolfi-dev/os",
      "ref": "main"
    }
  },
  "packages": ["hello-wolfi", "zstd", "brotli"],
  "options": {
    "architectures": ["x86_64", "aarch64"],
    "signing_key": "...",
    "extra_repos": ["https://my-repo.example.com"]
  }
}"#;

    #[test]
    fn a_request_reads_back_and_both_places_of_git_are_one() {
        let request = read_build(REQUEST.as_bytes()).unwrap();
        assert_eq!(request.packages, ["hello-wolfi", "zstd", "brotli"]);
        assert_eq!(request.options.architectures, ["x86_64", "aarch64"]);
        assert_eq!(read_build(&serde_json::to_vec(&request).unwrap()).unwrap(), request);
        let other =
            r#"{"git_source":{"url":"https://a.example/os","ref":"main","glob":"*.yaml"},"glob":"a*.yaml"}"#;
        let request = read_build(other.as_bytes()).unwrap();
        let git = request.source.git.unwrap();
        assert_eq!((git.url.as_str(), git.glob.as_deref()), ("https://a.example/os", Some("*.yaml")));
        assert_eq!(request.glob, ["a*.yaml"]);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let body =
            r#"{"source":{"git":{"ref":1},"definition":{}},"options":{"archs":[],"debug":1},"package":[]}"#;
        let fields: Vec<Option<String>> =
            read_build(body.as_bytes()).unwrap_err().into_iter().map(|mistake| mistake.field).collect();
        let told = [
            "source.git.url",
            "source.git.ref",
            "source.definition",
            "options.debug",
            "options.archs",
            "package",
        ];
        assert_eq!(fields, told.map(|field| Some(field.to_owned())));
    }
}
