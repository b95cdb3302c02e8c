//! Runs linters over one package.

use super::rules::{self, Subject};
use super::{Finding, LinterSets, PackageLint, TestSteps};
use crate::apk::tree::Tree;
use crate::error::{Error, Result};

/// A package as linters see it.
#[derive(Debug, Clone, Copy)]
pub struct LintInput<'a> {
    /// Its name.
    pub package: &'a str,
    /// Its version and epoch.
    pub version: &'a str,
    /// Its files.
    pub tree: &'a Tree,
    /// What its test uses.
    pub tests: &'a TestSteps,
    /// Which linters run.
    pub sets: &'a LinterSets,
}

/// What the linters find in a package.
///
/// # Errors
/// The disk's, of files whose content is looked at.
pub fn lint(input: &LintInput<'_>) -> Result<PackageLint> {
    let subject = Subject::new(input.package, input.tree, input.tests);
    let mut findings = Vec::new();
    for (linter, severity) in input.sets.in_order() {
        let found = rules::run(linter, &subject).map_err(|source| {
            Error::unexpected("a file of the package cannot be read")
                .with("package", input.package)
                .source(source)
        })?;
        if let Some(found) = found {
            let finding = Finding::new(linter, severity, found.message);
            findings.push(match found.details {
                Some(details) => finding.with_details(details),
                None => finding,
            });
        }
    }
    Ok(PackageLint::new(input.package, input.version, findings))
}
