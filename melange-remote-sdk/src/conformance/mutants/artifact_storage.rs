//! Artifact storages with one mistake each: maps in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;

use super::Verdict;
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::clock::{Clock, SystemClock};
use crate::conformance::artifact_storage::all;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// The mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    SwapsParts,
    SwapsSmallParts,
    DoublesPart,
    LosesPart,
    DoublesChunk,
    DeletesThenWrites,
    DeletesBeforeTheLastWait,
    WritesAsItComes,
    KeepsWhatAFailedPutSent,
    SharesUploads,
    SharesSmallUploads,
    FirstPutWins,
    TellsOldChecksum,
    CutsAtBound,
    CutsAtAThousand,
    ListsUnsorted,
    ListsByText,
    ListLosesChecksums,
    RangesEndOneLate,
    RangesAreCut,
    FoldersComeTwice,
    FoldersAreUnsorted,
    FoldersBeginAnew,
    FoldersIgnoreLimit,
    TimesAreOfTheFirstPut,
    TimesAreNone,
    TimesOfWhatIsMissing,
    CopiesReplace,
    CopiesTellTheOriginal,
    CopiesFollowTheOriginal,
    CopiesTakeTheOriginal,
    CopiesOfNothing,
    CopiesRace,
    DeleteWantsAnArtifact,
    DeleteTakesPrefix,
    WrapsErrors,
}

const BUGS: [(&str, Bug); 36] = [
    ("two parts are swapped", Bug::SwapsParts),
    ("two small parts are swapped", Bug::SwapsSmallParts),
    ("a part is there twice", Bug::DoublesPart),
    ("the last part is lost", Bug::LosesPart),
    ("a chunk is there twice", Bug::DoublesChunk),
    ("delete, then write", Bug::DeletesThenWrites),
    ("delete when the bytes are there, then write", Bug::DeletesBeforeTheLastWait),
    ("bytes are visible as they come", Bug::WritesAsItComes),
    ("a put that failed leaves its bytes", Bug::KeepsWhatAFailedPutSent),
    ("large puts of one key share an upload", Bug::SharesUploads),
    ("puts of one key share an upload", Bug::SharesSmallUploads),
    ("the first put wins", Bug::FirstPutWins),
    ("a new put keeps the old checksum", Bug::TellsOldChecksum),
    ("a listing is cut at its bound", Bug::CutsAtBound),
    ("a listing is cut at 1,000", Bug::CutsAtAThousand),
    ("a listing is not sorted", Bug::ListsUnsorted),
    ("a listing compares text, not folders", Bug::ListsByText),
    ("a listing has no checksums", Bug::ListLosesChecksums),
    ("a range ends one byte late", Bug::RangesEndOneLate),
    ("a range behind the end is cut", Bug::RangesAreCut),
    ("a folder is told for each of its artifacts", Bug::FoldersComeTwice),
    ("folders are not sorted", Bug::FoldersAreUnsorted),
    ("folders begin anew with every page", Bug::FoldersBeginAnew),
    ("pages of folders have any size", Bug::FoldersIgnoreLimit),
    ("times are those of the first put", Bug::TimesAreOfTheFirstPut),
    ("times are none", Bug::TimesAreNone),
    ("what is missing has a time", Bug::TimesOfWhatIsMissing),
    ("a copy replaces what is there", Bug::CopiesReplace),
    ("a copy tells of its original", Bug::CopiesTellTheOriginal),
    ("a copy follows its original", Bug::CopiesFollowTheOriginal),
    ("a copy takes its original away", Bug::CopiesTakeTheOriginal),
    ("what is missing is copied", Bug::CopiesOfNothing),
    ("of copies at once the last one counts", Bug::CopiesRace),
    ("removing what is not there fails", Bug::DeleteWantsAnArtifact),
    ("removing takes what begins alike", Bug::DeleteTakesPrefix),
    ("the error of the source is another one", Bug::WrapsErrors),
];

/// Tries the suite on the sound storage, then on every mutant.
pub async fn run() -> Verdict {
    all(Arc::new(Mutant::new(Bug::None))).await;
    let mut verdict = Verdict::new("ArtifactStorage");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(Arc::new(Mutant::new(bug)))).await;
    }
    verdict
}

type Artifacts = BTreeMap<ArtifactKey, (StoredArtifact, Bytes)>;

#[derive(Debug)]
struct Mutant {
    bug: Bug,
    artifacts: Mutex<Artifacts>,
    times: Mutex<BTreeMap<ArtifactKey, Timestamp>>,
    /// The originals of copies, for the mistake of following them.
    copies: Mutex<BTreeMap<ArtifactKey, ArtifactKey>>,
    /// Parts of uploads by key, for the mistake of sharing them.
    uploads: Mutex<BTreeMap<ArtifactKey, BTreeMap<usize, Bytes>>>,
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn missing(key: &ArtifactKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {key}"))
}

fn describe(key: &ArtifactKey, content: &[u8]) -> StoredArtifact {
    let sha256 = hex::encode(Sha256::digest(content));
    StoredArtifact { key: key.clone(), size_bytes: count(content.len()), sha256 }
}

impl Mutant {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            artifacts: Mutex::default(),
            times: Mutex::default(),
            copies: Mutex::default(),
            uploads: Mutex::default(),
        }
    }

    fn artifacts(&self) -> MutexGuard<'_, Artifacts> {
        self.artifacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &ArtifactKey) -> Result<(StoredArtifact, Bytes)> {
        self.artifacts().get(key).cloned().ok_or_else(|| missing(key))
    }

    fn store(&self, told: &StoredArtifact, content: Vec<u8>) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let time = times.entry(told.key.clone()).or_insert_with(|| SystemClock.now());
        if self.bug != Bug::TimesAreOfTheFirstPut {
            *time = SystemClock.now();
        }
        drop(times);
        self.artifacts().insert(told.key.clone(), (told.clone(), content.into()));
    }

    /// What is kept of the bytes that came.
    fn keep(&self, content: &[u8]) -> Vec<u8> {
        let part = match self.bug {
            Bug::SwapsSmallParts => 64 << 10,
            _ => usize::try_from(limits::ARTIFACT_PART_BYTES).unwrap_or(usize::MAX),
        };
        let mut parts: Vec<&[u8]> = content.chunks(part).collect();
        if parts.len() > 2 {
            match self.bug {
                Bug::SwapsParts | Bug::SwapsSmallParts => parts.swap(0, 1),
                Bug::DoublesPart => parts[1] = parts[0],
                Bug::LosesPart => _ = parts.pop(),
                _ => {}
            }
        }
        parts.concat()
    }

    /// Parts of an upload that every put of the key writes to.
    async fn share(&self, key: &ArtifactKey, mut bytes: ByteStream) -> Result<Vec<u8>> {
        let mut number = 0;
        while let Some(chunk) = bytes.try_next().await? {
            self.uploads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.clone())
                .or_default()
                .insert(number, chunk);
            number += 1;
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(uploads.remove(key).unwrap_or_default().values().flatten().copied().collect())
    }

    async fn collect(&self, key: &ArtifactKey, mut bytes: ByteStream) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            match bytes.try_next().await {
                Ok(Some(chunk)) => {
                    content.extend_from_slice(&chunk);
                    if self.bug == Bug::DoublesChunk && chunk.len() > 100_000 {
                        content.truncate(content.len() - 1);
                        content.push(chunk[0]);
                    }
                    if self.bug == Bug::WritesAsItComes {
                        self.store(&describe(key, b""), content.clone());
                    }
                }
                Ok(None) => return Ok(content),
                Err(error) => {
                    if self.bug == Bug::KeepsWhatAFailedPutSent {
                        self.store(&describe(key, &content), content);
                    }
                    return Err(match self.bug {
                        Bug::WrapsErrors => {
                            Error::new(ErrorKind::Unavailable, "the put failed").source(error)
                        }
                        _ => error,
                    });
                }
            }
        }
    }
}

#[async_trait]
impl ArtifactStorage for Mutant {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        if self.bug == Bug::DeletesThenWrites {
            self.artifacts().remove(key);
        }
        if matches!(self.bug, Bug::SharesUploads | Bug::SharesSmallUploads) {
            let (mut head, mut bytes) = (Vec::new(), bytes);
            let mut size = 0;
            while self.bug == Bug::SharesUploads && count(size) < limits::ARTIFACT_PART_BYTES {
                let Some(chunk) = bytes.try_next().await? else { break };
                size += chunk.len();
                head.push(chunk);
            }
            let small = self.bug == Bug::SharesUploads && count(size) < limits::ARTIFACT_PART_BYTES;
            let content = match small {
                true => head.concat(),
                false => {
                    let head = stream::iter(head.into_iter().map(Ok));
                    self.share(key, head.chain(bytes).boxed()).await?
                }
            };
            let told = describe(key, &content);
            self.store(&told, content);
            return Ok(told);
        }
        let content = self.collect(key, bytes).await?;
        let mut told = describe(key, &content);
        if self.bug == Bug::DeletesBeforeTheLastWait {
            self.artifacts().remove(key);
            yield_now().await;
        }
        let old = self.find(key).ok();
        match (self.bug, old) {
            (Bug::FirstPutWins, Some(_)) => {}
            (Bug::TellsOldChecksum, Some((old, _))) => {
                told.sha256 = old.sha256;
                self.store(&told, content);
            }
            _ => self.store(&told, self.keep(&content)),
        }
        Ok(told)
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        if let Ok((known, _)) = self.find(to)
            && self.bug != Bug::CopiesReplace
        {
            return Ok(known);
        }
        let (original, content) = match self.find(from) {
            Err(_) if self.bug == Bug::CopiesOfNothing => (describe(from, b""), Bytes::new()),
            found => found?,
        };
        if self.bug == Bug::CopiesRace {
            yield_now().await;
        }
        let told = StoredArtifact { key: to.clone(), ..original.clone() };
        self.store(&told, content.to_vec());
        match self.bug {
            Bug::CopiesTellTheOriginal => return Ok(original),
            Bug::CopiesTakeTheOriginal => _ = self.artifacts().remove(from),
            Bug::CopiesFollowTheOriginal => {
                let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
                copies.insert(to.clone(), from.clone());
            }
            _ => {}
        }
        Ok(told)
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        let original = self.copies.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let key = original.as_ref().unwrap_or(key);
        let (artifact, content) = self.find(key)?;
        let size = count(content.len());
        let mut range = range.unwrap_or(0..size);
        if self.bug == Bug::RangesAreCut {
            range.end = range.end.min(size);
        }
        if (range.start >= range.end && size > 0) || range.end > size {
            return Err(Error::invalid("there are no such bytes"));
        }
        let late = usize::from(self.bug == Bug::RangesEndOneLate && range.end < size);
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = content.slice(place(range.start)..place(range.end) + late);
        Ok(ArtifactBody { artifact, range, bytes: stream::iter([Ok(bytes)]).boxed() })
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        Ok(self.find(key)?.0)
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        match self.bug {
            Bug::TimesAreNone => return Ok(Timestamp::UNIX_EPOCH),
            Bug::TimesOfWhatIsMissing => {}
            _ => _ = self.find(key)?,
        }
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(times.get(key).copied().unwrap_or_else(|| SystemClock.now()))
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        let folder = if self.bug == Bug::ListsByText { prefix.to_string() } else { format!("{prefix}/") };
        let artifacts = self.artifacts();
        let listed = artifacts.iter().filter(|(key, _)| key.as_str().starts_with(&folder));
        let mut listed: Vec<StoredArtifact> = listed.map(|(_, (artifact, _))| artifact.clone()).collect();
        match self.bug {
            Bug::CutsAtBound => listed.truncate(limits::ARTIFACTS_LISTED_MAX),
            Bug::CutsAtAThousand => listed.truncate(1_000),
            Bug::ListsUnsorted => listed.reverse(),
            Bug::ListLosesChecksums => listed.iter_mut().for_each(|artifact| artifact.sha256.clear()),
            _ => {}
        }
        if listed.len() > limits::ARTIFACTS_LISTED_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many artifacts"));
        }
        Ok(listed)
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        let artifacts = self.artifacts();
        let first = |key: &ArtifactKey| key.as_str().split('/').next().and_then(|part| part.parse().ok());
        let mut told: Vec<ArtifactKey> = artifacts.keys().filter_map(first).collect();
        told.sort();
        if self.bug != Bug::FoldersComeTwice {
            told.dedup();
        }
        if self.bug != Bug::FoldersBeginAnew {
            told.retain(|key| key.as_str() > behind);
        }
        match self.bug {
            Bug::FoldersAreUnsorted => told.reverse(),
            Bug::FoldersIgnoreLimit => return Ok(told),
            _ => {}
        }
        told.truncate(limit);
        Ok(told)
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        let removed = self.artifacts().remove(key);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        match self.bug {
            Bug::DeleteWantsAnArtifact if removed.is_none() => return Err(missing(key)),
            Bug::DeleteTakesPrefix => {
                self.artifacts().retain(|other, _| !other.as_str().starts_with(key.as_str()));
            }
            _ => {}
        }
        Ok(())
    }

    fn url(&self, key: &ArtifactKey) -> String {
        format!("mutant:/{key}")
    }
}
