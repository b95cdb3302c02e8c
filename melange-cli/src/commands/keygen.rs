//! `melange keygen`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use melange_remote_sdk::apk::signature::{SigningKey, generate_key};
use melange_remote_sdk::error::{Error, Result};

use super::print_line;
use crate::args::KeygenArgs;
use crate::exit::Exit;

pub(super) fn run(args: &KeygenArgs) -> Result<Exit> {
    let name = args.name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let private = generate_key(args.key_size)?;
    let public = SigningKey::from_pem(name, private.as_bytes())?.public_pem()?;
    let public_path = PathBuf::from(format!("{}.pub", args.name.display()));
    for (path, mode, text) in [(&args.name, 0o600, &private), (&public_path, 0o644, &public)] {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(|e| Error::io("create", path, e).hint("an existing key is never overwritten"))?;
        file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e))?;
        print_line(&format!("wrote {}", path.display()));
    }
    Ok(Exit::Ok)
}
