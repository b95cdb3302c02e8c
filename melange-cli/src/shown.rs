//! Text of strangers on a terminal: shown, never obeyed.
//!
//! Log lines, names of files and packages and the words of a server may hold escape codes, which change what a person
//! sees, the terminal's title or even what is typed next. Files and pipes get such text as it is.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal acts on this character, or puts text elsewhere than it stands: controls, also those of eight
/// bits, and marks that turn the direction of writing.
fn acts(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t'))
}

/// `text` for a terminal: what it would act on is written out, such as `\u{1b}`. Line ends of Windows become plain.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\r' && rest.peek() == Some(&'\n') {
            continue;
        }
        push(&mut shown, c, acts(c));
    }
    Cow::Owned(shown)
}

/// `text` as one cell of a table or one name in a sentence: line ends and tabs are written out too.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    written_out(text, |c| acts(c) || matches!(c, '\n' | '\t'))
}

/// `text` as a line of a log between others: what would end the line is written out too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    written_out(text, |c| acts(c) || c == '\n')
}

fn written_out(text: &str, is_written_out: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_written_out) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push(&mut shown, c, is_written_out(c)));
    Cow::Owned(shown)
}

/// JSON text in which the same characters are written as JSON writes them; its line ends stay.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // All of them lie in the plane that four digits reach.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn push(shown: &mut String, c: char, escape: bool) {
    if escape {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_out() {
        for (text, expected) in [
            ("plain\ttext, ünïcode\n", "plain\ttext, ünïcode\n"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("50%\rdone\r\n", "50%\\u{d}done\n"),
            ("a\x08b\x07\x7f\0", "a\\u{8}b\\u{7}\\u{7f}\\u{0}"),
            ("\u{202e}kpa.x", "\\u{202e}kpa.x"),
        ] {
            assert_eq!(escaped(text), expected);
        }
        assert_eq!(word("a\nb\tc"), "a\\u{a}b\\u{9}c");
        assert_eq!(line("a\nb\tc\x1b[m"), "a\\u{a}b\tc\\u{1b}[m");
    }

    #[test]
    fn json_stays_json() {
        let text = serde_json::to_string_pretty(&["\u{9b}x\u{202e}\x1b\x7f"]).unwrap();
        let shown = json(&text);
        assert!(!shown.contains(acts), "{shown}");
        let read: Vec<String> = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, ["\u{9b}x\u{202e}\x1b\x7f"]);
    }
}
