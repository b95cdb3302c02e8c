//! A git server of this process: git's own `http-backend` behind a few lines of HTTP, and repositories for it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

/// A repository that tests write to, served as a bare one.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// An empty repository whose server can leave out the content of files, or not.
    pub(crate) fn new(allows_filter: bool) -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository.git(&["config", "uploadpack.allowFilter", if allows_filter { "true" } else { "false" }]);
        repository
    }

    /// The folder that a server has, with the repository `work/.git` in it.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    fn work(&self) -> PathBuf {
        let work = self.folder.path().join("work");
        fs::create_dir_all(&work).unwrap();
        work
    }

    /// What git answers.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = git(&self.work()).args(args).output().expect("git must be installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Adds a copy of a folder.
    pub(crate) fn add_folder(&self, folder: &Path) -> &Self {
        let status = Command::new("cp").arg("-a").arg(folder.join(".")).arg(self.work()).status();
        assert!(status.unwrap().success());
        self
    }

    pub(crate) fn executable(&self, path: &str, content: &str) -> &Self {
        self.write(path, content);
        fs::set_permissions(self.work().join(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Commits all of it; the commit's id.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all", "--force"]);
        self.git(&["commit", "--quiet", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// Git without anything of this machine's user.
fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for (name, value) in
        [("GIT_CONFIG_COUNT", "3"), ("GIT_AUTHOR_DATE", "@1 +0000"), ("GIT_COMMITTER_DATE", "@1 +0000")]
    {
        command.env(name, value);
    }
    for (at, (key, value)) in [("user.name", "test"), ("user.email", "test@example"), ("safe.directory", "*")]
        .into_iter()
        .enumerate()
    {
        command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    command
}

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Serves the repositories of a folder.
    Serve(PathBuf),
    /// The same, for those who have this `Authorization`.
    ServeTo(PathBuf, String),
    /// Sends everybody elsewhere.
    Redirect(String),
    /// Serves the repositories of a folder, and sends whoever asks for a path that begins so elsewhere; `{host}` in the
    /// location is the host that was asked.
    Moved(PathBuf, Vec<(&'static str, String)>),
    /// Takes requests and never answers.
    Silent,
}

/// A server on loopback. Its threads end with the process.
pub(crate) struct GitServer {
    pub(crate) address: SocketAddr,
    /// The first lines of the requests that came.
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicU64>,
    /// The authority of its certificate, in PEM.
    pub(crate) authority: Option<String>,
}

impl GitServer {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::run(behaviour, None)
    }

    /// A server with a certificate for `localhost`.
    pub(crate) fn start_with_tls(behaviour: Behaviour) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut server = Self::run(behaviour, Some(Arc::new(config)));
        server.authority = Some(authority.pem());
        server
    }

    fn run(behaviour: Behaviour, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let server = Self { address, asked: Arc::clone(&asked), sent: Arc::clone(&sent), authority: None };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (behaviour, asked, sent, tls) =
                    (behaviour.clone(), Arc::clone(&asked), Arc::clone(&sent), tls.clone());
                // A client that breaks off is a test's own doing.
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        answer(rustls::StreamOwned::new(connection, stream), &behaviour, &asked, &sent).ok()
                    }
                    None => answer(stream, &behaviour, &asked, &sent).ok(),
                });
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match &self.authority {
            Some(_) => format!("https://localhost:{}/{path}", self.address.port()),
            None => format!("http://{}/{path}", self.address),
        }
    }

    /// The first lines of the requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The bytes of all answers so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

struct Asked {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn read(stream: &mut impl BufRead) -> std::io::Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut asked = Self { line: line.trim_end().to_owned(), headers, body: Vec::new() };
        if asked.header("transfer-encoding") == "chunked" {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size)?;
                let size = u64::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
                stream.by_ref().take(size).read_to_end(&mut asked.body)?;
                stream.read_line(&mut String::new())?;
                if size == 0 {
                    break;
                }
            }
        } else {
            let size = asked.header("content-length").parse().unwrap_or(0);
            stream.take(size).read_to_end(&mut asked.body)?;
        }
        Ok(asked)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn answer(
    stream: impl Read + Write,
    behaviour: &Behaviour,
    log: &Mutex<Vec<String>>,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let asked = Asked::read(&mut stream)?;
    log.lock().unwrap().push(asked.line.clone());
    let (head, body) = match behaviour {
        Behaviour::Silent => {
            // Until the client goes.
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        Behaviour::Redirect(to) => (format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\n"), Vec::new()),
        Behaviour::ServeTo(_, login) if asked.header("authorization") != login => {
            ("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\n".to_owned(), Vec::new())
        }
        Behaviour::Moved(root, moved) => {
            let path = asked.line.split(' ').nth(1).unwrap_or_default();
            match moved.iter().find(|(from, _)| path.starts_with(from)) {
                Some((_, to)) => {
                    let to = to.replace("{host}", asked.header("host"));
                    (format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {to}\r\n"), Vec::new())
                }
                None => backend(root, &asked)?,
            }
        }
        Behaviour::Serve(root) | Behaviour::ServeTo(root, _) => backend(root, &asked)?,
    };
    sent.fetch_add(body.len() as u64, Ordering::SeqCst);
    write!(stream.get_mut(), "{head}content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.get_mut().write_all(&body)?;
    stream.get_mut().flush()
}

/// The head and the body of what `git http-backend` says, which speaks CGI.
fn backend(root: &Path, asked: &Asked) -> std::io::Result<(String, Vec<u8>)> {
    let mut words = asked.line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = git(root);
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", path).env("QUERY_STRING", query).env("REQUEST_METHOD", method);
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        command.env(variable, asked.header(header));
    }
    command.env("CONTENT_LENGTH", asked.body.len().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut stdin, body) = (child.stdin.take().unwrap(), asked.body.clone());
    let feeding = std::thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output()?.stdout;
    let _ = feeding.join();
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(output.len());
    let (mut status, mut head) = ("200 OK".to_owned(), String::new());
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", value)) => value.clone_into(&mut status),
            _ => writeln!(head, "{line}\r").unwrap(),
        }
    }
    Ok((format!("HTTP/1.1 {status}\r\n{head}"), output.get(end + 4..).unwrap_or_default().to_vec()))
}
