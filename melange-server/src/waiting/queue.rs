//! Why all jobs wait that do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use melange_remote_sdk::api::v1::{QueueProjectView, QueueReasonView, QueueView};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job_store::QueueSummary;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{hint, refusal_of};
use crate::app::App;

/// How long an answer is new, at least.
const SUMMARY_AGE: Duration = Duration::from_secs(1);

/// How much longer than it took to make it an answer is new: counting all jobs of a long queue takes its time, and is not
/// to be what the database is busy with.
const SUMMARY_COST: u32 = 10;

/// Reasons that are told; those of the most jobs.
const REASONS_MAX: usize = 100;

/// What was told last; many who ask at once share one look.
#[derive(Debug, Clone, Default)]
pub struct RecentQueue(Arc<Mutex<Option<Told>>>);

#[derive(Debug)]
struct Told {
    /// The queue, or why it could not be read: who waited for that look does not make the next one at once.
    view: Result<Arc<QueueView>, (ErrorKind, String)>,
    new_until: Instant,
}

impl Told {
    fn view(&self) -> Result<Arc<QueueView>> {
        self.view.clone().map_err(|(kind, message)| Error::new(kind, message))
    }
}

/// The queue as it was a moment ago.
pub(crate) async fn of(app: &App) -> Result<Arc<QueueView>> {
    let app = app.clone();
    // Whoever asked may go away: the look goes on for the others.
    let look = tokio::spawn(async move {
        let mut last = app.queue.0.lock().await;
        let begun = Instant::now();
        if let Some(told) = &*last
            && begun < told.new_until
        {
            return told.view();
        }
        let now = app.clock.now();
        let view = match app.job_store.queue(now).await {
            Ok(queue) => view(&app, &queue, now).await.map(Arc::new),
            Err(error) => Err(error),
        };
        let age = if view.is_ok() { SUMMARY_AGE.max(begun.elapsed() * SUMMARY_COST) } else { SUMMARY_AGE };
        let view = view.map_err(|error| (error.kind(), error.chain()));
        last.insert(Told { view, new_until: Instant::now() + age }).view()
    });
    look.await.map_err(|error| Error::new(ErrorKind::Unavailable, "the queue was not read").source(error))?
}

/// Jobs that wait for one reason.
struct Reason {
    jobs: u64,
    since: Timestamp,
    hint: Option<String>,
}

/// The reasons so far, by their words and sentences.
#[derive(Default)]
struct Reasons(BTreeMap<(String, String), Reason>);

impl Reasons {
    fn add(&mut self, word: &str, sentence: String, jobs: u64, since: Timestamp, hint: Option<String>) {
        if jobs == 0 {
            return;
        }
        let known = self.0.entry((word.to_owned(), sentence)).or_insert(Reason { jobs: 0, since, hint });
        known.jobs = known.jobs.saturating_add(jobs);
        known.since = known.since.min(since);
    }

    fn views(self) -> Vec<QueueReasonView> {
        let mut views: Vec<QueueReasonView> = self
            .0
            .into_iter()
            .map(|((reason, sentence), Reason { jobs, since, hint })| {
                let mut view = QueueReasonView::new(reason, sentence, jobs, since);
                view.hint = hint;
                view
            })
            .collect();
        views.sort_by(|a, b| b.jobs.cmp(&a.jobs).then(a.since.cmp(&b.since)));
        views.truncate(REASONS_MAX);
        views
    }
}

async fn view(app: &App, queue: &QueueSummary, now: Timestamp) -> Result<QueueView> {
    let candidates = app.pool.fleet_candidates();
    let (mut reasons, mut refusals) = (Reasons::default(), HashMap::new());
    for waiting in &queue.groups {
        let needs = &waiting.group.needs;
        // Projects ask for the same backends.
        let refusal =
            refusals.entry(needs).or_insert_with(|| app.backend_selector.select(needs, &candidates).err());
        let (word, sentence) = refusal_of(refusal.as_ref());
        let ready = waiting.jobs.saturating_sub(waiting.pausing);
        let help = refusal.as_ref().map(|refusal| hint(refusal, needs));
        reasons.add(word, sentence, ready, waiting.since, help);
        let pauses = "attempts were broken off by the farm; they are tried again after a pause".to_owned();
        reasons.add("retry_pause", pauses, waiting.pausing, waiting.since, None);
    }
    let mut view = QueueView::new(now);
    for project in &queue.projects {
        view.blocked = view.blocked.saturating_add(project.blocked);
        view.pending = view.pending.saturating_add(project.pending);
        view.running = view.running.saturating_add(project.running);
        let name = project.project.to_string();
        view.projects.push(QueueProjectView::new(name, project.blocked, project.pending, project.running));
    }
    if let Some(oldest) = queue.oldest_blocked {
        let since = match app.job_store.get(oldest).await {
            Ok(job) => job.created_at,
            // It was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => now,
            Err(error) => return Err(error),
        };
        reasons.add("blocked", "they wait for other jobs".to_owned(), view.blocked, since, None);
    }
    view.oldest_at = reasons.0.values().map(|reason| reason.since).min();
    view.reasons = reasons.views();
    Ok(view)
}
