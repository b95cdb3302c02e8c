//! A cache, a storage and an upstream on this machine that answers what a test wants, and tells what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use jiff::Timestamp;
use sha2::{Digest, Sha256, Sha512};
use tempfile::TempDir;

use super::*;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::artifact_storage::{ArtifactBody, ByteStream, StoredArtifact};
use crate::clock::SteadyClock;
use crate::conformance::source_cache::{self as suite, SourceCacheUnderTest};
use crate::melange::fetches::ChecksumAlgorithm::{Sha256 as BySha256, Sha512 as BySha512};

const SOURCE: &[u8] = b"the source";
const NOW: &str = "2026-11-15T12:00:00Z";

/// An upstream: it has [`SOURCE`] at `/source` and something else at `/other`, and waits with `/held` until it is let go.
struct Upstream {
    port: u16,
    asked: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = Self { port, asked: Arc::default(), gate: Arc::default() };
        let (asked, gate) = (Arc::clone(&upstream.asked), Arc::clone(&upstream.gate));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
                std::thread::spawn(move || answer(stream.unwrap(), &asked, &gate));
            }
        });
        upstream
    }

    fn let_go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn fetch(&self, path: &str) -> Fetch {
        Fetch::new(sha256(), self.url(path))
    }
}

fn answer(mut stream: TcpStream, asked: &AtomicUsize, gate: &(Mutex<bool>, Condvar)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    asked.fetch_add(1, Ordering::SeqCst);
    let path = request.split(' ').nth(1).unwrap();
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut answer = match path {
        "/source" | "/held" | "/half" => head("200 OK", SOURCE.len()),
        "/other" => head("200 OK", 3) + "not",
        "/busy" => head("503 Busy", 0),
        "/away" => {
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:1/x\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
        _ => head("404 Not Found", 0),
    };
    if path == "/half" {
        answer.push_str("the so");
    }
    let _ = stream.write_all(answer.as_bytes());
    if path == "/held" {
        let mut open = gate.0.lock().unwrap();
        while !*open {
            open = gate.1.wait(open).unwrap();
        }
    }
    if matches!(path, "/source" | "/held") {
        let _ = stream.write_all(SOURCE);
    }
}

fn sha256() -> SourceChecksum {
    SourceChecksum::new(BySha256, &hex::encode(Sha256::digest(SOURCE))).unwrap()
}

fn options() -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.addresses.allow("127.0.0.1").unwrap();
    options.tries = 2;
    options
}

/// One server: a folder of state, and a storage that others may have too.
struct Server {
    cache: StoredSourceCache,
    storage: Arc<dyn ArtifactStorage>,
    state: TempDir,
}

impl Server {
    fn new(storage: &Arc<dyn ArtifactStorage>, now: &str, bytes_max: u64, options: DownloadOptions) -> Self {
        let state = tempfile::tempdir().unwrap();
        let clock = Arc::new(SteadyClock::starting_at(now.parse::<Timestamp>().unwrap()));
        let caches = StateCache::new(state.path(), bytes_max);
        let cache = StoredSourceCache::new(caches, Arc::clone(storage), clock, options).unwrap();
        Self { cache, storage: Arc::clone(storage), state }
    }

    fn alone() -> Self {
        Self::new(&storage(), NOW, 1 << 20, options())
    }

    /// The files that it has on its disk.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.state.path().join(folder))
    }

    async fn stored(&self, month: &str) -> usize {
        let folder = month.parse::<SourceMonth>().unwrap().folder().unwrap();
        self.storage.list(&folder).await.unwrap().len()
    }

    /// A try that fails leaves nothing behind.
    async fn refused(&self, fetch: &Fetch) -> Error {
        let error = self.cache.get(fetch).await.unwrap_err();
        assert_eq!(self.files("fetched"), Vec::<PathBuf>::new());
        assert_eq!(self.files("fetching"), Vec::<PathBuf>::new());
        assert_eq!(self.stored("2026-11").await, 0);
        error
    }
}

/// The files below a folder, without the locks of their owners.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_name() != crate::locks::FOLDER_LOCK {
            found.push(entry.path());
        }
    }
    found
}

fn storage() -> Arc<dyn ArtifactStorage> {
    Arc::new(ObjectArtifactStorage::memory())
}

async fn put(storage: &Arc<dyn ArtifactStorage>, month: &str, bytes: &'static [u8]) {
    let key = fetched_key(month.parse().unwrap(), &sha256()).unwrap();
    storage.put(&key, stream::iter([Ok(Bytes::from_static(bytes))]).boxed()).await.unwrap();
}

fn content(source: &CachedSource) -> Vec<u8> {
    std::fs::read(&source.blob.path).unwrap()
}

#[tokio::test]
async fn a_source_comes_from_the_nearest_place_that_has_it() {
    let upstream = Upstream::start();
    let first = Server::alone();
    let got = first.cache.get(&upstream.fetch("source")).await.unwrap();
    assert_eq!(got.origin, SourceOrigin::Download(upstream.url("source")));
    assert_eq!((content(&got), got.blob.size_bytes), (SOURCE.to_vec(), 10));
    assert_eq!(got.blob.sha256, sha256().hex());
    assert_eq!((upstream.asked(), first.stored("2026-11").await), (1, 1));
    assert_eq!(first.files("fetching"), Vec::<PathBuf>::new());

    // Here again, by whatever address; there from the storage.
    let nowhere = Fetch::new(sha256(), "http://127.0.0.1:1/gone");
    assert_eq!(first.cache.get(&nowhere).await.unwrap().origin, SourceOrigin::Cache);
    let second = Server::new(&first.storage, NOW, 1 << 20, options());
    let got = second.cache.get(&nowhere).await.unwrap();
    assert_eq!((got.origin.clone(), content(&got)), (SourceOrigin::Cache, SOURCE.to_vec()));
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn sources_may_be_named_by_sha512() {
    let upstream = Upstream::start();
    let server = Server::alone();
    let checksum = SourceChecksum::new(BySha512, &hex::encode(Sha512::digest(SOURCE))).unwrap();
    for _ in 0..2 {
        let got = server.cache.get(&Fetch::new(checksum.clone(), upstream.url("source"))).await.unwrap();
        assert_eq!((content(&got), got.blob.sha256.as_str()), (SOURCE.to_vec(), sha256().hex()));
        assert!(got.blob.path.ends_with(checksum.to_string()));
    }
    assert_eq!(upstream.asked(), 1);
    let key = fetched_key("2026-11".parse().unwrap(), &checksum).unwrap();
    assert!(key.as_str().starts_with("fetched-2026-11/sha512/"), "{key}");
    assert_eq!(server.storage.head(&key).await.unwrap().sha256, sha256().hex());
}

#[tokio::test]
async fn what_is_damaged_is_removed_and_fetched_again() {
    let upstream = Upstream::start();
    let server = Server::alone();
    put(&server.storage, "2026-11", b"damaged").await;
    put(&server.storage, "2026-10", b"damaged too").await;
    let got = server.cache.get(&upstream.fetch("source")).await.unwrap();
    assert_eq!((content(&got), upstream.asked()), (SOURCE.to_vec(), 1));
    assert_eq!((server.stored("2026-11").await, server.stored("2026-10").await), (1, 0));

    // On the disk; the storage has it.
    let path = got.blob.path.clone();
    drop(got);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "damaged").unwrap();
    let got = server.cache.get(&upstream.fetch("source")).await.unwrap();
    assert_eq!((content(&got), upstream.asked()), (SOURCE.to_vec(), 1));

    // Of which nothing is left when it cannot be fetched.
    let lone = Server::alone();
    put(&lone.storage, "2026-11", b"damaged").await;
    lone.refused(&upstream.fetch("none")).await;
}

#[tokio::test]
async fn what_is_used_moves_to_the_present_month() {
    let upstream = Upstream::start();
    let server = Server::alone();
    put(&server.storage, "2026-10", SOURCE).await;
    server.cache.get(&upstream.fetch("source")).await.unwrap();
    assert_eq!((upstream.asked(), server.stored("2026-11").await), (0, 1));
    // What is older is not looked at: it is being removed.
    let later = Server::new(&server.storage, "2027-01-01T00:00:00Z", 1 << 20, options());
    let got = later.cache.get(&upstream.fetch("source")).await.unwrap();
    assert_eq!(got.origin, SourceOrigin::Download(upstream.url("source")));
}

#[tokio::test]
async fn what_cannot_be_fetched_is_told_and_leaves_nothing() {
    let upstream = Upstream::start();
    let server = Server::alone();
    let small = Fetch { bytes_max: 9, ..upstream.fetch("source") };
    let from = |uri: &str| Fetch::new(sha256(), uri);
    let login = from(&upstream.url("source").replace("//", "//me:secret@"));
    for (fetch, kind, told, asked) in [
        (upstream.fetch("none"), ErrorKind::NotFound, "answered 404", 1),
        (upstream.fetch("other"), ErrorKind::Untrusted, "its checksum is sha256:", 1),
        (upstream.fetch("busy"), ErrorKind::Unavailable, "tries: 2", 2),
        (upstream.fetch("half"), ErrorKind::Unavailable, "tries: 2", 2),
        (upstream.fetch("away"), ErrorKind::Untrusted, "leads to 127.0.0.2", 1),
        (small, ErrorKind::LimitExceeded, "more than the 9 bytes", 1),
        (from("http://127.0.0.2:1/x"), ErrorKind::Untrusted, "leads to 127.0.0.2", 0),
        (from("ftp://127.0.0.1/x"), ErrorKind::Unsupported, "neither http nor https", 0),
        (login, ErrorKind::Unsupported, "has a login", 0),
    ] {
        let before = upstream.asked();
        let error = server.refused(&fetch).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.chain().contains(told), "{told:?} is not in: {}", error.chain());
        assert!(!error.chain().contains("secret"), "{error:?}");
        assert_eq!(upstream.asked() - before, asked, "{error:?}");
    }
    // A second address helps, and both are told when neither does.
    let mut two = upstream.fetch("none");
    two.uris.push(upstream.url("other"));
    let told = server.refused(&two).await.chain();
    assert!(told.contains("/none answered 404; ") && told.contains("/other is not what"), "{told}");
    two.uris.push(upstream.url("source"));
    server.cache.get(&two).await.unwrap();
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_cause_one_download() {
    let upstream = Upstream::start();
    let server = Server::alone();
    let (held, wrong) = (upstream.fetch("held"), {
        let other = SourceChecksum::new(BySha256, &"0".repeat(64)).unwrap();
        Fetch::new(other, upstream.url("held"))
    });
    let all = join_all((0..10).flat_map(|_| [server.cache.get(&held), server.cache.get(&wrong)]));
    let waiting = async {
        let count =
            |fetch: &Fetch| server.cache.turns.lock().unwrap().get(&fetch.checksum).map(Weak::strong_count);
        while count(&held) != Some(10) || count(&wrong) != Some(10) {
            tokio::task::yield_now().await;
        }
        upstream.let_go();
    };
    let (all, ()) = tokio::join!(all, waiting);
    let (good, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len(), upstream.asked()), (10, 10, 2));
    for error in bad.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.chain().contains("/held is not what is expected: its checksum is"), "{error:?}");
    }
    // Whoever comes later tries anew.
    assert_eq!(server.cache.get(&wrong).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(upstream.asked(), 3);
}

#[tokio::test]
async fn an_upstream_that_is_silent_is_given_up() {
    let upstream = Upstream::start();
    let mut silent = options();
    silent.idle = Duration::from_millis(50);
    let server = Server::new(&storage(), NOW, 1 << 20, silent);
    let error = server.refused(&upstream.fetch("held")).await;
    assert_eq!((error.kind(), upstream.asked()), (ErrorKind::Unavailable, 2), "{error:?}");

    let mut short = options();
    short.time = Duration::from_millis(50);
    let server = Server::new(&storage(), NOW, 1 << 20, short);
    let error = server.refused(&upstream.fetch("held")).await;
    assert!(error.chain().contains("took longer than 0.05 s"), "{error:?}");
    upstream.let_go();
}

#[tokio::test]
async fn a_download_waits_for_its_turn_and_not_for_ever() {
    let upstream = Upstream::start();
    let mut busy = options();
    (busy.at_once, busy.turn) = (1, Duration::from_millis(50));
    let server = Server::new(&storage(), NOW, 1 << 20, busy);
    let other = SourceChecksum::new(BySha256, &"0".repeat(64)).unwrap();
    let (held, waits) = (upstream.fetch("held"), Fetch::new(other, upstream.url("source")));
    let waiting = async {
        while upstream.asked() == 0 {
            tokio::task::yield_now().await;
        }
        let error = server.cache.get(&waits).await.unwrap_err();
        upstream.let_go();
        error
    };
    let (got, error) = tokio::join!(server.cache.get(&held), waiting);
    got.unwrap();
    assert!(error.chain().contains("1 other downloads of the farm are under way"), "{error:?}");
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn a_dropped_request_stops_its_download() {
    let upstream = Upstream::start();
    let server = Server::alone();
    let held = upstream.fetch("held");
    let begun = async {
        while upstream.asked() == 0 || server.files("fetching").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        got = server.cache.get(&held) => panic!("it is held: {got:?}"),
        () = begun => {}
    }
    assert_eq!(server.files("fetching"), Vec::<PathBuf>::new());
    // The next one need not wait for it.
    server.cache.get(&upstream.fetch("source")).await.unwrap();
    upstream.let_go();
}

#[tokio::test]
async fn the_disk_is_bounded_by_the_caches_of_the_state() {
    let upstream = Upstream::start();
    // A file may have what the caches may.
    let tiny = Server::new(&storage(), NOW, 9, options());
    let error = tiny.refused(&upstream.fetch("source")).await;
    assert!(error.chain().contains("more than the 9 bytes"), "{error:?}");

    // What is in use stays, and nothing is added to it.
    let server = Server::new(&storage(), NOW, 15, options());
    let got = server.cache.get(&upstream.fetch("source")).await.unwrap();
    let package = server.state.path().join("packages/big");
    std::fs::create_dir_all(package.parent().unwrap()).unwrap();
    std::fs::write(&package, [0; 20]).unwrap();
    let held = server.cache.cache.hold(&package);
    let other = Fetch::new(SourceChecksum::new(BySha256, &"0".repeat(64)).unwrap(), upstream.url("other"));
    let error = server.cache.get(&other).await.unwrap_err();
    assert!(error.chain().contains("full of what running builds use"), "{error:?}");
    assert_eq!(content(&got), SOURCE);
    // What nobody uses leaves.
    drop((got, held));
    assert_eq!(server.cache.get(&other).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(server.files("packages"), Vec::<PathBuf>::new());
}

mockall::mock! {
    #[derive(Debug)]
    Storage {}

    #[async_trait]
    impl ArtifactStorage for Storage {
        async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact>;
        async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact>;
        async fn get(&self, key: &ArtifactKey, range: Option<std::ops::Range<u64>>) -> Result<ArtifactBody>;
        async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact>;
        async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp>;
        async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>>;
        async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>>;
        async fn delete(&self, key: &ArtifactKey) -> Result<()>;
        fn url(&self, key: &ArtifactKey) -> String;
    }
}

#[tokio::test]
async fn a_storage_that_is_away_costs_only_the_sharing() {
    let away = || Error::new(ErrorKind::Unavailable, "the bucket is away");
    let mut storage = MockStorage::new();
    storage.expect_get().times(2).returning(move |_, _| Err(away()));
    storage.expect_put().times(1).returning(move |_, _| Err(away()));
    let storage: Arc<dyn ArtifactStorage> = Arc::new(storage);
    let upstream = Upstream::start();
    let server = Server::new(&storage, NOW, 1 << 20, options());
    for _ in 0..2 {
        assert_eq!(content(&server.cache.get(&upstream.fetch("source")).await.unwrap()), SOURCE);
    }
    assert_eq!(upstream.asked(), 1);
}

impl SourceCacheUnderTest for Server {
    fn cache(&self) -> &dyn SourceCache {
        &self.cache
    }

    fn unfinished(&self) -> usize {
        self.files("fetching").len()
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    suite::all(&Server::alone()).await;
}
