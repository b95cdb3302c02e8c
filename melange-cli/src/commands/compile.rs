//! `melange compile`: what would be built, without building.

use std::io::Write;
use std::path::Path;

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::emit::{CompiledObject, compiled_definition};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::text::diagnostics::Diagnostics;
use serde::Serialize;

use super::definition;
use crate::args::{CompileArgs, CompileFormat};
use crate::exit::Exit;

/// What is printed of one file.
#[derive(Serialize)]
struct Printed<'a> {
    file: &'a str,
    arch: &'a str,
    /// Why there is nothing to build, or `null`.
    skipped: Option<&'a str>,
    #[serde(flatten)]
    definition: Option<CompiledObject<'a>>,
}

pub(super) fn run(args: &CompileArgs) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let files = definition::files(&args.files)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut exit = Exit::Ok;
    definition::for_each(
        &files,
        |file| compile(file, args, &pipelines, &options),
        |file, result| {
            match result {
                Ok(text) if out.write_all(text.as_bytes()).is_err() => std::process::exit(0),
                Ok(_) => {}
                Err(error) => {
                    if out.flush().is_err() {
                        std::process::exit(0);
                    }
                    exit = Exit::Failed;
                    eprint!("{}", definition::complaint(args.message_format, file, &error));
                }
            }
            Ok(())
        },
    )?;
    out.flush().map_err(|e| Error::io("write to", Path::new("standard output"), e))?;
    Ok(exit)
}

fn compile(
    file: &Path,
    args: &CompileArgs,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<String> {
    let source = definition::source(file)?;
    let compiled =
        melange::compile(&source, args.arch, pipelines, options).map_err(Diagnostics::into_error)?;
    let (skipped, plan) = match &compiled {
        Compiled::Plan(plan) => (None, Some(plan)),
        Compiled::Skipped(reason) => (Some(reason.as_str()), None),
    };
    let definition = plan.map(|plan| compiled_definition(plan));
    let wrong =
        |error: &dyn std::fmt::Display| Error::unexpected(format!("cannot write {}: {error}", source.name));
    match args.format {
        CompileFormat::Json => {
            let definition = definition.map(CompiledObject::from);
            let printed = Printed { file: &source.name, arch: args.arch.apk_name(), skipped, definition };
            serde_json::to_string(&printed).map(|text| text + "\n").map_err(|e| wrong(&e))
        }
        CompileFormat::Yaml => match (definition, skipped) {
            (Some(definition), _) => {
                melange::emit::yaml(&definition).map(|text| format!("---\n{text}")).map_err(|e| wrong(&e))
            }
            (None, reason) => Ok(format!("---\n# {}: {}\n", source.name, reason.unwrap_or_default())),
        },
    }
}
