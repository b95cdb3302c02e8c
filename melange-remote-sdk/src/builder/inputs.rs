//! What is added to the input of a builder beyond what a job asks for, and what is told of the environment that it had.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::BuildInput;
use crate::error::Result;
use crate::job::{Job, JobId, ResultDigest};
use crate::pointers::hand_on;

/// Adds to the input of a builder what a job sees beyond its own request, such as what other jobs of its build made.
#[async_trait]
pub trait JobInputs: Send + Sync + fmt::Debug {
    /// Completes the input of an attempt.
    ///
    /// # Errors
    /// `Unavailable` for what may succeed later; whatever else it answers, it will answer again.
    async fn complete(&self, job: &Job, input: &mut BuildInput) -> Result<()>;
}

hand_on!(JobInputs; {
    async fn complete(&self, job: &Job, input: &mut BuildInput) -> Result<()>;
});

/// Adds nothing: jobs stand alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInputs;

#[async_trait]
impl JobInputs for NoInputs {
    async fn complete(&self, _job: &Job, _input: &mut BuildInput) -> Result<()> {
        Ok(())
    }
}

/// Tells what was made already.
#[async_trait]
pub trait KnownResults: Send + Sync + fmt::Debug {
    /// A job that has made this and still has its files.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be told now; a builder builds then.
    async fn find(&self, result: &ResultDigest) -> Result<Option<JobId>>;
}

hand_on!(KnownResults; {
    async fn find(&self, result: &ResultDigest) -> Result<Option<JobId>>;
});

/// The environment that a package was built in, exactly: what `environment.lock.json` of a job holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EnvironmentLock {
    /// The version of this form, 1.
    pub format: u32,
    /// The architecture.
    pub arch: String,
    /// The packages, in the order of installation.
    pub packages: Vec<LockedPackage>,
    /// The repositories that were asked, in order.
    pub repositories: Vec<LockedRepository>,
    /// The names of the keys that were trusted.
    pub keyring: Vec<String>,
}

impl EnvironmentLock {
    /// An environment without packages.
    pub fn new(arch: impl Into<String>) -> Self {
        let (packages, repositories, keyring) = (Vec::new(), Vec::new(), Vec::new());
        Self { format: 1, arch: arch.into(), packages, repositories, keyring }
    }
}

/// A package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version with the epoch.
    pub version: String,
    /// The checksum of its control section as an index has it, such as `Q1…=`.
    pub checksum: String,
    /// The repository that it comes from; missing when a job made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The job of the same build that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

impl LockedPackage {
    /// A package of which nobody says where it comes from.
    pub fn new(name: impl Into<String>, version: impl Into<String>, checksum: impl Into<String>) -> Self {
        let (name, version, checksum) = (name.into(), version.into(), checksum.into());
        Self { name, version, checksum, repository: None, job: None }
    }
}

/// A repository of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedRepository {
    /// Its line, without a password.
    pub line: String,
    /// The SHA-256 of its index in lower-case hex.
    pub index_sha256: String,
}

impl LockedRepository {
    /// A repository with the digest of its index.
    pub fn new(line: impl Into<String>, index_sha256: impl Into<String>) -> Self {
        Self { line: line.into(), index_sha256: index_sha256.into() }
    }
}
