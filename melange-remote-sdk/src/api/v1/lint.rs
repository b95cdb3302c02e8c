//! What linters found, on the wire.

use serde::{Deserialize, Serialize};

use crate::analysis::lint::{Finding, LintDetails, LintSeverity, PackageLint};

/// What linters found in one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LintView {
    /// The package.
    pub package: String,
    /// Its version and epoch.
    pub version: String,
    /// What was found: warnings first.
    pub findings: Vec<FindingView>,
}

/// Something that a linter found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FindingView {
    /// The linter, as `checks.disabled` names it.
    pub linter: String,
    /// `required` when the package is not made for it, else `warning`.
    pub severity: LintSeverity,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do.
    pub explain: String,
    /// What it is about, the first items; the linter tells the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<LintDetails>,
    /// How many items of the details were left out.
    #[serde(default)]
    pub omitted: u64,
}

impl From<&PackageLint> for LintView {
    fn from(lint: &PackageLint) -> Self {
        let findings = lint.findings.iter().map(FindingView::from).collect();
        Self { package: lint.package.clone(), version: lint.version.clone(), findings }
    }
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        Self {
            linter: finding.linter.clone(),
            severity: finding.severity,
            message: finding.message.clone(),
            explain: finding.explain.clone(),
            details: finding.details.clone(),
            omitted: finding.omitted,
        }
    }
}
