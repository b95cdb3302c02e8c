//! The promises of [`ArtifactStorage`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::artifact_storage::{ArtifactKey, ArtifactStorage, ByteStream};
use crate::error::{Error, ErrorKind};

/// A key.
pub fn key(text: &str) -> ArtifactKey {
    text.parse().expect("the key is legal")
}

/// A stream of chunks.
pub fn bytes(chunks: Vec<Vec<u8>>) -> ByteStream {
    stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk)))).boxed()
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

/// Every promise. The storage may hold other artifacts, none of them under `conformance`.
pub async fn all(storage: Arc<dyn ArtifactStorage>) {
    what_is_put_comes_back(&*storage).await;
    large_artifacts_come_back_too(&*storage).await;
    ranges_are_exact(&*storage).await;
    a_failed_put_leaves_what_was_there(&*storage).await;
    a_dropped_put_leaves_what_was_there(&*storage).await;
    listings_have_the_prefix_and_no_more(&*storage).await;
    deleting_is_idempotent(&*storage).await;
    puts_at_once_are_never_mixed(storage).await;
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

/// An artifact of several parts and an odd size.
pub async fn large_artifacts_come_back_too(storage: &dyn ArtifactStorage) {
    let name = key("conformance/large/a.bin");
    let content: Vec<u8> = (0..17_000_001u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let chunks = content.chunks(300_007).map(<[u8]>::to_vec).collect();
    let put = storage.put(&name, bytes(chunks)).await.expect("it is stored");
    assert_eq!((put.size_bytes, &put.sha256), (len(&content), &sha256(&content)));
    assert!(read(storage, &name).await == content, "the bytes are the same");
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

/// A put that is dropped half way changes nothing.
pub async fn a_dropped_put_leaves_what_was_there(storage: &dyn ArtifactStorage) {
    let name = key("conformance/dropped/a");
    let endless = stream::iter([Ok(Bytes::from(vec![7; 20_000_000]))]).chain(stream::pending()).boxed();
    {
        let mut put = storage.put(&name, endless);
        for _ in 0..50 {
            assert!(futures_util::poll!(&mut put).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(storage.head(&name).await.expect_err("nothing is there").kind(), ErrorKind::NotFound);
    let listed = storage.list(&key("conformance/dropped")).await.expect("it lists");
    assert_eq!(listed, []);
}

/// A listing has the artifacts below the prefix, sorted, with their checksums, and nothing else.
pub async fn listings_have_the_prefix_and_no_more(storage: &dyn ArtifactStorage) {
    let names =
        ["conformance/list/a", "conformance/list/b~1/c", "conformance/list/b~1/d", "conformance/lists"];
    for name in names {
        storage.put(&key(name), bytes(vec![name.into()])).await.expect("it is stored");
    }
    let listed = storage.list(&key("conformance/list")).await.expect("it lists");
    let told: Vec<(&str, &str)> = listed.iter().map(|a| (a.key.as_str(), a.sha256.as_str())).collect();
    let sums: Vec<String> = names.iter().map(|name| sha256(name.as_bytes())).collect();
    let expected: Vec<(&str, &str)> =
        names[..3].iter().copied().zip(sums.iter().map(String::as_str)).collect();
    assert_eq!(told, expected);
    assert_eq!(storage.list(&key("conformance/nothing")).await.expect("it lists"), []);
}

/// A removed artifact is gone; removing it again is no error.
pub async fn deleting_is_idempotent(storage: &dyn ArtifactStorage) {
    let name = key("conformance/delete/a");
    storage.put(&name, bytes(vec![b"x".to_vec()])).await.expect("it is stored");
    for _ in 0..2 {
        storage.delete(&name).await.expect("it is removed");
        assert_eq!(storage.head(&name).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    }
}

/// Of several puts at once one wins as a whole, and its checksum with it.
pub async fn puts_at_once_are_never_mixed(storage: Arc<dyn ArtifactStorage>) {
    let name = key("conformance/race/a");
    let mut puts = tokio::task::JoinSet::new();
    for writer in 0..8u8 {
        let (storage, name) = (Arc::clone(&storage), name.clone());
        puts.spawn(async move {
            let chunks = vec![vec![writer; 1_000 + usize::from(writer)]; 20];
            storage.put(&name, bytes(chunks)).await.expect("it is stored")
        });
    }
    while let Some(put) = puts.join_next().await {
        put.expect("no put panics");
    }
    let head = storage.head(&name).await.expect("one of them is there");
    let content = read(&*storage, &name).await;
    assert_eq!((head.size_bytes, head.sha256), (len(&content), sha256(&content)));
    assert!(content.windows(2).all(|pair| pair[0] == pair[1]), "the bytes are of one writer");
}
