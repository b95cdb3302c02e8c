//! What must be true once nothing fails any more: jobs move, and in the end all of them have ended, with whole logs and
//! all of their artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::builder::{content, line};
use super::servers::{Present, Server};
use super::world::{World, short};
use crate::artifact_storage::ArtifactStorage;
use crate::artifact_storage::layout::artifact_key;
use crate::backend_selector::Candidate;
use crate::error::Error;
use crate::job::{AttemptOutcome, Job, JobAttempt, JobId, JobState};
use crate::job_log::{JobLogs, LogQuery};
use crate::job_store::{Group, JobReading, Subject};
use crate::limits;

/// How often the farm is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// How long a job may wait while a slot is free, or a request to stop may take to be heard.
const SLACK: Duration = Duration::from_secs(5);

/// What has lasted since when.
#[derive(Debug, Default)]
pub(super) struct Watch {
    since: BTreeMap<String, Instant>,
}

impl Watch {
    /// Looks once; `settled` when what the faults left behind is over.
    pub(super) async fn look(&mut self, world: &World, servers: &[Arc<Server>], settled: bool) {
        world.observe("look").await;
        let mut odd: BTreeMap<String, Duration> = BTreeMap::new();
        if settled {
            idle_slots(world, servers, &mut odd);
        }
        stale_builds(world, &mut odd);
        unheard(world, &mut odd);
        unsettled(world, servers, &mut odd);
        self.since.retain(|what, _| odd.contains_key(what));
        for (what, most) in odd {
            let since = *self.since.entry(what.clone()).or_insert_with(Instant::now);
            if since.elapsed() > most {
                world.violate(&format!("{what}, for {} s", since.elapsed().as_secs()));
            }
        }
    }
}

/// Whether the server looks after jobs now.
fn is_awake(present: &Present) -> bool {
    !present.shutdown.is_cancelled() && present.since.elapsed() >= SLACK
}

/// Jobs that wait although a server has a slot for them.
fn idle_slots(world: &World, servers: &[Arc<Server>], odd: &mut BTreeMap<String, Duration>) {
    let history = world.history();
    let running = history.running_on();
    let now = world.now();
    let free = |group: &Group, candidate: &Candidate| {
        let backend = &candidate.backend;
        let count = running.get(backend.addr()).copied().unwrap_or(0);
        // A backend that a job shall avoid stays free for it while another one works, even a busy one.
        let avoided = group.avoid.iter().any(|addr| addr == backend.addr());
        !avoided && group.needs.matched_by(backend) && candidate.has_free_slot() && count < backend.max_jobs()
    };
    let due = |job: &&Arc<Job>| {
        job.state == JobState::Pending && job.not_before.is_none_or(|not_before| not_before <= now)
    };
    for job in history.jobs.values().filter(due) {
        let group = Group::of(job);
        for present in servers.iter().filter_map(|server| server.present()) {
            if !is_awake(&present) {
                continue;
            }
            if let Some(candidate) = present.pool.candidates().iter().find(|c| free(&group, c)) {
                let (name, addr) = (short(job.id), candidate.backend.addr());
                let server = &present.party.name;
                odd.insert(format!("{name} waits while {server} has a free slot on {addr}"), SLACK);
            }
        }
    }
}

/// Builds whose job is somebody else's.
fn stale_builds(world: &World, odd: &mut BTreeMap<String, Duration>) {
    let (history, builds) = (world.history(), world.builds());
    for live in builds.live.values() {
        let job = history.jobs.get(&live.job);
        if !job.is_some_and(|job| job.state == JobState::Running && job.attempt == live.attempt) {
            let name = short(live.job);
            let most = world.lease * 2 + limits::CANCEL_GRACE + SLACK;
            odd.insert(format!("{name} is built by attempt {}, which has ended", live.attempt), most);
        }
    }
}

/// Requests to stop that the builder did not hear of.
fn unheard(world: &World, odd: &mut BTreeMap<String, Duration>) {
    let (history, builds) = (world.history(), world.builds());
    for live in builds.live.values().filter(|live| !live.token.is_cancelled()) {
        let job = history.jobs.get(&live.job);
        if job.is_some_and(|job| job.cancel_requested && job.attempt == live.attempt) {
            let name = short(live.job);
            odd.insert(format!("{name} shall stop, and its builder does not know"), world.lease + SLACK);
        }
    }
}

/// Leases that ended and hold their jobs.
fn unsettled(world: &World, servers: &[Arc<Server>], odd: &mut BTreeMap<String, Duration>) {
    if !servers.iter().filter_map(|server| server.present()).any(|present| is_awake(&present)) {
        return;
    }
    let (history, now) = (world.history(), world.now());
    for (id, owner) in &history.owners {
        let runs = history.jobs.get(id).is_some_and(|job| job.state == JobState::Running);
        if runs && owner.until <= now {
            odd.insert(format!("{} runs under a lease that has ended", short(*id)), world.lease + SLACK);
        }
    }
}

/// The jobs that have not come to their end.
pub(super) fn unfinished(world: &World) -> Vec<String> {
    let history = world.history();
    let open = history.jobs.values().filter(|job| !job.state.is_terminal());
    open.map(|job| format!("{} is {}", short(job.id), job.state)).collect()
}

/// Everything that must be true of the jobs at the end.
pub(super) async fn check_all(world: &World) {
    let jobs: Vec<Arc<Job>> = world.history().jobs.values().map(Arc::clone).collect();
    for job in &jobs {
        if let Err(what) = check_job(world, job).await {
            world.violate(&format!("{}: {what}", short(job.id)));
        }
    }
    // Nobody looks at hints of jobs; that they can be asked for is all that is tried here.
    if let Some(job) = jobs.first() {
        drop(world.reader.changed(Subject::Job(job.id)));
    }
}

async fn check_job(world: &World, job: &Job) -> Result<(), String> {
    let read = |error: Error| error.chain();
    let attempts = world.reader.attempts(job.id).await.map_err(read)?;
    check_attempts(job, &attempts)?;
    let mut end = 0;
    for attempt in &attempts {
        let to = attempt.log_end.unwrap_or(end);
        if attempt.log_begin != end || to < end {
            let (number, begin) = (attempt.number, attempt.log_begin);
            return Err(format!(
                "the log of attempt {number} is {begin} to {to}, the one before ends at {end}"
            ));
        }
        check_lines(world, job.id, attempt, &log_of(world, attempt.number, job.id).await?)?;
        end = to;
    }
    let length = world.reader.read_log(job.id, u64::MAX, 0).await.map_err(read)?.len;
    if end != length {
        return Err(format!("the log has {length} bytes, and its attempts {end}"));
    }
    if job.state == JobState::Success {
        check_artifacts(world, job).await?;
    }
    Ok(())
}

/// The log of an attempt, from the store or from the storage, and once more after it was archived.
async fn log_of(world: &World, attempt: u32, job: JobId) -> Result<String, String> {
    let read = |error: Error| format!("the log of attempt {attempt}: {}", error.chain());
    let logs = JobLogs::new(Arc::new(world.reader.clone()), Arc::new(world.artifacts.clone()));
    let text = async || {
        let mut reader = logs.read(job, LogQuery::of_attempt(attempt)).await?;
        let (mut text, mut next) = (String::new(), 1);
        while let Some(part) = reader.next().await? {
            for line in part.lines() {
                if line.number != next {
                    return Err(Error::unexpected(format!("line {next} has the number {}", line.number)));
                }
                next += 1;
            }
            text.push_str(&String::from_utf8_lossy(&part.text()));
        }
        Ok(text)
    };
    let before = text().await.map_err(read)?;
    logs.archive(job, attempt).await.map_err(read)?;
    if text().await.map_err(read)? != before {
        return Err(format!("the archived log of attempt {attempt} is another one"));
    }
    Ok(before)
}

fn check_attempts(job: &Job, attempts: &[JobAttempt]) -> Result<(), String> {
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
    if !numbers.iter().copied().eq(1..=job.attempt) {
        return Err(format!("it is at attempt {}, and there are {numbers:?}", job.attempt));
    }
    for attempt in attempts {
        let number = attempt.number;
        if attempt.outcome == AttemptOutcome::Running || attempt.ended_at.is_none() {
            return Err(format!("attempt {number} has no end"));
        }
        let last = number == job.attempt;
        let outcome = attempt.outcome;
        if outcome == AttemptOutcome::Success && !(last && job.state == JobState::Success) {
            return Err(format!("attempt {number} succeeded, and the job is {}", job.state));
        }
        if last && job.state == JobState::Success && outcome != AttemptOutcome::Success {
            return Err(format!("the job succeeded, and its last attempt is {}", outcome.name()));
        }
        let steps: Vec<usize> = attempt.steps.iter().map(|step| step.index).collect();
        if !steps.iter().copied().eq(0..steps.len()) {
            return Err(format!("attempt {number} tells of the steps {steps:?}"));
        }
    }
    Ok(())
}

/// Each line of the builder once, in order; all of them unless the attempt was lost.
fn check_lines(world: &World, job: JobId, attempt: &JobAttempt, text: &str) -> Result<(), String> {
    let number = attempt.number;
    let printed = world.builds().lines.get(&(job, number)).copied().unwrap_or(0);
    let of_builder = text.lines().filter(|text| !text.starts_with("---"));
    let mut count = 0;
    for told in of_builder {
        count += 1;
        let expected = line(job, number, count);
        if told != expected {
            return Err(format!("the log of attempt {number} has {told:?} where {expected:?} should be"));
        }
    }
    let own = world.history().ended_by.get(&(job, number)).copied();
    let whole = own == Some("finish") || own == Some("release") && printed > 0;
    if count > printed || whole && count < printed {
        return Err(format!("the log of attempt {number} has {count} of {printed} lines"));
    }
    if whole && !text.starts_with(&format!("--- attempt {number} on ")) {
        return Err(format!("the log of attempt {number} has lost its beginning"));
    }
    let farm: Vec<&str> = text.lines().filter(|text| text.starts_with("---")).collect();
    if farm.iter().collect::<BTreeSet<_>>().len() != farm.len() {
        return Err(format!("the log of attempt {number} says something twice: {farm:?}"));
    }
    Ok(())
}

async fn check_artifacts(world: &World, job: &Job) -> Result<(), String> {
    for artifact in &job.artifacts {
        let key = artifact_key(job.id, job.attempt, &artifact.name).map_err(|error| error.chain())?;
        let missing = |error: Error| format!("{key} is not in the storage: {}", error.chain());
        let stored = world.artifacts.get(&key, None).await.map_err(missing)?;
        let chunks: Vec<Bytes> = stored.bytes.try_collect().await.map_err(missing)?;
        if chunks.concat() != content(job.id, job.attempt, &artifact.name).as_bytes() {
            return Err(format!("{} holds something else than the last attempt made", artifact.name));
        }
    }
    Ok(())
}
