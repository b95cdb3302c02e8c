//! Rules about Python's `site-packages`.

use std::collections::BTreeSet;

use super::{Found, Subject, ending};
use crate::analysis::lint::details::LintDetails;

/// The names in `site-packages` of the only Python version; the finding when there are several versions.
fn site_packages<'s>(subject: &'s Subject<'_>) -> Result<Vec<&'s str>, Found> {
    let version_of = |path: &'s str| {
        let version = path.strip_prefix("usr/lib/")?.split('/').next()?;
        version.starts_with("python3.").then_some(version)
    };
    let versions: BTreeSet<&str> =
        subject.entries.iter().filter_map(|entry| version_of(&entry.path)).collect();
    if versions.len() > 1 {
        let message = format!("more than one Python version detected: {} found", versions.len());
        return Err(Found { message, details: None });
    }
    let Some(version) = versions.first() else { return Ok(Vec::new()) };
    let folder = format!("usr/lib/{version}/site-packages/");
    let names = subject.entries.iter().filter_map(|entry| entry.path.strip_prefix(&folder));
    Ok(names.filter(|name| !name.contains('/')).collect())
}

pub(super) fn docs(subject: &Subject<'_>) -> Option<Found> {
    match site_packages(subject) {
        Err(found) => Some(found),
        Ok(names) if names.iter().any(|name| matches!(*name, "doc" | "docs")) => {
            Found::plain("docs directory encountered in Python site-packages directory")
        }
        Ok(_) => None,
    }
}

pub(super) fn test(subject: &Subject<'_>) -> Option<Found> {
    match site_packages(subject) {
        Err(found) => Some(found),
        Ok(names) if names.iter().any(|name| matches!(*name, "test" | "tests")) => {
            Found::plain("tests directory encountered in Python site-packages directory")
        }
        Ok(_) => None,
    }
}

/// What a name in `site-packages` counts as; `None` for what is no module of its own. A name with an ending counts by as
/// many of its first bytes as the ending has, as melange cuts it: `six.py` is `six`, and so is `sixth.py`.
fn module(name: &str) -> Option<String> {
    let ending = ending(name);
    let is_other = name.starts_with('_')
        || matches!(name, "test" | "tests" | "doc" | "docs")
        || matches!(ending, ".egg-info" | ".dist-info" | ".pth");
    if is_other {
        return None;
    }
    let counted = if ending.is_empty() { name.len() } else { ending.len() };
    Some(quoted(name.as_bytes().get(..counted).unwrap_or_default()))
}

/// Bytes as Go quotes them: what is no printable character is escaped.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

pub(super) fn multiple(subject: &Subject<'_>) -> Option<Found> {
    let names = match site_packages(subject) {
        Err(found) => return Some(found),
        Ok(names) => names,
    };
    let modules: BTreeSet<String> = names.into_iter().filter_map(module).collect();
    if modules.len() < 2 {
        return None;
    }
    let (count, packages): (usize, Vec<String>) = (modules.len(), modules.into_iter().collect());
    let told: Vec<&str> = packages.iter().take(TOLD_MAX).map(String::as_str).collect();
    let more = if count > TOLD_MAX { ", …" } else { "" };
    let message = format!("multiple Python packages detected: {count} found ({}{more})", told.join(", "));
    Found::with(message, LintDetails::Modules { count: u64::try_from(count).unwrap_or(u64::MAX), packages })
}

/// Modules that the message names; the details have more of them.
const TOLD_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_as_melange_cuts_them() {
        for (name, counted) in [
            ("six.py", Some("\"six\"")),
            ("sixth.py", Some("\"six\"")),
            ("requests", Some("\"requests\"")),
            ("a.so", Some("\"a.s\"")),
            ("é.p", Some("\"é\"")),
            ("aé.p", Some("\"a\\xc3\"")),
            ("_yaml", None),
            ("x.pth", None),
            ("x-1.0.dist-info", None),
            ("docs", None),
        ] {
            assert_eq!(module(name).as_deref(), counted, "{name}");
        }
    }
}
