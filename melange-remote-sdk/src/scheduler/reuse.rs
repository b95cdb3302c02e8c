//! The end of an attempt whose result is known already: the files of the job that made it become this one's too.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::attempt::{Attempt, End, NotStored};
use crate::artifact_storage::layout::{LOCK_NAME, artifact_key};
use crate::builder::{BuildOutcome, BuiltFile};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::job::{Job, JobArtifact, JobId, Outcome};

/// The environment of a build as one of its files.
pub(super) fn lock_file(outcome: &BuildOutcome) -> Result<Option<BuiltFile>> {
    let Some(lock) = &outcome.lock else { return Ok(None) };
    let mut bytes = serde_json::to_vec_pretty(&**lock)
        .map_err(|error| Error::unexpected("the environment cannot be told").source(error))?;
    bytes.push(b'\n');
    let size_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut file = BuiltFile::new(LOCK_NAME, LOCK_NAME, size_bytes, hex::encode(Sha256::digest(&bytes)));
    file.in_memory = Some(Bytes::from(bytes));
    Ok(Some(file))
}

impl Attempt {
    /// Takes over what another job made; `None` when the job is somebody else's meanwhile.
    pub(super) async fn reuse(&self, maker: JobId, outcome: &BuildOutcome) -> Option<End> {
        let started_at = Instant::now();
        let mut stored = Vec::new();
        let store = async {
            let made = self.parts.job_store.get(maker).await.map_err(NotStored::Files)?;
            let mut artifacts = Vec::new();
            for artifact in made.artifacts.iter().filter(|artifact| artifact.name != LOCK_NAME) {
                stored.push(self.artifact_key(&artifact.name)?);
                let copy = || -> BoxFuture<'_, Result<JobArtifact, NotStored>> {
                    Box::pin(self.copy_artifact(&made, artifact))
                };
                artifacts.push(self.repeat(&artifact.name, copy).await?);
            }
            if let Some(file) = lock_file(outcome).map_err(NotStored::Files)? {
                let key = self.artifact_key(&file.name)?;
                stored.push(key.clone());
                let put = || -> BoxFuture<'_, Result<JobArtifact, NotStored>> {
                    Box::pin(self.store_file(&key, &file))
                };
                artifacts.push(self.repeat(&file.name, put).await?);
            }
            Ok(artifacts)
        };
        let result: Option<Result<Vec<JobArtifact>, NotStored>> =
            self.signal().token.run_until_cancelled(store).await;
        let success = |artifacts| {
            self.events.line(format!("--- the job {maker} made the same already; its files are taken"));
            let (result, reused) = (outcome.result, Some(maker));
            Outcome::Succeeded { artifacts, note: None, result, reused }
        };
        self.after_storing(started_at, result, &stored, success).await
    }

    async fn copy_artifact(&self, made: &Arc<Job>, artifact: &JobArtifact) -> Result<JobArtifact, NotStored> {
        let storage = &self.parts.artifact_storage;
        let from = artifact_key(made.id, made.attempt, &artifact.name)?;
        let to = self.artifact_key(&artifact.name)?;
        let copied = storage.copy_if_absent(&from, &to).await;
        let stored = copied.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                NotStored::Files(error.blame_if_unknown(Blame::Farm).hint("the next attempt builds it"))
            }
            _ => NotStored::Storage(error),
        })?;
        if (stored.size_bytes, &stored.sha256) != (artifact.size_bytes, &artifact.sha256) {
            let error =
                Error::unexpected("a stored file is not what its job says").with("file", &artifact.name);
            return Err(NotStored::Files(error));
        }
        Ok(artifact.clone())
    }
}
