//! The promises of [`SourceCache`].

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sha2::{Digest, Sha256, Sha512};
use tokio::task::yield_now;

use crate::error::{Error, ErrorKind};
use crate::guest::{CachedSource, SourceCache, SourceOrigin};
use crate::melange::fetches::{ChecksumAlgorithm, Fetch, SourceChecksum};

mod upstream;

pub use upstream::{Upstream, UpstreamAnswer};

/// Callers that ask for one source at the same time.
const AT_ONCE: usize = 8;
/// How often others get a turn until what a dropped call began must be gone.
const TURNS: usize = 100_000;

/// A cache, as the suite needs it. Its clock must not be paused: upstreams are servers on `127.0.0.1`, which it must be
/// allowed to ask over http.
pub trait SourceCacheUnderTest: Send + Sync {
    /// The cache.
    fn cache(&self) -> &dyn SourceCache;

    /// How many files it has begun and not finished, such as parts of downloads.
    fn unfinished(&self) -> usize;
}

/// Every promise.
pub async fn all(cache: &dyn SourceCacheUnderTest) {
    what_is_given_is_what_was_asked_for(cache).await;
    it_is_downloaded_once(cache).await;
    other_bytes_are_refused_and_forgotten(cache).await;
    what_was_spoilt_since_is_not_given(cache).await;
    all_addresses_are_tried(cache).await;
    errors_say_what_was_tried(cache).await;
    a_source_has_a_bound_for_each_who_asks(cache).await;
    callers_at_the_same_time_cause_one_download(cache).await;
    a_dropped_call_leaves_nothing(cache).await;
}

/// The checksum of some bytes.
pub fn checksum(algorithm: ChecksumAlgorithm, content: &[u8]) -> SourceChecksum {
    let hex = match algorithm {
        ChecksumAlgorithm::Sha256 => hex::encode(Sha256::digest(content)),
        ChecksumAlgorithm::Sha512 => hex::encode(Sha512::digest(content)),
    };
    SourceChecksum::new(algorithm, &hex).expect("it is one")
}

/// A source that an upstream has, by its SHA-256.
fn fetch(upstream: &Upstream, content: &[u8]) -> Fetch {
    Fetch::new(checksum(ChecksumAlgorithm::Sha256, content), upstream.url())
}

/// Bytes that no other cache nor promise has.
fn content(of: &str) -> Vec<u8> {
    format!("the source of {of}: {}", fastrand::u128(..)).into_bytes()
}

async fn given(cache: &dyn SourceCacheUnderTest, fetch: &Fetch, content: &[u8]) -> CachedSource {
    let found =
        cache.cache().get(fetch).await.unwrap_or_else(|error| panic!("it can be had: {}", error.chain()));
    let read = std::fs::read(&found.blob.path).expect("the file is there");
    assert!(read == content, "the bytes are those that have the checksum");
    assert_eq!(found.blob.size_bytes, content.len() as u64);
    assert_eq!(found.blob.sha256, hex::encode(Sha256::digest(content)));
    found
}

async fn refused(cache: &dyn SourceCacheUnderTest, fetch: &Fetch) -> Error {
    let error = cache.cache().get(fetch).await.expect_err("it cannot be had");
    assert_eq!(cache.unfinished(), 0, "nothing half-written is left");
    error
}

/// The file has the checksum, its size and SHA-256 are told, whichever checksum named it.
pub async fn what_is_given_is_what_was_asked_for(cache: &dyn SourceCacheUnderTest) {
    for algorithm in [ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha512] {
        let content = content("what is given");
        let upstream = Upstream::start(UpstreamAnswer::Gives(content.clone()));
        let fetch = Fetch::new(checksum(algorithm, &content), upstream.url());
        let found = given(cache, &fetch, &content).await;
        assert_eq!(found.origin, SourceOrigin::Download(upstream.url()), "and where it came from");
        let upstream = Upstream::start(UpstreamAnswer::Gives(b"something else".to_vec()));
        let other = checksum(algorithm, b"another source");
        let error = refused(cache, &Fetch::new(other, upstream.url())).await;
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{}", error.chain());
    }
}

/// What it has is given again without asking, and said to be there.
pub async fn it_is_downloaded_once(cache: &dyn SourceCacheUnderTest) {
    let content = content("one download");
    let upstream = Upstream::start(UpstreamAnswer::Gives(content.clone()));
    let fetch = fetch(&upstream, &content);
    drop(given(cache, &fetch, &content).await);
    let again = given(cache, &fetch, &content).await;
    assert_eq!((again.origin, upstream.asked()), (SourceOrigin::Cache, 1));
}

/// Bytes with another checksum are given to nobody, and do not stand in the way of the right ones.
pub async fn other_bytes_are_refused_and_forgotten(cache: &dyn SourceCacheUnderTest) {
    let content = content("other bytes");
    let wrong = Upstream::start(UpstreamAnswer::Gives(vec![b'x'; content.len()]));
    let error = refused(cache, &fetch(&wrong, &content)).await;
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{}", error.chain());
    let right = Upstream::start(UpstreamAnswer::Gives(content.clone()));
    given(cache, &fetch(&right, &content), &content).await;
}

/// A file that was changed since is compared before it is given.
pub async fn what_was_spoilt_since_is_not_given(cache: &dyn SourceCacheUnderTest) {
    let content = content("spoilt");
    let upstream = Upstream::start(UpstreamAnswer::Gives(content.clone()));
    let fetch = fetch(&upstream, &content);
    let path = given(cache, &fetch, &content).await.blob.path;
    let spoilt = path.with_extension("spoilt");
    std::fs::write(&spoilt, vec![b'x'; content.len()]).expect("the folder can be written");
    std::fs::rename(&spoilt, &path).expect("the file can be replaced");
    given(cache, &fetch, &content).await;
}

/// An address that has it not, breaks off or has something else is followed by the next one.
pub async fn all_addresses_are_tried(cache: &dyn SourceCacheUnderTest) {
    let content = content("the last address");
    let answers = [
        UpstreamAnswer::HasNone,
        UpstreamAnswer::BreaksOff(content.clone()),
        UpstreamAnswer::Gives(b"something else".to_vec()),
        UpstreamAnswer::Gives(content.clone()),
    ];
    let upstreams = answers.map(Upstream::start);
    let mut fetch = fetch(&upstreams[0], &content);
    fetch.uris = upstreams.iter().map(Upstream::url).collect();
    let found = given(cache, &fetch, &content).await;
    assert_eq!(found.origin, SourceOrigin::Download(upstreams[3].url()));
    assert!(upstreams.iter().all(|upstream| upstream.asked() > 0), "each was asked");
}

/// Each address that was tried stands in the error.
pub async fn errors_say_what_was_tried(cache: &dyn SourceCacheUnderTest) {
    let content = content("nowhere");
    let upstreams = [UpstreamAnswer::HasNone, UpstreamAnswer::HasNone].map(Upstream::start);
    let mut fetch = fetch(&upstreams[0], &content);
    fetch.uris = upstreams.iter().map(Upstream::url).collect();
    let error = refused(cache, &fetch).await;
    assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable), "{}", error.chain());
    for upstream in &upstreams {
        assert!(error.chain().contains(&upstream.url()), "{}", error.chain());
    }
}

/// Who may have less than it is gets nothing; who may have more is not refused because of that.
pub async fn a_source_has_a_bound_for_each_who_asks(cache: &dyn SourceCacheUnderTest) {
    let content = content("bounds");
    let upstream = Upstream::start(UpstreamAnswer::Gives(content.clone()));
    let mut fetch = fetch(&upstream, &content);
    fetch.bytes_max = content.len() as u64 - 1;
    let error = refused(cache, &fetch).await;
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error.chain());
    fetch.bytes_max = content.len() as u64;
    given(cache, &fetch, &content).await;
}

/// They wait for the first of them, and all have it then.
pub async fn callers_at_the_same_time_cause_one_download(cache: &dyn SourceCacheUnderTest) {
    let content = content("many");
    let upstream = Upstream::start(UpstreamAnswer::Holds(content.clone()));
    let fetch = fetch(&upstream, &content);
    let gets = join_all((0..AT_ONCE).map(|_| given(cache, &fetch, &content)));
    let opens = async {
        upstream.until_asked().await;
        upstream.open();
    };
    let (found, ()) = tokio::join!(gets, opens);
    assert_eq!(upstream.asked(), 1, "one of them downloads");
    let places: BTreeSet<_> = found.iter().map(|found| &found.blob.path).collect();
    assert_eq!(places.len(), 1, "one file for all");
}

/// What a call began goes with it, and the next one begins anew.
pub async fn a_dropped_call_leaves_nothing(cache: &dyn SourceCacheUnderTest) {
    let content = content("dropped");
    let upstream = Upstream::start(UpstreamAnswer::Holds(content.clone()));
    let fetch = fetch(&upstream, &content);
    tokio::select! {
        biased;
        _ = cache.cache().get(&fetch) => panic!("nothing came yet"),
        () = upstream.until_asked() => {}
    }
    // A thread that writes may have to end first.
    for _ in 0..TURNS {
        if cache.unfinished() == 0 {
            break;
        }
        yield_now().await;
    }
    assert_eq!(cache.unfinished(), 0, "nothing half-written is left");
    upstream.open();
    given(cache, &fetch, &content).await;
}
