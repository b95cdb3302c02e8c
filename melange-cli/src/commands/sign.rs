//! `melange sign` and `melange sign-index`.

use melange_remote_sdk::apk::sign;
use melange_remote_sdk::error::Result;

use super::index::write_whole;
use super::signing_key;
use crate::args::{Output, SignArgs, SignIndexArgs};
use crate::exit::Exit;
use crate::{input, note, out};

pub(super) fn packages(args: &SignArgs, output: Output) -> Result<Exit> {
    let key = signing_key(&args.signing_key)?;
    for path in &args.packages {
        input::open(path)?;
        sign::sign_package(path, &key)?;
        let (file, key) = (path.display().to_string(), key.public_name());
        match output {
            Output::Text => out::line(&format!("{file}: signed, verified by {key}"))?,
            Output::Json => out::json_line(&serde_json::json!({ "file": file, "key": key }))?,
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn index(args: &SignIndexArgs, output: Output) -> Result<Exit> {
    let key = signing_key(&args.signing_key)?;
    let bytes = input::read(&args.index, input::INDEX_BYTES_MAX)?;
    let signed = sign::sign_index(&bytes, &key, args.force)?;
    let (file, name) = (args.index.display().to_string(), key.public_name());
    match &signed {
        Some(signed) => write_whole(&args.index, signed)?,
        None => note::line(&format!("{file} is signed already; `--force` signs it anew")),
    }
    match output {
        Output::Text if signed.is_none() => {}
        Output::Text => out::line(&format!("{file}: signed, verified by {name}"))?,
        Output::Json => {
            out::json(&serde_json::json!({ "file": file, "key": name, "changed": signed.is_some() }))?;
        }
    }
    Ok(Exit::Ok)
}
