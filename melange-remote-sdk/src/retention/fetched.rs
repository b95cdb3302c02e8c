//! Sources that definitions name by a checksum go when nobody used them for long: they lie in the folder of the month in
//! which they were used last, and whoever uses one again puts it into that of the present month.

use super::Collector;
use super::collector::Pace;
use crate::artifact_storage::ArtifactKey;
use crate::artifact_storage::layout::{FETCHED_FOLDERS, SourceMonth};
use crate::error::Result;
use crate::limits;

impl Collector {
    /// Removes sources that no job used in this month and in the one before; how many went, of at most
    /// [`limits::REMOVALS_PER_PASS_MAX`]. Several servers may do so at once, and dropping the future loses nothing but
    /// what is left to do.
    ///
    /// # Errors
    /// The storage's; what was removed before is removed.
    pub async fn remove_unused_sources(&self) -> Result<usize> {
        let oldest_kept = SourceMonth::of(self.clock.now()).before();
        let folders = self.artifact_storage.folders(FETCHED_FOLDERS, limits::PAGE_ITEMS_MAX).await?;
        let months = folders.iter().filter_map(month_of).filter(|month| *month < oldest_kept);
        let (mut pace, mut removed) = (Pace::new(self.options.removals_per_second), 0);
        for month in months {
            for part in month.parts()? {
                for source in self.artifact_storage.list(&part).await? {
                    if removed >= limits::REMOVALS_PER_PASS_MAX {
                        return Ok(removed);
                    }
                    pace.turn().await;
                    self.artifact_storage.delete(&source.key).await?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// The month of a folder of sources; `None` for any other folder.
fn month_of(folder: &ArtifactKey) -> Option<SourceMonth> {
    folder.as_str().strip_prefix(FETCHED_FOLDERS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::artifact_storage::ArtifactStorage;
    use crate::artifact_storage::layout::fetched_key;
    use crate::artifact_storage::object::ObjectArtifactStorage;
    use crate::clock::SteadyClock;
    use crate::conformance::artifact_storage::bytes;
    use crate::job_store::memory::MemoryJobStore;
    use crate::melange::fetches::{ChecksumAlgorithm, SourceChecksum};
    use crate::retention::{CollectorOptions, KeepRules};

    #[tokio::test(start_paused = true)]
    async fn sources_go_when_neither_this_month_nor_the_last_one_used_them() {
        let storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
        let of =
            |algorithm, digit: &str, digits| SourceChecksum::new(algorithm, &digit.repeat(digits)).unwrap();
        let checksums = [of(ChecksumAlgorithm::Sha256, "a", 64), of(ChecksumAlgorithm::Sha512, "0", 128)];
        let mut others: Vec<ArtifactKey> = Vec::new();
        for name in ["fetched/x", "fetched-/x", "fetched-2026-13/x", "fetched-2020-1/x", "sources/a.tar"] {
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
        assert_eq!(collector.remove_unused_sources().await.unwrap(), 4);
        assert_eq!(collector.remove_unused_sources().await.unwrap(), 0);
        for (month, left) in [("2019-12", 0), ("2025-11", 0), ("2025-12", 2), ("2026-01", 2), ("2026-02", 2)]
        {
            let folder = month.parse::<SourceMonth>().unwrap().folder().unwrap();
            assert_eq!(storage.list(&folder).await.unwrap().len(), left, "{month}");
        }
        for key in &others {
            assert!(storage.head(key).await.is_ok(), "{key} is not a source of a month");
        }
    }
}
