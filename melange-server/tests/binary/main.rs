//! The real binary: it starts, says where it listens, answers, and stops when asked to.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

mod followers;
mod gc;
mod kills;
mod outages;
mod servers;

fn server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_melange-server"));
    command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).env_clear();
    command
}

/// Asks and reads the whole answer.
fn ask(addr: &str, request: &str) -> String {
    send(addr, request, "")
}

/// As [`ask`], with a body of JSON.
fn send(addr: &str, request: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(addr).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (kind, length) = ("Content-Type: application/json", body.len());
    let head = format!("{request}\r\nHost: test\r\nConnection: close\r\n{kind}\r\nContent-Length: {length}");
    write!(connection, "{head}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits for the end, at most half a minute.
fn end(child: &mut Child) -> Option<i32> {
    let patience = Instant::now() + Duration::from_secs(30);
    while Instant::now() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    None
}

#[test]
fn starts_answers_and_stops_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let (output, port_file) = (folder.path().join("out"), folder.path().join("port"));
    let mut child = server(&[
        "--listen-addr",
        "127.0.0.1:0",
        "--state-dir",
        folder.path().to_str().unwrap(),
        "--output-dir",
        output.to_str().unwrap(),
        "--port-file",
        port_file.to_str().unwrap(),
    ])
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let addr = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listening on http://").map(|(_, addr)| addr.to_owned()))
        .expect("it says where it listens");
    let addr: String = addr.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    let drain = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    assert!(addr.ends_with(std::fs::read_to_string(port_file).unwrap().trim()));
    let health = ask(&addr, "GET /healthz HTTP/1.1");
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("{\"status\":\"ok\"}"), "{health}");
    let backends = ask(&addr, "GET /api/v1/backends HTTP/1.1");
    assert!(backends.contains("\"addr\":\"sandbox://local\""), "{backends}");
    signal(&child, Signal::TERM);
    assert_eq!(end(&mut child), Some(0));
    let log = drain.join().unwrap();
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
}

/// A server with its address; what it says on standard error goes where the caller wants it.
fn started(folder: &std::path::Path, more: &[&str], stderr: Stdio) -> (Child, String) {
    let (output, port_file) = (folder.join("out"), folder.join("port"));
    let state = folder.join("state");
    let mut arguments = vec!["--listen-addr", "127.0.0.1:0", "--output-dir", output.to_str().unwrap()];
    arguments.extend(["--port-file", port_file.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
    arguments.extend(more);
    let child = server(&arguments).stderr(stderr).stdout(Stdio::null()).spawn().unwrap();
    (child, address(&port_file))
}

/// What a server wrote into its port file, once it has.
fn address(port_file: &std::path::Path) -> String {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let port = std::fs::read_to_string(port_file).unwrap_or_default();
        if port.ends_with('\n') {
            return format!("127.0.0.1:{}", port.trim());
        }
        assert!(Instant::now() < patience, "the server did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Hands in a job that is refused or runs; either way the server has something to log.
fn submit(addr: &str) -> String {
    let body = r#"{"config_yaml":"package:\n  name: a\n  version: \"1\"\npipeline:\n  - runs: true\n"}"#;
    let length = body.len();
    let mut connection = TcpStream::connect(addr).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        connection,
        "POST /api/v1/jobs HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let stuck = || {
        let (reader, writer) = std::io::pipe().unwrap();
        // Nobody reads, and nobody closes: the pipe fills up.
        std::mem::forget(reader);
        Stdio::from(writer)
    };
    for stderr in [full(), gone(), stuck()] {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, addr) = started(folder.path(), &[], stderr);
        for _ in 0..400 {
            let answer = ask(&addr, "POST /api/v1/jobs/0/cancel HTTP/1.1");
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
        assert!(submit(&addr).starts_with("HTTP/1.1 201"), "{}", submit(&addr));
        assert!(ask(&addr, "GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200"));
        signal(&child, Signal::TERM);
        assert_eq!(end(&mut child), Some(0));
    }
}

#[test]
fn jobs_in_a_database_outlive_a_killed_server() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let more = ["--database", database.as_str()];
    let (mut child, addr) = started(folder.path(), &more, Stdio::null());
    let answer = submit(&addr);
    let id = answer.split_once("\"id\":\"").map(|(_, rest)| rest.chars().take(36).collect::<String>());
    let id = id.unwrap_or_else(|| panic!("the job was not taken: {answer}"));
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    std::fs::remove_file(folder.path().join("port")).unwrap();
    let (mut child, addr) = started(folder.path(), &more, Stdio::null());
    let told = ask(&addr, &format!("GET /api/v1/jobs/{id} HTTP/1.1"));
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("config_yaml"), "{told}");
    let (mut second, stderr) = {
        let mut second = server(&["--listen-addr", "127.0.0.1:0", "--database", &database]).spawn().unwrap();
        let stderr = second.stderr.take().unwrap();
        (second, stderr)
    };
    assert_ne!(end(&mut second), Some(0));
    let mut said = String::new();
    BufReader::new(stderr).read_to_string(&mut said).unwrap();
    assert!(said.contains("another server uses this job database"), "{said}");
    signal(&child, Signal::TERM);
    assert_eq!(end(&mut child), Some(0));
}

#[test]
fn sighup_reads_the_backends_again_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backends.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("backends:\n  - addr: tcp://127.0.0.1:9\n    arch: x86_64\n");
    let (mut child, addr) =
        started(folder.path(), &["--backends-config", file.to_str().unwrap()], Stdio::null());
    let backends = || ask(&addr, "GET /api/v1/backends HTTP/1.1");
    assert!(backends().contains("tcp://127.0.0.1:9"));
    write("backends:\n  - addr: tcp://127.0.0.1:8\n    arch: aarch64\n");
    signal(&child, Signal::HUP);
    let patience = Instant::now() + Duration::from_secs(30);
    while !backends().contains("tcp://127.0.0.1:8") {
        assert!(Instant::now() < patience, "{}", backends());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!backends().contains("tcp://127.0.0.1:9"));
    write("backends: nonsense\n");
    signal(&child, Signal::HUP);
    assert!(ask(&addr, "GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200"));
    assert!(backends().contains("tcp://127.0.0.1:8"), "a file with mistakes changes nothing");
    signal(&child, Signal::TERM);
    assert_eq!(end(&mut child), Some(0));
}

#[test]
fn what_was_done_to_backends_at_run_time_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backends.yaml");
    let entry = |port: u16| format!("  - addr: tcp://127.0.0.1:{port}\n    arch: x86_64\n");
    std::fs::write(&file, format!("backends:\n{}{}", entry(8), entry(9))).unwrap();
    let more = ["--backends-config", file.to_str().unwrap()];
    let (mut child, addr) = started(folder.path(), &more, Stdio::null());
    let change = |request: &str, body: &str| send(&addr, &format!("{request} HTTP/1.1"), body);
    let drained = change("POST /api/v1/backends/drain", r#"{"addr":"tcp://127.0.0.1:9"}"#);
    assert!(drained.contains(r#""status":"draining""#), "{drained}");
    let arm = r#"{"addr":"tcp://127.0.0.1:7","arch":"aarch64","maxJobs":3}"#;
    let added = change("POST /api/v1/backends", arm);
    assert!(added.starts_with("HTTP/1.1 201"), "{added}");
    let removed = change("DELETE /api/v1/backends?addr=tcp://127.0.0.1:8", "");
    assert!(removed.starts_with("HTTP/1.1 204"), "{removed}");
    // Killed, so that nothing could be put in order at the end.
    signal(&child, Signal::KILL);
    end(&mut child);
    std::fs::remove_file(folder.path().join("port")).unwrap();
    let (mut child, addr) = started(folder.path(), &more, Stdio::null());
    let told = ask(&addr, "GET /api/v1/backends HTTP/1.1");
    assert!(!told.contains("tcp://127.0.0.1:8"), "{told}");
    let json: serde_json::Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap();
    let of = |addr: &str| {
        let backends = json["backends"].as_array().unwrap();
        backends.iter().find(|backend| backend["addr"] == addr).unwrap_or_else(|| panic!("{told}")).clone()
    };
    let (drained, added) = (of("tcp://127.0.0.1:9"), of("tcp://127.0.0.1:7"));
    assert_eq!((&drained["status"], &drained["source"]), (&"draining".into(), &"configuration".into()));
    assert_eq!((&added["maxJobs"], &added["source"]), (&3.into(), &"added".into()));
    signal(&child, Signal::TERM);
    assert_eq!(end(&mut child), Some(0));
}

#[test]
fn mistakes_of_the_configuration_are_told_together_and_give_code_2() {
    let output = server(&["--listen-addr", "x", "--max-jobs", "y"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("--listen-addr:") && told.contains("--max-jobs:"), "{told}");
    assert_eq!(server(&["--no-such"]).output().unwrap().status.code(), Some(2));
    let help = server(&["--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("--backends-config"));
}
