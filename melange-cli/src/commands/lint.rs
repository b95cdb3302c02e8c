//! `melange lint`: mistakes and doubtful places of definitions, and broken rules in packages.

use std::io::Read;
use std::path::Path;

use melange_remote_sdk::analysis::lint::{
    self as rules, Finding, LintSeverity, LinterSets, PackageLint, unknown_linters,
};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::document::Document;
use melange_remote_sdk::melange::lint;
use melange_remote_sdk::text::diagnostics::{Diagnostic, Diagnostics, Severity};
use melange_remote_sdk::text::sarif::{self, SarifResult};

use super::definition::{self, messages};
use crate::args::{LintArgs, LintOutput, Output};
use crate::exit::{self, Exit};
use crate::{input, note, out, shown};

/// The first bytes of a package: those of gzip, and of the packages of apk 3, which are told to be such.
const PACKAGE_HEADS: [&[u8]; 2] = [&[0x1f, 0x8b], b"ADB"];

/// What was found in a file.
enum Found {
    /// In a definition.
    Definition(Vec<Diagnostic>),
    /// In a package, and why the definition in it could not be read.
    Package { arch: String, lint: PackageLint, unread: Option<Diagnostics> },
}

impl Found {
    /// How many errors, and how many warnings.
    fn counts(&self) -> (usize, usize) {
        let (errors, all) = match self {
            Self::Definition(found) => {
                let errors = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
                (errors.count(), found.len())
            }
            Self::Package { lint, .. } => (lint.required().count(), lint.findings.len()),
        };
        (errors, all.saturating_sub(errors))
    }

    /// The findings in `file` for people, or as one JSON object a line.
    fn told(&self, output: Output, file: &str) -> String {
        match (self, output) {
            (Self::Definition(found), _) => messages(output, file, found),
            (Self::Package { lint, .. }, Output::Text) => {
                lint.findings.iter().map(|finding| told(finding, file)).collect::<Vec<_>>().join("\n")
            }
            (Self::Package { lint, .. }, Output::Json) => {
                let PackageLint { package, version, findings, .. } = lint;
                let object = serde_json::json!({
                    "uri": file, "package": package, "version": version, "findings": findings,
                });
                format!("{object}\n")
            }
        }
    }

    fn sarif(&self, file: &str) -> Vec<SarifResult> {
        match self {
            Self::Definition(found) => found.iter().map(SarifResult::of_diagnostic).collect(),
            Self::Package { lint, .. } => rules::sarif(file, lint),
        }
    }
}

/// A finding in a package for people, in the form that diagnostics have.
fn told(finding: &Finding, file: &str) -> String {
    let word = match finding.severity {
        LintSeverity::Required => "error",
        LintSeverity::Warning => "warning",
    };
    let mut lines = finding.log_lines().into_iter();
    let message = lines.next().unwrap_or_default();
    let mut text = format!("{word}: {}\n  --> {}\n", shown::line(&message), shown::word(file));
    // The second line of the log is the hint, which comes last here.
    for line in lines.skip(1) {
        text.push_str(&format!("{}\n", shown::line(line.get(2..).unwrap_or_default())));
    }
    text.push_str(&format!("  hint: {}\n", finding.explain));
    text
}

/// Whether a file begins as packages do. What cannot be read is for its reader to tell.
fn is_package(file: &Path) -> bool {
    if input::is_stdin(file) {
        return false;
    }
    let mut head = Vec::new();
    let read = input::open(file).map(|file| file.take(3).read_to_end(&mut head));
    matches!(read, Ok(Ok(_))) && PACKAGE_HEADS.iter().any(|begin| head.starts_with(begin))
}

fn lint_package(file: &Path, sets: &LinterSets) -> Result<Found> {
    let apk = ApkFile::open_control(file)?;
    let (lint, unread) = rules::lint_apk(&apk, sets)?;
    Ok(Found::Package { arch: apk.info.arch, lint, unread })
}

/// Writes what was found in a package where melange writes it; returns where, when something was found.
pub(super) fn persist(out_dir: &Path, arch: &str, lint: &PackageLint) -> Result<()> {
    if lint.findings.is_empty() {
        return Ok(());
    }
    if arch.is_empty() || arch.contains(['/', '\0']) || arch.starts_with('.') {
        return Err(Error::invalid(format!(
            "no folder can be called {arch:.80?}, the package's architecture"
        )));
    }
    let folder = out_dir.join(arch);
    let path = folder.join(lint.file_name()?);
    std::fs::create_dir_all(&folder).map_err(|e| input::failed("create", &folder, e))?;
    let document = lint.document();
    super::index::place(&path, |file| std::io::Write::write_all(file, document.as_bytes()))
}

/// What the files come to.
#[derive(Default)]
struct Sum {
    errors: usize,
    warnings: usize,
    /// Files in which something was found, or that could not be read.
    broken: usize,
    exit: Option<Exit>,
    /// For the one document of SARIF.
    results: Vec<SarifResult>,
}

impl Sum {
    fn failed(&mut self, error: &Error, output: Output) {
        note::error(error, output);
        self.end(exit::code_of(error));
        self.errors += 1;
        self.broken += 1;
    }

    fn end(&mut self, exit: Exit) {
        self.exit = Some(self.exit.take().unwrap_or(Exit::Ok).and(exit));
    }
}

pub(super) fn run(args: &LintArgs, output: Output) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let files = definition::files(&args.files)?;
    let sets = args.linters.sets();
    let is_sarif = args.output == Some(LintOutput::Sarif);
    let mut sum = Sum::default();
    let work = |file: &Path| -> Result<Found> {
        if !args.definitions && is_package(file) {
            return lint_package(file, &sets);
        }
        let source = definition::source(file)?;
        let mut found = lint::lint(&source, args.arch, &pipelines, &options);
        if let Ok(document) = Document::parse(&source) {
            found.extend(unknown_linters(&document));
            found.sort_by_key(|diagnostic| (diagnostic.source.name != source.name, diagnostic.at));
        }
        Ok(Found::Definition(found))
    };
    definition::for_each(&files, work, |file, result| {
        let name = input::name(file);
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                sum.failed(&error, output);
                return Ok(());
            }
        };
        let (errors, warnings) = found.counts();
        sum.errors += errors;
        sum.warnings += warnings;
        sum.broken += usize::from(errors + warnings > 0);
        if errors > 0 || args.strict && warnings > 0 {
            sum.end(Exit::Failed);
        }
        if let Found::Package { arch, lint, unread } = &found {
            if let Some(mistakes) = unread.as_ref().filter(|_| output == Output::Text) {
                let first = mistakes.0.first().map(Diagnostic::summary).unwrap_or_default();
                note::line(&format!("{name}: the definition in it is not read: {first}"));
            }
            if args.linters.persist_lint_results
                && let Err(error) = persist(&args.out_dir, arch, lint)
            {
                sum.failed(&error, output);
            }
        }
        if is_sarif {
            sum.results.extend(found.sarif(&name));
            return Ok(());
        }
        match output {
            Output::Json => out::text(&found.told(output, &name)),
            Output::Text if errors + warnings == 0 => Ok(()),
            Output::Text => out::text(&format!("{}\n", found.told(output, &name))),
        }
    })?;
    if is_sarif {
        out::json(&sarif::document(&sum.results))?;
    } else if output == Output::Text {
        let Sum { errors, warnings, broken, .. } = &sum;
        note::line(&format!("{errors} errors and {warnings} warnings in {broken} of {} files", files.len()));
    }
    Ok(sum.exit.unwrap_or(Exit::Ok))
}
