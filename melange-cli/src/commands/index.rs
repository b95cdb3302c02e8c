//! `melange index`.

use std::io::Write;

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::error::{Error, Result};

use super::{print_line, read, signing_key};
use crate::args::IndexArgs;
use crate::exit::Exit;

pub(super) fn run(args: &IndexArgs) -> Result<Exit> {
    let mut index = Index::default();
    let sources = args.source.iter().chain(args.merge.then_some(&args.output).filter(|path| path.exists()));
    for source in sources {
        for package in Index::read(&read(source)?, None)?.packages {
            index.put(package);
        }
    }
    for path in &args.packages {
        let apk = ApkFile::open(path)?;
        if args.arch.is_some_and(|arch| arch.apk_name() != apk.info.arch) {
            eprintln!("warning: {} is for {} and is skipped", path.display(), apk.info.arch);
            continue;
        }
        index.put(IndexPackage::from_apk(&apk));
    }
    let key = args.signing_key.as_deref().map(signing_key).transpose()?;
    let bytes = index.write(key.as_ref())?;
    write_whole(&args.output, &bytes)?;
    print_line(&format!("{}: {} packages", args.output.display(), index.packages.len()));
    Ok(Exit::Ok)
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(failed)
}
