//! RE2's regular expressions, which definitions are written in, for the `regex` crate. Where the two read a pattern
//! differently it is rewritten: `\Q…\E`, a `[` inside of a class, braces that repeat nothing, and the classes `\d`, `\w`,
//! `\s` and `\b`, which mean ASCII. RE2's syntax: github.com/google/re2/wiki/Syntax.

use std::sync::LazyLock;

use regex::{Captures, Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::limits;

/// The name behind a `$` or `${`.
static GROUP_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{Nd}_]+").ok());

/// What the patterns of one definition may still cost.
#[derive(Debug)]
pub(super) struct Budget {
    pattern_bytes: usize,
    states: u64,
    scanned_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            pattern_bytes: limits::PATTERNS_BYTES_MAX,
            states: limits::PATTERNS_STATES_MAX,
            scanned_bytes: limits::PATTERNS_SCANNED_BYTES_MAX,
        }
    }
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no RE2 pattern; the cause.
    Invalid(String),
    /// It is beyond a bound; which one.
    TooLarge(String),
}

/// Compiles a pattern. What it costs is told from its parsed form first: a counted repetition such as `(a{1000}){1000}`
/// is small to write and to parse, and only its automaton is large.
///
/// # Errors
/// What no RE2 pattern may be, and what is beyond the budget.
pub(super) fn compile(pattern: &str, budget: &mut Budget) -> Result<Regex, Refusal> {
    let Some(left) = budget.pattern_bytes.checked_sub(pattern.len()) else {
        let bound = limits::PATTERNS_BYTES_MAX;
        return Err(Refusal::TooLarge(format!("all expressions together have more than {bound} bytes")));
    };
    budget.pattern_bytes = left;
    if let Some(unknown) = unknown_syntax(pattern) {
        return Err(Refusal::Invalid(unknown));
    }
    let translated = translate(pattern);
    let parsed = regex_syntax::parse(&translated).map_err(|error| Refusal::Invalid(last_line(&error)))?;
    let Some(left) = budget.states.checked_sub(states(&parsed)) else {
        let bound = limits::PATTERNS_STATES_MAX;
        return Err(Refusal::TooLarge(format!("all expressions together need more than {bound} states")));
    };
    budget.states = left;
    let mut builder = RegexBuilder::new(&translated);
    builder.size_limit(limits::PATTERN_PROGRAM_BYTES_MAX).dfa_size_limit(limits::PATTERN_PROGRAM_BYTES_MAX);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(bound) => {
            Refusal::TooLarge(format!("its program has more than {bound} bytes"))
        }
        other => Refusal::Invalid(last_line(&other)),
    })
}

fn last_line(error: &impl ToString) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.trim_start_matches("error: ").to_owned()
}

/// About how many states the automaton of a pattern has.
fn states(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        // A range of characters takes up to four ranges of bytes.
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().saturating_mul(4) as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            states(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => states(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1, |sum: u64, part| sum.saturating_add(states(part)))
        }
    }
}

/// Replaces every match of `pattern`; `None` when the result, or the work for it, is beyond its bound. Each match is
/// paid for with the text that is left, because the search for it may have read all of that.
pub(super) fn replace_all(pattern: &Regex, text: &str, replace: &str, budget: &mut Budget) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut copied = 0;
    for found in pattern.captures_iter(text) {
        let whole = found.get(0)?;
        budget.scanned_bytes = budget.scanned_bytes.checked_sub(text.len() - copied + 1)?;
        result.push_str(&text[copied..whole.start()]);
        expand(replace, &found, &mut result);
        copied = whole.end();
        if result.len() > limits::VARIABLE_BYTES_MAX {
            return None;
        }
    }
    result.push_str(&text[copied..]);
    (result.len() <= limits::VARIABLE_BYTES_MAX).then_some(result)
}

/// Appends a replacement as Go's `Regexp.Expand` does: `$name` takes the longest run of letters, digits and `_`, so that
/// `$1W` is the group `1W`; a group that is not there is empty; what is no reference, such as `${{x}}`, stays.
fn expand(template: &str, found: &Captures<'_>, result: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let Some((name, behind)) = reference(after) else {
            result.push('$');
            rest = after;
            continue;
        };
        rest = behind;
        let group = match number(name) {
            Some(number) => found.get(number),
            None => found.name(name),
        };
        result.push_str(group.map_or("", |group| group.as_str()));
        if result.len() > limits::VARIABLE_BYTES_MAX {
            return;
        }
    }
    result.push_str(rest);
}

/// The name of a reference behind its `$`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let name = GROUP_NAME.as_ref()?.find(inner)?.as_str();
    let behind = &inner[name.len()..];
    match braced {
        Some(_) => Some((name, behind.strip_prefix('}')?)),
        None => Some((name, behind)),
    }
}

/// A group's number: digits without a leading zero, below the bound that Go has.
fn number(name: &str) -> Option<usize> {
    let digits =
        name.bytes().all(|byte| byte.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
    digits.then(|| name.parse().ok()).flatten().filter(|number| *number < 1_000_000_000)
}

/// What the crate would take and RE2 does not: a repetition of a repetition, flags and escapes that it has not.
fn unknown_syntax(pattern: &str) -> Option<String> {
    let mut rest = pattern;
    let (mut in_class, mut repeated) = (false, false);
    while let Some(c) = rest.chars().next() {
        let mut after = &rest[c.len_utf8()..];
        let repeats_before = std::mem::take(&mut repeated);
        match c {
            '\\' => {
                let escaped = after.chars().next()?;
                if matches!(escaped, 'u' | 'U') {
                    return Some(format!("the escape `\\{escaped}` is not known; write `\\x{{…}}`"));
                }
                after = match escaped {
                    'Q' => after.split_once("\\E").map_or("", |(_, behind)| behind),
                    // A code or a name in braces.
                    'x' | 'p' | 'P' if after[1..].starts_with('{') => {
                        after.split_once('}').map_or("", |(_, behind)| behind)
                    }
                    _ => &after[escaped.len_utf8()..],
                };
            }
            '[' if !in_class => {
                in_class = true;
                after = after.strip_prefix('^').unwrap_or(after);
                after = after.strip_prefix(']').unwrap_or(after);
            }
            '[' if after.starts_with(':') => {
                after = after.split_once(":]").map_or(after, |(_, behind)| behind)
            }
            ']' => in_class = false,
            '(' if !in_class
                && after.starts_with('?')
                && !after.starts_with("?P")
                && !after.starts_with("?<") =>
            {
                let flags: String = after.chars().skip(1).take_while(|c| c.is_ascii_alphanumeric()).collect();
                if let Some(unknown) = flags.chars().find(|flag| !"imsU".contains(*flag)) {
                    return Some(format!("the flag `{unknown}` is not known; there are i, m, s and U"));
                }
            }
            '*' | '+' | '?' | '{' if !in_class && (c != '{' || repeats(after)) => {
                if repeats_before {
                    return Some(format!("`{c}` repeats what is a repetition already"));
                }
                if c == '{' {
                    after = after.split_once('}').map_or(after, |(_, behind)| behind);
                }
                // The lazy form.
                after = after.strip_prefix('?').unwrap_or(after);
                repeated = true;
            }
            _ => {}
        }
        rest = after;
    }
    None
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
        'p' | 'P' if after.starts_with('{') => {
            let end = after.find('}').map_or(after.len(), |end| end + 1);
            result.extend(['\\', c]);
            result.push_str(&after[..end]);
            return &after[end..];
        }
        // The crate's word boundaries are plain characters in RE2.
        '<' | '>' => {
            result.push(c);
            return after;
        }
        '0'..='7' => {
            let digits: String = tail.chars().take(3).take_while(|c| matches!(c, '0'..='7')).collect();
            // A single digit other than 0 would refer back to a group, which RE2 refuses too.
            if digits.len() > 1 || c == '0' {
                let code = u32::from_str_radix(&digits, 8).unwrap_or_default();
                result.push_str(&format!("\\x{{{code:x}}}"));
                return &tail[digits.len()..];
            }
            result.extend(['\\', c]);
            return after;
        }
        _ => {
            result.extend(['\\', c]);
            return after;
        }
    };
    match (c.is_ascii_uppercase(), in_class) {
        (true, _) => result.push_str(&format!("[^{ascii}]")),
        (false, true) => {
            result.push_str(ascii);
            // A class begins no range.
            if let Some(behind) = after.strip_prefix('-') {
                result.push_str("\\-");
                return behind;
            }
        }
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
            (r"[\w-.]+", "\u{e9}a-.b", Some("a-.b")),
            (r"[.\d-]+", "a1-.", Some("1-.")),
            (r"\p{Greek}+", "a\u{3b1}\u{3b2}", Some("\u{3b1}\u{3b2}")),
            (r"\pL{2}", "1ab", Some("ab")),
            (r"\101\0", "A\0", Some("A\0")),
            (r"\<a\>", "<a>", Some("<a>")),
        ] {
            let regex = compile(pattern, &mut Budget::default()).unwrap();
            assert_eq!(regex.find(text).map(|found| found.as_str()), expected, "{pattern}");
        }
        for pattern in [
            "a+?b*?",
            "a{2}?",
            r"\+\+",
            "[*+]+",
            "(?i:a+)+",
            "(?P<n>a)*",
            r"\x{20}+",
            r"\x{0041}?",
            r"\p{Greek}*",
            "[]a]+",
            "x*|y+",
            r"\Q++\E+",
            "[[:alpha:]]*",
            "a{,2}*",
        ] {
            assert!(compile(pattern, &mut Budget::default()).is_ok(), "{pattern}");
        }
        let unknown = ["a++", "a**", "a+*", "a{2}{3}", "a{2}*", "(?R)a", "(?x) a b", r"\u0041", "a*?*"];
        for pattern in ["(", "*a", r"(?=x)", r"\1", "[a"].into_iter().chain(unknown) {
            let refused = compile(pattern, &mut Budget::default());
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{pattern}");
        }
    }

    #[test]
    fn replacements_expand_as_in_go() {
        for (pattern, replace, text, expected) in [
            (r"(\d+)\.(\d+)", "$1_$2", "3.14", "14"),
            (r"(\d+)\.(\d+)", "${1}_$2", "3.14", "3_14"),
            ("(a)", "$1W", "a", ""),
            ("(a)", "${1}W", "a", "aW"),
            ("(?P<x>a)", "$x.$0", "a", "a.a"),
            ("(?P<x>a)", "${x}y$xy", "a", "ay"),
            ("a", "$$1 $", "a", "$1 $"),
            ("a", "${{host.triplet.gnu}}", "a", "${{host.triplet.gnu}}"),
            ("a", "${b-c} ${} ${1", "a", "${b-c} ${} ${1"),
            ("(a)", "$01 $9 $", "a", "  $"),
            ("(a)", "$é-$1é", "a", "-"),
            ("x*", "-", "abc", "-a-b-c-"),
        ] {
            let regex = compile(pattern, &mut Budget::default()).unwrap();
            let found = replace_all(&regex, text, replace, &mut Budget::default());
            assert_eq!(found.as_deref(), Some(expected), "{pattern} {replace}");
        }
    }

    #[test]
    fn costly_patterns_and_searches_are_refused_by_their_bound() {
        let mut budget = Budget::default();
        for pattern in
            ["(a{1000}){1000}", r"\p{L}{1000}", r"((\pL{100}){100}){100}", r"(?i)(?:[a-zà-ÿ]{900}){900}"]
        {
            let refused = compile(pattern, &mut budget);
            assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{pattern}: {refused:?}");
        }
        let long = "a".repeat(limits::PATTERNS_BYTES_MAX + 1);
        assert!(matches!(compile(&long, &mut Budget::default()), Err(Refusal::TooLarge(_))));
        // Each search reads to the end of the text before it settles for one letter.
        let regex = compile("a*b|a", &mut Budget::default()).unwrap();
        let text = "a".repeat(limits::VARIABLE_BYTES_MAX);
        assert_eq!(replace_all(&regex, &text, "c", &mut Budget::default()), None);
        assert_eq!(replace_all(&regex, "aab", "$0$0", &mut Budget::default()).as_deref(), Some("aabaab"));
        let grown = compile("", &mut Budget::default()).unwrap();
        assert_eq!(replace_all(&grown, &"a".repeat(60), &"b".repeat(60_000), &mut Budget::default()), None);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_plain_patterns_stay(text in "[a-z\\\\\\[\\](){}*+?|^$.&~:QEdwb0-9-]{0,16}") {
            let _ = compile(&text, &mut Budget::default());
        }
    }
}
