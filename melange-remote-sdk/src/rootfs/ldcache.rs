//! `/etc/ld.so.cache`: where the loader finds libraries. Format: glibc's `dl-cache.h`, new format 1.1.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use object::read::ReadCache;

use super::assembly::{Assembly, NodeKind, split};
use crate::analysis::scan::elf_facts;
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};

const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// The bytes of the cache for the libraries of the tree.
pub(super) fn make(assembly: &mut Assembly, arch: Arch) -> Result<Vec<u8>> {
    let flags: u32 = match arch {
        Arch::X86_64 => 0x0303,
        Arch::Aarch64 => 0x0a03,
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("no loader cache can be made for {other}"),
            ));
        }
    };
    let mut libraries: BTreeMap<String, String> = BTreeMap::new();
    for folder in folders(assembly)? {
        scan_folder(assembly, &folder, &mut libraries)?;
    }
    let mut entries: Vec<(String, String)> = libraries.into_iter().collect();
    entries.sort_by(|a, b| compare(&b.0, &a.0));
    Ok(encode(&entries, flags))
}

/// `/lib` and the folders that `ld.so.conf` names; the first `include` ends a file.
fn folders(assembly: &mut Assembly) -> Result<Vec<String>> {
    let mut folders = vec!["lib".to_owned()];
    let text = assembly.read("etc/ld.so.conf")?.unwrap_or_default();
    let mut files = vec![String::from_utf8_lossy(&text).into_owned()];
    let mut depth = 0;
    while let Some(text) = files.pop() {
        depth += 1;
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if let Some(pattern) = line.strip_prefix("include ").filter(|_| depth < 64) {
                let mut included = Vec::new();
                for name in matching(assembly, pattern.trim()) {
                    if let Some(bytes) = assembly.read(&name)? {
                        included.push(String::from_utf8_lossy(&bytes).into_owned());
                    }
                }
                files.extend(included.into_iter().rev());
                break;
            }
            if !line.is_empty() {
                folders.push(line.trim_matches('/').to_owned());
            }
        }
    }
    Ok(folders)
}

/// Files that match a pattern with one `*` in its last part.
fn matching(assembly: &Assembly, pattern: &str) -> Vec<String> {
    let pattern = if pattern.starts_with('/') {
        pattern.trim_start_matches('/').to_owned()
    } else {
        format!("etc/{pattern}")
    };
    let (folder, base) = split(&pattern);
    let (start, end) = base.split_once('*').unwrap_or((base, ""));
    assembly
        .nodes
        .keys()
        .filter(|path| {
            let (own, name) = split(path);
            own == folder
                && name.len() >= start.len() + end.len()
                && name.starts_with(start)
                && name.ends_with(end)
        })
        .cloned()
        .collect()
}

fn scan_folder(
    assembly: &mut Assembly,
    folder: &str,
    libraries: &mut BTreeMap<String, String>,
) -> Result<()> {
    let Some(real) = assembly.follow(folder)? else { return Ok(()) };
    let prefix = format!("{real}/");
    let names: Vec<String> = assembly
        .nodes
        .range(prefix.clone()..)
        .take_while(|(path, _)| path.starts_with(&prefix))
        .map(|(path, _)| path[prefix.len()..].to_owned())
        .filter(|name| !name.contains('/') && is_library(name))
        .collect();
    for name in names {
        let Some(target) = assembly.follow(&format!("{prefix}{name}"))? else { continue };
        let Some(NodeKind::File { content, size }) =
            assembly.nodes.get(&target).map(|node| node.kind.clone())
        else {
            continue;
        };
        let content = ReadCache::new(assembly.content(&content, size)?);
        let Some(facts) = elf_facts(&content).filter(|facts| facts.shared) else { continue };
        let soname = match facts.sonames.into_iter().next() {
            Some(soname) => soname,
            None if name.ends_with(".so") => name.clone(),
            None => continue,
        };
        let stem = soname.split(".so").next().unwrap_or(&soname);
        if name == soname || name == format!("{stem}.so") {
            libraries.entry(soname).or_insert_with(|| format!("/{folder}/{name}"));
        }
    }
    Ok(())
}

fn is_library(name: &str) -> bool {
    (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so")
}

fn encode(entries: &[(String, String)], flags: u32) -> Vec<u8> {
    let mut strings = Vec::new();
    let mut table = Vec::new();
    let base = HEADER_BYTES + entries.len() * ENTRY_BYTES;
    let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    for (_, path) in entries {
        let value = base + strings.len();
        let key = value + path.len() - split(path).1.len();
        table.extend_from_slice(&flags.to_le_bytes());
        table.extend_from_slice(&word(key));
        table.extend_from_slice(&word(value));
        table.extend_from_slice(&[0; 12]);
        strings.extend_from_slice(path.as_bytes());
        strings.push(0);
    }
    let mut cache = b"glibc-ld.so.cache1.1".to_vec();
    cache.extend_from_slice(&word(entries.len()));
    cache.extend_from_slice(&word(strings.len()));
    cache.resize(HEADER_BYTES, 0);
    cache.extend_from_slice(&table);
    cache.extend_from_slice(&strings);
    let padding = 16 - cache.len() % 16;
    cache.resize(cache.len() + padding, 0);
    cache
}

/// glibc's order of library names: runs of digits as numbers, digits above anything else.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match (a[i].is_ascii_digit(), b[j].is_ascii_digit()) {
            (true, true) => {
                let number = |bytes: &[u8], at: &mut usize| {
                    let mut value = 0u64;
                    while *at < bytes.len() && bytes[*at].is_ascii_digit() {
                        value = value.saturating_mul(10).saturating_add(u64::from(bytes[*at] - b'0'));
                        *at += 1;
                    }
                    value
                };
                let order = number(a, &mut i).cmp(&number(b, &mut j));
                if order != Ordering::Equal {
                    return order;
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a[i] != b[j] => return a[i].cmp(&b[j]),
            (false, false) => {
                i += 1;
                j += 1;
            }
        }
    }
    (a.len() - i).cmp(&(b.len() - j))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_their_numbers() {
        assert_eq!(compare("libx.so.10", "libx.so.9"), Ordering::Greater);
        assert_eq!(compare("libx.so.1", "libx.so.a"), Ordering::Greater);
        assert_eq!(compare("liba.so", "libb.so"), Ordering::Less);
    }

    #[test]
    fn header_and_padding_follow_the_format() {
        let cache = encode(&[("libz.so.1".into(), "/lib/libz.so.1".into())], 0x0303);
        assert_eq!(&cache[..20], b"glibc-ld.so.cache1.1");
        assert_eq!(cache.len() % 16, 0);
        let at = |offset: usize| u32::from_le_bytes(cache[offset..offset + 4].try_into().unwrap()) as usize;
        assert_eq!(&cache[at(52)..at(52) + 10], b"libz.so.1\0");
        assert_eq!(&cache[at(56)..at(56) + 15], b"/lib/libz.so.1\0");
    }
}
