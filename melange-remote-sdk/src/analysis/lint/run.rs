//! Runs linters over one package.

use super::rules::{self, Subject};
use super::{Finding, Linter, LinterSets, PackageLint, TestSteps};
use crate::apk::reader::ApkFile;
use crate::apk::tree::Tree;
use crate::error::{Error, Result};
use crate::melange::document::Document;
use crate::text::diagnostics::{Diagnostics, Source};

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

/// What the linters find in a package that is made already, and why the definition in it could not be read, when it
/// could not. What that definition switches off counts; names that no linter has are passed over, for the package may
/// be another version's.
///
/// # Errors
/// `Untrusted` for a damaged package, otherwise as [`ApkFile::tree`] and [`lint`].
pub fn lint_apk(apk: &ApkFile, sets: &LinterSets) -> Result<(PackageLint, Option<Diagnostics>)> {
    let tree = apk.tree()?;
    let name = apk.info.pkgname.as_str();
    let (mut tests, mut disabled, mut unread) = (TestSteps::Unknown, Vec::new(), None);
    if let Some((_, text)) = apk.scripts.get(DEFINITION) {
        match Document::parse(&Source::new(DEFINITION, String::from_utf8_lossy(text))) {
            Ok(document) => {
                tests = TestSteps::of(&document, name);
                disabled = disabled_linters(&document, name);
            }
            Err(mistakes) => unread = Some(mistakes),
        }
    }
    let sets = sets.for_package(&disabled)?;
    let input =
        LintInput { package: name, version: &apk.info.pkgver, tree: &tree, tests: &tests, sets: &sets };
    Ok((lint(&input)?, unread))
}

/// The definition of a package, in its control section.
const DEFINITION: &str = ".melange.yaml";

/// The linters that a definition switches off for one of its packages.
fn disabled_linters(document: &Document, package: &str) -> Vec<String> {
    let checks = if *document.package.name == *package {
        Some(&document.package.checks)
    } else {
        document.subpackages.iter().find(|sub| *sub.name == *package).map(|sub| &sub.checks)
    };
    let names = checks.into_iter().flat_map(|checks| &checks.disabled).map(|name| name.value.clone());
    names.filter(|name| name.parse::<Linter>().is_ok()).collect()
}
