//! What a package's files provide and need: libraries, commands, pkg-config modules.
//!
//! The rules are those of melange, written down a second time on purpose.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::elf;
use crate::paths::{base_name, parent};
use crate::tree::{Node, Tree, leads_to};

const LIBRARY_DIRECTORIES: &[&str] = &["lib", "usr/lib", "lib64", "usr/lib64"];
const COMMAND_DIRECTORIES: &[&str] = &["bin", "sbin", "usr/bin", "usr/sbin"];
const MODULE_DIRECTORIES: &[&str] = &["usr/lib/pkgconfig", "usr/share/pkgconfig"];

/// What was found in one package.
#[derive(Debug, Default)]
pub struct Findings {
    /// Names such as `so:libz.so.1`.
    pub needs: BTreeSet<String>,
    /// Names with versions such as `so:libz.so.1=1`.
    pub provides: BTreeSet<String>,
    /// The library name of each file (by base name) that stands in a library directory.
    pub sonames: BTreeMap<String, String>,
    /// Base names of the files that links such as `libz.so` lead to outside the package.
    pub foreign_libraries: BTreeSet<String>,
}

/// Looks through a package's files.
pub fn analyse(tree: &Tree, version: &str) -> Result<Findings> {
    let mut found = Findings::default();
    for (path, entry) in &tree.0 {
        match &entry.node {
            Node::File(data) => {
                if COMMAND_DIRECTORIES.contains(&parent(path)) && entry.mode & 0o555 == 0o555 {
                    found.provides.insert(format!("cmd:{}={version}", base_name(path)));
                }
                library(&mut found, path, data).with_context(|| path.clone())?;
                if MODULE_DIRECTORIES.contains(&parent(path))
                    && let Some(module) = base_name(path).strip_suffix(".pc")
                {
                    found.provides.insert(format!("pc:{module}={version}"));
                    found.needs.extend(required_modules(&String::from_utf8_lossy(data)));
                }
            }
            Node::Symlink(target)
                if path.contains(".so") && !tree.0.contains_key(&leads_to(path, target)) =>
            {
                found.foreign_libraries.insert(base_name(target).to_owned());
            }
            _ => {}
        }
    }
    let provided: BTreeSet<&str> = found.provides.iter().map(|name| before_version(name)).collect();
    found.needs.retain(|need| !provided.contains(need.as_str()));
    Ok(found)
}

/// The part of `name=version` or `name>version` before the version.
pub fn before_version(name: &str) -> &str {
    name.split(['=', '<', '>', '~']).next().unwrap_or(name)
}

fn library(found: &mut Findings, path: &str, data: &[u8]) -> Result<()> {
    if path.starts_with("usr/lib/debug/") {
        return Ok(());
    }
    let Some(info) = elf::read(data)? else { return Ok(()) };
    let file = base_name(path);
    let is_library = info.interpreter.is_none() || file.contains(".so.") || file.ends_with(".so");
    found.needs.extend(info.interpreter.iter().map(|program| format!("so:{}", base_name(program))));
    found
        .needs
        .extend(info.needed.iter().filter(|name| name.contains(".so.")).map(|name| format!("so:{name}")));
    if let Some(soname) = info.soname.filter(|_| is_library)
        && LIBRARY_DIRECTORIES.contains(&parent(path))
    {
        found.provides.insert(format!("so:{soname}={}", library_version(&soname)));
        found.sonames.insert(soname.clone(), soname.clone());
        found.sonames.insert(file.to_owned(), soname);
    }
    Ok(())
}

/// `6.1` for `libfoo.so.6.1`; `0` for what has no such number.
fn library_version(soname: &str) -> &str {
    match soname.split(".so.").nth(1) {
        Some(version) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => version,
        _ => "0",
    }
}

/// The modules a pkg-config file requires, as `pc:` names.
fn required_modules(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if !["Requires", "Requires.private", "Requires.internal"].contains(&key.trim()) {
            continue;
        }
        // Versions stand behind an operator, with or without blanks around it.
        let spaced = value.replace(',', " ").replace(['<', '>', '=', '!'], " = ");
        let mut words = spaced.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if word == "=" {
                while words.next_if_eq(&"=").is_some() {}
                words.next();
            } else if !word.contains('$') {
                modules.insert(format!("pc:{word}"));
            }
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_versions() {
        assert_eq!(library_version("libz.so.1"), "1");
        assert_eq!(library_version("libstdc++.so.6.0.30"), "6.0.30");
        assert_eq!(library_version("libfoo.so"), "0");
        assert_eq!(library_version("libfoo.so.1debian"), "0");
    }

    #[test]
    fn required_modules_lose_their_versions() {
        let text = "Name: x\nRequires: a >= 1.0, b,c<=2\nRequires.private: d ${e}\nLibs: -lx\n";
        let expected = ["pc:a", "pc:b", "pc:c", "pc:d"].map(str::to_owned).into();
        assert_eq!(required_modules(text), expected);
    }

    #[test]
    fn commands_are_regular_files_everybody_may_run() {
        let mut tree = Tree::default();
        tree.set_file("usr/bin/run", 0o755, "#!/bin/sh\n");
        tree.set_file("usr/bin/private", 0o700, "#!/bin/sh\n");
        tree.set_file("usr/libexec/inner", 0o755, "#!/bin/sh\n");
        tree.set_link("usr/bin/link", "run");
        tree.set_file("usr/lib/pkgconfig/x.pc", 0o644, "Requires: x y\n");
        tree.set_link("usr/lib/liba.so", "liba.so.1.2");
        let found = analyse(&tree, "1-r0").unwrap();
        assert_eq!(found.provides, ["cmd:run=1-r0", "pc:x=1-r0"].map(str::to_owned).into());
        assert_eq!(found.needs, ["pc:y".to_owned()].into());
        assert_eq!(found.foreign_libraries, ["liba.so.1.2".to_owned()].into());
    }

    #[test]
    fn an_own_program_needs_the_c_library() {
        let mut tree = Tree::default();
        tree.set_file("usr/bin/test", 0o755, std::fs::read(std::env::current_exe().unwrap()).unwrap());
        let found = analyse(&tree, "1-r0").unwrap();
        assert!(found.needs.contains("so:libc.so.6"));
    }
}
