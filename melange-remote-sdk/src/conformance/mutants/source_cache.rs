//! Caches of sources with one mistake each: files in a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::Verdict;
use crate::conformance::source_cache::{SourceCacheUnderTest, all, checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{Blob, CachedSource, SourceCache, SourceOrigin};
use crate::melange::fetches::{ChecksumAlgorithm, Fetch, SourceChecksum};

/// The mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ComparesNothing,
    ComparesSha256Alone,
    TrustsItsFiles,
    EverybodyDownloads,
    TriesOneAddress,
    RemembersFailures,
    RemembersBounds,
    HasNoBound,
    WritesAsItComes,
    TellsNoAddress,
    KeepsNothing,
    SaysThatItHadIt,
    SaysThatItDownloaded,
    TellsNoSize,
    TellsTheChecksumAsked,
    TakesHalves,
}

const BUGS: [(&str, Bug); 16] = [
    ("nothing is compared", Bug::ComparesNothing),
    ("only SHA-256 is compared", Bug::ComparesSha256Alone),
    ("files are trusted once they are there", Bug::TrustsItsFiles),
    ("everybody downloads", Bug::EverybodyDownloads),
    ("one address is tried", Bug::TriesOneAddress),
    ("failures are remembered", Bug::RemembersFailures),
    ("the bound of one holds for all", Bug::RemembersBounds),
    ("there is no bound", Bug::HasNoBound),
    ("a download lies where it comes", Bug::WritesAsItComes),
    ("an error tells no address", Bug::TellsNoAddress),
    ("nothing is kept", Bug::KeepsNothing),
    ("a download is said to have been there", Bug::SaysThatItHadIt),
    ("what was there is said to be a download", Bug::SaysThatItDownloaded),
    ("the size is not told", Bug::TellsNoSize),
    ("the checksum asked for is told as SHA-256", Bug::TellsTheChecksumAsked),
    ("half a download is a download", Bug::TakesHalves),
];

/// Tries the suite on the sound cache, then on every mutant.
pub async fn run() -> Verdict {
    all(&Mutant::new(Bug::None)).await;
    let mut verdict = Verdict::new("SourceCache");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(&Mutant::new(bug))).await;
    }
    verdict
}

#[derive(Debug)]
struct Mutant {
    bug: Bug,
    folder: TempDir,
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    failed: Mutex<BTreeSet<String>>,
}

impl SourceCacheUnderTest for Mutant {
    fn cache(&self) -> &dyn SourceCache {
        self
    }

    fn unfinished(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path()).expect("the folder is there").flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "part")).count()
    }
}

impl Mutant {
    fn new(bug: Bug) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        Self { bug, folder, turns: Mutex::default(), failed: Mutex::default() }
    }

    fn path(&self, checksum: &SourceChecksum) -> PathBuf {
        self.folder.path().join(checksum.to_string())
    }

    fn is_right(&self, content: &[u8], of: &SourceChecksum) -> bool {
        match self.bug {
            Bug::ComparesNothing => true,
            Bug::ComparesSha256Alone if of.algorithm() == ChecksumAlgorithm::Sha512 => true,
            _ => checksum(of.algorithm(), content) == *of,
        }
    }

    fn found(&self, checksum: &SourceChecksum, content: &[u8], origin: SourceOrigin) -> CachedSource {
        let sha256 = match self.bug {
            Bug::TellsTheChecksumAsked => checksum.hex().to_owned(),
            _ => hex::encode(Sha256::digest(content)),
        };
        let size_bytes = if self.bug == Bug::TellsNoSize { 0 } else { content.len() as u64 };
        CachedSource::new(Blob { path: self.path(checksum), sha256, size_bytes }, origin, ())
    }

    fn local(&self, fetch: &Fetch) -> Option<CachedSource> {
        let content = std::fs::read(self.path(&fetch.checksum)).ok()?;
        if self.bug == Bug::KeepsNothing
            || self.bug != Bug::TrustsItsFiles && !self.is_right(&content, &fetch.checksum)
        {
            return None;
        }
        let origin = match (self.bug, fetch.uris.first()) {
            (Bug::SaysThatItDownloaded, Some(uri)) => SourceOrigin::Download(uri.clone()),
            _ => SourceOrigin::Cache,
        };
        Some(self.found(&fetch.checksum, &content, origin))
    }

    /// The content from one address, with what is wrong with it.
    async fn try_one(&self, fetch: &Fetch, uri: &str) -> Result<Vec<u8>> {
        let told = if self.bug == Bug::TellsNoAddress { "an address" } else { uri };
        let part = self.path(&fetch.checksum).with_extension("part");
        if self.bug == Bug::WritesAsItComes {
            std::fs::write(&part, b"").map_err(|e| Error::io("write", &part, e))?;
        }
        let got = download(uri).await;
        if self.bug == Bug::WritesAsItComes {
            std::fs::remove_file(&part).map_err(|e| Error::io("remove", &part, e))?;
        }
        let (content, is_whole) =
            got.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{told} has nothing")))?;
        if !is_whole && self.bug != Bug::TakesHalves {
            return Err(Error::new(ErrorKind::Unavailable, format!("{told} breaks off")));
        }
        if content.len() as u64 > fetch.bytes_max && self.bug != Bug::HasNoBound {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("{told} has more than it may")));
        }
        if is_whole && !self.is_right(&content, &fetch.checksum) {
            return Err(Error::new(ErrorKind::Untrusted, format!("{told} has other bytes")));
        }
        Ok(content)
    }

    async fn fill(&self, fetch: &Fetch) -> Result<CachedSource> {
        let most = if self.bug == Bug::TriesOneAddress { 1 } else { usize::MAX };
        let (mut told, mut kind) = (Vec::new(), ErrorKind::NotFound);
        for uri in fetch.uris.iter().take(most) {
            match self.try_one(fetch, uri).await {
                Ok(content) => {
                    let path = self.path(&fetch.checksum);
                    std::fs::write(&path, &content).map_err(|e| Error::io("write", &path, e))?;
                    let origin = match self.bug {
                        Bug::SaysThatItHadIt => SourceOrigin::Cache,
                        _ => SourceOrigin::Download(uri.clone()),
                    };
                    return Ok(self.found(&fetch.checksum, &content, origin));
                }
                Err(error) => {
                    kind = error.kind();
                    told.push(error.to_string());
                }
            }
        }
        Err(Error::new(kind, told.join("; ")))
    }
}

#[async_trait]
impl SourceCache for Mutant {
    async fn get(&self, fetch: &Fetch) -> Result<CachedSource> {
        if let Some(found) = self.local(fetch) {
            return Ok(found);
        }
        let name = fetch.checksum.to_string();
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(name.clone()).or_default())
        };
        let _turn = if self.bug == Bug::EverybodyDownloads { None } else { Some(turn.lock().await) };
        if self.bug != Bug::EverybodyDownloads
            && let Some(found) = self.local(fetch)
        {
            return Ok(found);
        }
        if self.failed.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
            return Err(Error::new(ErrorKind::Unavailable, "it could not be had before"));
        }
        let got = self.fill(fetch).await;
        let is_remembered = got.as_ref().err().is_some_and(|error| match self.bug {
            Bug::RemembersFailures => error.kind() != ErrorKind::LimitExceeded,
            Bug::RemembersBounds => error.kind() == ErrorKind::LimitExceeded,
            _ => false,
        });
        if is_remembered {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
        got
    }
}

/// What an address gives, and whether that is all of it; `None` when it has nothing. A thread reads, and nobody waits for
/// it when the future is dropped.
async fn download(uri: &str) -> Option<(Vec<u8>, bool)> {
    let (place, path) = uri.strip_prefix("http://")?.split_once('/')?;
    let (place, path) = (place.to_owned(), path.to_owned());
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(place)?;
            write!(stream, "GET /{path} HTTP/1.1\r\nhost: upstream\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        send.send(read().unwrap_or_default()).unwrap_or_default();
    });
    let answer = receive.await.ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    let content = answer.get(end.saturating_add(4)..)?.to_vec();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
    head.starts_with("HTTP/1.1 200").then_some(()).map(|()| (content.clone(), content.len() == length))
}
