//! Artifacts in memory, behind the same kinds of faults.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Mistake;
use super::world::{Party, World};
use crate::artifact_storage::layout::LOG_NAME;
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::error::{Error, ErrorKind, Result};

/// A handle of the storage that belongs to one party.
#[derive(Debug)]
pub(super) struct FaultyStorage {
    pub(super) world: Arc<World>,
    pub(super) party: Arc<Party>,
}

impl FaultyStorage {
    async fn delay_or_fail(&self, when: &str) -> Result<()> {
        self.party.breathe().await;
        if self.world.fault(self.world.levels.slow) {
            tokio::time::sleep(self.world.time(1, 2_000)).await;
            self.party.breathe().await;
        }
        if self.world.fault(self.world.levels.storage) {
            self.world.tell(&format!("{} storage: fails {when}", self.party.name));
            return Err(Error::new(ErrorKind::Unavailable, "the simulated storage is away"));
        }
        Ok(())
    }
}

#[async_trait]
impl ArtifactStorage for FaultyStorage {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        self.delay_or_fail("before a put").await?;
        let stored = self.world.artifacts.put(key, bytes).await?;
        let is_log = key.as_str().ends_with(LOG_NAME);
        let loses = if is_log { Mistake::StoresNoLogs } else { Mistake::StoresNothing };
        if self.world.mistake == loses && self.world.chance(0.3) {
            self.world.artifacts.delete(key).await?;
        }
        self.delay_or_fail("after a put").await?;
        Ok(stored)
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        self.delay_or_fail("before a copy").await?;
        self.world.artifacts.copy_if_absent(from, to).await
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        self.world.artifacts.get(key, range).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        self.world.artifacts.head(key).await
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        self.world.artifacts.stored_at(key).await
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        self.world.artifacts.list(prefix).await
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        self.world.artifacts.folders(behind, limit).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        self.delay_or_fail("before a removal").await?;
        self.world.artifacts.delete(key).await
    }

    fn url(&self, key: &ArtifactKey) -> String {
        self.world.artifacts.url(key)
    }
}
