//! The failures of a build, grouped by what they failed of.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{BuildStanding, PackageStanding};
use crate::error::{ErrorKind, Result};
use crate::failure::Failure;
use crate::job::{FailureClass, JobState};
use crate::job_store::JobStore;

/// Calls on the job store at a time.
const CALLS: usize = 8;

/// Packages that failed of the same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailureGroup {
    /// Equal for failures of one cause: [`Failure::signature`], or the message where nothing was found out.
    pub signature: String,
    /// Who is at fault.
    pub class: FailureClass,
    /// What the first of them failed of, when it was found out.
    pub failure: Option<Failure>,
    /// The message of the first of them.
    pub message: String,
    /// The packages, in the order of the plan.
    pub packages: Vec<PackageStanding>,
}

impl FailureGroup {
    /// How many jobs were skipped because of them; one that waited for several counts for each.
    pub fn holds_back(&self) -> usize {
        self.packages.iter().map(|package| package.holds_back).sum()
    }
}

impl BuildStanding {
    /// The failed jobs by what they failed of, the largest groups first.
    ///
    /// # Errors
    /// The job store's.
    pub async fn failures(&self, job_store: &dyn JobStore) -> Result<Vec<FailureGroup>> {
        let failed = self.in_states(&[JobState::Failed]);
        let with_failure = async |package: PackageStanding| {
            let Some(job) = &package.job else { return Ok((package, None)) };
            match job_store.attempt(job.id, job.attempt).await {
                Ok(attempt) => Ok((package, attempt.failure)),
                // It failed while it waited, or its attempts are not kept any more.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok((package, None)),
                Err(error) => Err(error),
            }
        };
        let told: Vec<(PackageStanding, Option<Failure>)> =
            stream::iter(failed).map(with_failure).buffered(CALLS).try_collect().await?;
        let mut groups: BTreeMap<String, FailureGroup> = BTreeMap::new();
        for (package, failure) in told {
            let error = package.job.as_ref().and_then(|job| job.error.clone());
            let message = error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
            let class = error.map_or(FailureClass::Infrastructure, |error| error.class);
            let signature =
                failure.as_ref().map_or_else(|| message.clone(), |failure| failure.signature.clone());
            let group = groups.entry(signature.clone()).or_insert_with(|| FailureGroup {
                signature,
                class,
                failure,
                message,
                packages: Vec::new(),
            });
            group.packages.push(package);
        }
        let mut groups: Vec<FailureGroup> = groups.into_values().collect();
        groups.sort_by_key(|group| Reverse((group.packages.len(), group.holds_back())));
        Ok(groups)
    }
}
