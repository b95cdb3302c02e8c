//! One file a verb; every verb returns how it ended.

use std::collections::BTreeMap;
use std::path::Path;

use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::event_schema;
use melange_remote_sdk::melange::document::schema;

use crate::args::{Args, Command, Output, SourceCommand};
use crate::exit::{self, Exit};
use crate::{input, note, out};

mod apk;
mod build;
mod compile;
mod definition;
mod index;
mod keygen;
mod license_check;
mod lint;
mod local;
mod origin;
mod pipelines;
mod plan;
mod query;
mod remote;
mod sign;
mod source_get;
mod sources;
mod test;
mod trace;

/// Runs the verb.
pub(crate) async fn run(command: Command, output: Output) -> Result<Exit> {
    match command {
        Command::Remote { command } => remote::run(command, output).await,
        Command::Build(args) => build::run(*args, output).await,
        Command::Compile(args) => compile::run(&args, output),
        Command::Plan(args) => plan::run(*args, output).await,
        Command::Test(args) => test::run(*args, output).await,
        Command::Query(args) => query::run(&args, output),
        Command::Schema { pipeline, event } => {
            let schema = match (pipeline, event) {
                (true, _) => schema::pipeline(),
                (_, true) => event_schema(),
                _ => schema::definition(),
            };
            out::line(&format!("{schema:#}"))?;
            Ok(Exit::Ok)
        }
        Command::Pipelines { command } => pipelines::run(command, output),
        Command::Lint(args) => lint::run(&args, output),
        Command::LicenseCheck(args) => license_check::run(&args, output).await,
        Command::Keygen(args) => keygen::run(&args, output),
        Command::Index(args) => index::run(&args, output),
        Command::Sign(args) => sign::packages(&args, output),
        Command::SignIndex(args) => sign::index(&args, output),
        Command::Bump(args) => sources::bump(&args, output).await,
        Command::UpdateCache(args) => sources::update_cache(&args, output).await,
        Command::Source { command: SourceCommand::Get(args) } => source_get::run(&args, output).await,
        Command::PackageVersion(args) => query::package_version(&args, output),
        Command::Apk { command } => apk::run(command, output).await,
        Command::Completions { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "melange", &mut script);
            out::bytes(&script)?;
            Ok(Exit::Ok)
        }
        Command::ExitCodes { .. } => {
            exit_codes(output)?;
            Ok(Exit::Ok)
        }
    }
}

fn exit_codes(output: Output) -> Result<()> {
    if output == Output::Text {
        return out::line(exit::TABLE);
    }
    let rows = exit::TABLE.lines().filter_map(|line| line.trim().split_once("  "));
    out::json(&rows.collect::<BTreeMap<_, _>>())
}

/// Messages of the SDK go to standard error, which may be closed.
pub(crate) fn init_logging(verbose: bool) {
    let level = if verbose { "debug" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::new(format!("melange={level},melange_remote_sdk={level}"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours would be escaped together with those of strangers.
        .with_ansi(false)
        .with_writer(|| note::Writer)
        .log_internal_errors(false)
        .without_time()
        .init();
}

/// Reads the signing key in a file.
pub(crate) fn signing_key(path: &Path) -> Result<melange_remote_sdk::apk::signature::SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    melange_remote_sdk::apk::signature::SigningKey::from_pem(name, &input::read(path, input::KEY_BYTES_MAX)?)
}

/// All pipelines below the folders, by their paths relative to them; the first folder that has a path counts.
pub(crate) fn collect_pipelines(folders: &[std::path::PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut pipelines = BTreeMap::new();
    // A folder that does not exist yet holds none.
    for folder in folders.iter().filter(|folder| folder.exists()) {
        collect_folder(folder, Path::new(""), &mut pipelines)?;
    }
    Ok(pipelines)
}

fn collect_folder(folder: &Path, below: &Path, pipelines: &mut BTreeMap<String, String>) -> Result<()> {
    let here = folder.join(below);
    let failed = |e| input::failed("list", &here, e);
    for entry in std::fs::read_dir(&here).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = below.join(entry.file_name());
        if entry.path().is_dir() {
            collect_folder(folder, &name, pipelines)?;
        } else if name.extension().is_some_and(|extension| extension == "yaml") {
            let text = input::read_text(&entry.path(), definition::TEXT_BYTES_MAX)?;
            pipelines.entry(name.to_string_lossy().into_owned()).or_insert(text);
        }
    }
    Ok(())
}
