//! The files with the texts of licences that a definition names as `license-path`: checked before anything runs, read
//! when all steps have.

use std::collections::{BTreeMap, BTreeSet};

use crate::apk::tree::{EntryKind, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::guest;
use crate::limits;
use crate::melange::plan::{PlanCopyright, PlanPackage};

/// The files that a package names, by their plain paths.
///
/// # Errors
/// `InvalidRequest` for a path that leaves the workspace, `LimitExceeded` for too many.
pub(super) fn files(package: &PlanPackage) -> Result<Vec<String>> {
    let named = package.copyright.iter().filter(|entry| !entry.license_path.is_empty());
    let files: BTreeSet<String> = named.map(plain_path).collect::<Result<_>>()?;
    if files.len() > limits::LICENSE_FILES_MAX {
        let message = format!("more than {} files are named as `license-path`", limits::LICENSE_FILES_MAX);
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(files.into_iter().collect())
}

/// Their texts, by the paths as the definition has them.
///
/// # Errors
/// As [`files`], and for files that are not there or too large.
pub(super) fn texts(package: &PlanPackage, output: &Tree) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let mut left = limits::LICENSE_TEXTS_BYTES_MAX;
    for entry in package.copyright.iter().filter(|entry| !entry.license_path.is_empty()) {
        if texts.contains_key(&entry.license_path) {
            continue;
        }
        let path = plain_path(entry)?;
        let found = output.get(&format!("{}/{path}", guest::LICENSE_FILES));
        let Some(EntryKind::File(content)) = found.map(|entry| &entry.kind) else {
            return Err(Error::invalid(guest::lacks_license_file(&path)));
        };
        if content.size() > limits::LICENSE_TEXT_BYTES_MAX {
            let message = format!("the text of a licence, {path}, is too large");
            return Err(Error::new(ErrorKind::LimitExceeded, message)
                .with("bytes_max", limits::LICENSE_TEXT_BYTES_MAX));
        }
        left = left.checked_sub(content.size()).ok_or_else(|| {
            let most = limits::LICENSE_TEXTS_BYTES_MAX;
            Error::new(ErrorKind::LimitExceeded, "the texts of the licences are too large together")
                .with("bytes_max", most)
        })?;
        let bytes = output
            .read(content, limits::LICENSE_TEXT_BYTES_MAX)
            .map_err(|e| Error::unexpected("cannot read the text of a licence").source(e))?;
        texts.insert(entry.license_path.clone(), String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(texts)
}

/// The path without `.`, `..` and empty parts.
fn plain_path(entry: &PlanCopyright) -> Result<String> {
    let path = entry.license_path.as_str();
    let refuse = |what: &str| {
        Error::invalid(format!("the `license-path` {path:?} {what}"))
            .hint("name a file below the workspace, such as LICENSE or <name>-<version>/COPYING")
    };
    if path.len() > limits::TREE_PATH_BYTES_MAX || path.contains(|c: char| c.is_control()) {
        return Err(refuse("is too long or holds control characters"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(|| refuse("leaves the workspace"))?),
            part => parts.push(part),
        }
    }
    if path.starts_with('/') {
        return Err(refuse("is not relative to the workspace"));
    }
    if parts.is_empty() {
        return Err(refuse("is no file"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(paths: &[&str]) -> PlanPackage {
        let entry =
            |path: &&str| PlanCopyright { license_path: (*path).to_owned(), ..PlanCopyright::default() };
        PlanPackage { copyright: paths.iter().map(entry).collect(), ..PlanPackage::default() }
    }

    #[test]
    fn paths_stay_in_the_workspace() {
        assert_eq!(files(&package(&["b", "", "./a//x/../y", "b"])).unwrap(), ["a/y", "b"]);
        for path in ["/etc/passwd", "../x", "a/../../x", "a/..", ".", "a\0b"] {
            let error = files(&package(&[path])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{path}");
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn texts_are_read_and_bounded() {
        let mut output = Tree::default();
        output.add_file(".licenses/a", 0o644, b"one\xff").unwrap();
        output.add_file(".licenses/large", 0o644, &vec![b'x'; (16 << 20) + 1]).unwrap();
        output.add_file("b", 0o644, b"not this").unwrap();
        let texts = |path| texts(&package(&[path]), &output);
        assert_eq!(texts("./a").unwrap(), BTreeMap::from([("./a".to_owned(), "one\u{fffd}".to_owned())]));
        assert_eq!(texts("b").unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(texts("large").unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
