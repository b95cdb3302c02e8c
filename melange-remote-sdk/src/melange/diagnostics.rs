//! What is wrong with a definition, and where: file, line, column, cause, hint, and the text with a caret.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Error;

/// A place in a source text, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
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

    fn line(&self, line: u32) -> Option<&str> {
        self.text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)
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

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The text that holds it.
    pub source: Arc<Source>,
    /// Where, when it has a place.
    pub at: Option<Position>,
    /// The cause, one sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// How the reader got here, such as the chain of `uses`, innermost first.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(source: &Arc<Source>, at: Position, message: impl Into<String>) -> Self {
        let at = (at.line > 0).then_some(at);
        Self { source: Arc::clone(source), at, message: message.into(), hint: None, notes: Vec::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
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
        writeln!(f, "error: {}", self.message)?;
        if let Some(at) = self.at {
            writeln!(f, "  --> {}:{}:{}", self.source.name, at.line, at.column)?;
            if let Some(line) = self.source.line(at.line) {
                let number = at.line.to_string();
                let margin = " ".repeat(number.len());
                let shown: String =
                    line.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
                let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1).min(200);
                writeln!(f, "{margin} |\n{number} | {shown}\n{margin} | {}^", " ".repeat(before))?;
            }
        } else {
            writeln!(f, "  --> {}", self.source.name)?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
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

/// The candidate nearest to `word`, when one is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
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
            "error: unknown field `nam`\n  --> a.yaml:2:3\n  |\n2 |   nam: x\n  |   ^\n  hint: did you mean `name`?\n"
        );
    }

    #[test]
    fn nearest_accepts_a_typo_and_refuses_a_stranger() {
        assert_eq!(nearest("pipelnie", ["package", "pipeline"]), Some("pipeline"));
        assert_eq!(nearest("xyz", ["package", "pipeline"]), None);
    }
}
