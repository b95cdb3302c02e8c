//! Logs on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ErrorBody;
use crate::builder::LogStream;
use crate::job::JobAttempt;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLineView {
    /// The number of its attempt.
    pub attempt: u32,
    /// Its number in the log of the attempt, from 1.
    pub n: u64,
    /// When it was read, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// The index of the step that wrote it, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// `stdout`, `stderr` or `engine`.
    pub stream: String,
    /// Its text, without the newline.
    pub text: String,
}

impl LogLineView {
    /// A line of an attempt.
    pub fn new(
        attempt: u32,
        n: u64,
        time: Timestamp,
        step: Option<u32>,
        stream: LogStream,
        text: impl Into<String>,
    ) -> Self {
        Self { attempt, n, time, step, stream: stream.name().to_owned(), text: text.into() }
    }
}

/// Lines in a row of the log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLinesView {
    /// The number of the attempt.
    pub attempt: u32,
    /// The lines.
    pub lines: Vec<LogLineView>,
}

/// What is told when a followed log has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogStateView {
    /// The status of the job, unless it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// A message of a followed log over a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LogMessage {
    /// Lines.
    Lines {
        /// The place behind them, at which `since` goes on.
        position: String,
        /// The lines.
        #[serde(flatten)]
        lines: LogLinesView,
    },
    /// The log has ended.
    End(LogStateView),
    /// The log broke off.
    Error(ErrorBody),
}

/// How long the log of an attempt is, and where the lines of its steps are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogOutlineView {
    /// The number of the attempt.
    pub attempt: u32,
    /// How many lines there are.
    pub lines: u64,
    /// How many bytes of text, each line with its newline.
    pub bytes: u64,
    /// Whether the attempt has ended.
    pub complete: bool,
    /// The steps that wrote lines, in order.
    pub steps: Vec<StepLinesView>,
}

/// Where the lines of a step are. Lines of others may stand between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepLinesView {
    /// The index of the step, from 0.
    pub step: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of its first line.
    pub first: u64,
    /// The number of its last line.
    pub last: u64,
}

impl StepLinesView {
    /// Where the lines of a step of an attempt are.
    pub fn new(attempt: &JobAttempt, lines: crate::job::StepLines) -> Self {
        let known = attempt.steps.iter().rev().find(|step| u32::try_from(step.index) == Ok(lines.step));
        let name = known.map(|step| step.name.clone());
        Self { step: lines.step, name, first: lines.first, last: lines.last }
    }
}

/// Lines that were found in the log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogHitsView {
    /// The number of the attempt.
    pub attempt: u32,
    /// How many lines match, as far as was looked.
    pub total: u64,
    /// How many of them each step wrote.
    pub per_step: Vec<StepHitsView>,
    /// The first of them.
    pub hits: Vec<LogHitView>,
    /// The number of the last line that was looked at.
    pub searched: u64,
    /// The line behind which the search goes on, when it ran out of time before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// How many lines of a step match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepHitsView {
    /// The index of the step; none for lines of no step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// How many.
    pub total: u64,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogHitView {
    /// Its number.
    pub n: u64,
    /// The index of its step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Its text, without escape sequences.
    pub text: String,
}
