//! Artifacts in memory, behind the same kinds of faults.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::Mistake;
use super::world::{Party, World, lock};
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::error::{Error, ErrorKind, Result};

/// A handle of the storage that belongs to one party.
#[derive(Debug)]
pub(super) struct FaultyStorage {
    pub(super) world: Arc<World>,
    pub(super) party: Arc<Party>,
}

fn described(key: &ArtifactKey, content: &[u8]) -> StoredArtifact {
    let size_bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    StoredArtifact { key: key.clone(), size_bytes, sha256: hex::encode(Sha256::digest(content)) }
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

    fn find(&self, key: &ArtifactKey) -> Result<Bytes> {
        let found = lock(&self.world.artifacts).get(key).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such artifact"))
    }
}

#[async_trait]
impl ArtifactStorage for FaultyStorage {
    async fn put(&self, key: &ArtifactKey, mut bytes: ByteStream) -> Result<StoredArtifact> {
        self.delay_or_fail("before a put").await?;
        let mut content = BytesMut::new();
        while let Some(chunk) = bytes.next().await {
            content.extend_from_slice(&chunk?);
        }
        self.party.breathe().await;
        let content = content.freeze();
        let stored = described(key, &content);
        let is_log = key.as_str().ends_with(".log");
        if !(self.world.mistake == Mistake::StoresNothing && !is_log && self.world.chance(0.3)) {
            lock(&self.world.artifacts).insert(key.clone(), content);
        }
        self.delay_or_fail("after a put").await?;
        Ok(stored)
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        let content = self.find(key)?;
        let artifact = described(key, &content);
        let range = range.unwrap_or(0..artifact.size_bytes);
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
        let bytes = content.slice(place(range.start)..place(range.end));
        Ok(ArtifactBody { artifact, range, bytes: stream::iter([Ok(bytes)]).boxed() })
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        self.find(key).map(|content| described(key, &content))
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        let folder = format!("{prefix}/");
        let artifacts = lock(&self.world.artifacts);
        let within = artifacts.iter().filter(|(key, _)| key.as_str().starts_with(&folder));
        Ok(within.map(|(key, content)| described(key, content)).collect())
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        self.delay_or_fail("before a removal").await?;
        lock(&self.world.artifacts).remove(key);
        Ok(())
    }

    fn url(&self, key: &ArtifactKey) -> String {
        format!("memory:{key}")
    }
}
