//! RE2's regular expressions, which definitions are written in, for the `regex` crate. Where the two read a pattern
//! differently it is rewritten: `\Q…\E`, a `[` inside of a class, braces that repeat nothing, and the classes `\d`, `\w`,
//! `\s` and `\b`, which mean ASCII. RE2's syntax: github.com/google/re2/wiki/Syntax.

use regex::Regex;

/// Compiles a pattern.
///
/// # Errors
/// What no RE2 pattern may be.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&translate(pattern))
}

fn translate(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        if c == '\\' {
            rest = escape(tail, in_class, &mut result);
            continue;
        }
        rest = tail;
        match c {
            '[' if !in_class => {
                in_class = true;
                result.push('[');
                for lead in ["^", "]"] {
                    if let Some(after) = rest.strip_prefix(lead) {
                        result.push_str(if lead == "]" { "\\]" } else { lead });
                        rest = after;
                    }
                }
            }
            '[' if rest.starts_with(':') && rest.contains(":]") => result.push('['),
            ']' if in_class && result.ends_with(':') && result.rfind("[:").is_some() => result.push(']'),
            '[' => result.push_str("\\["),
            ']' if in_class => {
                in_class = false;
                result.push(']');
            }
            // Set operations of the crate are ordinary characters in RE2.
            '&' | '~' if in_class => result.extend(['\\', c]),
            '-' if in_class && rest.starts_with('-') => result.push_str("\\-"),
            '{' if !in_class && !repeats(rest) => result.push_str("\\{"),
            other => result.push(other),
        }
    }
    result
}

/// Rewrites what follows a backslash; returns the rest behind it.
fn escape<'p>(tail: &'p str, in_class: bool, result: &mut String) -> &'p str {
    let Some(c) = tail.chars().next() else {
        result.push('\\');
        return tail;
    };
    let after = &tail[c.len_utf8()..];
    let ascii = match c {
        'd' | 'D' => "0-9",
        'w' | 'W' => "0-9A-Za-z_",
        's' | 'S' => "\\t\\n\\f\\r ",
        'b' | 'B' if !in_class => {
            result.push_str(&format!("(?-u:\\{c})"));
            return after;
        }
        'Q' => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            result.push_str(&regex::escape(literal));
            return after;
        }
        'E' => return after,
        _ => {
            result.extend(['\\', c]);
            return after;
        }
    };
    match (c.is_ascii_uppercase(), in_class) {
        (true, _) => result.push_str(&format!("[^{ascii}]")),
        (false, true) => result.push_str(ascii),
        (false, false) => result.push_str(&format!("[{ascii}]")),
    }
    after
}

/// Whether what follows a `{` makes it a repetition: `n}`, `n,}` or `n,m}`.
fn repeats(rest: &str) -> bool {
    let Some((inner, _)) = rest.split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (pattern, text, expected) in [
            (r"^(\d+)\.(\d+).*", "1.10.2", Some("1.10.2")),
            ("[[]x", "a[x", Some("[x")),
            ("[]x]+", "a]x]", Some("]x]")),
            ("[^]x]", "]xa", Some("a")),
            ("a{,2}", "aa{,2}", Some("a{,2}")),
            ("{x}", "${x}", Some("{x}")),
            ("a{2}", "aaa", Some("aa")),
            (r"\Qa.b\E+", "axb a.bb", Some("a.bb")),
            (r"\d+", "\u{663}7", Some("7")),
            (r"\w+", "\u{e9}a_1", Some("a_1")),
            (r"[\w.]+", "\u{e9}a.1", Some("a.1")),
            (r"[^\d]+", "1x2", Some("x")),
            (r"[[:alpha:]-]+", "1a-b", Some("a-b")),
            (r"\bx\b", "ax x", Some("x")),
            ("[a&&b]+", "x&a&b", Some("&a&b")),
            (r"\$\{x\}", "a${x}", Some("${x}")),
            ("(?i)v", "V1", Some("V")),
            ("a|", "b", Some("")),
        ] {
            let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.find(text).map(|found| found.as_str()), expected, "{pattern}");
        }
        for pattern in ["(", "*a", r"(?=x)", r"\1", "[a"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_plain_patterns_stay(text in "[a-z\\\\\\[\\](){}*+?|^$.&~:QEdwb0-9-]{0,16}") {
            let _ = compile(&text);
        }
    }
}
