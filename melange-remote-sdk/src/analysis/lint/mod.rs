//! Linters of packages: rules about what a package's files are and where they lie, looked at before it is signed.
//!
//! The rules, their names and their messages are those of melange's own linters, so that a definition fails and passes
//! with both. A package's definition switches some off under `checks.disabled`; their findings are told all the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits;
use crate::text::diagnostics::Severity;
use crate::text::sarif::SarifResult;

mod definition;
mod details;
mod linter;
#[cfg(feature = "apk")]
mod rules;
#[cfg(feature = "apk")]
mod run;

pub use definition::{TestSteps, unknown_linters};
pub use details::{LintDetails, LintedArch, LintedCopies, LintedMode, LintedPlatform};
pub use linter::{LintSeverity, Linter, LinterSets};
#[cfg(feature = "apk")]
pub use run::{LintInput, lint, lint_apk};

/// Something that a linter found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Finding {
    /// The linter's name.
    pub linter: String,
    /// What it weighs.
    pub severity: LintSeverity,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do.
    pub explain: String,
    /// What it is about, when that is more than the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<LintDetails>,
    /// How many items of the details were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Finding {
    /// What a linter found.
    pub fn new(linter: Linter, severity: LintSeverity, message: impl Into<String>) -> Self {
        Self {
            linter: linter.name().to_owned(),
            severity,
            message: message.into(),
            explain: linter.explain().to_owned(),
            details: None,
            omitted: 0,
        }
    }

    /// The same about these, of which those within the bounds are kept.
    #[must_use]
    pub fn with_details(mut self, mut details: LintDetails) -> Self {
        let (items, bytes) = (limits::LINT_DETAILS_MAX, limits::LINT_DETAILS_BYTES_MAX);
        self.omitted = self.omitted.saturating_add(details.shorten(items, bytes));
        self.details = Some(details);
        self
    }

    /// The lines of a log that tell it: the finding, what to do, and what it is about, of which at most
    /// [`limits::LINT_DETAILS_LOGGED`] items.
    pub fn log_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("[{}] {}", self.linter, self.message), format!("  → {}", self.explain)];
        let details = self.details.as_ref().map(LintDetails::lines).unwrap_or_default();
        let told = limits::LINT_DETAILS_LOGGED;
        lines.extend(details.iter().take(told).map(|detail| format!("    - {detail}")));
        let untold = u64::try_from(details.len().saturating_sub(told)).unwrap_or(u64::MAX);
        let untold = untold.saturating_add(self.omitted);
        if untold > 0 {
            lines.push(format!("    - and {untold} more"));
        }
        // A path may hold what would end the line.
        lines.iter_mut().for_each(|line| *line = line.replace('\n', "\\n").replace('\r', "\\r"));
        lines
    }
}

/// What the linters found in one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PackageLint {
    /// The package.
    pub package: String,
    /// Its version and epoch, such as `2.10-r0`.
    pub version: String,
    /// What was found: warnings first.
    pub findings: Vec<Finding>,
}

impl PackageLint {
    /// What was found in a package.
    pub fn new(package: impl Into<String>, version: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self { package: package.into(), version: version.into(), findings }
    }

    /// The findings that stand against the package.
    pub fn required(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == LintSeverity::Required)
    }

    /// Keeps of every finding's details the first ones.
    #[must_use]
    pub fn shortened(mut self, items_max: usize, bytes_max: usize) -> Self {
        for finding in &mut self.findings {
            let details = finding.details.as_mut();
            let dropped = details.map_or(0, |details| details.shorten(items_max, bytes_max));
            finding.omitted = finding.omitted.saturating_add(dropped);
        }
        self
    }

    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        let size = |finding: &Finding| {
            let details = finding.details.as_ref().map(LintDetails::lines).unwrap_or_default();
            let details: usize =
                details.iter().map(|line| line.len() + limits::LINT_DETAIL_OVERHEAD_BYTES).sum();
            finding.message.len() + finding.explain.len() + details
        };
        self.package.len() + self.version.len() + self.findings.iter().map(size).sum::<usize>()
    }

    /// The name of the file that melange keeps the findings in.
    ///
    /// # Errors
    /// `InvalidRequest` for a package whose name or version is no part of a file's name.
    pub fn file_name(&self) -> Result<String> {
        let name = format!("lint-{}-{}.json", self.package, self.version);
        if name.contains(['/', '\0']) || name.len() > limits::FILE_NAME_BYTES_MAX {
            return Err(Error::invalid(format!("no file can be called {name:.80?}")));
        }
        Ok(name)
    }

    /// The content of that file.
    pub fn document(&self) -> String {
        #[derive(Serialize)]
        struct Told<'a> {
            message: &'a str,
            explain: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a LintDetails>,
        }
        #[derive(Serialize)]
        struct Document<'a> {
            package_name: String,
            findings: BTreeMap<&'a str, Vec<Told<'a>>>,
        }
        let mut findings: BTreeMap<&str, Vec<Told<'_>>> = BTreeMap::new();
        for finding in &self.findings {
            let Finding { message, explain, details, .. } = finding;
            findings.entry(&finding.linter).or_default().push(Told {
                message,
                explain,
                details: details.as_ref(),
            });
        }
        let package_name = format!("{}-{}", self.package, self.version);
        // Maps with texts for keys are always written.
        serde_json::to_string_pretty(&Document { package_name, findings }).unwrap_or_default()
    }
}

/// The findings of a package's file for SARIF; each tells at most [`limits::LINT_DETAILS_LOGGED`] of the files in it.
pub fn sarif(file: &str, lint: &PackageLint) -> Vec<SarifResult> {
    let result = |finding: &Finding| SarifResult {
        rule: finding.linter.clone(),
        about: finding.explain.clone(),
        severity: match finding.severity {
            LintSeverity::Required => Severity::Error,
            LintSeverity::Warning => Severity::Warning,
        },
        message: finding.message.trim_end_matches(':').to_owned(),
        file: file.to_owned(),
        region: None,
        members: {
            let paths = finding.details.as_ref().map(LintDetails::paths).unwrap_or_default();
            paths.into_iter().take(limits::LINT_DETAILS_LOGGED).map(str::to_owned).collect()
        },
    };
    lint.findings.iter().map(result).collect()
}

/// Why packages are not made: the first finding that stands against one, and how many more there are. `None` when none
/// does.
pub fn refusal(packages: &[PackageLint]) -> Option<String> {
    let mut found = packages.iter().flat_map(|lint| lint.required().map(move |finding| (lint, finding)));
    let (lint, finding) = found.next()?;
    let (package, linter, message) = (&lint.package, &finding.linter, finding.message.trim_end_matches(':'));
    let more = match found.count() {
        0 => String::new(),
        1 => ", and 1 more finding stands against the packages".to_owned(),
        more => format!(", and {more} more findings stand against the packages"),
    };
    Some(format!("unable to lint package {package}: linter {linter:?} failed: {message}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(count: usize) -> LintDetails {
        LintDetails::Paths { paths: (0..count).map(|number| format!("dev/{number}")).collect() }
    }

    #[test]
    fn the_document_is_that_of_melange() {
        let found =
            Finding::new(Linter::Dev, LintSeverity::Required, "a writes to /dev").with_details(paths(2));
        let empty = Finding::new(Linter::Empty, LintSeverity::Warning, "package is empty");
        let lint = PackageLint::new("a", "1-r0", vec![empty, found]);
        assert_eq!(lint.file_name().unwrap(), "lint-a-1-r0.json");
        assert!(PackageLint::new("../a", "1-r0", Vec::new()).file_name().is_err());
        insta::assert_snapshot!(lint.document());
    }

    #[test]
    fn what_is_told_is_bounded() {
        let found = Finding::new(Linter::Dev, LintSeverity::Required, "m").with_details(paths(12_345));
        assert_eq!(found.omitted, 2_345);
        let lines = found.log_lines();
        assert_eq!(lines.len(), 2 + limits::LINT_DETAILS_LOGGED + 1);
        assert_eq!(lines.last().unwrap(), "    - and 12245 more");
        let lint = PackageLint::new("a", "1-r0", vec![found]).shortened(5, usize::MAX);
        assert_eq!((lint.findings[0].omitted, lint.findings[0].log_lines().len()), (12_340, 2 + 5 + 1));
        let json = serde_json::to_string(&lint).unwrap();
        assert_eq!(serde_json::from_str::<PackageLint>(&json).unwrap(), lint);
        let long = LintDetails::Paths { paths: vec!["x".repeat(4_000); 1_000] };
        let found = Finding::new(Linter::Dev, LintSeverity::Required, "m").with_details(long);
        let lint = PackageLint::new("a", "1-r0", vec![found]);
        assert!(lint.size_bytes() <= limits::LINT_DETAILS_BYTES_MAX + 1_000, "{}", lint.size_bytes());
    }

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let details = LintDetails::Paths { paths: vec!["dev/a\nb\r".to_owned()] };
        let found = Finding::new(Linter::Dev, LintSeverity::Required, "m").with_details(details);
        assert_eq!(found.log_lines()[2], "    - dev/a\\nb\\r");
    }

    #[test]
    fn a_refusal_names_package_and_linter() {
        let found = |linter, severity| Finding::new(linter, severity, "m");
        let (required, warning) = (LintSeverity::Required, LintSeverity::Warning);
        let a = PackageLint::new("a", "1-r0", vec![found(Linter::Opt, warning)]);
        assert_eq!(refusal(std::slice::from_ref(&a)), None);
        let b = PackageLint::new(
            "b",
            "1-r0",
            vec![found(Linter::Dev, required), found(Linter::TempDir, required)],
        );
        let said = refusal(&[a, b]).unwrap();
        assert_eq!(
            said,
            "unable to lint package b: linter \"dev\" failed: m, and 1 more finding stands against the packages"
        );
    }
}
