//! The table of exit codes: one test a row.

use std::os::unix::process::CommandExt;

use crate::support::{GOOD, Server, command, job, melange, text};

const ID: &str = "0197a3c2-1111-7aaa-8000-000000000001";

/// Runs calls in a folder with a good and a bad definition, a folder and a file that is no package.
fn all_end_with(code: i32, calls: &[&[&str]]) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    std::fs::write(at.join("bad.yaml"), GOOD.replace("true", "${{x}}")).unwrap();
    std::fs::write(at.join("script.yaml"), GOOD.replace("true", "if true; then true")).unwrap();
    std::fs::write(at.join("alien.yaml"), b"package: {name: \xff}\n").unwrap();
    std::fs::write(at.join("x.apk"), b"nonsense").unwrap();
    std::fs::create_dir(at.join("folder")).unwrap();
    for call in calls {
        let output = melange(at, call);
        assert_eq!(output.status.code(), Some(code), "{call:?}: {}", text(&output.stderr));
    }
}

#[test]
fn code_0_is_for_what_is_done() {
    all_end_with(
        0,
        &[
            &["--help"],
            &["--version"],
            &["help", "exit-codes"],
            &["exit-codes"],
            &["lint", "good.yaml"],
            &["compile", "good.yaml"],
            &["compile", "script.yaml"],
            &["query", "script.yaml", "{{(index .Pipeline 0).Runs}}"],
            &["apk", "version", "1", "2"],
            &["keygen", "--key-size", "2048"],
        ],
    );
}

#[test]
fn code_1_is_for_what_failed_and_for_mistakes_of_definitions() {
    all_end_with(
        1,
        &[
            &["lint", "bad.yaml"],
            &["lint", "alien.yaml"],
            &["compile", "bad.yaml"],
            &["compile", "alien.yaml"],
            &["query", "alien.yaml", "{{.Package.Name}}"],
            &["build", "bad.yaml"],
            &["test", "bad.yaml"],
            &["lint", "script.yaml"],
            &["build", "script.yaml"],
            &["test", "script.yaml"],
            &["apk", "info", "x.apk"],
            &["apk", "verify", "x.apk"],
        ],
    );
}

#[test]
fn code_2_is_for_calls_that_are_wrong() {
    all_end_with(
        2,
        &[
            &[],
            &["nonsense"],
            &["build"],
            &["build", "good.yaml", "--nonsense"],
            &["build", "folder"],
            &["build", "-", "-"],
            &["build", "good.yaml", "--out-dir", "good.yaml"],
            &["build", "good.yaml", "--signing-key", "folder"],
            &["build", "good.yaml", "--vars-file", "folder"],
            &["test", "folder"],
            &["query", "folder", "x"],
            &["query", "good.yaml", "{{.Nothing}}"],
            &["lint", "folder"],
            &["compile", "folder"],
            &["compile", "good.yaml/x"],
            &["apk", "info", "folder"],
            &["apk", "verify", "folder"],
            &["apk", "verify", "x.apk", "--keyring", "folder"],
            &["apk", "version", "1", "foo"],
            &["index", "folder"],
            &["index", "--output", "json", "x.apk"],
            &["keygen", "--key-size", "1"],
            &["remote", "submit", "folder"],
            &["remote", "status", "123"],
            &["remote", "list", "--server", "nonsense"],
        ],
    );
}

#[test]
fn code_3_is_for_what_was_cancelled() {
    let server = Server::start(|line, _| {
        let body =
            if line.contains("/logs") { Vec::new() } else { job(ID, "cancelled").to_string().into_bytes() };
        (200, body)
    });
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(server.melange(folder.path(), &["remote", "wait", ID]).status.code(), Some(3));
}

#[test]
fn code_4_is_for_what_is_not_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let refusal = r#"{"error":{"code":"permission_denied","message":"no","details":[]}}"#;
    for status in [401, 403] {
        let server = Server::start(move |_, _| (status, refusal.as_bytes().to_vec()));
        assert_eq!(server.melange(at, &["remote", "list"]).status.code(), Some(4), "{status}");
    }
    let server = Server::start(|line, _| {
        let mut job = job(ID, "failed");
        job["error_class"] = "policy".into();
        (200, if line.contains("/logs") { Vec::new() } else { job.to_string().into_bytes() })
    });
    assert_eq!(server.melange(at, &["remote", "wait", ID]).status.code(), Some(4));
    // Root may read everything, so another user tries, from a folder that it may enter.
    let as_root = std::process::Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mode = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(at.join("secret.yaml"), GOOD).unwrap();
    mode(&at.join("secret.yaml"), 0o000);
    mode(at, 0o755);
    // Where the command itself lies is not for other users, so it is copied.
    let copy = at.join("melange");
    // By another program: a copy of our own would be open for writing in children that start at the same time, and
    // could not be run meanwhile.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_melange")).arg(&copy).status();
    assert!(copied.unwrap().success());
    for call in [
        &["lint", "secret.yaml"][..],
        &["compile", "secret.yaml"],
        &["build", "secret.yaml", "--state-dir", "/nonexistent"],
        &["remote", "submit", "secret.yaml"],
        &["apk", "info", "secret.yaml"],
        &["keygen", "--key-size", "2048", "k.rsa"],
    ] {
        if call[0] == "keygen" && !as_root {
            continue;
        }
        let mut command = std::process::Command::new(&copy);
        command.args(call).current_dir(at).env("HOME", at);
        if as_root {
            command.uid(65_534).gid(65_534);
        }
        // A user without ranges of ids is told so before the definition is read.
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        if call[0] == "build" && said.contains("sandbox") {
            continue;
        }
        assert_eq!(output.status.code(), Some(4), "{call:?}: {said}");
    }
}

#[test]
fn code_5_is_for_what_is_not_found() {
    all_end_with(
        5,
        &[
            &["build", "nosuch.yaml"],
            &["build", "good.yaml", "--signing-key", "nosuch"],
            &["build", "good.yaml", "--env-file", "nosuch"],
            &["test", "nosuch.yaml"],
            &["lint", "nosuch.yaml"],
            &["compile", "nosuch.yaml"],
            &["query", "nosuch.yaml", "x"],
            &["apk", "info", "nosuch.apk"],
            &["apk", "verify", "nosuch.apk"],
            &["apk", "verify", "x.apk", "--keyring", "nosuch"],
            &["index", "nosuch.apk"],
            &["index", "x.apk", "--source", "nosuch"],
            &["keygen", "--key-size", "2048", "nosuch/k.rsa"],
            &["pipelines", "show", "nosuch"],
            &["remote", "submit", "nosuch.yaml"],
            &["remote", "status", "@last"],
        ],
    );
    let server = Server::start(|_, _| (404, br#"{"error":{"code":"not_found","message":"no"}}"#.to_vec()));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(server.melange(folder.path(), &["remote", "status", ID]).status.code(), Some(5));
}

#[test]
fn code_6_is_for_the_infrastructure() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let call = ["remote", "status", ID, "--server", "http://127.0.0.1:1"];
    assert_eq!(command(at, &call).status().unwrap().code(), Some(6));
    for class in ["infrastructure", "unschedulable"] {
        let server = Server::start(move |line, _| {
            let mut job = job(ID, "failed");
            job["error_class"] = class.into();
            (200, if line.contains("/logs") { Vec::new() } else { job.to_string().into_bytes() })
        });
        assert_eq!(server.melange(at, &["remote", "wait", ID]).status.code(), Some(6), "{class}");
    }
}

#[test]
fn the_readme_and_the_help_have_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let shown = text(&melange(folder.path(), &["exit-codes"]).stdout);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let rows: Vec<(&str, &str)> = shown.lines().filter_map(|line| line.trim().split_once("  ")).collect();
    assert_eq!(rows.len(), 7);
    for (code, meaning) in rows {
        assert!(readme.contains(&format!("| {code} | {meaning} |")), "{code}: {meaning}");
    }
    for call in [&["--help"][..], &["help", "exit-codes"]] {
        let help = text(&melange(folder.path(), call).stdout);
        assert!(help.contains(shown.trim_end()), "{help}");
    }
}
