//! `melange license-check`: the licences that a definition declares beside those whose texts its sources hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::document::{Copyright, Document};
use melange_remote_sdk::text::diagnostics::Diagnostics;
use serde::Serialize;
use spdx::detection::{Store, TextData, scan::Scanner};

use super::{definition, source_get, sources};
use crate::args::{LicenseCheckArgs, LicenseFormat, Output, ScanType};
use crate::exit::Exit;
use crate::{input, note, out, shown};

/// How sure a text must be of a licence to count, as melange has it.
const CONFIDENCE: f32 = 0.9;
/// The same for the parts of a text that holds several licences.
const SHALLOW: f32 = 0.99;
/// The text of one file; collections of licences are larger, and what is behind it is not looked at.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Files with texts of licences: sources have a few right in them and in the folders there.
const FILES_MAX: usize = 500;
/// Entries of folders that are looked at for them.
const ENTRIES_MAX: usize = 100_000;
/// Folders within each other.
const LEVELS_MAX: usize = 100;
/// Folders of others' sources and of programs.
const LEFT_OUT: [&str; 8] =
    [".virtualenv", "env", "melange-out", "node_modules", "rust-src", "rustc-src", "vendor", "venv"];
/// Endings of files that are no texts of licences although they are called so.
const OTHER_ENDINGS: [&str; 5] = ["xml", "go", "gemspec", "spdx", "header"];

/// What one file holds.
#[derive(Debug, Serialize)]
struct Detected {
    file: String,
    license: String,
    confidence: f32,
}

/// What does not fit.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    file: String,
    detected: String,
    /// What is declared of this file; `null` where nothing is.
    declared: Option<String>,
}

pub(super) async fn run(args: &LicenseCheckArgs, output: Output) -> Result<Exit> {
    if let Some(workdir) = &args.workdir {
        return check(args, workdir, output);
    }
    let Some(plan) = sources::plan(&args.file, args.arch, &args.definition)? else { return Ok(Exit::Ok) };
    let folder = sources::scratch(&std::env::temp_dir())?;
    source_get::gather(&plan, folder.path(), None).await?;
    check(args, folder.path(), output)
}

/// Compares with the texts in a folder.
fn check(args: &LicenseCheckArgs, workdir: &Path, output: Output) -> Result<Exit> {
    let source = definition::source(&args.file)?;
    let document = Document::parse(&source).map_err(Diagnostics::into_error)?;
    let copyright = &document.package.copyright;
    let mut files = license_files(workdir, args.scan_type)?;
    let named = copyright.iter().map(|entry| entry.license_path.value.clone());
    for path in named.filter(|path| !path.is_empty()) {
        let plain = path.trim_start_matches("./").to_owned();
        if !files.contains(&plain) {
            files.push(plain);
        }
    }
    let detected = if files.is_empty() { Vec::new() } else { detect(workdir, &files)? };
    let differences = differences(&detected, copyright);
    let is_fixed = args.fix && fix(args, &detected, &differences)?;
    match output {
        Output::Json => out::json(&serde_json::json!({
            "file": input::name(&args.file),
            "detected": detected,
            "differences": differences,
            "fixed": is_fixed,
        }))?,
        Output::Text => {
            for found in &detected {
                let low = if found.confidence < CONFIDENCE { ", not sure" } else { "" };
                out::line(&format!(
                    "{}: {} ({:.3}{low})",
                    shown::word(&found.file),
                    found.license,
                    found.confidence
                ))?;
            }
            if !differences.is_empty() {
                note::line("detected license differences:");
            }
            for Difference { file, detected, declared } in &differences {
                let file = shown::word(file);
                note::line(&match declared {
                    Some(declared) => format!("  {file}: {detected} != {}", shown::word(declared)),
                    None => format!("  {file}: {detected} is not declared"),
                });
            }
        }
    }
    Ok(if differences.is_empty() || is_fixed { Exit::Ok } else { Exit::Failed })
}

/// Whether a file is one with the text of a licence, by its name.
fn is_license_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
    if OTHER_ENDINGS.contains(&ending) {
        return false;
    }
    let words: Vec<&str> = stem.split(['-', '_', '.']).collect();
    let is_word = |word: &str| {
        matches!(word, "license" | "licence" | "unlicense" | "unlicence" | "copying" | "copyright")
    };
    // `MIT-LICENSE`, `LICENSE-MIT`, `COPYING.LIB`.
    let named =
        words.iter().take(2).any(|word| is_word(word)) || is_word(name.split('.').next().unwrap_or(""));
    named || matches!(stem, "ofl" | "patents")
}

/// The files in a folder and in those below it, those above first.
fn license_files(folder: &Path, scan: ScanType) -> Result<Vec<String>> {
    let levels = match scan {
        ScanType::Shallow => 2,
        ScanType::Deep => LEVELS_MAX,
    };
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    let mut left = ENTRIES_MAX;
    for depth in 1..=levels {
        let mut below = Vec::new();
        let mut here = Vec::new();
        for inside in std::mem::take(&mut folders) {
            let place = folder.join(&inside);
            let failed = |error| input::failed("list", &place, error);
            for entry in std::fs::read_dir(&place).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                left = left.saturating_sub(1);
                let Ok(name) = entry.file_name().into_string() else { continue };
                if left == 0 || LEFT_OUT.contains(&name.as_str()) {
                    continue;
                }
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() && depth < levels {
                    below.push(inside.join(&name));
                } else if kind.is_file() && is_license_file(&name) {
                    here.push(inside.join(&name).display().to_string());
                }
            }
        }
        here.sort();
        found.append(&mut here);
        below.sort();
        folders = below;
    }
    found.truncate(FILES_MAX);
    Ok(found)
}

/// The licences in files.
fn detect(folder: &Path, files: &[String]) -> Result<Vec<Detected>> {
    let failed = |error| Error::unexpected("the texts of licences cannot be loaded").with("because", error);
    let store = Store::load_inline().map_err(|error| failed(error.to_string()))?;
    let scanner = Scanner::new(&store).confidence_threshold(CONFIDENCE).shallow_limit(SHALLOW).optimize(true);
    let mut detected = Vec::new();
    for file in files {
        let path = folder.join(file);
        let bytes = read_begin(&path)?;
        let text = TextData::new(&String::from_utf8_lossy(&bytes));
        let result = scanner.scan(&text);
        let mut names = BTreeSet::new();
        let whole = result.license.iter().map(|license| (license.name, result.score));
        let parts = result.containing.iter().map(|part| (part.license.name, part.score));
        for (name, confidence) in whole.chain(parts) {
            if names.insert(family(name)) {
                detected.push(Detected { file: file.clone(), license: name.to_owned(), confidence });
            }
        }
        if names.is_empty() {
            let license = "NOASSERTION".to_owned();
            detected.push(Detected {
                file: file.clone(),
                license,
                confidence: result.score.min(CONFIDENCE - 0.001),
            });
        }
    }
    Ok(detected)
}

fn read_begin(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = input::open(path)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| input::unreadable(path, error))?;
    Ok(bytes)
}

/// Licences with the same text: which versions may be chosen stands beside it.
fn family(license: &str) -> String {
    let plain = license.trim_end_matches('+');
    let plain = plain.strip_suffix("-only").or_else(|| plain.strip_suffix("-or-later")).unwrap_or(plain);
    plain.to_ascii_lowercase()
}

/// The licences in an expression.
fn licenses(expression: &str) -> impl Iterator<Item = String> {
    let words = expression.split([' ', '(', ')']).filter(|word| !matches!(*word, "" | "AND" | "OR" | "WITH"));
    words.map(family).collect::<Vec<_>>().into_iter()
}

fn differences(detected: &[Detected], copyright: &[Copyright]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for found in detected.iter().filter(|found| found.confidence >= CONFIDENCE) {
        let name = family(&found.license);
        let of_file = |entry: &&Copyright| entry.license_path.value.trim_start_matches("./") == found.file;
        let declares = |entry: &Copyright| licenses(&entry.license.value).any(|license| license == name);
        let overrides = |entry: &Copyright| family(&entry.detection_override.value) == name;
        let mut own = copyright.iter().filter(of_file).peekable();
        let declared = own.peek().map(|entry| entry.license.value.clone());
        let fits = match declared {
            Some(_) => own.any(|entry| declares(entry) || overrides(entry)),
            None => copyright.iter().filter(|entry| entry.license_path.is_empty()).any(declares),
        };
        if !fits {
            let (file, detected) = (found.file.clone(), found.license.clone());
            differences.push(Difference { file, detected, declared });
        }
    }
    differences
}

/// Writes what was detected into the definition; whether there was anything to write.
fn fix(args: &LicenseCheckArgs, detected: &[Detected], differences: &[Difference]) -> Result<bool> {
    let sure: Vec<&Detected> = detected.iter().filter(|found| found.confidence >= CONFIDENCE).collect();
    if differences.is_empty() || sure.is_empty() {
        return Ok(false);
    }
    let entries: Vec<String> = match args.format {
        LicenseFormat::Flat => sure
            .iter()
            .map(|found| {
                let path = serde_json::Value::from(found.file.as_str());
                format!("- license: {}\n  license-path: {path}", found.license)
            })
            .collect(),
        LicenseFormat::Simple => {
            let names: BTreeSet<&str> = sure.iter().map(|found| found.license.as_str()).collect();
            vec![format!("- license: {}", names.into_iter().collect::<Vec<_>>().join(" AND "))]
        }
    };
    let text = input::read_text(&args.file, definition::TEXT_BYTES_MAX)?;
    let new = replaced(&text, &entries).ok_or_else(|| {
        Error::invalid(format!("{} has no `copyright` that can be replaced", args.file.display()))
            .hint("write `copyright:` with one entry a line below `package:`")
    })?;
    super::index::write_whole(&args.file, new.as_bytes())?;
    Ok(true)
}

/// The definition with other entries of `copyright`; everything else stays as it is, comments too.
fn replaced(text: &str, entries: &[String]) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let package = lines.iter().position(|line| line.trim_end() == "package:")?;
    let at = package
        + 1
        + lines.get(package + 1..)?.iter().position(|line| line.trim_end().ends_with("copyright:"))?;
    let key = indent(lines.get(at)?);
    let is_key = lines.get(at)?.trim() == "copyright:" && key > 0;
    let within = lines.get(package + 1..at)?.iter().all(|line| line.trim().is_empty() || indent(line) > 0);
    if !is_key || !within {
        return None;
    }
    let rest = lines.get(at + 1..)?;
    let is_entry = |line: &&str| {
        let plain = line.trim();
        plain.is_empty() || indent(line) > key || (indent(line) == key && plain.starts_with('-'))
    };
    let mut count = rest.iter().take_while(|line| is_entry(line)).count();
    // What is empty before the next key stays.
    while count > 0 && rest.get(count - 1).is_some_and(|line| line.trim().is_empty()) {
        count -= 1;
    }
    let mut new: String = lines.get(..=at)?.concat();
    for line in entries.iter().flat_map(|entry| entry.lines()) {
        new.push_str(&format!("{}{line}\n", " ".repeat(key + 2)));
    }
    new.push_str(&rest.get(count..)?.concat());
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for name in [
            "LICENSE",
            "License.txt",
            "licence.md",
            "COPYING",
            "COPYING.LIB",
            "copyright",
            "LICENSE-MIT",
            "MIT-LICENSE.txt",
            "LICENSE_1_0.txt",
            "UNLICENSE",
            "OFL.txt",
            "PATENTS",
        ] {
            assert!(is_license_file(name), "{name}");
        }
        for name in ["license.go", "LICENSE.spdx", "README", "licenses", "copy", "relicense.c", "x.LICENSEE"]
        {
            assert!(!is_license_file(name), "{name}");
        }
    }

    #[test]
    fn entries_are_replaced_and_the_rest_stays() {
        let text = "package:\n  name: a # one\n  copyright:\n    # two\n    - license: X\n      attestation: y\n\n  url: z\n";
        assert_eq!(
            replaced(text, &["- license: MIT\n  license-path: \"L\"".to_owned()]).unwrap(),
            "package:\n  name: a # one\n  copyright:\n    - license: MIT\n      license-path: \"L\"\n\n  url: z\n"
        );
        let flat = "package:\n  copyright:\n  - license: X\n  url: z\n";
        assert_eq!(
            replaced(flat, &["- license: MIT".to_owned()]).unwrap(),
            "package:\n  copyright:\n    - license: MIT\n  url: z\n"
        );
        assert_eq!(replaced("package:\n  copyright: [license: X]\n", &[]), None);
        assert_eq!(replaced("package:\n  name: a\npipeline:\n  copyright:\n", &[]), None);
    }

    #[test]
    fn licences_of_one_text_are_one() {
        let all: Vec<String> = licenses("(GPL-2.0-or-later OR MIT) AND LGPL-2.1+ AND Apache-2.0").collect();
        assert_eq!(all, ["gpl-2.0", "mit", "lgpl-2.1", "apache-2.0"]);
    }
}
