//! What publishes: it follows the events of a farm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Generation, INDEX, PublishedRepository, key, packages_of, taken, taken_reason};
use crate::apk::index::IndexPackage;
use crate::arch::Arch;
use crate::artifact_storage::layout::artifact_key;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{EventKind, Job, JobState};
use crate::job_store::{EventPage, EventQuery, JobStore, ListQuery, Subject};
use crate::limits;

/// Publishes the packages of the jobs of a store.
#[derive(Debug)]
pub struct Publisher {
    repository: PublishedRepository,
    job_store: Arc<dyn JobStore>,
    /// All events up to this one were seen; none before the first pass.
    seen: Option<u64>,
    /// When it last looked at the indexes in the storage.
    looked_at: Option<Instant>,
    /// Architectures of which all jobs must be looked at.
    behind: BTreeSet<Arch>,
}

/// Which jobs a pass is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jobs {
    /// Those that have just succeeded.
    New,
    /// All that there are: most of them are published.
    All,
}

/// What a pass came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Jobs whose packages are published now.
    pub jobs: usize,
    /// Their packages.
    pub packages: usize,
    /// Jobs whose packages are not published, because others have their names.
    pub taken: usize,
    /// Indexes that were written.
    pub indexes: usize,
}

impl Publisher {
    /// Publishes what the jobs of `job_store` have made.
    pub fn new(repository: PublishedRepository, job_store: Arc<dyn JobStore>) -> Self {
        Self { repository, job_store, seen: None, looked_at: None, behind: BTreeSet::new() }
    }

    /// What it publishes to.
    pub fn repository(&self) -> &PublishedRepository {
        &self.repository
    }

    /// Makes passes until it is told to stop: one at the start, then whenever jobs end, and every
    /// [`limits::PUBLISH_POLL`] for what other servers did. A pass that fails is made again.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut news = self.job_store.changed(Subject::Events);
        let mut backoff: Option<Backoff> = None;
        loop {
            news.mark_unchanged();
            let begun = Instant::now();
            let pass = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                pass = self.pass() => pass,
            };
            let pause = match pass {
                Ok(done) => {
                    backoff = None;
                    tell(done);
                    // A farm whose jobs end all the time shall do other things too.
                    if done.indexes > 0 {
                        begun.elapsed().min(limits::PUBLISH_REST_MAX)
                    } else {
                        limits::EVENTS_GATHER
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), hint = error.hint_text(), "publishing broke off; it is tried again");
                    let first = Backoff::new(limits::SCHEDULER_POLL, limits::PUBLISH_POLL);
                    backoff.get_or_insert(first).pause()
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if backoff.is_some() {
                continue;
            }
            let changed = async {
                if news.changed().await.is_err() {
                    // A store that is gone tells no news.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = changed => {}
                () = tokio::time::sleep(limits::PUBLISH_POLL) => {}
            }
        }
    }

    /// Publishes what has been made since the last pass; the first one looks at all jobs that there are. It also takes
    /// over what other servers published.
    ///
    /// # Errors
    /// The stores'; what was published until then stays, and the next pass does the rest. Trouble with the index of one
    /// architecture keeps no other one: the next pass looks at all jobs of that one. A job whose files are not as it says is
    /// told in the log and left out.
    pub async fn pass(&mut self) -> Result<Published> {
        let mut done = Published::default();
        let page = self.job_store.events(&EventQuery::after(self.seen.unwrap_or(u64::MAX))).await?;
        let mut trouble = Trouble::default();
        match self.seen {
            // The events of what lies between may be forgotten, or the store is another one.
            Some(seen) if page.oldest <= seen.saturating_add(1) && page.last >= seen => {
                for arch in std::mem::take(&mut self.behind) {
                    let query = ListQuery::default().in_state(JobState::Success).for_arch(arch);
                    self.publish_listed(query, &mut done, &mut trouble).await?;
                }
                self.follow(page, &mut done, &mut trouble).await?;
            }
            _ => {
                self.behind.clear();
                let query = ListQuery::default().in_state(JobState::Success);
                self.publish_listed(query, &mut done, &mut trouble).await?;
                self.seen = Some(page.last);
            }
        }
        let is_first = self.looked_at.is_none();
        if self.looked_at.is_none_or(|last| last.elapsed() >= limits::PUBLISH_POLL) {
            for arch in self.repository.archs() {
                let repaired = self.repair(arch, is_first, &mut done).await;
                trouble.note(arch, repaired);
            }
            self.looked_at = Some(Instant::now());
        }
        self.behind.extend(trouble.archs);
        trouble.first.map_or(Ok(done), Err)
    }

    /// Publishes what jobs have made that a list tells.
    async fn publish_listed(
        &self,
        mut query: ListQuery,
        done: &mut Published,
        trouble: &mut Trouble,
    ) -> Result<()> {
        query.limit = limits::PUBLISHED_JOBS_MAX;
        loop {
            let jobs = self.job_store.list(&query.clone().oldest_after(query.after)).await?;
            let last = jobs.jobs.last().map(|job| job.id);
            let more = jobs.more && last.is_some();
            self.publish(jobs.jobs, Jobs::All, done, trouble).await;
            if !more {
                return Ok(());
            }
            query = query.oldest_after(last);
        }
    }

    /// Publishes what events tell, page by page, until one is not full: what comes meanwhile is for the next pass.
    async fn follow(
        &mut self,
        mut page: EventPage,
        done: &mut Published,
        trouble: &mut Trouble,
    ) -> Result<()> {
        loop {
            let mut jobs = Vec::new();
            for event in &page.events {
                let succeeded =
                    matches!(&event.kind, EventKind::JobState(told) if told.state == JobState::Success);
                let Some(id) = event.job.filter(|_| succeeded) else { continue };
                match self.job_store.get(id).await {
                    Ok(job) => jobs.push(job),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            self.publish(jobs, Jobs::New, done, trouble).await;
            self.seen = Some(page.last);
            if page.events.len() < limits::EVENTS_PER_READ_MAX {
                return Ok(());
            }
            page = self.job_store.events(&EventQuery::after(page.last)).await?;
        }
    }

    /// Publishes the packages of jobs, in order, for each architecture.
    async fn publish(&self, jobs: Vec<Arc<Job>>, which: Jobs, done: &mut Published, trouble: &mut Trouble) {
        let mut by_arch: BTreeMap<Arch, Vec<Arc<Job>>> = BTreeMap::new();
        for job in jobs {
            if job.state == JobState::Success && job.artifacts_removed_at.is_none() {
                by_arch.entry(job.facts.arch).or_default().push(job);
            }
        }
        for (arch, jobs) in by_arch {
            let published = self.publish_for(arch, jobs, which, done).await;
            trouble.note(arch, published);
        }
    }

    async fn publish_for(
        &self,
        arch: Arch,
        jobs: Vec<Arc<Job>>,
        which: Jobs,
        done: &mut Published,
    ) -> Result<()> {
        let mut generation = self.newest(arch).await?;
        let mut added: Vec<IndexPackage> = Vec::new();
        let mut names: BTreeMap<String, IndexPackage> = BTreeMap::new();
        for job in jobs {
            // Those of long ago were compared when they were new; a job that was not built has what another one made.
            if (which == Jobs::All || job.reused.is_some())
                && packages_of(&job).all(|file| generation.known.contains_key(file))
            {
                continue;
            }
            let packages = match self.repository.files.made(&job).await {
                Ok(made) => made.packages.clone(),
                Err(error) if is_of_job(&error) => {
                    self.leave_out(&job, &error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let new: Vec<IndexPackage> =
                packages.into_iter().filter(|package| !is_listed(&generation, &names, package)).collect();
            if new.is_empty() {
                continue;
            }
            let mut other = taken(&generation, &new).or_else(|| taken_among(&names, &new));
            if other.is_none() {
                match self.copy(&job, &new).await {
                    Ok(found) => other = found,
                    Err(error) if is_of_job(&error) => {
                        self.leave_out(&job, &error).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            match other {
                Some(file) => {
                    done.taken += 1;
                    self.refuse(&job, &file).await;
                }
                None => {
                    done.jobs += 1;
                    done.packages += new.len();
                    names.extend(new.iter().map(|package| (package.file_name(), package.clone())));
                    added.extend(new);
                }
            }
        }
        if !added.is_empty() {
            added.extend(generation.index.packages.iter().cloned());
            generation = self.repository.make(arch, added).await?;
            self.write(arch, &generation, done).await?;
        }
        self.repository.set(arch, &generation);
        Ok(())
    }

    /// Copies the files of a job to their places; the first of them whose place has other bytes, if any.
    async fn copy(&self, job: &Job, packages: &[IndexPackage]) -> Result<Option<String>> {
        let storage = self.repository.files.storage();
        let copy = |package: &IndexPackage| -> BoxFuture<'_, Result<Option<String>>> {
            let file = package.file_name();
            async move {
                let name = format!("{}/{file}", job.facts.arch);
                let told = job.artifacts.iter().find(|artifact| artifact.name == name);
                let told =
                    told.ok_or_else(|| Error::unexpected(format!("its index lists {file}, which it lacks")))?;
                let from = artifact_key(job.id, job.attempt, &name)?;
                let copied = storage.copy_if_absent(&from, &key(job.facts.arch, &file)?).await?;
                Ok(Some(file).filter(|_| copied.sha256 != told.sha256))
            }
            .boxed()
        };
        let copies: Vec<_> = packages.iter().map(copy).collect();
        let copies: Vec<Option<String>> =
            stream::iter(copies).buffered(limits::PUBLISHED_AT_ONCE).try_collect().await?;
        Ok(copies.into_iter().flatten().next())
    }

    /// What is known of an architecture with what others have put since.
    async fn newest(&self, arch: Arch) -> Result<Arc<Generation>> {
        let ours = self.repository.generation(arch).await?;
        let stored = match self.repository.files.storage().head(&key(arch, INDEX)?).await {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ours),
            Err(error) => return Err(error),
        };
        if stored.sha256 == ours.sha256 {
            return Ok(ours);
        }
        let mut packages = self.repository.stored(arch).await?.unwrap_or_default();
        packages.retain(|package| !ours.known.contains_key(&package.file_name()));
        if packages.is_empty() {
            return Ok(ours);
        }
        packages.extend(ours.index.packages.iter().cloned());
        self.repository.make(arch, packages).await
    }

    /// Puts the index again when the one in the storage lacks what is known: another server was overtaken, or it was lost.
    /// The first look also puts one that differs otherwise, such as by its key; later ones leave that to whoever starts.
    async fn repair(&self, arch: Arch, is_first: bool, done: &mut Published) -> Result<()> {
        let generation = self.newest(arch).await?;
        self.repository.set(arch, &generation);
        if generation.is_empty() {
            return Ok(());
        }
        let whole = match self.repository.files.storage().head(&key(arch, INDEX)?).await {
            Ok(stored) if stored.sha256 == generation.sha256 => true,
            Ok(_) if is_first => false,
            Ok(_) => {
                let stored = self.repository.stored(arch).await?.unwrap_or_default();
                let names: BTreeSet<String> = stored.iter().map(IndexPackage::file_name).collect();
                generation.known.keys().all(|file| names.contains(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if whole { Ok(()) } else { self.write(arch, &generation, done).await }
    }

    async fn write(&self, arch: Arch, generation: &Generation, done: &mut Published) -> Result<()> {
        let bytes = stream::iter([Ok(generation.bytes.clone())]).boxed();
        self.repository.files.storage().put(&key(arch, INDEX)?, bytes).await?;
        done.indexes += 1;
        Ok(())
    }
}

impl PublishedRepository {
    /// The architectures that are known.
    fn archs(&self) -> Vec<Arch> {
        let generations = self.generations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        generations.keys().copied().collect()
    }
}

/// Whether a package is listed as it is.
fn is_listed(
    generation: &Generation,
    names: &BTreeMap<String, IndexPackage>,
    package: &IndexPackage,
) -> bool {
    let file = package.file_name();
    let known = generation.known.get(&file).copied().flatten();
    let known = known.or_else(|| names.get(&file)?.control_sha1);
    known.is_some() && known == package.control_sha1
}

/// The first of some packages whose name one of this pass has.
fn taken_among(names: &BTreeMap<String, IndexPackage>, packages: &[IndexPackage]) -> Option<String> {
    packages.iter().map(IndexPackage::file_name).find(|file| names.contains_key(file))
}

/// Whether an error is of the files of one job, so that others can be published without it.
fn is_of_job(error: &Error) -> bool {
    use ErrorKind::{InvalidRequest, LimitExceeded, NotFound, Untrusted};
    matches!(error.kind(), NotFound | Untrusted | InvalidRequest | LimitExceeded)
}

impl Publisher {
    async fn refuse(&self, job: &Job, file: &str) {
        self.repository.refused.insert(job.id, taken_reason(file)).await;
        tracing::warn!(
            job = %job.id,
            "its packages are not published: {file} is there with other content; \
             a package whose content changes needs a new version or epoch"
        );
    }

    async fn leave_out(&self, job: &Job, error: &Error) {
        let reason = format!("its files cannot be read: {}", error.chain());
        self.repository.refused.insert(job.id, reason).await;
        tracing::warn!(job = %job.id, error = %error.chain(), "its packages cannot be published");
    }
}

/// Architectures whose index could not be made or written.
#[derive(Default)]
struct Trouble {
    archs: BTreeSet<Arch>,
    /// What went wrong first.
    first: Option<Error>,
}

impl Trouble {
    fn note(&mut self, arch: Arch, result: Result<()>) {
        if let Err(error) = result {
            self.archs.insert(arch);
            self.first.get_or_insert(error.with("arch", arch));
        }
    }
}

fn tell(done: Published) {
    if done.jobs > 0 {
        tracing::info!(jobs = done.jobs, packages = done.packages, "published");
    }
}
