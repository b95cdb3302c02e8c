//! Where the artifacts of jobs lie: `<job>/<attempt>/<name>`. An attempt whose lease was lost may still write; it
//! writes beside the attempt that won. What belongs to a build as a whole lies in a folder named as the build, and source
//! files, which jobs share, at `sources/<digest>.tar`.

use super::ArtifactKey;
use crate::error::Result;
use crate::job::{BuildId, JobId, SourceDigest};

/// The name of the artifact that holds the log of an attempt, in the format of [`crate::job_log`]; `zstd -d` makes text of it.
pub const LOG_NAME: &str = "build.log.zst";

/// The name of the artifact that tells the environment that a job's packages were built in, exactly:
/// [`EnvironmentLock`](crate::builder::EnvironmentLock) in JSON.
pub const LOCK_NAME: &str = "environment.lock.json";

/// The folder of what belongs to a build of many packages and to none of its jobs.
///
/// # Errors
/// None: the letters of an id are legal in keys.
pub fn build_folder(build: BuildId) -> Result<ArtifactKey> {
    build.to_string().parse()
}

/// The folder of the archives of source files.
pub const SOURCES_FOLDER: &str = "sources";

/// The key of an archive of source files.
///
/// # Errors
/// None: digits are legal in keys.
pub fn source_key(digest: &SourceDigest) -> Result<ArtifactKey> {
    format!("{SOURCES_FOLDER}/{}.tar", digest.hex()).parse()
}

/// The folder of all artifacts of a job.
///
/// # Errors
/// None: the letters of an id are legal in keys.
pub fn job_folder(job: JobId) -> Result<ArtifactKey> {
    job.to_string().parse()
}

/// The folder of the artifacts of one attempt.
///
/// # Errors
/// None: a number is legal in a key.
pub fn attempt_folder(job: JobId, attempt: u32) -> Result<ArtifactKey> {
    job_folder(job)?.join(&attempt.to_string())
}

/// The key of an artifact.
///
/// # Errors
/// `InvalidRequest` for a name that no key may have.
pub fn artifact_key(job: JobId, attempt: u32, name: &str) -> Result<ArtifactKey> {
    attempt_folder(job, attempt)?.join(name)
}
