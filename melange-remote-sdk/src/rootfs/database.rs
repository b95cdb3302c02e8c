//! The installed database of a guest, so that `apk` works inside it: world, repositories, installed packages,
//! their scripts and triggers. Format: apk-tools' `lib/apk/db`, as apko writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::assembly::{Assembly, Input, Installed, Listed, split};
use crate::apk::checksum;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::error::{Error, Result};

const FOLDER: &str = "usr/lib/apk/db";

/// Writes the database into the tree.
pub(super) fn write(assembly: &mut Assembly, input: &Input) -> Result<()> {
    let lines = |items: &[String]| items.iter().map(|item| format!("{item}\n")).collect::<String>();
    assembly.put_file("etc/apk/world", 0o644, lines(&input.world).as_bytes())?;
    assembly.put_file("etc/apk/repositories", 0o644, lines(&input.repositories).as_bytes())?;
    assembly.put_file("etc/apk/arch", 0o644, format!("{}\n", input.arch).as_bytes())?;
    let installed: String = assembly.installed.iter().map(record).collect();
    let triggers: String = assembly
        .installed
        .iter()
        .filter(|package| !package.info.triggers.is_empty())
        .map(|package| {
            format!("{} {}\n", checksum::q1(&package.control_sha1), package.info.triggers.join(" "))
        })
        .collect();
    let scripts =
        scripts(&assembly.installed).map_err(|e| Error::unexpected("cannot pack scripts").source(e))?;
    assembly.put_file(&format!("{FOLDER}/lock"), 0o600, b"")?;
    assembly.put_file(&format!("{FOLDER}/installed"), 0o644, installed.as_bytes())?;
    assembly.put_file(&format!("{FOLDER}/triggers"), 0o644, triggers.as_bytes())?;
    assembly.put_file(&format!("{FOLDER}/scripts.tar"), 0o644, &scripts)?;
    if assembly.follow("lib")?.is_none_or(|real| real != "usr/lib") {
        assembly.put_symlink("lib/apk", "../usr/lib/apk")?;
    }
    Ok(())
}

fn record(package: &Installed) -> String {
    let info = &package.info;
    let mut text = String::new();
    for (key, value) in [
        ('P', info.pkgname.clone()),
        ('V', info.pkgver.clone()),
        ('A', info.arch.clone()),
        ('L', info.license.first().cloned().unwrap_or_default()),
        ('T', info.pkgdesc.clone()),
        ('o', info.origin.clone()),
        ('m', info.maintainer.clone()),
        ('U', info.url.clone()),
        ('D', info.depend.join(" ")),
        ('p', info.provides.join(" ")),
        ('r', info.replaces.join(" ")),
        ('c', info.commit.clone()),
        // As Go prints a list.
        ('i', format!("[{}]", info.install_if.join(" "))),
        ('t', info.builddate.to_string()),
        ('S', package.size_bytes.to_string()),
        ('I', info.size.to_string()),
        ('k', info.provider_priority.parse::<u64>().unwrap_or_default().to_string()),
        ('C', checksum::q1(&package.control_sha1)),
    ] {
        if key != 'r' || !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}:{}", value.replace('\n', " "));
        }
    }
    files(&mut text, &package.listed);
    text.push('\n');
    text
}

/// The file list: each folder with its files; folders sorted part by part.
fn files(text: &mut String, listed: &[Listed]) {
    let key = |path: &str| -> Vec<String> {
        path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect()
    };
    let mut owned: BTreeMap<Vec<String>, (Option<&Listed>, Vec<&Listed>)> = BTreeMap::new();
    for entry in listed {
        if entry.directory {
            owned.entry(key(&entry.path)).or_default().0 = Some(entry);
        } else {
            owned.entry(key(split(&entry.path).0)).or_default().1.push(entry);
        }
    }
    for (folder, (own, mut files)) in owned {
        if own.is_none() && !folder.is_empty() {
            continue;
        }
        let _ = writeln!(text, "F:{}", folder.join("/"));
        if let Some(own) = own.filter(|own| own.mode != 0o755 || own.uid != 0 || own.gid != 0) {
            let _ = writeln!(text, "M:{}:{}:{:04o}", own.uid, own.gid, own.mode);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            let _ = writeln!(text, "R:{}", split(&file.path).1);
            if file.mode != 0o644 || file.uid != 0 || file.gid != 0 {
                let _ = writeln!(text, "a:{}:{}:{:04o}", file.uid, file.gid, file.mode);
            }
            if let Some(sum) = &file.sha1 {
                let _ = writeln!(text, "Z:{}", checksum::q1(sum));
            }
        }
    }
}

fn scripts(installed: &[Installed]) -> std::io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    for package in installed {
        for (script, (mode, content)) in &package.scripts {
            if mode & 0o555 != 0o555 {
                continue;
            }
            let info = &package.info;
            let sum = checksum::q1(&package.control_sha1);
            let name = format!("{}-{}.{sum}{script}", info.pkgname, info.pkgver);
            let mut header = Header::new(&name, EntryType::File, *mode);
            header.size = content.len() as u64;
            (header.uname, header.gname) = ("root", "root");
            tar.append(&header, &mut &content[..])?;
        }
    }
    tar.finish()
}
