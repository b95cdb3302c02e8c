//! Reads files of operators strictly: fields that nobody knows are mistakes, and every mistake has its place.

use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics, Position, Source, nearest};
use super::yaml::{Key, Node, Value};
use crate::error::Error;

/// Reads the nodes of a file and collects what is wrong with them.
pub(crate) struct StrictReader<'a> {
    source: &'a Arc<Source>,
    mistakes: Vec<Diagnostic>,
}

impl<'a> StrictReader<'a> {
    pub(crate) fn new(source: &'a Arc<Source>) -> Self {
        Self { source, mistakes: Vec::new() }
    }

    /// How many mistakes there are so far.
    pub(crate) fn mistakes(&self) -> usize {
        self.mistakes.len()
    }

    /// Notes a mistake; its hint may be added.
    pub(crate) fn mistake(&mut self, at: Position, message: impl Into<String>) -> &mut Diagnostic {
        let index = self.mistakes.len();
        self.mistakes.push(Diagnostic::new(self.source, at, message));
        &mut self.mistakes[index]
    }

    /// Notes an error as a mistake, with its hint.
    pub(crate) fn error(&mut self, at: Position, error: &Error) {
        let hint = error.hint_text().map(str::to_owned);
        self.mistake(at, error.to_string()).hint = hint;
    }

    /// The entries of a map, whatever their keys are.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node) -> &'n [(Key, Node)] {
        if let Value::Map(entries) = &node.value {
            return entries;
        }
        self.mistake(node.at, format!("expected a map, found {}", node.kind()));
        &[]
    }

    /// The entries of a map whose keys are all in `known`.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, known: &[&'static str]) -> &'n [(Key, Node)] {
        let entries = self.entries(node);
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known fields: {}", known.join(", ")),
            };
            self.mistake(key.at, format!("unknown field `{}`", key.text)).hint = Some(hint);
        }
        entries
    }

    /// The text of a scalar.
    pub(crate) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let text = node.scalar();
        if text.is_none() {
            self.mistake(node.at, format!("expected a scalar, found {}", node.kind()));
        }
        text
    }

    /// What was read, unless there were mistakes; these are told in the order of their places.
    ///
    /// # Errors
    /// Every mistake.
    pub(crate) fn finish<T>(mut self, read: T) -> Result<T, Diagnostics> {
        if self.mistakes.is_empty() {
            return Ok(read);
        }
        self.mistakes.sort_by_key(|mistake| mistake.at);
        Err(Diagnostics(self.mistakes))
    }
}

/// The value of a field; one that is null counts as missing.
pub(crate) fn find<'n>(entries: &'n [(Key, Node)], name: &str) -> Option<&'n Node> {
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node).filter(|node| !node.is_null())
}
