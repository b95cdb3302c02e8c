//! A real sshd of this test on a port of loopback, with keys of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How often a free port is looked for: another process may take one before sshd does.
const TRIES: usize = 5;

/// A server that lets the user of this process in with one key, on loopback alone.
pub(crate) struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Sshd {
    /// Starts one; `None`, said aloud, on a machine that has no sshd.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = find("sshd") else {
            super::missing("sshd (openssh-server) is not installed");
            return None;
        };
        if rustix::process::geteuid().is_root() {
            // Where it keeps what it lets nobody see; services of the system make it, and there are none here.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        for key in ["host", "user", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(folder.path().join(key))
                .status();
            assert!(made.expect("ssh-keygen comes with ssh").success());
        }
        let public = fs::read_to_string(folder.path().join("user.pub")).unwrap();
        fs::write(folder.path().join("authorized_keys"), format!("restrict {public}")).unwrap();
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = listening(&program, folder.path(), port) {
                return Some(Self { child, folder, port });
            }
        }
        panic!("sshd found no free port in {TRIES} tries");
    }

    /// The address of a folder of this machine on this server.
    pub(crate) fn url(&self, path: &Path) -> String {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        format!("ssh://{}@localhost:{}{}", user.trim(), self.port, path.display())
    }

    /// The private key that it lets in, `user`, or another one, `other`.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of known hosts that says that its key is this one: `host`, which is true, or another one.
    pub(crate) fn known_hosts(&self, key: &str) -> PathBuf {
        let public = fs::read_to_string(self.folder.path().join(format!("{key}.pub"))).unwrap();
        let path = self.folder.path().join(format!("known by {key}"));
        fs::write(&path, format!("localhost {public}")).unwrap();
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the folders that an ordinary user's path may lack.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Starts a server on a port and waits until it listens; `None` when it does not.
fn listening(program: &Path, folder: &Path, port: u16) -> Option<Child> {
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         AcceptEnv GIT_PROTOCOL\n",
        at("host"),
        at("authorized_keys")
    );
    fs::write(folder.join("config"), config).unwrap();
    let mut child = Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(folder.join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in said.by_ref().map_while(Result::ok) {
        if line.contains("Server listening on") {
            // What it says of each guest is read, so that it never waits for a reader.
            std::thread::spawn(move || said.for_each(drop));
            return Some(child);
        }
        told.push(line);
    }
    let _ = child.wait();
    assert!(told.iter().any(|line| line.contains("in use")), "sshd does not start: {told:?}");
    None
}
