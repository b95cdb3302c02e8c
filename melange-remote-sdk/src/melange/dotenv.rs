//! Files of environment variables: `KEY=value` or `KEY: value` a line, with an optional `export`, comments, quotes
//! and references to earlier keys of the same file. The syntax is that of github.com/joho/godotenv: a reference is `$KEY`
//! or `${KEY}` in capital letters, everything else with a dollar stays; `\\$` is a dollar.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};

/// Reads a file; a later line of the same key wins.
///
/// # Errors
/// Every line that is none of this, with its place; values without bound.
pub(super) fn parse(source: &Arc<Source>) -> Result<BTreeMap<String, String>, Diagnostics> {
    let mut reader = Reader { source, rest: &source.text, line: 1, known: BTreeMap::new() };
    let mut mistakes = Vec::new();
    while !reader.rest.is_empty() && mistakes.len() < limits::DIAGNOSTICS_MAX {
        if let Err(mistake) = reader.entry() {
            mistakes.push(mistake);
            reader.skip_line();
        }
    }
    if mistakes.is_empty() { Ok(reader.known) } else { Err(Diagnostics(mistakes)) }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    rest: &'a str,
    line: u32,
    known: BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    fn error(&self, message: String, hint: &str) -> Diagnostic {
        Diagnostic::new(self.source, Position { line: self.line, column: 1 }, message).hint(hint)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += u32::try_from(taken.matches('\n').count()).unwrap_or_default();
        self.rest = rest;
        taken
    }

    fn skip_line(&mut self) {
        let end = self.rest.find('\n').map_or(self.rest.len(), |newline| newline + 1);
        self.take(end);
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
    }

    /// One line, or several where a quoted value holds them.
    fn entry(&mut self) -> Result<(), Diagnostic> {
        self.skip_blanks();
        if self.rest.is_empty() || self.rest.starts_with(['#', '\n']) {
            self.skip_line();
            return Ok(());
        }
        if let Some(rest) = self.rest.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
            self.rest = rest;
            self.skip_blanks();
        }
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let end = self.rest.find(|c: char| !is_key(c)).unwrap_or(self.rest.len());
        let key = &self.rest[..end];
        let hint = "write `KEY=value` or `KEY: value`";
        if key.is_empty() {
            return Err(self.error("this line names no variable".to_owned(), hint));
        }
        self.rest = &self.rest[end..];
        self.skip_blanks();
        let Some(rest) = self.rest.strip_prefix(['=', ':']) else {
            return Err(self.error(format!("`{key}` has neither `=` nor `:` behind it"), hint));
        };
        self.rest = rest;
        self.skip_blanks();
        let value = match self.rest.chars().next() {
            Some('\'') => self.quoted('\'')?.to_owned(),
            Some('"') => {
                let inner = self.quoted('"')?;
                self.expand(inner, true)
            }
            _ => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let line = self.take(end);
                let comment = line.find(" #").or_else(|| line.find("\t#"));
                let bare = if line.starts_with('#') { "" } else { &line[..comment.unwrap_or(line.len())] };
                self.expand(bare.trim(), false)
            }
        };
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let behind = self.rest[..end].trim();
        if !behind.is_empty() && !behind.starts_with('#') {
            let hint = "put the whole value between the quotes, or write a comment with `#`";
            return Err(self.error(format!("`{behind}` stands behind the value of `{key}`"), hint));
        }
        if value.len() > limits::VARIABLE_BYTES_MAX || self.known.len() > limits::VARIABLES_MAX {
            let message = format!(
                "`{key}` is beyond the {} variables of at most {} bytes that a file may have",
                limits::VARIABLES_MAX,
                limits::VARIABLE_BYTES_MAX
            );
            return Err(self.error(message, "use fewer or shorter values"));
        }
        self.known.insert(key.to_owned(), value);
        self.skip_line();
        Ok(())
    }

    /// What stands between two quotes; a backslash keeps a double quote from ending it.
    fn quoted(&mut self, quote: char) -> Result<&'a str, Diagnostic> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && quote == '"' && !escaped;
            ends
        });
        let Some(end) = end else {
            return Err(self.error(format!("the quote {quote} is not closed"), "close it"));
        };
        Ok(&self.take(end + 2)[1..=end])
    }

    /// Replaces references to earlier keys (by nothing where there is none) and, in double quotes, escapes.
    fn expand(&self, text: &str, escapes: bool) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\\']) {
            if result.len() > limits::VARIABLE_BYTES_MAX {
                break;
            }
            result.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            let next = tail.chars().next();
            if rest[at..].starts_with('\\') {
                match next {
                    Some('$') => result.push('$'),
                    Some('n') if escapes => result.push('\n'),
                    Some('r') if escapes => result.push('\r'),
                    Some(c) if escapes => result.push(c),
                    Some(c) => result.extend(['\\', c]),
                    None => result.push('\\'),
                }
                rest = &tail[next.map_or(0, char::len_utf8)..];
                continue;
            }
            let (name, after) = reference(tail);
            match name {
                Some(name) => result.push_str(self.known.get(name).map_or("", String::as_str)),
                None => result.push('$'),
            }
            rest = after;
        }
        result.push_str(rest);
        result
    }
}

/// The name behind a `$`, if there is one, and what follows it.
fn reference(tail: &str) -> (Option<&str>, &str) {
    let inner = tail.strip_prefix('{').unwrap_or(tail);
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
    if end == 0 {
        return (None, tail);
    }
    (Some(&inner[..end]), inner[end..].strip_prefix('}').unwrap_or(&inner[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> BTreeMap<String, String> {
        parse(&Source::new("build.env", text)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    #[test]
    fn lines_comments_quotes_and_references() {
        let text = "# comment\n\nexport A=1\nB: two words # why\nC='$A #'\nD=\"$A-${B}\\n\\$A\"\nE=$A/$X/${A}b\nF=\nG=a#b\nH=\"x\ny\" # more\nI=#none\nJ=\\$HOME $low ${low} $A\nK=\"a\\tb\"\n1L=2\n";
        let map = read(text);
        let pairs: Vec<(&str, &str)> =
            map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("1L", "2"),
                ("A", "1"),
                ("B", "two words"),
                ("C", "$A #"),
                ("D", "1-two words\n$A"),
                ("E", "1//1b"),
                ("F", ""),
                ("G", "a#b"),
                ("H", "x\ny"),
                ("I", ""),
                ("J", "$HOME $low ${low} 1"),
                ("K", "atb"),
            ]
        );
    }

    #[test]
    fn every_wrong_line_is_named() {
        let mistakes = parse(&Source::new("e", "A=1\n=2\nB\nD='it'\"'\"'s'\nC='x\n")).unwrap_err().0;
        let lines: Vec<u32> = mistakes.iter().filter_map(|mistake| Some(mistake.at?.line)).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([A-Z]{1,2}|=|:|'|\"|\\\\|\\$|\\{|\\}|#|\n| |é){0,30}") {
            let _ = parse(&Source::new("e", text));
        }
    }
}
