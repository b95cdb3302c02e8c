//! The files beside a definition: there while its build runs, and nowhere afterwards.

use futures_util::{FutureExt, StreamExt, stream};
use sha2::{Digest, Sha256};

use super::*;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::artifact_storage::layout::source_key;
use crate::job::{JobSpec, SourceDigest, UncheckedSpec};

const PATCH: &[u8] = b"--- a\n+++ b\n";

fn archive() -> (SourceDigest, Vec<u8>) {
    let mut tar = TarWriter::new(Vec::new());
    let header = Header { size: PATCH.len() as u64, ..Header::new("fix.patch", EntryType::File, 0o644) };
    tar.append(&header, &mut &PATCH[..]).unwrap();
    let bytes = tar.finish().unwrap();
    (SourceDigest::new(Sha256::digest(&bytes).into()), bytes)
}

async fn put(storage: &dyn ArtifactStorage, digest: SourceDigest, bytes: Vec<u8>) {
    let stream = stream::iter([Ok(Bytes::from(bytes))]).boxed();
    storage.put(&source_key(&digest).unwrap(), stream).await.unwrap();
}

/// A job of a definition with files beside it.
fn job(digest: SourceDigest) -> NewJob {
    let mut parts = UncheckedSpec::new("package: {}\n", "x86_64");
    parts.source = Some(digest.to_string());
    NewJob::new(JobId::new(START), Arc::new(JobSpec::validate(parts).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn a_build_has_the_files_beside_its_definition_as_long_as_it_runs() {
    let (digest, bytes) = archive();
    let state = tempfile::tempdir().unwrap();
    let gate = Arc::new(Notify::new());
    let builder = ScriptedBuilder::new([Act::Wait(Arc::clone(&gate))]);
    let parts = parts(&builder, 4).with_sources(SourceFolders::below(state.path()));
    put(&*parts.artifact_storage, digest, bytes).await;
    let farm = Farm::start_with(builder, parts);
    let id = farm.hand_in(job(digest)).await;
    while farm.builder.builds().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let folder = farm.builder.builds()[0].source_dir.clone().unwrap();
    assert!(folder.starts_with(state.path()));
    assert_eq!(std::fs::read(folder.join("fix.patch")).unwrap(), PATCH);
    gate.notify_one();
    assert_eq!(farm.end(id).await.state, JobState::Success);
    assert!(!folder.exists(), "removed with the end of the build");
    let log = farm.log(id).await;
    assert!(log.contains(&format!("--- 1 file of 12 bytes beside the definition ({digest})\n")), "{log}");
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_are_gone_fail_the_job_at_once_with_what_to_do() {
    let (digest, _) = archive();
    let farm = Farm::start(ScriptedBuilder::new([]));
    let id = farm.hand_in(job(digest)).await;
    let ended = farm.end(id).await;
    assert_eq!((ended.state, ended.attempt, farm.builder.builds().len()), (JobState::Failed, 1, 0));
    let error = ended.error.as_ref().unwrap();
    assert_eq!(error.class, FailureClass::Infrastructure);
    let told = "the files beside the definition are no longer in the storage";
    assert!(
        error.message.contains(told) && error.message.contains("submit the definition again"),
        "{error:?}"
    );
    // Sent again, the same job may be tried again.
    let (digest, bytes) = archive();
    put(&*farm.parts.artifact_storage, digest, bytes).await;
    farm.parts.job_store.retry(Selection::Job(id), farm.parts.clock.now()).await.unwrap();
    assert_eq!(farm.end(id).await.state, JobState::Success);
    farm.stop().await;
}

/// Neither a storage that is away nor one that has other bytes is the author's fault.
#[tokio::test(start_paused = true)]
async fn trouble_of_the_storage_costs_attempts_and_not_the_job() {
    let (digest, bytes) = archive();
    let good = ObjectArtifactStorage::memory();
    put(&good, digest, bytes).await;
    let mut tries = 0;
    let mut storage = MockStorage::new();
    storage.expect_get().returning(move |key, range| {
        tries += 1;
        match tries {
            1 => Err(Error::new(ErrorKind::Unavailable, "the bucket is away")),
            2 => {
                let mut body = good.get(key, range).now_or_never().unwrap()?;
                let broken = Error::new(ErrorKind::Unavailable, "the connection broke");
                body.bytes = stream::iter([Ok(Bytes::from_static(b"half")), Err(broken)]).boxed();
                Ok(body)
            }
            3 => {
                let mut body = good.get(key, range).now_or_never().unwrap()?;
                body.bytes = stream::iter([Ok(Bytes::from_static(b"other"))]).boxed();
                Ok(body)
            }
            _ => good.get(key, range).now_or_never().unwrap(),
        }
    });
    storage.expect_put().returning(|_, _| Err(Error::unexpected("nothing is stored here")));
    let builder = ScriptedBuilder::new([]);
    let parts = SchedulerParts { artifact_storage: Arc::new(storage), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.hand_in(job(digest)).await;
    let ended = farm.end(id).await;
    assert_eq!((ended.state, ended.attempt, farm.builder.builds().len()), (JobState::Success, 4, 1));
    let attempts = farm.parts.job_store.attempts(id).await.unwrap();
    let told: Vec<String> =
        attempts.iter().filter_map(|attempt| Some(attempt.error.as_ref()?.message.clone())).collect();
    for (message, wanted) in told.iter().zip(["is away", "connection broke", "other bytes"]) {
        assert!(message.contains(wanted) && message.contains(&digest.to_string()), "{message}");
    }
    assert_eq!(told.len(), 3);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_its_files_come_ends_so() {
    let (digest, _) = archive();
    let mut storage = MockStorage::new();
    let asked = Arc::new(Notify::new());
    let (asks, good) = (Arc::clone(&asked), ObjectArtifactStorage::memory());
    put(&good, digest, vec![0; 10]).await;
    storage.expect_get().returning(move |key, range| {
        asks.notify_one();
        let mut body = good.get(key, range).now_or_never().unwrap()?;
        body.bytes = stream::pending().boxed();
        Ok(body)
    });
    storage.expect_put().returning(|_, _| Err(Error::unexpected("nothing is stored here")));
    let builder = ScriptedBuilder::new([]);
    let parts = SchedulerParts { artifact_storage: Arc::new(storage), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.hand_in(job(digest)).await;
    asked.notified().await;
    farm.parts.job_store.cancel(Selection::Job(id), farm.parts.clock.now()).await.unwrap();
    assert_eq!(farm.end(id).await.state, JobState::Cancelled);
    assert_eq!(farm.builder.builds().len(), 0);
    farm.stop().await;
}
