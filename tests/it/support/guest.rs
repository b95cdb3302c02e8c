//! Guests for the runners themselves, below the engine: busybox, a workspace, a few steps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::BackendAddress;
use melange_remote_sdk::builder::BuildSink;
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::error::Result;
use melange_remote_sdk::guest::{Blob, GuestOutcome, GuestPlan, GuestRunner, GuestStep, SourceFile};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::events::{Collected, marker};
use super::farm;
use super::tree::{Entry, read_tar, write_tar};

/// The socket of a dockerd, when there is one and the guest's busybox too; otherwise said aloud.
pub(crate) fn daemon() -> Option<PathBuf> {
    farm::distro()?;
    farm::daemon()
}

pub(crate) fn runner(socket: &Path) -> BuildkitRunner {
    runner_with(socket, BuildkitOptions::default())
}

pub(crate) fn runner_with(socket: &Path, options: BuildkitOptions) -> BuildkitRunner {
    BuildkitRunner::new(BackendAddress::Docker(socket.to_owned()), options)
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
    pub(crate) async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Blob { path: PathBuf::new(), sha256: String::new(), size_bytes: 0 };
        let arch = Arch::host().unwrap();
        let mut plan = GuestPlan::new(name, arch, nothing.clone(), vec![nothing], Vec::new());
        plan.shared_root = true;
        plan.capabilities = vec!["CAP_CHOWN".to_owned()];
        let workspace = vec![Entry::folder("").mode(0o755), Entry::folder("melange-out")];
        Self { plan, root: busybox_root().await, workspace, folder }
    }

    pub(crate) fn step(&self, name: &str, script: &str) -> GuestStep {
        let mut step = GuestStep::new(name, format!("set -e\n{script}\n"));
        step.environment =
            vec![("PATH".to_owned(), "/bin".to_owned()), ("HOME".to_owned(), "/home/build".to_owned())];
        step
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
        marker()
    }

    /// The plan with its files written.
    pub(crate) fn ready(&self) -> GuestPlan {
        let (root, workspace) = (self.folder.path().join("root.tar"), self.folder.path().join("work.tar"));
        if !root.exists() {
            write_tar(&root, &self.root);
            write_tar(&workspace, &self.workspace);
        }
        let mut plan = self.plan.clone();
        (plan.root, plan.workspace) = (blob(&root), vec![blob(&workspace)]);
        plan
    }

    pub(crate) fn spawn(
        &mut self,
        runner: &Arc<impl GuestRunner + 'static>,
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

pub(crate) async fn run(runner: &dyn GuestRunner, guest: &Guest) -> Done {
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

pub(crate) fn blob(path: &Path) -> Blob {
    let mut digest = Sha256::new();
    let size_bytes = std::io::copy(&mut fs::File::open(path).unwrap(), &mut digest).unwrap();
    Blob { path: path.to_owned(), sha256: hex::encode(digest.finalize()), size_bytes }
}

/// A root filesystem of busybox and what it needs.
async fn busybox_root() -> Vec<Entry> {
    static ROOT: tokio::sync::OnceCell<Vec<Entry>> = tokio::sync::OnceCell::const_new();
    let make = || async {
        let farm = farm::farm().unwrap();
        let blob = farm.root_of(&["busybox"]).await;
        read_tar(&blob.path).into_values().collect()
    };
    ROOT.get_or_init(make).await.clone()
}
