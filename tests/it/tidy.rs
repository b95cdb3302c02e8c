//! The house rules that a compiler does not know: layers, headers, sizes, unfinished marks.

use std::path::{Path, PathBuf};

use crate::support::root;

/// Layers from below; a file may use its own layer and those before it.
const LAYERS: [(&str, &[&str]); 5] = [
    ("vocabulary", &["error", "limits", "arch", "labels", "job", "api"]),
    ("pure engine", &["melange", "apk", "llb"]),
    ("contracts", &["job_store", "artifact_storage", "backend_selector", "builder", "guest"]),
    ("machinery", &["backend", "buildkit", "clock", "environment", "sandbox"]),
    ("top", &["scheduler", "client", "conformance"]),
];

/// Upward uses that are right, each with its reason.
const ALLOWED: [(&str, &str, &str); 15] = [
    ("builder/runners.rs", "buildkit", "it makes runners from addresses"),
    ("builder/runners.rs", "sandbox", "it makes runners from addresses"),
    ("api/", "backend", "a backend's JSON is made from the backend"),
    ("api/", "melange", "diagnostics become error details"),
    ("job/", "melange", "a spec holds pipeline paths; its check compiles the definition"),
    ("job/", "builder", "a job records a builder's steps and failures"),
    ("melange/script.rs", "guest", "its result is the guest's steps"),
    ("llb/from_plan.rs", "guest", "its input is the guest's plan"),
    ("llb/tests.rs", "guest", "as from_plan"),
    ("backend_selector/", "backend", "candidates are backends"),
    ("job_store/", "clock", "times come from the clock"),
    ("builder/engine.rs", "environment", "the engine walks through the machinery"),
    ("builder/testing.rs", "environment", "the engine walks through the machinery"),
    ("builder/", "conformance", "a test runs the suite"),
    ("error.rs", "melange", "a link in the documentation"),
];

/// What pure modules must not touch.
const IMPURE: [&str; 7] =
    ["tokio::", "std::fs", "std::env::var", "SystemTime::now", "Instant::now", "std::net", "std::process"];

/// Files of the pure engine that read and write package files.
const PACKAGE_IO: [&str; 4] = ["apk/reader.rs", "apk/tree.rs", "apk/writer.rs", "apk/tests.rs"];

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

#[test]
fn layers_are_kept() {
    let folder = root().join("melange-remote-sdk/src");
    let mut wrong = Vec::new();
    for path in sources(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let own = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let Some(layer) = layer_of(&own) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        if name.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in production(&text).lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for used in code.match_indices("crate::").map(|(at, _)| &code[at + 7..]) {
                let module =
                    used.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                let upward = layer_of(module).is_some_and(|used| used > layer);
                let allowed = ALLOWED.iter().any(|(file, to, _)| name.starts_with(file) && *to == module);
                if upward && !allowed {
                    wrong.push(format!("{name}:{}: {own} uses {module}, which lies above it", number + 1));
                }
            }
            let pure = layer <= 1 && !PACKAGE_IO.contains(&name.as_str());
            if pure && let Some(token) = IMPURE.iter().find(|token| code.contains(*token)) {
                wrong.push(format!("{name}:{}: a pure module uses {token}", number + 1));
            }
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
