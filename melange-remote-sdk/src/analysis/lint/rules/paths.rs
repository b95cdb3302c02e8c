//! Rules about kinds of files, seen from their names.

use std::sync::LazyLock;

use regex::Regex;

use super::{Found, Subject, Walked, ending, word};
use crate::analysis::lint::TestSteps;
use crate::analysis::lint::details::LintDetails;

/// Pages of `info`, and its directory of them.
static INFO_PAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^usr/(local/)?share/info/(dir|[^/]+\.info(-[0-9]+)?(\.(gz|bz2|xz|lzma|Z))?)$").ok()
});
/// What may follow the folder of manual pages.
static MAN_PAGE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(/man[0-9][^/]*)?(/[^/]+\.[0-9][^/]*(\.(gz|bz2|xz|lzma|Z))?)?$").ok());
const MAN_FOLDERS: [&str; 3] = ["usr/share/man", "usr/local/share/man", "usr/man"];
static DOCUMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(READ(\.?ME)?|TO(?:DO)|CREDITS|\.(md|docx?|rst|[0-9][a-z]))$").ok());

pub(super) fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Whether digits behind dots are all that follows `.so` at the end of a path: `libz.so`, `libz.so.1.3`.
fn is_shared_object(path: &str) -> bool {
    path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').ends_with(".so")
        && path.rfind(".so").is_some_and(|at| {
            let version = &path[at + 3..];
            version.is_empty() || is_version(version)
        })
}

/// `.1`, `.1.2`: numbers, each behind a dot.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('.').is_some_and(|numbers| numbers.split('.').all(is_number))
}

/// A finding of these paths, when there are any; the message is told how many.
fn found(paths: Vec<String>, message: impl FnOnce(usize) -> String) -> Option<Found> {
    if paths.is_empty() { None } else { Found::with(message(paths.len()), LintDetails::Paths { paths }) }
}

fn with_ending(subject: &Subject<'_>, wanted: &str) -> Vec<String> {
    subject.paths(|path| ending(path) == wanted)
}

pub(super) fn cuda_runtime_lib(subject: &Subject<'_>) -> Option<Found> {
    let is_driver = |path: &str| {
        ["usr/lib/libcuda.so", "usr/lib/libnvidia-ml.so"].iter().any(|library| {
            path.strip_prefix(library).is_some_and(|version| version.is_empty() || is_version(version))
        })
    };
    let package = subject.package;
    found(subject.paths(is_driver), |_| format!("{package} contains CUDA driver-specific libraries"))
}

pub(super) fn dll(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-dev"]) {
        return None;
    }
    let package = subject.package;
    found(with_ending(subject, ".dll"), |count| {
        format!("{package} contains {count} DLL {}", word(count, "file", "files"))
    })
}

pub(super) fn dylib(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-dev"]) {
        return None;
    }
    let package = subject.package;
    found(with_ending(subject, ".dylib"), |count| {
        format!("{package} contains {count} dylib {}", word(count, "file", "files"))
    })
}

pub(super) fn documentation(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-doc"]) {
        return None;
    }
    let package = subject.package;
    found(subject.paths(|path| matches(&DOCUMENT, path)), |count| {
        let word = word(count, "file", "files");
        format!("{package} contains {count} documentation {word} but is not a documentation package")
    })
}

pub(super) fn empty(subject: &Subject<'_>) -> Option<Found> {
    let is_empty = subject.files().all(Walked::is_ignored);
    if is_empty { Found::plain("package is empty but no-provides is not set") } else { None }
}

/// What a package with files that a test is wanted for lacks.
fn untested(subject: &Subject<'_>, paths: Vec<String>, what: &str, test: &str) -> Option<Found> {
    let lack = match subject.tests {
        TestSteps::Unknown => "missing .melange.yaml".to_owned(),
        TestSteps::Uses(_) => format!("{test} is not configured"),
    };
    found(paths, |_| format!("{} contains {what} but {lack}", subject.package))
}

pub(super) fn ldd_check(subject: &Subject<'_>) -> Option<Found> {
    if subject.tests.has(&["test/ldd-check", "test/tw/ldd-check"]) {
        return None;
    }
    untested(subject, subject.paths(is_shared_object), "shared objects", "test/ldd-check")
}

pub(super) fn pkg_conf(subject: &Subject<'_>) -> Option<Found> {
    if subject.tests.has(&["test/pkgconf"]) {
        return None;
    }
    let is_pkg_config =
        |path: &str| path.starts_with("usr/lib/pkgconfig/") || path.starts_with("usr/share/pkgconfig/");
    untested(subject, subject.paths(is_pkg_config), "pkgconfig files", "test/pkgconf")
}

pub(super) fn la_files(subject: &Subject<'_>) -> Option<Found> {
    let package = subject.package;
    found(with_ending(subject, ".la"), |count| {
        let word = word(count, "file", "files");
        format!(
            "{package} contains {count} libtool archive (.la) {word}. Remove them in the build pipeline; if this \
             package legitimately needs to ship .la files, disable this linter via checks.disabled"
        )
    })
}

pub(super) fn man_info(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-doc"]) {
        return None;
    }
    let is_man = |path: &str| {
        let below = |folder| path.strip_prefix(folder);
        MAN_FOLDERS.into_iter().filter_map(below).any(|rest| matches(&MAN_PAGE, rest))
    };
    let package = subject.package;
    found(subject.paths(|path| is_man(path) || matches(&INFO_PAGE, path)), |count| {
        let word = word(count, "file", "files");
        format!("{package} contains {count} man/info {word} but is not a documentation package")
    })
}

pub(super) fn object(subject: &Subject<'_>) -> Option<Found> {
    let package = subject.package;
    found(with_ending(subject, ".o"), |count| {
        let word = word(count, "file", "files");
        format!(
            "{package} contains {count} intermediate object {word}. This is usually wrong. In most cases they should \
             be removed"
        )
    })
}

/// Static archives belong into the packages that are for linking.
pub(super) fn static_archive(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-dev", "-static"]) {
        return None;
    }
    let package = subject.package;
    found(with_ending(subject, ".a"), |count| {
        let word = word(count, "archive", "archives");
        format!(
            "{package} contains {count} static {word}. Static archives bloat packages and should typically be in -dev \
             packages or removed"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_patterns() {
        for pattern in [&INFO_PAGE, &MAN_PAGE, &DOCUMENT] {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn shared_objects_are_seen_from_their_names() {
        for path in ["a.so", "usr/lib/liba.so.1", "b.so.1.20", ".so", "x.so.1.so.2"] {
            assert!(is_shared_object(path), "{path}");
        }
        for path in ["a", "a.so.", "a.so.1.", "a.so.1a", "aso.1", "a.so1", "a.so..1", "a.sox", ""] {
            assert!(!is_shared_object(path), "{path}");
        }
    }
}
