//! `melange pipelines`: what `uses:` can name.

use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::melange::pipelines::{BuiltinPipeline, builtins, reference};
use serde_json::json;

use crate::args::{Output, PipelinesCommand};
use crate::exit::Exit;
use crate::{out, render};

pub(super) fn run(command: PipelinesCommand, output: Output) -> Result<Exit> {
    match (command, output) {
        (PipelinesCommand::List { .. }, Output::Text) => {
            let rows: Vec<[String; 2]> =
                builtins().map(|pipeline| [pipeline.name.to_owned(), pipeline.title]).collect();
            out::text(&render::table(&rows))?;
        }
        (PipelinesCommand::List { .. }, Output::Json) => {
            let all: Vec<_> = builtins().map(|pipeline| as_json(&pipeline)).collect();
            out::json_line(&all)?;
        }
        (PipelinesCommand::Show { name, source, .. }, _) => {
            let pipeline = builtins().find(|pipeline| pipeline.name == name).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("there is no built-in pipeline `{name}`"))
                    .hint("`melange pipelines list` names them")
            })?;
            match output {
                _ if source => out::line(pipeline.text.trim_end())?,
                Output::Text => out::line(reference::of(&pipeline).trim_end())?,
                Output::Json => out::json_line(&as_json(&pipeline))?,
            }
        }
        (PipelinesCommand::Reference, _) => out::line(reference::all().trim_end())?,
    }
    Ok(Exit::Ok)
}

fn as_json(pipeline: &BuiltinPipeline) -> serde_json::Value {
    let inputs: serde_json::Map<String, serde_json::Value> = pipeline
        .inputs
        .iter()
        .map(|(name, input)| {
            let about = json!({
                "description": &*input.description,
                "default": &*input.default,
                "required": input.required,
            });
            (name.clone(), about)
        })
        .collect();
    json!({
        "name": pipeline.name,
        "title": pipeline.title,
        "needs": pipeline.needs,
        "inputs": inputs,
        "network": pipeline.network,
    })
}
