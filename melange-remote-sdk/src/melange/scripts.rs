//! Scripts of steps and scriptlets that no shell can read, told at their place in the definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::document::{Document, Step, Text};
use super::substitute::{Lookup, Variables, substitute};
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Position, Source};
use crate::text::shell::{self, ShellMistake};

/// Places whose mistakes are told: the same pipeline may be used by many steps.
#[derive(Default)]
pub(super) struct Told(BTreeSet<(String, Option<Position>)>);

impl Told {
    /// The mistake, unless its place was told already.
    pub(super) fn once(&mut self, mistake: Diagnostic) -> Option<Diagnostic> {
        self.0.insert((mistake.source.name.clone(), mistake.at)).then_some(mistake)
    }
}

/// What no shell can read in `script`, which is `written` with its variables replaced.
pub(super) fn mistake(
    script: &str,
    written: &Text,
    source: &Arc<Source>,
    variables: &impl Lookup,
) -> Option<Diagnostic> {
    if !shell::is_shell(script) {
        return None;
    }
    let mistake = shell::check(script).err()?;
    let at = place(&mistake, script, written, source, variables);
    let message = format!("no shell can read this: {}", mistake.message);
    Some(Diagnostic::new(source, at, message).hint(mistake.hint).whole())
}

/// The scriptlets of all packages that no shell can read.
pub(super) fn scriptlets(document: &Document, errors: &mut Vec<Diagnostic>) {
    let none = Variables::new();
    let all = document.subpackages.iter().map(|sub| &sub.scriptlets);
    for scriptlets in std::iter::once(&document.package.scriptlets).chain(all) {
        for text in scriptlets.scripts() {
            if errors.len() < limits::DIAGNOSTICS_MAX {
                errors.extend(mistake(text, text, &document.source, &none));
            }
        }
    }
}

/// A pipeline that runs nothing and needs nothing, which a misspelt field makes of it.
pub(super) fn idle(name: &str, definition: &Step, source: &Arc<Source>) -> Option<Diagnostic> {
    let has_steps = definition.pipeline.as_ref().is_some_and(|steps| !steps.is_empty());
    if has_steps || !definition.runs.is_empty() || definition.needs.is_some() {
        return None;
    }
    let at = if definition.at.line > 0 { definition.at } else { Position { line: 1, column: 1 } };
    let message = format!("the pipeline `{name}` runs nothing");
    let hint = "give it `runs:`, or steps under `pipeline:`; fields of other names are passed over";
    Some(Diagnostic::new(source, at, message).hint(hint))
}

/// Where a line of the script stands in the source.
fn place(
    mistake: &ShellMistake,
    script: &str,
    written: &Text,
    source: &Arc<Source>,
    variables: &impl Lookup,
) -> Position {
    let mut before = 0;
    let mut found = (0, written.value.as_str(), false);
    for (index, line) in written.value.split('\n').enumerate() {
        let replaced = substitute(line, variables);
        let lines = replaced.as_deref().unwrap_or(line).matches('\n').count() + 1;
        found = (index, line, replaced.as_deref().is_ok_and(|replaced| replaced == line));
        before += lines;
        if before >= mistake.line {
            break;
        }
    }
    let (index, line, is_same) = found;
    let own = script.split('\n').nth(mistake.line - 1).unwrap_or_default();
    let blanks = line.len() - line.trim_start().len();
    let column = own.char_indices().nth(mistake.column - 1).map_or(own.len(), |(at, _)| at);
    let offset = if is_same && own == line { column.max(blanks) } else { blanks };
    // The text of a literal block begins below its sign.
    let first = usize::try_from(written.at.line).unwrap_or_default();
    for number in [first + 1 + index, first + index] {
        let number = u32::try_from(number).unwrap_or_default();
        let Some(text) = source.line(number).filter(|_| !line.trim().is_empty()) else { continue };
        if let Some(indent) = text.trim_end().strip_suffix(line.trim_end())
            && indent.bytes().all(|byte| byte == b' ')
        {
            let head = line.get(..offset).unwrap_or_default();
            let column = u32::try_from(indent.len() + head.chars().count() + 1).unwrap_or(u32::MAX);
            return Position { line: number, column };
        }
    }
    source.find_line(written.at, line, offset)
}
