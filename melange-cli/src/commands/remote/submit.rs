//! `melange remote submit`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::api::v1::{ErrorDetail, SubmitRequest};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::client::{Client, Refusal, SubmittedJob};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::job::SourceDigest;
use melange_remote_sdk::sources::{self, PackedSources};
use melange_remote_sdk::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};

use super::{POLL, client, ids, watch};
use crate::args::{Output, SubmitArgs, chosen};
use crate::commands::{collect_pipelines, definition, local, origin};
use crate::exit::{self, Exit};
use crate::{input, note, out, shown};

pub(super) async fn run(args: &SubmitArgs, output: Output, events: watch::Told) -> Result<Exit> {
    input::check_stdin(args.configs.iter().map(PathBuf::as_path))?;
    let client = client(&args.server)?;
    let pipelines = collect_pipelines(&args.pipeline_dirs)?;
    let mut waits_for = Vec::new();
    for job in &args.wait_for {
        waits_for.push(ids::find(&client, job).await?.to_string());
    }
    // Without a choice, the server's.
    let asked = chosen(&args.archs);
    let archs: Vec<Option<Arch>> =
        if asked.is_empty() { vec![None] } else { asked.into_iter().map(Some).collect() };
    let jobs = args.configs.iter().flat_map(|config| archs.iter().map(move |arch| (config, *arch)));
    let several = args.configs.len() * archs.len() > 1;
    let (mut exit, mut ids) = (Exit::Ok, Vec::new());
    let mut sources = Sources::new(&client, output);
    for (config, arch) in jobs {
        match submit(&mut sources, args, config, arch, &pipelines, &waits_for).await {
            Ok(told) => {
                ids.push(told.job);
                // Without the wish to join, a call was repeated whose answer was lost.
                if args.dedupe.is_some() && !told.created {
                    note::line(&format!("joined {}, an equal job that was handed in before", told.job));
                }
                if !args.wait {
                    tell(&client, &told, output)?;
                }
            }
            Err(error) if !several => return Err(error),
            Err(error) => {
                exit = exit.and(exit::code_of(&error));
                note::error(&error, output);
            }
        }
    }
    if args.wait {
        // All are told first: who interrupts the waiting knows them.
        for id in &ids {
            note::line(&format!("submitted {id}  {}", client.job_url(*id)));
        }
        for id in ids {
            let Some(ended) = watch::wait(&client, id, POLL, output, events).await? else {
                return Ok(exit.and(Exit::Cancelled));
            };
            exit = exit.and(ended);
        }
    }
    Ok(exit)
}

/// Submits one definition for one architecture.
async fn submit(
    sources: &mut Sources<'_>,
    args: &SubmitArgs,
    config: &Path,
    arch: Option<Arch>,
    pipelines: &BTreeMap<String, String>,
    waits_for: &[String],
) -> Result<SubmittedJob> {
    let source = definition::source(config)?;
    let name = config.file_name().filter(|_| !input::is_stdin(config));
    let mut request = SubmitRequest::new(source.text.clone());
    request.config_name = name.map(|name| name.to_string_lossy().into_owned());
    request.test_packages.clone_from(&args.test_packages);
    request.pipelines.clone_from(pipelines);
    request.arch = arch.map(|arch| arch.to_string());
    request.backend_selector = args.backend_selector.iter().cloned().collect();
    request.with_test = args.test;
    request.debug = args.debug;
    request.project.clone_from(&args.project);
    request.priority = args.priority;
    request.waits_for = waits_for.to_vec();
    // Less than a second is one.
    request.dedupe_seconds = args.dedupe.map(|time| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX));
    [request.git_commit, request.git_repo_url, request.license] =
        origin::stated(origin::of(config, &args.origin).await);
    if let Some(folder) = args.source_dir.clone().or_else(|| local::beside(config)) {
        request.source = sources.send(folder).await?.map(String::from);
    }
    let told = sources
        .client
        .submit_or_join(&request)
        .await
        .map_err(|error| with_own_places(error, &source, args))?;
    ids::remember(sources.client.server(), ids::HandedIn::Job(told.job));
    Ok(told)
}

/// Prints a job that was submitted, and what to do next.
fn tell(client: &Client, told: &SubmittedJob, output: Output) -> Result<()> {
    let id = told.job;
    let url = client.job_url(id);
    if output == Output::Json {
        return out::json_line(
            &serde_json::json!({ "id": id.to_string(), "url": url, "created": told.created }),
        );
    }
    out::line(&id.to_string())?;
    note::line(&url);
    note::line(&format!("next: melange remote wait {id}"));
    Ok(())
}

/// The files beside definitions: packed and sent once, however many jobs have them.
pub(super) struct Sources<'a> {
    client: &'a Client,
    output: Output,
    /// What became of a folder.
    sent: BTreeMap<PathBuf, Option<SourceDigest>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(client: &'a Client, output: Output) -> Self {
        Self { client, output, sent: BTreeMap::new() }
    }

    /// Sends the files of a folder unless the server has them; `None` when there are none.
    pub(super) async fn send(&mut self, folder: PathBuf) -> Result<Option<SourceDigest>> {
        if let Some(known) = self.sent.get(&folder) {
            return Ok(*known);
        }
        let packing = folder.clone();
        let packed = tokio::task::spawn_blocking(move || sources::pack(&packing)).await;
        let packed =
            packed.map_err(|e| Error::unexpected("the packing of source files died").source(e))??;
        if let Some(packed) = &packed {
            let is_new = self.client.send_sources(packed).await?;
            if self.output == Output::Text {
                note::line(&told(&folder, packed, is_new));
            }
        }
        let digest = packed.map(|packed| packed.digest);
        self.sent.insert(folder, digest);
        Ok(digest)
    }
}

/// What people read of the files of a folder.
fn told(folder: &Path, packed: &PackedSources, is_new: bool) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let folder = folder.display().to_string();
    let (folder, files) = (shown::word(&folder), count(packed.files, "file"));
    let links = match packed.links {
        0 => String::new(),
        links => format!("; {} left out, as in every build", count(links, "link")),
    };
    let done = if is_new {
        format!("sent {files} of {folder}")
    } else {
        format!("{files} of {folder}: known there already")
    };
    format!("{done} ({} bytes, {}){links}", packed.size_bytes, packed.digest)
}

/// The server's mistakes of a definition with the caller's own files and their text; other errors as they are.
fn with_own_places(error: Error, config: &Arc<Source>, args: &SubmitArgs) -> Error {
    let refusal = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Refusal>());
    let details = refusal.map(|refusal| &refusal.body.details[..]).unwrap_or_default();
    if details.is_empty() || details.iter().any(|detail| detail.file.is_none()) {
        return error;
    }
    let mut found: Vec<Diagnostic> = Vec::new();
    for detail in details {
        let diagnostic = diagnostic(detail, config, args);
        if !found.contains(&diagnostic) {
            found.push(diagnostic);
        }
    }
    Diagnostics(found).into_error()
}

/// One mistake in the caller's file that it is about.
fn diagnostic(detail: &ErrorDetail, config: &Arc<Source>, args: &SubmitArgs) -> Diagnostic {
    let file = detail.file.as_deref().unwrap_or_default();
    let own = args.pipeline_dirs.iter().map(|folder| folder.join(file)).find(|path| path.is_file());
    let source = match own.and_then(|path| definition::source(&path).ok()) {
        Some(pipeline) if is_below_pipelines(file) => pipeline,
        _ if is_definition(file, args) => Arc::clone(config),
        // One of the server's own pipelines, of which there is a name and a place.
        _ => Source::new(file, ""),
    };
    let at = Position { line: detail.line.unwrap_or_default(), column: detail.column.unwrap_or_default() };
    let diagnostic = Diagnostic::new(&source, at, detail.message.as_str());
    match &detail.hint {
        Some(hint) => diagnostic.hint(hint.as_str()),
        None => diagnostic,
    }
}

/// Whether a name that the server gives is a path that can be looked for in our folders.
fn is_below_pipelines(file: &str) -> bool {
    Path::new(file).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Whether a name that the server gives is that of the submitted definition.
fn is_definition(file: &str, args: &SubmitArgs) -> bool {
    let named = |config: &PathBuf| config.file_name().is_some_and(|name| name == file);
    args.configs.iter().any(named) || file == melange_remote_sdk::job::spec::CONFIG_NAME
}
