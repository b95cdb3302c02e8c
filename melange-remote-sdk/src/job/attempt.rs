//! One attempt of a job: what it came to, and what it showed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JobBackend, JobError, JobStepFailure, ServerId};
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
    /// Where it ran.
    pub backend: Option<JobBackend>,
    /// Its steps, at most [`crate::limits::STEPS_RECORDED_MAX`].
    pub steps: Vec<JobStep>,
    /// Time spent in its phases, in order.
    pub phases: Vec<JobPhase>,
    /// Its tests, in order.
    pub tests: Vec<JobTest>,
    /// Where its part of the job's log begins, in bytes.
    pub log_begin: u64,
    /// Where that ends; `None` while it runs.
    pub log_end: Option<u64>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How long it took in milliseconds; `None` while it runs or when it did not end well.
    pub took_ms: Option<u64>,
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
    /// Where its part of the job's log begins, in bytes.
    pub log_begin: u64,
    /// Where it ends; `None` while the test runs.
    pub log_end: Option<u64>,
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
    /// The test of a package began.
    TestStarted {
        /// Its position among the tests, from 0.
        index: usize,
        /// The package under test.
        package: String,
        /// How long the log was.
        log_offset: u64,
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
        /// How long the log was.
        log_offset: u64,
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
    /// The same with the length of the log, where it tells of it.
    #[must_use]
    pub fn at_log_offset(mut self, length: u64) -> Self {
        if let Self::TestStarted { log_offset, .. } | Self::TestFinished { log_offset, .. } = &mut self {
            *log_offset = length;
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
            backend,
            steps: Vec::new(),
            phases: Vec::new(),
            tests: Vec::new(),
            log_begin: 0,
            log_end: None,
        }
    }

    /// Adds what the attempt tells. What is above [`limits::STEPS_RECORDED_MAX`] is left out.
    pub fn apply(&mut self, progress: Progress) {
        match progress {
            Progress::PhaseFinished { phase } => {
                self.phases.retain(|known| known.name != phase.name);
                self.phases.push(phase);
            }
            Progress::StepStarted { index, name } => {
                if self.steps.len() < limits::STEPS_RECORDED_MAX {
                    self.steps.push(JobStep { index, name, took_ms: None, cached: false });
                }
            }
            Progress::StepFinished { index, took_ms, cached } => {
                // The step that ends is nearly always the last one that began.
                if let Some(step) = self.steps.iter_mut().rev().find(|step| step.index == index) {
                    step.took_ms = Some(took_ms);
                    step.cached = cached;
                }
            }
            Progress::TestStarted { index, package, log_offset: log_begin } => {
                if self.tests.len() < limits::STEPS_RECORDED_MAX {
                    let state = JobTestState::Running;
                    let (error, step, took_ms, log_end) = (None, None, None, None);
                    self.tests.push(JobTest {
                        index,
                        package,
                        state,
                        error,
                        step,
                        took_ms,
                        log_begin,
                        log_end,
                    });
                }
            }
            Progress::TestFinished { index, took_ms, error, step, log_offset } => {
                if let Some(test) = self.tests.iter_mut().rev().find(|test| test.index == index) {
                    test.state = if error.is_some() { JobTestState::Failed } else { JobTestState::Passed };
                    (test.error, test.step) = (error, step);
                    test.took_ms = Some(took_ms);
                    test.log_end = Some(log_offset);
                }
            }
        }
    }
}
