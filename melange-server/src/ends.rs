//! When builds are expected to end. Asking for all jobs of a large build takes a while, so that it is done now and then,
//! beside the requests: a look at a build must stay quick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use melange_remote_sdk::builds::BuildStanding;
use melange_remote_sdk::clock::{elapsed, later};
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::{Build, BuildId, Job};
use tokio::time::Instant;

use crate::app::App;

/// How long an answer is new.
const AGE: Duration = Duration::from_secs(10);
/// How long the first who asks waits for an answer: those of small builds are there by then.
const PATIENCE: Duration = Duration::from_millis(5);
/// Builds that are remembered; those that began first are forgotten.
const BUILDS_MAX: usize = 256;

/// What was told last, by build.
#[derive(Debug, Default)]
pub struct ExpectedEnds(Mutex<BTreeMap<BuildId, Told>>);

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Option<Timestamp>,
    new_until: Instant,
}

impl ExpectedEnds {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BuildId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a build is expected to end; `None` when it has ended, or nobody knows yet. An answer may be some seconds old:
    /// one that is too old is made anew for those who ask next.
    pub(crate) async fn of(self: &Arc<Self>, app: &App, build: &Build) -> Option<Timestamp> {
        if build.finished_at.is_some() || !build.facts.is_planned {
            self.lock().remove(&build.id);
            return None;
        }
        let known = self.lock().get(&build.id).copied();
        if let Some(known) = known.filter(|known| Instant::now() < known.new_until) {
            return known.at;
        }
        let (ends, app, id) = (Arc::clone(self), app.clone(), build.id);
        // Whoever asks meanwhile gets what was known.
        ends.note(id, known.and_then(|known| known.at));
        let look = tokio::spawn(async move {
            let at = expected(&app, id).await.unwrap_or_else(|error| {
                tracing::warn!(build = %id, error = %error.chain(), "the end of a build is not known");
                None
            });
            ends.note(id, at);
            at
        });
        match known {
            Some(known) => known.at,
            None => tokio::time::timeout(PATIENCE, look).await.ok()?.ok()?,
        }
    }

    fn note(&self, id: BuildId, at: Option<Timestamp>) {
        let mut all = self.lock();
        all.insert(id, Told { at, new_until: Instant::now() + AGE });
        while all.len() > BUILDS_MAX {
            all.pop_first();
        }
    }
}

async fn expected(app: &App, id: BuildId) -> Result<Option<Timestamp>> {
    let Some(planner) = &app.planner else { return Ok(None) };
    let standing = BuildStanding::read(planner.files().document(id).await?, &*app.job_store).await?;
    let now = app.clock.now();
    let archs = &standing.build().document().options.architectures;
    let candidates = app.pool.fleet_candidates();
    let of_build = candidates.iter().filter(|candidate| archs.contains(&candidate.backend.arch()));
    let slots = of_build.filter(|candidate| candidate.closed.is_none()).map(|it| it.backend.max_jobs());
    let slots = slots.fold(0usize, |sum, more| sum.saturating_add(usize::try_from(more).unwrap_or(0)));
    if slots == 0 {
        return Ok(None);
    }
    let ran = |job: &Job| job.started_at.map_or(Duration::ZERO, |started| elapsed(started, now));
    Ok(standing.remaining(slots, ran).map(|left| later(now, left)))
}
