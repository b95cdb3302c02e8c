//! `melange compile`: what would be built, without building.

use std::path::Path;

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::emit::{CompiledObject, compiled_definition};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::text::diagnostics::Diagnostics;
use serde::Serialize;

use super::definition;
use crate::args::{CompileArgs, Output};
use crate::exit::{self, Exit};
use crate::{input, note, out};

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

pub(super) fn run(args: &CompileArgs, output: Output) -> Result<Exit> {
    let (pipelines, mut options) = definition::compiler(&args.definition)?;
    // What melange compiles is shown; builds and lint refuse versions that apk cannot compare, and scripts that no shell
    // can read.
    (options.any_version, options.any_script) = (true, true);
    let files = definition::files(&args.files)?;
    // `--format` is about the results only, `--message-format` about the mistakes only.
    let complaints = args.output.output.unwrap_or_default();
    let mut exit = Exit::Ok;
    definition::for_each(
        &files,
        |file| compile(file, args, output, &pipelines, &options),
        |file, result| {
            match result {
                Ok(text) => out::text(&text)?,
                Err(error) => {
                    exit = exit.and(exit::code_of(&error));
                    match (args.message_format, exit::mistakes(&error)) {
                        (Some(Output::Json), Some(Diagnostics(found))) => {
                            note::text(&definition::messages(Output::Json, &input::name(file), found));
                        }
                        (form, _) => note::error(&error, form.unwrap_or(complaints)),
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(exit)
}

fn compile(
    file: &Path,
    args: &CompileArgs,
    output: Output,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<String> {
    let source = definition::source(file)?;
    let compiled =
        melange::compile(&source, args.arch, pipelines, options).map_err(Diagnostics::into_error)?;
    let (skipped, plan) = match &compiled {
        Compiled::Plan(plan) => (None, Some(plan)),
        Compiled::Skipped { reason, .. } => (Some(reason.as_str()), None),
    };
    let definition = plan.map(|plan| compiled_definition(plan));
    let wrong =
        |error: &dyn std::fmt::Display| Error::unexpected(format!("cannot write {}: {error}", source.name));
    match output {
        Output::Json => {
            let definition = definition.map(CompiledObject::from);
            let printed = Printed { file: &source.name, arch: args.arch.apk_name(), skipped, definition };
            serde_json::to_string(&printed).map(|text| text + "\n").map_err(|e| wrong(&e))
        }
        Output::Text => match (definition, skipped) {
            (Some(definition), _) => {
                melange::emit::yaml(&definition).map(|text| format!("---\n{text}")).map_err(|e| wrong(&e))
            }
            (None, reason) => Ok(format!("---\n# {}: {}\n", source.name, reason.unwrap_or_default())),
        },
    }
}
