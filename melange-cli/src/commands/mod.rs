//! One file a verb; every verb returns how it ended.

use std::collections::BTreeMap;
use std::path::Path;

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::document::schema;

use crate::args::{Args, Command};
use crate::exit::Exit;

mod apk;
mod build;
mod compile;
mod definition;
mod index;
mod keygen;
mod lint;
mod local;
mod pipelines;
mod query;
mod remote;
mod test;

/// Runs the verb.
pub(crate) async fn run(args: Args) -> Result<Exit> {
    match args.command {
        Command::Remote { command } => remote::run(command).await,
        Command::Build(args) => build::run(args).await,
        Command::Compile(args) => compile::run(&args),
        Command::Test(args) => test::run(args).await,
        Command::Query(args) => query::run(&args),
        Command::Schema { pipeline } => {
            let schema = if pipeline { schema::pipeline() } else { schema::definition() };
            print_line(&format!("{schema:#}"));
            Ok(Exit::Ok)
        }
        Command::Pipelines { command } => pipelines::run(command),
        Command::Lint(args) => lint::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Index(args) => index::run(&args),
        Command::Apk { command } => apk::run(command).await,
        Command::Completions { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "melange", &mut std::io::stdout());
            Ok(Exit::Ok)
        }
    }
}

/// Messages of the SDK go to standard error.
pub(crate) fn init_logging(verbose: bool) {
    let level = if verbose { "debug" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::new(format!("melange={level},melange_remote_sdk={level}"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}

/// Prints one line of a result; a closed pipe ends the command quietly.
pub(crate) fn print_line(line: &str) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Reads a file that the caller named.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", path, e))
}

/// Reads the signing key in a file.
pub(crate) fn signing_key(path: &Path) -> Result<melange_remote_sdk::apk::signature::SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    melange_remote_sdk::apk::signature::SigningKey::from_pem(name, &read(path)?)
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
    for entry in std::fs::read_dir(&here).map_err(|e| Error::io("list", &here, e))? {
        let entry = entry.map_err(|e| Error::io("list", &here, e))?;
        let name = below.join(entry.file_name());
        if entry.path().is_dir() {
            collect_folder(folder, &name, pipelines)?;
        } else if name.extension().is_some_and(|extension| extension == "yaml") {
            let text =
                std::fs::read_to_string(entry.path()).map_err(|e| Error::io("read", &entry.path(), e))?;
            pipelines.entry(name.to_string_lossy().into_owned()).or_insert(text);
        }
    }
    Ok(())
}
