//! `melange keygen`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use melange_remote_sdk::apk::signature::{SigningKey, generate_key};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use tempfile::NamedTempFile;

use crate::args::{KeygenArgs, Output};
use crate::exit::Exit;
use crate::{input, out};

pub(super) fn run(args: &KeygenArgs, output: Output) -> Result<Exit> {
    let name = args.name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let public_path = PathBuf::from(format!("{}.pub", args.name.display()));
    // Before the work, and without a key that has no other half.
    for path in [&args.name, &public_path] {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
    }
    let private = generate_key(args.key_size)?;
    let public = SigningKey::from_pem(name, private.as_bytes())?.public_pem()?;
    let private_file = written(&args.name, 0o600, &private)?;
    let public_file = written(&public_path, 0o644, &public)?;
    put(private_file, &args.name)?;
    if let Err(error) = put(public_file, &public_path) {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&args.name);
        return Err(error);
    }
    let paths = [args.name.display().to_string(), public_path.display().to_string()];
    match output {
        Output::Text => paths.iter().try_for_each(|path| out::line(&format!("wrote {path}")))?,
        Output::Json => out::json(&serde_json::json!({ "private": paths[0], "public": paths[1] }))?,
    }
    Ok(Exit::Ok)
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display()))
        .hint("an existing key is never overwritten: give another name")
}

/// The whole key in a file beside its place.
fn written(path: &Path, mode: u32, text: &str) -> Result<NamedTempFile> {
    let failed = |e| input::failed("write", path, e);
    let folder = input::folder(path);
    let permissions = std::fs::Permissions::from_mode(mode);
    let made = tempfile::Builder::new().prefix(".melange-").permissions(permissions).tempfile_in(folder);
    let mut file = made.map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}

/// Puts a file in its place unless something is there.
fn put(file: NamedTempFile, path: &Path) -> Result<()> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(input::failed("write", path, error.error)),
    }
}
