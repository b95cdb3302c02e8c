//! What the tests of the BuildKit runner share: a guest made of busybox, tars, a proxy whose connections can
//! be cut.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::{BuildEvent, BuildSink};
use melange_remote_sdk::buildkit::{BackendAddress, BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::error::Result;
use melange_remote_sdk::guest::{
    Blob, GuestOutcome, GuestPlan, GuestRunner, GuestStep, GuestUser, SourceFile,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The daemon's socket, or `None` after saying that the test is skipped.
pub(crate) fn daemon() -> Option<PathBuf> {
    let socket = std::env::var_os("MELANGE_TEST_DOCKER_SOCK");
    if socket.is_none() {
        let why = "skipped: MELANGE_TEST_DOCKER_SOCK does not name the socket of a dockerd";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("{why}");
    }
    socket.map(PathBuf::from)
}

pub(crate) fn runner(socket: &Path) -> BuildkitRunner {
    runner_with(socket, BuildkitOptions::default())
}

pub(crate) fn runner_with(socket: &Path, options: BuildkitOptions) -> BuildkitRunner {
    BuildkitRunner::new(BackendAddress::Docker(socket.to_owned()), options)
}

/// One entry of a tar.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    fn new(name: &str, kind: tar::EntryType, mode: u32) -> Self {
        Self {
            name: name.to_owned(),
            kind: format!("{kind:?}"),
            mode,
            uid: 0,
            gid: 0,
            mtime: 1,
            link: String::new(),
            content: Vec::new(),
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self { content: content.to_vec(), ..Self::new(name, tar::EntryType::Regular, 0o644) }
    }

    pub(crate) fn folder(name: &str) -> Self {
        Self::new(&format!("{name}/"), tar::EntryType::Directory, 0o755)
    }

    pub(crate) fn symlink(name: &str, link: &str) -> Self {
        Self { link: link.to_owned(), ..Self::new(name, tar::EntryType::Symlink, 0o777) }
    }

    pub(crate) fn hard_link(name: &str, link: &str) -> Self {
        Self { link: link.to_owned(), ..Self::new(name, tar::EntryType::Link, 0o644) }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn xattr(mut self, key: &str, value: &[u8]) -> Self {
        self.xattrs.insert(key.to_owned(), value.to_vec());
        self
    }
}

pub(crate) fn write_tar(path: &Path, entries: &[Entry]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for entry in entries {
        let xattrs: Vec<(String, &[u8])> =
            entry.xattrs.iter().map(|(k, v)| (format!("SCHILY.xattr.{k}"), v.as_slice())).collect();
        if !xattrs.is_empty() {
            builder.append_pax_extensions(xattrs.iter().map(|(k, v)| (k.as_str(), *v))).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(match entry.kind.as_str() {
            "Directory" => tar::EntryType::Directory,
            "Symlink" => tar::EntryType::Symlink,
            "Link" => tar::EntryType::Link,
            _ => tar::EntryType::Regular,
        });
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        header.set_size(entry.content.len() as u64);
        let name = if entry.name == "/" { "./" } else { &entry.name };
        if entry.link.is_empty() {
            builder.append_data(&mut header, name, entry.content.as_slice()).unwrap();
        } else {
            builder.append_link(&mut header, name, &entry.link).unwrap();
        }
    }
    builder.into_inner().unwrap();
}

pub(crate) fn read_tar(path: &Path) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut read = Entry::new(&name, entry.header().entry_type(), entry.header().mode().unwrap());
        read.uid = entry.header().uid().unwrap();
        read.gid = entry.header().gid().unwrap();
        read.mtime = entry.header().mtime().unwrap();
        read.link =
            entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).unwrap()).unwrap_or_default();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if let Some(key) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                read.xattrs.insert(key.to_owned(), extension.value_bytes().to_vec());
            }
        }
        entry.read_to_end(&mut read.content).unwrap();
        assert!(entries.insert(name.clone(), read).is_none(), "{name} is there twice");
    }
    entries
}

/// A plan with the files that it refers to.
pub(crate) struct Guest {
    pub(crate) plan: GuestPlan,
    pub(crate) root: Vec<Entry>,
    pub(crate) workspace: Vec<Entry>,
    folder: TempDir,
}

impl Guest {
    /// A guest with a shell and an empty output folder.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Blob { path: PathBuf::new(), sha256: String::new(), size_bytes: 0 };
        let plan = GuestPlan {
            name: name.to_owned(),
            arch: Arch::host().unwrap(),
            root: nothing.clone(),
            workspace: nothing,
            sources: Vec::new(),
            steps: Vec::new(),
            user: GuestUser { uid: 0, gid: 0 },
            capabilities: vec!["CAP_CHOWN".to_owned()],
        };
        let workspace = vec![Entry::folder("").mode(0o755), Entry::folder("melange-out")];
        Self { plan, root: busybox_root(), workspace, folder }
    }

    pub(crate) fn step(&self, name: &str, script: &str) -> GuestStep {
        GuestStep {
            name: name.to_owned(),
            script: format!("set -e\n{script}\n"),
            environment: vec![
                ("PATH".to_owned(), "/bin".to_owned()),
                ("HOME".to_owned(), "/home/build".to_owned()),
            ],
            network: false,
        }
    }

    pub(crate) fn add_to_root(&mut self, entry: Entry) {
        self.root.push(entry);
    }

    /// Offers a file, and tells its name in the cache.
    pub(crate) fn add_source(&mut self, content: &[u8]) -> String {
        let path = self.folder.path().join(format!("source-{}", self.plan.sources.len()));
        fs::write(&path, content).unwrap();
        let blob = blob(&path);
        let name = format!("sha256:{}", blob.sha256);
        self.plan.sources.push(SourceFile { name: name.clone(), blob });
        name
    }

    /// Digits that no other process has in its arguments.
    pub(crate) fn marker(&self) -> String {
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        format!("{}{nanos:09}", 1_000 + std::process::id() % 9_000)
    }

    /// The plan with its files written.
    pub(crate) fn ready(&self) -> GuestPlan {
        let (root, workspace) = (self.folder.path().join("root.tar"), self.folder.path().join("work.tar"));
        if !root.exists() {
            write_tar(&root, &self.root);
            write_tar(&workspace, &self.workspace);
        }
        GuestPlan { root: blob(&root), workspace: blob(&workspace), ..self.plan.clone() }
    }

    pub(crate) fn spawn(
        &mut self,
        runner: &Arc<BuildkitRunner>,
        events: &Arc<Collected>,
        cancel: &CancellationToken,
    ) -> tokio::task::JoinHandle<Result<GuestOutcome>> {
        let (runner, plan, cancel) = (Arc::clone(runner), self.ready(), cancel.clone());
        let sink: Arc<dyn BuildSink> = Arc::clone(events) as Arc<dyn BuildSink>;
        let output = self.folder.path().join("spawned-out.tar");
        tokio::spawn(async move { runner.run(&plan, &output, sink, cancel).await })
    }
}

/// A finished run.
pub(crate) struct Done {
    pub(crate) outcome: Result<GuestOutcome>,
    pub(crate) events: Arc<Collected>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

pub(crate) async fn run(runner: &BuildkitRunner, guest: &Guest) -> Done {
    let plan = guest.ready();
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out.tar");
    let events = Arc::new(Collected::default());
    let sink = Arc::clone(&events) as Arc<dyn BuildSink>;
    let outcome = runner.run(&plan, &output, sink, CancellationToken::new()).await;
    let succeeded = matches!(outcome, Ok(GuestOutcome::Succeeded));
    let entries = if succeeded { read_tar(&output) } else { BTreeMap::new() };
    Done { outcome, events, entries }
}

/// Keeps every event.
#[derive(Default)]
pub(crate) struct Collected(Mutex<Vec<BuildEvent>>);

impl BuildSink for Collected {
    fn emit(&self, event: BuildEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Collected {
    pub(crate) fn all(&self) -> Vec<BuildEvent> {
        self.0.lock().unwrap().clone()
    }

    /// All events; times are zero, and the lines of a step stand standard output first, because nothing
    /// orders the two streams.
    pub(crate) fn sorted_lines(&self) -> Vec<BuildEvent> {
        let mut events = self.all();
        for event in &mut events {
            if let BuildEvent::StepFinished { took, .. } = event {
                *took = Duration::ZERO;
            }
        }
        let is_log = |event: &BuildEvent| matches!(event, BuildEvent::Log { .. });
        for group in events.chunk_by_mut(|a, b| is_log(a) && is_log(b)) {
            group.sort_by_key(|event| match event {
                BuildEvent::Log { stream, .. } => format!("{stream:?}").replace("Stdout", "A"),
                _ => String::new(),
            });
        }
        events
    }

    /// The lines of one step.
    pub(crate) fn lines(&self, index: usize) -> Vec<String> {
        let lines = self.all().into_iter().filter_map(|event| match event {
            BuildEvent::Log { step, line, .. } if step == Some(index) => Some(line),
            _ => None,
        });
        lines.collect()
    }
}

pub(crate) fn blob(path: &Path) -> Blob {
    let mut digest = Sha256::new();
    let size_bytes = std::io::copy(&mut fs::File::open(path).unwrap(), &mut digest).unwrap();
    Blob { path: path.to_owned(), sha256: hex::encode(digest.finalize()), size_bytes }
}

pub(crate) async fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "it did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes of this machine that have `marker` as an argument. The daemon's guests are among them.
pub(crate) fn processes_with(marker: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let id = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        arguments.split(|b| *b == 0).any(|argument| argument == marker.as_bytes()).then_some(id)
    });
    processes.collect()
}

/// A root filesystem of one static busybox.
fn busybox_root() -> Vec<Entry> {
    static ROOT: OnceLock<Vec<Entry>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let (binary, _keep) = busybox();
        let listed = Command::new(&binary).arg("--list").output().unwrap();
        let mut root: Vec<Entry> =
            ["bin", "etc", "home", "proc", "sys", "dev", "run", "var", "var/cache"].map(Entry::folder).into();
        root.push(Entry::folder("tmp").mode(0o1777));
        root.push(Entry::file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"));
        root.push(Entry::file("bin/busybox", &fs::read(&binary).unwrap()).mode(0o755));
        for name in String::from_utf8(listed.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            root.push(Entry::symlink(&format!("bin/{name}"), "busybox"));
        }
        root
    })
    .clone()
}

/// The machine's own static busybox, or Debian's package, unpacked.
fn busybox() -> (PathBuf, Option<TempDir>) {
    let named = std::env::var_os("MELANGE_TEST_BUSYBOX").map(PathBuf::from);
    let known = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    if let Some(path) = named.into_iter().chain(known).find(|path| path.exists()) {
        return (path, None);
    }
    let folder = tempfile::tempdir().unwrap();
    let fetched =
        Command::new("apt-get").args(["download", "busybox-static"]).current_dir(folder.path()).output();
    let fetched = fetched.expect("busybox is not installed and there is no apt-get to fetch it");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let package = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let unpacked = Command::new("dpkg").arg("-x").arg(package).arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    let binary = ["bin/busybox", "usr/bin/busybox"].map(|path| folder.path().join(path));
    (binary.into_iter().find(|path| path.exists()).unwrap(), Some(folder))
}

/// Hands connections on to a socket until they are cut.
pub(crate) struct Proxy {
    path: PathBuf,
    connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    _folder: TempDir,
}

impl Proxy {
    pub(crate) fn start(target: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let (target, kept) = (target.to_owned(), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = tokio::net::UnixStream::connect(&target).await.unwrap();
                let pump =
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
                kept.lock().unwrap().push(pump.abort_handle());
            }
        });
        Self { path, connections, _folder: folder }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends every connection; new ones work.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}
