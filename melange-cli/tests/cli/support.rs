//! The command, and a server that answers as a test wants it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// The command in a folder that is its home too.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_melange"));
    command.args(args).current_dir(folder).env("HOME", folder);
    for name in
        ["XDG_CACHE_HOME", "XDG_STATE_HOME", "MELANGE_SERVER", "MELANGE_STATE_DIR", "SOURCE_DATE_EPOCH"]
    {
        command.env_remove(name);
    }
    command
}

pub(crate) fn melange(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a call that must fail and returns what it said.
pub(crate) fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = melange(folder, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} printed a result: {}", text(&output.stdout));
    assert!(said.starts_with("error: "), "{args:?}: {said}");
    said
}

/// The whole of what a call shows on a terminal, standard error included, by a shell command in which `$MELANGE`
/// is the command.
pub(crate) fn on_a_terminal(folder: &Path, shell: &str) -> String {
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", shell, "/dev/null"])
        .current_dir(folder)
        .env("HOME", folder)
        .env("MELANGE", env!("CARGO_BIN_EXE_melange"))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("`script` of the package bsdutils");
    text(&output.stdout)
}

/// The folder of the APK distribution that real builds need, or `None` after saying that the test is skipped; in CI
/// that is a failure.
pub(crate) fn distro() -> Option<String> {
    let folder = std::env::var("MELANGE_TEST_DISTRO").ok();
    if folder.is_none() {
        eprintln!("skipped: MELANGE_TEST_DISTRO does not name a folder made by `test-distro make`");
        assert!(std::env::var_os("CI").is_none(), "CI must have it");
    }
    folder
}

/// A small package definition.
pub(crate) const GOOD: &str = "package:\n  name: good\n  version: \"1\"\n  epoch: 0\n  copyright:\n    - license: MIT\npipeline:\n  - runs: \"true\"\n";

/// The status of an answer that breaks off behind its body.
pub(crate) const BROKEN: u16 = 1;

/// An answer: its status and body; status 0 is an answer whose body does not come.
pub(crate) type Answer = (u16, Vec<u8>);

/// A server on this machine that answers by a function of the request line and the body, one connection each.
pub(crate) struct Server {
    pub(crate) url: String,
    /// What was asked: request lines and bodies.
    pub(crate) asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // A connection that breaks off is the client's own doing.
                std::thread::spawn(move || serve(stream, &log, &*answer).ok());
            }
        });
        Self { url, asked }
    }

    /// The command with this server's address.
    pub(crate) fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = command(folder, args);
        command.env("MELANGE_SERVER", &self.url);
        command
    }

    pub(crate) fn melange(&self, folder: &Path, args: &[&str]) -> Output {
        self.command(folder, args).output().unwrap()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<(String, String)>>,
    answer: &dyn Fn(&str, &str) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = request.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let body = text(&body);
    log.lock().unwrap().push((line.clone(), body.clone()));
    let (status, bytes) = answer(&line, &body);
    if status == 0 {
        // A log that is followed and has nothing yet: the headers come, the body does not.
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")?;
        stream.flush()?;
        // Until the client goes away.
        return stream.read(&mut [0; 1]).map(drop);
    }
    // A body that breaks off is shorter than was said.
    let said = bytes.len() + usize::from(status == BROKEN);
    let status = if status == BROKEN { 200 } else { status };
    // Servers that are too busy say when to ask again.
    let again = match status {
        429 => "retry-after: 0\r\n".to_owned(),
        503 => format!("retry-after: {}\r\n", u64::MAX),
        _ => String::new(),
    };
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{again}content-length: {said}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&bytes)
}

/// A job as a server tells it.
pub(crate) fn job(id: &str, status: &str) -> serde_json::Value {
    serde_json::json!({
        "id": id,
        "status": status,
        "package": "hello",
        "version": "2.10-r0",
        "spec": { "config_yaml": "x", "config_name": "hello.yaml", "arch": "x86_64" },
        "created_at": "2026-01-02T03:04:05Z",
    })
}

/// Lines of the first attempt of a job, from this number on, as a server tells them.
pub(crate) fn log_lines(first: u64, texts: &[&str]) -> Vec<u8> {
    let line = |(place, text): (u64, &&str)| {
        let line = serde_json::json!({
            "attempt": 1, "n": place, "time": "2026-01-02T03:04:05Z", "stream": "stdout", "text": text,
        });
        format!("{line}\n")
    };
    (first..).zip(texts).map(line).collect::<String>().into_bytes()
}
