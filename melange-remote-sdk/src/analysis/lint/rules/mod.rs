//! The rules, one function each; what they look at is melange's, oddities included, for a package must fare alike with
//! both.

use std::cell::OnceCell;
use std::io;

use super::details::LintDetails;
use super::{Linter, TestSteps};
use crate::apk::tree::{EntryKind, Tree, TreeEntry};

mod content;
mod elf;
mod names;
mod paths;
mod places;
mod python;

#[cfg(test)]
mod tests;

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) message: String,
    pub(super) details: Option<LintDetails>,
}

impl Found {
    fn plain(message: impl Into<String>) -> Option<Self> {
        Some(Self { message: message.into(), details: None })
    }

    fn with(message: impl Into<String>, details: LintDetails) -> Option<Self> {
        Some(Self { message: message.into(), details: Some(details) })
    }
}

/// An entry of a package with its path.
#[derive(Debug, Clone)]
pub(super) struct Walked<'a> {
    pub(super) path: String,
    pub(super) entry: &'a TreeEntry,
}

impl Walked<'_> {
    fn is_directory(&self) -> bool {
        self.entry.kind == EntryKind::Directory
    }

    fn is_regular(&self) -> bool {
        matches!(self.entry.kind, EntryKind::File(_))
    }

    /// Documents that the build writes itself.
    fn is_ignored(&self) -> bool {
        self.path.starts_with("var/lib/db/sbom/")
    }
}

/// The last part of a path.
fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// What stands before the last part; `.` when nothing does.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

/// The last dot of a name and what follows; empty without one. A name that begins with its only dot is all ending.
fn ending(path: &str) -> &str {
    let name = base_name(path);
    name.rfind('.').map_or("", |at| &name[at..])
}

/// A package while it is looked at.
pub(super) struct Subject<'a> {
    /// Its name.
    package: &'a str,
    tree: &'a Tree,
    tests: &'a TestSteps,
    /// Its entries in order: a folder's content behind it, siblings by their bytes.
    entries: Vec<Walked<'a>>,
    /// Its programs and libraries, which two rules look at.
    elves: OnceCell<Vec<elf::Elf>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(package: &'a str, tree: &'a Tree, tests: &'a TestSteps) -> Self {
        let entries = tree.iter().map(|(path, entry)| Walked { path: path.joined(), entry }).collect();
        Self { package, tree, tests, entries, elves: OnceCell::new() }
    }

    /// Whatever is not a folder.
    fn files(&self) -> impl Iterator<Item = &Walked<'a>> {
        self.entries.iter().filter(|entry| !entry.is_directory())
    }

    /// The paths of files that `is_meant` picks.
    fn paths(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        self.files().map(|file| &file.path).filter(|path| is_meant(path)).cloned().collect()
    }

    /// Whether the package's name ends so.
    fn is(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.package.ends_with(ending))
    }
}

/// `one` for a single thing, `more` for several.
fn word<'w>(count: usize, one: &'w str, more: &'w str) -> &'w str {
    if count > 1 { more } else { one }
}

/// Runs one linter.
pub(super) fn run(linter: Linter, subject: &Subject<'_>) -> io::Result<Option<Found>> {
    Ok(match linter {
        Linter::BinaryArch => content::binary_arch(subject)?,
        Linter::CudaRuntimeLib => paths::cuda_runtime_lib(subject),
        Linter::Dev => places::dev(subject),
        Linter::Dll => paths::dll(subject),
        Linter::Documentation => paths::documentation(subject),
        Linter::Duplicate => content::duplicate(subject)?,
        Linter::Dylib => paths::dylib(subject),
        Linter::Empty => paths::empty(subject),
        Linter::InfoDir => places::info_dir(subject),
        Linter::LddCheck => paths::ldd_check(subject),
        Linter::LaFiles => paths::la_files(subject),
        Linter::ManInfo => paths::man_info(subject),
        Linter::NonLinux => names::non_linux(subject),
        Linter::Object => paths::object(subject),
        Linter::Opt => places::opt(subject),
        Linter::PkgConf => paths::pkg_conf(subject),
        Linter::PythonDocs => python::docs(subject),
        Linter::PythonMultiple => python::multiple(subject),
        Linter::PythonTest => python::test(subject),
        Linter::Sbom => places::sbom(subject),
        Linter::SetUidGid => places::set_uid_gid(subject),
        Linter::Srv => places::srv(subject),
        Linter::StaticArchive => paths::static_archive(subject),
        Linter::Strip => content::strip(subject)?,
        Linter::TempDir => places::temp_dir(subject),
        Linter::UnsupportedArch => names::unsupported_arch(subject),
        Linter::UsrLocal => places::usr_local(subject),
        Linter::UsrMerge => places::usr_merge(subject),
        Linter::VarEmpty => places::var_empty(subject),
        Linter::WorldWrite => places::world_write(subject),
    })
}
