//! What melange2's clients send is understood, and they understand what they get.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::arch::Arch;
use crate::job::{BuildFacts, JobId, JobSpec, Project, StateCounts, UncheckedSpec};

fn definition(name: &str) -> String {
    format!("package:\n  name: {name}\n  version: \"1\"\n  epoch: 0\n")
}

fn translated(body: &serde_json::Value) -> Result<(CreateBuildRequest, SourceFiles), Vec<ErrorDetail>> {
    read_create(body.to_string().as_bytes())?.into_build()
}

/// The fields that are told as wrong.
fn wrong(body: &serde_json::Value) -> Vec<String> {
    translated(body).unwrap_err().into_iter().filter_map(|mistake| mistake.field).collect()
}

#[test]
fn definitions_get_the_names_of_their_packages() {
    let (request, files) = translated(&json!({
        "configs": [definition("zlib"), definition("curl"), "no: definition", definition("../x")],
        "pipelines": { "a/b.yaml": "pipeline: []" }, "arch": "arm64", "backend_selector": { "tier": "high" },
        "with_test": true, "debug": true, "mode": "flat", "env": {},
        "source_files": { "zlib": { "fix.patch": "--- a\n" }, "curl": null },
    }))
    .unwrap();
    let names: Vec<&str> = request.source.definitions.keys().map(String::as_str).collect();
    assert_eq!(names, ["config-2.yaml", "config-3.yaml", "curl.yaml", "zlib.yaml"]);
    assert_eq!(request.source.pipelines.len(), 1);
    let options = &request.options;
    assert_eq!(
        (options.architectures.as_slice(), options.rebuild.as_deref()),
        (&["arm64".to_owned()][..], Some("all"))
    );
    assert!(options.with_test && options.debug && options.backend_selector.contains_key("tier"));
    assert_eq!(files["zlib"]["fix.patch"], "--- a\n");
    let (one, _) = translated(&json!({ "config_yaml": definition("zlib") })).unwrap();
    assert_eq!(one.source.definitions["zlib.yaml"], definition("zlib"));
    assert!(one.options.architectures.is_empty());
}

#[test]
fn a_folder_of_a_repository_goes_into_the_pattern() {
    for (path, pattern, glob) in [
        ("", "", None),
        (".", "a*.yaml", Some("a*.yaml")),
        ("./os/main/", "", Some("os/main/*.yaml")),
        ("os", "**/*.yaml", Some("os/**/*.yaml")),
    ] {
        let source =
            json!({ "repository": "https://a.example/os", "ref": "main", "path": path, "pattern": pattern });
        let (request, _) = translated(&json!({ "git_source": source })).unwrap();
        let git = request.source.git.unwrap();
        assert_eq!((git.url.as_str(), git.reference.as_deref()), ("https://a.example/os", Some("main")));
        assert_eq!(git.glob.as_deref(), glob, "{path}");
    }
    for path in ["..", "/etc", "a/../b", "a//b", "*", "a{b"] {
        let source = json!({ "repository": "https://a.example/os", "path": path });
        assert_eq!(wrong(&json!({ "git_source": source })), ["git_source.path"], "{path}");
    }
}

#[test]
fn every_mistake_is_told_with_its_field() {
    let git = json!({ "repository": "https://a.example/os" });
    assert_eq!(wrong(&json!({})), ["config_yaml"]);
    assert_eq!(
        wrong(&json!({
            "config_yaml": definition("a"), "git_source": git, "mode": "fast", "env": { "A": "b" },
            "source_files": { "a": {} },
        })),
        ["config_yaml", "mode", "env", "source_files"]
    );
    let many = vec!["a"; limits::PLAN_DEFINITIONS_MAX + 1];
    assert_eq!(wrong(&json!({ "configs": many })), ["configs"]);
    let large = format!("{}#{}", definition("a"), "x".repeat(limits::DEFINITION_BYTES_MAX));
    let (request, _) = translated(&json!({ "config_yaml": large })).unwrap();
    assert!(request.source.definitions.contains_key("config-0.yaml"), "it is not read");
    let twice = json!({ "configs": [definition("a"), definition("a")], "source_files": { "b": {} } });
    assert_eq!(wrong(&twice), ["configs.1", "source_files.b"]);
    assert_eq!(
        wrong(&json!({ "source_files": { "a": { "b": 1 }, "c": 2 }, "git_source": { "url": "x" } })),
        ["git_source.repository", "git_source.url", "source_files.a.b", "source_files.c"]
    );
    for (field, told) in [
        ("options.architectures.0", "arch"),
        ("options.backend_selector", "backend_selector"),
        ("source.pipelines.a", "pipelines.a"),
        ("source.definitions.a.yaml", "configs"),
    ] {
        assert_eq!(field_of(field), told);
    }
}

#[test]
fn states_are_told_in_words_that_its_clients_know() {
    let spec = JobSpec::validate(UncheckedSpec::new(definition("a"), "x86_64")).unwrap();
    let at = Timestamp::UNIX_EPOCH;
    let mut job = crate::job::Job::new(JobId::new(at), &spec, at);
    for (state, word, error) in [
        (JobState::Blocked, "blocked", ""),
        (JobState::Success, "success", ""),
        (JobState::Cancelled, "failed", "it was cancelled"),
        (JobState::Skipped, "skipped", ""),
    ] {
        job.state = state;
        let package = Melange2Package::from(JobView::new(&job, None, None));
        assert_eq!((package.status.as_str(), package.error.as_str()), (word, error));
    }
    let mut counts = StateCounts::default();
    counts.add(JobState::Success);
    counts.add(JobState::Cancelled);
    let source =
        BuildSource::Git { url: "https://a.example/os".into(), reference: "main".into(), commit: "c".into() };
    let facts =
        BuildFacts { source, architectures: vec![Arch::X86_64, Arch::Aarch64], ..BuildFacts::default() };
    let (id, project) = (BuildId::new(at), Project::default());
    let facts = Arc::new(facts);
    let build = Build { id, project, created_at: at, finished_at: Some(at), counts, reused: 0, facts };
    let view = Melange2Build::new(&build, vec![Melange2Package::skipped("b", "nothing to do")]);
    assert_eq!(
        serde_json::to_value(&view).unwrap(),
        json!({
            "id": id.to_string(), "status": "failed", "created_at": "1970-01-01T00:00:00Z",
            "finished_at": "1970-01-01T00:00:00Z",
            "spec": {
                "git_source": { "repository": "https://a.example/os", "ref": "main" },
                "arch": "x86_64,aarch64", "mode": "dag",
            },
            "packages": [{
                "name": "b", "status": "skipped", "config_yaml": "", "dependencies": [], "error": "nothing to do",
            }],
        })
    );
}
