//! Station 2: what a submission must pass before it becomes a job.

use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use melange_remote_sdk::api::v1::{self, ErrorDetail, SubmitRequest};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend_selector::{BackendSelector, Candidate, Requirements};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::{JobSpec, spec::JobPackage};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::redact::redact;
use melange_remote_sdk::rootfs::line::RepositoryLine;
use melange_remote_sdk::text::diagnostics::Source;

use crate::problem::Problem;

/// What the server's owner decides about submissions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubmissionRules {
    /// The architecture of jobs that name none.
    pub default_arch: Arch,
    /// What definitions get that name no repository; their paths are the owner's own and always allowed.
    pub repositories: RepositoryDefaults,
    /// Folders whose repositories and keys definitions may name by path, canonical.
    pub allow_local_repositories: Vec<PathBuf>,
    /// Names by which browsers reach the server, besides addresses and `localhost`.
    pub public_hosts: Vec<String>,
    /// What becomes of jobs that no known backend could run.
    pub unmatched: Unmatched,
    /// The name of the key that signs packages; `None` when none does.
    pub signing_key: Option<String>,
    /// How many submissions are taken each second; `None` without a bound.
    pub submit_rate: Option<NonZeroU32>,
}

/// What becomes of jobs that no known backend could run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// They are refused.
    #[default]
    Refused,
    /// They are taken: another server that shares the database may come with a backend of theirs.
    Taken,
}

impl SubmissionRules {
    /// Definitions get the default repositories and name no paths; browsers reach the server by its address.
    pub fn new(default_arch: Arch) -> Self {
        Self {
            default_arch,
            repositories: RepositoryDefaults::default(),
            allow_local_repositories: Vec::new(),
            public_hosts: Vec::new(),
            unmatched: Unmatched::Refused,
            signing_key: None,
            submit_rate: NonZeroU32::new(limits::SUBMIT_RATE),
        }
    }

    /// Why a repository or key of a definition may not be used; `None` when it may.
    pub(crate) fn refuse_place(&self, place: &str, config_name: &str) -> Option<ErrorDetail> {
        refuse_place(place, config_name, self)
    }
}

/// Checks a request: its fields, its definition and its pipelines.
///
/// # Errors
/// A problem with every mistake of the first check that finds any.
pub fn check(request: SubmitRequest, rules: &SubmissionRules) -> Result<JobSpec, Problem> {
    check_until(request, rules, Arc::default())
}

/// As [`check`], until `cancel` is true.
fn check_until(
    request: SubmitRequest,
    rules: &SubmissionRules,
    cancel: Arc<AtomicBool>,
) -> Result<JobSpec, Problem> {
    let spec = JobSpec::validate(request.into_parts(rules.default_arch)).map_err(|mistakes| {
        let detail = |mistake: &melange_remote_sdk::job::spec::SpecMistake| {
            ErrorDetail::field(mistake.field, &mistake.error)
        };
        Problem::mistakes(mistakes.iter().map(detail).collect())
    })?;
    let pipelines = spec.pipelines().iter().map(|(path, text)| (path.to_string(), text.clone())).collect();
    let pipelines = PipelineSet::new(&pipelines)?;
    let mut options = CompileOptions::default();
    (options.defaults, options.cancel) = (Some(rules.repositories.clone()), cancel);
    let source = Source::new(spec.config_name(), spec.config_yaml());
    let compiled = melange::compile(&source, spec.arch(), &pipelines, &options).map_err(|diagnostics| {
        let details = v1::diagnostic_details(&diagnostics);
        Problem::new(diagnostics.into_error(), details)
    })?;
    let Compiled::Plan(plan) = compiled else { return Ok(spec) };
    let places = plan.environment.repositories.iter().chain(&plan.environment.keyring);
    let details: Vec<ErrorDetail> =
        places.filter_map(|place| refuse_place(place, spec.config_name(), rules)).collect();
    if !details.is_empty() {
        return Err(Problem::mistakes(details));
    }
    let package = JobPackage::of(&plan, spec.with_test());
    Ok(spec.with_package(package))
}

/// Why a repository or key may not be used; `None` when it may.
fn refuse_place(place: &str, config_name: &str, rules: &SubmissionRules) -> Option<ErrorDetail> {
    let defaults = &rules.repositories;
    if defaults.repositories.iter().chain(&defaults.keyring).any(|known| known == place) {
        return None;
    }
    let line = RepositoryLine::parse(place).ok();
    if line.is_some_and(|line| line.is_http()) {
        return None;
    }
    let path = line.and_then(|line| line.path()).map(Path::new);
    if path.is_some_and(|path| rules.allow_local_repositories.iter().any(|folder| is_below(path, folder))) {
        return None;
    }
    Some(ErrorDetail {
        message: format!("the definition names {:?}, which is no http(s) address", redact(place)),
        field: Some("config_yaml".to_owned()),
        file: Some(config_name.to_owned()),
        hint: Some("paths of the server may be named only where its owner allows it".to_owned()),
        ..ErrorDetail::default()
    })
}

/// Whether `path` lies in `folder`, following links where it exists.
fn is_below(path: &Path, folder: &Path) -> bool {
    let plain = path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    plain && real.starts_with(folder)
}

/// Refuses a job that no backend could run even if all were free and worked: trouble passes, and a job waits for that.
///
/// # Errors
/// `Unsupported` with the selector's reason.
pub fn check_backends(
    spec: &JobSpec,
    selector: &dyn BackendSelector,
    candidates: Vec<Candidate>,
) -> Result<(), Error> {
    let idle: Vec<Candidate> = candidates.into_iter().map(Candidate::idle).collect();
    match selector.select(&Requirements::of_facts(spec.facts()), &idle) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let error = Error::new(ErrorKind::Unsupported, format!("no backend can run this job: {refusal}"));
            Err(error.hint("list the backends to see their architectures, labels and sizes"))
        }
    }
}

/// Ends a check whose request went away.
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The checks of [`check`] on a thread that may be busy for a while, but not for a request that nobody waits for.
///
/// # Errors
/// As [`check`].
pub async fn check_aside(request: SubmitRequest, rules: Arc<SubmissionRules>) -> Result<JobSpec, Problem> {
    let cancel = CancelOnDrop(Arc::default());
    let flag = Arc::clone(&cancel.0);
    let checked = tokio::task::spawn_blocking(move || check_until(request, &rules, flag)).await;
    checked.unwrap_or_else(|error| {
        Err(Error::unexpected("the definition could not be checked").source(error).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_places_need_the_owners_leave() {
        let folder = tempfile::tempdir().unwrap();
        let allowed = std::fs::canonicalize(folder.path()).unwrap();
        std::os::unix::fs::symlink("/etc", allowed.join("link")).unwrap();
        let mut rules = SubmissionRules::new(Arch::X86_64);
        rules.repositories = RepositoryDefaults::new(vec!["/own".to_owned()], Vec::new());
        rules.allow_local_repositories = vec![allowed.clone()];
        let below = allowed.join("repo").display().to_string();
        let fine =
            ["https://a.example/r", "@local http://a.example", "/own", &below, &format!("file://{below}")];
        for place in fine.into_iter().chain([format!("@t {below}").as_str()]) {
            assert_eq!(refuse_place(place, "a.yaml", &rules), None, "{place}");
        }
        let (above, link) = (format!("{below}/../../x"), allowed.join("link").display().to_string());
        for place in ["/etc", "repo", "@t /etc", "file:///etc", "ftp://a/b", &above, &link, "@t"] {
            assert!(refuse_place(place, "a.yaml", &rules).is_some(), "{place}");
        }
    }
}
