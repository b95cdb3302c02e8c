//! What jobs of a build of many packages see of repositories.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::apk::index::{Index, IndexPackage};
use crate::error::Result;
use crate::job::JobId;
use crate::pointers::hand_on;

/// What a job of a build sees: the packages that the jobs made which it waited for, before the repositories as they were
/// when the build was planned. So an environment depends on the request alone, not on what is finished by now.
#[async_trait]
pub trait BuildRepositories: Send + Sync + fmt::Debug {
    /// The packages of the jobs that this one waited for, by way of others too. What they are called comes from them alone.
    fn made(&self) -> Arc<Index>;

    /// The job that made one of these packages; `None` for a package of another name.
    fn maker(&self, package: &str) -> Option<JobId>;

    /// Writes the file of one of these packages to `path`, where nothing lies.
    ///
    /// # Errors
    /// `NotFound` when it is none of them, or was removed; `Unavailable` when it cannot be had now.
    async fn fetch(&self, package: &IndexPackage, path: &Path) -> Result<()>;

    /// The signed index of a repository as it was when the build was planned, and its SHA-256 in lower-case hex; `None` for
    /// one that nobody had named then.
    ///
    /// # Errors
    /// `NotFound` when it was removed; `Unavailable` when it cannot be had now.
    async fn index(&self, line: &str) -> Result<Option<(Bytes, String)>>;
}

hand_on!(BuildRepositories; {
    async fn fetch(&self, package: &IndexPackage, path: &Path) -> Result<()>;
    async fn index(&self, line: &str) -> Result<Option<(Bytes, String)>>;
    fn made(&self) -> Arc<Index>;
    fn maker(&self, package: &str) -> Option<JobId>;
});
