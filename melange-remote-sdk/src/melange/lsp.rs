//! Diagnostics in the form of the Language Server Protocol (version 3.17, `PublishDiagnosticsParams`): lines and
//! columns from 0, columns in UTF-16 code units, the hint under `data`.

use serde::Serialize;

use crate::text::diagnostics::{Diagnostic, Position, Severity, Source};

/// The diagnostics of one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDiagnostics {
    /// The text's name, as the caller gave it.
    pub uri: String,
    /// Its diagnostics; empty when there is nothing to say.
    pub diagnostics: Vec<LspDiagnostic>,
}

/// One diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LspDiagnostic {
    /// What it is about.
    pub range: Range,
    /// 1 for an error, 2 for a warning.
    pub severity: u8,
    /// Always `melange`.
    pub source: &'static str,
    /// The cause.
    pub message: String,
    /// What to do, and the whole as people read it.
    pub data: Data,
    /// Places that belong to it, such as the chain of `uses`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related_information: Vec<Related>,
}

/// What the protocol has no field for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Data {
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The diagnostic as people read it, with its line and a caret.
    pub rendered: String,
}

/// A place that belongs to a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    pub location: Location,
    /// What is there.
    pub message: String,
}

/// A range of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The text's name.
    pub uri: String,
    /// Which part of it.
    pub range: Range,
}

/// A range, its end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Where it begins.
    pub start: Point,
    /// Where it ends.
    pub end: Point,
}

/// A place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The line, from 0.
    pub line: u32,
    /// UTF-16 code units before it in its line.
    pub character: u32,
}

/// The diagnostics by the texts that they are in, `main` first, also when there is nothing to say of it.
pub fn by_file(main: &str, diagnostics: &[Diagnostic]) -> Vec<FileDiagnostics> {
    let mut files = vec![FileDiagnostics { uri: main.to_owned(), diagnostics: Vec::new() }];
    for diagnostic in diagnostics {
        let converted = convert(diagnostic);
        let name = &diagnostic.source.name;
        match files.iter_mut().find(|file| file.uri == *name) {
            Some(file) => file.diagnostics.push(converted),
            None => files.push(FileDiagnostics { uri: name.clone(), diagnostics: vec![converted] }),
        }
    }
    files
}

fn convert(diagnostic: &Diagnostic) -> LspDiagnostic {
    let at = diagnostic.at.unwrap_or(Position { line: 1, column: 1 });
    LspDiagnostic {
        range: range(&diagnostic.source, at, diagnostic.length()),
        severity: if diagnostic.severity == Severity::Error { 1 } else { 2 },
        source: "melange",
        message: diagnostic.message.clone(),
        data: Data { hint: diagnostic.hint.clone(), rendered: diagnostic.to_string() },
        related_information: diagnostic
            .notes
            .iter()
            .map(|note| Related {
                location: Location { uri: note.source.name.clone(), range: range(&note.source, note.at, 1) },
                message: note.message.clone(),
            })
            .collect(),
    }
}

fn range(source: &Source, at: Position, characters: usize) -> Range {
    let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
    let line = source.line(at.line).unwrap_or_default();
    let units = |count: usize| {
        let known: usize = line.chars().take(count).map(char::len_utf16).sum();
        // Columns behind the end, such as that of an empty line.
        let more = count.saturating_sub(line.chars().count());
        u32::try_from(known + more).unwrap_or(u32::MAX)
    };
    let point = |count: usize| Point { line: at.line.saturating_sub(1), character: units(count) };
    Range { start: point(before), end: point(before + characters) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_utf_16_and_files_are_apart() {
        let main = Source::new("a.yaml", "description: \u{1f600} ${{vars.x}}\n");
        let other = Source::new("b.yaml", "x: y\n");
        let diagnostics = [
            Diagnostic::new(&main, Position { line: 1, column: 16 }, "m").hint("h"),
            Diagnostic::new(&other, Position { line: 1, column: 4 }, "n").warning(),
        ];
        let files = by_file("a.yaml", &diagnostics);
        assert_eq!(files.len(), 2);
        let first = &files[0].diagnostics[0];
        assert_eq!((first.range.start.character, first.range.end.character), (16, 27));
        assert_eq!((first.severity, first.data.hint.as_deref()), (1, Some("h")));
        assert_eq!(files[1].diagnostics[0].severity, 2);
        assert_eq!(
            by_file("a.yaml", &[]),
            [FileDiagnostics { uri: "a.yaml".to_owned(), diagnostics: vec![] }]
        );
    }
}
