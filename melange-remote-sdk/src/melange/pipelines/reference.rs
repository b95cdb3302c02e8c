//! The built-in pipelines for readers, in Markdown.

use std::fmt::Write;

use super::{BuiltinPipeline, builtins};

/// The reference of all built-in pipelines.
pub fn all() -> String {
    let mut text = String::from(
        "# Built-in pipelines\n\nWhat a step can name in `uses:` without a `--pipeline-dir`. A pipeline of a definition's own, or of a folder \
         of pipelines, comes before the built-in one of the same name.\n\n| Pipeline | What it does |\n|---|---|\n",
    );
    for pipeline in builtins() {
        let anchor: String = pipeline.name.to_lowercase().chars().filter(|c| *c != '/').collect();
        text.push_str(&format!("| [`{}`](#{anchor}) | {} |\n", pipeline.name, cell(&pipeline.title)));
    }
    for pipeline in builtins() {
        text.push('\n');
        text.push_str(&of(&pipeline));
    }
    text
}

/// The reference of one pipeline.
pub fn of(pipeline: &BuiltinPipeline) -> String {
    let mut text = format!("## {}\n\n{}.\n", pipeline.name, pipeline.title.trim_end_matches('.'));
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a text does not fail.
        let _ = text.write_fmt(line);
    };
    if !pipeline.needs.is_empty() {
        let needs: Vec<String> = pipeline.needs.iter().map(|need| format!("`{need}`")).collect();
        put(format_args!("\nNeeds the packages {}.", needs.join(", ")));
    }
    put(format_args!("{}\n", if pipeline.network { "\nIts steps may use the network." } else { "" }));
    if pipeline.inputs.is_empty() {
        put(format_args!("\nIt takes no inputs.\n"));
        return text;
    }
    put(format_args!("\n| Input | Default | What it is |\n|---|---|---|\n"));
    for (name, input) in &pipeline.inputs {
        let default = match (input.required, input.default.is_empty()) {
            (true, _) => "required".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!("`{}`", cell(&input.default)),
        };
        put(format_args!("| `{name}` | {default} | {} |\n", cell(&input.description)));
    }
    text
}

/// A text on one line of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
