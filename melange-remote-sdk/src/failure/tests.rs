//! Diagnoses as a whole: equal and different failures, known causes, extracts, bounds.

use proptest::prelude::*;

use super::*;
use crate::limits::FAILURE_LINE_BYTES;

mod builds;
mod languages;
mod sources;

/// The lines with numbers from 1.
fn numbered<'a>(lines: &[&'a str]) -> Vec<FailureLine<'a>> {
    lines.iter().zip(1..).map(|(text, number)| FailureLine { number, text }).collect()
}

/// The diagnosis of a step's log.
fn of_lines(lines: &[&str]) -> Failure {
    let lines = numbered(lines);
    let mut input = FailureInput::new(FailureClass::Build, "the step `make` failed with exit code 2");
    input.step = Some("autoconf/make");
    input.package = "groff";
    input.lines = &lines;
    diagnose(&input)
}

fn of_log(log: &str) -> Failure {
    of_lines(&log.lines().collect::<Vec<_>>())
}

/// One typical failure: its name, the log of its step, the kind, and the normalised line.
type Typical = (&'static str, &'static str, FailureKind, &'static str);

fn each_is_told(cases: &[Typical]) {
    let told = cases.iter().map(|(name, log, ..)| {
        let failure = of_log(log);
        format!("{name}: {} {}", failure.kind.name(), failure.normalised)
    });
    let expected = cases.iter().map(|(name, _, kind, line)| format!("{name}: {} {line}", kind.name()));
    let wrong: Vec<(String, String)> =
        told.zip(expected).filter(|(told, expected)| told != expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// At most a tenth of the typical failures may be of no known kind.
#[test]
fn typical_failures_are_of_known_kinds() {
    let cases: Vec<&Typical> =
        [builds::CASES, languages::CASES, sources::CASES].into_iter().flatten().collect();
    let unknown = cases
        .iter()
        .filter(|(_, log, ..)| matches!(of_log(log).kind, FailureKind::Other | FailureKind::Silent))
        .count();
    assert!(cases.len() >= 25 && unknown * 10 <= cases.len(), "{unknown} of {}", cases.len());
}

/// No two of them are in one group.
#[test]
fn typical_failures_are_told_apart() {
    let cases: Vec<&Typical> =
        [builds::CASES, languages::CASES, sources::CASES].into_iter().flatten().collect();
    let signatures: std::collections::BTreeSet<String> =
        cases.iter().map(|(_, log, ..)| of_log(log).signature).collect();
    assert_eq!(signatures.len(), cases.len());
}

/// Pairs of logs, and whether they fail of the same.
const PAIRS: [(bool, &[&str], &[&str]); 14] = [
    (
        true,
        &[
            "gcc -c a.c",
            "src/a.c:12:3: error: implicit declaration of function 'foo'",
            "make: *** [Makefile:9: a.o] Error 1",
        ],
        &[
            "src/a.c:99:7: error: implicit declaration of function 'foo'",
            "make[2]: *** [Makefile:77: a.o] Error 1",
        ],
    ),
    (false, &["a.c:1:1: error: unknown type name 'u8'"], &["a.c:1:1: error: unknown type name 'u16'"]),
    (
        true,
        &["sha256 checksum mismatch: expected sha256:aa11bb22cc33 got sha256:dd44ee55ff66"],
        &["sha256 checksum mismatch: expected sha256:0011aa22 got sha256:99887766"],
    ),
    (
        true,
        &["curl: (6) Could not resolve host: ftp.gnu.org"],
        &["curl: (6) Could not resolve host: ftp.gnu.org"],
    ),
    (
        false,
        &["curl: (6) Could not resolve host: ftp.gnu.org"],
        &["curl: (6) Could not resolve host: github.com"],
    ),
    (
        true,
        &["/home/build/x-1.2/foo/bar/baz.h: No such file or directory"],
        &["/var/tmp/guest-18273/foo/bar/baz.h: No such file or directory"],
    ),
    (
        true,
        &["thread 'main' panicked at src/main.rs:10:5:"],
        &["thread 'main' panicked at src/main.rs:44:9:"],
    ),
    (
        true,
        &["\u{1b}[31m\u{1b}[1merror\u{1b}[0m: linking with `cc` failed: exit status: 1"],
        &["error: linking with `cc` failed: exit status: 1"],
    ),
    (
        true,
        &["unable to select packages: so:libfoo.so.3 (no such package)"],
        &["unable to select packages: so:libfoo.so.3 (no such package)"],
    ),
    (
        false,
        &["unable to select packages: so:libfoo.so.3 (no such package)"],
        &["unable to select packages: so:libbar.so.1 (no such package)"],
    ),
    (
        false,
        &["unable to select packages: so:libfoo.so.3 (no such package)"],
        &["unable to select packages: so:libfoo.so.4 (no such package)"],
    ),
    (
        true,
        &["cp: cannot stat 'x': No such file or directory", "2026-11-25T10:00:01Z done in 3.21s"],
        &["cp: cannot stat 'x': No such file or directory", "2026-11-26T11:22:33Z done in 4s"],
    ),
    (
        true,
        &["1 out of 3 hunks FAILED -- saving rejects to file configure.ac.rej"],
        &["2 out of 9 hunks FAILED -- saving rejects to file configure.ac.rej"],
    ),
    (
        true,
        &["cc1: warning: x", "compiling error_handling.c", "ld: cannot find -lz: No such file or directory"],
        &["compiling error_handling.c", "ld: cannot find -lz: No such file or directory"],
    ),
];

#[test]
fn failures_of_the_same_have_one_signature_and_others_have_not() {
    for (is_same, one, two) in PAIRS {
        let (one, two) = (of_lines(one), of_lines(two));
        assert_eq!(one.signature == two.signature, is_same, "{:?} {:?}", one.normalised, two.normalised);
    }
}

/// A changed signature tears groups apart: it takes a new [`SIGNATURE_VERSION`].
#[test]
fn signatures_stay_as_they_are() {
    let failure = of_lines(&["a.c:1:1: error: unknown type name 'u8'"]);
    assert_eq!((failure.version, failure.signature.as_str()), (1, "c5c5ed2fcca62d12"));
    let failure = diagnose(&FailureInput::new(FailureClass::Infrastructure, "connection refused"));
    assert_eq!((failure.version, failure.signature.as_str()), (1, "c1262451f16af846"));
}

#[test]
fn class_step_kind_and_line_make_the_signature() {
    let lines = numbered(&["groff: error: x"]);
    let mut input = FailureInput::new(FailureClass::Build, "it failed");
    input.step = Some("autoconf/make");
    input.package = "groff";
    input.lines = &lines;
    let signature = |input: &FailureInput<'_>| diagnose(input).signature;
    let first = signature(&input);
    assert_eq!((first.len(), first.clone()), (SIGNATURE_DIGITS, signature(&input)));
    assert_ne!(first, signature(&FailureInput { step: Some("cmake/build"), ..input }));
    assert_ne!(first, signature(&FailureInput { class: FailureClass::Policy, ..input }));
    assert_ne!(first, signature(&FailureInput { package: "other", ..input }));
    assert_ne!(first, signature(&FailureInput { known: Some(KnownCause::Timeout), ..input }));
    let other = numbered(&["bc: error: x"]);
    assert_eq!(first, signature(&FailureInput { package: "bc", lines: &other, message: "", ..input }));
}

#[test]
fn the_extract_is_the_line_with_those_around_it() {
    let log = [
        "one",
        "two",
        "\u{1b}[1mgcc\u{1b}[0m -c a.c",
        "a.c:1:1: \u{1b}[31merror:\u{1b}[0m x",
        "5",
        "6",
        "7",
        "8",
    ];
    let failure = of_lines(&log);
    let numbers: Vec<u64> = failure.extract.iter().map(|line| line.number).collect();
    assert_eq!((failure.line, numbers), (Some(4), vec![2, 3, 4, 5, 6, 7]));
    assert_eq!(failure.text.as_deref(), Some("a.c:1:1: error: x"));
    assert_eq!(failure.extract[1].text, "gcc -c a.c");
    assert_eq!(of_lines(&["error: x"]).extract.len(), 1);
}

#[test]
fn a_step_may_say_nothing_or_nothing_known() {
    let silent = of_lines(&["", "make: *** [Makefile:9: all] Error 1"]);
    assert_eq!((silent.kind, silent.line, silent.text.as_deref()), (FailureKind::Silent, None, None));
    assert_eq!((silent.normalised.as_str(), silent.extract.len()), ("", 0));
    assert_eq!(silent.signature, of_lines(&[]).signature);
    let other = of_lines(&["one", "the moon is full", "make: *** [Makefile:9: all] Error 1"]);
    assert_eq!((other.kind, other.line), (FailureKind::Other, Some(2)));
}

#[test]
fn without_a_step_the_message_says_it() {
    let mut input = FailureInput::new(FailureClass::Build, "nothing provides \"so:libfoo.so.3\"");
    let failure = diagnose(&input);
    assert_eq!((failure.kind, failure.line), (FailureKind::Solver, None));
    assert_eq!(failure.text.as_deref(), Some(input.message));
    assert!(failure.extract.is_empty());
    let lines = numbered(&["a.c:1: error: x"]);
    input.class = FailureClass::Infrastructure;
    input.message = "the daemon: connection reset by peer";
    (input.step, input.lines) = (Some("make"), &lines);
    assert_eq!(diagnose(&input).kind, FailureKind::Network);
    assert_eq!(diagnose(&FailureInput::new(FailureClass::Build, "")).kind, FailureKind::Silent);
    assert_eq!(diagnose(&FailureInput::new(FailureClass::Dependency, "m4 failed")).kind, FailureKind::Other);
}

#[test]
fn known_causes_go_before_logs() {
    let lines = numbered(&["a.c:1: error: x", "linking", "make: *** [Makefile:9: a.o] Error 1"]);
    let mut input = FailureInput::new(FailureClass::Build, "it took longer than 2h on bk-3");
    (input.step, input.lines) = (Some("make"), &lines);
    for (known, kind, normalised) in [
        (KnownCause::Signal(11), FailureKind::Signal, "ended by signal 11"),
        (KnownCause::OutOfMemory, FailureKind::Memory, "out of memory"),
        (KnownCause::Timeout, FailureKind::Timeout, "took too long"),
        (KnownCause::Silence, FailureKind::Timeout, "silent for too long"),
        (KnownCause::LostBackend, FailureKind::LostBackend, "backend lost"),
    ] {
        input.known = Some(known);
        let failure = diagnose(&input);
        assert_eq!((failure.kind, failure.normalised.as_str()), (kind, normalised));
        assert_eq!((failure.line, failure.text.as_deref()), (Some(2), Some("linking")));
    }
    input.known = Some(KnownCause::Lint("setuidgid"));
    let lint = diagnose(&input);
    assert_eq!((lint.kind, lint.normalised.as_str(), lint.line), (FailureKind::Lint, "setuidgid", None));
    assert_eq!(lint.text.as_deref(), Some(input.message));
    input.known = Some(KnownCause::Solver);
    assert_eq!(diagnose(&input).normalised, "it took longer than <n> on bk-<n>");
    let lines = numbered(&["a.c:1: error: x", "so:libfoo.so.3: nothing provides it", "end"]);
    input.lines = &lines;
    let solver = diagnose(&input);
    assert_eq!((solver.kind, solver.line), (FailureKind::Solver, Some(2)));
    assert_eq!(solver.normalised, "so:libfoo.so.3: nothing provides it");
    input.known = Some(KnownCause::Space);
    assert_eq!(diagnose(&input).normalised, "disk full");
}

#[test]
fn an_answer_of_a_server_is_told_with_its_host() {
    let of = |request: &str| {
        of_lines(&[
            request,
            "Reusing existing connection.",
            "HTTP request sent, awaiting response... 404 Not Found",
        ])
    };
    let first = of("--2026-11-25 10:00:01--  https://ftp.gnu.org/gnu/bc.tar.gz");
    assert_eq!(first.normalised, "HTTP request sent, awaiting response... <n> Not Found <url:ftp.gnu.org>");
    assert_eq!(first.signature, of("--2026-11-26 11:11:11--  https://ftp.gnu.org/gnu/m4.tar.gz").signature);
    assert_ne!(first.signature, of("+ wget git+://x http://example.org/m4.tar.gz").signature);
    assert_eq!(of("a :// b").normalised, "HTTP request sent, awaiting response... <n> Not Found");
}

#[test]
fn only_the_last_lines_count() {
    let mut lines = vec!["a.c:1: error: x"];
    lines.resize(FAILURE_LINES, "text");
    assert_eq!(of_lines(&lines).kind, FailureKind::Compile);
    lines.push("text");
    assert_eq!(of_lines(&lines).kind, FailureKind::Other);
}

#[test]
fn it_is_kept_as_json() {
    let failure = of_lines(&["a", "b: error: x", "c"]);
    let json = serde_json::to_value(&failure).unwrap();
    assert_eq!((json["kind"].as_str(), json["line"].as_u64()), (Some("compile"), Some(2)));
    assert_eq!(serde_json::from_value::<Failure>(json).unwrap(), failure);
    for kind in [FailureKind::LostBackend, FailureKind::Other, FailureKind::Configure] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    for class in [FailureClass::Build, FailureClass::Infrastructure, FailureClass::Unschedulable] {
        assert_eq!(serde_json::to_value(class).unwrap(), class.name());
    }
}

/// Lines of what is searched for, of orders for terminals, and of anything.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![
        any::<String>(),
        "[\u{1b}\\[\\]0-9;m\u{7}\r\t \u{0}]{0,12}",
        prop::sample::select(vec![
            "error:",
            "error[E1]:",
            "make: *** [",
            "FAILED",
            ".go:1:",
            ": ",
            "0 errors",
            "9 failed",
            "warning:",
            "E   ",
            "CMake Error at x:1 (y):",
            "Killed",
            "\u{1b}[",
            "\u{1b}]",
            "é",
        ])
        .prop_map(str::to_owned),
        (0..6_000usize).prop_map(|length| "9".repeat(length)),
    ];
    let line = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    prop::collection::vec(line, 0..12)
}

fn known() -> impl Strategy<Value = Option<KnownCause<'static>>> {
    prop::sample::select(vec![
        None,
        Some(KnownCause::Signal(9)),
        Some(KnownCause::Space),
        Some(KnownCause::Solver),
        Some(KnownCause::Lint("a\u{0}b")),
    ])
}

proptest! {
    #[test]
    fn any_lines_give_a_bounded_diagnosis(
        lines in lines(), message in any::<String>(), known in known(), step in prop::option::of(any::<String>()),
        package in "[a-z0-9<-]{0,5}", class in prop::sample::select(vec![FailureClass::Build, FailureClass::Policy]),
    ) {
        let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lines = numbered(&texts);
        let step = step.as_deref();
        let input = FailureInput { class, step, package: &package, known, message: &message, lines: &lines };
        let failure = diagnose(&input);
        prop_assert!(failure.normalised.len() <= FAILURE_NORMALISED_BYTES_MAX);
        prop_assert!(!failure.normalised.contains(char::is_control));
        prop_assert!(failure.extract.len() <= FAILURE_LINES_BEFORE + 1 + FAILURE_LINES_AFTER);
        let texts = failure.extract.iter().map(|line| &line.text).chain(&failure.text);
        for text in texts {
            prop_assert!(text.len() <= FAILURE_LINE_BYTES);
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\t'));
        }
        prop_assert_eq!(failure.line.is_some(), failure.extract.iter().any(|line| Some(line.number) == failure.line));
        prop_assert_eq!(&failure, &diagnose(&input));
    }

    /// Colours make no difference.
    #[test]
    fn escape_sequences_make_no_difference(words in prop::collection::vec("[a-z:./0-9]{1,9}", 1..9)) {
        let plain = words.join(" ");
        let coloured = words.join(" \u{1b}[1;31m");
        prop_assert_eq!(of_lines(&[&plain]).signature, of_lines(&[&coloured]).signature);
    }
}
