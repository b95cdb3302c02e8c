//! The program `git`, run so that nothing of this machine or its users reaches it, and nothing of it stays.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout, Command};

use super::address::{GitAddress, Place};
use super::reference::Reference;
use super::{GitCredential, GitPolicy, GitSecret, failure, redirect};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;

/// The remote's name in our configuration.
const REMOTE: &str = "origin";
/// Where the fetched commit is kept.
const FETCHED: &str = "refs/fetched/head";
/// The oldest git that pins a host to an address ([`http.curloptResolve`]); older ones would ignore it silently.
///
/// [`http.curloptResolve`]: https://git-scm.com/docs/git-config
const OLDEST: (u32, u32) = (2, 37);
/// What git and ssh tell of trouble.
const STDERR_BYTES_MAX: u64 = 64 << 10;
/// Answers of a few lines.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// What a shell does before it becomes git. `ulimit` is the way to bounds that needs no code between fork and exec.
const SHELL: &str = r#"ulimit -c 0; ulimit -f "$1" && ulimit -v "$2" && shift 2 && exec git "$@""#;

/// A repository of ours that one source is fetched into.
#[derive(Clone)]
pub(super) struct Git {
    folder: PathBuf,
    programs: String,
    /// What one file may have.
    bytes_max: u64,
    /// The only protocol that is allowed.
    protocol: String,
    /// What must not be told, whoever tells it.
    secrets: Vec<String>,
    /// Whether git tells what it sends and gets over http.
    is_traced: bool,
    /// Whether its server sent it elsewhere.
    is_redirected: Arc<AtomicBool>,
}

/// A running git, which is ended with all that it started when this is dropped.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // One that has ended has no group any more.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// How a git ended.
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Git {
    /// Makes an empty repository in a folder, with a configuration that allows one place and nothing else.
    pub(super) async fn prepare(
        folder: &Path,
        policy: &GitPolicy,
        place: &Place,
        credential: Option<&GitCredential>,
    ) -> Result<Self> {
        let git = Self {
            folder: folder.to_owned(),
            programs: policy.programs.clone(),
            bytes_max: policy.bytes_max,
            protocol: place.address.protocol().to_owned(),
            secrets: credential.map(secrets_of).unwrap_or_default(),
            is_traced: false,
            is_redirected: Arc::default(),
        };
        std::fs::create_dir(git.home()).map_err(|e| Error::io("create", &git.home(), e))?;
        write_private(
            &git.folder.join("config"),
            &configuration(policy, place, credential, &git.ssh_config())?,
        )?;
        if place.address.is_ssh() {
            write_private(&git.ssh_config(), &ssh_configuration(policy, place, credential)?)?;
        }
        git.check_version().await?;
        git.local(&["init", "--quiet", "--bare", "--template=", "--", "repository"], ANSWER_BYTES_MAX)
            .await?;
        Ok(git)
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    fn ssh_config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }

    async fn check_version(&self) -> Result<()> {
        let told = self.local(&["version"], ANSWER_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&told).into_owned();
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let mut number = || numbers.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or_default();
        let version = (number(), number());
        if version >= OLDEST {
            return Ok(());
        }
        let message = format!("git {}.{} is too old", version.0, version.1);
        Err(Error::new(ErrorKind::Unsupported, message)
            .blame(Blame::Farm)
            .hint(format!("install git {}.{} or newer", OLDEST.0, OLDEST.1)))
    }

    /// Fetches one commit with its trees and, where the server can do so, without the content of its files. Its id.
    pub(super) async fn fetch_commit(&self, reference: &Reference) -> Result<String> {
        let wanted = match reference {
            Reference::Head => "HEAD".to_owned(),
            Reference::Commit(commit) => commit.clone(),
            Reference::Full(name) => self.found(std::slice::from_ref(name)).await?,
            Reference::Name(name) => {
                self.found(&[format!("refs/heads/{name}"), format!("refs/tags/{name}")]).await?
            }
        };
        let refspec = format!("+{wanted}:{FETCHED}");
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head"];
        let more = ["--recurse-submodules=no", "--filter=blob:none", "--refmap=", "--", REMOTE, &refspec];
        self.remote(&[&fetch[..], &more].concat(), None).await?;
        let name = format!("{FETCHED}^{{commit}}");
        let told = self
            .local(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name], ANSWER_BYTES_MAX)
            .await;
        let told = told.map_err(|error| {
            Error::invalid("what the reference names is no commit").source(error).blame(Blame::Definition)
        })?;
        let commit = String::from_utf8_lossy(&told).trim().to_owned();
        match reference {
            Reference::Commit(asked) if *asked != commit => {
                let error = Error::invalid("what the reference names is no commit").with("commit", asked);
                Err(error.blame(Blame::Definition))
            }
            _ => Ok(commit),
        }
    }

    /// Where the server sends us instead, when it does so and that is why a call before failed.
    pub(super) async fn redirected(&self) -> Result<Option<String>> {
        if !self.is_redirected.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let git = Self { is_traced: true, ..self.clone() };
        let args = ["ls-remote", "--quiet", "--", REMOTE, "HEAD"];
        let ended = git.run(&args, &self.protocol, None, limits::GIT_REFERENCES_BYTES_MAX).await?;
        let location = if ended.code == Some(0) { None } else { redirect::location(&ended.stderr) };
        Ok(location.map(str::to_owned))
    }

    /// The one of some full names that the repository has.
    async fn found(&self, names: &[String]) -> Result<String> {
        let mut args = vec!["ls-remote", "--quiet", "--exit-code", "--", REMOTE];
        args.extend(names.iter().map(String::as_str));
        let ended = self.run(&args, &self.protocol, None, limits::GIT_REFERENCES_BYTES_MAX).await?;
        let said = String::from_utf8_lossy(&ended.stdout);
        // A pattern fits the ends of names too.
        let found: Vec<&String> = match ended.code {
            Some(0) => names
                .iter()
                .filter(|name| said.lines().any(|line| line.split('\t').nth(1) == Some(name)))
                .collect(),
            // The code for no match.
            Some(2) => Vec::new(),
            _ => return Err(self.failed(&ended.stderr)),
        };
        match found[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::new(
                ErrorKind::NotFound,
                format!("the repository has no {}", names.join(" and no ")),
            )
            .blame(Blame::Definition)
            .hint("give a branch, a tag, all digits of a commit, pull/7/head, or refs/…")),
            _ => Err(Error::invalid(format!("the repository has {}", names.join(" and ")))
                .blame(Blame::Definition)
                .hint("give the full name of the one that is meant")),
        }
    }

    /// Fetches the content of files by their ids, one in each line of a file. What is there already is not fetched.
    pub(super) async fn fetch_objects(&self, ids: &Path) -> Result<()> {
        let fetch = [
            "-c",
            "fetch.negotiationAlgorithm=noop",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
        ];
        let more = ["--recurse-submodules=no", "--filter=blob:none", "--stdin", REMOTE];
        self.remote(&[&fetch[..], &more].concat(), Some(ids)).await
    }

    /// A git that reads our repository alone, and never the network.
    pub(super) async fn local(&self, args: &[&str], stdout_max: u64) -> Result<Vec<u8>> {
        let ended = self.run(args, "none", None, stdout_max).await?;
        if ended.code == Some(0) { Ok(ended.stdout) } else { Err(self.failed(&ended.stderr)) }
    }

    /// Starts such a git, whose output is read as it comes.
    pub(super) fn start_local(&self, args: &[&str], input: &Path) -> Result<(Running, ChildStdout)> {
        let mut running = self.start(args, "none", Some(input))?;
        let stdout = running.child.stdout.take().ok_or_else(|| Error::unexpected("git has no output"))?;
        Ok((running, stdout))
    }

    /// Waits for the end of a git whose output was read.
    pub(super) async fn end(&self, mut running: Running) -> Result<()> {
        let stderr = running.child.stderr.take();
        let said = read_all(stderr, STDERR_BYTES_MAX).await?;
        let status = running.child.wait().await.map_err(not_run)?;
        running.group = None;
        if status.success() { Ok(()) } else { Err(self.failed(&String::from_utf8_lossy(&said.0))) }
    }

    async fn remote(&self, args: &[&str], input: Option<&Path>) -> Result<()> {
        let ended = self.run(args, &self.protocol, input, ANSWER_BYTES_MAX).await?;
        match ended.code {
            Some(0) => Ok(()),
            _ if self.has_met_its_bound() => Err(failure::too_large(self.bytes_max)),
            _ => Err(self.failed(&ended.stderr)),
        }
    }

    /// Whether a file is as large as one may be: the system ends its writer, and git does not say of what.
    fn has_met_its_bound(&self) -> bool {
        let packs = self.folder.join("repository/objects/pack");
        let sizes = std::fs::read_dir(packs)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok());
        sizes.into_iter().any(|meta| meta.len() >= self.bytes_max / 512 * 512)
    }

    async fn run(
        &self,
        args: &[&str],
        protocol: &str,
        input: Option<&Path>,
        stdout_max: u64,
    ) -> Result<Ended> {
        let mut running = self.start(args, protocol, input)?;
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let told = async {
            let (told, is_whole) = read_all(stdout, stdout_max).await?;
            if is_whole {
                return Ok(told);
            }
            let message = format!("git tells more than {stdout_max} bytes of this repository");
            Err(Error::new(ErrorKind::LimitExceeded, message)
                .blame(Blame::Definition)
                .hint("the repository has too many files or references"))
        };
        let (stdout, (stderr, _)) = tokio::try_join!(told, read_all(stderr, STDERR_BYTES_MAX))?;
        let status = running.child.wait().await.map_err(not_run)?;
        running.group = None;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let code = status.code();
        if code == Some(127) {
            return Err(not_installed(&stderr));
        }
        // A shell that could not set the bounds, or a git that met one.
        Ok(Ended { code, stdout, stderr })
    }

    fn start(&self, args: &[&str], protocol: &str, input: Option<&Path>) -> Result<Running> {
        let input = match input {
            Some(path) => Stdio::from(File::open(path).map_err(|e| Error::io("open", path, e))?),
            None => Stdio::null(),
        };
        // `ulimit` counts files in half kilobytes and memory in kilobytes.
        let bounds = [self.bytes_max / 512, limits::GIT_MEMORY_BYTES_MAX / 1024].map(|n| n.to_string());
        let mut command = Command::new("sh");
        command.arg("-c").arg(SHELL).arg("sh").args(&bounds).args(args);
        command.env_clear().envs(self.environment(protocol)).current_dir(&self.folder);
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(not_run)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Running { child, group })
    }

    fn environment(&self, protocol: &str) -> Vec<(&'static str, OsString)> {
        let home = self.home().into_os_string();
        let text = |text: &str| OsString::from(text);
        // Without what is sent, and without the header that shows who we are.
        let trace = [("GIT_TRACE_CURL", "1"), ("GIT_TRACE_CURL_NO_DATA", "1"), ("GIT_TRACE_REDACT", "1")];
        let trace = trace.into_iter().filter(|_| self.is_traced).map(|(name, value)| (name, text(value)));
        let always = vec![
            ("PATH", text(&self.programs)),
            ("HOME", home.clone()),
            ("XDG_CONFIG_HOME", home.clone()),
            ("TMPDIR", home),
            ("LC_ALL", text("C")),
            ("GIT_DIR", self.folder.join("repository").into_os_string()),
            ("GIT_CONFIG_NOSYSTEM", text("1")),
            ("GIT_CONFIG_GLOBAL", self.folder.join("config").into_os_string()),
            ("GIT_ATTR_NOSYSTEM", text("1")),
            ("GIT_NO_REPLACE_OBJECTS", text("1")),
            ("GIT_TERMINAL_PROMPT", text("0")),
            ("GIT_ALLOW_PROTOCOL", text(protocol)),
            ("GIT_PROTOCOL_FROM_USER", text("0")),
            ("GIT_SSH_VARIANT", text("ssh")),
        ];
        always.into_iter().chain(trace).collect()
    }

    /// The error for what git said, without secrets.
    fn failed(&self, stderr: &str) -> Error {
        let mut said = stderr.to_owned();
        for secret in &self.secrets {
            said = said.replace(secret.as_str(), "xxxxx");
        }
        if failure::is_redirected(&said) {
            self.is_redirected.store(true, Ordering::Relaxed);
        }
        failure::told(&said)
    }
}

/// The output of a program up to a bound, and whether that is all of it. Of its complaints what is beyond is thrown away, so
/// that it does not wait for a reader.
async fn read_all(stream: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Result<(Vec<u8>, bool)> {
    let Some(mut stream) = stream else { return Ok((Vec::new(), true)) };
    let mut read = Vec::new();
    (&mut stream).take(bytes_max.saturating_add(1)).read_to_end(&mut read).await.map_err(not_run)?;
    let is_whole = read.len() as u64 <= bytes_max;
    if !is_whole && bytes_max == STDERR_BYTES_MAX {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map_err(not_run)?;
    }
    Ok((read, is_whole))
}

fn not_run(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, "git cannot be run").source(error).blame(Blame::Farm)
}

fn not_installed(said: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "this machine has no git")
        .with("shell", crate::text::one_line(said, 200))
        .blame(Blame::Farm)
        .hint("install git on the machines that run the service")
}

/// Everything that could show a credential when it is told.
fn secrets_of(credential: &GitCredential) -> Vec<String> {
    match &credential.secret {
        GitSecret::Basic { user, password } => vec![basic(user, password), password.clone()],
        GitSecret::Bearer(token) => vec![token.clone()],
        GitSecret::SshKey(_) => Vec::new(),
    }
    .into_iter()
    .filter(|secret| !secret.is_empty())
    .collect()
}

fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// Writes a file that nobody else reads: it may hold a secret.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// A value in the syntax of git's configuration.
fn quoted(value: &str) -> Result<String> {
    if value.contains(['\0', '\n', '\r']) {
        return Err(Error::invalid("a value of git's configuration has several lines").blame(Blame::Policy));
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::invalid(format!("{path:?} is not UTF-8")).blame(Blame::Policy))
}

/// What all repositories of ours have.
const COMMON: &str = "\
[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\tfsmonitor = false
\tsymlinks = false
\tbigFileThreshold = 1m
\tpackedGitWindowSize = 16m
\tpackedGitLimit = 128m
\tdeltaBaseCacheLimit = 32m
[protocol]
\tversion = 2
[credential]
\thelper =
[fetch]
\trecurseSubmodules = false
\tunpackLimit = 1
\twriteCommitGraph = false
[transfer]
\tunpackLimit = 1
\tbundleURI = false
[submodule]
\trecurse = false
[pack]
\tthreads = 1
[gc]
\tauto = 0
[maintenance]
\tauto = false
";

fn configuration(
    policy: &GitPolicy,
    place: &Place,
    credential: Option<&GitCredential>,
    ssh_config: &Path,
) -> Result<String> {
    let address = place.address.to_string();
    let mut text = COMMON.to_owned();
    let mut section = |head: &str, values: &[(&str, String)]| -> Result<()> {
        let _ = writeln!(text, "[{head}]");
        for (key, value) in values {
            let _ = writeln!(text, "\t{key} = {}", quoted(value)?);
        }
        Ok(())
    };
    section(
        "remote \"origin\"",
        &[
            ("url", address.clone()),
            ("promisor", "true".to_owned()),
            ("partialCloneFilter", "blob:none".to_owned()),
        ],
    )?;
    match &place.address {
        GitAddress::File(path) => {
            // Its owner is the operator's to know, who allowed the folder. The rest is for the server's side, which is ours.
            section("safe", &[("directory", path_text(path)?.to_owned())])?;
            section(
                "uploadpack",
                &[("allowFilter", "true".to_owned()), ("allowAnySHA1InWant", "true".to_owned())],
            )?;
        }
        GitAddress::Remote(_) if place.address.is_ssh() => {
            let file = path_text(ssh_config)?.replace('\'', r"'\''");
            section("core", &[("sshCommand", format!("ssh -F '{file}'"))])?;
        }
        GitAddress::Remote(_) => {
            let mut values = vec![
                ("followRedirects", "false".to_owned()),
                ("sslVerify", "true".to_owned()),
                ("proxy", String::new()),
                ("lowSpeedLimit", "1".to_owned()),
                ("lowSpeedTime", limits::GIT_SILENCE.as_secs().to_string()),
                ("curloptResolve", pins(place)),
            ];
            if let Some(file) = &policy.authorities {
                values.push(("sslCAInfo", path_text(file)?.to_owned()));
            }
            match credential.map(|credential| &credential.secret) {
                Some(GitSecret::Basic { user, password }) => {
                    values.push(("extraHeader", format!("Authorization: Basic {}", basic(user, password))));
                }
                Some(GitSecret::Bearer(token)) => {
                    values.push(("extraHeader", format!("Authorization: Bearer {token}")));
                }
                Some(GitSecret::SshKey(_)) | None => {}
            }
            section("http", &values)?;
        }
    }
    Ok(text)
}

/// The host with the addresses that were checked, as curl takes it.
fn pins(place: &Place) -> String {
    let host = place.address.host().unwrap_or_default();
    let addresses: Vec<String> = place
        .pinned
        .iter()
        .map(|address| if address.is_ipv6() { format!("[{address}]") } else { address.to_string() })
        .collect();
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("{host}:{}:{}", place.address.port(), addresses.join(","))
}

/// What ssh needs to know, and nothing that a user or this machine says.
fn ssh_configuration(
    policy: &GitPolicy,
    place: &Place,
    credential: Option<&GitCredential>,
) -> Result<String> {
    let hint = "the operator names a file of known hosts and a credential with a key";
    let lacks = |what: &str| {
        let message = format!("this repository may not be read: there is no {what} for ssh");
        Error::new(ErrorKind::PermissionDenied, message).blame(Blame::Policy).hint(hint)
    };
    let known_hosts = policy.known_hosts.as_deref().ok_or_else(|| lacks("file of known hosts"))?;
    let Some(GitSecret::SshKey(key)) = credential.map(|credential| &credential.secret) else {
        return Err(lacks("key"));
    };
    let (Some(host), Some(address)) = (place.address.host(), place.pinned.first()) else {
        return Err(lacks("address"));
    };
    let file = |path: &Path| -> Result<String> {
        let text = path_text(path)?;
        if text.contains(['"', '\n', '\\']) {
            return Err(Error::invalid(format!("{text:?} cannot be named to ssh")).blame(Blame::Policy));
        }
        Ok(format!("\"{}\"", text.replace('%', "%%")))
    };
    let (known_hosts, key) = (file(known_hosts)?, file(key)?);
    let seconds = limits::GIT_SILENCE.as_secs();
    Ok(format!(
        "Host *\n HostName {address}\n HostKeyAlias {host}\n IdentityFile {key}\n UserKnownHostsFile {known_hosts}\n \
         GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n CheckHostIP no\n IdentitiesOnly yes\n \
         IdentityAgent none\n BatchMode yes\n ForwardAgent no\n ForwardX11 no\n PermitLocalCommand no\n \
         ClearAllForwardings yes\n ControlMaster no\n ControlPath none\n UpdateHostKeys no\n ConnectTimeout {seconds}\n \
         ServerAliveInterval {seconds}\n ServerAliveCountMax 1\n LogLevel ERROR\n"
    ))
}
