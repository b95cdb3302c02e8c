//! One attempt of a job: what it came to, and what it showed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JobBackend, JobError, JobStepFailure, LogArchive, ServerId};
use crate::analysis::lint::PackageLint;
use crate::failure::Failure;
use crate::limits;

/// One attempt of a job. What it showed stays, whatever later attempts come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAttempt {
    /// Its number, from 1.
    pub number: u32,
    /// The server that ran it.
    pub server: Option<ServerId>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// Whether it counts towards the bound on attempts.
    pub counts: bool,
    /// Why it failed, was given back or was lost.
    pub error: Option<JobError>,
    /// What it failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Where it ran.
    pub backend: Option<JobBackend>,
    /// Its steps, at most [`crate::limits::STEPS_RECORDED_MAX`].
    pub steps: Vec<JobStep>,
    /// Time spent in its phases, in order.
    pub phases: Vec<JobPhase>,
    /// What linters found in its packages, at most [`limits::LINT_FINDINGS_MAX`] findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lint: Vec<PackageLint>,
    /// Its tests, in order.
    pub tests: Vec<JobTest>,
    /// The most memory that one of its guests used at a time, in bytes, files that it read included; `None` where nobody
    /// counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Where its part of the job's log begins in the job store, in bytes of what it keeps.
    pub log_begin: u64,
    /// Where that ends; `None` while it runs.
    pub log_end: Option<u64>,
    /// Its log among the artifacts; `None` while the job store has it.
    #[serde(default)]
    pub log: Option<LogArchive>,
    /// When its log was removed.
    #[serde(default)]
    pub log_removed_at: Option<Timestamp>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It runs.
    Running,
    /// The job made its packages.
    Success,
    /// The job failed with it.
    Failed,
    /// It was stopped as asked.
    Cancelled,
    /// It gave the job back to the queue.
    GivenBack,
    /// Its lease ended without a word.
    Lost,
}

impl AttemptOutcome {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::GivenBack => "given_back",
            Self::Lost => "lost",
        }
    }
}

/// A step of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStep {
    /// Its position, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// When it began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// How long it took in milliseconds; `None` while it runs, and when it was broken off.
    pub took_ms: Option<u64>,
    /// Its exit code; a step that a signal ended has 128 plus the signal's number. `None` while it runs, and when it was
    /// broken off.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Whether its result was there already.
    pub cached: bool,
}

/// The test of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTest {
    /// Its position among the tests, from 0.
    pub index: usize,
    /// The package under test.
    pub package: String,
    /// Where it is.
    pub state: JobTestState,
    /// Why it failed, in one line.
    pub error: Option<String>,
    /// The step at fault, when a step is.
    pub step: Option<JobStepFailure>,
    /// How long it took in milliseconds, its environment included.
    pub took_ms: Option<u64>,
    /// The number of the first line of its part of the attempt's log.
    pub first_line: u64,
    /// The number of the last one; `None` while the test runs.
    pub last_line: Option<u64>,
}

/// Where a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobTestState {
    /// It runs, or its attempt ended before it did.
    Running,
    /// Every step ended well.
    Passed,
    /// A step ended badly, or the environment could not be made.
    Failed,
}

impl JobTestState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// Time spent in a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPhase {
    /// The phase's name, as [`crate::builder::Phase::name`].
    pub name: String,
    /// How long it took in milliseconds.
    pub took_ms: u64,
}

/// Something that an attempt tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// A phase ended.
    PhaseFinished {
        /// Which one, and how long it took.
        phase: JobPhase,
    },
    /// A step began.
    StepStarted {
        /// Its position, from 0.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A step ended well.
    StepFinished {
        /// Its position, from 0.
        index: usize,
        /// How long it took in milliseconds.
        took_ms: u64,
        /// Whether its result was there already.
        cached: bool,
    },
    /// The step that runs ended badly.
    StepFailed {
        /// Its exit code.
        exit_code: i32,
    },
    /// Linters found something in a package.
    Linted {
        /// What.
        report: PackageLint,
    },
    /// The most memory that a guest used at a time.
    MemoryPeak {
        /// In bytes.
        bytes: u64,
    },
    /// The test of a package began.
    TestStarted {
        /// Its position among the tests, from 0.
        index: usize,
        /// The package under test.
        package: String,
        /// How many lines the attempt's log had.
        lines: u64,
    },
    /// The test of a package ended.
    TestFinished {
        /// Its position among the tests, from 0.
        index: usize,
        /// How long it took in milliseconds.
        took_ms: u64,
        /// Why it failed; `None` when it passed.
        error: Option<String>,
        /// The step at fault, when a step is.
        step: Option<JobStepFailure>,
        /// How many lines the attempt's log had.
        lines: u64,
    },
}

/// A [`Progress`] with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRow {
    /// When.
    pub at: Timestamp,
    /// What.
    pub progress: Progress,
}

impl Progress {
    /// The same with the number of lines that the attempt's log has, where it tells of it.
    #[must_use]
    pub fn behind_lines(mut self, count: u64) -> Self {
        if let Self::TestStarted { lines, .. } | Self::TestFinished { lines, .. } = &mut self {
            *lines = count;
        }
        self
    }
}

impl JobAttempt {
    /// An attempt that begins.
    pub fn begin(
        number: u32,
        server: Option<ServerId>,
        backend: Option<JobBackend>,
        started_at: Timestamp,
    ) -> Self {
        Self {
            number,
            server,
            started_at,
            ended_at: None,
            outcome: AttemptOutcome::Running,
            counts: true,
            error: None,
            failure: None,
            backend,
            steps: Vec::new(),
            phases: Vec::new(),
            lint: Vec::new(),
            tests: Vec::new(),
            peak_memory_bytes: None,
            log_begin: 0,
            log_end: None,
            log: None,
            log_removed_at: None,
        }
    }

    /// Adds what the attempt tells. What is above [`limits::STEPS_RECORDED_MAX`] and
    /// [`limits::LINT_FINDINGS_MAX`] is left out.
    pub fn apply(&mut self, row: ProgressRow) {
        let ProgressRow { at, progress } = row;
        match progress {
            Progress::PhaseFinished { phase } => {
                self.phases.retain(|known| known.name != phase.name);
                self.phases.push(phase);
            }
            Progress::StepStarted { index, name } => {
                if self.steps.len() < limits::STEPS_RECORDED_MAX {
                    let (started_at, took_ms, exit_code) = (Some(at), None, None);
                    self.steps.push(JobStep { index, name, started_at, took_ms, exit_code, cached: false });
                }
            }
            Progress::StepFinished { index, took_ms, cached } => {
                // The step that ends is nearly always the last one that began.
                if let Some(step) = self.steps.iter_mut().rev().find(|step| step.index == index) {
                    (step.took_ms, step.exit_code) = (Some(took_ms), Some(0));
                    step.cached = cached;
                }
            }
            Progress::StepFailed { exit_code } => {
                if let Some(step) = self.steps.last_mut().filter(|step| step.took_ms.is_none()) {
                    let begun = step.started_at.unwrap_or(at);
                    let took = at.duration_since(begun).as_millis();
                    step.took_ms = Some(u64::try_from(took).unwrap_or(0));
                    step.exit_code = Some(exit_code);
                }
            }
            Progress::Linted { report } => {
                let known: usize = self.lint.iter().map(|lint| lint.findings.len()).sum();
                if known.saturating_add(report.findings.len()) <= limits::LINT_FINDINGS_MAX {
                    self.lint.push(report);
                }
            }
            Progress::MemoryPeak { bytes } => {
                self.peak_memory_bytes = self.peak_memory_bytes.max(Some(bytes));
            }
            Progress::TestStarted { index, package, lines } => {
                if self.tests.len() < limits::STEPS_RECORDED_MAX {
                    let state = JobTestState::Running;
                    let (error, step, took_ms, last_line) = (None, None, None, None);
                    let first_line = lines.saturating_add(1);
                    self.tests.push(JobTest {
                        index,
                        package,
                        state,
                        error,
                        step,
                        took_ms,
                        first_line,
                        last_line,
                    });
                }
            }
            Progress::TestFinished { index, took_ms, error, step, lines } => {
                if let Some(test) = self.tests.iter_mut().rev().find(|test| test.index == index) {
                    test.state = if error.is_some() { JobTestState::Failed } else { JobTestState::Passed };
                    (test.error, test.step) = (error, step);
                    test.took_ms = Some(took_ms);
                    test.last_line = Some(lines);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailureClass, FailureInput, diagnose};

    /// Job stores hold documents that were written before packages were linted.
    #[test]
    fn documents_without_lint_are_read_and_findings_are_bounded() {
        use crate::analysis::lint::{Finding, LintDetails, LintSeverity, Linter};
        let mut attempt = JobAttempt::begin(1, None, None, Timestamp::UNIX_EPOCH);
        let document = serde_json::to_string(&attempt).unwrap();
        assert!(!document.contains("lint"), "{document}");
        assert_eq!(serde_json::from_str::<JobAttempt>(&document).unwrap(), attempt);
        let details = LintDetails::Paths { paths: vec!["dev/x".to_owned()] };
        let finding =
            Finding::new(Linter::Dev, LintSeverity::Required, "a writes to /dev").with_details(details);
        let report = |count| PackageLint::new("a", "1-r0", vec![finding.clone(); count]);
        let tell = |attempt: &mut JobAttempt, report| {
            attempt.apply(ProgressRow { at: Timestamp::UNIX_EPOCH, progress: Progress::Linted { report } });
        };
        tell(&mut attempt, report(1));
        tell(&mut attempt, report(limits::LINT_FINDINGS_MAX));
        tell(&mut attempt, report(limits::LINT_FINDINGS_MAX - 1));
        let counts: Vec<usize> = attempt.lint.iter().map(|lint| lint.findings.len()).collect();
        assert_eq!(counts, [1, limits::LINT_FINDINGS_MAX - 1]);
        let document = serde_json::to_string(&attempt).unwrap();
        assert_eq!(serde_json::from_str::<JobAttempt>(&document).unwrap(), attempt);
    }

    /// Job stores hold documents that were written before it was known what attempts failed of.
    #[test]
    fn documents_without_what_an_attempt_failed_of_are_read() {
        let error = JobError::new(FailureClass::Build, "make failed");
        let mut attempt = JobAttempt::begin(1, None, None, Timestamp::UNIX_EPOCH);
        attempt.error = Some(error.clone());
        let document = serde_json::to_string(&attempt).unwrap();
        assert!(!document.contains("failure"), "{document}");
        assert_eq!(serde_json::from_str::<JobAttempt>(&document).unwrap(), attempt);
        let failure = diagnose(&FailureInput::new(error.class, &error.message));
        attempt.failure = Some(failure.clone());
        let document = serde_json::to_string(&attempt).unwrap();
        assert_eq!(serde_json::from_str::<JobAttempt>(&document).unwrap(), attempt);
        let error = error.with_failure(failure);
        let document = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<JobError>(&document).unwrap(), error);
    }
}
