//! What a tree needs and provides, read off its files: shared objects, commands, documents, pkg-config,
//! language modules, shebangs. The results are merged with what the definition declares.

use std::collections::{BTreeMap, BTreeSet};

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use crate::apk::tree::{EntryKind, Tree};
use crate::melange::plan::PlanPackage;

const LIBRARY_FOLDERS: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];
const COMMAND_FOLDERS: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];
const PKGCONFIG_FOLDERS: [&str; 5] = [
    "usr/lib/pkgconfig",
    "usr/lib64/pkgconfig",
    "usr/share/pkgconfig",
    "usr/local/lib/pkgconfig",
    "usr/local/share/pkgconfig",
];
/// The most of one part of an ELF file that is read: the names in the largest programs take a few MB.
const ELF_PART_BYTES_MAX: u64 = 16 << 20;

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

/// Scans a tree and merges the result with the declared lists.
pub fn dependencies(input: &ScanInput<'_>) -> Dependencies {
    let mut scan = Scanner {
        input,
        version: input.package.full_version(),
        library_folders: library_folders(input),
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

/// The usual library folders and those that any sibling's `etc/ld.so.conf.d/*.conf` names.
fn library_folders(input: &ScanInput<'_>) -> BTreeSet<String> {
    let mut folders: BTreeSet<String> = LIBRARY_FOLDERS.iter().map(|folder| (*folder).to_owned()).collect();
    for tree in input.siblings {
        for (path, entry) in tree.iter() {
            let name = path.joined();
            if !(name.starts_with("etc/ld.so.conf.d/") && name.ends_with(".conf")) {
                continue;
            }
            if let EntryKind::File(content) = &entry.kind
                && let Ok(bytes) = tree.read(content, 1 << 20)
            {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                folders.extend(text.lines().filter_map(|line| line.strip_prefix('/')).map(str::to_owned));
            }
        }
    }
    folders
}

struct Scanner<'a> {
    input: &'a ScanInput<'a>,
    version: String,
    library_folders: BTreeSet<String>,
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
        None => matches!(stem, "libcuda" | "libcudadebugger" | "libnvcuvid" | "libnvoptix"),
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
                        && let Ok(bytes) = tree.read(content, 1 << 20)
                    {
                        self.pkg_config(folder, base, &String::from_utf8_lossy(&bytes));
                    }
                    if ["usr/bin/", "usr/local/bin/", "usr/local/sbin/"].iter().any(|f| name.starts_with(f))
                        && let Ok(bytes) = tree.read(content, 80)
                    {
                        self.shebang(&bytes);
                    }
                }
                EntryKind::Directory | EntryKind::CharDevice(..) => {}
            }
            self.documents(&name);
        }
        self.languages();
    }

    /// A link to a sibling's library needs that library; this is how development packages get theirs.
    fn linked_library(&mut self, name: &str, target: &str) {
        if !name.contains(".so") {
            return;
        }
        let base = split(target).1;
        for sibling in self.input.siblings {
            for folder in &self.library_folders {
                let Some(elf) = read_elf(sibling, &format!("{folder}/{base}")) else { continue };
                if elf.sonames.is_empty() {
                    continue;
                }
                let names = elf.sonames.iter().filter(|soname| !is_host_provided(soname));
                self.found.runtime.extend(names.map(|soname| format!("so:{soname}")));
                return;
            }
        }
    }

    fn shared_object(&mut self, name: &str) {
        let Some(elf) = read_elf(self.input.tree, name) else { return };
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
                if self.library_folders.contains(folder) {
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
        let Some(requires) = pkg_config_requires(text) else { return };
        let stem = base.trim_end_matches(".pc");
        let provide = format!("pc:{stem}={}", self.version);
        if PKGCONFIG_FOLDERS.contains(&folder) {
            self.found.provides.insert(provide);
            self.found.runtime.extend(requires.into_iter().map(|name| format!("pc:{name}")));
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

    fn languages(&mut self) {
        let declared = |test: &dyn Fn(&str) -> bool| self.input.package.runtime.iter().any(|item| test(item));
        let mut needs = Vec::new();
        let mut python = None;
        let mut perl = None;
        let mut ruby = None;
        for (path, entry) in self.input.tree.iter() {
            if entry.kind != EntryKind::Directory {
                continue;
            }
            let parts: Vec<&str> = path.parts().iter().map(String::as_str).collect();
            if let [.., parent, "site-packages"] = parts[..]
                && let Some(version) = parent.strip_prefix("python")
            {
                python = Some(version.to_owned());
            }
            let below_usr = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
            match below_usr {
                ["lib", folder, child] if perl.is_none() && child.ends_with("_perl") => {
                    perl = folder
                        .strip_prefix("perl")
                        .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
                        .map(str::to_owned);
                }
                ["lib", "ruby", "gems", version, "gems"] if ruby.is_none() => {
                    let mut numbers: Vec<&str> = version.split('.').collect();
                    numbers.pop();
                    ruby = (!numbers.is_empty()).then(|| numbers.join("."));
                }
                _ => {}
            }
        }
        if let Some(version) = perl
            && !declared(&|item| item == "perl")
        {
            needs.push(format!("perl~{version}"));
        }
        if let Some(version) = python.filter(|version| !version.is_empty())
            && !declared(&|item| item.starts_with("python"))
        {
            needs.push(format!("python-{version}-base"));
        }
        if let Some(version) = ruby
            && !declared(&|item| item == "ruby" || item.starts_with("ruby-"))
        {
            needs.push(format!("ruby-{version}"));
        }
        self.found.runtime.extend(needs);
    }
}

/// The digits and dots behind `.so.`, else `0`.
fn library_version(soname: &str) -> &str {
    let version = soname.split(".so.").nth(1).unwrap_or_default();
    let numeric = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric { version } else { "0" }
}

/// The identifiers of the `Requires` fields with variables expanded; `None` when the file cannot be read as
/// upstream reads it.
fn pkg_config_requires(text: &str) -> Option<BTreeSet<String>> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mut requires = BTreeSet::new();
    for line in text.replace("\\\n", "").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(at) = line.find([':', '=']) else { continue };
        let (key, value) = (line[..at].trim(), expand(line[at + 1..].trim(), &variables));
        if line.as_bytes()[at] == b'=' {
            variables.insert(key.to_owned(), value);
        } else if matches!(key, "Requires" | "Requires.private" | "Requires.internal") {
            requires.extend(required_names(&value)?);
        }
    }
    Some(requires)
}

fn expand(value: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = value.to_owned();
    for (name, text) in variables {
        result = result.replace(&format!("${{{name}}}"), text);
    }
    result
}

fn required_names(value: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let spaced = value.replace(',', " ");
    let mut words = spaced.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if matches!(word, "=" | "<" | ">" | "<=" | ">=" | "!=") {
            words.next();
            continue;
        }
        // Upstream's reader knows no identifiers with `+` and then drops the whole file.
        if word.contains('+') {
            return None;
        }
        names.push(word.to_owned());
    }
    Some(names)
}

/// What is read of an ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ElfFacts {
    /// `PT_INTERP`.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub sonames: Vec<String>,
    /// Whether it is of the type of shared objects, `ET_DYN`.
    pub shared: bool,
}

/// Reads the file at `path`, following links inside the tree; `None` when it is no ELF file.
fn read_elf(tree: &Tree, path: &str) -> Option<ElfFacts> {
    let mut path = path.to_owned();
    for _ in 0..16 {
        match &tree.get(&path)?.kind {
            EntryKind::File(content) => {
                return elf_facts(&ReadCache::new(tree.open(content)));
            }
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

/// Reads interpreter, needs and sonames; `None` when the bytes are no ELF file. Only headers, the dynamic section and its
/// strings are read, however large the file is.
pub(crate) fn elf_facts<'d, R: ReadRef<'d>>(data: R) -> Option<ElfFacts> {
    match data.read_bytes_at(0, 5).ok()? {
        [b'\x7f', b'E', b'L', b'F', 1] => facts_of::<elf::FileHeader32<object::Endianness>, R>(data),
        [b'\x7f', b'E', b'L', b'F', 2] => facts_of::<elf::FileHeader64<object::Endianness>, R>(data),
        _ => None,
    }
}

fn facts_of<'d, H, R>(data: R) -> Option<ElfFacts>
where
    H: FileHeader<Endian = object::Endianness>,
    R: ReadRef<'d>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut facts = ElfFacts { shared: header.e_type(endian) == elf::ET_DYN, ..ElfFacts::default() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let segments = header.program_headers(endian, data).ok()?;
    let small = |segment: &&H::ProgramHeader| segment.p_filesz(endian).into() <= ELF_PART_BYTES_MAX;
    for segment in segments.iter().filter(small) {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, data) {
            facts.interpreter = Some(text(interpreter));
        }
    }
    let mut dynamic = segments.iter().filter(small);
    let dynamic = dynamic.find_map(|segment| segment.dynamic(endian, data).ok().flatten());
    let Some(dynamic) = dynamic else { return Some(facts) };
    let value = |wanted: elf::DynamicTag| -> Option<u64> {
        dynamic.iter().find(|entry| entry.tag(endian) == wanted).map(|entry| entry.d_val(endian).into())
    };
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return Some(facts);
    };
    let offset = segments.iter().find_map(|segment| file_offset(segment, endian, address, size))?;
    let strings = data.read_bytes_at(offset, size).ok().filter(|_| size <= ELF_PART_BYTES_MAX)?;
    for entry in dynamic {
        let tag = entry.tag(endian);
        if tag != elf::DT_NEEDED && tag != elf::DT_SONAME {
            continue;
        }
        let at = usize::try_from(entry.d_val(endian).into()).ok()?;
        let rest = strings.get(at..)?;
        let name = text(rest.split(|byte| *byte == 0).next().unwrap_or_default());
        if tag == elf::DT_NEEDED { facts.needed.push(name) } else { facts.sonames.push(name) }
    }
    Some(facts)
}

/// Where in the file the memory of a loaded segment begins to hold `address`, when it holds `size` bytes from there.
fn file_offset<P: ProgramHeader<Endian = object::Endianness>>(
    segment: &P,
    endian: object::Endianness,
    address: u64,
    size: u64,
) -> Option<u64> {
    if segment.p_type(endian) != elf::PT_LOAD {
        return None;
    }
    let within = address.checked_sub(segment.p_vaddr(endian).into())?;
    let fits = within.checked_add(size)? <= segment.p_filesz(endian).into();
    fits.then(|| segment.p_offset(endian).into().checked_add(within)).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use super::*;

    /// Counts what is read.
    struct Counted(std::fs::File, std::rc::Rc<std::cell::Cell<usize>>);

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1.set(self.1.get() + read);
            Ok(read)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(position)
        }
    }

    #[test]
    fn of_a_large_program_little_is_read() {
        let path = std::env::current_exe().unwrap();
        let read = std::rc::Rc::default();
        let counted = Counted(std::fs::File::open(&path).unwrap(), std::rc::Rc::clone(&read));
        let facts = elf_facts(&ReadCache::new(counted)).unwrap();
        assert!(facts.interpreter.as_ref().unwrap().contains("ld-"), "{facts:?}");
        assert!(facts.needed.iter().any(|name| name.starts_with("libc.")), "{facts:?}");
        let size = path.metadata().unwrap().len();
        assert!(read.get() < 1 << 20 && size > 10 << 20, "{} of {size} bytes", read.get());
        assert_eq!(elf_facts(&std::fs::read(&path).unwrap()[..]), Some(facts));
        assert_eq!(elf_facts(&b"\x7fELF\x02\x01\x01"[..]), None);
    }

    fn scan(package: &PlanPackage, files: &[(&str, u32, &[u8])]) -> Dependencies {
        let mut tree = Tree::default();
        for (path, mode, content) in files {
            tree.add_file(path, *mode, content).unwrap();
        }
        let siblings = [tree.clone()];
        dependencies(&ScanInput { package, tree: &tree, siblings: &siblings })
    }

    #[test]
    fn commands_shebangs_and_pkg_config() {
        let package = PlanPackage { name: "t".into(), version: "1".into(), ..PlanPackage::default() };
        let found = scan(
            &package,
            &[
                ("usr/bin/a", 0o755, b"#!/usr/bin/env perl\n"),
                ("usr/bin/b", 0o644, b"#!/bin/sh\n"),
                (
                    "usr/lib/pkgconfig/x.pc",
                    0o644,
                    b"v=1\nName: x\nRequires: y >= 2, z\nRequires.private: w\n",
                ),
                ("usr/lib/other/q.pc", 0o644, b"Name: q\n"),
            ],
        );
        assert_eq!(found.runtime, ["cmd:perl", "pc:w", "pc:y", "pc:z"]);
        assert_eq!(found.provides, ["cmd:a=1-r0", "pc:x=1-r0"]);
        assert_eq!(found.vendored, ["pc:q=1-r0"]);
    }

    #[test]
    fn own_provides_are_not_needed_and_options_act_on_generated_lists_only() {
        let mut package = PlanPackage { name: "t".into(), version: "1".into(), ..PlanPackage::default() };
        package.runtime = vec!["cmd:a".into(), "b>1".into()];
        package.options.no_provides = true;
        let kept = scan(&package, &[("usr/bin/a", 0o755, b"")]);
        assert_eq!((kept.runtime, kept.provides), (vec!["b>1".to_owned(), "cmd:a".to_owned()], vec![]));
        package.options.no_provides = false;
        let dropped = scan(&package, &[("usr/bin/a", 0o755, b"")]);
        assert_eq!(dropped.runtime, ["b>1"]);
    }

    #[test]
    fn versions_of_sonames() {
        for (soname, version) in
            [("libz.so.1", "1"), ("libx.so.1.2", "1.2"), ("liby.so", "0"), ("libq.so.a", "0")]
        {
            assert_eq!(library_version(soname), version);
        }
        assert!(
            is_host_provided("libcuda.so.1")
                && is_host_provided("libnvidia-ml.so.1")
                && !is_host_provided("libz.so.1")
        );
    }
}
