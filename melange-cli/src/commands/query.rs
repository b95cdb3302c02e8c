//! `melange query`: one answer about a definition, by a template.

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::emit::compiled_definition;
use melange_remote_sdk::melange::{self, Compiled};
use melange_remote_sdk::text::diagnostics::Diagnostics;

use super::definition;
use crate::args::{Output, QueryArgs};
use crate::exit::Exit;
use crate::{out, template};

pub(super) fn run(args: &QueryArgs, output: Output) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let source = definition::source(&args.file)?;
    let compiled =
        melange::inspect(&source, args.arch, &pipelines, &options).map_err(Diagnostics::into_error)?;
    let plan = match compiled {
        Compiled::Plan(plan) => plan,
        Compiled::Skipped { reason, .. } => return Err(Error::invalid(reason).hint("give another `--arch`")),
    };
    let mut data = serde_json::to_value(compiled_definition(&plan))
        .map_err(|e| Error::unexpected("cannot read the definition").source(e))?;
    let version = plan.package.full_version();
    if let Some(package) = data.get_mut("package") {
        package["full-version"] = version.into();
    }
    let text = template::render(&args.template, &data)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    match output {
        Output::Text => out::line(text)?,
        Output::Json => out::json_line(&text)?,
    }
    Ok(Exit::Ok)
}
