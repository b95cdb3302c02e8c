//! Flags of what signs and of what makes indexes.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use melange_remote_sdk::arch::Arch;

use super::OutputArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct SignArgs {
    /// The private key
    #[arg(short = 'k', long, value_name = "FILE", default_value = "local-melange.rsa")]
    pub(crate) signing_key: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Packages, which are replaced
    #[arg(required = true, value_name = "FILE")]
    pub(crate) packages: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignIndexArgs {
    /// The private key
    #[arg(long, value_name = "FILE", default_value = "melange.rsa")]
    pub(crate) signing_key: PathBuf,
    /// Sign an index anew that is signed already
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// The index, which is replaced
    #[arg(value_name = "FILE")]
    pub(crate) index: PathBuf,
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
    /// Read the data of the packages too, and refuse what is damaged
    #[arg(long)]
    pub(crate) verify: bool,
    /// Packages
    #[arg(required = true)]
    pub(crate) packages: Vec<PathBuf>,
}
