//! Go's template language, as far as people use it with `melange query`: fields and methods, variables, pipelines,
//! `if`, `else if`, `with`, `range`, `break`, `continue`, the comparisons and the functions that make text.
//!
//! ```text
//! template ─ parse ─▶ nodes ─ eval ─▶ text
//! definition ─ data ─▶ values that know the fields they may have
//! ```

use melange_remote_sdk::error::{Error, Result};

pub(crate) mod data;
mod eval;
mod functions;
mod parse;
mod value;

pub(crate) use value::Value;

/// The deepest nesting of blocks and parentheses.
const DEPTH_MAX: usize = 64;
/// The largest result.
const RESULT_BYTES_MAX: usize = 64 << 20;
/// How many parts of a template are looked at: loops inside of loops come to an end within seconds.
const STEPS_MAX: usize = 20_000_000;

/// Renders `template` over `root`.
///
/// # Errors
/// `InvalidRequest` with the column: what is not understood, fields that are not there, results without bound.
pub(crate) fn render(template: &str, root: &Value) -> Result<String> {
    let nodes = parse::parse(template)?;
    eval::Machine::new(template, root).render(&nodes)
}

fn wrong(template: &str, at: usize, message: impl std::fmt::Display) -> Error {
    let column = template.get(..at).unwrap_or(template).chars().count() + 1;
    Error::invalid(format!("the template, column {column}: {message}"))
        .hint("write fields as `{{.Package.Version}}`, lists as `{{range .Subpackages}}{{.Name}}{{end}}`")
}

#[cfg(test)]
mod tests;
