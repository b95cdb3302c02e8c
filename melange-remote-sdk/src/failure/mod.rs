//! What an attempt failed of: a kind, the line that says it, and a signature that is equal for all jobs that failed of
//! the same. Pure.
//!
//! [`diagnose`] is called once, at the end of an attempt, with the last lines of the step that failed. What the engine
//! knows by itself goes before what logs say:
//!
//! ```text
//!  known cause ─────────────────────────▶ kind ┐
//!  lines ─ find: kinds in order, first line ──▶ kind, line ─ normalise ─▶ signature
//!  message, where no step is at fault ────────▶ kind, line ┘
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{FAILURE_LINES, FAILURE_LINES_AFTER, FAILURE_LINES_BEFORE, FAILURE_NORMALISED_BYTES_MAX};

mod find;
mod kind;
mod normalise;
mod phrases;
mod plain;
#[cfg(test)]
mod tests;
mod token;

pub use kind::FailureKind;

use find::{Found, Line};
use normalise::normalise;
pub(crate) use plain::plain;

/// The version of the rules by which signatures are made. Signatures of different versions are not comparable.
pub const SIGNATURE_VERSION: u32 = 1;

/// Hexadecimal digits of a signature: a million of them are without two equal ones but for one chance in thirty million.
const SIGNATURE_DIGITS: usize = 16;

/// Who is at fault when a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The definition or one of its steps; the same input fails again.
    Build,
    /// The farm: a daemon, a disk, the network. Another attempt may succeed.
    Infrastructure,
    /// It took more memory than it may have; the same input may succeed with more.
    Resources,
    /// No backend could ever run it.
    Unschedulable,
    /// A rule of the operator does not allow it.
    Policy,
    /// A job that it waits for did not succeed.
    Dependency,
}

impl FailureClass {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Infrastructure => "infrastructure",
            Self::Resources => "resources",
            Self::Unschedulable => "unschedulable",
            Self::Policy => "policy",
            Self::Dependency => "dependency",
        }
    }
}

/// A line of the failed step's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureLine<'a> {
    /// Its number in the attempt's log.
    pub number: u64,
    /// What the step wrote, escape sequences included.
    pub text: &'a str,
}

/// What the engine knows of a failure without reading logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnownCause<'a> {
    /// The step's process ended by this signal.
    Signal(i32),
    /// The kernel took a process because the memory ran out.
    OutOfMemory,
    /// The time of the build or of the step was over.
    Timeout,
    /// The step wrote nothing for too long.
    Silence,
    /// The backend stopped to answer.
    LostBackend,
    /// A disk of the farm is full.
    Space,
    /// Packages could not be chosen; the message says which.
    Solver,
    /// Something fetched is not what was expected; the message says what.
    Checksum,
    /// This rule about packages was broken.
    Lint(&'a str),
}

/// What [`diagnose`] goes by.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FailureInput<'a> {
    /// Who is at fault.
    pub class: FailureClass,
    /// The step at fault, when a step is: the pipeline that it uses, else its name.
    pub step: Option<&'a str>,
    /// The package that was built; its name makes no difference to the signature.
    pub package: &'a str,
    /// What the engine knows by itself.
    pub known: Option<KnownCause<'a>>,
    /// Why the attempt failed, as the job tells it.
    pub message: &'a str,
    /// The step's lines in order; of more than [`FAILURE_LINES`] the last ones count.
    pub lines: &'a [FailureLine<'a>],
}

impl<'a> FailureInput<'a> {
    /// A failure of which only a message is known.
    pub fn new(class: FailureClass, message: &'a str) -> Self {
        Self { class, step: None, package: "", known: None, message, lines: &[] }
    }
}

/// A line shown with a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractLine {
    /// Its number in the attempt's log.
    pub number: u64,
    /// Its text without escape sequences, at most [`crate::limits::FAILURE_LINE_BYTES`].
    pub text: String,
}

/// What an attempt failed of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The version of the rules, [`SIGNATURE_VERSION`] when it was made.
    pub version: u32,
    /// 16 hexadecimal digits, equal for failures of one class, step, kind and normalised line.
    pub signature: String,
    /// What it is of.
    pub kind: FailureKind,
    /// What is compared of the line that says it: without what differs from run to run, at most
    /// [`FAILURE_NORMALISED_BYTES_MAX`] bytes. Empty when nothing was said.
    pub normalised: String,
    /// The number of that line in the attempt's log; `None` when a message or nothing says it.
    pub line: Option<u64>,
    /// The line as it was, without escape sequences; `None` when nothing says it.
    pub text: Option<String>,
    /// The line with those around it; empty when `line` is `None`.
    pub extract: Vec<ExtractLine>,
}

/// What says it: a place in the log or in the message, with the lines of that.
type Said<'l> = Option<(&'l [Line], Found)>;

/// Tells what an attempt failed of.
///
/// The log counts when a step of the build is at fault; everything else is told by the message. Takes time and memory
/// linear in the lines; never fails, whatever they hold.
///
/// ```
/// use melange_remote_sdk::failure::{FailureClass, FailureInput, FailureKind, FailureLine, diagnose};
/// let lines = [FailureLine { number: 7, text: "src/a.c:12:3: error: unknown type name 'u8'" }];
/// let mut input = FailureInput::new(FailureClass::Build, "the step `make` failed with exit code 2");
/// input.step = Some("autoconf/make");
/// input.lines = &lines;
/// let failure = diagnose(&input);
/// assert_eq!((failure.kind, failure.line), (FailureKind::Compile, Some(7)));
/// assert_eq!(failure.normalised, "src/a.c:<n>: error: unknown type name 'u8'");
/// ```
pub fn diagnose(input: &FailureInput<'_>) -> Failure {
    let newest = input.lines.get(input.lines.len().saturating_sub(FAILURE_LINES)..).unwrap_or_default();
    let log: Vec<Line> = newest.iter().map(|line| Line::new(Some(line.number), line.text)).collect();
    let message: Vec<Line> =
        input.message.lines().take(FAILURE_LINES).map(|line| Line::new(None, line)).collect();
    let (kind, said) = match input.known {
        Some(known) => (known.kind(), known.said(&log, &message)),
        None => {
            let is_told_by_log = input.class == FailureClass::Build && input.step.is_some();
            let lines = if is_told_by_log { log.as_slice() } else { message.as_slice() };
            let found = find::find(lines);
            (
                found.as_ref().map_or(FailureKind::Silent, |found| found.kind),
                found.map(|found| (lines, found)),
            )
        }
    };
    let (lines, found) = match &said {
        Some((lines, found)) => (*lines, Some(found)),
        None => (Default::default(), None),
    };
    let at = found.and_then(|found| lines.get(found.index));
    let normalised = match input.known.and_then(KnownCause::words) {
        Some(words) => token::cut(&words, FAILURE_NORMALISED_BYTES_MAX).to_owned(),
        None => found.map(|found| normalise_found(lines, found, input.package)).unwrap_or_default(),
    };
    Failure {
        version: SIGNATURE_VERSION,
        signature: signature(input, kind, &normalised),
        kind,
        normalised,
        line: at.and_then(|line| line.number),
        text: at.map(|line| line.text.clone()),
        extract: found.map(|found| extract(lines, found.index)).unwrap_or_default(),
    }
}

impl KnownCause<'_> {
    fn kind(self) -> FailureKind {
        match self {
            Self::Signal(_) => FailureKind::Signal,
            Self::OutOfMemory => FailureKind::Memory,
            Self::Timeout | Self::Silence => FailureKind::Timeout,
            Self::LostBackend => FailureKind::LostBackend,
            Self::Space => FailureKind::Space,
            Self::Solver => FailureKind::Solver,
            Self::Checksum => FailureKind::Checksum,
            Self::Lint(_) => FailureKind::Lint,
        }
    }

    /// What is compared in place of a line, for causes that are the same whatever was being done. Names of hosts and
    /// lengths of time in a message would tell equal failures apart.
    fn words(self) -> Option<String> {
        match self {
            Self::Signal(number) => Some(format!("ended by signal {number}")),
            Self::OutOfMemory => Some("out of memory".to_owned()),
            Self::Timeout => Some("took too long".to_owned()),
            Self::Silence => Some("silent for too long".to_owned()),
            Self::LostBackend => Some("backend lost".to_owned()),
            Self::Space => Some("disk full".to_owned()),
            Self::Lint(rule) => Some(plain::plain(rule)),
            Self::Solver | Self::Checksum => None,
        }
    }

    /// What is shown. A step that was ended from outside is shown with the last thing that it said; what a step or the
    /// engine found out by itself, with the line that says so, or with the message.
    fn said<'l>(self, log: &'l [Line], message: &'l [Line]) -> Said<'l> {
        let kind = self.kind();
        let in_log = match self {
            Self::Signal(_) | Self::OutOfMemory | Self::Timeout | Self::Silence | Self::LostBackend => {
                find::last(log).map(|index| Found { index, continues: None, kind })
            }
            Self::Space | Self::Solver | Self::Checksum => find::find_of(log, kind),
            Self::Lint(_) => None,
        };
        let in_message = || find::find_of(message, kind).or_else(|| find::find(message));
        in_log.map(|found| (log, found)).or_else(|| Some((message, in_message()?)))
    }
}

fn normalise_found(lines: &[Line], found: &Found, package: &str) -> String {
    let part = |index: usize| lines.get(index).map(|line| normalise(&line.text, package)).unwrap_or_default();
    let mut normalised = part(found.index);
    if let Some(next) = found.continues {
        normalised = format!("{normalised} {}", part(next));
    }
    if let Some(address) = find::request(lines, found.index).and_then(|line| token::first_url(&line.text)) {
        normalised = format!("{normalised} {address}");
    }
    token::cut(&normalised, FAILURE_NORMALISED_BYTES_MAX).trim_end().to_owned()
}

/// The line at `index` with those around it.
fn extract(lines: &[Line], index: usize) -> Vec<ExtractLine> {
    let first = index.saturating_sub(FAILURE_LINES_BEFORE);
    let around = lines.iter().skip(first).take(index - first + 1 + FAILURE_LINES_AFTER);
    around
        .filter_map(|line| line.number.map(|number| ExtractLine { number, text: line.text.clone() }))
        .collect()
}

/// The digest of what failures of one group have in common. The parts are divided by NUL characters: only the step's
/// name could hold one, and it has parts of known forms on both its sides.
fn signature(input: &FailureInput<'_>, kind: FailureKind, normalised: &str) -> String {
    let version = SIGNATURE_VERSION.to_string();
    let step = normalise(input.step.unwrap_or_default(), input.package);
    let parts = [version.as_str(), input.class.name(), step.as_str(), kind.name(), normalised];
    let mut signature = hex::encode(Sha256::digest(parts.join("\0")));
    signature.truncate(SIGNATURE_DIGITS);
    signature
}
