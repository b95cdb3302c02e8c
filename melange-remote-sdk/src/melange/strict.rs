//! The strict pass over one text: every variable must be known, and mistakes are shown at their place.

use std::sync::Arc;

use super::document::Text;
use super::substitute::{Lookup, SubstituteError, SubstituteErrorKind, Variables, substitute};
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Source, nearest, references};

/// How many names a hint lists.
const KNOWN_SHOWN_MAX: usize = 8;

/// The strict pass over one text; mistakes are reported at their place, and the text is kept as it is.
pub(super) fn substitute_or_report(
    text: &Text,
    variables: &Variables,
    source: &Arc<Source>,
    errors: &mut Vec<Diagnostic>,
) -> String {
    match substitute(text, variables) {
        Ok(value) => value,
        Err(mistakes) => {
            let room = limits::DIAGNOSTICS_MAX.saturating_sub(errors.len());
            errors.extend(
                mistakes.iter().take(room).map(|mistake| variable_error(text, mistake, variables, source)),
            );
            text.value.clone()
        }
    }
}

/// A mistake of the strict pass as a diagnostic at the place of its `${{`.
pub(super) fn variable_error(
    text: &Text,
    mistake: &SubstituteError,
    variables: &impl Lookup,
    source: &Arc<Source>,
) -> Diagnostic {
    let begin = text.value[..mistake.offset].rfind('\n').map_or(0, |newline| newline + 1);
    let written = match &mistake.kind {
        SubstituteErrorKind::Undefined(name) => {
            let before = references(&text.value[..mistake.offset], name).count();
            source.find_reference(text.at, name, before)
        }
        _ => None,
    };
    let at = written.unwrap_or_else(|| {
        let line = text.value[begin..].lines().next().unwrap_or_default();
        source.find_line(text.at, line, mistake.offset - begin)
    });
    let diagnostic = Diagnostic::new(source, at, mistake.to_string());
    match &mistake.kind {
        SubstituteErrorKind::Undefined(name) => match nearest(name, variables.names()) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic.hint(undefined_hint(name, &variables.names())),
        },
        _ => diagnostic.hint("a reference is written `${{name}}`"),
    }
}

/// What to do about a variable that resembles no other.
fn undefined_hint(name: &str, known: &[&str]) -> String {
    let family = name.split_once('.').map_or(name, |(family, _)| family);
    match (family, name) {
        ("range", _) => "there is `range.key` in subpackages with a `range` only".to_owned(),
        ("inputs", _) => "inputs are known inside of the pipeline that declares them only".to_owned(),
        ("subpkg", _) | (_, "targets.subpkgdir") => "it is known in pipelines of subpackages only".to_owned(),
        ("vars", _) => "define it under `vars`, or check its spelling".to_owned(),
        _ => {
            let prefix = format!("{family}.");
            let mut near: Vec<&str> =
                known.iter().copied().filter(|name| name.starts_with(&prefix)).collect();
            near.sort_unstable();
            near.dedup();
            near.truncate(KNOWN_SHOWN_MAX);
            if near.is_empty() {
                return "define it under `vars` and write `vars.` before its name".to_owned();
            }
            format!("known: {}", near.join(", "))
        }
    }
}
