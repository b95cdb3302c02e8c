//! What is handed in, and what that came to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::job::{BuildFacts, BuildId, JobId, JobSpec, Priority, Project};
use crate::limits;

/// A job to hand in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// What is asked.
    pub spec: Arc<JobSpec>,
    /// How urgent it is.
    pub priority: Priority,
    /// Among equally urgent jobs the greater ones first.
    pub rank: i64,
    /// Jobs that must succeed before it begins: of the same submission, or of the same project and there already.
    pub waits_for: Vec<JobId>,
}

impl NewJob {
    /// A job of the usual priority that waits for no other.
    pub fn new(id: JobId, spec: Arc<JobSpec>) -> Self {
        Self { id, spec, priority: Priority::default(), rank: 0, waits_for: Vec::new() }
    }

    /// The same job, waiting for others.
    #[must_use]
    pub fn waiting_for(mut self, jobs: impl IntoIterator<Item = JobId>) -> Self {
        self.waits_for.extend(jobs);
        self
    }
}

/// Jobs that are handed in together: all of them are there afterwards, or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Submission {
    /// Whose they are.
    pub project: Project,
    /// Names the submission within the project, so that a repeated one makes no second jobs; at most
    /// [`limits::IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub key: Option<String>,
    /// The build that they make up.
    pub build: Option<BuildId>,
    /// What is known of that build from the beginning.
    #[serde(default)]
    pub facts: Arc<BuildFacts>,
    /// The jobs; at least one, at most [`limits::SUBMISSION_JOBS_MAX`].
    pub jobs: Vec<NewJob>,
    /// Makes no jobs when the newest submission with the same content was handed in at this moment or later and none of
    /// its jobs failed, was skipped, removed or asked to stop: its jobs are the answer. Whoever joins leaves no trace, a
    /// key neither.
    pub joins_since: Option<Timestamp>,
    /// When they were handed in.
    pub at: Timestamp,
}

impl Submission {
    /// Jobs of the default project.
    pub fn new(jobs: impl IntoIterator<Item = NewJob>, at: Timestamp) -> Self {
        let (project, jobs) = (Project::default(), jobs.into_iter().collect());
        Self { project, key: None, build: None, facts: Arc::default(), jobs, joins_since: None, at }
    }

    /// The same submission with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same submission as a build.
    #[must_use]
    pub fn as_build(mut self, build: BuildId) -> Self {
        self.build = Some(build);
        self
    }

    /// The same submission, with what is known of its build.
    #[must_use]
    pub fn with_facts(mut self, facts: impl Into<Arc<BuildFacts>>) -> Self {
        self.facts = facts.into();
        self
    }

    /// The same submission, joining an equal one that is no older than this.
    #[must_use]
    pub fn joining_within(mut self, age: Duration) -> Self {
        // An age that reaches before all times joins whatever there is.
        self.joins_since = Some(self.at.checked_sub(age).unwrap_or(Timestamp::MIN));
        self
    }

    /// The same submission in another project.
    #[must_use]
    pub fn in_project(mut self, project: Project) -> Self {
        self.project = project;
        self
    }

    /// A digest of what is asked, which submissions with the same content share whatever ids their jobs have.
    pub fn content(&self) -> [u8; 32] {
        let places: HashMap<JobId, usize> =
            self.jobs.iter().enumerate().map(|(place, job)| (job.id, place)).collect();
        let place = |id: &JobId| match places.get(id) {
            Some(place) => format!("#{place}"),
            None => id.to_string(),
        };
        let mut digest = Sha256::new();
        // The version of what follows: the stored form of a spec, and the order of the fields.
        digest.update(b"1");
        let mut add = |text: &str| {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        };
        add(self.project.as_str());
        add(if self.build.is_some() { "build" } else { "jobs" });
        for job in &self.jobs {
            // The stored form has its maps in order, so that equal specs have equal texts.
            add(&serde_json::to_string(&*job.spec).unwrap_or_default());
            add(&format!("{} {} {}", job.priority.get(), job.rank, job.waits_for.len()));
            job.waits_for.iter().map(place).for_each(|place| add(&place));
        }
        digest.finalize().into()
    }

    /// Checks what needs no store: bounds, keys, ids that come twice, jobs that wait for themselves.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check(&self) -> Result<()> {
        let (jobs, most) = (self.jobs.len(), limits::SUBMISSION_JOBS_MAX);
        if !(1..=most).contains(&jobs) {
            return Err(Error::invalid(format!("a submission has 1 to {most} jobs, not {jobs}")));
        }
        if let Some(key) = &self.key
            && !(1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        {
            let bound = limits::IDEMPOTENCY_KEY_BYTES_MAX;
            return Err(Error::invalid(format!("an idempotency key has 1 to {bound} bytes")));
        }
        if let Some(job) = self.jobs.iter().find(|job| job.waits_for.len() > limits::WAITS_FOR_MAX) {
            let message = format!("a job waits for at most {} others", limits::WAITS_FOR_MAX);
            return Err(Error::invalid(message).with("job", job.id));
        }
        let waits: usize = self.jobs.iter().map(|job| job.waits_for.len()).sum();
        if waits > limits::SUBMISSION_WAITS_MAX {
            let message = format!("{waits} waits, more than {}", limits::SUBMISSION_WAITS_MAX);
            return Err(Error::invalid(message));
        }
        self.order().map(drop)
    }

    /// The places of the jobs, each behind those that it waits for.
    ///
    /// # Errors
    /// `InvalidRequest` for ids that come twice and for jobs that wait for themselves, perhaps by way of others.
    pub fn order(&self) -> Result<Vec<usize>> {
        let mut places = HashMap::new();
        for (place, job) in self.jobs.iter().enumerate() {
            if places.insert(job.id, place).is_some() {
                return Err(Error::invalid("two jobs of the submission have one id").with("job", job.id));
            }
        }
        let inside = |job: &NewJob| -> BTreeSet<usize> {
            job.waits_for.iter().filter_map(|id| places.get(id).copied()).collect()
        };
        let mut dependents = vec![Vec::new(); self.jobs.len()];
        let mut left: Vec<usize> = Vec::new();
        for (place, job) in self.jobs.iter().enumerate() {
            let needs = inside(job);
            left.push(needs.len());
            needs.into_iter().for_each(|need| dependents[need].push(place));
        }
        let mut order: Vec<usize> = (0..left.len()).filter(|place| left[*place] == 0).collect();
        let mut next = 0;
        while let Some(place) = order.get(next).copied() {
            next += 1;
            for dependent in &dependents[place] {
                left[*dependent] -= 1;
                if left[*dependent] == 0 {
                    order.push(*dependent);
                }
            }
        }
        match left.iter().position(|left| *left > 0) {
            Some(place) => {
                let error = Error::invalid("jobs wait for one another in a circle");
                Err(error.with("job", self.jobs[place].id).hint("leave out one of the waits of the circle"))
            }
            None => Ok(order),
        }
    }
}

/// What a submission came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// Whether the jobs are new.
    pub created: bool,
    /// The jobs, new or known, in the order of the submission.
    pub jobs: Vec<JobId>,
    /// The build, new or known.
    pub build: Option<BuildId>,
}

impl Submitted {
    /// New jobs.
    pub fn new(jobs: Vec<JobId>, build: Option<BuildId>) -> Self {
        Self { created: true, jobs, build }
    }
}
