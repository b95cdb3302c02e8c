//! Findings in the form of SARIF 2.1.0, which code hosts and editors read.
//! The form: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::diagnostics::{Diagnostic, Severity};

/// Something that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SarifResult {
    /// The name of the rule.
    pub rule: String,
    /// What the rule asks for, one sentence; may be empty.
    pub about: String,
    /// Whether it is an error or a warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file.
    pub file: String,
    /// The line and the first and last column of the place in the file, from 1, the end excluded.
    pub region: Option<(u32, u32, u32)>,
    /// Names of parts of the file that it is about, such as the files in a package.
    pub members: Vec<String>,
}

impl SarifResult {
    /// A mistake or doubtful place of a definition. The rules have no names of their own.
    pub fn of_diagnostic(diagnostic: &Diagnostic) -> Self {
        let hint = diagnostic.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        let length = u32::try_from(diagnostic.length()).unwrap_or(u32::MAX);
        let rule = match diagnostic.severity {
            Severity::Error => "definition/mistake",
            Severity::Warning => "definition/doubtful",
        };
        Self {
            rule: rule.to_owned(),
            about: String::new(),
            severity: diagnostic.severity,
            message: format!("{}{hint}", diagnostic.message),
            file: diagnostic.source.name.clone(),
            region: diagnostic.at.map(|at| (at.line, at.column, at.column.saturating_add(length))),
            members: Vec::new(),
        }
    }

    fn to_value(&self) -> Value {
        let mut place = json!({ "artifactLocation": { "uri": uri(&self.file) } });
        if let Some((line, first, end)) = self.region {
            place["region"] = json!({ "startLine": line, "startColumn": first, "endColumn": end });
        }
        let location = |member: Option<&String>| match member {
            Some(name) => json!({
                "physicalLocation": place,
                "logicalLocations": [{ "fullyQualifiedName": name, "kind": "resource" }],
            }),
            None => json!({ "physicalLocation": place }),
        };
        let locations: Vec<Value> = if self.members.is_empty() {
            vec![location(None)]
        } else {
            self.members.iter().map(|member| location(Some(member))).collect()
        };
        json!({
            "ruleId": self.rule,
            "level": self.severity.name(),
            "message": { "text": self.message },
            "locations": locations,
        })
    }
}

/// One document of all that was found.
pub fn document(results: &[SarifResult]) -> Value {
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    for result in results {
        rules.entry(&result.rule).or_insert_with(|| {
            let mut rule = json!({ "id": result.rule });
            if !result.about.is_empty() {
                rule["shortDescription"] = json!({ "text": result.about });
            }
            rule
        });
    }
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "melange-remote",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results.iter().map(SarifResult::to_value).collect::<Vec<_>>(),
        }],
    })
}

/// A path as the relative reference of a URI: what has a meaning there is written in hex.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'+' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::diagnostics::{Position, Source};

    #[test]
    fn the_document_reads_well() {
        let source = Source::new("os/a b.yaml", "package:\n  nam: ü\n");
        let at = Position { line: 2, column: 3 };
        let mistake = Diagnostic::new(&source, at, "unknown field `nam`").hint("did you mean `name`?");
        let of_package = SarifResult {
            rule: "dev".to_owned(),
            about: "Leave it out".to_owned(),
            severity: Severity::Warning,
            message: "a writes to /dev".to_owned(),
            file: "a-1-r0.apk".to_owned(),
            region: None,
            members: vec!["dev/x".to_owned(), "dev/y".to_owned()],
        };
        let found = [SarifResult::of_diagnostic(&mistake), of_package];
        let text = serde_json::to_string_pretty(&document(&found)).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn nothing_found_is_a_document_too() {
        assert_eq!(document(&[])["runs"][0]["results"], json!([]));
    }
}
