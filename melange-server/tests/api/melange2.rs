//! What clients of melange2 send and read: bodies are in the shapes of its own client.

use melange_remote_sdk::job::SourceDigest;
use melange_remote_sdk::sources;

use super::builds::{Planned, definition, makes};
use super::*;

const BUILDS: &str = "/api/v1/builds";

impl Planned {
    async fn create(&self, body: &Value) -> (String, Value) {
        let answer = self.post(BUILDS, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        let told = answer.json();
        let id = told["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header(header::LOCATION), format!("{BUILDS}/{id}"));
        (id, told["packages"].clone())
    }

    /// Waits as its client does.
    async fn ended(&self, id: &str) -> Value {
        let ended = ["success", "failed", "partial"];
        self.until(&format!("{BUILDS}/{id}"), |told| ended.contains(&told["status"].as_str().unwrap())).await
    }
}

#[tokio::test(start_paused = true)]
async fn configs_are_built_in_the_order_of_their_needs_with_the_files_beside_them() {
    let service = Planned::start(vec![makes("lib-a"), makes("app")], None);
    let body = json!({
        "configs": [definition("app", "lib-a-dev"), definition("lib-a", "")],
        "pipelines": { "own/do.yaml": "pipeline:\n  - runs: make\n" },
        "arch": "x86_64",
        "backend_selector": { "tier": "standard" },
        "with_test": true,
        "source_files": { "lib-a": { "fix.patch": "--- a\n", "sub/b": "b" } },
        "mode": "flat",
    });
    let (id, packages) = service.create(&body).await;
    assert_eq!(packages, json!(["lib-a", "app"]), "in the order of the plan");
    let build = service.ended(&id).await;
    insta::assert_snapshot!("melange2_build", redacted(build));
    let package = service.get(&format!("{BUILDS}/{id}/packages/app")).await.json();
    assert_eq!(package["config_yaml"], definition("app", "lib-a-dev"));
    assert_eq!(package["dependencies"], json!(["lib-a"]));

    // The files go by the digest that a folder of them has.
    let texts = [("fix.patch", "--- a\n"), ("sub/b", "b")];
    let texts = texts.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    let digest: SourceDigest = sources::pack_texts(&texts).unwrap().unwrap().digest;
    let job = service.get(&format!("/api/v2/builds/{id}/packages/lib-a")).await.json();
    let job = service.get(&format!("/api/v1/jobs/{}", job["job_id"].as_str().unwrap())).await.json();
    assert_eq!(job["spec"]["source"], digest.to_string());
    let stored = service.get(&format!("/api/v1/sources/{digest}")).await;
    assert_eq!(sources::check(&stored.bytes[..]).unwrap().files, 2);
}

#[tokio::test(start_paused = true)]
async fn a_build_that_fails_and_one_that_is_cancelled_are_told_in_its_words() {
    let fail = Act::Finish(BuildStatus::Failed { reason: "step make failed".to_owned(), failure: None });
    let gate = Arc::new(Notify::new());
    let service = Planned::start(vec![makes("a"), vec![fail], vec![Act::Wait(Arc::clone(&gate))]], None);
    let configs = [definition("a", ""), definition("b", "a"), definition("c", "b")];
    let (first, _) = service.create(&json!({ "configs": configs })).await;
    let build = service.ended(&first).await;
    assert_eq!(build["status"], "partial");
    let told = |build: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = build["packages"].as_array().unwrap();
        packages.iter().map(|package| (text(&package["name"]), text(&package["status"]))).collect()
    };
    let words = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect()
    };
    assert_eq!(told(&build), words(&[("a", "success"), ("b", "failed"), ("c", "skipped")]));
    assert_eq!(build["packages"][1]["error"], "step make failed");

    let (second, _) = service.create(&json!({ "config_yaml": definition("d", "") })).await;
    service.until(&format!("{BUILDS}/{second}"), |told| told["status"] == "running").await;
    let (third, _) = service.create(&json!({ "configs": [definition("e", ""), definition("f", "e")] })).await;
    let waiting = service.get(&format!("{BUILDS}/{third}")).await.json();
    assert_eq!(told(&waiting), words(&[("e", "pending"), ("f", "blocked")]));
    let ids = async |path: &str| -> Vec<String> {
        let list = service.get(path).await.json();
        list.as_array().unwrap().iter().map(|build| build["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(BUILDS).await, [first.as_str(), &second, &third], "the oldest first");
    assert_eq!(ids("/api/v1/builds/active").await, [second.as_str(), &third]);
    let list = service.get(BUILDS).await.json();
    assert_eq!(list[0]["packages"].as_array().unwrap().len(), 3);
    for id in [&second, &third] {
        service.post(&format!("/api/v2/builds/{id}/cancel"), &json!({})).await;
    }
    let stopped = service.ended(&second).await;
    assert_eq!(
        (&stopped["status"], &stopped["packages"][0]["error"]),
        (&json!("failed"), &json!("it was cancelled"))
    );
    assert_eq!(told(&service.ended(&third).await), words(&[("e", "failed"), ("f", "failed")]));
    assert_eq!(ids("/api/v1/builds/active").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_with_the_fields_of_the_request() {
    let service = Planned::start(Vec::new(), None);
    let one = definition("a", "");
    for (name, body) in [
        ("nothing", json!({})),
        ("env", json!({ "config_yaml": one, "env": { "TOKEN": "x" }, "mode": "fast" })),
        ("unknown", json!({ "config": one, "arch": "x86_64" })),
        ("options", json!({ "config_yaml": one, "arch": "z80", "pipelines": { "../a.yaml": "" } })),
        ("files", json!({ "config_yaml": one, "source_files": { "a": { "../../etc/x": "" } } })),
        ("package", json!({ "config_yaml": one, "source_files": { "b": { "x": "" } } })),
        ("definition", json!({ "configs": [one, "package:\n  nam: b\n"] })),
        (
            "skipped",
            json!({ "config_yaml": one.replace("epoch: 0", "epoch: 0, target-architecture: [aarch64]") }),
        ),
    ] {
        let answer = service.post(BUILDS, &body).await;
        insta::assert_snapshot!(format!("melange2_{name}"), refusal(&answer));
    }
    let listed = service.get(BUILDS).await;
    assert_eq!((listed.status, listed.json()), (StatusCode::OK, json!([])));
    for path in ["bld-0123abcd", "bld-0123abcd/packages/a"] {
        assert_eq!(service.get(&format!("{BUILDS}/{path}")).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

/// What its schedulers ask for is not served, and says so.
#[tokio::test(start_paused = true)]
async fn what_is_internal_to_it_is_refused() {
    let service = Planned::start(Vec::new(), None);
    let status = json!({ "status": "success" }).to_string();
    for (method, path, refused) in [
        (Method::PUT, "", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/packages/a", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/packages/claim", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/packages/a/claim", StatusCode::NOT_FOUND),
        (Method::GET, "/metrics", StatusCode::NOT_FOUND),
    ] {
        let answer = service.ask(method.clone(), &format!("{BUILDS}/build-x{path}"), status.clone()).await;
        assert_eq!(answer.status, refused, "{method} {path}");
        assert!(answer.json()["error"]["hint"].is_string(), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_source_is_read_in_its_folder() {
    let service = Planned::start(vec![makes("inner"), makes("more")], None);
    let folder = service.folder.path().join("git");
    std::fs::create_dir_all(folder.join("os/inner")).unwrap();
    for (path, text) in [
        ("top.yaml", definition("top", "")),
        ("os/inner.yaml", definition("inner", "")),
        ("os/inner/fix.patch", "--- a\n".to_owned()),
        ("os/more.yaml", definition("more", "inner")),
    ] {
        std::fs::write(folder.join(path), text).unwrap();
    }
    for words in [
        &["init", "--quiet", "--initial-branch", "main"][..],
        &["add", "."],
        &["-c", "user.name=a", "-c", "user.email=a@a.example", "commit", "--quiet", "-m", "a"],
    ] {
        let ended = std::process::Command::new("git").args(words).current_dir(&folder).status().unwrap();
        assert!(ended.success(), "git {words:?}");
    }
    let url = format!("file://{}", folder.display());
    let source = json!({ "repository": url, "ref": "main", "pattern": "*.yaml", "path": "os" });
    let (id, packages) = service.create(&json!({ "git_source": source, "mode": "dag" })).await;
    assert_eq!(packages, json!(["inner", "more"]));
    let build = service.ended(&id).await;
    assert_eq!((&build["status"], &build["spec"]["git_source"]["ref"]), (&json!("success"), &json!("main")));
    let job = service.get(&format!("/api/v2/builds/{id}/packages/inner")).await.json();
    let job = service.get(&format!("/api/v1/jobs/{}", job["job_id"].as_str().unwrap())).await.json();
    assert!(job["spec"]["source"].is_string(), "the files beside it came too");
}
