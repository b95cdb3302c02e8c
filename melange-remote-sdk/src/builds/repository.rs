//! The repository of a build: what its jobs have made so far, as `apk` reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::document::{LoadedBuild, PlannedArch};
use super::storage::{BuildFiles, Made};
use crate::apk::checksum::sha256_hex;
use crate::apk::index::Index;
use crate::apk::signature::SigningKey;
use crate::arch::Arch;
use crate::artifact_storage::ArtifactKey;
use crate::artifact_storage::layout::artifact_key;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BuildId, Job, JobState};
use crate::job_store::{JobStore, ListQuery, all_jobs};
use crate::limits;

/// The indexes of builds, and where the packages lie that they list. An index is made of the indexes of the jobs that have
/// succeeded, and kept until another job has. Clones share what they keep.
#[derive(Debug, Clone)]
pub struct BuildIndexes {
    files: BuildFiles,
    job_store: Arc<dyn JobStore>,
    signing_key: Option<Arc<SigningKey>>,
    indexes: moka::future::Cache<[u8; 32], Arc<BuildIndex>>,
}

/// An index of a build for an architecture, as it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildIndex {
    /// `APKINDEX.tar.gz`. The same packages come to the same bytes.
    pub bytes: Bytes,
    /// Their SHA-256 in lower-case hex.
    pub sha256: String,
    /// How many packages it lists.
    pub packages: usize,
}

impl BuildIndexes {
    /// Indexes from the files of builds and the jobs of a store, signed when there is a key.
    pub fn new(
        files: BuildFiles,
        job_store: Arc<dyn JobStore>,
        signing_key: Option<Arc<SigningKey>>,
    ) -> Self {
        let indexes = moka::future::Cache::builder()
            .weigher(|_, index: &Arc<BuildIndex>| {
                u32::try_from(index.bytes.len().saturating_add(256)).unwrap_or(u32::MAX)
            })
            .max_capacity(limits::BUILD_INDEXES_KEPT_BYTES_MAX)
            .build();
        Self { files, job_store, signing_key, indexes }
    }

    /// The key that signs the indexes.
    pub fn signing_key(&self) -> Option<&SigningKey> {
        self.signing_key.as_deref()
    }

    /// The index of what a build has made so far for an architecture; it lists nothing at first.
    ///
    /// # Errors
    /// `NotFound` for a build that there is not or was not planned, and for an architecture that it is not for;
    /// `LimitExceeded` for more packages than an index may have; the storage's and the job store's.
    pub async fn index(&self, build: BuildId, arch: Arch) -> Result<Arc<BuildIndex>> {
        let loaded = self.loaded(build).await?;
        planned(&loaded, arch)?;
        let jobs = self.succeeded(build, arch).await?;
        let mut name = Sha256::new();
        name.update(format!("{build} {arch}"));
        jobs.iter().for_each(|job| name.update(format!(" {} {}", job.id, job.attempt)));
        // Whoever asks meanwhile waits for the same one.
        let made = self.indexes.try_get_with(name.finalize().into(), self.make(build, &jobs));
        made.await.map_err(Error::shared)
    }

    /// Where a package of a build lies, by the name of its file: `<name>-<version>.apk`.
    ///
    /// # Errors
    /// `NotFound` for what the build does not make, or has not made yet; `Gone` when it was removed; the job store's.
    pub async fn package(&self, build: BuildId, arch: Arch, file: &str) -> Result<ArtifactKey> {
        let loaded = self.loaded(build).await?;
        let planned = planned(&loaded, arch)?;
        let missing = |why: String, hint: &'static str| {
            Error::new(ErrorKind::NotFound, why).with("build", build).hint(hint)
        };
        let Some(id) = maker(planned, file).and_then(|job| planned.jobs.get(job)) else {
            let why = format!("the build makes no {file:?} for {arch}");
            return Err(missing(why, "its index lists the packages that there are so far"));
        };
        let job = self.job_store.get(*id).await?;
        if job.state != JobState::Success {
            let why = format!("{file} is not there: the job that makes it is {}", job.state);
            return Err(missing(why, "it is there once the job has succeeded"));
        }
        if let Some(at) = job.artifacts_removed_at {
            let error = Error::new(ErrorKind::Gone, format!("the packages were removed at {at:.0}"));
            return Err(error.with("job", job.id).hint("hand the build in again"));
        }
        let name = format!("{arch}/{file}");
        if !job.artifacts.iter().any(|artifact| artifact.name == name) {
            return Err(missing(format!("the job has made no {name}"), "its index lists what it made"));
        }
        artifact_key(job.id, job.attempt, &name)
    }

    async fn loaded(&self, build: BuildId) -> Result<Arc<LoadedBuild>> {
        self.files.document(build).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "there is no such build, or no longer")
                .with("build", build)
                .hint("list the builds to see their ids"),
            _ => error,
        })
    }

    /// The jobs of a build that have made something which is still there, in the order of its plan.
    async fn succeeded(&self, build: BuildId, arch: Arch) -> Result<Vec<Arc<Job>>> {
        let query = ListQuery::default().of_build(build).for_arch(arch).in_state(JobState::Success);
        let mut jobs = all_jobs(&self.job_store, &query).await?;
        jobs.retain(|job| job.artifacts_removed_at.is_none());
        Ok(jobs)
    }

    /// What a job has made; nothing when it was removed since.
    async fn made(&self, job: &Job) -> Result<Option<Arc<Made>>> {
        match self.files.made(job).await {
            Ok(made) => Ok(Some(made)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn make(&self, build: BuildId, jobs: &[Arc<Job>]) -> Result<Arc<BuildIndex>> {
        let reads: Vec<BoxFuture<'_, Result<Option<Arc<Made>>>>> =
            jobs.iter().map(|job| self.made(job).boxed()).collect();
        let all: Vec<Option<Arc<Made>>> =
            stream::iter(reads).buffered(limits::BUILD_READS_MAX).try_collect().await?;
        let (index, key) =
            (merged(build, all.iter().flatten().map(|made| &**made))?, self.signing_key.clone());
        let written = tokio::task::spawn_blocking(move || {
            let bytes: Bytes = index.write(key.as_deref())?.into();
            let sha256 = sha256_hex(&bytes);
            Ok(Arc::new(BuildIndex { bytes, sha256, packages: index.packages.len() }))
        });
        written.await.map_err(|error| Error::unexpected("the writer of an index died").source(error))?
    }
}

/// The plan of a build for an architecture.
fn planned(loaded: &LoadedBuild, arch: Arch) -> Result<&PlannedArch> {
    let archs = &loaded.document().archs;
    archs.iter().find(|planned| planned.plan.arch == arch).ok_or_else(|| {
        let known: Vec<&str> = archs.iter().map(|planned| planned.plan.arch.apk_name()).collect();
        Error::new(ErrorKind::NotFound, format!("the build is not for {arch}"))
            .hint(format!("it is for {}", known.join(", ")))
    })
}

/// The number of the job that makes a file. All packages of a definition have one version.
fn maker(planned: &PlannedArch, file: &str) -> Option<usize> {
    let stem = file.strip_suffix(".apk")?;
    planned.plan.jobs.iter().position(|job| {
        let name = stem.strip_suffix(&job.version).and_then(|name| name.strip_suffix('-'));
        name.is_some_and(|name| job.packages.iter().any(|package| package == name))
    })
}

/// One index of what jobs have made, each package once.
fn merged<'m>(build: BuildId, all: impl Iterator<Item = &'m Made>) -> Result<Index> {
    let (mut seen, mut kept_bytes) = (BTreeSet::new(), 0usize);
    let mut index = Index { description: build.to_string().into_bytes(), packages: Vec::new() };
    for package in all.flat_map(|made| &made.packages) {
        if !seen.insert((&package.name, &package.version)) {
            continue;
        }
        kept_bytes = kept_bytes.saturating_add(package.kept_bytes());
        if index.packages.len() >= limits::INDEX_PACKAGES_MAX || kept_bytes > limits::INDEX_KEPT_BYTES_MAX {
            let error =
                Error::new(ErrorKind::LimitExceeded, "the build has made more than an index may list");
            return Err(error.with("build", build).hint("build fewer packages at once"));
        }
        index.packages.push(package.clone());
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::index::IndexPackage;

    fn package(name: &str, version: &str) -> IndexPackage {
        IndexPackage { name: name.to_owned(), version: version.to_owned(), ..IndexPackage::default() }
    }

    #[test]
    fn a_package_is_listed_once_and_in_order() {
        let made = |packages: &[(&str, &str)]| Made {
            attempt: 1,
            packages: packages.iter().map(|(name, version)| package(name, version)).collect(),
        };
        let all = [made(&[("b", "1-r0"), ("a", "1-r0")]), made(&[]), made(&[("a", "1-r0"), ("a", "2-r0")])];
        let index = merged(BuildId::new(jiff::Timestamp::UNIX_EPOCH), all.iter()).unwrap();
        let names: Vec<String> = index.packages.iter().map(IndexPackage::file_name).collect();
        assert_eq!(names, ["b-1-r0.apk", "a-1-r0.apk", "a-2-r0.apk"]);
    }
}
