//! `.melangeignore`: which files of a folder are no source files, as melange reads it.
//!
//! Its patterns look like those of git and are not quite the same. Each stands for itself: a file that one of them fits is
//! left out, whatever the others say, and a `!` before it changes nothing. They fit whole paths or the last part of one;
//! a folder is left out by `folder/**`, not by its name. What is no wildcard is part of a regular expression.

use std::io::Read;
use std::path::Path;

use regex::{RegexSet, RegexSetBuilder};

use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;

/// The name of the file, in the folder itself.
pub const IGNORE_FILE: &str = ".melangeignore";

/// The patterns of a folder.
#[derive(Debug, Default)]
pub(super) struct Ignored(Option<RegexSet>);

impl Ignored {
    /// Reads the patterns of a folder; none when it has no file of them.
    ///
    /// # Errors
    /// `InvalidRequest` for a pattern that is none; `LimitExceeded`; the disk's.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(IGNORE_FILE);
        if !std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            return Ok(Self::default());
        }
        let file = std::fs::File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let (mut text, most) = (Vec::new(), limits::SOURCE_IGNORE_BYTES_MAX);
        file.take(most.saturating_add(1)).read_to_end(&mut text).map_err(|e| Error::io("read", &path, e))?;
        if text.len() as u64 > most {
            let error =
                Error::new(ErrorKind::LimitExceeded, format!("{IGNORE_FILE} has more than {most} bytes"));
            return Err(error.blame(Blame::Definition).hint("write fewer patterns with wildcards"));
        }
        let text = String::from_utf8(text).map_err(|error| {
            Error::invalid(format!("{IGNORE_FILE} is not UTF-8")).source(error).blame(Blame::Definition)
        })?;
        Self::read(&text)
    }

    fn read(text: &str) -> Result<Self> {
        let expressions: Vec<(usize, String)> =
            patterns(text).map(|(line, it)| (line, expression(&it))).collect();
        if expressions.is_empty() {
            return Ok(Self::default());
        }
        if expressions.len() > limits::SOURCE_IGNORE_PATTERNS_MAX {
            let most = limits::SOURCE_IGNORE_PATTERNS_MAX;
            let error =
                Error::new(ErrorKind::LimitExceeded, format!("{IGNORE_FILE} has more than {most} patterns"));
            return Err(error.blame(Blame::Definition).hint("write fewer patterns with wildcards"));
        }
        let set = |all: &mut dyn Iterator<Item = &str>, bytes_max| {
            RegexSetBuilder::new(all).size_limit(bytes_max).build()
        };
        let wrong = |place: String, error: regex::Error| {
            Error::invalid(format!("{IGNORE_FILE}{place} holds what is no pattern"))
                .source(error)
                .blame(Blame::Definition)
                .hint("write \\ before characters of regular expressions, such as + and (")
        };
        // Together they tell no line.
        for (line, expression) in &expressions {
            if repeats_repetition(expression) {
                return Err(wrong(
                    format!(":{line}"),
                    regex::Error::Syntax(format!("a + repeats in {expression}")),
                ));
            }
        }
        let mut all = expressions.iter().map(|(_, it)| it.as_str());
        let told = set(&mut all, limits::SOURCE_IGNORE_PROGRAM_BYTES_MAX);
        told.map(|all| Self(Some(all))).map_err(|error| {
            // What is no pattern is seen before anything is compiled, which need not be done line by line then.
            let is_wrong = |expression: &str| {
                matches!(set(&mut std::iter::once(expression), 0), Err(regex::Error::Syntax(_)))
            };
            let line = expressions.iter().find(|(_, it)| is_wrong(it)).map(|(line, _)| format!(":{line}"));
            wrong(line.unwrap_or_default(), error)
        })
    }

    /// Whether a file below the folder, by its path, is no source file.
    pub(super) fn fits(&self, path: &str) -> bool {
        let Some(all) = &self.0 else { return false };
        let name = path.rsplit('/').next().unwrap_or(path);
        all.is_match(&format!("/{path}")) || all.is_match(name)
    }
}

/// The patterns of a text with the numbers of their lines.
fn patterns(text: &str) -> impl Iterator<Item = (usize, String)> {
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().zip(1..);
    let said = lines.filter(|(line, _)| !line.starts_with('#'));
    said.filter_map(|(line, number)| {
        let pattern = line.trim_end_matches(' ');
        let pattern = pattern.strip_prefix('!').unwrap_or(pattern);
        (!pattern.is_empty()).then(|| (number, clean(pattern)))
    })
}

/// The shortest path that leads to the same place.
fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    match (is_rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// The regular expression of a pattern.
fn expression(pattern: &str) -> String {
    let mut told = String::from("^");
    if pattern.starts_with(|first: char| first != '/' && first.is_ascii()) {
        told.push_str("/?");
    }
    let mut left = pattern.chars().peekable();
    while let Some(next) = left.next() {
        match next {
            '*' if left.next_if_eq(&'*').is_some() => {
                left.next_if_eq(&'/');
                told.push_str(if left.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => told.push_str("[^/]*"),
            '?' => told.push_str("[^/]"),
            '.' | '$' => told.extend(['\\', next]),
            '\\' => {
                told.push('\\');
                told.extend(left.next());
            }
            other => told.push(other),
        }
    }
    told.push('$');
    told
}

/// Whether a `+` stands behind another repetition, which the expressions of melange do not take.
fn repeats_repetition(expression: &str) -> bool {
    let (mut before, mut is_class, mut left) = ('^', false, expression.chars());
    while let Some(next) = left.next() {
        if !is_class && next == '+' && matches!(before, '+' | '*' | '}') {
            return true;
        }
        is_class = next == '[' || is_class && next != ']';
        before = next;
        if next == '\\' {
            left.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_they_do_in_melange() {
        for (pattern, fitting, others) in [
            ("*.orig", &["a.orig", "x/y/a.orig", ".orig"][..], &["a.orig.patch", "aorig"][..]),
            ("fix.patch", &["fix.patch", "x/fix.patch"], &["fix-patch", "fix.patch/x"]),
            ("/fix.patch", &["fix.patch"], &["x/fix.patch"]),
            ("docs", &["docs", "x/docs"], &["docs/a", "docs/x/a"]),
            ("docs/", &["docs"], &["docs/a"]),
            ("docs/**", &["docs/a", "docs/x/a"], &["docs", "x/docs/a"]),
            ("docs/*", &["docs/a"], &["docs/x/a"]),
            ("**/a", &["a", "x/a", "x/y/a"], &["ba", "a/b"]),
            ("x/**/a", &["x/a", "x/y/a", "x/y/z/a"], &["a", "x/ya"]),
            ("**", &["a", "x/y"], &[]),
            ("a?", &["ab", "x/ab", "aä"], &["a", "abc", "a/b"]),
            ("./x//y/../a", &["x/a"], &["x/y/a", "a"]),
            ("../a", &["../a"], &["a"]),
            ("[ab].c", &["a.c", "x/b.c"], &["c.c", "[ab].c"]),
            ("!kept", &["kept"], &["other"]),
            ("a\\+b", &["a+b"], &["aab"]),
            ("ä*", &["äb", "x/ä"], &["b"]),
            ("a ", &["a"], &["a "]),
            ("$x", &["$x"], &["x"]),
        ] {
            let ignored = Ignored::read(pattern).unwrap();
            for path in fitting {
                assert!(ignored.fits(path), "{pattern} leaves {path} out");
            }
            for path in others {
                assert!(!ignored.fits(path), "{pattern} does not leave {path} out");
            }
        }
    }

    #[test]
    fn a_file_has_comments_and_empty_lines_and_each_pattern_stands_for_itself() {
        let text = "\u{feff}*.o\r\n# *.c\n\n   \n!\n #x\n**\\.tmp\n!a.o";
        let lines: Vec<(usize, String)> = patterns(text).collect();
        let expected = [(1, "*.o"), (6, " #x"), (7, "**\\.tmp"), (8, "a.o")];
        assert_eq!(lines, expected.map(|(line, pattern)| (line, pattern.to_owned())));
        let ignored = Ignored::read(text).unwrap();
        assert!(ignored.fits("a.o") && ignored.fits("x/b.o") && ignored.fits("x/.tmp"));
        assert!(!ignored.fits("a.c") && !ignored.fits("#x"));
        assert!(!Ignored::read("# nothing\n").unwrap().fits("a"));
    }

    #[test]
    fn what_is_no_pattern_is_told_with_its_line() {
        let error = Ignored::read("*.o\nc++\n").unwrap_err();
        assert_eq!((error.kind(), error.blamed()), (ErrorKind::InvalidRequest, Some(Blame::Definition)));
        assert!(error.message().contains(".melangeignore:2 "), "{error}");
        for wrong in ["a(b", "[a", "*+x", "a{2}+"] {
            assert!(Ignored::read(wrong).is_err(), "{wrong}");
        }
        for right in ["[+x]+", "a\\++", "a+", "c\\+\\+"] {
            Ignored::read(right).unwrap();
        }
        let large = "((a{99}){99}){99}";
        assert!(Ignored::read(large).is_err());
        let many: String = (0..1_000).map(|number| format!("[^x]*{number}\\w{{50}}[^y]*\n")).collect();
        assert!(Ignored::read(&many).is_err(), "all of them have a bound too");
        let error = Ignored::read(&"a\n".repeat(limits::SOURCE_IGNORE_PATTERNS_MAX + 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}
