//! `melange lint`: mistakes and doubtful places of definitions.

use std::path::Path;

use melange_remote_sdk::error::Result;
use melange_remote_sdk::melange::lint;
use melange_remote_sdk::text::diagnostics::{Diagnostic, Severity};

use super::definition::{self, messages};
use super::print_line;
use crate::args::{LintArgs, Output};
use crate::exit::Exit;

pub(super) fn run(args: &LintArgs) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let files = definition::files(&args.files)?;
    let (mut errors, mut warnings, mut broken) = (0, 0, 0);
    let work = |file: &Path| -> Result<Vec<Diagnostic>> {
        Ok(lint::lint(&definition::source(file)?, args.arch, &pipelines, &options))
    };
    definition::for_each(&files, work, |file, result| {
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                eprint!("{}", definition::complaint(args.message_format, file, &error));
                errors += 1;
                broken += 1;
                return Ok(());
            }
        };
        let wrong = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        errors += wrong;
        warnings += found.len() - wrong;
        broken += usize::from(!found.is_empty());
        if args.message_format == Output::Json || !found.is_empty() {
            print_line(
                messages(args.message_format, &file.display().to_string(), &found).trim_end_matches('\n'),
            );
        }
        if args.message_format == Output::Text && !found.is_empty() {
            print_line("");
        }
        Ok(())
    })?;
    if args.message_format == Output::Text {
        eprintln!("{errors} errors and {warnings} warnings in {broken} of {} files", files.len());
    }
    let failed = errors > 0 || args.strict && warnings > 0;
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}
