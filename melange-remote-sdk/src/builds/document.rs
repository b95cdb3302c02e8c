//! The document of a build: its plan with the jobs that it became, and the indexes that they see.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::BuildOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BuildId, BuildSource, JobId, Project};
use crate::limits;
use crate::planner::{ArchPlan, PlannedJob};

/// What a build is made of, as it was planned; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildDocument {
    /// The version of this form, 1.
    pub format: u32,
    /// The build.
    pub id: BuildId,
    /// Whose it is.
    pub project: Project,
    /// Where its definitions come from.
    pub source: BuildSource,
    /// How its packages are built.
    pub options: BuildOptions,
    /// Its plans, an architecture behind the other.
    pub archs: Vec<PlannedArch>,
}

/// The plan for an architecture, and what it became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedArch {
    /// The plan.
    pub plan: ArchPlan,
    /// The jobs, in the order of the plan's.
    pub jobs: Vec<JobId>,
    /// The indexes that they see.
    pub indexes: Vec<KeptIndex>,
}

/// The index of a repository as it was when a build was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptIndex {
    /// The line of the repository, without a password.
    pub line: String,
    /// The SHA-256 of the line as environments name it, in lower-case hex.
    pub line_sha256: String,
    /// The SHA-256 of the index in lower-case hex, which is its name among the files of the build.
    pub sha256: String,
}

/// A document, with what is looked up in it.
#[derive(Debug)]
pub struct LoadedBuild {
    document: BuildDocument,
    places: HashMap<JobId, (usize, usize)>,
}

impl BuildDocument {
    /// The stored form: JSON, compressed with zstd.
    ///
    /// # Errors
    /// `LimitExceeded` for a document that is too large to be read again.
    pub fn write(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::unexpected("the document of a build cannot be written").source(error);
        let text = serde_json::to_vec(self).map_err(|error| failed(std::io::Error::from(error)))?;
        if text.len() > limits::BUILD_DOCUMENT_BYTES_MAX {
            let message = format!("the plan of the build has {} bytes", text.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message).hint("build fewer packages at once"));
        }
        zstd::bulk::compress(&text, 3).map_err(failed)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Unexpected` for something else; `Unsupported` for a later form.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let failed = |error| Error::unexpected("the document of a build cannot be read").source(error);
        let text = zstd::bulk::decompress(bytes, limits::BUILD_DOCUMENT_BYTES_MAX).map_err(failed)?;
        let document: Self =
            serde_json::from_slice(&text).map_err(|error| failed(std::io::Error::from(error)))?;
        if document.format != 1 {
            let message = format!("the document of a build has the form {}", document.format);
            return Err(Error::new(ErrorKind::Unsupported, message).hint("a later server wrote it"));
        }
        Ok(document)
    }
}

impl LoadedBuild {
    /// A document with its jobs by name.
    pub fn new(document: BuildDocument) -> Self {
        let mut places = HashMap::new();
        for (arch, planned) in document.archs.iter().enumerate() {
            places.extend(planned.jobs.iter().enumerate().map(|(job, id)| (*id, (arch, job))));
        }
        Self { document, places }
    }

    /// The document.
    pub fn document(&self) -> &BuildDocument {
        &self.document
    }

    /// How many jobs it has.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has no job.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of a job's architecture, and of the job in its plan.
    pub(super) fn indexes_of(&self, id: JobId) -> Option<(usize, usize)> {
        self.places.get(&id).copied()
    }

    /// A job's plan, and the number of the job in it.
    pub fn place(&self, id: JobId) -> Option<(&PlannedArch, usize)> {
        let (arch, job) = self.places.get(&id)?;
        Some((self.document.archs.get(*arch)?, *job))
    }

    /// A job as it was planned.
    pub fn planned(&self, id: JobId) -> Option<&PlannedJob> {
        let (arch, job) = self.place(id)?;
        arch.plan.jobs.get(job)
    }
}

impl PlannedArch {
    /// The jobs that a job waits for, by way of others too, in the order of the plan.
    pub fn ancestors(&self, job: usize) -> Vec<usize> {
        let (mut seen, mut left) = (BTreeSet::new(), vec![job]);
        while let Some(next) = left.pop() {
            for need in self.plan.jobs.get(next).into_iter().flat_map(|job| &job.waits_for) {
                if seen.insert(*need) {
                    left.push(*need);
                }
            }
        }
        seen.into_iter().collect()
    }
}
