//! Where the artifacts of jobs lie: `<job>/<attempt>/<name>`. An attempt whose lease was lost may still write; it
//! writes beside the attempt that won. What belongs to a build as a whole lies in a folder named as the build, and source
//! files, which jobs share, at `sources/ab/<digest>.tar`. Sources that definitions name by a checksum lie in a folder of the
//! month in which they were used last, `fetched-2026-11/sha256/ab/<hex>`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::ArtifactKey;
use crate::error::{Error, Result};
use crate::job::{BuildId, JobId, SourceDigest};
use crate::melange::fetches::{ChecksumAlgorithm, SourceChecksum};

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
    let hex = digest.hex();
    let first: String = hex.chars().take(2).collect();
    format!("{SOURCES_FOLDER}/{first}/{hex}.tar").parse()
}

/// The folders of the archives of source files, each of which has a 256th of them.
///
/// # Errors
/// None: digits are legal in keys.
pub fn source_parts() -> Result<Vec<ArtifactKey>> {
    (0..=u8::MAX).map(|first| format!("{SOURCES_FOLDER}/{first:02x}").parse()).collect()
}

/// The digest of the archive that a key is of; `None` for any other key.
pub fn source_of(key: &ArtifactKey) -> Option<SourceDigest> {
    let hex = key.as_str().rsplit('/').next()?.strip_suffix(".tar")?;
    let digest: SourceDigest = format!("sha256:{hex}").parse().ok()?;
    (source_key(&digest).ok()? == *key).then_some(digest)
}

/// A month of the year in UTC: sources that definitions name by a checksum lie in the folder of the last one in which
/// a job used them, so that what nobody needs any more is known by its name.
///
/// ```
/// use melange_remote_sdk::artifact_storage::layout::SourceMonth;
/// let month: SourceMonth = "2026-01".parse().unwrap();
/// assert_eq!(month.before().to_string(), "2025-12");
/// assert!(month.before() < month);
/// assert!("2026-13".parse::<SourceMonth>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceMonth(i32);

impl SourceMonth {
    /// The month of a moment.
    pub fn of(moment: Timestamp) -> Self {
        let date = moment.to_zoned(TimeZone::UTC).date();
        Self(i32::from(date.year()) * 12 + i32::from(date.month()) - 1)
    }

    /// The month before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0 - 1)
    }

    /// The folder of its sources.
    ///
    /// # Errors
    /// None: digits are legal in keys.
    pub fn folder(self) -> Result<ArtifactKey> {
        format!("{FETCHED_FOLDERS}{self}").parse()
    }

    /// The folders within, each of which has a 256th of the sources of one kind.
    ///
    /// # Errors
    /// None, as [`Self::folder`].
    pub fn parts(self) -> Result<Vec<ArtifactKey>> {
        let kinds = [ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha512];
        let parts = kinds.iter().flat_map(|kind| (0..=u8::MAX).map(move |first| (kind, first)));
        parts.map(|(kind, first)| self.folder()?.join(&format!("{}/{first:02x}", kind.name()))).collect()
    }
}

impl fmt::Display for SourceMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl FromStr for SourceMonth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::invalid(format!("{text:?} is no month such as 2026-11"));
        let date: Date = format!("{text}-01").parse().map_err(|_| refused())?;
        let month = Self(i32::from(date.year()) * 12 + i32::from(date.month()) - 1);
        if month.to_string() == text { Ok(month) } else { Err(refused()) }
    }
}

/// What begins the names of the folders of sources that definitions name by a checksum; a [`SourceMonth`] follows.
pub const FETCHED_FOLDERS: &str = "fetched-";

/// The key of a source that definitions name by its checksum.
///
/// # Errors
/// None: digits are legal in keys.
pub fn fetched_key(month: SourceMonth, checksum: &SourceChecksum) -> Result<ArtifactKey> {
    let (kind, hex) = (checksum.algorithm().name(), checksum.hex());
    let first: String = hex.chars().take(2).collect();
    month.folder()?.join(&format!("{kind}/{first}/{hex}"))
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
