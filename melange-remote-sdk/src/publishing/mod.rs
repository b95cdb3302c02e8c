//! The repository of a farm: what its jobs have made, for `apk` to install.
//!
//! ```text
//! a job succeeds ─▶ Publisher: its packages are copied, then listed ─▶ storage
//!                                                                       x86_64/hello-2.10-r0.apk   never changes
//!                                                                       x86_64/APKINDEX.tar.gz     the newest generation
//! ```
//!
//! Any moment is a valid repository, for whoever asks the service and for whoever reads the storage as it is:
//!
//! * A package that is published keeps its bytes and its place. What has the same name, version and architecture and other
//!   content is not published; a new version or epoch is.
//! * An index is put after the packages that it lists, and those of one job come with one generation or not at all. Hence
//!   every generation, however old, lists what is there.
//!
//! Servers that share a storage need not agree who publishes: each adds to the index what it lacks, so that an index that
//! an overtaken server put is whole again after the next look of any of them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use crate::apk::checksum::{Sha1Bytes, sha256_hex};
use crate::apk::index::{Index, IndexPackage};
use crate::apk::signature::SigningKey;
use crate::arch::Arch;
use crate::artifact_storage::{ArtifactKey, StoredArtifact};
use crate::builds::BuildFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobId, JobState};
use crate::limits;

mod publisher;
#[cfg(test)]
mod tests;

pub use publisher::{Published, Publisher};

/// The name of an index.
const INDEX: &str = "APKINDEX.tar.gz";

/// What is published, as this server knows it. Clones share it.
#[derive(Debug, Clone)]
pub struct PublishedRepository {
    files: BuildFiles,
    signing_key: Option<Arc<SigningKey>>,
    description: Arc<str>,
    generations: Arc<RwLock<HashMap<Arch, Arc<Generation>>>>,
    /// Why jobs were left out, of late.
    refused: moka::future::Cache<JobId, String>,
}

/// One state of the repository for an architecture.
#[derive(Debug)]
pub struct Generation {
    /// The packages, sorted by name and version, so that the same packages come to the same bytes.
    index: Index,
    /// The checksums of their control sections by the names of their files.
    known: HashMap<String, Option<Sha1Bytes>>,
    bytes: Bytes,
    sha256: String,
}

impl Generation {
    /// `APKINDEX.tar.gz`.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The SHA-256 of [`Self::bytes`] in lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// How many packages it lists.
    pub fn len(&self) -> usize {
        self.index.packages.len()
    }

    /// Whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.index.packages.is_empty()
    }
}

/// What became of the packages of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Publication {
    /// They are published.
    Published,
    /// They will be in a moment.
    Waits,
    /// They will not be.
    Refused {
        /// Why, in one line.
        reason: String,
    },
}

impl PublishedRepository {
    /// What lies in the storage of `files`. Indexes are signed when there is a key and say `description` of themselves, a
    /// line that `apk update` shows.
    pub fn new(files: BuildFiles, signing_key: Option<Arc<SigningKey>>, description: &str) -> Self {
        Self {
            files,
            signing_key,
            description: description.into(),
            generations: Arc::default(),
            refused: moka::future::Cache::new(limits::REFUSED_PUBLICATIONS_KEPT),
        }
    }

    /// The newest generation for an architecture; it lists nothing at first.
    ///
    /// # Errors
    /// The storage's; `Untrusted` for an index in the storage that cannot be read.
    pub async fn generation(&self, arch: Arch) -> Result<Arc<Generation>> {
        if let Some(known) = self.known(arch) {
            return Ok(known);
        }
        let stored = self.stored(arch).await?;
        let made = self.make(arch, stored.unwrap_or_default()).await?;
        let mut generations = self.generations.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Arc::clone(generations.entry(arch).or_insert(made)))
    }

    /// A published package, by the name of its file: `<name>-<version>.apk`.
    ///
    /// # Errors
    /// `NotFound` for what is not published; the storage's.
    pub async fn package(&self, arch: Arch, file: &str) -> Result<StoredArtifact> {
        let missing = || {
            Error::new(ErrorKind::NotFound, format!("no {file:?} is published for {arch}"))
                .hint("its index lists what is")
        };
        // What another server published is in its index before it is in ours.
        let key = file.ends_with(".apk").then(|| key(arch, file));
        let key = key.and_then(Result::ok).ok_or_else(missing)?;
        self.files.storage().head(&key).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing().source(error),
            _ => error,
        })
    }

    /// What became of the packages of a job; `None` for one that makes none, or has not succeeded, and when that is not
    /// known any more.
    ///
    /// # Errors
    /// The storage's.
    pub async fn publication(&self, job: &Job) -> Result<Option<Publication>> {
        let files: Vec<&str> = packages_of(job).collect();
        let Some(first) = files.first().filter(|_| job.state == JobState::Success) else { return Ok(None) };
        if let Some(reason) = self.refused.get(&job.id).await {
            return Ok(Some(Publication::Refused { reason }));
        }
        let generation = self.generation(job.facts.arch).await?;
        let is_listed = files.iter().all(|file| generation.known.contains_key(*file));
        if job.artifacts_removed_at.is_some() {
            // Its own files are gone; what it told of them is not.
            let name = format!("{}/{first}", job.facts.arch);
            let told = job.artifacts.iter().find(|artifact| artifact.name == name);
            let there = self.package(job.facts.arch, first).await;
            let same = told.is_some_and(|told| there.is_ok_and(|there| there.sha256 == told.sha256));
            return Ok((is_listed && same).then_some(Publication::Published));
        }
        let made = match self.files.made(job).await {
            Ok(made) => made,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match taken(&generation, &made.packages) {
            Some(file) => Publication::Refused { reason: taken_reason(&file) },
            None if is_listed => Publication::Published,
            None => Publication::Waits,
        }))
    }

    fn known(&self, arch: Arch) -> Option<Arc<Generation>> {
        let generations = self.generations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        generations.get(&arch).cloned()
    }

    fn set(&self, arch: Arch, generation: &Arc<Generation>) {
        let mut generations = self.generations.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        generations.insert(arch, Arc::clone(generation));
    }

    /// The packages of the index in the storage; `None` when there is none.
    async fn stored(&self, arch: Arch) -> Result<Option<Vec<IndexPackage>>> {
        let key = key(arch, INDEX)?;
        match self.files.packages(&key).await {
            Ok(packages) => Ok(Some(packages)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error
                .with("artifact", &key)
                .hint("make it anew of the packages beside it, with `melange index`, or remove it")),
        }
    }

    /// A generation of these packages.
    async fn make(&self, arch: Arch, mut packages: Vec<IndexPackage>) -> Result<Arc<Generation>> {
        let (key, description) = (self.signing_key.clone(), Arc::clone(&self.description));
        let made = tokio::task::spawn_blocking(move || {
            packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
            packages.dedup_by(|b, a| a.name == b.name && a.version == b.version);
            let index = Index { description: description.as_bytes().to_vec(), packages };
            if index.packages.len() > limits::INDEX_PACKAGES_MAX
                || index.kept_bytes() > limits::INDEX_KEPT_BYTES_MAX
            {
                let message = format!("more packages are published for {arch} than an index may list");
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            let known = index.packages.iter().map(|package| (package.file_name(), package.control_sha1));
            let known = known.collect();
            let bytes: Bytes = index.write(key.as_deref())?.into();
            let sha256 = sha256_hex(&bytes);
            Ok(Arc::new(Generation { index, known, bytes, sha256 }))
        });
        made.await.map_err(|error| Error::unexpected("the writer of an index died").source(error))?
    }
}

/// The key of a published file.
fn key(arch: Arch, file: &str) -> Result<ArtifactKey> {
    format!("{arch}/{file}").parse()
}

/// The file names of the packages that a job has made.
fn packages_of(job: &Job) -> impl Iterator<Item = &str> {
    let folder = format!("{}/", job.facts.arch);
    let names = job.artifacts.iter().map(|artifact| artifact.name.as_str());
    names.filter_map(move |name| name.strip_prefix(&folder)).filter(|file| file.ends_with(".apk"))
}

/// Why a package is not published whose name another one has.
fn taken_reason(file: &str) -> String {
    format!("{file} is there with other content, which stays; a new version or epoch can be published")
}

/// The first of some packages whose file is published with other content.
fn taken(generation: &Generation, packages: &[IndexPackage]) -> Option<String> {
    let differs = |package: &&IndexPackage| {
        let known = generation.known.get(&package.file_name());
        known.is_some_and(|known| known.is_none() || *known != package.control_sha1)
    };
    packages.iter().find(differs).map(IndexPackage::file_name)
}
