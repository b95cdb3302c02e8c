//! What is published of jobs that come, end, and are removed, by one server and by several.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::apk::index::Index;
use crate::artifact_storage::ArtifactStorage;
use crate::artifact_storage::layout::artifact_key;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::conformance::artifact_storage::{bytes, read};
use crate::conformance::job_store::{at, new_job, submit};
use crate::job::{ClaimToken, JobArtifact, JobBackend, JobId, Outcome, Project, ServerId};
use crate::job_store::memory::MemoryJobStore;
use crate::job_store::{ClaimRequest, Group, Holding, JobStore, Offer};

/// A farm without a scheduler: its jobs end as they are told.
struct Farm {
    store: Arc<dyn JobStore>,
    storage: Arc<dyn ArtifactStorage>,
}

/// A package and what is in it.
type Package<'a> = (&'a str, &'a str, u8);

impl Farm {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryJobStore::default()),
            storage: Arc::new(ObjectArtifactStorage::memory()),
        }
    }

    fn repository(&self) -> PublishedRepository {
        PublishedRepository::new(BuildFiles::new(Arc::clone(&self.storage)), None, "a farm")
    }

    fn publisher(&self) -> Publisher {
        Publisher::new(self.repository(), Arc::clone(&self.store))
    }

    /// A job that succeeds with these packages.
    async fn makes(&self, packages: &[Package<'_>]) -> JobId {
        let id = submit(&*self.store, new_job("package: {}\n")).await;
        let job = self.store.get(id).await.unwrap();
        let backend = JobBackend::new("tcp://one:1", Arch::X86_64, crate::labels::Labels::default());
        let offer = Offer::new(Group::of(&job), backend, 1, 100);
        let request = ClaimRequest::new(ClaimToken::new(), ServerId::unique(), vec![offer], at(1), at(100));
        let claim = self.store.claim(&request).await.unwrap().remove(0);
        assert_eq!((claim.job.id, &claim.job.project), (id, &Project::default()));
        let mut index = Index::default();
        let mut artifacts = Vec::new();
        let put = async |name: String, content: Vec<u8>| {
            let key = artifact_key(id, claim.fence.attempt, &name).unwrap();
            let stored = self.storage.put(&key, bytes(vec![content])).await.unwrap();
            JobArtifact { name, size_bytes: stored.size_bytes, sha256: stored.sha256 }
        };
        for (name, version, content) in packages {
            let package = IndexPackage {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                control_sha1: Some([*content; 20]),
                ..IndexPackage::default()
            };
            artifacts.push(put(format!("x86_64/{}", package.file_name()), vec![*content; 1000]).await);
            index.packages.push(package);
        }
        artifacts.push(put("x86_64/APKINDEX.tar.gz".to_owned(), index.write(None).unwrap()).await);
        let outcome = Outcome::Succeeded { artifacts, note: None, result: None, reused: None };
        self.store.finish(claim.fence, &outcome, at(2)).await.unwrap();
        id
    }

    /// The index in the storage, each package of which must be there with the content that it was made with.
    async fn published(&self) -> Vec<String> {
        let key = key(Arch::X86_64, INDEX).unwrap();
        if self.storage.head(&key).await.is_err() {
            return Vec::new();
        }
        let index = Index::read(&read(&*self.storage, &key).await, None).unwrap();
        assert_eq!(index.description, b"a farm");
        for package in &index.packages {
            let file = super::key(Arch::X86_64, &package.file_name()).unwrap();
            let content = package.control_sha1.unwrap()[0];
            assert_eq!(read(&*self.storage, &file).await, vec![content; 1000], "{file}");
        }
        index.packages.iter().map(IndexPackage::file_name).collect()
    }

    async fn publication(&self, publisher: &Publisher, id: JobId) -> Option<Publication> {
        let job = self.store.get(id).await.unwrap();
        publisher.repository().publication(&job).await.unwrap()
    }
}

fn taken_by(file: &str) -> Option<Publication> {
    Some(Publication::Refused { reason: taken_reason(file) })
}

#[tokio::test]
async fn what_succeeds_is_published_with_all_its_packages() {
    let farm = Farm::new();
    let mut publisher = farm.publisher();
    assert_eq!(publisher.pass().await.unwrap(), Published::default());
    let empty = publisher.repository().generation(Arch::X86_64).await.unwrap();
    assert!(empty.is_empty() && Index::read(empty.bytes(), None).unwrap().packages.is_empty());
    let first = farm.makes(&[("b", "1-r0", 1), ("b-dev", "1-r0", 2)]).await;
    assert_eq!(farm.publication(&publisher, first).await, Some(Publication::Waits));
    let waits = submit(&*farm.store, new_job("package: {}\n")).await;
    let done = publisher.pass().await.unwrap();
    assert_eq!((done.jobs, done.packages, done.indexes, done.taken), (1, 2, 1, 0));
    assert_eq!(farm.published().await, ["b-1-r0.apk", "b-dev-1-r0.apk"]);
    assert_eq!(farm.publication(&publisher, first).await, Some(Publication::Published));
    assert_eq!(farm.publication(&publisher, waits).await, None);
    let generation = publisher.repository().generation(Arch::X86_64).await.unwrap();
    let stored = farm.storage.head(&key(Arch::X86_64, INDEX).unwrap()).await.unwrap();
    assert_eq!((stored.sha256.as_str(), generation.len()), (generation.sha256(), 2));
    assert_eq!(publisher.pass().await.unwrap(), Published::default(), "nothing is new");
    let file = publisher.repository().package(Arch::X86_64, "b-1-r0.apk").await.unwrap();
    assert_eq!(file.size_bytes, 1000);
    for missing in ["a-1-r0.apk", "APKINDEX.tar.gz", "../x.apk", ""] {
        let error = publisher.repository().package(Arch::X86_64, missing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{missing}");
    }
}

#[tokio::test]
async fn published_content_never_changes() {
    let farm = Farm::new();
    let mut publisher = farm.publisher();
    publisher.pass().await.unwrap();
    let first = farm.makes(&[("a", "1-r0", 1)]).await;
    publisher.pass().await.unwrap();
    // The same again, with a new package beside it: only that is new.
    let again = farm.makes(&[("a", "1-r0", 1), ("a-doc", "1-r0", 3)]).await;
    // Other content of the same name comes whole or not at all.
    let other = farm.makes(&[("a-dev", "1-r0", 4), ("a", "1-r0", 5)]).await;
    let (newer, same_pass) =
        (farm.makes(&[("a", "1-r1", 6)]).await, farm.makes(&[("z", "1-r0", 7), ("a", "1-r1", 8)]).await);
    let done = publisher.pass().await.unwrap();
    assert_eq!((done.jobs, done.packages, done.taken, done.indexes), (2, 2, 2, 1));
    assert_eq!(farm.published().await, ["a-1-r0.apk", "a-1-r1.apk", "a-doc-1-r0.apk"]);
    for id in [first, again, newer] {
        assert_eq!(farm.publication(&publisher, id).await, Some(Publication::Published));
    }
    assert_eq!(farm.publication(&publisher, other).await, taken_by("a-1-r0.apk"));
    assert_eq!(farm.publication(&publisher, same_pass).await, taken_by("a-1-r1.apk"));
    // Another server, or this one later, tells the same; files that went change nothing.
    let later = farm.publisher();
    assert_eq!(farm.publication(&later, other).await, taken_by("a-1-r0.apk"));
    for (id, expected) in [(first, Some(Publication::Published)), (other, None)] {
        farm.store.note_removed(id, Holding::Artifacts, at(9)).await.unwrap();
        assert_eq!(farm.publication(&later, id).await, expected);
    }
}

#[tokio::test]
async fn what_a_server_left_undone_is_done_by_the_next() {
    let farm = Farm::new();
    let removed = farm.makes(&[("gone", "1-r0", 9)]).await;
    farm.store.note_removed(removed, Holding::Artifacts, at(3)).await.unwrap();
    farm.makes(&[("a", "1-r0", 1)]).await;
    // It died between the files of a job and the index.
    let left = farm.makes(&[("b", "1-r0", 2), ("b-dev", "1-r0", 3)]).await;
    let from = artifact_key(left, 1, "x86_64/b-1-r0.apk").unwrap();
    farm.storage.copy_if_absent(&from, &key(Arch::X86_64, "b-1-r0.apk").unwrap()).await.unwrap();
    assert_eq!(farm.publisher().pass().await.unwrap().jobs, 2);
    let all = ["a-1-r0.apk", "b-1-r0.apk", "b-dev-1-r0.apk"];
    assert_eq!(farm.published().await, all);
    // A start that finds all done writes nothing; one that lost the index makes it again of its jobs.
    assert_eq!(farm.publisher().pass().await.unwrap(), Published::default());
    farm.storage.delete(&key(Arch::X86_64, INDEX).unwrap()).await.unwrap();
    assert_eq!(farm.publisher().pass().await.unwrap().packages, 3);
    assert_eq!(farm.published().await, all);
    // What is published outlives the jobs and the store.
    let store = Arc::new(MemoryJobStore::default());
    let farm = Farm { store, ..farm };
    let mut publisher = farm.publisher();
    publisher.pass().await.unwrap();
    farm.makes(&[("c", "1-r0", 4)]).await;
    publisher.pass().await.unwrap();
    assert_eq!(farm.published().await, ["a-1-r0.apk", "b-1-r0.apk", "b-dev-1-r0.apk", "c-1-r0.apk"]);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_an_overtaken_server_put_is_whole_again() {
    let farm = Farm::new();
    let (mut one, mut other) = (farm.publisher(), farm.publisher());
    farm.makes(&[("a", "1-r0", 1)]).await;
    one.pass().await.unwrap();
    let index = key(Arch::X86_64, INDEX).unwrap();
    let old = read(&*farm.storage, &index).await;
    farm.makes(&[("b", "1-r0", 2)]).await;
    assert_eq!(other.pass().await.unwrap().packages, 1, "the first is listed already");
    assert_eq!(farm.published().await, ["a-1-r0.apk", "b-1-r0.apk"]);
    // The first one sees what the other has published, and writes no second time.
    assert_eq!(one.pass().await.unwrap().indexes, 0);
    assert_eq!(one.repository().generation(Arch::X86_64).await.unwrap().len(), 2);
    farm.storage.put(&index, stream::iter([Ok(old.into())]).boxed()).await.unwrap();
    assert_eq!(farm.published().await, ["a-1-r0.apk"]);
    tokio::time::advance(limits::PUBLISH_POLL).await;
    assert_eq!(other.pass().await.unwrap().indexes, 1);
    assert_eq!(farm.published().await, ["a-1-r0.apk", "b-1-r0.apk"]);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_kept_and_told() {
    let farm = Farm::new();
    let index = key(Arch::X86_64, INDEX).unwrap();
    let mut publisher = farm.publisher();
    publisher.pass().await.unwrap();
    farm.storage.put(&index, bytes(vec![b"broken".to_vec()])).await.unwrap();
    farm.makes(&[("a", "1-r0", 1)]).await;
    let error = publisher.pass().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.hint_text().unwrap().contains("melange index"), "{}", error.chain());
    assert_eq!(read(&*farm.storage, &index).await, b"broken");
    farm.storage.delete(&index).await.unwrap();
    assert_eq!(publisher.pass().await.unwrap().jobs, 1, "it goes on once that is gone");
}

#[tokio::test(start_paused = true)]
async fn it_follows_the_jobs_until_it_is_stopped() {
    let farm = Farm::new();
    let stopping = CancellationToken::new();
    let running = tokio::spawn(farm.publisher().run(stopping.clone()));
    let mut expected = Vec::new();
    for number in 0..5 {
        let name = format!("p{number}");
        farm.makes(&[(&name, "1-r0", number)]).await;
        expected.push(format!("{name}-1-r0.apk"));
        while farm.published().await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stopping.cancel();
    running.await.unwrap();
}
