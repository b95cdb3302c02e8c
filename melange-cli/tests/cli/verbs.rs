//! What each verb prints where.

use std::process::Command;

use crate::support::{distro, melange, refused, text};

#[test]
fn versions_compare_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for (a, b, expected) in [("1.0", "1.0_rc1", ">\n"), ("1.0", "1.0", "=\n"), ("1.2", "1.10", "<\n")] {
        let output = melange(folder.path(), &["apk", "version", a, b]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected));
    }
}

#[test]
fn mistakes_have_an_exit_code_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(refused(at, &["apk", "version", "1.0", "foo"], 2).contains("hint: a version looks like"));
    assert!(refused(at, &["build", "nosuch.yaml"], 5).contains("cannot read nosuch.yaml"));
    assert!(refused(at, &["remote", "status", "123"], 2).contains("hint: an id looks like"));
    assert!(refused(at, &["remote", "list", "--server", "nonsense"], 2).contains("hint: write it as"));
    let unreachable = refused(at, &["remote", "list", "--server", "http://127.0.0.1:1"], 6);
    assert!(unreachable.contains("hint: is a melange-server running"), "{unreachable}");
    std::fs::write(at.join("x.apk"), b"nonsense").unwrap();
    assert!(refused(at, &["apk", "info", "x.apk"], 1).contains("is no intact package"));
    let usage = melange(at, &["remote", "submit", "x.yaml", "--backend-selector", "x"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("is not of the form KEY=VALUE"));
}

#[test]
fn a_broken_definition_is_shown_with_its_places_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let definition =
        "package:\n  name: a\n  version: \"1\"\npipeline:\n  - uses: autoconf/mak\n  - runs: echo ${{x}}\n";
    std::fs::write(folder.path().join("a.yaml"), definition).unwrap();
    let output = melange(folder.path(), &["build", "a.yaml", "--state-dir", "state"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["--> a.yaml:5:11", "hint: did you mean `autoconf/make`?", "--> a.yaml:6:16"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!folder.path().join("packages").exists());
}

const GOOD: &str = "package:\n  name: good\n  version: 1.10\n  epoch: 3\n  copyright:\n    - license: MIT\nvars:\n  a: own\noptions:\n  \
                    fast: {vars: {b: option}}\nenvironment:\n  environment: {A: yaml}\npipeline:\n  - uses: mine\n    with: {what: \"${{vars.a}}\"}\n  - runs: echo ${{ vars.b }} \
                    ${{options.fast.enabled}}\nsubpackages:\n  - name: good-dev\n    test:\n      pipeline:\n        - runs: echo ${{subpkg.name}}\n";

/// A folder with two definitions, one of them broken, and what goes with them.
fn definitions() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for name in ["defs", "pipelines"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    write("defs/good.yaml", GOOD);
    write("defs/bad.yaml", "package:\n  name: bad\n  version: 1\npipeline:\n  - runs: echo ${{x}}\n");
    write(
        "pipelines/mine.yaml",
        "inputs:\n  what:\n    required: true\npipeline:\n  - runs: echo ${{inputs.what}}\n",
    );
    write("vars.yaml", "b: file\n");
    write("build.env", "export A=env\nB='env'\n");
    folder
}

const OPTIONS: [&str; 6] =
    ["--pipeline-dir", "pipelines", "--vars-file", "vars.yaml", "--env-file", "build.env"];

#[test]
fn compile_prints_an_object_a_line_and_goes_on_after_a_broken_file() {
    let folder = definitions();
    let mut args = vec!["compile", "defs", "--format", "json", "--arch", "aarch64"];
    args.extend(OPTIONS);
    let output = melange(folder.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--> defs/bad.yaml:5:16"), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1);
    let good: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&good["file"], &good["arch"]), (&"defs/good.yaml".into(), &"aarch64".into()));
    assert_eq!(good["package"]["version"], "1.10");
    assert_eq!(good["pipeline"][0]["pipeline"][0]["runs"], "echo own");
    assert_eq!(good["pipeline"][1]["runs"], "echo file false");
    assert_eq!(good["environment"]["packages"], good["environment"]["contents"]["packages"]);
    assert_eq!(good["subpackages"][0]["pipeline"], serde_json::json!([]));
    assert_eq!(good["environment"]["environment"]["A"], "yaml");
    assert_eq!(good["environment"]["environment"]["B"], "env");
    assert_eq!(good["subpackages"][0]["test"]["pipeline"][0]["runs"], "echo good-dev");
    args.extend(["--build-option", "fast", "--message-format", "json"]);
    let output = melange(folder.path(), &args);
    let good: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(good["pipeline"][1]["runs"], "echo option true");
    let bad: serde_json::Value = serde_json::from_str(&text(&output.stderr)).unwrap();
    assert_eq!(bad["uri"], "defs/bad.yaml");
    assert_eq!(bad["diagnostics"][0]["range"]["start"], serde_json::json!({ "line": 4, "character": 15 }));
}

#[test]
fn a_compiled_definition_compiles_to_itself() {
    let folder = definitions();
    let mut args = vec!["compile", "defs/good.yaml"];
    args.extend(OPTIONS);
    let once = text(&melange(folder.path(), &args).stdout);
    assert!(once.contains("runs: echo own"), "{once}");
    std::fs::write(folder.path().join("once.yaml"), &once).unwrap();
    let again = melange(folder.path(), &["compile", "once.yaml"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(text(&again.stdout), once);
}

#[test]
fn lint_query_pipelines_and_schema_answer() {
    let folder = definitions();
    let at = folder.path();
    let lint = melange(at, &["lint", "--definitions", "defs", "--pipeline-dir", "pipelines"]);
    assert_eq!(lint.status.code(), Some(1));
    let said = text(&lint.stdout);
    assert!(
        said.contains("the variable `x` is not defined")
            && said.contains("warning: the package has no licence")
    );
    assert!(text(&lint.stderr).contains("in 2 of 2 files"), "{}", text(&lint.stderr));
    let lint = melange(at, &["lint", "--definitions", "defs", "--message-format", "json"]);
    let lines: Vec<serde_json::Value> =
        text(&lint.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    std::fs::write(at.join("defs/alien.yaml"), b"package: {name: \xff}\n").unwrap();
    let lint = melange(at, &["lint", "--definitions", "defs", "--message-format", "json"]);
    assert_eq!(lint.status.code(), Some(1));
    assert_eq!(text(&lint.stdout).lines().count(), 2, "the others are looked at all the same");
    assert!(text(&lint.stderr).contains("alien.yaml"), "{}", text(&lint.stderr));
    std::fs::remove_file(at.join("defs/alien.yaml")).unwrap();
    let template = "{{.Package.Name}} {{.Package.FullVersion}}{{range .Subpackages}} {{.Name}}{{end}}";
    let query = melange(at, &["query", "defs/good.yaml", template]);
    assert_eq!(text(&query.stdout), "good 1.10-r3 good-dev\n", "{}", text(&query.stderr));
    assert!(
        refused(at, &["query", "defs/good.yaml", "{{.Nothing}}"], 2).contains("there is no field `Nothing`")
    );
    let list = melange(at, &["pipelines", "list"]);
    assert_eq!(text(&list.stdout).lines().count(), 51);
    let show = melange(at, &["pipelines", "show", "fetch"]);
    assert!(text(&show.stdout).contains("| `uri` | required |"));
    assert!(refused(at, &["pipelines", "show", "nope"], 5).contains("no built-in pipeline"));
    let schema: serde_json::Value = serde_json::from_slice(&melange(at, &["schema"]).stdout).unwrap();
    assert_eq!(schema["required"][0], "package");
}

#[test]
fn keys_are_made_once_and_sign_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(melange(at, &["keygen", "--key-size", "2048", "k.rsa"]).status.success());
    assert!(refused(at, &["keygen", "--key-size", "2048", "k.rsa"], 2).contains("never overwritten"));
    assert!(refused(at, &["keygen", "--key-size", "1024", "l.rsa"], 2).contains("2048"));
    assert!(!at.join("l.rsa").exists());
}

#[test]
fn packages_and_indexes_are_signed_anew() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["local-melange.rsa", "melange.rsa"] {
        assert!(melange(at, &["keygen", "--key-size", "2048", name]).status.success());
    }
    for name in ["acl-2.3.1-r3.apk", "APKINDEX.tar.gz"] {
        std::fs::copy(format!("{distro}/x86_64/{name}"), at.join(name)).unwrap();
    }
    let verify = ["apk", "verify", "acl-2.3.1-r3.apk", "--keyring", "local-melange.rsa.pub"];
    assert!(!melange(at, &verify).status.success(), "it is signed by another key");
    let sign = melange(at, &["sign", "acl-2.3.1-r3.apk"]);
    assert_eq!(text(&sign.stdout), "acl-2.3.1-r3.apk: signed, verified by local-melange.rsa.pub\n");
    let verified = melange(at, &verify);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(refused(at, &["sign", "nosuch.apk"], 5).contains("nosuch.apk"));
    assert!(refused(at, &["sign", "-k", "nosuch.rsa", "acl-2.3.1-r3.apk"], 5).contains("nosuch.rsa"));
    std::fs::write(at.join("x.apk"), "no package").unwrap();
    refused(at, &["sign", "x.apk"], 1);

    let before = std::fs::read(at.join("APKINDEX.tar.gz")).unwrap();
    let again = melange(at, &["sign-index", "APKINDEX.tar.gz"]);
    assert!(again.status.success() && text(&again.stderr).contains("signed already"), "{again:?}");
    assert_eq!(std::fs::read(at.join("APKINDEX.tar.gz")).unwrap(), before);
    assert!(melange(at, &["sign-index", "--force", "APKINDEX.tar.gz"]).status.success());
    let repository = at.join("repository/x86_64");
    std::fs::create_dir_all(&repository).unwrap();
    std::fs::rename(at.join("APKINDEX.tar.gz"), repository.join("APKINDEX.tar.gz")).unwrap();
    let resolve = |key: &str| {
        melange(at, &["apk", "resolve", "-r", "repository", "--arch", "x86_64", "-k", key, "acl"])
    };
    let (right, wrong) = (resolve("melange.rsa.pub"), resolve("local-melange.rsa.pub"));
    assert!(right.status.success(), "{}", text(&right.stderr));
    assert!(!wrong.status.success());
}

#[test]
fn the_version_of_a_definition_is_printed_as_scripts_want_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    let other = GOOD.replace("  epoch: 3\n", "  epoch: 7\n  target-architecture:\n    - s390x\n");
    std::fs::write(at.join("other.yaml"), other).unwrap();
    for (file, version) in [("good.yaml", "good-1.10-r3"), ("other.yaml", "good-1.10-r7")] {
        let told = melange(at, &["package-version", file]);
        assert_eq!(text(&told.stdout), version, "{}", text(&told.stderr));
    }
    let told = melange(at, &["package-version", "good.yaml", "--output", "json"]);
    assert_eq!(text(&told.stdout), "{\"name\":\"good\",\"version\":\"1.10-r3\"}\n");
    assert!(refused(at, &["package-version", "nosuch.yaml"], 5).contains("nosuch.yaml"));
}

#[test]
fn every_verb_has_help_and_completions_name_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    for verb in [
        &["--help"][..],
        &["build", "--help"],
        &["remote", "submit", "--help"],
        &["remote", "backends", "add", "--help"],
        &["apk", "resolve", "--help"],
        &["compile", "--help"],
        &["test", "--help"],
        &["lint", "--help"],
        &["query", "--help"],
        &["pipelines", "show", "--help"],
    ] {
        assert!(melange(folder.path(), verb).status.success(), "{verb:?}");
    }
    let completions = melange(folder.path(), &["completions", "bash"]);
    assert!(text(&completions.stdout).contains("remote"));
}

#[test]
fn the_last_of_an_option_counts_and_what_does_not_exist_yet_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let made = melange(at, &["keygen", "--key-size", "4096", "--key-size", "2048", "k.rsa"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let key = std::fs::read_to_string(at.join("k.rsa")).unwrap();
    // A key of 4096 bits has twice as many lines.
    assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----") && key.lines().count() < 35, "{key}");
    std::fs::write(at.join("a.yaml"), "package: {name: a, version: '1', epoch: 0}\n").unwrap();
    let compiled = melange(at, &["compile", "a.yaml", "--pipeline-dir", "nosuch"]);
    assert_eq!(compiled.status.code(), Some(0), "{}", text(&compiled.stderr));
    let output = Command::new(env!("CARGO_BIN_EXE_melange"))
        .args(["build", "nosuch.yaml"])
        .current_dir(at)
        .env("HOME", at)
        .env("SOURCE_DATE_EPOCH", "")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("cannot read nosuch.yaml"), "{}", text(&output.stderr));
}

#[test]
fn passwords_of_repositories_reach_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let place = "http://me:topsecret@127.0.0.1:1/r";
    let args = ["apk", "resolve", "--allow-untrusted", "--repository", place, "a"];
    let output = melange(folder.path(), &args);
    assert_eq!(output.status.code(), Some(6));
    // Each try is told, and the error.
    let told = text(&output.stderr);
    assert!(told.contains("http://me:xxxxx@127.0.0.1:1/r") && !told.contains("topsecret"), "{told}");
}

#[test]
fn a_package_is_scanned_anew() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Made from another system's package, so its description has no such names.
    std::fs::copy(format!("{distro}/x86_64/acl-2.3.1-r3.apk"), at.join("acl.apk")).unwrap();
    let scan = melange(at, &["apk", "scan", "acl.apk"]);
    assert!(scan.status.success(), "{}", text(&scan.stderr));
    assert!(text(&scan.stdout).contains("provides = so:libacl.so.1=1\n"), "{}", text(&scan.stdout));
    let json = melange(at, &["apk", "scan", "acl.apk", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["package"], &json["version"]), (&"acl".into(), &"2.3.1-r3".into()));
    let depends = json["depend"].as_array().unwrap();
    assert!(depends.contains(&"so:libc.so.6".into()), "{depends:?}");
    let diff = melange(at, &["apk", "scan", "--diff", "acl.apk"]);
    let lines = text(&diff.stdout);
    assert_eq!(diff.status.code(), Some(i32::from(!lines.is_empty())), "{lines}");
    let json = melange(at, &["apk", "scan", "--diff", "acl.apk", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["differs"], !lines.is_empty());
    std::fs::write(at.join("x.apk"), "no package").unwrap();
    assert!(refused(at, &["apk", "scan", "x.apk"], 1).contains("is no intact package"));
    assert!(refused(at, &["apk", "scan", "nosuch.apk"], 5).contains("nosuch.apk"));
}

#[test]
fn licences_are_compared_with_the_texts_of_the_sources() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let sources = at.join("sources/sub");
    std::fs::create_dir_all(&sources).unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../LICENSE"), at.join("sources/LICENSE")).unwrap();
    std::fs::write(sources.join("COPYING"), "all that is said here is nothing that anybody knows\n").unwrap();
    let with = |copyright: &str| {
        let declared = "  epoch: 3\n  copyright:\n    - license: MIT\n";
        assert!(GOOD.contains(declared));
        let text = GOOD.replace(declared, &format!("  epoch: 3 # kept\n  copyright:\n{copyright}"));
        std::fs::write(at.join("a.yaml"), text).unwrap();
    };
    let check = |more: &[&str]| {
        let args = ["license-check", "a.yaml", "--workdir", "sources"];
        melange(at, &args.iter().chain(more).copied().collect::<Vec<_>>())
    };
    for fine in [
        "    - license: Apache-2.0\n",
        "    - license: MIT\n      license-path: LICENSE\n      detection-override: Apache-2.0\n",
    ] {
        with(fine);
        let output = check(&[]);
        assert_eq!(output.status.code(), Some(0), "{fine}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("LICENSE: Apache-2.0 ("), "{}", text(&output.stdout));
        assert!(text(&output.stdout).contains("sub/COPYING: NOASSERTION ("), "{}", text(&output.stdout));
    }
    with("    - license: MIT\n");
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("detected license differences:\n  LICENSE: Apache-2.0 is not declared")
    );
    with("    - license: MIT # gone\n      license-path: ./LICENSE\n");
    let json = check(&["--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["differences"][0]["declared"], "MIT");
    assert_eq!(check(&["--fix"]).status.code(), Some(0));
    let fixed = std::fs::read_to_string(at.join("a.yaml")).unwrap();
    assert!(
        fixed.contains(
            "epoch: 3 # kept\n  copyright:\n    - license: Apache-2.0\n      license-path: \"LICENSE\"\n"
        ),
        "{fixed}"
    );
    assert!(!fixed.contains("# gone"));
    assert_eq!(check(&[]).status.code(), Some(0));
    assert!(refused(at, &["license-check", "a.yaml", "--workdir", "nosuch"], 5).contains("nosuch"));
}
