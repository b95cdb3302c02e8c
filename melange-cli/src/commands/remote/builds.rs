//! `melange remote build`, `melange remote builds`, and what the other verbs do with builds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use melange_remote_sdk::api::v2::{
    BuildOptionsView, BuildPackageView, BuildView, CreateBuildRequest, CreateBuildResponse, GitSourceRequest,
    SourceRequest,
};
use melange_remote_sdk::client::{Client, PackagesQuery};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{BuildId, JobId};
use melange_remote_sdk::planner::Selection;

use super::submit::Sources;
use super::{client, ids, show, watch_build};
use crate::args::{Output, RemoteBuildArgs, ServerArgs, chosen, word};
use crate::commands::{collect_pipelines, definition, local, origin, plan};
use crate::exit::Exit;
use crate::render::{builds as render, plan as render_plan};
use crate::{input, note, out, shown};

/// The request that the arguments make, and the folders beside definitions by the paths of these.
fn request(args: &RemoteBuildArgs) -> Result<(CreateBuildRequest, BTreeMap<String, PathBuf>)> {
    let selection = Selection { packages: args.packages.clone(), globs: args.globs.clone() };
    let (mut definitions, mut folders_beside) = (BTreeMap::new(), BTreeMap::new());
    let files = if args.git.is_some() { Vec::new() } else { plan::files(&args.paths, &selection)? };
    for file in files {
        if let Some(folder) = local::beside(&file.path) {
            folders_beside.insert(file.name.clone(), folder);
        }
        let text = definition::source(&file.path)?.text.clone();
        if definitions.insert(file.name.clone(), text).is_some() {
            return Err(Error::invalid(format!("two definitions have the path {}", shown::word(&file.name)))
                .hint("hand in one folder, or files with different names"));
        }
    }
    let mut folders = args.pipeline_dirs.clone();
    // A distribution brings its own pipelines along.
    let own = if args.git.is_some() { &[][..] } else { &args.paths[..] };
    folders.extend(own.iter().map(|path| path.join("pipelines")).filter(|folder| folder.is_dir()));
    let mut source = SourceRequest::default();
    (source.definitions, source.pipelines) = (definitions, collect_pipelines(&folders)?);
    source.git = args.git.clone().map(|url| {
        let mut git = GitSourceRequest::default();
        (git.url, git.reference) = (url, args.reference.clone());
        git.credential.clone_from(&args.git_credential);
        // What is in folders has to be read for a pattern to find it there.
        git.glob = args.globs.iter().any(|glob| glob.contains('/')).then(|| "**/*.yaml".to_owned());
        git
    });
    let mut options = BuildOptionsView::default();
    options.architectures = chosen(&args.archs).into_iter().map(|arch| arch.to_string()).collect();
    options.signing_key.clone_from(&args.signing_key);
    options.extra_repos.clone_from(&args.extra_repos);
    options.extra_keys.clone_from(&args.extra_keys);
    options.with_dependencies = Some(word(&args.with_dependencies));
    options.rebuild = Some(word(&args.rebuild));
    options.cut = Some(word(&args.cut));
    options.backend_selector = args.backend_selector.iter().cloned().collect();
    options.priority = args.priority;
    (options.fail_fast, options.no_cache) = (args.fail_fast, args.no_cache);
    (options.with_test, options.debug) = (args.test, args.debug);
    let mut request = CreateBuildRequest::default();
    (request.source, request.options) = (source, options);
    (request.packages, request.glob) = (args.packages.clone(), args.globs.clone());
    request.project.clone_from(&args.project);
    request.trigger = args.trigger.clone().or_else(|| std::env::var("USER").ok());
    Ok((request, folders_beside))
}

/// Sends the files beside the definitions that are built, and names them in the request.
async fn send_sources(
    client: &Client,
    request: &mut CreateBuildRequest,
    mut folders: BTreeMap<String, PathBuf>,
    output: Output,
) -> Result<()> {
    let is_all = request.packages.is_empty() && request.glob.is_empty();
    if !is_all && !folders.is_empty() {
        // Which definitions are built the server knows.
        let plan = client.plan_build(request).await?;
        let planned: BTreeSet<&str> = plan.jobs.iter().map(|job| job.file.as_str()).collect();
        folders.retain(|file, _| planned.contains(file.as_str()));
    }
    let mut sources = Sources::new(client, output);
    for (file, folder) in folders {
        if let Some(digest) = sources.send(folder).await? {
            let name = file.strip_suffix(".yaml").unwrap_or(&file).to_owned();
            request.source.sources.insert(name, digest.to_string());
        }
    }
    Ok(())
}

pub(super) async fn run(args: &RemoteBuildArgs, output: Output) -> Result<Exit> {
    let (client, (mut request, folders)) = (client(&args.server)?, request(args)?);
    let options = &mut request.options;
    // Of a repository the server knows more than any checkout here.
    let folder = args.paths.first().filter(|_| args.git.is_none());
    let folder = folder.map(|path| if path.is_dir() { path.as_path() } else { input::folder(path) });
    [options.git_commit, options.git_repo_url, options.license] =
        origin::stated(origin::of_folder(folder, &args.origin).await);
    if args.plan {
        let plan = client.plan_build(&request).await?;
        match output {
            Output::Json => out::json(&plan)?,
            Output::Text => out::text(&render_plan::text(&plan, &args.show))?,
        }
        return Ok(if plan.refused.is_empty() { Exit::Ok } else { Exit::Failed });
    }
    send_sources(&client, &mut request, folders, output).await?;
    let told = client.create_build(&request).await?;
    let Some(id) = &told.build_id else {
        show(output, &told, || format!("nothing to build\n{}", render::skipped(&told.packages)))?;
        return Ok(Exit::Ok);
    };
    let id: BuildId = id.parse()?;
    ids::remember(client.server(), ids::HandedIn::Build(id));
    if args.wait {
        note::line(&format!("{id}  {}", client.build_url(id)));
        note::line(&handed_in(&told));
        return Ok(watch_build::wait(&client, id, output).await?.unwrap_or(Exit::Cancelled));
    }
    if output == Output::Json {
        out::json_line(&told)?;
        return Ok(Exit::Ok);
    }
    out::line(&id.to_string())?;
    note::line(&client.build_url(id));
    note::line(&handed_in(&told));
    note::line(&format!("next: melange remote wait {id}"));
    Ok(Exit::Ok)
}

fn handed_in(told: &CreateBuildResponse) -> String {
    let skipped = told.packages.iter().filter(|package| package.job_id.is_none()).count();
    let jobs = told.total.saturating_sub(skipped);
    let left_out = if skipped > 0 { format!(", {skipped} left out") } else { String::new() };
    let no_backend = render_plan::no_backend(&told.no_backend);
    format!("{jobs} jobs{left_out}\n{no_backend}").trim_end().to_owned()
}

pub(super) async fn list(
    server: &ServerArgs,
    limit: usize,
    status: Option<&str>,
    output: Output,
) -> Result<Exit> {
    let client = client(server)?;
    let (mut builds, mut cursor): (Vec<BuildView>, Option<String>) = (Vec::new(), None);
    while builds.len() < limit {
        let page = client.builds(limit - builds.len(), cursor.as_deref(), status).await?;
        let is_empty = page.builds.is_empty();
        builds.extend(page.builds);
        cursor = page.next;
        if cursor.is_none() || is_empty {
            break;
        }
    }
    show(output, &builds, || render::builds(&builds, Timestamp::now()))?;
    Ok(Exit::Ok)
}

/// Packages of a build, at most so many.
const PACKAGES_SHOWN: usize = 20_000;

/// All packages of a build that a query asks for.
pub(super) async fn packages(
    client: &Client,
    id: BuildId,
    query: PackagesQuery,
) -> Result<Vec<BuildPackageView>> {
    let (mut query, mut all) = (query, Vec::new());
    while all.len() < PACKAGES_SHOWN {
        let page = client.build_packages(id, &query).await?;
        all.extend(page.packages);
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

pub(super) async fn status(client: &Client, id: BuildId, output: Output) -> Result<Exit> {
    let build = client.build(id).await?;
    let packages = packages(client, id, PackagesQuery::default()).await?;
    let value = serde_json::json!({ "build": build, "packages": packages });
    show(output, &value, || render::build(&build, &packages, Timestamp::now()))?;
    Ok(Exit::Ok)
}

/// Why the packages of a build wait that do.
pub(super) async fn why(client: &Client, id: BuildId, output: Output) -> Result<Exit> {
    let mut waiting = packages(client, id, PackagesQuery::with_status("pending")).await?;
    waiting.extend(packages(client, id, PackagesQuery::with_status("blocked")).await?);
    show(output, &waiting, || render::waiting(&waiting))?;
    Ok(Exit::Ok)
}

pub(super) async fn cancel(client: &Client, id: BuildId, output: Output) -> Result<Exit> {
    let build = client.cancel_build(id).await?;
    show(output, &build, || format!("asked {id} to stop: {}", render::counts(&build.counts)))?;
    Ok(Exit::Ok)
}

pub(super) async fn retry(client: &Client, id: BuildId, output: Output) -> Result<Exit> {
    let build = client.retry_build(id).await?;
    show(output, &build, || {
        format!("{id} is {}: {}\nnext: melange remote wait {id}", build.status, render::counts(&build.counts))
    })?;
    Ok(Exit::Ok)
}

/// Downloads the packages that a build has made.
pub(super) async fn get(
    client: &Client,
    id: BuildId,
    names: &[String],
    out_dir: &Path,
    output: Output,
) -> Result<Exit> {
    let made = packages(client, id, PackagesQuery::with_status("success")).await?;
    let mut paths = Vec::new();
    for package in made {
        let Some(job) = package.job_id.as_deref().map(str::parse::<JobId>).transpose()? else { continue };
        let artifacts = client.artifacts(job).await?;
        let is_chosen = |name: &str| name.ends_with(".apk") && super::is_wanted(name, names);
        let chosen: Vec<_> = artifacts.into_iter().filter(|artifact| is_chosen(&artifact.name)).collect();
        super::download(client, job, &chosen, out_dir, output, &mut paths).await?;
    }
    if paths.is_empty() {
        let error = Error::new(ErrorKind::NotFound, "the build has made no such package");
        return Err(error.hint(format!("`melange remote status {id}` lists its packages")));
    }
    if output == Output::Json {
        out::json(&paths)?;
    }
    Ok(Exit::Ok)
}
