//! Builds of what lies in a git repository.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{BuildFiles, BuildRequest};
use crate::error::{Error, Result};
use crate::git::{GitCheckout, GitSource};
use crate::job::BuildSource;
use crate::planner::ArchPlan;
use crate::sources;

impl BuildRequest {
    /// Takes the definitions and pipelines of a repository, and where they come from. Pipelines that are there already go
    /// before the repository's own.
    pub fn take_checkout(&mut self, source: &GitSource, checkout: &GitCheckout) {
        let (url, reference) = (checkout.url.clone(), source.reference.clone());
        self.source = BuildSource::Git { url, reference, commit: checkout.commit.clone() };
        let texts = checkout.definitions.iter().map(|found| (found.path.clone(), found.text.clone()));
        self.definitions = texts.collect();
        for (path, text) in &checkout.pipelines {
            self.pipelines.entry(path.clone()).or_insert_with(|| text.clone());
        }
    }
}

impl BuildFiles {
    /// Stores the files beside the definitions that are planned, and names them in the request. `now` as for
    /// [`Self::store_sources`].
    ///
    /// # Errors
    /// As [`sources::pack`], for files that no build takes; the storage's.
    pub async fn store_checkout(
        &self,
        request: &mut BuildRequest,
        checkout: &GitCheckout,
        plans: &[ArchPlan],
        now: Timestamp,
    ) -> Result<()> {
        let planned: BTreeSet<&str> =
            plans.iter().flat_map(|plan| &plan.jobs).map(|job| job.file.as_str()).collect();
        for found in checkout.definitions.iter().filter(|found| planned.contains(found.path.as_str())) {
            let Some(folder) = found.source_dir.clone() else { continue };
            let packed = tokio::task::spawn_blocking(move || sources::pack(&folder)).await;
            let packed = packed
                .map_err(|error| Error::unexpected("the packing of source files died").source(error))?;
            let packed = packed.map_err(|error| error.with("definition", &found.path))?;
            let Some(packed) = packed else { continue };
            self.store_sources(&packed, now).await?;
            let name = found.path.strip_suffix(".yaml").unwrap_or(&found.path).to_owned();
            request.sources.insert(name, packed.digest);
        }
        Ok(())
    }
}
