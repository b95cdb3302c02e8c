//! What a tree needs and provides, read off its files: shared objects, commands, documents, pkg-config,
//! language modules, shebangs, kernels and their modules. The results are merged with what the definition declares.

use std::cell::Cell;
use std::collections::BTreeSet;

use object::read::ReadCache;

use crate::apk::reader::ApkFile;
use crate::apk::tree::{Content, EntryKind, Tree};
use crate::error::Result;
use crate::melange::declared_package;
use crate::melange::plan::PlanPackage;
use crate::text::diagnostics::Source;

mod elf;
mod golang;
mod kernel;
mod languages;
mod pkgconfig;
#[cfg(test)]
mod tests;

use elf::ElfFacts;
pub(crate) use elf::elf_facts;

const LIBRARY_FOLDERS: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];
const COMMAND_FOLDERS: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];
const PKGCONFIG_FOLDERS: [&str; 5] = [
    "usr/lib/pkgconfig",
    "usr/lib64/pkgconfig",
    "usr/share/pkgconfig",
    "usr/local/lib/pkgconfig",
    "usr/local/share/pkgconfig",
];
/// Folders below which kernels are, and those below which their modules are.
const KERNEL_FOLDERS: [&str; 3] = ["boot/", "lib/modules/", "usr/lib/modules/"];
/// The most of a file of texts that is read.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// What of a script is looked at for its interpreter.
const SHEBANG_BYTES: u64 = 80;
/// Links that are followed from one to the next.
const LINKS_MAX: usize = 16;

/// Folders with libraries that packages may name; each link to a library is looked for in all of them.
const FOLDERS_MAX: usize = 256;

/// Names found in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Needs.
    pub runtime: BTreeSet<String>,
    /// Provides.
    pub provides: BTreeSet<String>,
    /// Libraries that only the package itself can find.
    pub vendored: BTreeSet<String>,
}

/// The final lists of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// `depend` lines.
    pub runtime: Vec<String>,
    /// `provides` lines.
    pub provides: Vec<String>,
    /// `# vendored` lines.
    pub vendored: Vec<String>,
}

/// A package's tree beside those of its siblings.
#[derive(Debug, Clone, Copy)]
pub struct ScanInput<'a> {
    /// The package.
    pub package: &'a PlanPackage,
    /// Its tree.
    pub tree: &'a Tree,
    /// The trees of main and all subpackages, in order, itself included.
    pub siblings: &'a [Tree],
}

/// What the files of a finished package need and provide, with what the definition that it carries declares. Links of a
/// development package are followed to the libraries in `others`, the packages that were made beside it.
///
/// # Errors
/// As [`ApkFile::tree`].
pub fn of_packages(apk: &ApkFile, others: &[ApkFile]) -> Result<Dependencies> {
    let carried = apk.scripts.get(".melange.yaml").and_then(|(_, text)| std::str::from_utf8(text).ok());
    let declared =
        carried.and_then(|text| declared_package(&Source::new(".melange.yaml", text), &apk.info.pkgname));
    let version = apk.info.pkgver.as_str();
    let (version, epoch) = version.rsplit_once("-r").unwrap_or((version, ""));
    let package = PlanPackage {
        name: apk.info.pkgname.clone(),
        version: version.to_owned(),
        epoch: epoch.parse().unwrap_or_default(),
        ..declared.unwrap_or_default()
    };
    let mut trees = vec![apk.tree()?];
    for other in others {
        trees.push(other.tree()?);
    }
    let [tree, ..] = &trees[..] else { return Ok(Dependencies::default()) };
    Ok(dependencies(&ScanInput { package: &package, tree, siblings: &trees }))
}

/// Scans a tree and merges the result with the declared lists.
pub fn dependencies(input: &ScanInput<'_>) -> Dependencies {
    let mut scan = Scanner {
        input,
        version: input.package.full_version(),
        library_folders: library_folders(input),
        kernel_bytes: Cell::new(kernel::PACKAGE_BYTES_MAX),
        found: Scan::default(),
    };
    scan.run();
    merge(input.package, scan.found)
}

fn merge(package: &PlanPackage, mut found: Scan) -> Dependencies {
    let is_command = |item: &String| item.starts_with("cmd:");
    if package.options.no_commands {
        found.provides.retain(|item| !is_command(item));
        found.runtime.retain(|item| !is_command(item));
    }
    if package.options.no_depends {
        found.runtime.clear();
    }
    if package.options.no_provides {
        found.provides.clear();
    }
    let before_equals = |item: &str| item.split('=').next().unwrap_or_default().to_owned();
    let vendored: BTreeSet<String> = found.vendored.iter().map(|item| before_equals(item)).collect();
    let mut runtime: BTreeSet<String> = package.runtime.iter().cloned().collect();
    runtime.extend(found.runtime.into_iter().filter(|item| !vendored.contains(&before_equals(item))));
    let mut provides: BTreeSet<String> = package.provides.iter().cloned().collect();
    provides.extend(found.provides);
    let own: BTreeSet<String> = provides.iter().map(|item| before_equals(item)).collect();
    runtime.retain(|item| !own.contains(item));
    Dependencies {
        runtime: runtime.into_iter().collect(),
        provides: provides.into_iter().collect(),
        vendored: found.vendored.into_iter().collect(),
    }
}

/// The usual library folders, then those that any sibling's `etc/ld.so.conf.d/*.conf` names, at most
/// [`FOLDERS_MAX`] of them.
fn library_folders(input: &ScanInput<'_>) -> Vec<String> {
    let mut folders: Vec<String> = LIBRARY_FOLDERS.iter().map(|folder| (*folder).to_owned()).collect();
    let mut known: BTreeSet<String> = folders.iter().cloned().collect();
    let is_listing = |parts: &[String]| matches!(parts, [etc, folder, .., name] if etc == "etc" && folder == "ld.so.conf.d" && name.ends_with(".conf"));
    for tree in input.siblings {
        for (_, entry) in tree.iter().filter(|(path, _)| is_listing(path.parts())) {
            let EntryKind::File(content) = &entry.kind else { continue };
            let Ok(bytes) = tree.read(content, TEXT_BYTES_MAX) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            // The loader takes a slash at the end, and nothing else behind the path.
            for folder in text.lines().filter_map(|line| line.strip_prefix('/')) {
                let folder = folder.strip_suffix('/').unwrap_or(folder);
                if folders.len() >= FOLDERS_MAX {
                    return folders;
                }
                if known.insert(folder.to_owned()) {
                    folders.push(folder.to_owned());
                }
            }
        }
    }
    folders
}

struct Scanner<'a> {
    input: &'a ScanInput<'a>,
    version: String,
    library_folders: Vec<String>,
    /// What may still be read of kernels and modules, unpacked.
    kernel_bytes: Cell<u64>,
    found: Scan,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Sonames that the host provides.
fn is_host_provided(soname: &str) -> bool {
    const PARTS: &str = "allocator cfg eglcore encode fbc glcore glsi glvkspirv gpucomp ml ngx nvvm opencl \
                         opticalflow pkcs11 pkcs11-openssl3 ptxjitcompiler rtcore tls";
    let Some(stem) = soname.strip_suffix(".so.1") else { return false };
    match stem.strip_prefix("libnvidia-") {
        Some(part) => PARTS.split_whitespace().any(|known| known == part),
        None => matches!(
            stem,
            "libcuda"
                | "libcudadebugger"
                | "libnvcuvid"
                | "libnvoptix"
                | "libEGL_nvidia"
                | "libGLX_nvidia"
                | "libGLESv1_CM_nvidia"
                | "libGLESv2_nvidia"
        ),
    }
}

impl Scanner<'_> {
    fn run(&mut self) {
        let tree = self.input.tree;
        for (path, entry) in tree.iter() {
            let name = path.joined();
            match &entry.kind {
                EntryKind::Symlink(target) => {
                    self.linked_library(&name, target);
                    self.shared_object(&name);
                }
                EntryKind::File(content) => {
                    self.shared_object(&name);
                    let (folder, base) = split(&name);
                    if COMMAND_FOLDERS.contains(&folder) && entry.mode & 0o555 == 0o555 {
                        self.found.provides.insert(format!("cmd:{base}={}", self.version));
                    }
                    if base.ends_with(".pc")
                        && let Ok(bytes) = tree.read(content, TEXT_BYTES_MAX)
                    {
                        self.pkg_config(folder, base, &String::from_utf8_lossy(&bytes));
                    }
                    if ["usr/bin/", "usr/local/bin/", "usr/local/sbin/"].iter().any(|f| name.starts_with(f))
                        && let Ok(bytes) = tree.read(content, SHEBANG_BYTES)
                    {
                        self.shebang(&bytes);
                    }
                    self.kernel(&name, content);
                }
                EntryKind::Directory | EntryKind::CharDevice(..) | EntryKind::Fifo => {}
            }
            self.documents(&name);
        }
        self.found.runtime.extend(languages::needs(tree, &self.input.package.runtime));
    }

    /// An image provides its version of Linux, a module needs the one that it was made for.
    fn kernel(&mut self, name: &str, content: &Content) {
        if !KERNEL_FOLDERS.iter().any(|folder| name.starts_with(folder)) {
            return;
        }
        let open = || self.input.tree.open(content);
        if let Some(version) = kernel::image_version(open, &self.kernel_bytes) {
            self.found.provides.insert(format!("linux:{version}"));
        }
        if !name.starts_with("boot/")
            && let Some(version) = kernel::module_version(open, &self.kernel_bytes)
        {
            self.found.runtime.insert(format!("linux:{version}"));
        }
    }

    /// A link to a sibling's library needs that library; this is how development packages get theirs.
    fn linked_library(&mut self, name: &str, target: &str) {
        if !name.contains(".so") {
            return;
        }
        let base = split(target.trim_end_matches('/')).1;
        let places = self.input.siblings.iter().flat_map(|sibling| {
            self.library_folders.iter().map(move |folder| (sibling, format!("{folder}/{base}")))
        });
        // The first that is there counts, whatever it is.
        let found =
            places.filter_map(|(sibling, path)| file_at(sibling, &path).map(|file| (sibling, file))).next();
        let Some((sibling, content)) = found else { return };
        let Some(elf) = elf_facts(&ReadCache::new(sibling.open(content))) else { return };
        let names = elf.sonames.iter().filter(|soname| !is_host_provided(soname));
        self.found.runtime.extend(names.map(|soname| format!("so:{soname}")));
    }

    fn shared_object(&mut self, name: &str) {
        let tree = self.input.tree;
        let Some(content) = file_at(tree, name) else { return };
        let data = ReadCache::new(tree.open(content));
        let Some(elf) = elf_facts(&data) else { return };
        if golang::needs_openssl(&data) {
            let needs = ["openssl-config-fipshardened", "so:libcrypto.so.3"];
            self.found.runtime.extend(needs.map(str::to_owned));
        }
        self.library(name, &elf);
    }

    fn library(&mut self, name: &str, elf: &ElfFacts) {
        if let Some(interpreter) = &elf.interpreter {
            let base = split(interpreter).1;
            let need = match base.strip_prefix("ld-musl") {
                Some(rest) => format!("so:libc.musl{rest}"),
                None => format!("so:{base}"),
            };
            self.found.runtime.insert(need);
        }
        let needed = elf.needed.iter().filter(|needed| needed.contains(".so.") && !is_host_provided(needed));
        self.found.runtime.extend(needed.map(|needed| format!("so:{needed}")));
        let (folder, base) = split(name);
        if elf.interpreter.is_none() || base.contains(".so.") || base.ends_with(".so") {
            for soname in elf.sonames.iter().filter(|soname| !is_host_provided(soname)) {
                let provides = [
                    format!("so:{soname}={}", library_version(soname)),
                    format!("so-ver:{soname}={}", self.version),
                ];
                if self.library_folders.iter().any(|known| known == folder) {
                    self.found.provides.extend(provides);
                } else {
                    self.found.vendored.extend(provides);
                }
            }
        }
    }

    fn documents(&mut self, name: &str) {
        if !self.input.package.name.ends_with("-doc") {
            return;
        }
        match split(name).0 {
            "usr/share/man" => self.found.runtime.insert("man-db".to_owned()),
            "usr/share/info" => self.found.runtime.insert("texinfo".to_owned()),
            _ => false,
        };
    }

    fn pkg_config(&mut self, folder: &str, base: &str, text: &str) {
        let stem = base.strip_suffix(".pc").unwrap_or(base);
        let provide = format!("pc:{stem}={}", self.version);
        if PKGCONFIG_FOLDERS.contains(&folder) {
            self.found.provides.insert(provide);
            self.found.runtime.extend(pkgconfig::required(text).into_iter().map(|name| format!("pc:{name}")));
        } else {
            self.found.vendored.insert(provide);
        }
    }

    fn shebang(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else { return };
        let words: Vec<&str> = line.split_whitespace().collect();
        let interpreter = match words[..] {
            ["/usr/bin/env", "-S", program, ..] if !program.starts_with('-') => program,
            ["/usr/bin/env", program] => program,
            ["/usr/bin/env", ..] | [] => return,
            [program, ..] => program,
        };
        let base = split(interpreter).1;
        if !matches!(base, "python3" | "python" | "sh" | "awk" | "luajit" | "") {
            self.found.runtime.insert(format!("cmd:{base}"));
        }
    }
}

/// The digits and dots behind `.so.`, else `0`.
fn library_version(soname: &str) -> &str {
    let version = soname.split(".so.").nth(1).unwrap_or_default();
    let numeric = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric { version } else { "0" }
}

/// The file at `path`, following links inside the tree.
fn file_at<'t>(tree: &'t Tree, path: &str) -> Option<&'t Content> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match &tree.get(&path)?.kind {
            EntryKind::File(content) => return Some(content),
            EntryKind::Symlink(target) if !target.starts_with('/') => {
                let folder = split(&path).0.to_owned();
                path = crate::melange::plan::clean_path(&format!("/{folder}/{target}"))
                    .trim_start_matches('/')
                    .to_owned();
            }
            _ => return None,
        }
    }
    None
}
