//! A line of a log → its text without what a terminal takes for orders. Pure.

use crate::limits::FAILURE_LINE_BYTES;

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';

/// The text that a terminal would show of a line, at most [`FAILURE_LINE_BYTES`] of it: escape sequences and control
/// characters but tabs are left out, so is what a carriage return overwrote and the white space at the end.
pub(crate) fn plain(line: &str) -> String {
    let line = line.trim_end();
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut text = String::new();
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        if next == ESCAPE {
            rest = after_escape(rest);
            continue;
        }
        if next == '\t' || !next.is_control() {
            if text.len() + next.len_utf8() > FAILURE_LINE_BYTES {
                break;
            }
            text.push(next);
        }
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
    }
    text.truncate(text.trim_end().len());
    text
}

/// What follows the escape sequence at the beginning of `text`. A sequence without an end is two characters: what
/// looks like its inside is text.
fn after_escape(text: &str) -> &str {
    let inside = text.get(ESCAPE.len_utf8()..).unwrap_or_default();
    let whole = match inside.chars().next() {
        Some('[') => after_control_sequence(inside.get(1..).unwrap_or_default()),
        Some(']') => after_system_command(inside.get(1..).unwrap_or_default()),
        _ => None,
    };
    whole.unwrap_or_else(|| {
        let mut characters = inside.chars();
        characters.next();
        characters.as_str()
    })
}

/// Parameters, intermediates, and one final character, as in `ESC [ 1 ; 31 m`.
fn after_control_sequence(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | ':' | '?'));
    let text = text.trim_start_matches(|c: char| matches!(c, ' '..='/'));
    text.strip_prefix(|c: char| matches!(c, '@'..='~'))
}

/// A title or a link, which ends with a bell or with `ESC \`.
fn after_system_command(text: &str) -> Option<&str> {
    let end = text.find([BELL, ESCAPE])?;
    let end = text.get(end..)?;
    end.strip_prefix(BELL).or_else(|| end.strip_prefix("\u{1b}\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_left_out() {
        for (line, text) in [
            ("\u{1b}[31m\u{1b}[1merror\u{1b}[0m: x", "error: x"),
            ("\u{1b}]8;;https://a/\u{7}link\u{1b}]8;;\u{7} end", "link end"),
            ("\u{1b}]0;title\u{1b}\\text", "text"),
            ("\u{1b}[?25l\u{1b}[2Ka", "a"),
            ("\u{1b}(Bplain", "Bplain"),
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("\u{1b}]no end", "no end"),
            ("\u{1b}[1;é", "1;é"),
            ("\u{1b}éa", "a"),
        ] {
            assert_eq!(plain(line), text, "{line:?}");
        }
    }

    #[test]
    fn control_characters_and_overwritten_text_are_left_out() {
        assert_eq!(plain("a\0b\u{9b}c\td \t"), "abc\td");
        assert_eq!(plain("10 %\r20 %\rdone\r\r"), "done");
        assert_eq!(plain("\r"), "");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = plain(&"é".repeat(20_000));
        assert_eq!(text.len(), FAILURE_LINE_BYTES);
        assert_eq!(plain(&"\u{1b}]".repeat(100_000)), "");
    }
}
