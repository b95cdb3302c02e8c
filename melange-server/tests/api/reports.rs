//! What is told about builds and packages, over a scripted builder.

use melange_remote_sdk::builder::{BuildEvent, BuildStatus, StepFailure};

use super::builds::{Planned, makes};
use super::*;

/// A build whose step fails with an error of a compiler.
fn fails() -> Vec<Act> {
    let line = "src/a.c:7:1: error: unknown type name 'u8'";
    let log =
        |line: &str| BuildEvent::Log { stream: LogStream::Stderr, step: Some(0), line: line.to_owned() };
    vec![
        Act::Emit(BuildEvent::StepStarted { index: 0, total: 1, name: "a: make".to_owned() }),
        Act::Emit(log(line)),
        Act::Finish(BuildStatus::Failed {
            reason: "the step `a: make` failed with exit code 2".to_owned(),
            failure: Some(StepFailure::new("a: make", 2)),
        }),
    ]
}

async fn ended(farm: &Planned, build: &str) -> Value {
    farm.until(&format!("/api/v2/builds/{build}"), |told| told["finished_at"].is_string()).await
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_build_tells_its_failures_what_they_hold_back_and_what_changed() {
    let with_memory = |mut acts: Vec<Act>| {
        acts.insert(0, Act::Emit(BuildEvent::MemoryPeak { bytes: 7 << 20 }));
        acts
    };
    let scripts = vec![fails(), makes("c"), with_memory(makes("a")), makes("b"), makes("c"), makes("d")];
    let farm = Planned::start(scripts, None);
    let get = async |path: String| farm.get(&path).await.json();

    let first = farm.build(&[("a", ""), ("b", "a"), ("c", "")]).await;
    let view = ended(&farm, &first).await;
    assert_eq!((&view["status"], &view["trigger"]), (&json!("partial"), &json!("nightly")));
    let failures = get(format!("/api/v2/builds/{first}/failures")).await;
    let group = &failures["groups"][0];
    assert_eq!((&failures["total"], names(&group["packages"])), (&json!(1), vec!["a"]));
    assert_eq!(
        (&group["kind"], &group["error_class"], &group["holds_back"]),
        (&json!("compile"), &json!("build"), &json!(1))
    );
    assert_eq!(group["text"], "src/a.c:7:1: error: unknown type name 'u8'");
    let blockers = get(format!("/api/v2/builds/{first}/blockers")).await;
    assert_eq!(
        (names(&blockers["blockers"]), &blockers["blockers"][0]["holds_back"]),
        (vec!["a"], &json!(1))
    );
    let changes = get(format!("/api/v2/builds/{first}/changes")).await;
    assert_eq!((&changes["since"], &changes["counts"]), (&Value::Null, &json!([0, 0, 0, 0, 0])));

    let second = farm.build(&[("a", ""), ("b", "a"), ("d", "b")]).await;
    assert_eq!(ended(&farm, &second).await["status"], "success");
    let changes = get(format!("/api/v2/builds/{second}/changes")).await;
    assert_eq!((&changes["since"], &changes["counts"]), (&json!(first), &json!([0, 2, 0, 1, 1])));
    assert_eq!(
        (names(&changes["newly_well"]), names(&changes["new"]), names(&changes["gone"])),
        (vec!["a", "b"], vec!["d"], vec!["c"])
    );
    let back = get(format!("/api/v2/builds/{first}/changes?since={second}")).await;
    assert_eq!(names(&back["newly_failing"]), ["a", "b"]);
    assert_eq!(get(format!("/api/v2/builds/{second}/failures")).await["total"], 0);

    let history = get("/api/v2/packages/a/history".to_owned()).await;
    let told: Vec<&Value> = history["jobs"].as_array().unwrap().iter().map(|job| &job["status"]).collect();
    assert_eq!(told, ["success", "failed"]);
    let newest = &history["jobs"][0];
    let size = "the package a".len() + "the package a-dev".len();
    assert_eq!((&newest["peak_memory_bytes"], &newest["size"]), (&json!(7 << 20), &json!(size)));
    assert_eq!(history["jobs"][1]["signature"], group["signature"]);
    let page = get("/api/v2/packages/a/history?limit=1".to_owned()).await;
    let next = page["next"].as_str().unwrap();
    let rest = get(format!("/api/v2/packages/a/history?limit=1&cursor={next}")).await;
    assert_eq!((&rest["jobs"][0]["status"], &rest["next"]), (&json!("failed"), &Value::Null));
    let of = async |project: &str| {
        get(format!("/api/v2/packages/a/history?limit=1&project={project}")).await["jobs"].clone()
    };
    assert_eq!(of("default").await[0]["status"], "success");
    assert_eq!(of("elsewhere").await, json!([]));
    assert_eq!(farm.get("/api/v2/packages/a/history?limit=101").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_build_that_runs_says_when_it_will_end() {
    let hold = Arc::new(tokio::sync::Notify::new());
    let wait = |name: &str| [vec![Act::Wait(Arc::clone(&hold))], makes(name)].concat();
    let farm = Planned::start(vec![wait("a"), makes("b")], None);
    let build = farm.build(&[("a", ""), ("b", "a")]).await;
    let path = format!("/api/v2/builds/{build}");
    farm.until(&path, |told| told["counts"]["running"] == 1).await;
    // The look at the jobs may take longer than the first answer waits for it.
    let view = loop {
        let view = farm.get(&path).await.json();
        if view["expected_at"].is_string() {
            break view;
        }
        tokio::task::yield_now().await;
    };
    let expected: jiff::Timestamp = view["expected_at"].as_str().unwrap().parse().unwrap();
    assert!(expected > jiff::Timestamp::now(), "{view}");
    let list = farm.get("/api/v2/builds").await.json();
    assert_eq!(list["builds"][0]["expected_at"], Value::Null, "lists do not look at jobs");
    hold.notify_one();
    assert_eq!(ended(&farm, &build).await["expected_at"], Value::Null);
}

/// What linters found in the package of a job that fails for it.
#[tokio::test]
async fn a_job_tells_what_linters_found() {
    use melange_remote_sdk::analysis::lint::{Finding, LintDetails, LintSeverity, Linter, PackageLint};
    let details = LintDetails::Paths { paths: (0..30).map(|number| format!("dev/{number}")).collect() };
    let dev = Finding::new(Linter::Dev, LintSeverity::Required, "a writes to /dev").with_details(details);
    let empty = Finding::new(Linter::Empty, LintSeverity::Warning, "package is empty");
    let report = PackageLint::new("a", "1.0-r0", vec![empty, dev]);
    let reason = "unable to lint package a: linter \"dev\" failed: a writes to /dev".to_owned();
    let script = vec![
        Act::Emit(BuildEvent::Linted { report }),
        Act::Finish(BuildStatus::Failed { reason, failure: None }),
    ];
    let farm = Planned::start(vec![script], None);
    let build = farm.build(&[("a", "")]).await;
    ended(&farm, &build).await;
    let list = farm.get("/api/v1/jobs").await.json();
    let id = list[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(list[0]["lint"], Value::Null, "lists do not tell it");
    let job = farm.get(&format!("/api/v1/jobs/{id}")).await.json();
    let lint = &job["lint"][0];
    assert_eq!((&lint["package"], &lint["version"]), (&json!("a"), &json!("1.0-r0")));
    let (empty, dev) = (&lint["findings"][0], &lint["findings"][1]);
    assert_eq!((&empty["linter"], &empty["severity"]), (&json!("empty"), &json!("warning")));
    assert_eq!((&dev["severity"], &dev["message"]), (&json!("required"), &json!("a writes to /dev")));
    let told = dev["details"]["paths"].as_array().unwrap().len();
    assert_eq!((told, &dev["omitted"]), (20, &json!(10)), "of long lists the first ones");
    let attempts = farm.get(&format!("/api/v1/jobs/{id}/attempts")).await.json();
    assert_eq!(attempts[0]["lint"], job["lint"]);
}
