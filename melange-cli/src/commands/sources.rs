//! `melange bump` and `melange update-cache`: verbs that fetch the sources of definitions.

use std::fs::File;
use std::path::Path;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::bump::{BumpRequest, SourceDigests, bump as bumped};
use melange_remote_sdk::melange::fetches::{ChecksumAlgorithm, Fetch, SourceChecksum, fetches};
use melange_remote_sdk::melange::plan::Plan;
use melange_remote_sdk::melange::{self, Compiled};
use melange_remote_sdk::rootfs::fetch::{Fetcher, HttpFetcher, Present};
use melange_remote_sdk::text::diagnostics::Diagnostics;
use tempfile::TempDir;

use super::index::write_whole;
use super::{definition, local};
use crate::args::{BumpArgs, DefinitionArgs, Output, UpdateCacheArgs};
use crate::exit::Exit;
use crate::{input, note, out};

pub(super) async fn bump(args: &BumpArgs, output: Output) -> Result<Exit> {
    if input::is_stdin(&args.file) {
        return Err(Error::invalid("a definition on standard input cannot be changed").hint("name its file"));
    }
    let source = definition::source(&args.file)?;
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let mut request = BumpRequest::new(args.new_version.as_str());
    request.expected_commit.clone_from(&args.expected_commit);
    let changed =
        bumped(&source, &request, args.arch, &pipelines, &options).map_err(Diagnostics::into_error)?;
    let mut digests = Vec::new();
    if !changed.sources.is_empty() {
        let (fetcher, folder) = (local::fetcher()?, scratch(&std::env::temp_dir())?);
        for source in &changed.sources {
            note::line(&format!("fetching {}", source.uri));
            digests.push(digests_of(&download(&fetcher, &source.uri, folder.path()).await?)?);
        }
    }
    write_whole(&args.file, changed.with_digests(&digests).as_bytes())?;
    let file = input::name(&args.file);
    match output {
        Output::Text => out::line(&format!("{file}: {}-r{}", args.new_version, changed.epoch))?,
        Output::Json => out::json(&serde_json::json!({
            "file": file, "version": args.new_version, "epoch": changed.epoch,
            "sources": changed.sources.iter().map(|source| &source.uri).collect::<Vec<_>>(), "commits": changed.commits,
        }))?,
    }
    Ok(Exit::Ok)
}

/// The plan of a definition; nothing for one that is not for the architecture, which is said.
pub(super) fn plan(file: &Path, arch: Arch, definition: &DefinitionArgs) -> Result<Option<Box<Plan>>> {
    let source = definition::source(file)?;
    let (pipelines, options) = definition::compiler(definition)?;
    match melange::compile(&source, arch, &pipelines, &options).map_err(Diagnostics::into_error)? {
        Compiled::Plan(plan) => Ok(Some(plan)),
        Compiled::Skipped { reason, .. } => {
            note::line(&format!("skipped: {reason}"));
            Ok(None)
        }
    }
}

pub(super) async fn update_cache(args: &UpdateCacheArgs, output: Output) -> Result<Exit> {
    let Some(plan) = plan(&args.file, args.arch, &args.definition)? else { return Ok(Exit::Ok) };
    std::fs::create_dir_all(&args.cache_dir).map_err(|e| input::failed("create", &args.cache_dir, e))?;
    let (fetcher, folder) = (local::fetcher()?, scratch(&args.cache_dir)?);
    for fetch in fetches(plan.packages().flat_map(|package| &package.pipeline)) {
        let path = args.cache_dir.join(fetch.checksum.to_string());
        let known = path.is_file() && has(&path, &fetch.checksum)?;
        if !known {
            take(&fetcher, &fetch, folder.path(), &path).await?;
        }
        let (file, what) = (path.display().to_string(), if known { "known" } else { "fetched" });
        match output {
            Output::Text => out::line(&format!("{file}: {what}, {}", fetch.title()))?,
            Output::Json => {
                out::json_line(&serde_json::json!({ "file": file, "status": what, "uris": fetch.uris }))?
            }
        }
    }
    Ok(Exit::Ok)
}

/// A folder for downloads on the way.
pub(super) fn scratch(place: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(".melange-")
        .tempdir_in(place)
        .map_err(|e| Error::io("create a folder in", place, e))
}

/// Downloads a source, once, to a file of the folder.
async fn download(fetcher: &HttpFetcher, uri: &str, folder: &Path) -> Result<std::path::PathBuf> {
    let path = folder.join("source");
    if path.exists() {
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    Ok(fetcher.fetch(uri, &path, limits::FETCHED_SOURCE_BYTES_MAX, Present::Renewed).await?.path)
}

/// Downloads a source from the first address that has what its checksum names, and puts it to its place.
pub(super) async fn take(fetcher: &HttpFetcher, fetch: &Fetch, folder: &Path, place: &Path) -> Result<()> {
    let mut failed = None;
    for uri in &fetch.uris {
        match download(fetcher, uri, folder).await {
            Ok(path) if has(&path, &fetch.checksum)? => {
                return std::fs::rename(&path, place).map_err(|e| Error::io("write", place, e));
            }
            Ok(_) => {
                let message = format!("{uri} gives something else than {}", fetch.checksum);
                let error = Error::new(ErrorKind::Untrusted, message);
                failed =
                    Some(error.hint("compare the checksum of the definition with what its authors publish"));
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::invalid(format!("{} has no address", fetch.checksum))))
}

fn has(path: &Path, checksum: &SourceChecksum) -> Result<bool> {
    let digests = digests_of(path)?;
    Ok(match checksum.algorithm() {
        ChecksumAlgorithm::Sha256 => digests.sha256 == checksum.hex(),
        ChecksumAlgorithm::Sha512 => digests.sha512 == checksum.hex(),
    })
}

/// Both checksums of a file.
fn digests_of(path: &Path) -> Result<SourceDigests> {
    let read = File::open(path).and_then(SourceDigests::of);
    read.map_err(|e| Error::io("read", path, e))
}
