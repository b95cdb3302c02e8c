//! Rules about what is in files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::LazyLock;

use regex::Regex;
use sha2::{Digest, Sha256};

use super::elf::{self, Elf};
use super::paths::matches;
use super::{Found, Subject, Walked, base_name, ending, word};
use crate::analysis::lint::details::{LintDetails, LintedArch, LintedCopies, human_size};
use crate::apk::tree::{Content, EntryKind};

/// Files below it may be there twice.
const DUPLICATE_BYTES_MIN: u64 = 1_024;

/// Names of licences, statements of copyright and patents, which many folders have.
static LICENSE_FILE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let kinds = r"(?:(?:un)?licen[sc]e|copy(?:ing|right))";
    let last = r"(?:\.[^./]+)?";
    let doubled = r"(?:\.\.(?:md|markdown|txt|html))";
    Regex::new(&format!(
        "(?i)^(?:{kinds}(?:{last}|{doubled})|{kinds}[-_][^.]*{last}|[0-9a-z_]+[-_]{kinds}[^.]*{last}\
         |ofl(?:{last}|{doubled})|patents{last})$"
    ))
    .ok()
});
/// A version in the middle of a name, which makes no difference.
static VERSION_PART: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"-[0-9]+\.[0-9]+\.[0-9]+-").ok());

fn is_license_file(path: &str) -> bool {
    let name = base_name(path);
    let plain = VERSION_PART.as_ref().map_or(name.into(), |version| version.replace_all(name, "-"));
    matches(&LICENSE_FILE, &plain)
        && ![".xml", ".go", ".gemspec", ".spdx", ".header"].contains(&ending(&plain))
}

fn elves<'s>(subject: &'s Subject<'_>) -> io::Result<&'s [Elf]> {
    if let Some(known) = subject.elves.get() {
        return Ok(known);
    }
    let found = elf::all(subject)?;
    Ok(subject.elves.get_or_init(|| found))
}

/// Damaged files are none of this rule's.
pub(super) fn binary_arch(subject: &Subject<'_>) -> io::Result<Option<Found>> {
    let foreign = elves(subject)?.iter().filter_map(|elf| {
        let arch = elf::unsupported_machine(elf.facts.as_ref().ok()?.machine)?;
        Some(LintedArch { path: elf.path.clone(), arch })
    });
    let binaries: Vec<LintedArch> = foreign.collect();
    let count = binaries.len();
    let message = || {
        let word = word(count, "binary", "binaries");
        format!("{} contains {count} {word} compiled for unsupported architecture(s)", subject.package)
    };
    Ok(if binaries.is_empty() { None } else { Found::with(message(), LintDetails::Binaries { binaries }) })
}

/// The first damaged file is the finding, as melange looks no further then.
pub(super) fn strip(subject: &Subject<'_>) -> io::Result<Option<Found>> {
    let mut binaries = Vec::new();
    for elf in elves(subject)? {
        match &elf.facts {
            Ok(facts) if facts.has_debug => binaries.push(elf.path.clone()),
            Ok(_) => {}
            Err(cause) => {
                return Ok(Found::plain(format!(
                    "could not open file {:?} as executable: {cause}",
                    elf.path
                )));
            }
        }
    }
    let count = binaries.len();
    let message = || {
        let word = word(count, "binary", "binaries");
        format!("{} contains {count} unstripped {word}", subject.package)
    };
    Ok(if binaries.is_empty() { None } else { Found::with(message(), LintDetails::Unstripped { binaries }) })
}

/// What can be a duplicate: regular files of some size that are no licences.
fn comparable<'s>(file: &'s Walked<'_>) -> Option<(&'s str, &'s Content)> {
    let EntryKind::File(content) = &file.entry.kind else { return None };
    let counts = content.size() >= DUPLICATE_BYTES_MIN && !is_license_file(&file.path);
    counts.then_some((file.path.as_str(), content))
}

fn hash(subject: &Subject<'_>, content: &Content) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    io::copy(&mut subject.tree.open(content), &mut hasher)?;
    Ok(hasher.finalize().into())
}

pub(super) fn duplicate(subject: &Subject<'_>) -> io::Result<Option<Found>> {
    // Only what agrees in name and size can be equal: nothing else is read.
    let mut alike: BTreeMap<(&str, u64), Vec<(&str, &Content)>> = BTreeMap::new();
    for (path, content) in subject.entries.iter().filter_map(comparable) {
        alike.entry((base_name(path), content.size())).or_default().push((path, content));
    }
    let mut duplicates = Vec::new();
    for ((name, size), files) in alike.into_iter().filter(|(_, files)| files.len() > 1) {
        let mut equal: BTreeMap<[u8; 32], BTreeSet<&str>> = BTreeMap::new();
        for (path, content) in files {
            equal.entry(hash(subject, content)?).or_default().insert(path);
        }
        let sets = equal.into_values().filter(|paths| paths.len() > 1);
        duplicates.extend(sets.map(|paths| copies(name, size, &paths)));
    }
    if duplicates.is_empty() {
        return Ok(None);
    }
    duplicates.sort_by(|a, b| {
        let order = b.wasted_bytes.cmp(&a.wasted_bytes);
        order.then_with(|| (&a.basename, &a.paths).cmp(&(&b.basename, &b.paths)))
    });
    let total = duplicates.iter().fold(0u64, |sum, set| sum.saturating_add(set.wasted_bytes));
    let message = format!(
        "{} contains {} duplicate file(s) with same name in different directories (wasting {} total):",
        subject.package,
        duplicates.len(),
        human_size(total)
    );
    let details = LintDetails::Copies {
        total_duplicate_sets: u64::try_from(duplicates.len()).unwrap_or(u64::MAX),
        total_wasted_bytes: total,
        total_wasted_size: human_size(total),
        duplicates,
    };
    Ok(Found::with(message, details))
}

fn copies(name: &str, size: u64, paths: &BTreeSet<&str>) -> LintedCopies {
    let count = u64::try_from(paths.len()).unwrap_or(u64::MAX);
    let wasted = size.saturating_mul(count.saturating_sub(1));
    LintedCopies {
        basename: name.to_owned(),
        count,
        size_bytes: size,
        size: human_size(size),
        wasted_bytes: wasted,
        wasted_size: human_size(wasted),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_seen_from_their_names() {
        assert!(LICENSE_FILE.is_some() && VERSION_PART.is_some());
        for name in [
            "LICENSE",
            "licence.txt",
            "UNLICENSE",
            "COPYING.LESSER",
            "copyright",
            "LICENSE-MIT",
            "COPYING_x.y",
            "MIT-LICENSE-x.txt",
            "OFL.txt",
            "PATENTS",
            "LICENSE-1.2.3-x",
        ] {
            assert!(is_license_file(&format!("usr/share/{name}")), "{name}");
        }
        for name in ["LICENSE.xml", "LICENSES", "a.LICENSE", "LICENSE.a.b", "license.go", "README", "OFLx"] {
            assert!(!is_license_file(&format!("usr/share/{name}")), "{name}");
        }
    }
}
