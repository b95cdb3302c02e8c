//! `--output json`: results on standard output, errors on standard error, one flag everywhere.

use serde_json::Value;

use crate::support::{GOOD, Server, job, melange, text};

const ID: &str = "0197a3c2-1111-7aaa-8000-000000000001";

/// The error on the last line of standard error.
fn error(stderr: &[u8]) -> Value {
    let said = text(stderr);
    let read: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    let error = &read["error"];
    assert!(error["code"].is_string() && error["message"].is_string(), "{said}");
    assert!(error["details"].is_array() && error.get("hint").is_some(), "{said}");
    error.clone()
}

#[test]
fn every_verb_knows_the_flag_and_tells_errors_in_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for call in [
        &["build", "nosuch.yaml"][..],
        &["test", "nosuch.yaml"],
        &["compile", "nosuch.yaml"],
        &["lint", "nosuch.yaml"],
        &["query", "nosuch.yaml", "x"],
        &["pipelines", "show", "nosuch"],
        &["keygen", "nosuch/k.rsa", "--key-size", "2048"],
        &["apk", "info", "nosuch.apk"],
        &["apk", "verify", "nosuch.apk"],
        &["remote", "submit", "nosuch.yaml"],
        &["remote", "status", "@last"],
        &["remote", "wait", "@last"],
        &["remote", "logs", "@last"],
        &["remote", "get", "@last"],
        &["remote", "cancel", "@last"],
        &["remote", "remove", "@last"],
    ] {
        let output = melange(at, &[call, &["--output", "json"]].concat());
        assert_eq!(output.status.code(), Some(5), "{call:?}: {}", text(&output.stderr));
        assert_eq!(error(&output.stderr)["code"], "not_found", "{call:?}");
    }
    // An index's own `--output` is its file, as melange has it; before the verb the flag is the command's.
    let output = melange(at, &["--output", "json", "index", "nosuch.apk"]);
    assert_eq!(error(&output.stderr)["code"], "not_found");
    for call in [&["apk", "version", "1", "foo", "--output", "json"][..], &["nonsense", "--output=json"]] {
        let output = melange(at, call);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(error(&output.stderr)["code"], "invalid_request", "{call:?}");
    }
}

#[test]
fn mistakes_of_a_definition_are_details() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("bad.yaml"), GOOD.replace("true", "${{x}} ${{y}}")).unwrap();
    let output = melange(at, &["compile", "bad.yaml", "--output", "json"]);
    let error = error(&output.stderr);
    let details = error["details"].as_array().unwrap();
    assert_eq!(details.len(), 2, "{error}");
    assert_eq!(error["message"], "bad.yaml:8:12: the variable `x` is not defined");
    assert_eq!(
        (&details[1]["file"], &details[1]["line"], &details[1]["column"]),
        (&"bad.yaml".into(), &8.into(), &19.into())
    );
    // The old names still do what they did.
    let output = melange(at, &["compile", "bad.yaml", "--message-format", "json"]);
    let read: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(read["uri"], "bad.yaml");
    let output = melange(at, &["lint", "bad.yaml", "--output", "json"]);
    assert_eq!(output.stdout, melange(at, &["lint", "bad.yaml", "--message-format", "json"]).stdout);
}

#[test]
fn results_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    for call in [
        &["apk", "version", "1", "2"][..],
        &["compile", "good.yaml"],
        &["query", "good.yaml", "{{.Package.Name}}"],
        &["pipelines", "list"],
        &["pipelines", "show", "fetch"],
        &["keygen", "--key-size", "2048", "k.rsa"],
        &["exit-codes"],
    ] {
        let output = melange(at, &[call, &["--output", "json"]].concat());
        assert!(output.status.success(), "{call:?}: {}", text(&output.stderr));
        let read: Value = serde_json::from_slice(&output.stdout).expect("a result as JSON");
        assert!(!read.is_null());
    }
    let server = Server::start(|line, _| {
        let body = match line {
            _ if line.contains("/jobs?") => serde_json::json!([job(ID, "success")]),
            _ if line.contains("/cancel") => Value::Null,
            _ => job(ID, "success"),
        };
        (200, if line.contains("/logs") { Vec::new() } else { body.to_string().into_bytes() })
    });
    for verb in ["list", "status", "wait", "cancel"] {
        let args = if verb == "list" { vec!["remote", verb] } else { vec!["remote", verb, ID] };
        let output = server.melange(at, &[&args[..], &["--output", "json"]].concat());
        let read: Value = serde_json::from_slice(&output.stdout).expect("a job as JSON");
        let one = if verb == "list" { &read[0] } else { &read };
        assert_eq!(one["id"], ID, "{verb}");
    }
}
