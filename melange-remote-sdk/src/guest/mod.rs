//! The guest: what both builders run. One root filesystem, one workspace, one linear chain of steps over the
//! whole mutable tree, one output folder. The engine makes a [`GuestPlan`]; a [`GuestRunner`] executes it.
//!
//! Both runners get the same bytes, which is why their packages are equal byte for byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::arch::Arch;
use crate::builder::{BuildSink, StepFailure};
use crate::error::Result;
use crate::pointers::hand_on;

mod resources;
pub mod script;
mod sources;

pub use resources::GuestResources;
pub use sources::{CachedSource, SourceCache, SourceOrigin};

/// The workspace inside the guest.
pub const WORKSPACE: &str = "/home/build";
/// The folder whose tree is the result.
pub const OUTPUT: &str = "/home/build/melange-out";
/// The folder of the output's tar with the files that [`GuestPlan::license_files`] names: no package is called so.
pub const LICENSE_FILES: &str = ".licenses";
/// Where steps find the cache.
pub const CACHE: &str = "/var/cache/melange";
/// Where the scripts of the steps are mounted, read-only.
pub const SCRIPTS: &str = "/run/melange";

/// Where the guest finds the script at `index` of [`GuestPlan::scripts`].
pub fn script_path(index: usize) -> String {
    format!("{SCRIPTS}/{}", script_name(index))
}

/// The name of that script in its folder.
pub(crate) fn script_name(index: usize) -> String {
    format!("script-{index:05}.sh")
}

/// What is wrong when a file of [`GuestPlan::license_files`] is not there.
#[cfg(feature = "apk")]
pub(crate) fn lacks_license_file(path: &str) -> String {
    format!("`license-path` names {path}, which is no file of the workspace when all steps have run")
}

/// Capabilities of root's steps unless the definition says otherwise: runc's and Docker's default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A file on the engine's disk with its content digest; it does not change while a plan refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of its content in lower-case hex.
    pub sha256: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The form of a root filesystem that a runner takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootForm {
    /// All of it in [`GuestPlan::root`].
    Archive,
    /// [`GuestPlan::root`] over [`GuestPlan::layers`].
    Layered,
}

/// Folders with trees that lie one over another below a root filesystem's archive, as an overlay shows them: of files
/// with one name the topmost counts, folders with one name are one. Nobody changes them.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    folders: Vec<PathBuf>,
    _held: Option<Arc<dyn std::fmt::Debug + Send + Sync>>,
}

impl Layers {
    /// The folders, the topmost first, which stay as long as `held` does.
    pub fn new(folders: Vec<PathBuf>, held: Arc<dyn std::fmt::Debug + Send + Sync>) -> Self {
        Self { folders, _held: Some(held) }
    }

    /// The folders, the topmost first.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// A file offered to steps, read-only, at `/var/cache/melange/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name in the cache, such as `sha256:<hex>`.
    pub name: String,
    /// The file.
    pub blob: Blob,
}

/// One script of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestStep {
    /// What people call it, such as `hello: autoconf/make`.
    pub name: String,
    /// The whole script; it runs as `/bin/sh <file>` in `/home/build`.
    pub script: String,
    /// The complete environment; nothing else is set by the runner.
    pub environment: Vec<(String, String)>,
    /// Whether the step may use the network.
    pub network: bool,
}

impl GuestStep {
    /// A step with an empty environment and without network.
    pub fn new(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self { name: name.into(), script: script.into(), environment: Vec::new(), network: false }
    }
}

/// The account that steps run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Everything needed to run one build.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuestPlan {
    /// A name for logs and scratch folders: characters `[A-Za-z0-9._-]`.
    pub name: String,
    /// The architecture of the root filesystem.
    pub arch: Arch,
    /// The root filesystem: an uncompressed tar with owners, modes and xattrs.
    pub root: Blob,
    /// What lies below it; nothing, unless the runner takes [`RootForm::Layered`].
    pub layers: Layers,
    /// Uncompressed tars unpacked at [`WORKSPACE`] on top of the root, one after the other; the last holds the output
    /// folder. What other guests have too comes first, so that a runner may keep what it made of it.
    pub workspace: Vec<Blob>,
    /// Sources that the steps name by a checksum.
    pub sources: Vec<SourceFile>,
    /// The steps, run one after another in the same mutable tree.
    pub steps: Vec<GuestStep>,
    /// Further scripts that the steps call, read-only at [`script_path`].
    pub scripts: Vec<String>,
    /// Whether other guests are likely to have the same root filesystem, so that a runner should keep what it made
    /// of it.
    pub shared_root: bool,
    /// Who runs them.
    pub user: GuestUser,
    /// Capabilities that steps hold besides none, such as `CAP_CHOWN`.
    pub capabilities: Vec<String>,
    /// What the definition asks for; a runner that keeps bounds takes it as one.
    pub resources: GuestResources,
    /// Files with the texts of licences, by their paths below [`WORKSPACE`], without `..` and empty parts.
    pub license_files: Vec<String>,
}

impl GuestPlan {
    /// Steps that root runs, without capabilities, over a root filesystem that no other guest has.
    pub fn new(
        name: impl Into<String>,
        arch: Arch,
        root: Blob,
        workspace: Vec<Blob>,
        steps: Vec<GuestStep>,
    ) -> Self {
        Self {
            name: name.into(),
            arch,
            root,
            layers: Layers::default(),
            workspace,
            sources: Vec::new(),
            steps,
            scripts: Vec::new(),
            shared_root: false,
            user: GuestUser { uid: 0, gid: 0 },
            capabilities: Vec::new(),
            resources: GuestResources::default(),
            license_files: Vec::new(),
        }
    }
}

/// How the chain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestOutcome {
    /// Every step ended with 0, and the output tree was written as a tar to the path asked for.
    Succeeded,
    /// A step ended with another code; no step after it ran.
    StepFailed {
        /// Its position in [`GuestPlan::steps`].
        index: usize,
        /// What to show.
        failure: StepFailure,
    },
    /// The token was used; nothing of the guest runs any more.
    Cancelled,
}

/// Runs guests.
///
/// # Contract
/// * Steps run strictly in order, each in the tree that the one before left, main first, then subpackages.
/// * `output` receives the tree below [`OUTPUT`] as one uncompressed tar: names relative to it, without `./`,
///   every entry with numeric owner, all 12 mode bits, xattrs as `SCHILY.xattr.*` records, hard links as link
///   entries. On anything but success the file may be missing.
/// * The tar also has, in the folder [`LICENSE_FILES`], every file that [`GuestPlan::license_files`] names as the last
///   step left it, under its path; links are followed within the guest. One that is not there is an error of the kind
///   `InvalidRequest`, the definition's.
/// * Events: `StepStarted` and `StepFinished` for every step in order, `Log` for every line in between.
/// * Dropping the future stops the guest, as cancelling does.
#[async_trait]
pub trait GuestRunner: Send + Sync + std::fmt::Debug {
    /// The form of root filesystems that it takes with the least work; it takes archives in any case.
    async fn root_form(&self) -> RootForm;

    /// Runs `plan` to its end, writing the output tree to the file `output`.
    async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<GuestOutcome>;
}

hand_on!(GuestRunner; {
    async fn root_form(&self) -> RootForm;
    async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<GuestOutcome>;
});
