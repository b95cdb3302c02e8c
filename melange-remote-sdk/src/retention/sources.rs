//! What belongs to no job: sources that definitions name by a checksum, and the archives of the files beside definitions.
//!
//! The former lie in the folder of the month in which they were used last, and whoever uses one again puts it into that of
//! the present month. The latter are named by jobs; what no job needs goes [`limits::SOURCE_ARCHIVE_KEPT`] after it was
//! sent or asked for last, so that nobody loses what he is about to name.

use std::collections::BTreeMap;

use serde::Serialize;

use super::collector::Pace;
use super::{Collector, Mode};
use crate::artifact_storage::layout::{FETCHED_FOLDERS, SourceMonth, source_of, source_parts};
use crate::artifact_storage::{ArtifactKey, StoredArtifact};
use crate::clock::earlier;
use crate::error::{ErrorKind, Result};
use crate::job::SourceDigest;
use crate::job_store::ListQuery;
use crate::limits;

/// Files that went, or would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnusedFiles {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What nobody used any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnusedSources {
    /// Sources that definitions name by a checksum.
    pub fetched: UnusedFiles,
    /// Archives of the files beside definitions.
    pub archives: UnusedFiles,
    /// Whether there is more than one pass removes.
    pub more: bool,
}

impl UnusedSources {
    /// How many of both kinds.
    pub fn count(&self) -> u64 {
        self.fetched.count.saturating_add(self.archives.count)
    }

    fn is_full(&mut self) -> bool {
        self.more |= self.count() >= u64::try_from(limits::REMOVALS_PER_PASS_MAX).unwrap_or(u64::MAX);
        self.more
    }
}

impl UnusedFiles {
    fn add(&mut self, stored: &StoredArtifact) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(stored.size_bytes);
    }
}

impl Collector {
    /// Removes sources that no job used in this month and in the one before, and archives that no job needs and nobody
    /// asked for of late, or tells which; at most [`limits::REMOVALS_PER_PASS_MAX`]. Several servers may do so at once, and
    /// dropping the future loses nothing but what is left to do. Archives stay while the job store knows no job at all.
    ///
    /// # Errors
    /// The storage's and the job store's; what was removed before is removed.
    pub async fn remove_unused_sources(&self, mode: Mode) -> Result<UnusedSources> {
        let pace = Pace::new(self.options.removals_per_second);
        let mut sweep = Sweep { of: self, mode, pace, found: UnusedSources::default() };
        // The trouble of one kind must not keep the other.
        let fetched = sweep.fetched().await;
        let archives = sweep.archives().await;
        fetched.and(archives).map(|()| sweep.found)
    }
}

struct Sweep<'c> {
    of: &'c Collector,
    mode: Mode,
    pace: Pace,
    found: UnusedSources,
}

impl Sweep<'_> {
    async fn fetched(&mut self) -> Result<()> {
        let (storage, oldest_kept) =
            (&self.of.artifact_storage, SourceMonth::of(self.of.clock.now()).before());
        let folders = storage.folders(FETCHED_FOLDERS, limits::PAGE_ITEMS_MAX).await?;
        let months = folders.iter().filter_map(month_of).filter(|month| *month < oldest_kept);
        for month in months {
            for part in month.parts()? {
                for source in storage.list(&part).await? {
                    if self.found.is_full() {
                        return Ok(());
                    }
                    if self.mode == Mode::Remove {
                        self.pace.turn().await;
                        storage.delete(&source.key).await?;
                    }
                    self.found.fetched.add(&source);
                }
            }
        }
        Ok(())
    }

    async fn archives(&mut self) -> Result<()> {
        if self.of.job_store.list(&ListQuery::newest(1)).await?.jobs.is_empty() {
            // A new job store, or the wrong one: nothing is known of who needs what lies there.
            return Ok(());
        }
        for part in source_parts()? {
            let mut old = BTreeMap::new();
            for stored in self.of.artifact_storage.list(&part).await? {
                if let Some(digest) = source_of(&stored.key)
                    && self.is_old(&stored.key).await?
                {
                    old.insert(digest, stored);
                }
            }
            let digests: Vec<SourceDigest> = old.keys().copied().collect();
            for digests in digests.chunks(limits::PAGE_ITEMS_MAX) {
                let needed = self.of.job_store.needed_sources(digests).await?;
                for stored in
                    digests.iter().filter(|digest| !needed.contains(digest)).filter_map(|d| old.get(d))
                {
                    if self.found.is_full() {
                        return Ok(());
                    }
                    self.archive(stored).await?;
                }
            }
        }
        Ok(())
    }

    async fn archive(&mut self, stored: &StoredArtifact) -> Result<()> {
        if self.mode == Mode::Remove {
            self.pace.turn().await;
            // Somebody may have asked for it since, and be about to name it.
            if !self.is_old(&stored.key).await? {
                return Ok(());
            }
            self.of.artifact_storage.delete(&stored.key).await?;
        }
        self.found.archives.add(stored);
        Ok(())
    }

    /// Whether an archive was sent or asked for long ago; one that is gone was not.
    async fn is_old(&self, key: &ArtifactKey) -> Result<bool> {
        match self.of.artifact_storage.stored_at(key).await {
            Ok(at) => Ok(at <= earlier(self.of.clock.now(), limits::SOURCE_ARCHIVE_KEPT)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The month of a folder of sources; `None` for any other folder.
fn month_of(folder: &ArtifactKey) -> Option<SourceMonth> {
    folder.as_str().strip_prefix(FETCHED_FOLDERS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use jiff::Timestamp;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::artifact_storage::ArtifactStorage;
    use crate::artifact_storage::layout::{fetched_key, source_key};
    use crate::artifact_storage::object::ObjectArtifactStorage;
    use crate::clock::{Clock, SteadyClock};
    use crate::conformance::artifact_storage::bytes;
    use crate::conformance::job_store::{START, at, filled, new_job_with};
    use crate::job::{ClaimToken, FailureClass, JobError, Outcome};
    use crate::job_store::memory::MemoryJobStore;
    use crate::job_store::{Claim, JobIntake, JobQueue, Submission};
    use crate::melange::fetches::{ChecksumAlgorithm, SourceChecksum};
    use crate::retention::{CollectorOptions, KeepRules};

    #[tokio::test(start_paused = true)]
    async fn sources_go_when_neither_this_month_nor_the_last_one_used_them() {
        let storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
        let of =
            |algorithm, digit: &str, digits| SourceChecksum::new(algorithm, &digit.repeat(digits)).unwrap();
        let checksums = [of(ChecksumAlgorithm::Sha256, "a", 64), of(ChecksumAlgorithm::Sha512, "0", 128)];
        let mut others: Vec<ArtifactKey> = Vec::new();
        for name in ["fetched/x", "fetched-/x", "fetched-2026-13/x", "fetched-2020-1/x", "sources/aa/a.tar"] {
            others.push(name.parse().unwrap());
        }
        for month in ["2019-12", "2025-11", "2025-12", "2026-01", "2026-02"] {
            let month: SourceMonth = month.parse().unwrap();
            for checksum in &checksums {
                storage.put(&fetched_key(month, checksum).unwrap(), bytes(vec![vec![1; 10]])).await.unwrap();
            }
        }
        for key in &others {
            storage.put(key, bytes(vec![vec![1; 10]])).await.unwrap();
        }
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let collector = Collector::new(
            Arc::new(MemoryJobStore::default()),
            Arc::clone(&storage),
            Arc::new(SteadyClock::starting_at(now)),
            CollectorOptions::new(KeepRules::default()),
        );
        let unused =
            UnusedSources { fetched: UnusedFiles { count: 4, bytes: 40 }, ..UnusedSources::default() };
        assert_eq!(collector.remove_unused_sources(Mode::DryRun).await.unwrap(), unused);
        assert_eq!(collector.remove_unused_sources(Mode::Remove).await.unwrap(), unused);
        assert_eq!(collector.remove_unused_sources(Mode::Remove).await.unwrap(), UnusedSources::default());
        for (month, left) in [("2019-12", 0), ("2025-11", 0), ("2025-12", 2), ("2026-01", 2), ("2026-02", 2)]
        {
            let folder = month.parse::<SourceMonth>().unwrap().folder().unwrap();
            assert_eq!(storage.list(&folder).await.unwrap().len(), left, "{month}");
        }
        for key in &others {
            assert!(storage.head(key).await.is_ok(), "{key} is not a source of a month");
        }
    }

    /// Archives in a folder on the disk, the names of whose jobs and whose ages are told.
    #[cfg(feature = "local")]
    #[tokio::test]
    async fn archives_go_when_no_job_needs_them_and_nobody_asked_for_them_of_late() {
        let folder = tempfile::tempdir().unwrap();
        let storage = ObjectArtifactStorage::local(folder.path()).unwrap();
        let now = crate::clock::SystemClock.now();
        let put = async |seed: u8, age: Duration| {
            let digest = SourceDigest::new(Sha256::digest([seed]).into());
            let key = source_key(&digest).unwrap();
            storage.put(&key, bytes(vec![vec![seed]])).await.unwrap();
            let file = std::fs::File::options().write(true).open(folder.path().join(key.as_str())).unwrap();
            file.set_modified(SystemTime::from(earlier(now, age))).unwrap();
            digest
        };
        let kept = limits::SOURCE_ARCHIVE_KEPT;
        let store = MemoryJobStore::default();
        let submit = async |digest: SourceDigest| {
            store.submit(&Submission::new([new_job_with(digest)], START)).await.unwrap().jobs[0]
        };
        let collector = || {
            let options = CollectorOptions::new(KeepRules::default());
            let clock = Arc::new(SteadyClock::starting_at(now));
            Collector::new(Arc::new(store.clone()), Arc::new(storage.clone()), clock, options)
        };
        let old = put(0, kept).await;
        // Of a store without any job nothing can be said.
        assert_eq!(collector().remove_unused_sources(Mode::Remove).await.unwrap(), UnusedSources::default());
        let (young, pending, failed, succeeded) = (
            put(1, kept - Duration::from_secs(60)).await,
            put(2, kept * 100).await,
            put(3, kept * 100).await,
            put(4, kept * 100).await,
        );
        let asked = put(5, kept).await;
        submit(pending).await;
        for (digest, outcome) in [
            (failed, Outcome::Failed { error: JobError::new(FailureClass::Build, "make failed") }),
            (succeeded, Outcome::made(Vec::new())),
        ] {
            let id = submit(digest).await;
            let mut claims = Vec::new();
            while !claims.iter().any(|claim: &Claim| claim.job.id == id) {
                let request = filled::request(ClaimToken::new(), filled::offer(10), 1);
                claims = store.claim(&request).await.unwrap();
            }
            for claim in claims {
                if claim.job.id == id {
                    store.finish(claim.fence, &outcome, at(2)).await.unwrap();
                }
            }
        }
        let known = crate::sources::known(&storage, &asked, now).await.unwrap();
        assert_eq!(known.unwrap().sha256, asked.hex(), "and is as young as if it had been sent again");
        let unused = UnusedFiles { count: 2, bytes: 2 };
        let unused = UnusedSources { archives: unused, ..UnusedSources::default() };
        assert_eq!(collector().remove_unused_sources(Mode::DryRun).await.unwrap(), unused);
        assert_eq!(collector().remove_unused_sources(Mode::Remove).await.unwrap(), unused);
        assert_eq!(collector().remove_unused_sources(Mode::Remove).await.unwrap(), UnusedSources::default());
        for (digest, stays) in
            [(old, false), (young, true), (pending, true), (failed, true), (succeeded, false), (asked, true)]
        {
            let found = crate::sources::known(&storage, &digest, now).await.unwrap();
            assert_eq!(found.is_some(), stays, "{digest}");
        }
    }
}
