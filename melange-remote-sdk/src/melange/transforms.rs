//! Variables before anything is replaced: the `var-transforms` in their order, and circles among `vars`.

use std::collections::BTreeSet;

use regex::Regex;

use super::CompileOptions;
use super::document::Document;
use super::regexes;
use super::strict::substitute_or_report;
use super::substitute::Variables;
use crate::limits;
use crate::text::diagnostics::Diagnostic;

/// Characters of an expression that a message repeats.
const NAMED_CHARS_MAX: usize = 80;
/// Variables of a circle that a message names.
const CIRCLE_SHOWN_MAX: usize = 8;

/// Compiles the expressions of the transforms, each once. `None` when they are beyond a bound: what follows would be
/// wrong, and more of them would cost without telling more.
pub(super) fn compile_patterns(
    document: &Document,
    options: &CompileOptions,
    errors: &mut Vec<Diagnostic>,
) -> Option<Vec<Option<Regex>>> {
    let mut budget = regexes::Budget::default();
    let mut patterns = Vec::with_capacity(document.var_transforms.len().min(limits::VARIABLES_MAX));
    for entry in document.var_transforms.iter().take(limits::VARIABLES_MAX) {
        let place = entry.pattern.at;
        match regexes::compile(&entry.pattern, &mut budget) {
            Ok(pattern) => patterns.push(Some(pattern)),
            Err(regexes::Refusal::Invalid(cause)) => {
                let message = format!("the expression `{}` is not valid: {cause}", shortened(&entry.pattern));
                errors.push(Diagnostic::new(&document.source, place, message));
                patterns.push(None);
            }
            Err(regexes::Refusal::TooLarge(bound)) => {
                let message = format!("the expression `{}` is too large: {bound}", shortened(&entry.pattern));
                let hint = "repeat fewer times, and smaller classes";
                errors.push(Diagnostic::new(&document.source, place, message).hint(hint));
                return None;
            }
        }
        if errors.len() >= limits::DIAGNOSTICS_MAX || options.is_cancelled() {
            return None;
        }
    }
    Some(patterns)
}

/// The beginning of a text that a message names.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(NAMED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Runs the `var-transforms` in order over `variables` and returns what they add.
pub(super) fn transform(
    document: &Document,
    options: &CompileOptions,
    patterns: &[Option<Regex>],
    mut variables: Variables,
    errors: &mut Vec<Diagnostic>,
) -> Variables {
    let mut added = Variables::new();
    let mut budget = regexes::Budget::default();
    for (entry, pattern) in document.var_transforms.iter().zip(patterns) {
        if errors.len() >= limits::DIAGNOSTICS_MAX || options.is_cancelled() {
            break;
        }
        let known = errors.len();
        let name = format!("vars.{}", &*entry.to);
        let from = substitute_or_report(&entry.from, &variables, &document.source, errors);
        // Defined all the same where something is wrong, so that the variable's readers are not at fault.
        let result = match pattern {
            Some(pattern) if errors.len() == known => {
                regexes::replace_all(pattern, &from, &entry.replace, &mut budget)
            }
            _ => Some(String::new()),
        };
        let Some(result) = result else {
            let message = format!(
                "the variable `{name}` has more than {} bytes, or the search for its matches takes too long",
                limits::VARIABLE_BYTES_MAX
            );
            errors.push(Diagnostic::new(&document.source, entry.from.at, message));
            continue;
        };
        variables.insert(name.clone(), result.clone());
        added.insert(name, result);
    }
    added
}

/// Variables whose values lead back to themselves never come to an end.
pub(super) fn refuse_circles(document: &Document, errors: &mut Vec<Diagnostic>) {
    let vars = &document.vars;
    // What a transform makes is not what is written under `vars`.
    let made: BTreeSet<&str> = document.var_transforms.iter().map(|entry| &*entry.to).collect();
    let named = |value: &str| -> Vec<&String> {
        let names = value.split("${{").skip(1).filter_map(|rest| rest.split_once("}}"));
        let names = names.filter_map(|(name, _)| name.trim().strip_prefix("vars."));
        names.filter_map(|name| vars.get_key_value(name).map(|(name, _)| name)).collect()
    };
    let mut seen: BTreeSet<&String> = BTreeSet::new();
    for start in vars.keys() {
        // The way from `start`, each name with the names its value refers to that are not looked at yet.
        let mut way: Vec<(&String, Vec<&String>)> = Vec::new();
        if seen.insert(start) {
            way.push((start, named(&vars[start])));
        }
        while let Some((_, open)) = way.last_mut() {
            let Some(next) = open.pop() else {
                way.pop();
                continue;
            };
            if let Some(first) = way.iter().position(|(name, _)| *name == next) {
                if !made.contains(next.as_str()) && errors.len() < limits::DIAGNOSTICS_MAX {
                    errors.push(circle(document, way[first..].iter().map(|(name, _)| *name), next));
                }
            } else if seen.insert(next) {
                way.push((next, named(&vars[next])));
            }
        }
    }
}

/// The mistake of one circle of variables, told at the first of them.
fn circle<'n>(document: &Document, names: impl Iterator<Item = &'n String>, first: &'n str) -> Diagnostic {
    let way: Vec<&str> = names.map(String::as_str).take(CIRCLE_SHOWN_MAX).chain([first]).collect();
    let message = format!("the variable `{first}` refers to itself ({})", way.join(" → "));
    let place = document.vars.get(first).map_or(document.package.at, |value| value.at);
    Diagnostic::new(&document.source, place, message).hint("give one of them a value of its own").whole()
}
