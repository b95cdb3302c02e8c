//! A build server's jobs: which one is meant, what is shown of it, and how waiting for it ends.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BROKEN, GOOD, Server, job, log_lines, melange, text};

const ID: &str = "0197a3c2-1111-7aaa-8000-000000000001";
const OTHER: &str = "0197a3c2-1111-7aab-8000-000000000001";

#[test]
fn jobs_are_listed_by_package_and_named_by_what_tells_them_apart() {
    let server = Server::start(|_, _| {
        let mut running = job(OTHER, "running");
        running["backend"] = serde_json::json!({ "addr": "tcp://b:1234", "arch": "x86_64" });
        (200, serde_json::json!([running, job(ID, "success")]).to_string().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    let listed = text(&server.melange(folder.path(), &["remote", "list"]).stdout);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["JOB", "PACKAGE", "VERSION", "ARCH", "STATUS", "AGE", "BACKEND"]);
    assert_eq!(rows[1][..5], ["0197a3c2-1111-7aab", "hello", "2.10-r0", "x86_64", "running"]);
    assert!(rows[1][5].ends_with('d') && rows[1][6] == "tcp://b:1234", "{listed}");
    assert_eq!(rows[2].len(), 6);
}

#[test]
fn a_beginning_that_fits_one_job_is_enough() {
    let server = Server::start(|line, _| {
        let all = [OTHER, ID];
        let body = if let Some((_, query)) = line.split_once("/jobs?") {
            // As the server does it: those below the cursor, newest first.
            let cursor = query.split('&').find_map(|part| part.strip_prefix("cursor=")).unwrap_or("g");
            let below = all.iter().filter(|id| **id < cursor).take(2);
            serde_json::Value::from(below.map(|id| job(id, "success")).collect::<Vec<_>>())
        } else {
            let id = all.iter().find(|id| line.contains(**id)).unwrap();
            job(id, "success")
        };
        (200, body.to_string().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    let status = |id: &str| server.melange(folder.path(), &["remote", "status", id]);
    for (given, meant) in [("0197a3c2-1111-7aaa", ID), ("0197A3C2-1111-7AAB", OTHER), (ID, ID)] {
        assert!(text(&status(given).stdout).contains(meant), "{given}");
    }
    for (given, code, words) in [
        ("0197a3c2", 2, "several jobs begin with"),
        ("0197a3c3", 5, "no job begins with"),
        ("0197a", 2, "at least 6 characters"),
        ("hello.", 2, "is not the id of a job"),
    ] {
        let output = status(given);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{given}: {said}");
        assert!(said.contains(words), "{given}: {said}");
    }
}

#[test]
fn last_is_the_job_that_was_submitted_last_to_the_same_server() {
    let server = |id: &'static str| {
        Server::start(move |line, _| {
            let body =
                if line.starts_with("POST") { serde_json::json!({ "id": id }) } else { job(id, "success") };
            (200, body.to_string().into_bytes())
        })
    };
    let (one, two) = (server(ID), server(OTHER));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    for server in [&one, &two] {
        assert!(server.melange(at, &["remote", "submit", "good.yaml"]).status.success());
    }
    for (server, id) in [(&one, ID), (&two, OTHER)] {
        let status = server.melange(at, &["remote", "status", "@last"]);
        assert!(text(&status.stdout).contains(id), "{}", text(&status.stderr));
    }
    assert!(at.join(".local/state/melange-remote/last-jobs.json").is_file());
}

#[test]
fn last_is_a_build_when_that_was_handed_in_last() {
    const BUILD: &str = "build-0197a3c2-1111-7aab-8000-000000000001";
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = Server::start(move |line, _| {
        log.lock().unwrap().push(line.to_owned());
        let path = line.split_whitespace().nth(1).unwrap_or_default();
        match line {
            line if line.starts_with("POST") && path.ends_with("/v2/builds") => {
                let told =
                    serde_json::json!({ "build_id": BUILD, "packages": [], "total": 0, "created": true });
                (201, told.to_string().into_bytes())
            }
            line if line.starts_with("POST") && path.ends_with("/jobs") => {
                (201, serde_json::json!({ "id": ID }).to_string().into_bytes())
            }
            _ => (404, br#"{"error":{"code":"not_found","message":"no"}}"#.to_vec()),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    let handed_in = server.melange(at, &["remote", "build", "good.yaml"]);
    assert!(handed_in.status.success(), "{}", text(&handed_in.stderr));
    // What the first request is about.
    let about = |call: &[&str]| {
        asked.lock().unwrap().clear();
        let done = server.melange(at, &[&["remote"], call].concat());
        assert_eq!(done.status.code(), Some(5), "{call:?}: {}", text(&done.stderr));
        asked.lock().unwrap().first().cloned().unwrap_or_default()
    };
    for verb in ["status", "why", "cancel", "retry", "wait", "get", "failures", "blockers", "changes"] {
        let line = about(&[verb, "@last"]);
        // Who waits follows its events at the same time.
        let is_about =
            line.contains(&format!("/builds/{BUILD}")) || line.ends_with(&format!("&build={BUILD}"));
        assert!(is_about, "{verb}: {line}");
    }
    let line = about(&["events", "--build", "@last"]);
    assert!(line.contains(BUILD), "{line}");
    let line = about(&["logs", "@last/hello"]);
    assert!(line.contains(&format!("/builds/{BUILD}/packages/hello")), "{line}");
    for verb in ["logs", "remove"] {
        let refused = server.melange(at, &["remote", verb, "@last"]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("@last is the build {BUILD}")) && said.contains("@last/PACKAGE"),
            "{said}"
        );
    }
    assert!(server.melange(at, &["remote", "submit", "good.yaml"]).status.success());
    assert!(about(&["logs", "@last"]).contains(ID));
    let refused = server.melange(at, &["remote", "failures", "@last"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("is a job, and this takes a build"), "{}", text(&refused.stderr));
}

#[test]
fn a_submission_may_join_an_equal_job() {
    let server = Server::start(|line, body| {
        assert!(line.starts_with("POST"));
        let asked: serde_json::Value = serde_json::from_str(body).unwrap();
        let created = asked.get("dedupe_seconds").is_none();
        let answer = serde_json::json!({ "id": ID, "created": created, "asked": asked["dedupe_seconds"] });
        (200, answer.to_string().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let submit =
        |more: &[&str]| server.melange(folder.path(), &[&["remote", "submit", "good.yaml"], more].concat());
    assert!(!text(&submit(&[]).stderr).contains("joined"));
    for flag in ["--dedupe", "--dedupe=10m"] {
        let joined = submit(&[flag]);
        assert_eq!(text(&joined.stdout).trim(), ID);
        let said = text(&joined.stderr);
        assert!(said.contains(&format!("joined {ID}, an equal job that was handed in before")), "{said}");
    }
    let json = text(&submit(&["--dedupe", "--output", "json"]).stdout);
    assert!(json.contains("\"created\":false"), "{json}");
    assert_eq!(submit(&["--dedupe=soon"]).status.code(), Some(2));
}

#[test]
fn a_failed_job_is_shown_with_its_step_and_times_have_a_zone() {
    let server = Server::start(|_, _| {
        let mut job = job(ID, "failed");
        job["error"] = "the step `make` failed with exit code 2".into();
        job["error_class"] = "build".into();
        job["failure"] =
            serde_json::json!({ "step": "make", "exit_code": 2, "tail": ["cc: no", "make: stop"] });
        (200, job.to_string().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    let output = server.command(folder.path(), &["remote", "status", ID]).env("TZ", "UTC").output().unwrap();
    let shown = text(&output.stdout);
    for part in [
        "package:  hello 2.10-r0",
        "created:  2026-01-02 03:04:05 +00:00 (",
        "(build)",
        "the step `make` failed with exit code 2; its last lines:\n  cc: no\n  make: stop",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

/// A failed job whose server tells what it failed of.
fn diagnosed(change: impl Fn(&mut serde_json::Value) + Send + Sync + 'static) -> Server {
    Server::start(move |line, _| {
        if line.contains("/logs") {
            return (200, Vec::new());
        }
        let mut job = job(ID, "failed");
        job["error"] = "the step `hello: make` failed with exit code 2".into();
        job["error_class"] = "build".into();
        job["failure"] = serde_json::json!({ "step": "hello: make", "exit_code": 2, "tail": ["make: stop"] });
        let line = |n: u64, text: &str| serde_json::json!({ "n": n, "text": text });
        job["diagnosis"] = serde_json::json!({
            "version": 1, "signature": "0011223344556677", "kind": "compile", "line": 999,
            "text": "src/main.c:12:3: error: no such type",
            "extract": [
                line(997, "cc -c src/main.c"),
                line(998, ""),
                line(999, "src/main.c:12:3: error: no such type"),
                line(1_004, "\tmake[1]: *** [main.o] Error 1"),
            ],
        });
        change(&mut job);
        (200, job.to_string().into_bytes())
    })
}

/// What is shown from the failed step on.
fn failure_of(shown: &[u8]) -> String {
    let shown = text(shown);
    let begin = shown.find("the step `hello: make` failed with exit code 2; ").or(shown.find("from the log"));
    shown[begin.unwrap_or_else(|| panic!("nothing of a failure in {shown}"))..].to_owned()
}

#[test]
fn the_lines_around_an_error_are_shown_with_their_numbers() {
    let server = diagnosed(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let status = server.melange(folder.path(), &["remote", "status", ID]);
    insta::assert_snapshot!(failure_of(&status.stdout));
    let wait = server.melange(folder.path(), &["remote", "wait", ID]);
    let said = text(&wait.stderr).replace(&server.url, "http://server");
    insta::assert_snapshot!(failure_of(said.as_bytes()));
}

/// A step that is stopped from outside has lines and no exit code.
#[test]
fn the_lines_of_a_step_that_took_too_long_are_shown() {
    let server = diagnosed(|job| {
        job["failure"] = serde_json::Value::Null;
        job["error_class"] = "policy".into();
    });
    let folder = tempfile::tempdir().unwrap();
    let status = server.melange(folder.path(), &["remote", "status", ID]);
    insta::assert_snapshot!(failure_of(&status.stdout));
}

/// What a message says is in the job's error already.
#[test]
fn a_diagnosis_without_lines_leaves_the_last_lines_of_the_step() {
    let server = diagnosed(|job| {
        job["diagnosis"] = serde_json::json!({ "version": 1, "signature": "0", "kind": "silent" })
    });
    let folder = tempfile::tempdir().unwrap();
    let status = server.melange(folder.path(), &["remote", "status", ID]);
    insta::assert_snapshot!(failure_of(&status.stdout));
}

#[test]
fn what_strangers_write_makes_no_lines_of_its_own() {
    let server = diagnosed(|job| {
        job["diagnosis"]["extract"][2]["text"] = "error: \u{1b}[2Jno\nhello success\r> 1\u{202e}".into();
    });
    let folder = tempfile::tempdir().unwrap();
    let status = server.melange(folder.path(), &["remote", "status", ID]);
    insta::assert_snapshot!(failure_of(&status.stdout));
}

/// A server whose job waits or runs, and whose log has nothing yet; says when the log is asked for.
fn quiet(status: &'static str) -> (Server, mpsc::Receiver<()>) {
    let (asked, is_asked) = mpsc::channel();
    let server = Server::start(move |line, _| {
        if line.contains("/logs") {
            // Nobody may be listening any more.
            let _ = asked.send(());
            return (0, Vec::new());
        }
        if line.starts_with("POST") {
            return (200, serde_json::json!({ "id": ID }).to_string().into_bytes());
        }
        let mut job = job(ID, status);
        job["waiting_reason"] = "all backends are busy".into();
        (200, job.to_string().into_bytes())
    });
    (server, is_asked)
}

#[test]
fn an_interrupt_leaves_the_job_alone_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let several = ["remote", "submit", "good.yaml", "good.yaml", "--wait"];
    for call in [&["remote", "wait", ID][..], &["remote", "submit", "good.yaml", "--wait"], &several] {
        let (server, is_asked) = quiet("running");
        let child = server.command(folder.path(), call).stderr(Stdio::piped()).spawn().unwrap();
        is_asked.recv().unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for part in ["goes on", &format!("melange remote wait {ID}"), &format!("melange remote cancel {ID}")]
        {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        let asked = server.asked.lock().unwrap();
        assert!(!asked.iter().any(|(line, _)| line.contains("/cancel")), "{asked:?}");
    }
}

#[test]
fn a_log_that_does_not_begin_says_what_the_job_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _is_asked) = quiet("pending");
    let mut child =
        server.command(folder.path(), &["remote", "logs", "-f", ID]).stderr(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, "waiting: all backends are busy");
}

#[test]
fn a_followed_log_that_breaks_off_is_taken_up_where_it_ended() {
    let server = Server::start(|line, _| match line {
        _ if line.contains("since=1:1") => (200, log_lines(2, &["two", "three"])),
        _ if line.contains("format=jsonl") => {
            let mut lines = log_lines(1, &["one", "two"]);
            lines.truncate(lines.len() - 9);
            (BROKEN, lines)
        }
        _ if line.contains("/logs") => (BROKEN, b"one\ntw".to_vec()),
        _ => (404, Vec::new()),
    });
    let folder = tempfile::tempdir().unwrap();
    let output = server.melange(folder.path(), &["remote", "logs", "--follow", ID]);
    assert_eq!(text(&output.stdout), "one\ntwo\nthree\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    // Without `--follow` what is there was asked for, and a part of it is not that.
    let output = server.melange(folder.path(), &["remote", "logs", ID]);
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn a_server_that_is_too_busy_is_asked_again_when_it_says() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |_, _| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0..4 => (429, br#"{"error":{"code":"limit_exceeded","message":"too many"}}"#.to_vec()),
        _ => (200, serde_json::json!({ "id": ID }).to_string().into_bytes()),
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let output = server.melange(folder.path(), &["remote", "submit", "good.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(server.asked.lock().unwrap().len(), 5, "more often than one that says nothing");
    // Nobody waits for as long as this one asks.
    let server =
        Server::start(|_, _| (503, br#"{"error":{"code":"unavailable","message":"later"}}"#.to_vec()));
    let output = server.melange(folder.path(), &["remote", "submit", "good.yaml"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[test]
fn the_files_beside_a_definition_are_sent_once_and_named_by_its_jobs() {
    let known = std::sync::Mutex::new(Vec::<String>::new());
    let server = Server::start(move |line, body| {
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut known = known.lock().unwrap();
        match line.split(' ').next().unwrap() {
            "HEAD" if known.contains(&path) => (200, Vec::new()),
            "HEAD" => (404, Vec::new()),
            "PUT" => {
                assert!(body.contains("the patch"), "a plain tar");
                known.push(path);
                (201, b"{}".to_vec())
            }
            _ => (200, serde_json::json!({ "id": ID }).to_string().into_bytes()),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    let submit = |more: &[&str]| {
        let from = server.asked.lock().unwrap().len();
        let output = server.melange(at, &[&["remote", "submit", "good.yaml"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let asked = server.asked.lock().unwrap()[from..].to_vec();
        let verbs: Vec<String> =
            asked.iter().map(|(line, _)| line.split(' ').next().unwrap().to_owned()).collect();
        let job: serde_json::Value = serde_json::from_str(&asked.last().unwrap().1).unwrap();
        (verbs, job["source"].as_str().map(str::to_owned), text(&output.stderr))
    };
    assert_eq!(submit(&[]).1, None);
    std::fs::create_dir_all(at.join("good/patches")).unwrap();
    let (verbs, source, _) = submit(&[]);
    assert_eq!((verbs, source), (vec!["POST".to_owned()], None), "an empty folder has nothing to send");
    std::fs::write(at.join("good/patches/a.patch"), "the patch").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", at.join("good/link")).unwrap();
    let (verbs, source, said) = submit(&["--arch", "x86_64,aarch64"]);
    assert_eq!(verbs, ["HEAD", "PUT", "POST", "POST"], "one archive for all architectures");
    let source = source.unwrap();
    assert!(source.starts_with("sha256:"), "{source}");
    let told = format!("sent 1 file of good (2048 bytes, {source}); 1 link left out, as in every build");
    assert!(said.contains(&told), "{said}");
    let (verbs, again, said) = submit(&[]);
    assert_eq!(
        (verbs, again.as_deref()),
        (vec!["HEAD".to_owned(), "POST".to_owned()], Some(source.as_str()))
    );
    assert!(said.contains("1 file of good: known there already (2048 bytes"), "{said}");
    std::fs::rename(at.join("good"), at.join("elsewhere")).unwrap();
    assert_eq!(submit(&[]).1, None);
    let (_, given, said) = submit(&["--source-dir", "elsewhere", "--output", "json"]);
    assert_eq!(given.as_deref(), Some(source.as_str()), "where it lies does not matter");
    assert!(!said.contains("known"), "programs read no prose: {said}");
}

#[test]
fn mistakes_that_the_server_finds_are_shown_in_the_files_of_the_caller() {
    let server = Server::start(|_, _| {
        let detail = |file: &str, line: u32, column: u32, message: &str| serde_json::json!({ "file": file, "line": line, "column": column, "message": message, "hint": "mend it" });
        let body = serde_json::json!({ "error": {
            "code": "invalid_request",
            "message": "good.yaml:8:10: no variable `x`",
            "details": [
                detail("good.yaml", 8, 10, "no variable `x`"),
                detail("good.yaml", 8, 10, "no variable `x`"),
                detail("mine/p.yaml", 2, 3, "no variable `y`"),
                detail("fetch.yaml", 2, 3, "no variable `z`"),
            ],
        }});
        (400, body.to_string().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("defs")).unwrap();
    std::fs::create_dir_all(at.join("pipelines/mine")).unwrap();
    std::fs::write(at.join("defs/good.yaml"), GOOD.replace("\"true\"", "\"${{x}}\"")).unwrap();
    std::fs::write(at.join("pipelines/mine/p.yaml"), "pipeline:\n- runs: ${{y}}\n").unwrap();
    let call = ["remote", "submit", "defs/good.yaml", "--pipeline-dir", "pipelines"];
    let output = server.melange(at, &call);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "  --> defs/good.yaml:8:10\n  |\n8 |   - runs: \"${{x}}\"\n  |          ^",
        "  --> pipelines/mine/p.yaml:2:3\n  |\n2 | - runs: ${{y}}\n",
        "  --> fetch.yaml:2:3\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(said.matches("no variable `x`").count(), 1, "{said}");
    let output = server.melange(at, &[&call[..], &["--output", "json"]].concat());
    let read: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(read["error"]["details"][0]["file"], "defs/good.yaml");
}

#[test]
fn several_architectures_are_a_job_each() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    let server = Server::start(|_, _| (200, serde_json::json!({ "id": ID }).to_string().into_bytes()));
    for (args, expected) in [
        (&["--arch", "amd64,aarch64", "--arch", "x86_64"][..], &["\"x86_64\"", "\"aarch64\""][..]),
        (&[], &["null"]),
    ] {
        let output = server.melange(at, &[&["remote", "submit", "good.yaml"], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let asked: Vec<String> = server.asked.lock().unwrap().drain(..).map(|(_, body)| body).collect();
        let archs: Vec<String> = asked
            .iter()
            .map(|body| serde_json::from_str::<serde_json::Value>(body).unwrap()["arch"].to_string())
            .collect();
        assert_eq!(archs, expected);
        assert_eq!(text(&output.stdout).lines().count(), expected.len());
    }
    let refused = melange(at, &["remote", "submit", "good.yaml", "--arch", "z80"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}
