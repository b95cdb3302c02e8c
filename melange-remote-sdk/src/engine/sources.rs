//! Sources that steps name by a checksum: files of the operator's folder, and those of the farm's cache, which is asked
//! for them before the steps run. What neither has is left to the step: that is never a reason to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, stream};

use super::{EngineBuilder, digest_of};
use crate::builder::{BuildEvent, BuildSink, LogStream};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{Blob, CachedSource, SourceCache, SourceFile, SourceOrigin};
use crate::limits;
use crate::melange::fetches::{Fetch, fetches};
use crate::melange::plan::{Plan, PlanStep};
use crate::rootfs::{Resolution, Rootfs};

/// Files for the steps of one guest; those of a cache stay as long as this does.
#[derive(Debug, Default)]
pub(crate) struct StepSources {
    files: Vec<SourceFile>,
    _held: Vec<CachedSource>,
}

impl EngineBuilder {
    /// The root filesystem of a build, and meanwhile what its steps fetch by a checksum.
    pub(super) async fn prepare_guest(
        &self,
        plan: &Plan,
        resolution: &Resolution,
        sink: &dyn BuildSink,
    ) -> Result<(Rootfs, StepSources)> {
        let steps = plan.packages().flat_map(|package| &package.pipeline);
        let sources = async { Ok(self.cached_sources(steps, sink).await) };
        tokio::try_join!(self.assembler.assemble(resolution, &plan.environment, plan.arch), sources)
    }

    /// What the farm has of that which `steps` fetch by a checksum. It ends within [`limits::FETCHED_JOB_TIME`]; dropping
    /// the future stops the downloads.
    pub(super) async fn cached_sources<'p>(
        &self,
        steps: impl IntoIterator<Item = &'p PlanStep>,
        sink: &dyn BuildSink,
    ) -> StepSources {
        let Some(cache) = &self.source_cache else { return StepSources::default() };
        let folder = self.options.source_cache.as_deref();
        let mut wanted = fetches(steps);
        wanted
            .retain(|fetch| !folder.is_some_and(|folder| folder.join(fetch.checksum.to_string()).is_file()));
        let too_many = wanted.len().saturating_sub(limits::FETCHED_JOB_SOURCES_MAX);
        wanted.truncate(limits::FETCHED_JOB_SOURCES_MAX);
        let say = |line: String| sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line });
        let (deadline, used) = (tokio::time::Instant::now() + limits::FETCHED_JOB_TIME, AtomicU64::new(0));
        let got = wanted.into_iter().map(|fetch| {
            let (cache, used) = (&**cache, &used);
            async move {
                let done = tokio::time::timeout_at(deadline, get(cache, &fetch, used)).await;
                (fetch, done.unwrap_or_else(|_| Err(too_late())))
            }
        });
        let mut got = stream::iter(got).buffered(limits::FETCHED_JOB_AT_ONCE);
        let mut sources = StepSources::default();
        while let Some((fetch, result)) = got.next().await {
            say(told(&fetch, &result));
            if let Ok(source) = result {
                sources
                    .files
                    .push(SourceFile { name: fetch.checksum.to_string(), blob: source.blob.clone() });
                sources._held.push(source);
            }
        }
        if too_many > 0 {
            let bound = limits::FETCHED_JOB_SOURCES_MAX;
            say(format!("{too_many} more sources are left to the steps: the farm fetches {bound} for a job"));
        }
        sources
    }
}

/// Gets a source within what is left of the job's bytes.
async fn get(cache: &dyn SourceCache, fetch: &Fetch, used: &AtomicU64) -> Result<CachedSource> {
    let left = limits::FETCHED_JOB_BYTES_MAX.saturating_sub(used.load(Ordering::Relaxed));
    let bounded = Fetch { bytes_max: fetch.bytes_max.min(left), ..fetch.clone() };
    let source = cache.get(&bounded).await?;
    used.fetch_add(source.blob.size_bytes, Ordering::Relaxed);
    Ok(source)
}

fn too_late() -> Error {
    let message = format!("the sources of the job took longer than {} s", limits::FETCHED_JOB_TIME.as_secs());
    Error::new(ErrorKind::Unavailable, message)
}

/// What the log of the job tells of a source.
fn told(fetch: &Fetch, result: &Result<CachedSource>) -> String {
    let (title, checksum) = (fetch.title(), &fetch.checksum);
    match result {
        Ok(source) => {
            let bytes = source.blob.size_bytes;
            match &source.origin {
                SourceOrigin::Cache => {
                    format!("source {title}: {bytes} bytes from the farm's cache ({checksum})")
                }
                SourceOrigin::Download(url) => {
                    format!("source {title}: {bytes} bytes, downloaded by the farm from {url} ({checksum})")
                }
            }
        }
        Err(error) => {
            let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!(
                "source {title}: the farm does not have it, its step fetches it: {}{hint} ({checksum})",
                error.chain()
            )
        }
    }
}

/// All files for steps with these scripts: what the operator's folder has of the checksums in them comes before what
/// was fetched.
pub(super) fn source_files(
    folder: Option<&Path>,
    scripts: &[&str],
    fetched: &StepSources,
) -> Result<Vec<SourceFile>> {
    let mut files: BTreeMap<String, SourceFile> =
        fetched.files.iter().map(|file| (file.name.clone(), file.clone())).collect();
    if let Some(folder) = folder {
        files.extend(files_of(folder, scripts)?.into_iter().map(|file| (file.name.clone(), file)));
    }
    Ok(files.into_values().collect())
}

/// Files of a folder whose digest a script names.
fn files_of(folder: &Path, scripts: &[&str]) -> Result<Vec<SourceFile>> {
    let mut names = BTreeSet::new();
    for script in scripts {
        for word in script.split(|c: char| !c.is_ascii_hexdigit()) {
            match word.len() {
                64 => names.insert(format!("sha256:{}", word.to_ascii_lowercase())),
                128 => names.insert(format!("sha512:{}", word.to_ascii_lowercase())),
                _ => false,
            };
        }
    }
    let mut sources = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        let sha256 = match name.strip_prefix("sha256:") {
            Some(digest) => digest.to_owned(),
            None => digest_of(&path)?,
        };
        sources.push(SourceFile { name, blob: Blob { path, sha256, size_bytes: meta.len() } });
    }
    Ok(sources)
}
