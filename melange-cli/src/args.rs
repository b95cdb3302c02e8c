//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use melange_remote_sdk::arch::Arch;

/// Build APK packages from melange definitions, here or on a build farm.
#[derive(Debug, Parser)]
#[command(name = "melange", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 build failed, 2 usage, 3 cancelled, 4 not allowed, 5 not found, 6 infrastructure"
)]
pub(crate) struct Args {
    /// Say more about what happens
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a definition on this machine, in the sandbox or on a BuildKit daemon
    Build(BuildArgs),
    /// Make a key pair for signing packages and indexes
    Keygen(KeygenArgs),
    /// Make a repository index of packages
    Index(IndexArgs),
    /// Look at packages and repositories
    Apk {
        #[command(subcommand)]
        command: ApkCommand,
    },
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where packages of environments come from.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RepositoryArgs {
    /// A repository for definitions that name none: a URL or a folder (repeatable)
    #[arg(short, long = "repository", value_name = "DIR|URL")]
    pub(crate) repositories: Vec<String>,
    /// A public key that signs repositories: a file or a URL (repeatable)
    #[arg(short, long = "keyring", value_name = "FILE|URL")]
    pub(crate) keyring: Vec<String>,
    /// Use repositories whose index is not signed by a known key
    #[arg(long)]
    pub(crate) allow_untrusted: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BuildArgs {
    /// The definition
    pub(crate) file: PathBuf,
    /// The architecture
    #[arg(long, default_value_t = Arch::host().unwrap_or(Arch::X86_64))]
    pub(crate) arch: Arch,
    /// Where packages and the index go, below a folder named after the architecture
    #[arg(long, default_value = "packages")]
    pub(crate) out_dir: PathBuf,
    /// A folder of pipelines (repeatable)
    #[arg(long = "pipeline-dir", value_name = "DIR")]
    pub(crate) pipeline_dirs: Vec<PathBuf>,
    /// Files that are copied into the workspace; the folder named after the definition if it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repositories: RepositoryArgs,
    /// The key that signs packages and the index
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// The source cache: files named sha256:<hex> or sha512:<hex>
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// A BuildKit daemon: tcp://host:port, unix:///path or docker:///path; the sandbox when missing
    #[arg(long, value_name = "ADDR")]
    pub(crate) buildkit_addr: Option<String>,
    /// Where downloads, root filesystems and scratch folders are kept
    #[arg(long, env = "MELANGE_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The namespace of package URLs
    #[arg(long, default_value = "wolfi")]
    pub(crate) namespace: String,
    /// A package added to the environment (repeatable)
    #[arg(long = "package-append", value_name = "PACKAGE")]
    pub(crate) package_append: Vec<String>,
    /// Seconds since 1970 stamped on everything
    #[arg(long, env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    pub(crate) source_date_epoch: i64,
    /// Trace every command of the steps
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeygenArgs {
    /// The private key's file; the public one gets `.pub` behind it
    #[arg(default_value = "melange.rsa")]
    pub(crate) name: PathBuf,
    /// Bits of the key: 2048, 3072, 4096 or 8192
    #[arg(long, default_value_t = 4096)]
    pub(crate) key_size: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IndexArgs {
    /// The index to write
    #[arg(short, long, default_value = "APKINDEX.tar.gz")]
    pub(crate) output: PathBuf,
    /// An index whose packages are kept
    #[arg(short, long)]
    pub(crate) source: Option<PathBuf>,
    /// Merge into what the output holds already
    #[arg(short, long)]
    pub(crate) merge: bool,
    /// Skip packages of other architectures, with a warning
    #[arg(short, long)]
    pub(crate) arch: Option<Arch>,
    /// The key that signs the index
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// Packages
    #[arg(required = true)]
    pub(crate) packages: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApkCommand {
    /// Print the packages that an installation would bring, one `name-version` a line
    Resolve(ResolveArgs),
    /// Compare two versions: prints `<`, `=` or `>`
    Version {
        /// The first version
        a: String,
        /// The second version
        b: String,
    },
    /// Print a package's description and files
    Info {
        /// The package
        file: PathBuf,
        /// How
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Check a package's signature and every checksum
    Verify {
        /// Packages
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// A public key (repeatable)
        #[arg(short, long = "keyring", value_name = "FILE")]
        keyring: Vec<PathBuf>,
        /// Check everything but the signature
        #[arg(long)]
        allow_untrusted: bool,
    },
    /// Install packages into an empty folder, as a build environment is made
    Install {
        /// The folder
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        #[command(flatten)]
        resolve: ResolveArgs,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    pub(crate) repositories: RepositoryArgs,
    /// The architecture
    #[arg(long, default_value_t = Arch::host().unwrap_or(Arch::X86_64))]
    pub(crate) arch: Arch,
    /// Pick providers of virtual names as builds do, instead of refusing as `apk add` does
    #[arg(long)]
    pub(crate) pick: bool,
    /// Requested packages, with constraints
    #[arg(required = true)]
    pub(crate) packages: Vec<String>,
}
