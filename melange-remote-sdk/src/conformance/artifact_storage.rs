//! The promises of [`ArtifactStorage`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::task::{JoinSet, yield_now};

use crate::artifact_storage::{ArtifactKey, ArtifactStorage, ByteStream};
use crate::clock::{Clock, SystemClock, earlier, later};
use crate::error::{Error, ErrorKind};
use crate::limits;

/// Bytes of an artifact that storages send in parts: two parts that are full and a rest.
const LARGE_BYTES: usize = 17_000_001;
/// Chunks of streams; no multiple of a part.
const CHUNK_BYTES: usize = 300_007;
/// Small artifacts that are put or removed at once.
const PUTS_AT_ONCE: usize = 32;
/// How often a put is polled at most before it is dropped.
const POLLS_MAX: usize = 12;

/// A key.
pub fn key(text: &str) -> ArtifactKey {
    text.parse().expect("the key is legal")
}

/// A stream of chunks.
pub fn bytes(chunks: Vec<Vec<u8>>) -> ByteStream {
    stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk)))).boxed()
}

/// Bytes without a period, others for each seed: whatever is moved, doubled or left out shows.
fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // SplitMix64: a counter, mixed.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// The content in chunks, with a wait before each of them, so that others come in between.
fn slowly(content: &Bytes, chunk_bytes: usize) -> ByteStream {
    let starts = (0..content.len()).step_by(chunk_bytes);
    let chunks: Vec<Bytes> =
        starts.map(|start| content.slice(start..content.len().min(start + chunk_bytes))).collect();
    let wait = async |chunk| {
        yield_now().await;
        Ok(chunk)
    };
    stream::iter(chunks).then(wait).boxed()
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// Reads an artifact to its end.
pub async fn read(storage: &dyn ArtifactStorage, key: &ArtifactKey) -> Vec<u8> {
    let body = storage.get(key, None).await.expect("the artifact is there");
    let chunks: Vec<Bytes> = body.bytes.try_collect().await.expect("the artifact reads");
    chunks.concat()
}

/// Every promise. The storage may hold other artifacts, none of them under `conformance` or what begins so.
pub async fn all(storage: Arc<dyn ArtifactStorage>) {
    what_is_put_comes_back(&*storage).await;
    large_artifacts_come_back_too(&*storage).await;
    ranges_are_exact(&*storage).await;
    a_failed_put_leaves_what_was_there(&*storage).await;
    a_dropped_put_leaves_what_was_there(&*storage).await;
    a_put_dropped_at_its_end_is_done_or_not_done(&*storage).await;
    listings_have_the_prefix_and_no_more(&*storage).await;
    folders_are_told_once_and_in_order(&*storage).await;
    deleting_is_idempotent(&*storage).await;
    times_are_those_of_the_last_put(&*storage).await;
    a_copy_stays_and_the_first_one_counts(Arc::clone(&storage)).await;
    puts_at_once_are_never_mixed(Arc::clone(&storage)).await;
    listings_are_never_cut(&*storage).await;
}

/// Bytes, size and checksum are those that were put; the last put wins.
pub async fn what_is_put_comes_back(storage: &dyn ArtifactStorage) {
    let name = key("conformance/put/x86_64/a+b_1.0~rc1@x:y=z,-r0.apk");
    assert_eq!(storage.head(&name).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
    assert_eq!(storage.get(&name, None).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
    for content in [b"hello".to_vec(), Vec::new(), b"again".to_vec()] {
        let chunks = content.chunks(2).map(<[u8]>::to_vec).collect();
        let put = storage.put(&name, bytes(chunks)).await.expect("it is stored");
        assert_eq!((put.size_bytes, &put.sha256), (len(&content), &sha256(&content)));
        assert_eq!(put.key, name);
        assert_eq!(storage.head(&name).await.expect("it is there"), put);
        assert_eq!(read(storage, &name).await, content);
    }
}

/// An artifact tells when it was put last, by a clock that is right to a day, and one that is missing does not.
pub async fn times_are_those_of_the_last_put(storage: &dyn ArtifactStorage) {
    /// How long putting again may take until a storage that rounds its times tells another one.
    const PATIENCE: Duration = Duration::from_secs(3);
    let name = key("conformance/times/a");
    let put = async || {
        storage.put(&name, bytes(vec![b"a".to_vec()])).await.expect("it is stored");
        storage.stored_at(&name).await.expect("it is there")
    };
    assert_eq!(storage.stored_at(&name).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
    let (begun, first) = (SystemClock.now(), put().await);
    let day = Duration::from_secs(86_400);
    assert!(earlier(begun, day) < first && first < later(begun, day), "{first} is not now, {begun}");
    let mut last = put().await;
    while last == first && SystemClock.now() < later(begun, PATIENCE) {
        last = put().await;
    }
    assert!(first < last, "what was put at {last} tells {first}");
    storage.delete(&name).await.expect("it is removed");
    assert_eq!(storage.stored_at(&name).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}

/// A copy has the bytes of its original as it was, whatever becomes of that; a key that is taken stays as it is, and of
/// copies at once one counts.
pub async fn a_copy_stays_and_the_first_one_counts(storage: Arc<dyn ArtifactStorage>) {
    let (a, b, to) =
        (key("conformance/copies/a"), key("conformance/copies/b"), key("conformance/copies/to/x"));
    let missing = storage.copy_if_absent(&a, &to).await.expect_err("there is nothing to copy");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(storage.head(&to).await.expect_err("nothing was copied").kind(), ErrorKind::NotFound);
    let (one, other) = (content(7, 3 * CHUNK_BYTES), content(8, CHUNK_BYTES));
    storage.put(&a, bytes(vec![one.to_vec()])).await.expect("it is stored");
    storage.put(&b, bytes(vec![other.to_vec()])).await.expect("it is stored");
    let copied = storage.copy_if_absent(&a, &to).await.expect("it is copied");
    assert_eq!((&copied.key, copied.size_bytes, &copied.sha256), (&to, len(&one), &sha256(&one)));
    assert_eq!(read(&*storage, &a).await, one, "the original is no longer what it was");
    let again = storage.copy_if_absent(&b, &to).await.expect("the key is taken");
    assert_eq!(again, copied, "the copy was replaced");
    storage.put(&a, bytes(vec![other.to_vec()])).await.expect("it is stored");
    assert_eq!(read(&*storage, &to).await, one, "the copy follows its original");
    storage.delete(&a).await.expect("it is removed");
    assert_eq!(storage.head(&to).await.expect("the copy stays"), copied);
    assert_eq!(read(&*storage, &to).await, one);
    storage.delete(&to).await.expect("it is removed");
    assert_eq!(storage.head(&b).await.expect("the original stays").sha256, sha256(&other));

    storage.put(&a, bytes(vec![one.to_vec()])).await.expect("it is stored");
    let mut copies = JoinSet::new();
    for number in 0..PUTS_AT_ONCE {
        let (storage, to) = (Arc::clone(&storage), to.clone());
        let from = if number % 2 == 0 { a.clone() } else { b.clone() };
        copies.spawn(async move { storage.copy_if_absent(&from, &to).await.expect("it is copied") });
    }
    let told = copies.join_all().await;
    let kept = storage.head(&to).await.expect("one was copied");
    assert_eq!(sha256(&read(&*storage, &to).await), kept.sha256);
    assert!(told.iter().all(|told| *told == kept), "not all copies tell the one that counts");
    for name in [a, b, to] {
        storage.delete(&name).await.expect("it is removed");
    }
}

/// Artifacts of several parts and odd sizes.
pub async fn large_artifacts_come_back_too(storage: &dyn ArtifactStorage) {
    let name = key("conformance/large/a.bin");
    for (seed, size) in [(1, LARGE_BYTES), (2, 3 * CHUNK_BYTES)] {
        let content = content(seed, size);
        let put = storage.put(&name, slowly(&content, CHUNK_BYTES)).await.expect("it is stored");
        assert_eq!((put.size_bytes, &put.sha256), (len(&content), &sha256(&content)));
        assert_eq!(storage.head(&name).await.expect("it is there"), put);
        assert!(read(storage, &name).await == content, "the bytes are the same");
    }
    let whole = content(1, LARGE_BYTES);
    storage.put(&name, bytes(vec![whole.to_vec()])).await.expect("it is stored");
    assert!(read(storage, &name).await == whole, "the bytes of one chunk are the same too");
    storage.delete(&name).await.expect("it is removed");
}

fn len(content: &[u8]) -> u64 {
    u64::try_from(content.len()).expect("it fits")
}

/// A range gives its bytes; one that is empty or leaves the artifact is refused.
pub async fn ranges_are_exact(storage: &dyn ArtifactStorage) {
    let name = key("conformance/range/a");
    storage.put(&name, bytes(vec![b"0123456789".to_vec()])).await.expect("it is stored");
    for range in [0..10, 0..1, 3..7, 9..10] {
        let body = storage.get(&name, Some(range.clone())).await.expect("the range is inside");
        assert_eq!(body.range, range);
        assert_eq!(body.artifact.size_bytes, 10);
        let chunks: Vec<Bytes> = body.bytes.try_collect().await.expect("it reads");
        let expected: Vec<u8> = range.map(|n| b'0' + u8::try_from(n).expect("a digit")).collect();
        assert_eq!(chunks.concat(), expected);
    }
    for (start, end) in [(0, 0), (10, 11), (5, 11), (7, 3)] {
        let refused = storage.get(&name, Some(start..end)).await.expect_err("the range is outside");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{start}..{end}");
    }
}

/// A put whose bytes end with an error gives that error and changes nothing.
pub async fn a_failed_put_leaves_what_was_there(storage: &dyn ArtifactStorage) {
    let name = key("conformance/failed/a");
    let fresh = key("conformance/failed/b");
    let old = storage.put(&name, bytes(vec![b"old".to_vec()])).await.expect("it is stored");
    for (name, size) in [(&name, 10), (&fresh, 10), (&name, 20_000_000)] {
        let good = Ok(Bytes::from(vec![7; size]));
        let bad = Err(Error::new(ErrorKind::Cancelled, "the source is gone"));
        let failed = storage.put(name, stream::iter([good, bad]).boxed()).await;
        assert_eq!(failed.expect_err("the bytes end badly").kind(), ErrorKind::Cancelled);
    }
    assert_eq!(storage.head(&name).await.expect("it is there"), old);
    assert_eq!(read(storage, &name).await, b"old");
    assert_eq!(storage.head(&fresh).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
}

/// A put that is dropped half way changes nothing, whether the key is new or not.
pub async fn a_dropped_put_leaves_what_was_there(storage: &dyn ArtifactStorage) {
    let (fresh, known) = (key("conformance/dropped/a"), key("conformance/kept/a"));
    let old = storage.put(&known, bytes(vec![b"old".to_vec()])).await.expect("it is stored");
    for (name, size) in [(&fresh, LARGE_BYTES), (&known, LARGE_BYTES), (&fresh, 10), (&known, 10)] {
        let endless = stream::iter([Ok(content(3, size))]).chain(stream::pending()).boxed();
        let mut put = storage.put(name, endless);
        for _ in 0..50 {
            assert!(futures_util::poll!(&mut put).is_pending());
            yield_now().await;
        }
        drop(put);
        let listed = storage.list(&key("conformance/dropped")).await.expect("it lists");
        assert_eq!(listed, [], "half an artifact is none");
        assert_eq!(storage.head(&fresh).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
        assert_eq!(storage.head(&known).await.expect("the old one is there"), old);
        assert_eq!(read(storage, &known).await, b"old");
    }
    storage.delete(&known).await.expect("it is removed");
}

/// Wherever a put is dropped, the artifact is the whole old one or the whole new one.
pub async fn a_put_dropped_at_its_end_is_done_or_not_done(storage: &dyn ArtifactStorage) {
    let name = key("conformance/end/a");
    let mut known = vec![Bytes::from_static(b"old")];
    storage.put(&name, bytes(vec![b"old".to_vec()])).await.expect("it is stored");
    for times in 0..POLLS_MAX {
        let new = content(u64::try_from(times).expect("it fits"), 1_000);
        known.push(new.clone());
        let mut put = storage.put(&name, bytes(vec![new.to_vec()]));
        for _ in 0..times {
            if futures_util::poll!(&mut put).is_ready() {
                break;
            }
            yield_now().await;
        }
        drop(put);
        storage.head(&name).await.expect("a put takes nothing away");
        // What a dropped put has handed to a thread may still come to its end.
        let found = read(storage, &name).await;
        assert!(known.iter().any(|known| *known == found), "the artifact is whole: {} bytes", found.len());
    }
}

/// A listing has the artifacts below the prefix, sorted, with their checksums, and nothing else.
pub async fn listings_have_the_prefix_and_no_more(storage: &dyn ArtifactStorage) {
    let names = [
        "conformance/list/a",
        "conformance/list/b~1/c",
        "conformance/list/b~1/d",
        "conformance/list/c",
        "conformance/lists",
        "conformance/lists-of/a",
    ];
    for name in names {
        storage.put(&key(name), bytes(vec![name.into()])).await.expect("it is stored");
    }
    let listed = storage.list(&key("conformance/list")).await.expect("it lists");
    let told: Vec<(&str, &str)> = listed.iter().map(|a| (a.key.as_str(), a.sha256.as_str())).collect();
    let sums: Vec<String> = names.iter().map(|name| sha256(name.as_bytes())).collect();
    let expected: Vec<(&str, &str)> =
        names[..4].iter().copied().zip(sums.iter().map(String::as_str)).collect();
    assert_eq!(told, expected);
    assert_eq!(storage.list(&key("conformance/nothing")).await.expect("it lists"), []);
}

/// The first parts of keys, sorted and each once, behind a name, no more than were asked for.
pub async fn folders_are_told_once_and_in_order(storage: &dyn ArtifactStorage) {
    let names = ["conformance-1/b/c", "conformance-1/a", "conformance-3/a", "conformance-2/x/y/z"];
    for name in names {
        storage.put(&key(name), bytes(vec![b"x".to_vec()])).await.expect("it is stored");
    }
    let told = async |behind: &str, limit| {
        let told = storage.folders(behind, limit).await.expect("it lists");
        told.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
    };
    // Others may stand behind these.
    assert_eq!(told("conformance-", 3).await, ["conformance-1", "conformance-2", "conformance-3"]);
    assert_eq!(told("conformance-", 2).await, ["conformance-1", "conformance-2"]);
    assert_eq!(told("conformance-1", 1).await, ["conformance-2"]);
    assert_eq!(told("conformance-1", 0).await, [""; 0]);
    let all = storage.folders("", usize::MAX).await.expect("it lists");
    assert!(all.is_sorted() && all.contains(&key("conformance-3")), "{all:?}");
    for name in names {
        storage.delete(&key(name)).await.expect("it is removed");
    }
}

/// A removed artifact is gone, and nothing else; removing it again is no error.
pub async fn deleting_is_idempotent(storage: &dyn ArtifactStorage) {
    let (name, alike) = (key("conformance/delete/a"), key("conformance/delete/a.apk"));
    for name in [&name, &alike] {
        storage.put(name, bytes(vec![b"x".to_vec()])).await.expect("it is stored");
    }
    for _ in 0..2 {
        storage.delete(&name).await.expect("it is removed");
        assert_eq!(storage.head(&name).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
        assert_eq!(storage.get(&name, None).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    }
    let listed = storage.list(&key("conformance/delete")).await.expect("it lists");
    assert_eq!(listed.iter().map(|artifact| &artifact.key).collect::<Vec<_>>(), [&alike]);
    assert_eq!(read(storage, &alike).await, b"x");
}

/// Of several puts at once, small ones and ones of several parts, one wins as a whole, and its checksum with it;
/// whoever reads meanwhile finds one of them too, or what was there before.
pub async fn puts_at_once_are_never_mixed(storage: Arc<dyn ArtifactStorage>) {
    for (size, chunk_bytes, writers) in [(20_000, 1_000, 8), (12_000_000, 1_000_000, 3)] {
        let name = key(&format!("conformance/race/{size}"));
        let old = content(100, 1_000);
        storage.put(&name, bytes(vec![old.to_vec()])).await.expect("it is stored");
        let mut known = vec![sha256(&old)];
        let mut puts = JoinSet::new();
        for writer in 0..writers {
            // Longer ones first: a mixture would show by its length too.
            let content = content(writer, size - usize::try_from(writer).expect("it fits"));
            known.push(sha256(&content));
            let (storage, name) = (Arc::clone(&storage), name.clone());
            puts.spawn(async move {
                let put = storage.put(&name, slowly(&content, chunk_bytes)).await.expect("it is stored");
                assert_eq!((put.size_bytes, put.sha256), (len(&content), sha256(&content)));
            });
        }
        while !puts.is_empty() {
            let body = storage.get(&name, None).await.expect("the key is never without an artifact");
            assert!(known.contains(&body.artifact.sha256), "a reader is told of a whole artifact");
            if let Some(put) = puts.try_join_next() {
                put.expect("no put panics");
            }
            yield_now().await;
        }
        let head = storage.head(&name).await.expect("one of them is there");
        let content = read(&*storage, &name).await;
        assert_eq!((head.size_bytes, &head.sha256), (len(&content), &sha256(&content)));
        assert!(known[1..].contains(&head.sha256), "the bytes are of one writer");
        storage.delete(&name).await.expect("it is removed");
    }
}

/// A listing holds all that there is or is refused; it is never cut without a word.
pub async fn listings_are_never_cut(storage: &dyn ArtifactStorage) {
    let folder = key("conformance/many");
    let names: Vec<ArtifactKey> = (0..=limits::ARTIFACTS_LISTED_MAX)
        .map(|number| folder.join(&format!("{number:06}")).expect("the key is legal"))
        .collect();
    let put = async |name: &ArtifactKey| {
        storage.put(name, bytes(vec![b"x".to_vec()])).await.expect("it is stored");
    };
    stream::iter(&names[1..]).map(put).buffer_unordered(PUTS_AT_ONCE).collect::<()>().await;
    let listed = storage.list(&folder).await.expect("a listing may hold so many");
    assert!(
        listed.iter().map(|artifact| &artifact.key).eq(&names[1..]),
        "every artifact is listed, in order"
    );
    put(&names[0]).await;
    let refused = storage.list(&folder).await.expect_err("one more than a listing may hold");
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    let delete = async |name: &ArtifactKey| storage.delete(name).await.expect("it is removed");
    stream::iter(&names).map(delete).buffer_unordered(PUTS_AT_ONCE).collect::<()>().await;
    assert_eq!(storage.list(&folder).await.expect("it lists"), []);
}
