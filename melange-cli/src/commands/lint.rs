//! `melange lint`: mistakes and doubtful places of definitions.

use std::path::Path;

use melange_remote_sdk::error::Result;
use melange_remote_sdk::melange::lint;
use melange_remote_sdk::text::diagnostics::{Diagnostic, Severity};

use super::definition::{self, messages};
use crate::args::{LintArgs, Output};
use crate::exit::{self, Exit};
use crate::{input, note, out};

pub(super) fn run(args: &LintArgs, output: Output) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let files = definition::files(&args.files)?;
    let (mut errors, mut warnings, mut broken) = (0, 0, 0);
    let mut exit = Exit::Ok;
    let work = |file: &Path| -> Result<Vec<Diagnostic>> {
        Ok(lint::lint(&definition::source(file)?, args.arch, &pipelines, &options))
    };
    definition::for_each(&files, work, |file, result| {
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                note::error(&error, output);
                exit = exit.and(exit::code_of(&error));
                errors += 1;
                broken += 1;
                return Ok(());
            }
        };
        let wrong = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        errors += wrong;
        warnings += found.len() - wrong;
        broken += usize::from(!found.is_empty());
        if wrong > 0 || args.strict && !found.is_empty() {
            exit = exit.and(Exit::Failed);
        }
        match output {
            Output::Json => out::text(&messages(output, &input::name(file), &found)),
            Output::Text if found.is_empty() => Ok(()),
            Output::Text => out::text(&format!("{}\n", messages(output, &input::name(file), &found))),
        }
    })?;
    if output == Output::Text {
        note::line(&format!("{errors} errors and {warnings} warnings in {broken} of {} files", files.len()));
    }
    Ok(exit)
}
