//! Station 2: a submission that passed validation. What is here may be stored and built.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DefinitionOrigin, JobResources, SourceDigest};
use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::labels::{LabelSelector, Labels};
use crate::limits;
use crate::melange::pipelines::PipelinePath;
use crate::melange::plan::Plan;

/// What the definition of a job is called in diagnostics.
pub const CONFIG_NAME: &str = "config.yaml";

/// A submission as it was written, before any check; also the stored form of [`JobSpec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UncheckedSpec {
    /// The definition.
    pub config_yaml: String,
    /// The name of the definition's file, such as `hello.yaml`; [`CONFIG_NAME`] when it is empty.
    #[serde(default)]
    pub config_name: String,
    /// Packages added to the environment of every test.
    #[serde(default)]
    pub test_packages: Vec<String>,
    /// The package that the definition builds, once it was compiled.
    #[serde(default)]
    pub package: Option<JobPackage>,
    /// Inline pipelines by path.
    #[serde(default)]
    pub pipelines: BTreeMap<String, String>,
    /// The architecture's name.
    pub arch: String,
    /// Asked labels.
    #[serde(default)]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether the definition's tests run too.
    #[serde(default)]
    pub with_test: bool,
    /// Whether steps trace each command.
    #[serde(default)]
    pub debug: bool,
    /// The digest of the files beside the definition, as [`SourceDigest`] is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where the definition comes from.
    #[serde(default, skip_serializing_if = "DefinitionOrigin::is_empty")]
    pub origin: DefinitionOrigin,
}

impl UncheckedSpec {
    /// A definition to be built for the architecture with a name, with nothing else said.
    pub fn new(config_yaml: impl Into<String>, arch: impl Into<String>) -> Self {
        Self { config_yaml: config_yaml.into(), arch: arch.into(), ..Self::default() }
    }
}

/// The package that a job builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobPackage {
    /// Its name.
    pub name: String,
    /// Its version with the epoch, such as `2.10-r0`.
    pub version: String,
    /// The subpackages that come with it, in order.
    #[serde(default)]
    pub subpackages: Vec<String>,
    /// What its definition asks of a backend.
    #[serde(default, skip_serializing_if = "JobResources::is_none")]
    pub resources: JobResources,
}

impl JobPackage {
    /// A package without subpackages.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        let (subpackages, resources) = (Vec::new(), JobResources::default());
        Self { name: name.into(), version: version.into(), subpackages, resources }
    }

    /// The package that a plan makes; what its tests ask for counts when they run too.
    pub fn of(plan: &Plan, with_test: bool) -> Self {
        let asked = &plan.document.package;
        let mut package = Self::new(plan.package.name.clone(), plan.package.full_version());
        package.subpackages = plan.subpackages.iter().map(|package| package.name.clone()).collect();
        package.resources = JobResources::of(&asked.resources);
        if with_test {
            package.resources = package.resources.at_least(JobResources::of(&asked.test_resources));
        }
        package
    }
}

/// What the farm knows of a job without its texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// The package that the definition builds, when it was compiled.
    pub package: Option<JobPackage>,
    /// The name of the definition's file, without folders.
    pub config_name: String,
    /// The architecture to build for.
    pub arch: Arch,
    /// The labels that the backend must have.
    pub backend_selector: LabelSelector,
    /// Whether the definition's tests run too.
    pub with_test: bool,
    /// Whether steps trace each command.
    pub debug: bool,
    /// The files beside the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceDigest>,
}

impl JobFacts {
    /// What the definition asks of a backend; nothing when it was not compiled.
    pub fn resources(&self) -> JobResources {
        self.package.as_ref().map(|package| package.resources).unwrap_or_default()
    }
}

/// One thing that is wrong with a submission.
#[derive(Debug)]
pub struct SpecMistake {
    /// The field, such as `pipelines` or `backend_selector`.
    pub field: &'static str,
    /// What is wrong with it.
    pub error: Error,
}

/// A submission that passed validation: bounded sizes, a known architecture, pipeline paths that cannot leave
/// their folder, well-formed labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedSpec", into = "UncheckedSpec")]
pub struct JobSpec {
    config_yaml: String,
    test_packages: Vec<String>,
    pipelines: BTreeMap<PipelinePath, String>,
    origin: DefinitionOrigin,
    facts: JobFacts,
}

impl JobSpec {
    /// Checks a submission.
    ///
    /// # Errors
    /// Every mistake, in the order of the fields; never an empty list.
    pub fn validate(parts: UncheckedSpec) -> Result<Self, Vec<SpecMistake>> {
        let mut mistakes = Vec::new();
        let mut wrong = |field, error| mistakes.push(SpecMistake { field, error });
        if parts.config_yaml.trim().is_empty() {
            let error = Error::invalid("config_yaml is missing or empty");
            wrong("config_yaml", error.hint("put the whole definition into config_yaml"));
        } else if parts.config_yaml.len() > limits::DEFINITION_BYTES_MAX {
            wrong("config_yaml", too_large("the definition", parts.config_yaml.len()));
        }
        let config_name = match parts.config_name.as_str() {
            "" => CONFIG_NAME.to_owned(),
            name => name.to_owned(),
        };
        if let Err(error) = check_file_name(&config_name) {
            wrong("config_name", error);
        }
        if let Err(error) = check_packages(&parts.test_packages) {
            wrong("test_packages", error);
        }
        if parts.pipelines.len() > limits::INLINE_PIPELINES_MAX {
            let count = parts.pipelines.len();
            let message = format!("{count} inline pipelines, more than {}", limits::INLINE_PIPELINES_MAX);
            wrong("pipelines", Error::invalid(message));
        }
        let mut pipelines = BTreeMap::new();
        for (path, text) in parts.pipelines {
            match PipelinePath::parse(&path) {
                Ok(_) if text.len() > limits::DEFINITION_BYTES_MAX => {
                    wrong("pipelines", too_large(&format!("the pipeline {path:?}"), text.len()));
                }
                Ok(path) => {
                    pipelines.insert(path, text);
                }
                Err(error) => wrong("pipelines", error),
            }
        }
        let arch = parts.arch.parse::<Arch>().map_err(|error| wrong("arch", error));
        let labels = Labels::new(parts.backend_selector).map_err(|error| wrong("backend_selector", error));
        let source =
            parts.source.as_deref().filter(|source| !source.is_empty()).map(str::parse::<SourceDigest>);
        let source = source.transpose().map_err(|error| wrong("source", error));
        let origin = parts.origin.stated().map_err(|found| mistakes.extend(found));
        match (arch, labels, source, origin) {
            (Ok(arch), Ok(labels), Ok(source), Ok(origin)) if mistakes.is_empty() => Ok(Self {
                config_yaml: parts.config_yaml,
                test_packages: parts.test_packages,
                pipelines,
                origin,
                facts: JobFacts {
                    package: parts.package,
                    config_name,
                    arch,
                    backend_selector: LabelSelector::new(labels),
                    with_test: parts.with_test,
                    debug: parts.debug,
                    source,
                },
            }),
            _ => Err(mistakes),
        }
    }

    /// What the farm knows of the job without its texts.
    pub fn facts(&self) -> &JobFacts {
        &self.facts
    }

    /// The definition as it was handed in.
    pub fn config_yaml(&self) -> &str {
        &self.config_yaml
    }

    /// The name of the definition's file, without folders.
    pub fn config_name(&self) -> &str {
        &self.facts.config_name
    }

    /// Packages added to the environment of every test.
    pub fn test_packages(&self) -> &[String] {
        &self.test_packages
    }

    /// The package that the definition builds, when it was compiled.
    pub fn package(&self) -> Option<&JobPackage> {
        self.facts.package.as_ref()
    }

    /// The same spec with the package that its definition builds.
    #[must_use]
    pub fn with_package(mut self, package: JobPackage) -> Self {
        self.facts.package = Some(package);
        self
    }

    /// Inline pipelines by path.
    pub fn pipelines(&self) -> &BTreeMap<PipelinePath, String> {
        &self.pipelines
    }

    /// The architecture to build for.
    pub fn arch(&self) -> Arch {
        self.facts.arch
    }

    /// The labels that the backend must have.
    pub fn backend_selector(&self) -> &LabelSelector {
        &self.facts.backend_selector
    }

    /// Whether the definition's tests run too.
    pub fn with_test(&self) -> bool {
        self.facts.with_test
    }

    /// Whether steps trace each command.
    pub fn debug(&self) -> bool {
        self.facts.debug
    }

    /// The files beside the definition.
    pub fn source(&self) -> Option<SourceDigest> {
        self.facts.source
    }

    /// Where the definition comes from, as its submitter states.
    pub fn origin(&self) -> &DefinitionOrigin {
        &self.origin
    }

    /// The memory that the texts take, in bytes.
    pub fn size_bytes(&self) -> usize {
        let pipelines = self.pipelines.iter().map(|(path, text)| path.as_str().len() + text.len());
        self.config_yaml.len() + pipelines.sum::<usize>()
    }
}

/// A name without folders: it is shown, and written into packages.
fn check_file_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_alphanumeric() || "._+-@~ ".contains(c);
    if name.len() > limits::FILE_NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::invalid(format!("{name:?} is not the name of a file"))
            .hint("give the name alone, such as hello.yaml"));
    }
    Ok(())
}

fn check_packages(packages: &[String]) -> Result<()> {
    if packages.len() > limits::TEST_PACKAGES_MAX {
        let message = format!("{} packages, more than {}", packages.len(), limits::TEST_PACKAGES_MAX);
        return Err(Error::invalid(message));
    }
    let wrong = |name: &&String| {
        name.is_empty()
            || name.len() > limits::FILE_NAME_BYTES_MAX
            || name.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    match packages.iter().find(wrong) {
        Some(name) => Err(Error::invalid(format!("{name:?} is not a package"))
            .hint("write a name, perhaps with a version, such as busybox or busybox=1.36.1-r0")),
        None => Ok(()),
    }
}

fn too_large(what: &str, len: usize) -> Error {
    Error::invalid(format!("{what} has {len} bytes, more than {}", limits::DEFINITION_BYTES_MAX))
}

impl TryFrom<UncheckedSpec> for JobSpec {
    type Error = Error;

    fn try_from(parts: UncheckedSpec) -> Result<Self> {
        Self::validate(parts).map_err(|mistakes| {
            let first = mistakes.into_iter().next().map(|mistake| mistake.error);
            first.unwrap_or_else(|| Error::invalid("this job is not valid"))
        })
    }
}

impl From<JobSpec> for UncheckedSpec {
    fn from(spec: JobSpec) -> Self {
        let facts = spec.facts;
        Self {
            config_yaml: spec.config_yaml,
            config_name: facts.config_name,
            test_packages: spec.test_packages,
            package: facts.package,
            pipelines: spec.pipelines.into_iter().map(|(path, text)| (path.to_string(), text)).collect(),
            arch: facts.arch.to_string(),
            backend_selector: facts.backend_selector.labels().as_map().clone(),
            with_test: facts.with_test,
            debug: facts.debug,
            source: facts.source.map(String::from),
            origin: spec.origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> UncheckedSpec {
        UncheckedSpec {
            config_yaml: "package: {}".to_owned(),
            arch: "amd64".to_owned(),
            ..UncheckedSpec::default()
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mistakes = JobSpec::validate(UncheckedSpec {
            config_yaml: " ".to_owned(),
            pipelines: BTreeMap::from([("../x.yaml".to_owned(), String::new())]),
            arch: "z80".to_owned(),
            backend_selector: BTreeMap::from([("a b".to_owned(), String::new())]),
            source: Some("sha256:1".to_owned()),
            ..UncheckedSpec::default()
        })
        .unwrap_err();
        let fields: Vec<&str> = mistakes.iter().map(|mistake| mistake.field).collect();
        assert_eq!(fields, ["config_yaml", "pipelines", "arch", "backend_selector", "source"]);
    }

    #[test]
    fn names_of_files_and_packages_are_plain() {
        let validate = |config_name: &str, package: &str| {
            let (config_name, test_packages) = (config_name.to_owned(), vec![package.to_owned()]);
            JobSpec::validate(UncheckedSpec { config_name, test_packages, ..parts() })
        };
        assert_eq!(validate("", "busybox").unwrap().config_name(), CONFIG_NAME);
        assert_eq!(validate("hello.yaml", "so:libc.so.6").unwrap().config_name(), "hello.yaml");
        for name in ["../x.yaml", "/etc/x", ".hidden", "a\nb", "a\u{1b}[2J", &"x".repeat(300)] {
            assert!(validate(name, "busybox").is_err(), "{name:?}");
        }
        for package in ["", "a b", "a\n", &"x".repeat(300)] {
            assert!(validate("", package).is_err(), "{package:?}");
        }
    }

    #[test]
    fn the_stored_form_reads_back() {
        let spec = JobSpec::validate(parts()).unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
        assert!(serde_json::from_str::<JobSpec>(&text.replace("x86_64", "z80")).is_err());
        assert!(
            !text.contains("source"),
            "specs without files are stored as they were before there were any"
        );
        let digest = format!("sha256:{}", "5e".repeat(32));
        let with_files =
            JobSpec::validate(UncheckedSpec { source: Some(digest.clone()), ..parts() }).unwrap();
        assert_eq!(with_files.source(), Some(digest.parse().unwrap()));
        let text = serde_json::to_string(&with_files).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), with_files);
        let facts = serde_json::to_string(with_files.facts()).unwrap();
        assert_eq!(serde_json::from_str::<JobFacts>(&facts).unwrap().source, with_files.source());
        assert!(serde_json::from_str::<JobFacts>(&facts.replace(&digest, "sha256:5e")).is_err());
    }

    proptest! {
        #[test]
        fn a_path_with_dots_never_passes(before in "[a-z/]{0,6}", after in "[a-z/]{0,6}") {
            let path = format!("{before}/../{after}.yaml");
            let pipelines = BTreeMap::from([(path, String::new())]);
            let refused = JobSpec::validate(UncheckedSpec { pipelines, ..parts() }).is_err();
            prop_assert!(refused);
        }
    }
}
