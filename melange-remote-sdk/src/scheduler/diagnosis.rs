//! What an attempt failed of: the last lines of the step that runs, kept as they are recorded, and what is known without
//! them. Both come together once, when the attempt ends.

use std::collections::VecDeque;

use super::events::StepAtWork;
use crate::analysis::lint::Linter;
use crate::builder::{BuildLimit, BuildOutcome, BuildStatus, LogStream, Shortage, StepFailure};
use crate::error::{Blame, Error, ErrorKind, Result, causes};
use crate::failure::{Failure, FailureInput, FailureLine, KnownCause, diagnose, plain};
use crate::job::JobError;
use crate::job_log::{LogBlock, LogLine};
use crate::limits;

/// Exit codes of steps that a signal ended: 128 and its number. 129 is left out, although it is that of SIGHUP, which no
/// step gets: git and others end with it when they are called with wrong options.
const SIGNALLED: std::ops::RangeInclusive<i32> = 130..=192;

/// The last lines of one step with their numbers in the log of the attempt: at most [`limits::FAILURE_LINES`], and of
/// those as many as [`limits::FAILURE_LINES_BYTES_MAX`] hold.
#[derive(Debug, Default)]
pub(super) struct LastLines {
    step: u32,
    lines: VecDeque<(u64, String)>,
    bytes: usize,
}

impl LastLines {
    /// Takes what a step wrote of a block that is in the log now. Lines of another step than before take the place of
    /// those that were kept.
    pub(super) fn take(&mut self, block: &LogBlock, step: u32) {
        let mut newest = VecDeque::new();
        let of_step =
            |line: &LogLine<'_>| line.origin.step == Some(step) && line.origin.stream != LogStream::Engine;
        // A block may hold far more lines than are kept, and only those are worth being looked at.
        for line in block.lines().filter(of_step) {
            if newest.len() == limits::FAILURE_LINES {
                newest.pop_front();
            }
            newest.push_back(line);
        }
        if newest.is_empty() {
            return;
        }
        if self.step != step {
            *self = Self { step, ..Self::default() };
        }
        for line in newest {
            let text = plain(&String::from_utf8_lossy(line.text));
            self.bytes = self.bytes.saturating_add(text.len());
            self.lines.push_back((line.number, text));
        }
        while self.lines.len() > limits::FAILURE_LINES || self.bytes > limits::FAILURE_LINES_BYTES_MAX {
            let Some((_, oldest)) = self.lines.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.len());
        }
    }

    /// The lines of a step; none when those of another are kept.
    fn of(&self, step: Option<u32>) -> Vec<FailureLine<'_>> {
        let lines = self.lines.iter().filter(|_| step == Some(self.step));
        lines.map(|(number, text)| FailureLine { number: *number, text }).collect()
    }
}

/// What is known of the end of a build without its lines.
pub(super) fn known_cause(result: &Result<BuildOutcome>) -> Option<KnownCause<'static>> {
    match result {
        Ok(outcome) => match &outcome.status {
            BuildStatus::Failed { failure: Some(failure), .. } => cause_of_step(failure),
            BuildStatus::Failed { failure: None, .. } => broken_rule(outcome),
            BuildStatus::LimitExceeded { limit: BuildLimit::Time, .. } => Some(KnownCause::Timeout),
            BuildStatus::LimitExceeded { limit: BuildLimit::Silence, .. } => Some(KnownCause::Silence),
            _ => None,
        },
        Err(error) => cause_of_error(error),
    }
}

/// The first linter that stands against a package.
fn broken_rule(outcome: &BuildOutcome) -> Option<KnownCause<'static>> {
    let required = outcome.lint.iter().find_map(|lint| lint.required().next())?;
    required.linter.parse::<Linter>().ok().map(|linter| KnownCause::Lint(linter.name()))
}

fn cause_of_step(failure: &StepFailure) -> Option<KnownCause<'static>> {
    if failure.out_of_memory {
        return Some(KnownCause::OutOfMemory);
    }
    SIGNALLED.contains(&failure.exit_code).then(|| KnownCause::Signal(failure.exit_code - 128))
}

fn cause_of_error(error: &Error) -> Option<KnownCause<'static>> {
    let shortage = causes(error).find_map(|cause| {
        let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
        let full = cause.downcast_ref().filter(|error| is_full(error)).map(|_| Shortage::Disk);
        cause.downcast_ref::<Shortage>().copied().or(full)
    });
    match shortage {
        Some(Shortage::Memory) => Some(KnownCause::OutOfMemory),
        Some(Shortage::Disk) => Some(KnownCause::Space),
        None => {
            let is_lost = error.blamed() == Some(Blame::Backend) && error.kind() == ErrorKind::Unavailable;
            is_lost.then_some(KnownCause::LostBackend)
        }
    }
}

/// What an attempt showed by its end.
pub(super) struct Seen<'a> {
    /// The package that is built.
    pub(super) package: &'a str,
    /// The step that was at work, when one was.
    pub(super) running: Option<StepAtWork>,
    /// The number of the step that failed, should one have.
    pub(super) failed: Option<u32>,
    /// Lines of one of them.
    pub(super) lines: &'a LastLines,
}

/// What an attempt that ends with an error failed of.
pub(super) fn diagnosis(error: &JobError, known: Option<KnownCause<'_>>, seen: &Seen<'_>) -> Failure {
    let is_overdue = matches!(known, Some(KnownCause::Timeout | KnownCause::Silence));
    let running = seen.running.as_ref();
    let (step, number) = match &error.step {
        Some(failed) => (Some(failed.step.as_str()), seen.failed),
        // A step that took too long is at fault. One that the farm took along is not, but its lines are shown.
        None => {
            (running.filter(|_| is_overdue).map(|step| step.name.as_str()), running.map(|step| step.number))
        }
    };
    let lines = seen.lines.of(number);
    let mut input = FailureInput::new(error.class, &error.message);
    input.step = step.map(without_package);
    input.package = seen.package;
    input.known = known;
    input.lines = &lines;
    diagnose(&input)
}

/// The pipeline or the name of a step: before it stands the package, or a subpackage, that the step is of.
fn without_package(step: &str) -> &str {
    step.split_once(": ").map_or(step, |(_, title)| title)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::job::FailureClass;
    use crate::job_log::{Lines, Origin};

    fn block(first: u64, lines: &[(Option<u32>, LogStream, &str)]) -> LogBlock {
        let mut made = Lines::default();
        for (step, stream, text) in lines {
            made.push(Origin::new(Timestamp::UNIX_EPOCH, *step, *stream), text);
        }
        made.into_block(1, first, 0)
    }

    fn numbers(last: &LastLines, step: u32) -> Vec<u64> {
        last.of(Some(step)).iter().map(|line| line.number).collect()
    }

    #[test]
    fn only_lines_of_the_step_are_kept() {
        let mut last = LastLines::default();
        let lines = [
            (Some(0), LogStream::Stdout, "other"),
            (Some(1), LogStream::Stdout, "out"),
            (None, LogStream::Engine, "--- step"),
            (Some(1), LogStream::Engine, "engine"),
            (Some(1), LogStream::Stderr, "\u{1b}[31merr\u{1b}[m"),
            (None, LogStream::Stdout, "nobody's"),
        ];
        last.take(&block(10, &lines), 1);
        let told: Vec<(u64, &str)> = last.of(Some(1)).iter().map(|line| (line.number, line.text)).collect();
        assert_eq!(told, [(11, "out"), (14, "err")]);
        assert!(last.of(Some(0)).is_empty() && last.of(None).is_empty());
        last.take(&block(16, &[(Some(0), LogStream::Stdout, "late")]), 1);
        assert_eq!(numbers(&last, 1), [11, 14], "what others write changes nothing");
        last.take(&block(17, &[(Some(2), LogStream::Stdout, "next")]), 2);
        assert_eq!((numbers(&last, 1), numbers(&last, 2)), (vec![], vec![17]));
    }

    #[test]
    fn the_rule_that_a_package_broke_is_known() {
        use crate::analysis::lint::{Finding, LintSeverity, PackageLint};
        let failed = || {
            let status = BuildStatus::Failed { reason: "unable to lint".to_owned(), failure: None };
            BuildOutcome::without_files(status)
        };
        let (required, warning) = (LintSeverity::Required, LintSeverity::Warning);
        let mut outcome = failed();
        outcome.lint = vec![
            PackageLint::new("a", "1-r0", vec![Finding::new(Linter::Opt, warning, "m")]),
            PackageLint::new("b", "1-r0", vec![Finding::new(Linter::Dev, required, "m")]),
        ];
        assert_eq!(known_cause(&Ok(outcome)), Some(KnownCause::Lint("dev")));
        let mut outcome = failed();
        outcome.lint = vec![PackageLint::new("a", "1-r0", vec![Finding::new(Linter::Opt, warning, "m")])];
        assert_eq!(known_cause(&Ok(outcome)), None, "a warning is no cause");
    }

    #[test]
    fn lines_are_bounded_in_number_and_bytes() {
        let mut last = LastLines::default();
        let many = vec![(Some(0), LogStream::Stdout, "x"); limits::FAILURE_LINES + 5];
        last.take(&block(1, &many), 0);
        last.take(&block(406, &many[..3]), 0);
        let kept = numbers(&last, 0);
        assert_eq!((kept.len(), kept.first(), kept.last()), (limits::FAILURE_LINES, Some(&9), Some(&408)));
        let long = "y".repeat(limits::LOG_LINE_BYTES_MAX);
        let long = vec![(Some(0), LogStream::Stdout, long.as_str()); limits::FAILURE_LINES];
        last.take(&block(409, &long), 0);
        assert!(last.bytes <= limits::FAILURE_LINES_BYTES_MAX);
        assert_eq!(last.bytes, last.lines.iter().map(|(_, text)| text.len()).sum::<usize>());
        assert_eq!(numbers(&last, 0).last(), Some(&808), "the newest ones stay");
    }

    #[test]
    fn causes_are_known_where_the_engine_knows_them() {
        let failed = |failure| {
            let status = BuildStatus::Failed { reason: "no".to_owned(), failure: Some(failure) };
            known_cause(&Ok(BuildOutcome::without_files(status)))
        };
        for (exit_code, expected) in [
            (1, None),
            (128, None),
            (129, None),
            (137, Some(9)),
            (139, Some(11)),
            (192, Some(64)),
            (255, None),
        ] {
            let told = failed(StepFailure::new("make", exit_code));
            assert_eq!(told, expected.map(KnownCause::Signal), "{exit_code}");
        }
        let starved = StepFailure { out_of_memory: true, ..StepFailure::new("make", 137) };
        assert_eq!(failed(starved), Some(KnownCause::OutOfMemory));
        let gone = |blame, kind| known_cause(&Err(Error::new(kind, "gone").blame(blame)));
        assert_eq!(gone(Blame::Backend, ErrorKind::Unavailable), Some(KnownCause::LostBackend));
        assert_eq!(gone(Blame::Backend, ErrorKind::Unsupported), None);
        assert_eq!(gone(Blame::Farm, ErrorKind::Unavailable), None);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = Error::io("write", std::path::Path::new("/x"), full);
        assert_eq!(known_cause(&Err(full)), Some(KnownCause::Space));
        let starved = Error::unexpected("no").source(Error::unexpected("memory").source(Shortage::Memory));
        assert_eq!(known_cause(&Err(starved)), Some(KnownCause::OutOfMemory));
    }

    #[test]
    fn messages_of_solvers_and_checksums_are_told_as_such() {
        let (lines, package) = (LastLines::default(), "hello");
        let seen = Seen { package, running: None, failed: None, lines: &lines };
        for (message, expected) in [
            ("nothing provides so:libx.so.3", "solver"),
            ("the data of /x/a.apk does not have its recorded digest (found: 00)", "checksum"),
        ] {
            let error = JobError::new(FailureClass::Build, message);
            let told = diagnosis(&error, None, &seen);
            assert_eq!((told.kind.name(), told.text.as_deref()), (expected, Some(message)));
        }
    }
}
