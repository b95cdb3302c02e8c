//! Why a job waits, and when it may begin.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use melange_remote_sdk::api::v1::{BlockingJobView, MatchingBackendView, WaitingView};
use melange_remote_sdk::backend_selector::{Candidate, Closed, Refusal, Requirements};
use melange_remote_sdk::clock::elapsed;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::{Job, JobId, JobState};
use melange_remote_sdk::job_store::{Demand, Group, ListQuery};
use melange_remote_sdk::limits;
use melange_remote_sdk::scheduler::estimate::{History, remaining, starts_after};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::App;

pub mod queue;

/// Jobs that a job waits for and that are told with it.
const BLOCKING_MAX: usize = 20;

/// Ended jobs from which it is known how long jobs take.
const HISTORY_JOBS: usize = 500;

/// How long that is new.
const HISTORY_AGE: Duration = Duration::from_secs(30);

/// How long jobs took of late.
#[derive(Debug, Default)]
pub struct RecentHistory(Mutex<Option<(Instant, Arc<History>)>>);

impl RecentHistory {
    async fn get(&self, app: &App) -> Result<Arc<History>> {
        let mut known = self.0.lock().await;
        if let Some((read_at, history)) = &*known
            && read_at.elapsed() < HISTORY_AGE
        {
            return Ok(Arc::clone(history));
        }
        let query = ListQuery::newest(HISTORY_JOBS).in_state(JobState::Success);
        let mut history = History::default();
        for job in app.job_store.list(&query).await?.jobs {
            if let (Some(begun), Some(ended)) = (job.started_at, job.finished_at) {
                history.add(name(&job), elapsed(begun, ended));
            }
        }
        let history = Arc::new(history);
        *known = Some((Instant::now(), Arc::clone(&history)));
        Ok(history)
    }
}

fn name(job: &Job) -> &str {
    job.facts.package.as_ref().map_or("", |package| package.name.as_str())
}

/// Why a job waits, a blocked one for `needs`; `None` for one that runs or has ended.
pub(crate) async fn of(app: &App, job: &Job, needs: &[JobId]) -> Result<Option<WaitingView>> {
    Ok(match job.state {
        JobState::Blocked => Some(blocked(app, job, needs).await?),
        JobState::Pending => Some(pending(app, job).await?),
        _ => None,
    })
}

async fn blocked(app: &App, job: &Job, needs: &[JobId]) -> Result<WaitingView> {
    let mut blocking = Vec::new();
    for id in needs.iter().take(BLOCKING_MAX) {
        let other = app.job_store.get(*id).await?;
        blocking.push(BlockingJobView {
            id: id.to_string(),
            status: other.state.to_string(),
            package: other.facts.package.as_ref().map(|package| package.name.clone()),
        });
    }
    let sentence = match (&blocking[..], job.blocked_by) {
        ([only], 1) => format!("it waits for {}, which is {}", called(only), only.status),
        ([first, ..], count) => {
            let more = match count.saturating_sub(1) {
                1 => "one more job".to_owned(),
                more => format!("{more} more jobs"),
            };
            format!("it waits for {}, which is {}, and for {more}", called(first), first.status)
        }
        ([], count) => format!("it waits for {count} other jobs"),
    };
    let mut view = WaitingView::new("blocked", sentence, job.created_at);
    view.blocked_by = blocking;
    Ok(view)
}

fn called(job: &BlockingJobView) -> String {
    job.package.clone().unwrap_or_else(|| format!("the job {}", job.id))
}

async fn pending(app: &App, job: &Job) -> Result<WaitingView> {
    let now = app.clock.now();
    let ready_at = job.ready_at.unwrap_or(job.created_at);
    if let Some(not_before) = job.not_before.filter(|not_before| *not_before > now) {
        let why = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
        let sentence = format!(
            "attempt {} was broken off by the farm{why}; it is tried again after a pause",
            job.attempt
        );
        let mut view = WaitingView::new("retry_pause", sentence, ready_at);
        view.starts_at = Some(not_before);
        return Ok(view);
    }
    let group = Group::of(job);
    let candidates = app.pool.fleet_candidates();
    let matching: Vec<&Candidate> =
        candidates.iter().filter(|candidate| group.needs.matched_by(&candidate.backend)).collect();
    let refusal = app.backend_selector.select(&group.needs, &candidates).err();
    let (word, sentence) = refusal_of(refusal.as_ref());
    let since = job.waiting.as_ref().map_or(ready_at, |waiting| waiting.since);
    let mut view = WaitingView::new(word, sentence, since);
    view.hint = refusal.as_ref().map(|refusal| hint(refusal, &group.needs));
    view.backends = matching.iter().map(|candidate| backend_view(candidate, &group.needs)).collect();
    let demand = app.job_store.demand(now).await?;
    let ahead = app.job_store.ahead(job.id).await?.unwrap_or(0);
    let before = ahead.saturating_add(others_before(job, &group, &demand, &candidates, ahead));
    view.position = Some(u64::try_from(before).unwrap_or(u64::MAX).saturating_add(1));
    if matches!(refusal, None | Some(Refusal::AllBusy { .. })) {
        view.starts_at = estimate(app, &matching, before, now).await?;
    }
    Ok(view)
}

/// Why jobs wait that a selector refuses or does not, in a word and a sentence.
fn refusal_of(refusal: Option<&Refusal>) -> (&'static str, String) {
    match refusal {
        Some(refusal) => (refusal.name(), refusal.to_string()),
        None => ("ready", "a matching backend is free; the scheduler takes the job in a moment".to_owned()),
    }
}

/// What would help.
fn hint(refusal: &Refusal, needs: &Requirements) -> String {
    match refusal {
        Refusal::NoArch { .. } | Refusal::NoLabels { .. } => {
            let labels: Vec<String> = needs
                .labels
                .labels()
                .as_map()
                .iter()
                .map(|(key, value)| format!(" --label {key}={value}"))
                .collect();
            format!("melange remote backends add ADDRESS --arch {}{}", needs.arch, labels.concat())
        }
        Refusal::TooLarge { .. } => {
            "a backend with more cores or memory helps, or less in the definition's `package.resources`"
                .to_owned()
        }
        Refusal::Closed { why: Closed::Draining, .. } => "melange remote backends enable ADDRESS".to_owned(),
        Refusal::Closed { .. } => "the backend is asked again every few seconds".to_owned(),
        _ => "time helps; so would more backends, or more jobs on each".to_owned(),
    }
}

fn backend_view(candidate: &Candidate, needs: &Requirements) -> MatchingBackendView {
    let state = match &candidate.closed {
        Some(Closed::Draining) => "draining",
        Some(_) => "unhealthy",
        None if needs.fit(candidate) => "ready",
        None => "busy",
    };
    MatchingBackendView {
        addr: candidate.backend.addr().to_owned(),
        running: candidate.running,
        max_jobs: candidate.backend.max_jobs(),
        state: state.to_owned(),
    }
}

/// How many jobs of other groups are likely to get a slot before one that `ahead` of its own go before: all of the more
/// urgent ones, and of the equally urgent ones of other projects as many as take turns with its own.
fn others_before(
    job: &Job,
    group: &Group,
    demand: &[Demand],
    candidates: &[Candidate],
    ahead: usize,
) -> usize {
    let rivals = demand.iter().filter(|other| other.group != *group).filter(|other| {
        candidates.iter().any(|candidate| {
            group.needs.matched_by(&candidate.backend) && other.group.needs.matched_by(&candidate.backend)
        })
    });
    rivals
        .map(|other| match other.priority.cmp(&job.priority) {
            std::cmp::Ordering::Greater => other.ready,
            std::cmp::Ordering::Equal => other.ready.min(ahead.saturating_add(1)),
            std::cmp::Ordering::Less => 0,
        })
        .fold(0, usize::saturating_add)
}

/// When a job may begin that so many go before; `None` when nothing is known of how long jobs take.
async fn estimate(
    app: &App,
    matching: &[&Candidate],
    before: usize,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let history = app.history.get(app).await?;
    let Some(usual) = history.usual() else { return Ok(None) };
    let open = matching.iter().filter(|candidate| candidate.closed.is_none());
    let query = ListQuery::newest(limits::PAGE_ITEMS_MAX).in_state(JobState::Running);
    let running = app.job_store.list(&query).await?.jobs;
    let mut slots = Vec::new();
    for candidate in open {
        let key = candidate.backend.place().key();
        let here =
            running.iter().filter(|job| job.backend.as_ref().is_some_and(|backend| backend.key() == key));
        let max_jobs = usize::try_from(candidate.backend.max_jobs()).unwrap_or(usize::MAX);
        let busy: Vec<Duration> = here
            .map(|job| {
                let begun = job.started_at.unwrap_or(now);
                remaining(elapsed(begun, now), history.expected(Some(name(job))).unwrap_or(usual))
            })
            .take(max_jobs)
            .collect();
        slots.extend(std::iter::repeat_n(
            Duration::ZERO,
            max_jobs.saturating_sub(busy.len()).min(limits::DEMAND_COUNT_MAX),
        ));
        slots.extend(busy);
    }
    let after = starts_after(slots, std::iter::repeat_n(usual, before));
    let at = after
        .and_then(|after| SignedDuration::try_from(after).ok())
        .and_then(|after| now.checked_add(after).ok());
    Ok(at)
}
