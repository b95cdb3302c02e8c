//! `melange build`: one definition, on this machine.

use std::path::Path;
use std::sync::Arc;

use melange_remote_sdk::builder::{BuildInput, BuildOutcome, BuildStatus, Builder};
use melange_remote_sdk::error::{Error, Result};

use super::local::{self, Extras, Printer};
use super::{print_line, signing_key};
use crate::args::BuildArgs;
use crate::exit::Exit;

pub(super) async fn run(args: BuildArgs) -> Result<Exit> {
    let extras = Extras {
        signing_key: args.signing_key.as_deref().map(signing_key).transpose()?,
        epoch_seconds: args.source_date_epoch,
        packages: args.package_append.clone(),
    };
    let builder = local::builder(&args.run, extras)?;
    let input = BuildInput { with_test: args.test, ..local::input(&args.file, &args.run)? };
    let outcome = builder.build(&input, Arc::new(Printer), local::cancelled_by_signals()).await?;
    match local::exit_of(&outcome)? {
        Exit::Ok => finish(&args, &outcome),
        other => Ok(other),
    }
}

fn finish(args: &BuildArgs, outcome: &BuildOutcome) -> Result<Exit> {
    if outcome.status != BuildStatus::Succeeded {
        return Ok(Exit::Ok);
    }
    for file in &outcome.files {
        let path = args.out_dir.join(&file.name);
        let folder = path.parent().unwrap_or(&args.out_dir);
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        if file.name.ends_with("/APKINDEX.tar.gz") && path.exists() {
            merge_index(args, &file.path, &path)?;
        } else {
            super::index::write_whole(&path, &super::read(&file.path)?)?;
        }
        print_line(&path.display().to_string());
    }
    local::print_times(outcome);
    Ok(Exit::Ok)
}

/// Adds the new packages to the index that is there.
fn merge_index(args: &BuildArgs, new: &Path, path: &Path) -> Result<()> {
    use melange_remote_sdk::apk::index::Index;
    let mut index = Index::read(&super::read(path)?, None)?;
    for package in Index::read(&super::read(new)?, None)?.packages {
        index.put(package);
    }
    let key = args.signing_key.as_deref().map(signing_key).transpose()?;
    super::index::write_whole(path, &index.write(key.as_ref())?)
}
