//! A definition as it will be executed: concrete values only, conditions decided, needs collected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::document::{Document, PackageOptions};
use crate::arch::Arch;
use crate::text::diagnostics::Position;

/// What a definition comes to on one architecture.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The architecture.
    pub arch: Arch,
    /// The main package.
    pub package: PlanPackage,
    /// The subpackages that exist, in order.
    pub subpackages: Vec<PlanPackage>,
    /// The build environment, with what the steps need.
    pub environment: PlanEnvironment,
    /// The tests that have steps: main first, then each subpackage that exists.
    pub tests: Vec<PlanTest>,
    /// Capabilities added to the sandbox's default set.
    pub capabilities_add: Vec<String>,
    /// Capabilities dropped from it.
    pub capabilities_drop: Vec<String>,
    /// The deadline of the whole build.
    pub timeout: Option<Duration>,
    /// The pipelines that came with the definition and that its steps use, as `uses` names them, by way of others too.
    pub inline_pipelines: BTreeSet<String>,
    /// The definition it was made of, variables replaced and ranges expanded, for what builds only carry along.
    pub document: Arc<Document>,
}

impl Plan {
    /// The main package and the subpackages, in emission order.
    pub fn packages(&self) -> impl Iterator<Item = &PlanPackage> {
        std::iter::once(&self.package).chain(&self.subpackages)
    }

    /// The plan with every test about the very version that this plan makes.
    #[must_use]
    pub fn with_exact_subjects(&self) -> Self {
        let mut plan = self.clone();
        for test in &mut plan.tests {
            let version = self.packages().find(|package| package.name == test.subject);
            let Some(version) = version.map(PlanPackage::full_version) else { continue };
            let own = &mut test.environment.packages;
            own.retain(|package| *package != test.subject);
            own.push(format!("{}={version}", test.subject));
            own.sort_unstable();
        }
        plan
    }

    /// Adds packages to the build environment and to that of every test.
    pub fn add_packages(&mut self, packages: &[String]) {
        self.environment.packages.extend_from_slice(packages);
        self.tests.iter_mut().for_each(|test| test.add_packages(packages));
    }

    /// Adds repositories and keys behind those of the build environment and of every test; each is there once.
    pub fn add_repositories(&mut self, repositories: &[String], keyring: &[String]) {
        let tests = self.tests.iter_mut().map(|test| &mut test.environment);
        for environment in std::iter::once(&mut self.environment).chain(tests) {
            for (own, more) in
                [(&mut environment.repositories, repositories), (&mut environment.keyring, keyring)]
            {
                let new: Vec<String> = more.iter().filter(|line| !own.contains(line)).cloned().collect();
                own.extend(new);
            }
        }
    }
}

/// The test of one package.
#[derive(Debug, Clone, Default)]
pub struct PlanTest {
    /// The package under test, main or sub.
    pub subject: String,
    /// Its environment: the packages of the test, the package under test and what the steps need, sorted; the
    /// variables of the build environment below its own.
    pub environment: PlanEnvironment,
    /// Its steps.
    pub pipeline: Vec<PlanStep>,
}

impl PlanTest {
    /// Adds packages to its environment, where each is once and in order.
    pub fn add_packages(&mut self, packages: &[String]) {
        let own = &mut self.environment.packages;
        own.extend_from_slice(packages);
        own.sort_unstable();
        own.dedup();
    }
}

/// A package to emit, main or sub.
#[derive(Debug, Clone, Default)]
pub struct PlanPackage {
    /// Its name.
    pub name: String,
    /// The main package's version.
    pub version: String,
    /// The main package's epoch.
    pub epoch: u64,
    /// One line about it.
    pub description: String,
    /// Its home page.
    pub url: String,
    /// The commit it was built from.
    pub commit: String,
    /// The main package's licences.
    pub copyright: Vec<PlanCopyright>,
    /// Declared needs.
    pub runtime: Vec<String>,
    /// Declared provides.
    pub provides: Vec<String>,
    /// Declared replaces, in order.
    pub replaces: Vec<String>,
    /// Preference among providers.
    pub provider_priority: String,
    /// Preference among replacing packages.
    pub replaces_priority: String,
    /// Switches of the dependency generator.
    pub options: PackageOptions,
    /// Scriptlets by their name in the control section, such as `.post-install`.
    pub scriptlets: BTreeMap<&'static str, String>,
    /// Paths that fire the trigger.
    pub trigger_paths: Vec<String>,
    /// Linters switched off.
    pub checks_disabled: Vec<String>,
    /// File capabilities: path, capability list and flags.
    pub setcap: Vec<PlanSetCap>,
    /// The name in vulnerability databases: vendor, product and so on by field.
    pub cpe: BTreeMap<&'static str, String>,
    /// Its steps.
    pub pipeline: Vec<PlanStep>,
}

impl PlanPackage {
    /// `<version>-r<epoch>`.
    pub fn full_version(&self) -> String {
        format!("{}-r{}", self.version, self.epoch)
    }
}

/// One licence.
#[derive(Debug, Clone, Default)]
pub struct PlanCopyright {
    /// An SPDX expression.
    pub license: String,
    /// The holder's statement.
    pub attestation: String,
    /// The file of the workspace with the licence's text; empty for none.
    pub license_path: String,
    /// What a detection of the file may find instead of the licence; empty for nothing else.
    pub detection_override: String,
}

/// File capabilities of one path.
#[derive(Debug, Clone, Default)]
pub struct PlanSetCap {
    /// The file, relative to the package's root.
    pub path: String,
    /// Capability lists to flags.
    pub add: BTreeMap<String, String>,
}

/// The build environment.
#[derive(Debug, Clone, Default)]
pub struct PlanEnvironment {
    /// Repositories, `@tag url` or a plain url or path.
    pub repositories: Vec<String>,
    /// Keys.
    pub keyring: Vec<String>,
    /// Requested packages, the needs of the steps included, in order of appearance.
    pub packages: Vec<String>,
    /// Users to add.
    pub users: Vec<PlanUser>,
    /// Groups to add.
    pub groups: Vec<PlanGroup>,
    /// The account that steps run as: a name, a number, or empty for root.
    pub run_as: String,
    /// Variables of every step.
    pub variables: BTreeMap<String, String>,
    /// Changes to the file tree.
    pub paths: Vec<PlanPath>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUser {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its group's id.
    pub gid: u32,
    /// Its shell.
    pub shell: String,
    /// Its home.
    pub home: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanGroup {
    /// Its name.
    pub name: String,
    /// Its id.
    pub gid: u32,
    /// Its members.
    pub members: Vec<String>,
}

/// A change to the file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanPath {
    /// The absolute path.
    pub path: String,
    /// `directory`, `empty-file`, `hardlink`, `symlink` or `permissions`.
    pub kind: String,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// The target of a link.
    pub source: String,
}

/// A step with concrete values.
#[derive(Debug, Clone, Default)]
pub struct PlanStep {
    /// Where it begins in its source.
    pub at: Position,
    /// Its condition with the variables replaced by quoted values, may be empty.
    pub condition: String,
    /// Its name, may be empty.
    pub name: String,
    /// The pipeline that it used, may be empty.
    pub uses: String,
    /// The values given to that pipeline that differ from its defaults.
    pub with: BTreeMap<String, String>,
    /// Its script, may be empty.
    pub runs: String,
    /// Whether its condition holds; a step that does not run takes its children along.
    pub enabled: bool,
    /// Its children, run after its own script.
    pub pipeline: Vec<PlanStep>,
    /// Packages that it needs, collected for the environment.
    pub needs: Vec<String>,
    /// A label without effect.
    pub label: String,
    /// How many direct children must run.
    pub required_steps: Option<u64>,
    /// Its directory as written, relative to the workspace.
    pub working_directory: String,
    /// Its environment, its parents' included.
    pub environment: BTreeMap<String, String>,
    /// Whether it may need the network.
    pub network: bool,
}

impl PlanStep {
    /// What people call it.
    pub fn title(&self) -> &str {
        match (self.name.as_str(), self.uses.as_str()) {
            ("", "") => "runs",
            ("", uses) => uses,
            (name, _) => name,
        }
    }

    /// Its absolute directory.
    pub fn directory(&self) -> String {
        let joined = if self.working_directory.starts_with('/') {
            self.working_directory.clone()
        } else {
            format!("/home/build/{}", self.working_directory)
        };
        clean_path(&joined)
    }
}

/// An absolute path without `.`, `..`, doubled and trailing slashes.
pub(crate) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}
