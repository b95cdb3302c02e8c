//! The house rules that a compiler does not know: layers, headers, sizes, unfinished marks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::root;

/// Layers from below; a file may use its own layer and those before it, without circles between modules.
const LAYERS: [(&str, &[&str]); 6] = [
    (
        "vocabulary",
        &["error", "backoff", "limits", "redact", "arch", "labels", "text", "pointers", "failure"],
    ),
    ("pure engine", &["apk", "melange", "solver", "analysis", "planner"]),
    ("jobs and backends", &["job", "backend", "backend_selector"]),
    ("contracts", &["builder", "guest", "job_store", "artifact_storage", "api"]),
    (
        "machinery",
        &[
            "clock",
            "event_feed",
            "fetched",
            "git",
            "locks",
            "cache",
            "job_log",
            "retention",
            "llb",
            "buildkit",
            "sandbox",
            "rootfs",
            "scratch",
            "sources",
        ],
    ),
    ("top", &["engine", "builds", "publishing", "scheduler", "client", "conformance"]),
];

/// Modules that touch neither clock nor disk nor network.
const PURE: [&str; 17] = [
    "redact",
    "error",
    "limits",
    "arch",
    "labels",
    "text",
    "failure",
    "apk",
    "melange",
    "solver",
    "analysis",
    "planner",
    "job",
    "api",
    "llb",
    "backend_selector",
    "guest",
];

/// What pure modules must not touch.
const IMPURE: [&str; 7] =
    ["tokio::", "std::fs", "std::env::var", "SystemTime::now", "Instant::now", "std::net", "std::process"];

/// Files of pure modules that read and write packages; each must touch what the others may not.
const PACKAGE_IO: [&str; 4] = ["apk/reader.rs", "apk/sign.rs", "apk/tree.rs", "apk/writer.rs"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text without its tests, which may use everything.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The modules that a line of code names.
fn modules_used(code: &str) -> Vec<String> {
    let name = |at: usize| {
        let rest = &code[at + "crate::".len()..];
        rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default().to_owned()
    };
    code.match_indices("crate::").map(|(at, _)| name(at)).collect()
}

/// One file of the SDK: its name below `src`, its module, and its lines of production code with their numbers.
struct SdkFile {
    name: String,
    module: String,
    code: Vec<(usize, String)>,
}

fn sdk_files() -> Vec<SdkFile> {
    let folder = root().join("melange-remote-sdk/src");
    let mut files = Vec::new();
    for path in sources(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        if name.ends_with("tests.rs") || name == "lib.rs" {
            continue;
        }
        let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = production(&text)
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim_start().to_owned()))
            .filter(|(_, line)| !line.starts_with("//"))
            .collect();
        files.push(SdkFile { name, module, code });
    }
    files
}

#[test]
fn layers_are_kept() {
    let files = sdk_files();
    let mut wrong = Vec::new();
    for file in &files {
        let Some(layer) = layer_of(&file.module) else {
            wrong.push(format!("{}: the module {} is in no layer", file.name, file.module));
            continue;
        };
        for (number, code) in &file.code {
            for used in modules_used(code) {
                if layer_of(&used).is_some_and(|used| used > layer) {
                    wrong.push(format!("{}:{number}: uses {used}, which lies above it", file.name));
                }
            }
        }
    }
    for (_, modules) in LAYERS {
        for module in modules {
            if !files.iter().any(|file| file.module == *module) {
                wrong.push(format!("the layer names {module}, which there is not"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_uses_itself_by_way_of_another() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sdk_files() {
        let used = uses.entry(file.module.clone()).or_default();
        for (_, code) in &file.code {
            used.extend(modules_used(code).into_iter().filter(|used| *used != file.module));
        }
    }
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = uses[from].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.as_str()) {
                next.extend(uses.get(module).into_iter().flatten());
            }
        }
        reached
    };
    let circles: Vec<&String> =
        uses.keys().filter(|module| reached(module).contains(module.as_str())).collect();
    assert!(circles.is_empty(), "these modules use one another in a circle: {circles:?}");
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for file in sdk_files().iter().filter(|file| PURE.contains(&file.module.as_str())) {
        for (number, code) in &file.code {
            let Some(token) = IMPURE.iter().find(|token| code.contains(*token)) else { continue };
            if PACKAGE_IO.contains(&file.name.as_str()) {
                excused.insert(file.name.clone());
            } else {
                wrong.push(format!("{}:{number}: a pure module uses {token}", file.name));
            }
        }
    }
    for file in PACKAGE_IO {
        if !excused.contains(file) {
            wrong.push(format!("{file} needs no exception"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_follow_the_house_rules() {
    let mut wrong = Vec::new();
    for folder in ["melange-remote-sdk", "melange-server", "melange-cli", "examples", "benches", "tests"] {
        for path in sources(&root().join(folder)) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut report = |what: &str| wrong.push(format!("{name}: {what}"));
            if !text.starts_with("//!") && !text.starts_with("#![doc") {
                report("does not open with `//!`");
            }
            if text.lines().count() > 700 {
                report("has more than 700 lines");
            }
            if name.ends_with("tidy.rs") {
                continue;
            }
            for mark in ["TODO", "FIXME", "dbg!(", "#[ignore]", "allow(clippy", "todo!(", "unimplemented!("] {
                if text.contains(mark) {
                    report(&format!("holds `{mark}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_sdk_is_a_library() {
    let folder = root().join("melange-remote-sdk/src");
    let mut wrong = Vec::new();
    for path in sources(&folder) {
        let text = std::fs::read_to_string(&path).unwrap();
        for token in ["clap::", "println!(", "eprintln!(", "env::var"] {
            if production(&text).contains(token) && !path.ends_with("tests.rs") {
                wrong.push(format!("{}: uses {token}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_root_package_compiles_its_three_folders() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package =
        metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == "melange-remote").unwrap();
    for kind in ["example", "bench", "test"] {
        let count = package["targets"].as_array().unwrap().iter().filter(|t| t["kind"][0] == kind).count();
        let folder = root().join(match kind {
            "example" => "examples",
            "bench" => "benches",
            _ => "tests",
        });
        let files = std::fs::read_dir(folder)
            .unwrap()
            .filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists()
            })
            .count();
        assert_eq!(count, files, "targets of kind {kind}");
    }
}

#[test]
fn the_bare_sdk_has_no_network_libraries() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "-p", "melange-remote-sdk", "--no-default-features", "-e", "normal", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success());
    let tree = String::from_utf8(output.stdout).unwrap();
    for name in ["tonic", "sqlx", "reqwest", "hyper", "ring", "aws-lc-sys", "openssl-sys"] {
        assert!(!tree.lines().any(|line| line.contains(&format!(" {name} v"))), "{name} is in the bare SDK");
    }
}
