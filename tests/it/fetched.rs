//! Sources that definitions name by a checksum, from an upstream that only the farm reaches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use melange_remote_sdk::artifact_storage::layout::{SourceMonth, fetched_key};
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::artifact_storage::{ArtifactKey, ArtifactStorage};
use melange_remote_sdk::builder::{BuildStatus, Builder};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::engine::EngineBuilder;
use melange_remote_sdk::fetched::{DownloadOptions, StoredSourceCache};
use melange_remote_sdk::melange::fetches::{ChecksumAlgorithm, SourceChecksum};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::service::{BACKENDS, start_with};
use crate::support::events::Collected;
use crate::support::farm::{Backend, Built, Farm, Places, assert_same, on_farm, run};

const SOURCE: &str = "int main(void) { return 0; }\n";

/// A server that no guest reaches, and how often it was asked for something.
struct Upstream {
    origin: String,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let router = Router::new().fallback(move |uri: Uri| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                match uri.path() {
                    "/main.c" => Ok(SOURCE),
                    "/other.c" => Ok("int main(void) { return 1; }\n"),
                    "/never.c" => std::future::pending().await,
                    _ => Err(StatusCode::NOT_FOUND),
                }
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { origin, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A definition that fetches `path` and packs it.
    fn definition(&self, name: &str, path: &str) -> String {
        format!(
            "package:\n  name: {name}\n  version: 1.0.0\n  epoch: 0\n\
             environment:\n  contents:\n    packages: [busybox]\n\
             vars:\n  origin: {}\n\
             pipeline:\n  - uses: fetch\n    with:\n      uri: ${{{{vars.origin}}}}/{path}\n      \
             expected-sha256: {}\n      extract: false\n      retry-limit: 1\n      timeout: 1\n  \
             - runs: |\n      d=${{{{targets.destdir}}}}/usr/share/{name}\n      mkdir -p $d\n      cp {path} $d/\n",
            self.origin,
            checksum().hex().to_uppercase(),
        )
    }
}

fn checksum() -> SourceChecksum {
    SourceChecksum::new(ChecksumAlgorithm::Sha256, &hex::encode(Sha256::digest(SOURCE))).unwrap()
}

fn key() -> ArtifactKey {
    fetched_key(SourceMonth::of(SystemClock.now()), &checksum()).unwrap()
}

/// A server's engine: its own empty cache over a storage that others have too.
struct Server {
    engine: EngineBuilder,
    state: tempfile::TempDir,
}

impl Server {
    fn new(farm: &Farm, storage: &Path) -> Self {
        Self::with(farm, storage, |_| {})
    }

    fn with(farm: &Farm, storage: &Path, change: impl FnOnce(&mut DownloadOptions)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut options = DownloadOptions::default();
        options.addresses.allow("127.0.0.1").unwrap();
        change(&mut options);
        let cache = StateCache::new(state.path(), 1 << 30);
        let storage = Arc::new(ObjectArtifactStorage::local(storage).unwrap());
        let sources = StoredSourceCache::new(cache, storage, Arc::new(SystemClock), options).unwrap();
        let engine = farm.engine_with(farm.defaults()).with_source_cache(Arc::new(sources));
        Self { engine, state }
    }

    async fn build(&self, backend: Backend, name: &str, yaml: &str) -> Built {
        run(&self.engine, Farm::input(backend, name, yaml)).await
    }

    /// Where its disk has the source.
    fn local(&self) -> PathBuf {
        self.state.path().join("fetched").join(checksum().to_string())
    }
}

/// The line that the farm tells about a source.
fn told(built: &Built) -> String {
    let text = built.events.text();
    let mut lines = text.lines().filter(|line| line.starts_with("source "));
    let line = lines.next().unwrap_or_else(|| panic!("nothing is told of a source in:\n{text}")).to_owned();
    assert_eq!(lines.next(), None);
    line
}

/// The step could not fetch either, and that is the definition's fault, not the farm's.
fn assert_step_failed(built: &Built) {
    let BuildStatus::Failed { failure: Some(failure), .. } = &built.outcome.status else {
        panic!("no step failed: {built:?}")
    };
    assert!(failure.step.ends_with(": fetch"), "{failure:?}");
}

#[test]
fn one_download_serves_all_builds_on_all_servers() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
            let first = Server::new(farm, storage.path());
            let url = format!("{}/main.c", upstream.origin);
            let sum = checksum();
            let built = first.build(backend, "one", &upstream.definition("one", "main.c")).await;
            built.assert_succeeded();
            assert_eq!(
                told(&built),
                format!("source main.c: 29 bytes, downloaded by the farm from {url} ({sum})")
            );
            let lines = built.events.lines_of("one: fetch");
            assert_eq!(lines, ["fetch: taking main.c from the source cache"]);

            let cached = format!("source main.c: 29 bytes from the farm's cache ({sum})");
            let built = first.build(backend, "two", &upstream.definition("two", "main.c")).await;
            built.assert_succeeded();
            assert_eq!(told(&built), cached);
            let second = Server::new(farm, storage.path());
            for _ in 0..2 {
                let built = second.build(backend, "one", &upstream.definition("one", "main.c")).await;
                built.assert_succeeded();
                assert_eq!(told(&built), cached);
            }
            assert_eq!(upstream.asked(), 1, "{backend:?}");
        }
    });
}

#[test]
fn packages_are_the_same_with_and_without_it() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        // A farm of its own has a port of its own that guests reach.
        let state = tempfile::tempdir().unwrap();
        let places = Places { state: state.path().to_owned(), ..farm.places.clone() };
        let own = Farm::new(places, farm.key(), None);
        let (upstream, storage) = (Upstream::on(own.listener()), tempfile::tempdir().unwrap());
        let yaml = upstream.definition("same", "main.c");
        let without = own.build(Backend::Sandbox, "same", &yaml).await;
        assert!(!without.events.text().contains("source cache"), "{without:?}");
        assert_eq!(upstream.asked(), 1);
        let server = Server::new(&own, storage.path());
        for what in ["downloaded by the farm", "from the cache"] {
            assert_same(what, &without, &server.build(Backend::Sandbox, "same", &yaml).await);
        }
        assert_eq!(upstream.asked(), 2);
    });
}

#[test]
fn tests_of_packages_have_their_sources_too() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let server = Server::new(farm, storage.path());
        let build = upstream.definition("tested", "main.c");
        let (_, steps) = build.split_once("pipeline:\n").unwrap();
        let (fetch, _) = steps.split_once("  - runs:").unwrap();
        let indented = fetch.replace("\n  ", "\n    ");
        let yaml = format!(
            "{build}test:\n  environment:\n    contents:\n      packages: [busybox]\n  pipeline:\n  {indented}"
        );
        let mut input = Farm::input(Backend::Sandbox, "tested", &yaml);
        input.with_test = true;
        let built = run(&server.engine, input).await;
        built.assert_succeeded();
        let text = built.events.text();
        assert_eq!(text.matches("taking main.c from the source cache").count(), 2, "{text}");
        assert_eq!(upstream.asked(), 1);
    });
}

#[test]
fn what_the_farm_cannot_have_is_told_and_never_stored() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let careful = Server::with(farm, storage.path(), |options| options.addresses = Default::default());
        let server = Server::new(farm, storage.path());
        let other = hex::encode(Sha256::digest("int main(void) { return 1; }\n"));
        for (server, path, message, asked) in [
            (&server, "other.c", format!("its checksum is sha256:{other}, expected was {}", checksum()), 1),
            (&server, "none.c", "none.c answered 404".to_owned(), 1),
            (&careful, "main.c", "127.0.0.1 leads to 127.0.0.1, which is no public address".to_owned(), 0),
        ] {
            let before = upstream.asked();
            let built = server.build(Backend::Sandbox, "lacks", &upstream.definition("lacks", path)).await;
            assert_step_failed(&built);
            let line = told(&built);
            let begin = format!("source {path}: the farm does not have it, its step fetches it: ");
            assert!(line.starts_with(&begin) && line.contains(&message), "{message:?} is not in: {line}");
            assert_eq!(upstream.asked() - before, asked, "{line}");
            assert!(!server.local().exists() && !storage.path().join(key().as_str()).exists());
        }
    });
}

#[test]
fn damaged_copies_are_replaced() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let (server, yaml) = (Server::new(farm, storage.path()), upstream.definition("whole", "main.c"));
        let first = server.build(Backend::Sandbox, "whole", &yaml).await;
        let stored = storage.path().join(key().as_str());
        for (damaged, asked) in [(vec![server.local()], 1), (vec![server.local(), stored.clone()], 2)] {
            for path in &damaged {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, "int main(void) { return 2; }\n").unwrap();
            }
            assert_same("damaged", &first, &server.build(Backend::Sandbox, "whole", &yaml).await);
            assert_eq!(upstream.asked(), asked, "{damaged:?}");
            for path in [&server.local(), &stored] {
                assert_eq!(std::fs::read_to_string(path).unwrap(), SOURCE, "{}", path.display());
            }
        }
        // The storage tells the checksum of what it has now.
        let told = ObjectArtifactStorage::local(storage.path()).unwrap().head(&key()).await.unwrap();
        assert_eq!(told.sha256, checksum().hex());
    });
}

#[test]
fn a_silent_upstream_holds_up_a_build_for_so_long_only() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let server = Server::with(farm, storage.path(), |options| {
            (options.idle, options.tries) = (Duration::from_millis(200), 1);
        });
        let built = server.build(Backend::Sandbox, "silent", &upstream.definition("silent", "never.c")).await;
        assert_step_failed(&built);
        let line = told(&built);
        assert!(line.contains("the farm does not have it") && line.contains("timed out"), "{line}");
        assert_eq!(upstream.asked(), 1);
    });
}

#[test]
fn cancelling_a_build_stops_its_downloads() {
    on_farm(async |farm| {
        let Some(_) = farm.runners.sandbox.as_ref() else { return };
        let (upstream, storage) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let server = Server::new(farm, storage.path());
        let yaml = upstream.definition("stopped", "never.c");
        let input = Farm::input(Backend::Sandbox, "stopped", &yaml);
        let (events, cancel) = (Arc::new(Collected::default()), CancellationToken::new());
        let asked = async {
            while upstream.asked() == 0 {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        let build = server.engine.build(&input, Arc::clone(&events) as _, cancel.clone());
        let (outcome, ()) = tokio::join!(build, asked);
        assert_eq!(outcome.unwrap().status, BuildStatus::Cancelled, "{}", events.text());
        assert!(!server.local().exists() && !storage.path().join(key().as_str()).exists());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_the_cache_unless_its_operator_says_no() {
    let upstream = Upstream::start().await;
    let Some(service) = start_with(&["--allow-private-address", "127.0.0.1"]).await else { return };
    for (arch, tier, _) in BACKENDS {
        let id = service.submit(arch, tier, upstream.definition("served", "main.c")).await;
        let (job, log) = (service.wait(id).await, service.log(id).await);
        assert_eq!(job.status, "success", "{:?}\n{log}", job.error);
        assert!(log.contains("\nsource main.c: 29 bytes"), "{log}");
        assert!(log.contains("fetch: taking main.c from the source cache"), "{log}");
    }
    assert_eq!(upstream.asked(), 1);

    let without = ["--allow-private-address", "127.0.0.1", "--source-cache", "no"];
    let Some(service) = start_with(&without).await else { return };
    let id = service.submit("aarch64", "sandbox", upstream.definition("alone", "main.c")).await;
    let (job, log) = (service.wait(id).await, service.log(id).await);
    assert_eq!((job.status.as_str(), job.error_class.as_deref()), ("failed", Some("build")), "{log}");
    assert!(!log.contains("source main.c"), "{log}");
    assert_eq!(upstream.asked(), 1);
}
