//! The builds of melange2's clients: their paths and bodies, as a thin translation to the builds of [`v2`].
//!
//! A request becomes a [`CreateBuildRequest`] and the files beside its definitions ([`Melange2CreateRequest::into_build`]);
//! a build and its jobs become what such a client reads. What differs from melange2's own server:
//!
//! - Ids are those of this farm, `build-…`.
//! - The packages of a request are always built in the order of their needs, and see what was built before them, whatever
//!   `mode` says: who asked for `flat` gets the same packages or newer ones. Needs that go in a circle are cut, not refused.
//! - Every package of a request is built, also one whose version is published: that is what such a client asks for.
//! - `env` is refused: values of the environment belong into definitions, where what they change can be seen.
//! - Words for states are melange2's. Of a package, `cancelled` is told as `failed`; `blocked` and `skipped` it knows. Of a
//!   build, `cancelled` is told as `failed` too, since its client waits on for a word that it does not know.
//! - A build is told without the texts of its definitions; those of a package are in the answer for that package. Its
//!   `metrics` are left out.
//!
//! [`v2`]: super::v2

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::v1::read::Fields;
use super::v1::{ErrorDetail, JobView};
use super::v2::{CreateBuildRequest, GitSourceRequest};
use crate::error::Error;
use crate::job::{Build, BuildId, BuildSource, BuildState, JobState};
use crate::limits;
use crate::melange;
use crate::text::diagnostics::{Source, nearest};

/// `POST`: build packages; `GET`: list builds.
pub const BUILDS: &str = "/api/v1/builds";

/// `GET`: the builds that have not ended.
pub const ACTIVE: &str = "/api/v1/builds/active";

/// `GET`: one build.
pub fn build(id: BuildId) -> String {
    format!("{BUILDS}/{id}")
}

/// `GET`: one package of a build.
pub fn package(id: BuildId, name: &str) -> String {
    format!("{BUILDS}/{id}/packages/{name}")
}

/// Texts by their paths below the folder of a package, by the name of the package.
pub type SourceFiles = BTreeMap<String, BTreeMap<String, String>>;

/// The body of `POST /api/v1/builds`: one of `config_yaml`, `configs` and `git_source`, and how they are built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2CreateRequest {
    /// A definition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_yaml: String,
    /// Definitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<String>,
    /// A git repository with definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_source: Option<Melange2GitSource>,
    /// Pipelines by their paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, String>,
    /// The architecture; the server's default when it is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// Labels that the backends must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether the definitions' tests run too.
    #[serde(default)]
    pub with_test: bool,
    /// Whether steps trace each command.
    #[serde(default)]
    pub debug: bool,
    /// The files beside definitions, as texts by their paths, by the names of packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_files: SourceFiles,
    /// `flat` or `dag`; packages are built in the order of their needs in both.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Refused unless it is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// A git repository with definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2GitSource {
    /// Its address.
    pub repository: String,
    /// A branch, a tag or a commit; the default branch when it is missing.
    #[serde(default, rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// A pattern of definitions within the folder; `*.yaml` when it is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pattern: String,
    /// The folder that they lie in; that of the repository when it is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// The answer to `POST /api/v1/builds`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2CreateResponse {
    /// The build's name.
    pub id: String,
    /// The names of its packages in the order in which they are built; behind them those that are left out.
    pub packages: Vec<String>,
}

impl Melange2CreateResponse {
    /// An answer.
    pub fn new(id: BuildId, packages: Vec<String>) -> Self {
        Self { id: id.to_string(), packages }
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2Build {
    /// Its name.
    pub id: String,
    /// `pending`, `running`, `success`, `failed` or `partial`; `failed` also for one that was cancelled.
    pub status: String,
    /// Its packages, in the order of the plan.
    pub packages: Vec<Melange2Package>,
    /// What was asked for.
    pub spec: Melange2BuildSpec,
    /// When it was handed in, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When the first of its jobs began that are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When the last of its jobs came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
}

/// What was asked for in a build, without the texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2BuildSpec {
    /// The git repository that the definitions come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_source: Option<Melange2GitSource>,
    /// The architecture; several, which other clients may ask for, have commas between them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// Labels that the backends must have; lists leave this out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether the definitions' tests run too; lists leave this out.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub with_test: bool,
    /// Whether steps trace each command; lists leave this out.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub debug: bool,
    /// `dag`, whatever was asked for.
    pub mode: String,
}

/// A package of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2Package {
    /// Its name.
    pub name: String,
    /// `pending`, `blocked`, `running`, `success`, `failed` or `skipped`; `failed` also for one that was cancelled.
    pub status: String,
    /// Its definition; empty in the answers for builds.
    pub config_yaml: String,
    /// The packages of the build that it waits for; lists leave them out.
    pub dependencies: Vec<String>,
    /// When the present or last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Where its log lies, once it has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_path: String,
    /// Where its artifacts lie, once it has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output_path: String,
    /// Where it runs or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Melange2Backend>,
    /// The pipelines that came with its definition and that it uses; only in the answer for a package.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, String>,
}

/// A backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Melange2Backend {
    /// Its address.
    pub addr: String,
    /// Its architecture.
    pub arch: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Reads the body of `POST /api/v1/builds`.
///
/// # Errors
/// Every mistake: bad JSON with its line and column, unknown fields, wrong types, missing fields.
pub fn read_create(body: &[u8]) -> Result<Melange2CreateRequest, Vec<ErrorDetail>> {
    let mut fields = Fields::read(body)?;
    let git_source = fields.object("git_source").map(|within| {
        let read = read_git(within);
        fields.absorb("git_source", read)
    });
    let request = Melange2CreateRequest {
        config_yaml: fields.text("config_yaml").unwrap_or_default(),
        configs: fields.list("configs"),
        git_source,
        pipelines: fields.texts("pipelines"),
        arch: fields.text("arch").unwrap_or_default(),
        backend_selector: fields.texts("backend_selector"),
        with_test: fields.flag("with_test"),
        debug: fields.flag("debug"),
        source_files: fields.texts_within("source_files"),
        mode: fields.text("mode").unwrap_or_default(),
        env: fields.texts("env"),
    };
    fields.finish(request)
}

fn read_git(mut fields: Fields) -> Result<Melange2GitSource, Vec<ErrorDetail>> {
    let git = Melange2GitSource {
        repository: fields.required("repository"),
        reference: fields.text("ref").unwrap_or_default(),
        pattern: fields.text("pattern").unwrap_or_default(),
        path: fields.text("path").unwrap_or_default(),
    };
    fields.finish(git)
}

impl Melange2CreateRequest {
    /// The request as this farm has it, and the files beside its definitions. A definition gets the name of its package as
    /// the name of its file; it is read for that, so that many of them take a while.
    ///
    /// # Errors
    /// Every mistake but those of definitions, which are found when they are compiled.
    pub fn into_build(self) -> Result<(CreateBuildRequest, SourceFiles), Vec<ErrorDetail>> {
        let mut mistakes = Vec::new();
        let mut wrong = |field: &str, message: String, hint: &str| {
            mistakes.push(ErrorDetail::field(field, &Error::invalid(message).hint(hint.to_owned())));
        };
        let Self { config_yaml, mut configs, git_source, source_files, .. } = self;
        let kinds = [!config_yaml.is_empty(), !configs.is_empty(), git_source.is_some()];
        if kinds.into_iter().filter(|is_given| *is_given).count() != 1 {
            let message = "the request has none or several of `config_yaml`, `configs` and `git_source`";
            wrong("config_yaml", message.to_owned(), "give one of them");
        }
        if !matches!(self.mode.as_str(), "" | "flat" | "dag") {
            let message = format!("`mode` is {:?}, not `flat` or `dag`", self.mode);
            wrong("mode", message, "packages are built in the order of their needs in both");
        }
        if !self.env.is_empty() {
            let message = "variables of the environment do not come with a request".to_owned();
            wrong("env", message, "put them under `environment: environment:` of the definitions");
        }
        if git_source.is_some() && !source_files.is_empty() {
            let message = "files come from the git repository or with the request, not both".to_owned();
            wrong("source_files", message, "put them beside the definitions in the repository");
        }
        let mut request = CreateBuildRequest::default();
        if let Some(git) = git_source {
            match git.glob() {
                Ok(glob) => {
                    let Melange2GitSource { repository: url, reference, .. } = git;
                    let reference = Some(reference).filter(|reference| !reference.is_empty());
                    request.source.git = Some(GitSourceRequest { url, reference, glob, credential: None });
                }
                Err(error) => mistakes.push(ErrorDetail::field("git_source.path", &error)),
            }
        } else {
            if !config_yaml.is_empty() {
                configs.insert(0, config_yaml);
            }
            if configs.len() > limits::PLAN_DEFINITIONS_MAX {
                let most = limits::PLAN_DEFINITIONS_MAX;
                let message = format!("there are {} definitions, at most {most}", configs.len());
                wrong("configs", message, "make several builds of it");
                return Err(mistakes);
            }
            let named = name_definitions(configs, &mut mistakes);
            if !named.has_unknown {
                unknown_packages(&source_files, &named.names, &mut mistakes);
            }
            request.source.definitions = named.definitions;
        }
        request.source.pipelines = self.pipelines;
        let options = &mut request.options;
        options.architectures = Some(self.arch).filter(|arch| !arch.is_empty()).into_iter().collect();
        options.backend_selector = self.backend_selector;
        (options.with_test, options.debug) = (self.with_test, self.debug);
        options.rebuild = Some("all".to_owned());
        if mistakes.is_empty() { Ok((request, source_files)) } else { Err(mistakes) }
    }
}

/// Definitions with their names.
#[derive(Default)]
struct Named {
    /// By the path that each gets.
    definitions: BTreeMap<String, String>,
    names: BTreeSet<String>,
    /// Whether one of them does not tell its name.
    has_unknown: bool,
}

fn name_definitions(configs: Vec<String>, mistakes: &mut Vec<ErrorDetail>) -> Named {
    let mut named = Named::default();
    for (number, text) in configs.into_iter().enumerate() {
        let fallback = format!("config-{number}.yaml");
        // One that is too large is refused for that, and not read before.
        let is_small = text.len() <= limits::DEFINITION_BYTES_MAX;
        let name =
            is_small.then(|| melange::package_name(&Source::new(fallback.as_str(), text.as_str()))).flatten();
        // What cannot be the name of a file is told as a mistake of the definition when that is compiled.
        let file = match name.filter(|name| is_plain(name)) {
            Some(name) => {
                let file = format!("{name}.yaml");
                named.names.insert(name);
                file
            }
            None => {
                named.has_unknown = true;
                fallback
            }
        };
        if named.definitions.contains_key(&file) {
            let error = Error::invalid(format!("a definition before it has the name of {file} too"));
            let error = error.hint("give each package once");
            mistakes.push(ErrorDetail::field(format!("configs.{number}"), &error));
        }
        named.definitions.insert(file, text);
    }
    named
}

/// Whether a name of a package is one of a file that is not hidden.
fn is_plain(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    !name.starts_with('.') && name.len() <= 200 && name.chars().all(is_fine)
}

/// Tells of files that no definition of the request lies beside.
fn unknown_packages(files: &SourceFiles, names: &BTreeSet<String>, mistakes: &mut Vec<ErrorDetail>) {
    for package in files.keys().filter(|package| !names.contains(*package)) {
        let error = Error::invalid(format!("the request has no definition of a package {package:?}"));
        let error = match nearest(package, names.iter().map(String::as_str)) {
            Some(name) => error.hint(format!("did you mean `{name}`?")),
            None => error.hint("the files beside a definition go by the name of its package"),
        };
        mistakes.push(ErrorDetail::field(format!("source_files.{package}"), &error));
    }
}

impl Melange2GitSource {
    /// The pattern of the paths in the repository.
    fn glob(&self) -> Result<Option<String>, Error> {
        let path = self.path.trim_end_matches('/').trim_start_matches("./");
        if path.is_empty() || path == "." {
            return Ok(Some(self.pattern.clone()).filter(|pattern| !pattern.is_empty()));
        }
        let is_folder = !path.contains(['*', '?', '[', ']', '{', '}', '\\'])
            && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if !is_folder {
            let error =
                Error::invalid(format!("{:?} is not the path of a folder in a repository", self.path));
            return Err(error.hint("a path is relative, such as `packages`; patterns go into `pattern`"));
        }
        let pattern = if self.pattern.is_empty() { "*.yaml" } else { &self.pattern };
        Ok(Some(format!("{path}/{pattern}")))
    }
}

/// Where a field of a [`CreateBuildRequest`] stands in a melange2 client's request.
pub fn field_of(field: &str) -> String {
    if field.starts_with("options.architectures") {
        return "arch".to_owned();
    }
    if field.starts_with("source.definitions.") || field == "source" {
        return "configs".to_owned();
    }
    if field == "source.git.url" {
        return "git_source.repository".to_owned();
    }
    let inner = field.strip_prefix("options.").or_else(|| field.strip_prefix("source."));
    inner.unwrap_or(field).to_owned()
}

impl Melange2Build {
    /// A build with so many of its packages.
    pub fn new(build: &Build, packages: Vec<Melange2Package>) -> Self {
        let facts = &build.facts;
        let status = match build.state() {
            BuildState::Cancelled => BuildState::Failed,
            state => state,
        };
        let git_source = match &facts.source {
            BuildSource::Git { url, reference, .. } => Some(Melange2GitSource {
                repository: url.clone(),
                reference: reference.clone(),
                ..Melange2GitSource::default()
            }),
            BuildSource::Unknown | BuildSource::Inline { .. } => None,
        };
        let archs: Vec<&str> = facts.architectures.iter().map(|arch| arch.apk_name()).collect();
        Self {
            id: build.id.to_string(),
            status: status.to_string(),
            spec: Melange2BuildSpec {
                git_source,
                arch: archs.join(","),
                mode: "dag".to_owned(),
                ..Melange2BuildSpec::default()
            },
            created_at: build.created_at,
            started_at: packages.iter().filter_map(|package| package.started_at).min(),
            finished_at: build.finished_at,
            packages,
        }
    }
}

impl Melange2Package {
    /// What was left out when the build was planned.
    pub fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let status = JobState::Skipped.to_string();
        Self { name: name.into(), status, error: reason.into(), ..Self::default() }
    }
}

impl From<JobView> for Melange2Package {
    fn from(job: JobView) -> Self {
        let is_cancelled = job.status == JobState::Cancelled.name();
        let status = if is_cancelled { JobState::Failed.to_string() } else { job.status };
        let error = job.error.or_else(|| is_cancelled.then(|| "it was cancelled".to_owned()));
        let backend = job.backend.map(|backend| Melange2Backend {
            addr: backend.addr,
            arch: backend.arch,
            labels: backend.labels,
        });
        Self {
            name: job.package.unwrap_or(job.spec.config_name),
            status,
            config_yaml: job.spec.config_yaml,
            dependencies: Vec::new(),
            started_at: job.started_at,
            finished_at: job.finished_at,
            error: error.unwrap_or_default(),
            log_path: job.log_path.unwrap_or_default(),
            output_path: job.output_path.unwrap_or_default(),
            backend,
            pipelines: job.spec.pipelines,
        }
    }
}

#[cfg(test)]
mod tests;
