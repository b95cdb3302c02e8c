//! `melange index`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::error::{Error, Result};

use super::signing_key;
use crate::args::{IndexArgs, Output};
use crate::exit::Exit;
use crate::{input, note, out};

pub(super) fn run(args: &IndexArgs, output: Output) -> Result<Exit> {
    if let Some(form @ ("json" | "text")) = args.output.to_str() {
        return Err(Error::invalid("`--output` of `index` is the file of the index").hint(format!(
            "write `melange --output {form} index …` for the form of what is printed, or `./{form}` for a file of that name"
        )));
    }
    let mut index = Index::default();
    let sources = args.source.iter().chain(args.merge.then_some(&args.output).filter(|path| path.exists()));
    for source in sources {
        index.put_all(Index::read(&input::read(source, input::INDEX_BYTES_MAX)?, None)?.packages);
    }
    for path in &args.packages {
        input::open(path)?;
        if args.verify {
            ApkFile::open(path)?;
        }
    }
    let mut packages = Vec::with_capacity(args.packages.len());
    for (path, package) in args.packages.iter().zip(IndexPackage::of_files(&args.packages)?) {
        if args.arch.is_some_and(|arch| arch.apk_name() != package.arch) {
            note::line(&format!("warning: {} is for {} and is skipped", path.display(), package.arch));
            continue;
        }
        packages.push(package);
    }
    index.put_all(packages);
    let key = args.signing_key.as_deref().map(signing_key).transpose()?;
    let bytes = index.write(key.as_ref())?;
    write_whole(&args.output, &bytes)?;
    let (file, packages) = (args.output.display().to_string(), index.packages.len());
    match output {
        Output::Text => out::line(&format!("{file}: {packages} packages"))?,
        Output::Json => out::json(&serde_json::json!({ "file": file, "packages": packages }))?,
    }
    Ok(Exit::Ok)
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    place(path, |file| file.write_all(bytes))
}

/// Makes a file beside its place and puts it there when it is whole.
pub(super) fn place(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let failed = |e| input::failed("write", path, e);
    let folder = input::folder(path);
    let readable = std::fs::Permissions::from_mode(0o666);
    // The mode is what the caller's umask leaves of it.
    let made = tempfile::Builder::new().prefix(".melange-").permissions(readable).tempfile_in(folder);
    let mut file = made.map_err(failed)?;
    fill(file.as_file_mut()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
