//! Outputs that are closed, full, or a terminal.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{GOOD, Server, command, distro, job, log_lines, melange, on_a_terminal, text};

const ID: &str = "0197a3c2-1111-7aaa-8000-000000000001";

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A folder for all verbs.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    std::fs::write(folder.path().join("bad.yaml"), GOOD.replace("true", "${{x}}")).unwrap();
    folder
}

fn server() -> Server {
    Server::start(|line, _| {
        let json = |value: serde_json::Value| (200, value.to_string().into_bytes());
        if line.starts_with("POST") {
            return json(serde_json::json!({ "id": ID }));
        }
        if line.contains("/logs") {
            return (200, b"one\ntwo\n".to_vec());
        }
        if line.contains("/backends") {
            return json(serde_json::json!({ "backends": [], "architectures": [] }));
        }
        if line.contains("/jobs?") {
            return json(serde_json::json!([job(ID, "success")]));
        }
        json(job(ID, "success"))
    })
}

/// Verbs with results, by their arguments.
const VERBS: [&[&str]; 15] = [
    &["--help"],
    &["build", "--help"],
    &["exit-codes"],
    &["apk", "version", "1", "2"],
    &["compile", "good.yaml"],
    &["compile", "good.yaml", "--output", "json"],
    &["query", "good.yaml", "{{.Package.Name}}"],
    &["schema"],
    &["pipelines", "list"],
    &["pipelines", "reference"],
    &["completions", "bash"],
    &["remote", "list"],
    &["remote", "status", ID],
    &["remote", "logs", ID],
    &["remote", "submit", "good.yaml", "--output", "json"],
];

#[test]
fn a_reader_that_goes_away_ends_every_verb_quietly() {
    let (folder, server) = (folder(), server());
    for verb in VERBS.iter().chain([&["lint", "bad.yaml"][..]].iter()) {
        let output = server.command(folder.path(), verb).stdout(closed()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{verb:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{verb:?}: {said}");
    }
}

#[test]
fn a_full_standard_output_is_an_error_of_the_machine() {
    let (folder, server) = (folder(), server());
    for verb in VERBS {
        let output = server.command(folder.path(), verb).stdout(full()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{verb:?}: {said}");
        assert!(said.contains("cannot write to standard output: "), "{verb:?}: {said}");
    }
}

#[test]
fn a_closed_or_full_standard_error_changes_nothing() {
    let (folder, server) = (folder(), server());
    let more: [&[&str]; 7] = [
        &["lint", "bad.yaml"],
        &["compile", "bad.yaml"],
        &["compile", "bad.yaml", "--output", "json"],
        &["nonsense"],
        &["build", "bad.yaml", "--verbose"],
        &["remote", "wait", ID],
        &["remote", "submit", "good.yaml", "--wait", "--verbose"],
    ];
    for verb in VERBS.iter().chain(&more) {
        let expected = server.melange(folder.path(), verb);
        for stderr in [closed as fn() -> Stdio, full] {
            let output = server.command(folder.path(), verb).stderr(stderr()).output().unwrap();
            assert_eq!(output.status, expected.status, "{verb:?}");
            assert_eq!(text(&output.stdout), text(&expected.stdout), "{verb:?}");
        }
    }
}

#[test]
fn a_build_does_not_notice_that_nobody_listens() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let definition =
        GOOD.replace("pipeline:", "environment:\n  contents:\n    packages:\n      - busybox\npipeline:");
    std::fs::write(
        folder.path().join("good.yaml"),
        definition.replace("\"true\"", "for i in 1 2 3; do echo $i; done"),
    )
    .unwrap();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let args = ["build", "good.yaml", "-r", &distro, "-k", &key, "--arch", "x86_64"];
    let output = command(folder.path(), &args).stderr(closed()).stdout(closed()).status().unwrap();
    assert_eq!(output.code(), Some(0));
    for name in ["good-1-r0.apk", "APKINDEX.tar.gz"] {
        assert!(folder.path().join("packages/x86_64").join(name).is_file(), "{name}");
    }
}

#[test]
fn a_terminal_shows_escape_codes_and_does_not_obey_them() {
    let folder = folder();
    let evil = "\x1b]0;owned\x07\x1b[2J";
    let server = Server::start(move |line, _| {
        if line.contains("/logs?format=jsonl") {
            return (200, log_lines(1, &[&format!("before {evil} after"), "50%\r100%"]));
        }
        if line.contains("/logs") {
            return (200, format!("before {evil} after\r\n50%\r100%\n").into_bytes());
        }
        let mut job = job(ID, "failed");
        job["error"] = format!("broken {evil}").into();
        job["package"] = format!("name{evil}").into();
        job["failure"] = serde_json::json!({ "step": evil, "exit_code": 1, "tail": [evil] });
        let body = if line.contains("/jobs?") { serde_json::json!([job]) } else { job };
        (200, body.to_string().into_bytes())
    });
    let at = folder.path();
    std::fs::write(at.join(format!("{evil}.yaml")), GOOD.replace("true", "${{x}}")).unwrap();
    let url = &server.url;
    for verb in [
        format!("remote logs {ID} --server {url}"),
        format!("remote logs {ID} --timestamps --server {url}"),
        format!("remote logs {ID} --output json --server {url}"),
        format!("remote status {ID} --server {url}"),
        format!("remote list --server {url}"),
        format!("remote list --output json --server {url}"),
        format!("remote wait {ID} --server {url}"),
        "lint *.yaml".to_owned(),
        "compile *.yaml".to_owned(),
    ] {
        let shown = on_a_terminal(at, &format!("$MELANGE {verb}"));
        let own = shown.replace("\r\x1b[K", "");
        assert!(!own.contains('\x1b') && !own.contains('\x07'), "{verb}: {own:?}");
        assert!(own.contains("\\u{1b}[2J") || own.contains("\\u001b[2J"), "{verb}: {own:?}");
    }
    let raw = server.melange(at, &["remote", "logs", ID]);
    assert_eq!(text(&raw.stdout), format!("before {evil} after\r\n50%\r100%\n"), "a file gets what there is");
}

#[test]
fn a_call_without_any_standard_streams_does_its_work() {
    let folder = folder();
    let shell = format!("{} keygen --key-size 2048 k.rsa <&- >&- 2>&-", env!("CARGO_BIN_EXE_melange"));
    let status = Command::new("sh").args(["-c", &shell]).current_dir(folder.path()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(folder.path().join("k.rsa.pub").is_file());
    assert!(melange(folder.path(), &["compile", "good.yaml"]).status.success());
}
