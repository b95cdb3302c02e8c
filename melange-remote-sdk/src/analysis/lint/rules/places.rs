//! Rules about where files lie and who may do what with them.

use super::{Found, Subject, folder_of, word};
use crate::analysis::lint::details::{LintDetails, LintedMode};

/// A finding when files lie below `folder`, which ends in a slash.
fn below(subject: &Subject<'_>, folder: &str, message: String) -> Option<Found> {
    let paths = subject.paths(|path| path.starts_with(folder));
    if paths.is_empty() { None } else { Found::with(message, LintDetails::Paths { paths }) }
}

pub(super) fn dev(subject: &Subject<'_>) -> Option<Found> {
    below(subject, "dev/", format!("{} writes to /dev", subject.package))
}

/// The file `dir` itself is no finding: it is one of the pages that `maninfo` looks for.
pub(super) fn info_dir(subject: &Subject<'_>) -> Option<Found> {
    below(subject, "usr/share/info/dir/", format!("{} writes to /usr/share/info/dir/", subject.package))
}

pub(super) fn opt(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-compat"]) {
        return None;
    }
    below(subject, "opt/", format!("{} writes to /opt", subject.package))
}

pub(super) fn srv(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-compat"]) {
        return None;
    }
    below(subject, "srv/", format!("{} writes to /srv", subject.package))
}

pub(super) fn usr_local(subject: &Subject<'_>) -> Option<Found> {
    if subject.is(&["-compat"]) {
        return None;
    }
    let message = format!("{} contains /usr/local path in non-compat package", subject.package);
    below(subject, "usr/local/", message)
}

pub(super) fn var_empty(subject: &Subject<'_>) -> Option<Found> {
    below(subject, "var/empty/", format!("{} writes to /var/empty", subject.package))
}

pub(super) fn sbom(subject: &Subject<'_>) -> Option<Found> {
    let is_foreign = |path: &str| folder_of(path) == "var/lib/db/sbom" && !path.ends_with(".spdx.json");
    let paths = subject.paths(is_foreign);
    let message = || format!("{} writes to var/lib/db/sbom", subject.package);
    if paths.is_empty() { None } else { Found::with(message(), LintDetails::Paths { paths }) }
}

/// Folders in `/run` may be shipped by a package whose `tmpfiles.d` makes them anew.
pub(super) fn temp_dir(subject: &Subject<'_>) -> Option<Found> {
    let has_snippet = subject.entries.iter().any(|entry| entry.path.starts_with("usr/lib/tmpfiles.d/"));
    let is_temporary = |path: &str, is_directory: bool| {
        !is_directory && (path.starts_with("tmp/") || path.starts_with("var/tmp/"))
            || path.starts_with("var/run/")
            || path.starts_with("run/") && !(is_directory && has_snippet)
    };
    let entries = subject.entries.iter();
    let found = entries.filter(|entry| is_temporary(&entry.path, entry.is_directory()));
    let paths: Vec<String> = found.map(|entry| entry.path.clone()).collect();
    let message = || format!("{} writes to a temp dir", subject.package);
    if paths.is_empty() { None } else { Found::with(message(), LintDetails::Paths { paths }) }
}

/// Folders that are links to others in a merged system.
const MERGED: [&str; 5] = ["sbin", "bin", "usr/sbin", "lib", "lib64"];

/// A package's own links of these names count too. A file of another name in the root or in `/usr` ends the look at that
/// folder, so that what sorts behind it is not seen: melange's walk does so.
pub(super) fn usr_merge(subject: &Subject<'_>) -> Option<Found> {
    let is_merged = |path: &str| {
        let below = |folder: &&str| path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/'));
        MERGED.iter().any(|folder| *folder == path || below(folder))
    };
    let mut usr_ended = false;
    let mut paths = Vec::new();
    for entry in &subject.entries {
        let path = entry.path.as_str();
        let below_usr = path.strip_prefix("usr/");
        if below_usr.is_some() && usr_ended {
            continue;
        }
        if is_merged(path) {
            paths.push(entry.path.clone());
        } else if !entry.is_directory() && path != "usr" {
            match below_usr {
                None if !path.contains('/') => break,
                Some(name) if !name.contains('/') => usr_ended = true,
                _ => {}
            }
        }
    }
    let message = "Package contains paths in violation of usrmerge:";
    if paths.is_empty() { None } else { Found::with(message, LintDetails::Paths { paths }) }
}

/// Regular files whose mode has one of `bits`, with what is said of each.
fn modes(subject: &Subject<'_>, bits: u32, told: impl Fn(u32) -> Vec<&'static str>) -> Vec<LintedMode> {
    let files = subject.entries.iter().filter(|file| file.is_regular() && file.entry.mode & bits != 0);
    files
        .map(|file| LintedMode {
            path: file.path.clone(),
            mode: format!("{:o}", file.entry.mode & 0o7777),
            permissions: told(file.entry.mode).into_iter().map(str::to_owned).collect(),
        })
        .collect()
}

pub(super) fn set_uid_gid(subject: &Subject<'_>) -> Option<Found> {
    let bits = [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")];
    let told = |mode| bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, name)| *name).collect();
    let files = modes(subject, 0o7000, told);
    let count = files.len();
    let message = || {
        let word = word(count, "file", "files");
        format!("{} contains {count} {word} with special permissions (setuid/setgid)", subject.package)
    };
    if files.is_empty() { None } else { Found::with(message(), LintDetails::Modes { files }) }
}

pub(super) fn world_write(subject: &Subject<'_>) -> Option<Found> {
    let told = |mode| {
        let mut told = vec!["world-writable"];
        if mode & 0o111 != 0 {
            told.push("executable");
        }
        told
    };
    let files = modes(subject, 0o002, told);
    let count = files.len();
    let message = || {
        let word = word(count, "file", "files");
        format!("{} contains {count} world-writeable {word}", subject.package)
    };
    if files.is_empty() { None } else { Found::with(message(), LintDetails::Modes { files }) }
}
