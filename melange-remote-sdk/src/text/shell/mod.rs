//! Whether a script is one that a shell can read: what no shell takes is told with its place.
//!
//! Steps run with whatever `/bin/sh` the environment has, busybox, dash or bash. A script is refused when neither the
//! grammar of POSIX nor that of bash takes it. What only shows when it runs, such as a bad substitution, is not looked
//! for, nor is the text of here-documents. One that nothing ends runs to the end of the script, as in shells, unless a
//! line is its delimiter but for blanks.

use std::fmt;

mod grammar;
mod words;

/// The deepest nesting that is looked at; deeper scripts are let through, since shells read them. The deepest of
/// real distributions is below ten.
const DEPTH_MAX: usize = 60;

/// How many steps the check may take for each byte of the script: a few are used unless a script makes it try two
/// readings inside of each other again and again. What is not decided by then is let through.
const STEPS_PER_BYTE_MAX: usize = 32;

/// Characters of a word that messages show.
const WORD_SHOWN_MAX: usize = 40;

/// What no shell can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellMistake {
    /// The line of the script, from 1.
    pub line: usize,
    /// The character of that line, from 1.
    pub column: usize,
    /// The cause, one sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for ShellMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ShellMistake {}

/// Looks for the first mistake that no shell can read over.
///
/// ```
/// use melange_remote_sdk::text::shell;
/// assert!(shell::check("if true; then echo a; fi").is_ok());
/// let mistake = shell::check("echo a\nif true; then\n  echo b\n").unwrap_err();
/// assert_eq!((mistake.line, &*mistake.message), (2, "the `if` has no `fi`"));
/// ```
///
/// # Errors
/// The mistake.
pub fn check(script: &str) -> Result<(), ShellMistake> {
    let wrong = match Scanner::new(script, Dialect::Bash).script() {
        Err(Stop::Wrong(wrong)) => wrong,
        Ok(()) | Err(Stop::Undecided) => return Ok(()),
    };
    let only_bash = !wrong.everywhere;
    if only_bash && !matches!(Scanner::new(script, Dialect::Posix).script(), Err(Stop::Wrong(_))) {
        return Ok(());
    }
    let before = script.get(..wrong.at).unwrap_or(script);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Err(ShellMistake {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message: wrong.message,
        hint: wrong.hint,
    })
}

/// Whether a script is for a shell by its first line; one that names no interpreter is.
///
/// ```
/// use melange_remote_sdk::text::shell;
/// assert!(shell::is_shell("echo a"));
/// assert!(shell::is_shell("#!/usr/bin/busybox sh\necho a"));
/// assert!(!shell::is_shell("#!/usr/bin/env python3\nprint(1)"));
/// ```
pub fn is_shell(script: &str) -> bool {
    let Some(line) = script.strip_prefix("#!") else { return true };
    let mut words = line.lines().next().unwrap_or_default().split_whitespace();
    let mut next = || words.find(|word| !word.starts_with('-') && !word.contains('='));
    let mut name = || next().map(|path| path.rsplit('/').next().unwrap_or(path));
    let first = name();
    let program = if matches!(first, Some("env" | "busybox")) { name() } else { first };
    matches!(program, Some("sh" | "ash" | "dash" | "bash"))
}

/// Which grammar is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Posix,
    Bash,
}

/// A mistake at a byte of the script.
struct Wrong {
    at: usize,
    message: String,
    hint: String,
    /// Whether it is one in every dialect.
    everywhere: bool,
}

/// Why the reading came to an end before the script did.
enum Stop {
    Wrong(Box<Wrong>),
    /// Too deep or too long to tell.
    Undecided,
}

type Read<T> = Result<T, Stop>;

fn wrong<T>(at: usize, message: impl Into<String>, hint: impl Into<String>) -> Read<T> {
    let (message, hint) = (message.into(), hint.into());
    Err(Stop::Wrong(Box::new(Wrong { at, message, hint, everywhere: false })))
}

/// As [`wrong`], whatever the dialect.
fn wrong_everywhere<T>(at: usize, message: impl Into<String>, hint: impl Into<String>) -> Read<T> {
    let (message, hint) = (message.into(), hint.into());
    Err(Stop::Wrong(Box::new(Wrong { at, message, hint, everywhere: true })))
}

/// What a script is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Newline,
    Operator(&'static str),
    /// A redirection, without what it leads to.
    Redirect(&'static str),
    /// A word; whether it is written without quotes, and so may be a keyword.
    Word {
        plain: bool,
    },
}

/// A token with the bytes it stands at.
#[derive(Debug, Clone, Copy)]
struct Placed {
    token: Token,
    start: usize,
    end: usize,
}

/// A here-document whose text begins on the next line.
#[derive(Clone)]
struct HereDocument {
    delimiter: String,
    at: usize,
    /// Whether tabs before its lines do not count.
    strips_tabs: bool,
    /// Whether its text is taken as it is, so that no backslash joins lines.
    quoted: bool,
    /// Whether the substitution that it stands in is over, so that shells differ about its text.
    left_over: bool,
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    /// Lines of the script before this text, when it stood in backquotes.
    lines_before: usize,
    dialect: Dialect,
    peeked: Option<Placed>,
    /// Whether a word that is read now is an argument, where `!` negates nothing.
    in_arguments: bool,
    /// Whether a word that is read now stands behind `>&` or `<&`, so that a number is no part of what follows.
    in_duplication: bool,
    here_documents: Vec<HereDocument>,
    /// The first here-document that nothing ends; its text is the rest of the script.
    endless: Option<HereDocument>,
    /// A place, and how many lines end before it.
    counted: (usize, usize),
    /// How many command substitutions are open.
    substitutions: usize,
    depth: usize,
    steps_left: usize,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str, dialect: Dialect) -> Self {
        Self {
            text,
            at: 0,
            lines_before: 0,
            dialect,
            peeked: None,
            in_arguments: false,
            in_duplication: false,
            here_documents: Vec::new(),
            endless: None,
            counted: (0, 0),
            substitutions: 0,
            depth: 0,
            steps_left: text.len().saturating_add(1).saturating_mul(STEPS_PER_BYTE_MAX),
        }
    }

    fn is_bash(&self) -> bool {
        self.dialect == Dialect::Bash
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes the price of looking at `bytes`.
    fn pay(&mut self, bytes: usize) -> Read<()> {
        self.steps_left = self.steps_left.checked_sub(bytes).ok_or(Stop::Undecided)?;
        Ok(())
    }

    /// Goes on by `bytes`, to the next boundary of characters.
    fn advance(&mut self, bytes: usize) -> Read<()> {
        self.pay(bytes.max(1))?;
        self.at = self.text.ceil_char_boundary((self.at + bytes).min(self.text.len()));
        Ok(())
    }

    /// As [`Self::advance`] to a place, at the price of all bytes before it.
    fn go_to(&mut self, at: usize) -> Read<()> {
        self.pay(at.abs_diff(self.at))?;
        self.at = at;
        Ok(())
    }

    /// Reads something inside of what is read.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEPTH_MAX {
            return Err(Stop::Undecided);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Reads something that may turn out to be something else, in which case nothing has been read.
    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        let (at, depth, substitutions) = (self.at, self.depth, self.substitutions);
        let (in_arguments, in_duplication) = (self.in_arguments, self.in_duplication);
        let had_end = self.endless.is_none();
        self.pay(self.here_documents.iter().map(|document| 1 + document.delimiter.len()).sum())?;
        let documents = self.here_documents.clone();
        match read(self) {
            Ok(value) => Ok(Some(value)),
            Err(Stop::Wrong(wrong)) if !wrong.everywhere => {
                (self.at, self.depth, self.substitutions) = (at, depth, substitutions);
                self.here_documents = documents;
                (self.in_arguments, self.in_duplication) = (in_arguments, in_duplication);
                if had_end {
                    self.endless = None;
                }
                self.peeked = None;
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    /// What stands between two places, as messages show it.
    fn shown(&self, start: usize, end: usize) -> String {
        let text = self.text.get(start..end).unwrap_or_default();
        let mut shown: String = text.chars().take(WORD_SHOWN_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown
    }

    /// How many lines end before a place, counted from the place that was asked for last.
    fn lines_to(&mut self, at: usize) -> Read<usize> {
        let (from, lines) = self.counted;
        self.pay(from.abs_diff(at))?;
        let between = self.text.get(from.min(at)..from.max(at)).unwrap_or_default().matches('\n').count();
        let lines = if at < from { lines.saturating_sub(between) } else { lines + between };
        self.counted = (at, lines);
        Ok(self.lines_before + lines)
    }

    fn line_of(&self, at: usize) -> usize {
        self.lines_before + self.text.get(..at).unwrap_or(self.text).matches('\n').count() + 1
    }
}

#[cfg(test)]
mod tests;
