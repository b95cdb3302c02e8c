//! The lines of a log → the one that says what failed, and of what. Pure.
//!
//! Kinds are tried in an order, each over all lines: what is said in so many words comes before what is said in passing.
//! Within a kind the first line counts, for later errors follow from it. Each line is looked at once for each phrase, so
//! the time is linear in the text.

use super::FailureKind;
use super::phrases::{self as say, Phrase};
use super::plain::plain;
use super::token::is_word;

/// How far before the answer of a server its address is looked for.
const REQUEST_LINES: usize = 10;

/// One line as it is searched and shown.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number in the log; a message has none.
    pub(super) number: Option<u64>,
    /// What a terminal would show.
    pub(super) text: String,
    /// The same in lower case, without white space around it.
    lower: String,
    is_noise: bool,
    follows: bool,
}

impl Line {
    pub(super) fn new(number: Option<u64>, line: &str) -> Self {
        let text = plain(line);
        let lower = text.trim().to_ascii_lowercase();
        let is_noise = is_noise(&text, &lower);
        let follows = has(say::FOLLOWS, &lower);
        Self { number, text, lower, is_noise, follows }
    }
}

/// The line that says what failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is among the lines.
    pub(super) index: usize,
    /// The next line, when this one is only the head of what is said.
    pub(super) continues: Option<usize>,
    /// What it tells of.
    pub(super) kind: FailureKind,
}

/// A kind, and whether a line tells of it.
type Tier = (FailureKind, fn(&Line) -> bool);

/// All kinds in the order in which they are looked for.
const TIERS: [Tier; 12] = [
    (FailureKind::Solver, |line| has(say::SOLVER, &line.lower)),
    (FailureKind::Checksum, tells_wrong_checksum),
    (FailureKind::Patch, |line| has(say::PATCH, &line.lower)),
    (FailureKind::Compile, |line| !line.follows && tells_compiler_error(line)),
    (FailureKind::Test, tells_failed_test),
    (FailureKind::Missing, |line| has(say::MISSING, &line.lower)),
    (FailureKind::Network, |line| has(say::NETWORK, &line.lower) || has(say::ANSWERS, &line.lower)),
    (FailureKind::Space, |line| has(say::SPACE, &line.lower)),
    (FailureKind::Memory, |line| has(say::MEMORY, &line.lower)),
    (FailureKind::Signal, |line| has(say::SIGNAL, &line.lower)),
    (FailureKind::Compile, |line| line.follows),
    (FailureKind::Error, tells_error),
];

/// What a line whose words are those of any error is about, the more special first.
const ABOUT: [(FailureKind, &[&[Phrase]]); 7] = [
    (FailureKind::Space, &[say::SPACE]),
    (FailureKind::Memory, &[say::MEMORY]),
    (FailureKind::Network, &[say::NETWORK, say::ANSWERS]),
    (FailureKind::Missing, &[say::MISSING, say::MISSING_OF_ERRORS]),
    (FailureKind::Signal, &[say::SIGNAL]),
    (FailureKind::Test, &[say::CRASH]),
    (FailureKind::Configure, &[say::CONFIGURE]),
];

/// The first line of the first kind that any line tells of, else the last line that is no noise.
pub(super) fn find(lines: &[Line]) -> Option<Found> {
    let tier = TIERS.iter().find_map(|(kind, tells)| {
        lines.iter().position(|line| !line.is_noise && tells(line)).map(|index| (*kind, index))
    });
    let Some((kind, index)) = tier else {
        return last(lines).map(|index| Found { index, continues: None, kind: FailureKind::Other });
    };
    let continues = continuation(lines, index);
    let parts: Vec<&Line> =
        [Some(index), continues].into_iter().flatten().filter_map(|part| lines.get(part)).collect();
    let kind = about(kind, &parts);
    Some(Found { index, continues, kind })
}

/// The first line that tells of a kind which is known.
pub(super) fn find_of(lines: &[Line], wanted: FailureKind) -> Option<Found> {
    let (_, tells) = TIERS.iter().find(|(kind, _)| *kind == wanted)?;
    let index = lines.iter().position(|line| !line.is_noise && tells(line))?;
    Some(Found { index, continues: continuation(lines, index), kind: wanted })
}

/// The line before an answer of a server that holds the address which was asked for; `None` for other lines, and for
/// those that hold an address themselves.
pub(super) fn request(lines: &[Line], index: usize) -> Option<&Line> {
    let line = lines.get(index).filter(|line| has(say::ANSWERS, &line.lower))?;
    let holds_address = |line: &Line| line.lower.contains("://");
    if holds_address(line) {
        return None;
    }
    lines.get(..index)?.iter().rev().take(REQUEST_LINES).find(|line| holds_address(line))
}

/// The last line that is no noise.
pub(super) fn last(lines: &[Line]) -> Option<usize> {
    lines.iter().rposition(|line| !line.is_noise)
}

/// The line that goes on from one which ends in a colon: `unable to select packages:`, `CMake Error at x:5 (message):`.
fn continuation(lines: &[Line], index: usize) -> Option<usize> {
    let line = lines.get(index).filter(|line| line.lower.ends_with(':'))?;
    let rest = lines.get(index + 1..)?;
    let next = rest.iter().position(|next| next.lower.contains(is_word))?;
    let next = index + 1 + next;
    // A message has lines without numbers, a log has numbered ones; they never stand together.
    lines.get(next).filter(|next| next.number.is_some() == line.number.is_some()).map(|_| next)
}

/// The kind that lines of a general kind are really about.
fn about(kind: FailureKind, lines: &[&Line]) -> FailureKind {
    // pytest tells exceptions so, also those of tests that could not even be loaded.
    let is_general = matches!(kind, FailureKind::Compile | FailureKind::Error)
        || lines
            .iter()
            .any(|line| line.lower.starts_with("e  ") && line.lower.contains("modulenotfounderror"));
    if !is_general {
        return kind;
    }
    let tells = |tables: &[&[Phrase]]| {
        tables.iter().any(|phrases| lines.iter().any(|line| has(phrases, &line.lower)))
    };
    ABOUT.iter().find(|(_, tables)| tells(tables)).map_or(kind, |(kind, _)| *kind)
}

fn has(phrases: &[Phrase], lower: &str) -> bool {
    phrases.iter().any(|phrase| phrase.is_in(lower))
}

/// Lines that say nothing of a cause.
fn is_noise(text: &str, lower: &str) -> bool {
    if !lower.contains(is_word) || is_make_noise(lower) || has(say::NOISE, lower) {
        return true;
    }
    let error = error_at(text);
    let warns = lower.find("warning:").is_some_and(|warning| {
        let offset = text.len() - text.trim_start().len();
        error.is_none_or(|error| warning + offset < error)
    });
    // The word is also how `sha256sum` tells a failure.
    let warns = warns && !has(say::CHECKSUM, lower);
    warns || (error.is_none() && text.contains("-Werror")) || counts(lower, &["error"], |number| number == 0)
}

/// What make says once something has failed, and where it is: `make[1]: *** [Makefile:9: a.o] Error 1`.
fn is_make_noise(lower: &str) -> bool {
    let Some(rest) = lower.strip_prefix("gmake").or_else(|| lower.strip_prefix("make")) else { return false };
    let rest =
        rest.strip_prefix('[').map_or(rest, |level| level.trim_start_matches(|c: char| c.is_ascii_digit()));
    let rest = rest.strip_prefix(']').unwrap_or(rest);
    let Some(said) = rest.strip_prefix(": ") else { return false };
    let tells_code = said.starts_with("*** [") || said.starts_with('[');
    (tells_code && said.contains("] error "))
        || said.starts_with("entering")
        || said.starts_with("leaving")
        || said.starts_with("*** waiting for unfinished jobs")
        || (said.starts_with("target ") && said.contains("not remade"))
}

/// Where `error:`, `error[E0425]:` or `error TS2304:` stands as a word of its own: file names such as `error.c` are none.
fn error_at(text: &str) -> Option<usize> {
    text.match_indices("error").map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).and_then(|before| before.chars().next_back());
        let after = text.get(at + "error".len()..).unwrap_or_default();
        before.is_none_or(|before| before.is_whitespace() || before == ':')
            && (after.starts_with(':') || has_code(after))
    })
}

/// `[E0425]:` of rustc, ` TS2304:` and ` CS0103:` of others.
fn has_code(text: &str) -> bool {
    let (text, close) = match text.strip_prefix('[') {
        Some(text) => (text, "]:"),
        None => (text.strip_prefix(' ').unwrap_or_default(), ":"),
    };
    let number = text.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
    number.len() < text.len() && rest.len() < number.len() && rest.starts_with(close)
}

fn tells_wrong_checksum(line: &Line) -> bool {
    let is_other_commit = line.lower.starts_with("git-checkout: ") && line.lower.contains(", expected was ");
    is_other_commit || has(say::CHECKSUM, &line.lower)
}

fn tells_compiler_error(line: &Line) -> bool {
    error_at(&line.text).is_some()
        || has(say::COMPILE, &line.lower)
        || has_place(&line.lower, ".go:", ": ")
        || has_place(&line.lower, ".s:", ": error: ")
        || (line.lower.starts_with("[error] ") && line.lower.contains(".java:["))
}

/// Whether a place in a file follows its ending, and `then` follows the place: `main.go:5:2: undefined: x`.
fn has_place(lower: &str, ending: &str, then: &str) -> bool {
    lower.match_indices(ending).any(|(at, _)| {
        let place = lower.get(at + ending.len()..).unwrap_or_default();
        let rest = place.trim_start_matches(|c: char| c.is_ascii_digit());
        // Go tells the line and the column of what it cannot compile, and only the line of what a test logs.
        let rest = match (ending, rest.strip_prefix(':')) {
            (".go:", Some(column)) => {
                let rest = column.trim_start_matches(|c: char| c.is_ascii_digit());
                if rest.len() == column.len() { return false } else { rest }
            }
            _ => rest,
        };
        rest.len() < place.len() && rest.starts_with(then)
    })
}

fn tells_failed_test(line: &Line) -> bool {
    let text = line.text.trim();
    has(say::TEST, &line.lower)
        || begins_with_failure(text)
        || text.starts_with("E   ")
        || (text.ends_with(" FAILED")
            && (text.starts_with("test ") || (text.contains(" > ") && !text.starts_with('>'))))
        || is_meson_failure(text)
        || counts(&line.lower, &["failed", "test failed", "tests failed"], |number| number > 0)
}

/// `FAIL: x`, `FAILED x`, `--- FAIL: x`, `not ok 3`; not ninja's `FAILED: x.o`, nor tests that are known to fail.
fn begins_with_failure(text: &str) -> bool {
    let Some(rest) = ["FAILED", "FAIL", "--- FAIL", "not ok"].iter().find_map(|word| text.strip_prefix(word))
    else {
        return false;
    };
    let is_ninja = text.starts_with("FAILED: ");
    let is_expected = rest.to_ascii_lowercase().contains("# todo");
    !rest.starts_with(is_word) && !is_ninja && !is_expected
}

/// `3/12 suite - name  FAIL  0.02s  exit status 1`.
fn is_meson_failure(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len()
        && rest.starts_with('/')
        && (text.contains(" FAIL ") || text.contains(" TIMEOUT "))
}

/// Whether the text counts `things`, such as `3 tests failed`, and the number is one that counts.
fn counts(lower: &str, things: &[&str], is_counted: impl Fn(u64) -> bool) -> bool {
    let mut rest = lower;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let from = rest.get(at..).unwrap_or_default();
        let after = from.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = from.get(..from.len() - after.len()).unwrap_or_default();
        let before = rest.get(..at).unwrap_or_default();
        // `try 2 failed` tells a number, not a count.
        let is_ordinal = ["try ", "attempt "].iter().any(|word| before.ends_with(word));
        let stands_alone = !is_ordinal && !before.ends_with(|c| is_word(c) || c == '.');
        let is_thing = after.strip_prefix(' ').is_some_and(|after| {
            things.iter().any(|thing| {
                after
                    .strip_prefix(thing)
                    .is_some_and(|end| !end.strip_prefix('s').unwrap_or(end).starts_with(is_word))
            })
        });
        // A count that is too long for a number is not zero.
        if stands_alone && is_thing && is_counted(digits.parse().unwrap_or(u64::MAX)) {
            return true;
        }
        rest = after;
    }
    false
}

/// A line that says of itself that it tells of an error.
fn tells_error(line: &Line) -> bool {
    has(say::ERROR, &line.lower) || error_at(&line.lower).is_some() || names_exception(line.text.trim())
}

/// `ValueError: x`, `subprocess.CalledProcessError: x`, `java.io.IOException: x` at the beginning.
fn names_exception(text: &str) -> bool {
    let name = text.split(|c: char| !(is_word(c) || c == '.')).next().unwrap_or_default();
    let after = text.get(name.len()..).unwrap_or_default();
    let is_exception = name.ends_with("Error") || name.ends_with("Exception");
    is_exception && (after.is_empty() || after.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(log: &str) -> Option<(usize, FailureKind)> {
        let lines: Vec<Line> =
            log.lines().zip(1..).map(|(line, number)| Line::new(Some(number), line)).collect();
        find(&lines).map(|found| (found.index, found.kind))
    }

    #[test]
    fn kinds_are_looked_for_in_their_order() {
        let said = [
            (FailureKind::Error, "ERROR: no"),
            (FailureKind::Signal, "Segmentation fault (core dumped)"),
            (FailureKind::Memory, "Killed"),
            (FailureKind::Space, "No space left on device"),
            (FailureKind::Network, "Could not resolve host: x"),
            (FailureKind::Missing, "sh: x: not found"),
            (FailureKind::Test, "FAIL: x"),
            (FailureKind::Compile, "a.c:1:1: error: x"),
            (FailureKind::Patch, "1 out of 3 hunks FAILED -- saving rejects to file x.rej"),
            (FailureKind::Checksum, "checksum mismatch"),
            (FailureKind::Solver, "nothing provides x"),
        ];
        let mut log = "text\n".to_owned();
        assert_eq!(found(&log), Some((0, FailureKind::Other)));
        for (index, (kind, line)) in said.iter().enumerate() {
            log.push_str(&format!("{line}\n"));
            assert_eq!(found(&log), Some((index + 1, *kind)), "{line}");
        }
        for (index, (_, line)) in said.iter().enumerate() {
            log.push_str(&format!("{line} again {index}\n"));
        }
        assert_eq!(found(&log), Some((11, FailureKind::Solver)));
    }

    #[test]
    fn the_first_line_of_a_kind_counts() {
        assert_eq!(found("a.c:1: error: x\nb.c:1: error: y"), Some((0, FailureKind::Compile)));
    }

    #[test]
    fn noise_says_nothing() {
        for line in [
            "make: *** [Makefile:9: a.o] Error 1",
            "make[2]: *** [a.o] Error 127",
            "gmake[1]: [Makefile:3: clean] Error 1 (ignored)",
            "make[1]: Entering directory '/x'",
            "make: *** Waiting for unfinished jobs....",
            "make: Target 'all' not remade because of errors.",
            "ninja: build stopped: subcommand failed.",
            "a.c:1:1: warning: error: is a word",
            "WARNING: not so good",
            "gcc -Wall -Werror -c error_handling.c",
            "0 errors, 3 warnings",
            "cc1: all warnings being treated as errors",
            "checking for x... not found: no",
            "-----",
            "",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn what_looks_like_noise_may_say_something() {
        for (line, kind) in [
            ("a.c:1:1: error: unused variable 'x' [-Werror=unused-variable]", FailureKind::Compile),
            ("a.c:1:1: error: #warning: x", FailureKind::Compile),
            ("src/error.c:1:1: error: x", FailureKind::Compile),
            ("10 errors generated.", FailureKind::Other),
            ("compiling error_handling.c", FailureKind::Other),
            ("make: *** No rule to make target 'x', needed by 'all'.  Stop.", FailureKind::Missing),
            ("make: *** [Makefile:9: a.o] Killed", FailureKind::Memory),
            ("makefile: error: x", FailureKind::Compile),
        ] {
            assert_eq!(found(line), Some((0, kind)), "{line}");
        }
    }

    #[test]
    fn errors_of_compilers() {
        for line in [
            "error[E0425]: cannot find value `x` in this scope",
            "src/a.ts(3,5): error TS2304: Cannot find name 'x'.",
            "./main.go:10:2: undefined: foo",
            "a.s:12: Error: no such instruction: `x'",
            "[ERROR] /home/build/A.java:[5,9] cannot find symbol",
            "  File \"x.py\", line 1: SyntaxError: invalid syntax",
        ] {
            assert_eq!(found(line), Some((0, FailureKind::Compile)), "{line}");
        }
        assert_eq!(found("    x_test.go:12: got 1"), Some((0, FailureKind::Other)));
        assert_eq!(found("main.go:10:x: got 1"), Some((0, FailureKind::Other)));
        assert_eq!(found("an error occurred, terror: none"), Some((0, FailureKind::Other)));
    }

    #[test]
    fn tests_that_fail_and_tests_that_do_not() {
        for line in [
            "not ok 3 - x",
            "FAILED (failures=1)",
            "    --- FAIL: TestX/sub (0.00s)",
            " 3/12 suite - x   FAIL   0.02s   exit status 1",
            "MyTest > works() FAILED",
            "test tests::works ... FAILED",
            "3 tests failed",
            "99999999999999999999999999 failed",
        ] {
            assert_eq!(found(line), Some((0, FailureKind::Test)), "{line}");
        }
        for line in [
            "not ok 3 - x # todo later",
            "100% tests passed, 0 tests failed out of 12",
            "ok. 5 passed; 0 failed; 0 ignored",
            "FAILURES are none",
            "XFAIL: x",
            "v1.1 failed", // a version, not a count
            "got 3, expected was 4",
            "try 1 failed, the next one comes in 5 s",
            "s UNSATISFIABLE",
            "Resolving deltas: 100% (5/5), done.",
        ] {
            assert_eq!(found(line), Some((0, FailureKind::Other)), "{line}");
        }
    }

    #[test]
    fn what_only_follows_gives_way() {
        let log = "error: linking with `cc` failed: exit status: 1\n  = note: /usr/bin/ld: cannot find -lz: No such file";
        assert_eq!(found(log), Some((1, FailureKind::Missing)));
        assert_eq!(found("error: linking with `cc` failed: exit status: 1"), Some((0, FailureKind::Compile)));
    }

    #[test]
    fn a_head_goes_on_in_the_next_line_that_has_words() {
        let lines = ["ERROR: unable to select packages:", "", "  so:libfoo.so.3 (no such package):", "x"];
        let lines: Vec<Line> = lines.iter().map(|line| Line::new(None, line)).collect();
        let found = find(&lines);
        assert_eq!(found, Some(Found { index: 0, continues: Some(2), kind: FailureKind::Solver }));
        assert_eq!(continuation(&lines, 3), None);
        assert_eq!(continuation(&lines[..1], 0), None);
    }
}
