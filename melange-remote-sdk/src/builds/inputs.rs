//! What a job of a build sees: what its ancestors made, before the repositories as they were.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::io::AsyncWriteExt;

use super::document::LoadedBuild;
use super::storage::{BuildFiles, Made};
use crate::apk::checksum::sha256_hex;
use crate::apk::index::{Index, IndexPackage};
use crate::artifact_storage::layout::artifact_key;
use crate::builder::{BuildInput, BuildRepositories, JobInputs, KnownResults};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::job::{BuildId, BuildSource, DefinitionOrigin, Job, JobId, JobState, Project, ResultDigest};
use crate::job_store::JobStore;
use crate::limits;

/// Completes the inputs of jobs that belong to a build which was planned; others stand alone.
#[derive(Debug, Clone)]
pub struct BuildInputs {
    files: BuildFiles,
    job_store: Arc<dyn JobStore>,
    /// What is known of builds, as of late.
    known: moka::future::Cache<BuildId, Known>,
}

/// What does not change of a build.
#[derive(Debug, Clone)]
struct Known {
    is_planned: bool,
    origin: DefinitionOrigin,
}

impl BuildInputs {
    /// Inputs from the files of builds and the jobs of a store.
    pub fn new(files: BuildFiles, job_store: Arc<dyn JobStore>) -> Self {
        Self { files, job_store, known: moka::future::Cache::new(limits::PAGE_ITEMS_MAX as u64) }
    }

    async fn known(&self, build: BuildId) -> Result<Known> {
        if let Some(known) = self.known.get(&build).await {
            return Ok(known);
        }
        let facts = self.job_store.build(build).await?.facts;
        let origin = match &facts.source {
            BuildSource::Git { url, commit, .. } => DefinitionOrigin::of_git(url, commit.as_str()),
            _ => DefinitionOrigin::default(),
        };
        let known = Known { is_planned: facts.is_planned, origin };
        self.known.insert(build, known.clone()).await;
        Ok(known)
    }

    /// What a job has made that others wait for.
    async fn made(&self, id: JobId) -> Result<Arc<Made>> {
        if let Some(known) = self.files.known(id).await {
            return Ok(known);
        }
        let maker = self.job_store.get(id).await?;
        if maker.state != JobState::Success {
            // Nothing that waits for it would have been unlocked.
            return Err(Error::unexpected("a job runs before one that it waits for").with("job", id));
        }
        self.files.made(&maker).await.map_err(|error| removed(error, &maker))
    }

    /// What a job of a document sees.
    async fn seen(&self, loaded: &Arc<LoadedBuild>, job: &Job) -> Result<Option<Seen>> {
        let Some((arch, number)) = loaded.place(job.id) else { return Ok(None) };
        let ancestors =
            arch.ancestors(number).into_iter().filter_map(|ancestor| arch.jobs.get(ancestor).copied());
        let read = |id: JobId| -> BoxFuture<'_, Result<(JobId, Arc<Made>)>> {
            async move { Ok((id, self.made(id).await?)) }.boxed()
        };
        let reads: Vec<_> = ancestors.map(read).collect();
        let all: Vec<_> = stream::iter(reads).buffered(limits::BUILD_READS_MAX).try_collect().await?;
        let (mut index, mut makers) = (Index::default(), HashMap::new());
        for (maker, made) in all {
            for package in &made.packages {
                makers.insert(package.name.clone(), (maker, made.attempt));
                index.packages.push(package.clone());
            }
        }
        let indexes =
            arch.indexes.iter().map(|kept| (kept.line_sha256.clone(), kept.sha256.clone())).collect();
        Ok(Some(Seen {
            build: loaded.document().id,
            arch: job.facts.arch.apk_name(),
            files: self.files.clone(),
            made: Arc::new(index),
            makers,
            indexes,
        }))
    }
}

/// What was made before and is gone: no further attempt helps.
fn removed(error: Error, maker: &Job) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let message = format!("what {} made in this build was removed", maker.title());
    Error::new(ErrorKind::Gone, message).blame(Blame::Policy).hint("hand the build in again").source(error)
}

#[async_trait]
impl JobInputs for BuildInputs {
    async fn complete(&self, job: &Job, input: &mut BuildInput) -> Result<()> {
        let Some(build) = job.build else { return Ok(()) };
        let known = self.known(build).await?;
        input.origin = known.origin.or(std::mem::take(&mut input.origin));
        if !known.is_planned {
            return Ok(());
        }
        let loaded = self.files.document(build).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::unexpected("the plan of the build is gone").source(error),
            _ => error,
        })?;
        let options = &loaded.document().options;
        input.origin = std::mem::take(&mut input.origin).or(options.origin.clone());
        input.extra_repositories.extend(options.extra_repositories.iter().cloned());
        input.extra_keyring.extend(options.extra_keyring.iter().cloned());
        if let Some(seen) = self.seen(&loaded, job).await? {
            input.repositories = Some(Arc::new(seen));
        }
        if !options.no_cache {
            let (project, job_store) = (job.project.clone(), Arc::clone(&self.job_store));
            input.known = Some(Arc::new(StoredResults { project, job_store }));
        }
        Ok(())
    }
}

/// What one job sees of its build.
#[derive(Debug)]
struct Seen {
    build: BuildId,
    arch: &'static str,
    files: BuildFiles,
    made: Arc<Index>,
    /// Who made a package, and in which attempt.
    makers: HashMap<String, (JobId, u32)>,
    /// The digests of indexes by those of their lines.
    indexes: HashMap<String, String>,
}

#[async_trait]
impl BuildRepositories for Seen {
    fn made(&self) -> Arc<Index> {
        Arc::clone(&self.made)
    }

    fn maker(&self, package: &str) -> Option<JobId> {
        self.makers.get(package).map(|(job, _)| *job)
    }

    async fn fetch(&self, package: &IndexPackage, path: &Path) -> Result<()> {
        let (job, attempt) = self.makers.get(&package.name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no job before this one made {}", package.file_name()))
        })?;
        let key = artifact_key(*job, *attempt, &format!("{}/{}", self.arch, package.file_name()))?;
        let mut body = self.files.storage().get(&key, None).await?;
        let failed = |error| Error::io("write", path, error);
        let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
        let mut left = limits::APK_BYTES_MAX;
        while let Some(part) = body.bytes.try_next().await? {
            left = left.checked_sub(part.len() as u64).ok_or_else(|| {
                Error::new(ErrorKind::LimitExceeded, "a package of the build is too large").with("key", &key)
            })?;
            file.write_all(&part).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }

    async fn index(&self, line: &str) -> Result<Option<(Bytes, String)>> {
        let Some(sha256) = self.indexes.get(&sha256_hex(line.as_bytes())) else { return Ok(None) };
        Ok(Some((self.files.index(self.build, sha256).await?, sha256.clone())))
    }
}

/// The results of a project's jobs.
#[derive(Debug)]
struct StoredResults {
    project: Project,
    job_store: Arc<dyn JobStore>,
}

#[async_trait]
impl KnownResults for StoredResults {
    async fn find(&self, result: &ResultDigest) -> Result<Option<JobId>> {
        Ok(self.job_store.with_result(&self.project, *result).await?.map(|job| job.id))
    }
}
