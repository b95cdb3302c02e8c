//! The files beside the definition of an attempt: fetched before the build, in a folder that is there as long as it runs.

use std::path::PathBuf;

use super::attempt::Attempt;
use crate::error::Result;
use crate::sources::SourceFolder;

/// What a build has beside its definition.
#[derive(Debug, Default)]
pub(super) struct AttemptSources(Option<SourceFolder>);

impl AttemptSources {
    /// The folder of the files.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|folder| folder.path().to_owned())
    }

    /// Keeps the files while something runs, and removes them when it ends or is dropped.
    pub(super) async fn around<T>(self, work: impl Future<Output = T>) -> T {
        let done = work.await;
        if let Some(folder) = self.0 {
            folder.remove().await;
        }
        done
    }
}

impl Attempt {
    /// Fetches the files beside the definition; `None` when the attempt was asked to stop meanwhile.
    pub(super) async fn source_folder(&self) -> Result<Option<AttemptSources>> {
        let Some(digest) = self.spec.source() else { return Ok(Some(AttemptSources::default())) };
        let fetch = self.parts.sources.fetch(&*self.parts.artifact_storage, digest);
        let Some(fetched) = self.signal().token.run_until_cancelled(fetch).await else { return Ok(None) };
        let folder = fetched?;
        let summary = folder.summary();
        let files = if summary.files == 1 { "file" } else { "files" };
        self.events.line(format!(
            "--- {} {files} of {} bytes beside the definition ({digest})",
            summary.files, summary.size_bytes
        ));
        Ok(Some(AttemptSources(Some(folder))))
    }
}
