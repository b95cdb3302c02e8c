//! `melange query`: one answer about a definition, by a template; `melange package-version`: the answer asked for most.

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::{self, Compiled};
use melange_remote_sdk::text::diagnostics::Diagnostics;
use serde_json::json;

use super::definition;
use crate::args::{Output, PackageVersionArgs, QueryArgs};
use crate::exit::Exit;
use crate::{out, template};

pub(super) fn run(args: &QueryArgs, output: Output) -> Result<Exit> {
    let (pipelines, mut options) = definition::compiler(&args.definition)?;
    // What the definition says, and nothing else.
    options.defaults = None;
    let source = definition::source(&args.file)?;
    let compiled =
        melange::inspect(&source, args.arch, &pipelines, &options).map_err(Diagnostics::into_error)?;
    let plan = match compiled {
        Compiled::Plan(plan) => plan,
        Compiled::Skipped { reason, .. } => return Err(Error::invalid(reason).hint("give another `--arch`")),
    };
    let data = template::data::of(&plan);
    let text = template::render(&args.template, &data)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    match output {
        Output::Text => out::line(text)?,
        Output::Json => out::json_line(&text)?,
    }
    Ok(Exit::Ok)
}

/// The name of the package and its version with the revision. Scripts that were written for melange take what is printed
/// without an end of line.
pub(super) fn package_version(args: &PackageVersionArgs, output: Output) -> Result<Exit> {
    let (pipelines, options) = definition::compiler(&args.definition)?;
    let source = definition::source(&args.file)?;
    let mut why_not = None;
    // All architectures have one version: the first will do that the definition is for.
    for arch in Arch::all() {
        match melange::inspect(&source, arch, &pipelines, &options).map_err(Diagnostics::into_error)? {
            Compiled::Plan(plan) => {
                let (name, version) = (&plan.package.name, plan.package.full_version());
                match output {
                    Output::Text => out::text(&format!("{name}-{version}"))?,
                    Output::Json => out::json_line(&json!({ "name": name, "version": version }))?,
                }
                return Ok(Exit::Ok);
            }
            Compiled::Skipped { reason, .. } => why_not = Some(reason),
        }
    }
    Err(Error::invalid(why_not.unwrap_or_default()).hint("give it an architecture that there is"))
}
