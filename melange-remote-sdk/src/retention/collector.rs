//! Goes through the ended jobs and removes what the rules do not keep.
//!
//! Objects go first, then the job store notes it: what is broken off in between is done again by the next pass. Several
//! collectors at once, also of several servers, do no harm: a removal that another one made is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Class, KeepRules, Plan, Reason, Removal, Report, UnusedSources};
use crate::artifact_storage::layout::{LOG_NAME, build_folder, job_folder};
use crate::artifact_storage::{ArtifactStorage, StoredArtifact};
use crate::clock::{Clock, earlier};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BuildId, JobId};
use crate::job_store::{EndedQuery, Holding, JobStore, ListQuery, Usage};
use crate::limits;

/// Whether a pass removes what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It tells what it would remove.
    DryRun,
    /// It removes it.
    Remove,
}

/// What becomes of objects of jobs that the job store does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orphans {
    /// They stay: the storage has others' objects too, or the job store forgets jobs by itself.
    #[default]
    Keep,
    /// They go when the job, or the build, was handed in more than [`limits::ORPHAN_AGE`] ago. Only what lies in a folder
    /// that is named as a job or as a build is one of them.
    Remove,
}

/// How a [`Collector`] works.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CollectorOptions {
    /// What is kept.
    pub rules: KeepRules,
    /// What becomes of objects of unknown jobs.
    pub orphans: Orphans,
    /// Objects and jobs that are removed each second; 0 counts as 1.
    pub removals_per_second: u32,
}

impl CollectorOptions {
    /// Keeps what the rules say, and objects of unknown jobs.
    pub fn new(rules: KeepRules) -> Self {
        Self { rules, orphans: Orphans::Keep, removals_per_second: limits::REMOVALS_PER_SECOND }
    }
}

/// Removes what is not kept.
#[derive(Debug, Clone)]
pub struct Collector {
    pub(super) job_store: Arc<dyn JobStore>,
    pub(super) artifact_storage: Arc<dyn ArtifactStorage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: CollectorOptions,
}

impl Collector {
    /// A collector of the jobs of a store and of their objects in a storage.
    pub fn new(
        job_store: Arc<dyn JobStore>,
        artifact_storage: Arc<dyn ArtifactStorage>,
        clock: Arc<dyn Clock>,
        options: CollectorOptions,
    ) -> Self {
        Self { job_store, artifact_storage, clock, options }
    }

    /// Goes through all ended jobs once, and through the folders of the storage when objects of unknown jobs go. Dropping
    /// the future at any time loses nothing but what is left to do.
    ///
    /// # Errors
    /// Those of the store and the storage when they cannot tell what there is, or when removals fail again and again. What
    /// was removed before is removed.
    pub async fn pass(&self, mode: Mode) -> Result<Report> {
        self.go_through(mode, self.options.orphans).await
    }

    async fn go_through(&self, mode: Mode, orphans: Orphans) -> Result<Report> {
        let (rules, now) = (self.options.rules, self.clock.now());
        let is_bounded = [rules.jobs, rules.logs, rules.artifacts].iter().any(|keep| keep.most.is_some());
        let usage = if is_bounded { self.job_store.usage().await? } else { Usage::default() };
        let mut pass = Pass {
            of: self,
            mode,
            plan: Plan::new(rules, usage, now),
            pace: Pace::new(self.options.removals_per_second),
            report: Report::default(),
            failures: 0,
        };
        for class in Class::RULED {
            pass.sweep(class).await?;
        }
        if orphans == Orphans::Remove {
            pass.sweep_orphans().await?;
        }
        Ok(pass.report)
    }

    /// Makes passes until it is told to stop: the first one some minutes after the start, each at a slightly different
    /// time, so that servers that share a store do not do the same at once.
    pub async fn run(self, stopping: CancellationToken) {
        let mut pause = limits::RETENTION_FIRST;
        for number in 0_u32.. {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
            }
            let often = number % limits::ORPHANS_EVERY == 0;
            let orphans = if often { self.options.orphans } else { Orphans::Keep };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                done = self.go_through(Mode::Remove, orphans) => tell(&done),
            }
            if often {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    done = self.remove_unused_sources(Mode::Remove) => tell_sources(&done),
                }
            }
            pause = limits::RETENTION_EVERY;
        }
    }
}

fn tell(done: &Result<Report>) {
    match done {
        Ok(report) if report.removals.is_empty() && report.failed == 0 => {}
        Ok(report) => {
            let count = |class| report.totals.get(&class).copied().unwrap_or_default().count;
            let bytes = report.totals.values();
            let bytes: u64 = bytes.map(|total| total.artifact_bytes.saturating_add(total.log_bytes)).sum();
            tracing::info!(
                jobs = count(Class::Jobs),
                artifacts = count(Class::Artifacts),
                logs = count(Class::Logs),
                orphans = count(Class::Orphans),
                bytes,
                failed = report.failed,
                more = report.more,
                "ended jobs were removed by the rules"
            );
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "removing ended jobs broke off; it is tried again")
        }
    }
}

fn tell_sources(done: &Result<UnusedSources>) {
    match done {
        Ok(unused) if unused.count() == 0 => {}
        Ok(unused) => tracing::info!(
            fetched = unused.fetched.count,
            archives = unused.archives.count,
            bytes = unused.fetched.bytes.saturating_add(unused.archives.bytes),
            more = unused.more,
            "sources that nobody uses any more were removed"
        ),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "removing unused sources broke off; it is tried again")
        }
    }
}

/// Lets so many removals pass each second.
pub(super) struct Pace {
    gap: Duration,
    due: Instant,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second.max(1), due: Instant::now() }
    }

    pub(super) async fn turn(&mut self) {
        let now = Instant::now();
        if self.due > now {
            tokio::time::sleep_until(self.due).await;
        }
        self.due = self.due.max(now) + self.gap;
    }
}

struct Pass<'c> {
    of: &'c Collector,
    mode: Mode,
    plan: Plan,
    pace: Pace,
    report: Report,
    /// Removals that failed in a row.
    failures: u32,
}

impl Pass<'_> {
    /// Goes through the jobs that have something of a class.
    async fn sweep(&mut self, class: Class) -> Result<()> {
        let mut query = EndedQuery::oldest(limits::RETENTION_PAGE).holding(class.holding());
        loop {
            let page = self.of.job_store.ended(&query).await?;
            for job in &page {
                if self.plan.is_over(class, job.finished_at) {
                    return Ok(());
                }
                let Some(reason) = self.plan.reason(class, job) else { continue };
                if self.is_needed(job.id).await? {
                    continue;
                }
                if self.is_full() {
                    return Ok(());
                }
                let removal = self.plan.take(class, job, reason);
                self.carry_out(removal, None).await?;
            }
            let Some(last) = page.last().filter(|_| page.len() == limits::RETENTION_PAGE) else {
                return Ok(());
            };
            query = query.behind(last.place());
        }
    }

    /// Whether somebody needs the job; one that is gone counts as needed.
    async fn is_needed(&self, id: JobId) -> Result<bool> {
        match self.of.job_store.is_needed(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            needed => needed,
        }
    }

    fn is_full(&mut self) -> bool {
        self.report.more |= self.report.removals.len() >= limits::REMOVALS_PER_PASS_MAX;
        self.report.more
    }

    /// Goes through the folders of the storage whose jobs nobody knows.
    async fn sweep_orphans(&mut self) -> Result<()> {
        let store = &self.of.job_store;
        if store.list(&ListQuery::newest(1)).await?.jobs.is_empty() {
            // A new job store, or the wrong one: nothing is known of what lies there.
            return Ok(());
        }
        let (before, mut behind) = (earlier(self.of.clock.now(), limits::ORPHAN_AGE), String::new());
        loop {
            let folders = self.of.artifact_storage.folders(&behind, limits::PAGE_ITEMS_MAX).await?;
            for folder in &folders {
                let id = match (folder.as_str().parse::<JobId>(), folder.as_str().parse::<BuildId>()) {
                    (Ok(id), _) if id.created_at() < before && !self.is_known(id).await? => id,
                    (_, Ok(build)) if !self.is_known_build(build).await? => {
                        let id = JobId::from_bytes(build.as_bytes())?;
                        if id.created_at() >= before {
                            continue;
                        }
                        id
                    }
                    _ => continue,
                };
                let stored = self.of.artifact_storage.list(folder).await?;
                if stored.is_empty() {
                    continue;
                }
                if self.is_full() {
                    return Ok(());
                }
                let removal = orphan(id, &stored);
                self.carry_out(removal, Some(stored)).await?;
            }
            let Some(last) = folders.last().filter(|_| folders.len() == limits::PAGE_ITEMS_MAX) else {
                return Ok(());
            };
            last.as_str().clone_into(&mut behind);
        }
    }

    async fn is_known(&self, id: JobId) -> Result<bool> {
        match self.of.job_store.get(id).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes something, or tells that it would be.
    async fn carry_out(&mut self, removal: Removal, orphans: Option<Vec<StoredArtifact>>) -> Result<()> {
        let done = match (self.mode, orphans) {
            (Mode::DryRun, _) => Ok(Done::Removed),
            (Mode::Remove, Some(stored)) => self.delete(&stored).await.map(|()| Done::Removed),
            (Mode::Remove, None) => self.remove(&removal).await,
        };
        match done {
            Ok(Done::Removed) => {
                self.failures = 0;
                self.report.add(removal);
            }
            Ok(Done::Changed) => {}
            Err(error) => {
                self.report.failed = self.report.failed.saturating_add(1);
                self.failures += 1;
                let what = removal.class.name();
                tracing::warn!(job = %removal.job, what, error = %error.chain(), "this could not be removed");
                if self.failures >= limits::REMOVAL_FAILURES_MAX {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn remove(&mut self, removal: &Removal) -> Result<Done> {
        let (id, store) = (removal.job, Arc::clone(&self.of.job_store));
        let build = match store.get(id).await {
            // What has begun since is another attempt's.
            Ok(job) if job.state.is_terminal() && job.attempt == removal.attempt => job.build,
            Ok(_) => return Ok(Done::Changed),
            Err(error) => return changed(error),
        };
        let folder = job_folder(id)?;
        let mut stored = self.of.artifact_storage.list(&folder).await?;
        stored.retain(|artifact| goes(removal, artifact.key.as_str().strip_prefix(folder.as_str())));
        self.delete(&stored).await?;
        self.pace.turn().await;
        let noted = match removal.class {
            Class::Artifacts => store.note_removed(id, Holding::Artifacts, self.of.clock.now()).await,
            Class::Logs => store.note_removed(id, Holding::Logs, self.of.clock.now()).await,
            Class::Jobs | Class::Orphans => store.remove(id).await,
        };
        if let Some(build) = build.filter(|_| noted.is_ok() && removal.class == Class::Jobs)
            && !self.is_known_build(build).await?
        {
            // It was the last job of its build.
            let stored = self.of.artifact_storage.list(&build_folder(build)?).await?;
            self.delete(&stored).await?;
        }
        noted.map(|()| Done::Removed).or_else(changed)
    }

    async fn is_known_build(&self, id: BuildId) -> Result<bool> {
        match self.of.job_store.build(id).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn delete(&mut self, stored: &[StoredArtifact]) -> Result<()> {
        for artifact in stored {
            self.pace.turn().await;
            self.of.artifact_storage.delete(&artifact.key).await?;
        }
        Ok(())
    }
}

/// What a removal came to.
enum Done {
    /// It is gone.
    Removed,
    /// Somebody was quicker: it is gone already, or tried again.
    Changed,
}

fn changed(error: Error) -> Result<Done> {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Conflict => Ok(Done::Changed),
        _ => Err(error),
    }
}

/// Whether an object goes, by its place in the folder of its job: those of attempts that began since stay.
fn goes(removal: &Removal, place: Option<&str>) -> bool {
    let Some((attempt, name)) = place.and_then(|place| place.strip_prefix('/')?.split_once('/')) else {
        return removal.class == Class::Jobs;
    };
    let is_log = name == LOG_NAME;
    let is_its =
        attempt.parse::<u32>().map_or(removal.class == Class::Jobs, |number| number <= removal.attempt);
    is_its
        && match removal.class {
            Class::Jobs | Class::Orphans => true,
            Class::Artifacts => !is_log,
            Class::Logs => is_log,
        }
}

fn orphan(id: JobId, stored: &[StoredArtifact]) -> Removal {
    let (logs, artifacts): (Vec<_>, Vec<_>) = stored.iter().partition(|artifact| {
        let mut parts = artifact.key.as_str().splitn(3, '/');
        parts.nth(2) == Some(LOG_NAME)
    });
    let bytes = |objects: Vec<&StoredArtifact>| objects.iter().map(|object| object.size_bytes).sum();
    Removal {
        class: Class::Orphans,
        reason: Reason::Unknown,
        job: id,
        attempt: 0,
        package: String::new(),
        ended_at: id.created_at(),
        artifact_bytes: bytes(artifacts),
        log_bytes: bytes(logs),
    }
}
