//! What is wrong with a definition, and where: file, line, column, cause, hint, and the text with a caret.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Error;

/// Characters of a word that are compared, and words that are.
const WORD_MAX: usize = 64;
const CANDIDATES_MAX: usize = 2_000;

/// Characters of a line that are shown.
const SHOWN_MAX: usize = 200;

/// How far below a text's beginning a reference in it is looked for.
const REFERENCE_LINES_MAX: usize = 5_000;

/// How far above its value a key is looked for.
const KEY_LINES_MAX: usize = 3;

/// A place in a source text, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Position {
    /// How many bytes of a text are before this place; the end of its line when that is shorter.
    pub(crate) fn offset_in(self, text: &str) -> Option<usize> {
        let index = |number: u32| usize::try_from(number).ok()?.checked_sub(1);
        let before: usize = text.split_inclusive('\n').take(index(self.line)?).map(str::len).sum();
        let line = text[before..].split_inclusive('\n').next()?;
        Some(before + line.chars().take(index(self.column)?).map(char::len_utf8).sum::<usize>())
    }
}

/// A source text with its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// What the text is called: a file name, a pipeline path.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// A named text behind a shared pointer.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into() })
    }

    /// A line, from 1.
    pub(crate) fn line(&self, line: u32) -> Option<&str> {
        self.text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)
    }

    /// The place of the key of a value that begins at `value`.
    pub(crate) fn key_of(&self, value: Position, key: &str) -> Option<Position> {
        let first = usize::try_from(value.line).ok()?;
        let column = usize::try_from(value.column).ok()?;
        (1..=first).rev().take(KEY_LINES_MAX).find_map(|number| {
            let line = self.line(u32::try_from(number).ok()?)?;
            let end = if number == first { column.saturating_sub(1) } else { usize::MAX };
            let head: String = line.chars().take(end).collect();
            let at = head.rfind(&format!("{key}:")).or_else(|| head.rfind(&format!("{key}\":")))?;
            let column = u32::try_from(head[..at].chars().count() + 1).ok()?;
            Some(Position { line: u32::try_from(number).ok()?, column })
        })
    }

    /// How many characters the word, scalar or reference at a place has; 0 where there is none.
    fn length_at(&self, at: Position, whole: bool) -> usize {
        let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
        let Some(line) = self.line(at.line) else { return 0 };
        let Some((start, _)) = line.char_indices().nth(before) else { return 0 };
        let (head, text) = line.split_at(start);
        let end = if text.starts_with("${{") && !whole {
            text.find("}}").map(|end| end + 2)
        } else if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            text[1..].find(quote).map(|end| end + 2)
        } else {
            let opened = head.matches(['[', '{']).count() > head.matches([']', '}']).count();
            let ends = [text.find(": "), text.find(" #"), text.strip_suffix(':').map(str::len)];
            let closed = if opened { text.find([',', ']', '}']) } else { None };
            ends.into_iter().chain([closed]).flatten().min()
        };
        text[..end.unwrap_or(text.len())].trim_end().chars().count()
    }

    /// The place of a reference to the variable `name`, the one behind `before` others, from a place on.
    pub(crate) fn find_reference(&self, from: Position, name: &str, before: usize) -> Option<Position> {
        let first = usize::try_from(from.line).ok()?.checked_sub(1)?;
        let mut left = before;
        for (index, line) in self.text.lines().enumerate().skip(first).take(REFERENCE_LINES_MAX) {
            let start = if index == first { usize::try_from(from.column).ok()?.saturating_sub(1) } else { 0 };
            let skipped = line.char_indices().nth(start).map_or(line.len(), |(at, _)| at);
            for at in references(&line[skipped..], name) {
                if left == 0 {
                    let column = line[..skipped + at].chars().count() + 1;
                    return Some(Position {
                        line: u32::try_from(index + 1).ok()?,
                        column: u32::try_from(column).ok()?,
                    });
                }
                left -= 1;
            }
        }
        None
    }

    /// The place of byte `offset` of `line`, one line of a text that begins at `from`: a source line that ends
    /// with it is preferred to one that merely holds it; without either it is `from` itself.
    pub(crate) fn find_line(&self, from: Position, line: &str, offset: usize) -> Position {
        let line = line.trim_end();
        let first = usize::try_from(from.line).unwrap_or(1).saturating_sub(1);
        let lines = || self.text.lines().enumerate().skip(first);
        let ending = lines().find_map(|(number, text)| {
            let text = text.trim_end();
            text.ends_with(line).then(|| (number, text, text.len() - line.len()))
        });
        let found =
            ending.or_else(|| lines().find_map(|(number, text)| Some((number, text, text.find(line)?))));
        match found {
            Some((number, text, start)) if !line.is_empty() => {
                let column = text[..start + offset.min(line.len())].chars().count() + 1;
                Position {
                    line: u32::try_from(number + 1).unwrap_or(u32::MAX),
                    column: u32::try_from(column).unwrap_or(u32::MAX),
                }
            }
            _ => from,
        }
    }
}

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Severity {
    /// The definition cannot be built.
    #[default]
    Error,
    /// The definition can be built, and probably does not mean what it says.
    Warning,
}

impl Severity {
    /// The word that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Something that belongs to a diagnostic and stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One sentence without a full stop.
    pub message: String,
    /// The text that it is about.
    pub source: Arc<Source>,
    /// Where.
    pub at: Position,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// The text that holds it.
    pub source: Arc<Source>,
    /// Where, when it has a place.
    pub at: Option<Position>,
    /// Whether it is about the whole scalar that begins there, not about a reference in it.
    pub whole: bool,
    /// The cause, one sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// How the reader got here, such as the chain of `uses`, innermost first.
    pub notes: Vec<Note>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(source: &Arc<Source>, at: Position, message: impl Into<String>) -> Self {
        let at = (at.line > 0).then_some(at);
        let (source, message) = (Arc::clone(source), message.into());
        Self { severity: Severity::Error, source, at, whole: false, message, hint: None, notes: Vec::new() }
    }

    /// The same about the whole scalar at its place.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// How many characters it is about; at least one.
    pub fn length(&self) -> usize {
        self.at.map_or(1, |at| self.source.length_at(at, self.whole)).max(1)
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The variable whose definition is missing, when that is the mistake.
    pub(crate) fn undefined_variable(&self) -> Option<&str> {
        self.message.strip_prefix("the variable `")?.strip_suffix("` is not defined")
    }

    /// The line that it is about.
    pub fn source_line(&self) -> Option<&str> {
        self.source.line(self.at?.line)
    }

    /// `file:line:column: message`, on one line.
    pub fn summary(&self) -> String {
        match self.at {
            Some(at) => format!("{}:{}:{}: {}", self.source.name, at.line, at.column, self.message),
            None => format!("{}: {}", self.source.name, self.message),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity.name(), self.message)?;
        if let Some(at) = self.at {
            writeln!(f, "  --> {}:{}:{}", self.source.name, at.line, at.column)?;
            if let Some(line) = self.source.line(at.line) {
                let number = at.line.to_string();
                let margin = " ".repeat(number.len());
                let shown: String =
                    line.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
                let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1).min(SHOWN_MAX);
                let marked = self.length().min(SHOWN_MAX.saturating_sub(before).max(1));
                let (blank, carets) = (" ".repeat(before), "^".repeat(marked));
                writeln!(f, "{margin} |\n{number} | {shown}\n{margin} | {blank}{carets}")?;
            }
        } else {
            writeln!(f, "  --> {}", self.source.name)?;
        }
        for Note { message, source, at } in &self.notes {
            writeln!(f, "  note: {message} at {}:{}:{}", source.name, at.line, at.column)?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All mistakes found in one run; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The list as one error of kind `InvalidRequest`: its message is the first mistake's summary.
    pub fn into_error(self) -> Error {
        let first = self.0.first().map_or_else(|| "invalid definition".to_owned(), Diagnostic::summary);
        let hint = self.0.first().and_then(|diagnostic| diagnostic.hint.clone());
        let error = Error::invalid(first);
        let error = if let Some(hint) = hint { error.hint(hint) } else { error };
        error.source(self)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Where `text` refers to the variable `name`, in bytes.
pub(crate) fn references<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices("${{").map(|(at, _)| at).filter(move |at| {
        let rest = text[at + 3..].trim_start_matches([' ', '\t']);
        rest.strip_prefix(name).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with("}}"))
    })
}

/// The candidate nearest to `word`, when one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().take(WORD_MAX).count();
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| {
            let other = candidate.chars().take(WORD_MAX).count();
            other.abs_diff(length) <= 1 + other / 4
        })
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance of the beginnings: insertions, deletions, substitutions and swaps of
/// neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(beginning(a), beginning(b))
}

/// What of a word is compared; the distance takes the product of both lengths.
fn beginning(word: &str) -> &str {
    word.char_indices().nth(WORD_MAX).map_or(word, |(end, _)| &word[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_with_a_caret() {
        let source = Source::new("a.yaml", "package:\n  nam: x\n");
        let text = Diagnostic::new(&source, Position { line: 2, column: 3 }, "unknown field `nam`")
            .hint("did you mean `name`?")
            .to_string();
        assert_eq!(
            text,
            "error: unknown field `nam`\n  --> a.yaml:2:3\n  |\n2 |   nam: x\n  |   ^^^\n  hint: did you mean `name`?\n"
        );
    }

    #[test]
    fn nearest_accepts_a_typo_and_refuses_a_stranger() {
        assert_eq!(nearest("pipelnie", ["package", "pipeline"]), Some("pipeline"));
        assert_eq!(nearest("xyz", ["package", "pipeline"]), None);
    }
}
