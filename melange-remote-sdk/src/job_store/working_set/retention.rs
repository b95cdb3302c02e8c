//! Ended jobs by the time of their end, and what is removed of them.

use std::hash::Hash;
use std::ops::Bound;
use std::time::Duration;

use super::*;
use crate::arch::Arch;
use crate::job::{ResultDigest, SourceDigest};
use crate::job_store::listing::{PackageDuration, median};
use crate::job_store::retention::{EndedJob, EndedPlace, EndedQuery, Holding, Usage};

/// What [`EndedJob::is_newest`] compares.
type Kind = (Project, String, Arch);

/// The jobs that have ended, oldest first.
#[derive(Debug, Default)]
pub(in crate::job_store) struct Ended {
    by_time: BTreeSet<EndedPlace>,
    successes: HashMap<Kind, BTreeSet<EndedPlace>>,
    by_result: HashMap<(Project, ResultDigest), BTreeSet<EndedPlace>>,
}

fn kind(job: &Job) -> Kind {
    (job.project.clone(), job.title().to_owned(), job.facts.arch)
}

fn place_of(job: &Job) -> Option<EndedPlace> {
    job.finished_at.map(|finished_at| EndedPlace { finished_at, job: job.id })
}

/// Takes a place out of those of a key.
fn remove<K: Eq + Hash>(places: &mut HashMap<K, BTreeSet<EndedPlace>>, key: &K, place: EndedPlace) {
    if let Some(known) = places.get_mut(key) {
        known.remove(&place);
        if known.is_empty() {
            places.remove(key);
        }
    }
}

impl Ended {
    /// Takes in a job that has ended.
    pub(super) fn add(&mut self, job: &Job) {
        let Some(place) = place_of(job) else { return };
        self.by_time.insert(place);
        if job.state == JobState::Success {
            self.successes.entry(kind(job)).or_default().insert(place);
            if let Some(result) = job.result {
                self.by_result.entry((job.project.clone(), result)).or_default().insert(place);
            }
        }
    }

    /// Takes out a job that had ended.
    pub(super) fn take(&mut self, job: &Job) {
        let Some(place) = place_of(job) else { return };
        self.by_time.remove(&place);
        remove(&mut self.successes, &kind(job), place);
        if let Some(result) = job.result {
            remove(&mut self.by_result, &(job.project.clone(), result), place);
        }
    }

    /// What packages of a project took for an architecture, by their names.
    pub(super) fn durations(
        &self,
        project: &Project,
        arch: Arch,
        jobs: &BTreeMap<JobId, Entry>,
    ) -> Vec<PackageDuration> {
        let mut told = Vec::new();
        for ((of, package, for_arch), places) in &self.successes {
            if of == project && *for_arch == arch {
                let newest = places.iter().rev().filter_map(|place| jobs.get(&place.job));
                let took = newest.filter_map(|entry| took(&entry.job)).take(limits::DURATIONS_OF_PACKAGE);
                let median = median(took.collect());
                told.extend(median.map(|took| PackageDuration::new(package.clone(), took)));
            }
        }
        told.sort_by(|a, b| a.package.cmp(&b.package));
        told.truncate(limits::DURATIONS_MAX);
        told
    }

    fn is_newest(&self, job: &Job) -> bool {
        let newest = self.successes.get(&kind(job)).and_then(BTreeSet::last);
        job.state == JobState::Success && newest.is_some_and(|newest| newest.job == job.id)
    }
}

/// What the attempt took that made a job's packages, to a millisecond; `None` of a job that made none.
pub(in crate::job_store) fn took(job: &Job) -> Option<Duration> {
    let is_made = job.state == JobState::Success && job.reused.is_none() && job.note.is_none();
    let (began, ended) = job.started_at.zip(job.finished_at).filter(|_| is_made)?;
    let millis = u64::try_from(ended.duration_since(began).as_millis()).unwrap_or(0);
    Some(Duration::from_millis(millis))
}

/// The bytes of the artifacts that a job has.
pub(in crate::job_store) fn artifact_bytes(job: &Job) -> u64 {
    if job.artifacts_removed_at.is_some() {
        return 0;
    }
    job.artifacts.iter().fold(0, |sum, artifact| sum.saturating_add(artifact.size_bytes))
}

fn log_bytes(attempts: &[JobAttempt]) -> u64 {
    let kept = attempts.iter().filter(|attempt| attempt.log_removed_at.is_none());
    let logs = kept.filter_map(|attempt| attempt.log.as_ref());
    logs.fold(0, |sum, log| sum.saturating_add(log.stored_bytes))
}

/// Notes that the log of an attempt was removed.
pub(in crate::job_store) fn note_log_removed(attempt: &mut JobAttempt, at: Timestamp) {
    attempt.log_removed_at.get_or_insert(at);
}

/// That no more source files are asked about than may be.
pub(in crate::job_store) fn check_sources(sources: &[SourceDigest]) -> Result<()> {
    let most = limits::PAGE_ITEMS_MAX;
    if sources.len() > most {
        return Err(Error::invalid(format!("more than {most} source files in a call")));
    }
    Ok(())
}

impl WorkingSet {
    /// As [`JobReading::needed_sources`](crate::job_store::JobReading::needed_sources).
    ///
    /// # Errors
    /// As there.
    pub fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        check_sources(sources)?;
        let asked: HashSet<SourceDigest> = sources.iter().copied().collect();
        let unfinished = self.jobs.values().filter(|entry| entry.job.state != JobState::Success);
        let named = unfinished.filter_map(|entry| entry.job.facts.source);
        Ok(named.filter(|source| asked.contains(source)).collect())
    }

    /// As [`JobIntake::remove`](crate::job_store::JobIntake::remove).
    ///
    /// # Errors
    /// As there.
    pub fn remove(&mut self, id: JobId) -> Result<()> {
        let entry = self.entry(id)?;
        if !entry.job.state.is_terminal() {
            return Err(conflict(id, "the job has not finished").hint("cancel it first"));
        }
        self.forget(id);
        Ok(())
    }

    /// As [`JobIntake::note_removed`](crate::job_store::JobIntake::note_removed). The store forgets all bytes that it has
    /// of the job's log when that is what was removed.
    ///
    /// # Errors
    /// As there.
    pub fn note_removed(&mut self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        let entry = self.entry_mut(id)?;
        let Some(finished_at) = entry.job.finished_at.filter(|_| entry.job.state.is_terminal()) else {
            return Err(conflict(id, "the job has not finished"));
        };
        // Whoever removes looked at his own clock.
        let at = at.max(finished_at);
        let job = Arc::make_mut(&mut entry.job);
        let noted = match what {
            Holding::Artifacts => &mut job.artifacts_removed_at,
            Holding::Logs => &mut job.log_removed_at,
        };
        if noted.is_some() {
            return Ok(());
        }
        *noted = Some(at);
        if what == Holding::Logs {
            entry.attempts.iter_mut().for_each(|attempt| note_log_removed(attempt, at));
            let bytes = entry.log_bytes.saturating_sub(entry.forgotten_bytes);
            entry.forgotten_bytes = entry.log_bytes;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.finished_bytes = self.finished_bytes.saturating_sub(bytes);
            self.changes.logs.insert(id);
        }
        self.changes.jobs.insert(id);
        Ok(())
    }

    /// As [`JobReading::ended`](crate::job_store::JobReading::ended).
    pub fn ended(&self, query: &EndedQuery) -> Vec<EndedJob> {
        let from = query.behind.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.ended.by_time.range((from, Bound::Unbounded));
        let entries = places.filter_map(|place| self.jobs.get(&place.job));
        let told = entries.filter_map(|entry| self.ended_job(entry)).filter(|job| match query.holding {
            None => true,
            Some(Holding::Artifacts) => job.artifact_bytes > 0,
            Some(Holding::Logs) => job.log_bytes > 0,
        });
        told.take(query.limit.min(limits::PAGE_ITEMS_MAX)).collect()
    }

    fn ended_job(&self, entry: &Entry) -> Option<EndedJob> {
        let job = &entry.job;
        let build = job.build.and_then(|id| self.builds.get(&id));
        Some(EndedJob {
            id: job.id,
            project: job.project.clone(),
            package: job.title().to_owned(),
            arch: job.facts.arch,
            state: job.state,
            build: job.build,
            build_is_open: build.is_some_and(|(build, _)| !build.is_finished()),
            is_newest: self.ended.is_newest(job),
            attempt: job.attempt,
            finished_at: job.finished_at?,
            artifact_bytes: artifact_bytes(job),
            log_bytes: log_bytes(&entry.attempts),
            artifacts_removed_at: job.artifacts_removed_at,
            log_removed_at: job.log_removed_at,
        })
    }

    /// As [`JobReading::is_needed`](crate::job_store::JobReading::is_needed).
    ///
    /// # Errors
    /// As there.
    pub fn is_needed(&self, id: JobId) -> Result<bool> {
        self.entry(id)?;
        let open = [JobState::Blocked, JobState::Pending, JobState::Running];
        let mut next: Vec<JobId> =
            open.iter().flat_map(|state| &self.by_state[state.index()]).copied().collect();
        let mut seen = HashSet::new();
        // From those that have not ended downwards: there are fewer of them.
        while let Some(entry) = next.pop().and_then(|id| self.jobs.get(&id)) {
            for need in &entry.waits_for {
                if *need == id {
                    return Ok(true);
                }
                if seen.insert(*need) && self.jobs.contains_key(need) {
                    next.push(*need);
                }
            }
        }
        Ok(false)
    }

    /// As [`JobReading::with_result`](crate::job_store::JobReading::with_result).
    pub fn with_result(&self, project: &Project, result: ResultDigest) -> Option<Arc<Job>> {
        let places = self.ended.by_result.get(&(project.clone(), result))?;
        let mut entries = places.iter().rev().filter_map(|place| self.jobs.get(&place.job));
        let kept = entries.find(|entry| entry.job.artifacts_removed_at.is_none())?;
        Some(self.told(kept))
    }

    /// As [`JobReading::durations`](crate::job_store::JobReading::durations).
    pub fn durations(&self, project: &Project, arch: Arch) -> Vec<PackageDuration> {
        self.ended.durations(project, arch, &self.jobs)
    }

    /// As [`JobReading::usage`](crate::job_store::JobReading::usage).
    pub fn usage(&self) -> Usage {
        let entries = self.ended.by_time.iter().filter_map(|place| self.jobs.get(&place.job));
        entries.fold(Usage::default(), |sum, entry| Usage {
            jobs: sum.jobs.saturating_add(1),
            artifact_bytes: sum.artifact_bytes.saturating_add(artifact_bytes(&entry.job)),
            log_bytes: sum.log_bytes.saturating_add(log_bytes(&entry.attempts)),
        })
    }
}
