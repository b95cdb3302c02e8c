//! `melange source get`: the sources of a definition as its steps would have them, in a folder.
//!
//! Git, tar and patch of this machine do the work, each with its arguments apart and behind `--`, so that nothing of a
//! definition is taken for an option or a command.

use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use melange_remote_sdk::error::{Blame, Error, ErrorKind, Result};
use melange_remote_sdk::melange::fetches::fetches;
use melange_remote_sdk::melange::plan::{Plan, PlanStep};
use melange_remote_sdk::rootfs::fetch::HttpFetcher;
use tokio::process::Command;

use super::{local, sources};
use crate::args::{Output, SourceGetArgs};
use crate::exit::Exit;
use crate::{input, note, out, shown};

pub(super) async fn run(args: &SourceGetArgs, output: Output) -> Result<Exit> {
    let Some(plan) = sources::plan(&args.file, args.arch, &args.definition)? else { return Ok(Exit::Ok) };
    let place = args.output.join(&plan.package.name);
    if std::fs::symlink_metadata(&place).is_ok() {
        let message = format!("{} is there already", shown::word(&place.display().to_string()));
        return Err(
            Error::new(ErrorKind::Conflict, message).hint("remove it, or name another folder with -o")
        );
    }
    std::fs::create_dir_all(&args.output).map_err(|e| input::failed("create", &args.output, e))?;
    // Whole or not at all.
    let scratch = sources::scratch(&args.output)?;
    let made = scratch.path().join("sources");
    std::fs::create_dir(&made).map_err(|e| input::failed("create", &made, e))?;
    let beside = args.source_dir.clone().or_else(|| local::beside(&args.file));
    let count = gather(&plan, &made, beside.as_deref()).await?;
    if count == 0 {
        let message = format!("the steps of {} get no sources", shown::word(&plan.package.name));
        return Err(Error::invalid(message).hint("`fetch` and `git-checkout` steps of its pipeline count"));
    }
    std::fs::rename(&made, &place).map_err(|e| input::failed("write", &place, e))?;
    let place = place.display().to_string();
    match output {
        Output::Text => out::line(&place)?,
        Output::Json => out::json(&serde_json::json!({ "folder": place, "sources": count }))?,
    }
    Ok(Exit::Ok)
}

/// Gets what the steps of a plan's package fetch and check out into `place`, and applies the patches that lie in `beside`;
/// without it none is applied. Tells how many sources there are.
pub(super) async fn gather(plan: &Plan, place: &Path, beside: Option<&Path>) -> Result<usize> {
    let fetcher = local::fetcher()?;
    let mut count = 0;
    for step in plan.package.pipeline.iter().filter(|step| step.enabled) {
        let with = |name: &str| step.with.get(name).map_or("", String::as_str);
        let failed = |error: Error| error.with("step", &step.name);
        match step.uses.as_str() {
            "fetch" => fetch(&fetcher, step, place).await.map_err(failed)?,
            "git-checkout" => check_out(step, place).await.map_err(failed)?,
            "patch" => {
                if let Some(beside) = beside {
                    patch(with("patches"), with("series"), with("strip-components"), place, beside)
                        .await
                        .map_err(failed)?;
                }
                continue;
            }
            _ => continue,
        }
        count += 1;
    }
    Ok(count)
}

/// A folder below `place`, which need not be there yet.
fn below(place: &Path, folder: &str) -> Result<PathBuf> {
    let is_inside =
        Path::new(folder).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inside {
        return Err(Error::invalid(format!("the folder {folder:?} is outside of the sources")));
    }
    Ok(place.join(folder))
}

async fn fetch(fetcher: &HttpFetcher, step: &PlanStep, place: &Path) -> Result<()> {
    let with = |name: &str| step.with.get(name).map_or("", String::as_str);
    let found = fetches([step]);
    let Some(fetch) = found.first() else {
        return Err(Error::invalid(format!("{} is fetched without a checksum", shown::word(with("uri"))))
            .hint("give the step an expected-sha256"));
    };
    note::line(&format!("fetching {}", fetch.title()));
    let folder = below(place, with("directory"))?;
    std::fs::create_dir_all(&folder).map_err(|e| input::failed("create", &folder, e))?;
    let archive = folder.join(fetch.title());
    let scratch = sources::scratch(place)?;
    sources::take(fetcher, fetch, scratch.path(), &archive).await?;
    if with("extract") == "false" {
        return Ok(());
    }
    let strip = match with("strip-components") {
        "" => "1",
        digits => digits,
    };
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner"]).arg(format!("--strip-components={strip}"));
    tar.arg("--file").arg(&archive).arg("--directory").arg(&folder);
    ran(tar, &format!("unpack {}", fetch.title())).await?;
    if with("delete") == "true" {
        std::fs::remove_file(&archive).map_err(|e| input::failed("remove", &archive, e))?;
    }
    Ok(())
}

async fn check_out(step: &PlanStep, place: &Path) -> Result<()> {
    let with = |name: &str| step.with.get(name).map_or("", String::as_str);
    let folder = below(place, with("destination"))?;
    std::fs::create_dir_all(&folder).map_err(|e| input::failed("create", &folder, e))?;
    let repository = with("repository");
    let shown_address = shown::word(&melange_remote_sdk::redact::without_user(repository)).into_owned();
    note::line(&format!("checking out {shown_address}"));
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&folder).args(["-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never"]);
        git.args(arguments).env("GIT_TERMINAL_PROMPT", "0");
        git
    };
    let expected = with("expected-commit");
    let reference = match (with("tag"), with("branch")) {
        ("", "") => expected.to_owned(),
        ("", branch) => format!("refs/heads/{branch}"),
        (tag, _) => format!("refs/tags/{tag}"),
    };
    if reference.is_empty() {
        return Err(Error::invalid("neither a tag nor a branch nor a commit is named"));
    }
    if !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::invalid(format!("{expected:?} is no commit")));
    }
    ran(git(&["init", "--quiet"]), "begin a repository").await?;
    // Of a tag there is its commit alone: another one that is expected is not found. One that is not the tip of its branch
    // needs what is before the tip.
    let depth = if with("tag").is_empty() && !expected.is_empty() { None } else { Some("--depth=1") };
    let fetched = ["fetch", "--quiet"].into_iter().chain(depth).chain(["--", repository, &reference]);
    let fetched =
        ran(git(&fetched.collect::<Vec<_>>()), &format!("fetch {reference} of {shown_address}")).await;
    fetched
        .map_err(|error| Error::new(ErrorKind::Unavailable, "the repository cannot be had").source(error))?;
    let commit = if expected.is_empty() { "FETCH_HEAD" } else { expected };
    ran(git(&["checkout", "--quiet", "--detach", commit, "--"]), &format!("check {commit} out")).await?;
    if with("recurse-submodules") == "true" {
        let modules = git(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]);
        ran(modules, "check submodules out").await?;
    }
    if !with("cherry-picks").trim().is_empty() {
        note::line("warning: commits of `cherry-picks` are left out");
    }
    Ok(())
}

/// Applies patches in their order.
async fn patch(patches: &str, series: &str, strip: &str, place: &Path, beside: &Path) -> Result<()> {
    let listed;
    let names = if series.is_empty() {
        patches
    } else {
        listed = input::read_text(&below(beside, series)?, TEXT_BYTES_MAX)?;
        &listed
    };
    let lines = names.lines().filter(|line| !line.trim_start().starts_with('#'));
    for name in lines.flat_map(str::split_whitespace) {
        let file = below(beside, name)?;
        note::line(&format!("applying {}", shown::word(name)));
        let mut program = Command::new("patch");
        let strip = if strip.is_empty() { "1" } else { strip };
        program.arg(format!("--strip={strip}")).args(["--batch", "--silent"]).arg("--directory").arg(place);
        program.stdin(input::open(&file)?);
        run_with_input(program, &format!("apply {name}")).await?;
    }
    Ok(())
}

/// A series of patches.
const TEXT_BYTES_MAX: u64 = 1 << 20;

async fn ran(mut program: Command, what: &str) -> Result<()> {
    program.stdin(Stdio::null());
    run_with_input(program, what).await
}

/// Runs a program to its end; what it says goes to standard error.
async fn run_with_input(mut program: Command, what: &str) -> Result<()> {
    let name = program.as_std().get_program().to_string_lossy().into_owned();
    program.stdout(Stdio::from(std::io::stderr())).kill_on_drop(true);
    let ended = program.status().await.map_err(|e| {
        Error::new(ErrorKind::NotFound, format!("cannot run `{name}`"))
            .hint(format!("install the program `{name}`"))
            .source(e)
    })?;
    if ended.success() {
        return Ok(());
    }
    Err(Error::invalid(format!("`{name}` could not {what} ({ended})")).blame(Blame::Definition))
}
