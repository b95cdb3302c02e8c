//! Sources that steps name by a checksum: files of the operator's folder, and those of the farm's cache, which is asked
//! for them before the steps run. What neither has is left to the step: that is never a reason to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, stream};
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use super::EngineBuilder;
use crate::apk::hashing::HashingWriter;
use crate::builder::{BuildEvent, BuildSink, LogStream};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{Blob, CachedSource, GuestRunner, SourceCache, SourceFile, SourceOrigin};
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
        runner: &dyn GuestRunner,
        sink: &dyn BuildSink,
    ) -> Result<(Rootfs, StepSources)> {
        let steps = plan.packages().flat_map(|package| &package.pipeline);
        let sources = async { Ok(self.cached_sources(steps, sink).await) };
        let form = runner.root_form().await;
        let root = self.assembler.assemble_as(form, resolution, &plan.environment, plan.arch);
        tokio::try_join!(root, sources)
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
        gather(&**cache, wanted, sink).await
    }
}

/// Gets what is wanted, several at once, and tells of each what became of it.
async fn gather(cache: &dyn SourceCache, mut wanted: Vec<Fetch>, sink: &dyn BuildSink) -> StepSources {
    let say = |line: String| sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line });
    let too_many = wanted.len().saturating_sub(limits::FETCHED_JOB_SOURCES_MAX);
    wanted.truncate(limits::FETCHED_JOB_SOURCES_MAX);
    let mut left = wanted.len();
    let (deadline, used) = (Instant::now() + limits::FETCHED_JOB_TIME, AtomicU64::new(0));
    let got = wanted.into_iter().map(|fetch| {
        let used = &used;
        async move {
            let done = tokio::time::timeout_at(deadline, get(cache, &fetch, used)).await;
            (fetch, done.unwrap_or_else(|_| Err(too_late())))
        }
    });
    let mut got = stream::iter(got).buffered(limits::FETCHED_JOB_AT_ONCE);
    let mut sources = StepSources::default();
    let quiet = tokio::time::sleep(limits::FETCHED_JOB_QUIET);
    tokio::pin!(quiet);
    loop {
        let next = tokio::select! {
            biased;
            next = got.next() => next,
            () = &mut quiet, if !quiet.is_elapsed() => {
                let what = if left == 1 { "source" } else { "sources" };
                say(format!("waiting for {left} {what} that the farm fetches"));
                continue;
            }
        };
        let Some((fetch, result)) = next else { break };
        left -= 1;
        say(told(&fetch, &result));
        if let Ok(source) = result {
            sources.files.push(SourceFile { name: fetch.checksum.to_string(), blob: source.blob.clone() });
            sources._held.push(source);
        }
    }
    if too_many > 0 {
        let bound = limits::FETCHED_JOB_SOURCES_MAX;
        say(format!("{too_many} more sources are left to the steps: the farm fetches {bound} for a job"));
    }
    sources
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
        // Guests of this machine may write into the folder: a link would offer a file of somebody's.
        let Some(meta) = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file) else { continue };
        let sha256 = match name.strip_prefix("sha256:") {
            Some(digest) => digest.to_owned(),
            None => digest_of(&path)?,
        };
        sources.push(SourceFile { name, blob: Blob { path, sha256, size_bytes: meta.len() } });
    }
    Ok(sources)
}

/// The SHA-256 of a file in lower-case hex.
fn digest_of(path: &Path) -> Result<String> {
    let failed = |e| Error::io("read", path, e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(opened);
    let mut sink = HashingWriter::new(std::io::sink());
    std::io::copy(&mut file, &mut sink).map_err(failed)?;
    Ok(sink.finish().1)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::melange::fetches::{ChecksumAlgorithm, SourceChecksum};

    /// Has everything after some time, and knows what it was asked and how much at once.
    #[derive(Debug)]
    struct Slow {
        takes: Duration,
        size_bytes: u64,
        bounds: Mutex<Vec<u64>>,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }

    impl Slow {
        fn new(takes: Duration, size_bytes: u64) -> Self {
            let (bounds, under_way, most) = Default::default();
            Self { takes, size_bytes, bounds, under_way, most }
        }
    }

    #[async_trait]
    impl SourceCache for Slow {
        async fn get(&self, fetch: &Fetch) -> Result<CachedSource> {
            self.bounds.lock().unwrap().push(fetch.bytes_max);
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(under_way, Ordering::SeqCst);
            tokio::time::sleep(self.takes).await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            if fetch.bytes_max < self.size_bytes {
                return Err(Error::new(ErrorKind::LimitExceeded, "it is too large"));
            }
            let blob = Blob {
                path: "/x".into(),
                sha256: fetch.checksum.hex().to_owned(),
                size_bytes: self.size_bytes,
            };
            Ok(CachedSource::new(blob, SourceOrigin::Cache, ()))
        }
    }

    #[derive(Debug, Default)]
    struct Lines(Mutex<Vec<String>>);

    #[async_trait]
    impl BuildSink for Lines {
        fn emit(&self, event: BuildEvent) {
            if let BuildEvent::Log { line, .. } = event {
                self.0.lock().unwrap().push(line);
            }
        }

        async fn ready(&self) {}
    }

    fn wanted(count: usize) -> Vec<Fetch> {
        let fetch = |index: usize| {
            let checksum = SourceChecksum::new(ChecksumAlgorithm::Sha256, &format!("{index:064x}")).unwrap();
            Fetch::new(checksum, format!("https://h/{index}"))
        };
        (0..count).map(fetch).collect()
    }

    async fn gathered(cache: &Slow, count: usize) -> (usize, Vec<String>) {
        let lines = Lines::default();
        let sources = gather(cache, wanted(count), &lines).await;
        (sources.files.len(), lines.0.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn some_at_once_and_what_takes_long_is_told_once() {
        let cache = Slow::new(limits::FETCHED_JOB_QUIET * 2, 1);
        let (count, lines) = gathered(&cache, 9).await;
        assert_eq!((count, lines.len()), (9, 10));
        assert_eq!(cache.most.into_inner(), limits::FETCHED_JOB_AT_ONCE);
        assert_eq!(lines[0], "waiting for 9 sources that the farm fetches");
        assert!(lines[1].starts_with("source 0: 1 bytes from the farm's cache (sha256:000"), "{}", lines[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_all_of_them_is_bounded() {
        let begun = Instant::now();
        let cache = Slow::new(limits::FETCHED_JOB_TIME * 2 / 3, 1);
        let (count, lines) = gathered(&cache, 9).await;
        assert_eq!((count, begun.elapsed()), (limits::FETCHED_JOB_AT_ONCE, limits::FETCHED_JOB_TIME));
        let late =
            lines.iter().filter(|line| line.contains("the sources of the job took longer than 1800 s"));
        assert_eq!(late.count(), 5, "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn their_bytes_and_their_number_are_bounded() {
        let cache = Slow::new(Duration::from_secs(1), limits::FETCHED_SOURCE_BYTES_MAX * 3 / 4);
        let (count, lines) = gathered(&cache, 9).await;
        let bounds = cache.bounds.into_inner().unwrap();
        // Eight of them have more already than a job may have.
        assert_eq!(bounds, [vec![limits::FETCHED_SOURCE_BYTES_MAX; 8], vec![0]].concat());
        assert_eq!(count, 8, "{lines:#?}");
        assert!(lines[8].contains("its step fetches it: it is too large"), "{}", lines[8]);

        let none = Slow::new(Duration::ZERO, 0);
        let (count, lines) = gathered(&none, limits::FETCHED_JOB_SOURCES_MAX + 3).await;
        assert_eq!(count, limits::FETCHED_JOB_SOURCES_MAX);
        assert_eq!(
            lines.last().unwrap(),
            "3 more sources are left to the steps: the farm fetches 500 for a job"
        );
    }
}
