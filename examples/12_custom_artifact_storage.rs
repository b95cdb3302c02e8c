//! An artifact storage of one's own, and the proof that it keeps the contract: in memory, and equal bytes are kept once.
//!
//! `cargo run --example 12_custom_artifact_storage`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use melange_remote_sdk::artifact_storage::{
    ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact,
};
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::conformance::artifact_storage as suite;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::limits;
use sha2::{Digest, Sha256};

/// Keys, and the bytes that they share.
#[derive(Debug, Default)]
struct Shelf {
    artifacts: BTreeMap<ArtifactKey, (StoredArtifact, Arc<Bytes>)>,
    /// When each was put.
    times: HashMap<ArtifactKey, Timestamp>,
    /// The bytes by their digest, for as long as a key has them.
    contents: HashMap<String, Weak<Bytes>>,
}

/// The storage.
#[derive(Debug, Default)]
struct Deduplicating {
    shelf: Mutex<Shelf>,
}

impl Deduplicating {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &ArtifactKey) -> Result<(StoredArtifact, Arc<Bytes>)> {
        self.shelf()
            .artifacts
            .get(key)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such artifact").with("artifact", key))
    }

    /// How many bytes are kept.
    fn kept(&self) -> usize {
        self.shelf().contents.values().filter_map(Weak::upgrade).map(|bytes| bytes.len()).sum()
    }
}

#[async_trait]
impl ArtifactStorage for Deduplicating {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        // All bytes come first: a stream that fails, or a call that is dropped, changes nothing.
        let bytes = bytes.try_collect::<Vec<Bytes>>().await?.concat();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let artifact = StoredArtifact::new(key.clone(), bytes.len() as u64, &sha256);
        let mut shelf = self.shelf();
        let known = shelf.contents.get(&sha256).and_then(Weak::upgrade);
        let bytes = known.unwrap_or_else(|| Arc::new(Bytes::from(bytes)));
        shelf.contents.insert(sha256, Arc::downgrade(&bytes));
        shelf.artifacts.insert(key.clone(), (artifact.clone(), bytes));
        shelf.times.insert(key.clone(), SystemClock.now());
        shelf.contents.retain(|_, bytes| bytes.strong_count() > 0);
        Ok(artifact)
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        let known = self.find(to).is_ok();
        let (original, bytes) = self.find(if known { to } else { from })?;
        let artifact = StoredArtifact::new(to.clone(), original.size_bytes, original.sha256);
        let mut shelf = self.shelf();
        let (kept, _) = shelf.artifacts.entry(to.clone()).or_insert((artifact, bytes));
        let kept = kept.clone();
        shelf.times.entry(to.clone()).or_insert_with(|| SystemClock.now());
        Ok(kept)
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        let (artifact, bytes) = self.find(key)?;
        let range = match range {
            Some(range) if range.is_empty() || range.end > artifact.size_bytes => {
                let message =
                    format!("{range:?} is no range of an artifact of {} bytes", artifact.size_bytes);
                return Err(Error::invalid(message));
            }
            Some(range) => range,
            None => 0..artifact.size_bytes,
        };
        // Whoever reads keeps the bytes, whatever becomes of the key.
        let part = bytes.slice(range.start as usize..range.end as usize);
        Ok(ArtifactBody::new(artifact, range, stream::iter([Ok(part)]).boxed()))
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        self.find(key).map(|(artifact, _)| artifact)
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        let missing = || Error::new(ErrorKind::NotFound, "there is no such artifact").with("artifact", key);
        self.shelf().times.get(key).copied().ok_or_else(missing)
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        let below = format!("{prefix}/");
        let shelf = self.shelf();
        let found = shelf.artifacts.values().map(|(artifact, _)| artifact);
        let found = found.filter(|artifact| artifact.key.as_str().starts_with(&below)).cloned();
        let found: Vec<StoredArtifact> = found.take(limits::ARTIFACTS_LISTED_MAX + 1).collect();
        if found.len() > limits::ARTIFACTS_LISTED_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "there are too many artifacts to list"));
        }
        Ok(found)
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        let shelf = self.shelf();
        let first = |key: &ArtifactKey| key.as_str().split('/').next().and_then(|part| part.parse().ok());
        let folders: BTreeSet<ArtifactKey> = shelf.artifacts.keys().filter_map(first).collect();
        Ok(folders.into_iter().filter(|folder| folder.as_str() > behind).take(limit).collect())
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        let mut shelf = self.shelf();
        shelf.artifacts.remove(key);
        shelf.times.remove(key);
        shelf.contents.retain(|_, bytes| bytes.strong_count() > 0);
        Ok(())
    }

    fn url(&self, key: &ArtifactKey) -> String {
        format!("memory:{key}")
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    suite::all(Arc::new(Deduplicating::default())).await;
    println!("the storage keeps the contract");

    let storage = Deduplicating::default();
    for name in ["one/x86_64/same.apk", "two/x86_64/same.apk"] {
        storage.put(&name.parse()?, suite::bytes(vec![vec![7; 1000]])).await?;
    }
    println!("two artifacts of 1000 bytes take {}", storage.kept());
    Ok(())
}
