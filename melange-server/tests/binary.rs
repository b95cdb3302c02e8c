//! The real binary: it starts, says where it listens, answers, and stops when asked to.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_melange-server"));
    command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).env_clear();
    command
}

/// Asks and reads the whole answer.
fn ask(addr: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(addr).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(connection, "{request}\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
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
    let term = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(term.success());
    assert_eq!(end(&mut child), Some(0));
    let log = drain.join().unwrap();
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
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
