//! Flags of verbs about the sources of definitions.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use melange_remote_sdk::arch::Arch;

use super::{DefinitionArgs, OutputArgs, host};

#[derive(Debug, ClapArgs)]
pub(crate) struct BumpArgs {
    /// The definition, which is changed
    pub(crate) file: PathBuf,
    /// The new version; with the one that it has, the epoch is raised
    #[arg(value_name = "VERSION")]
    pub(crate) new_version: String,
    /// The commit that its `git-checkout` steps expect from now on
    #[arg(long, value_name = "COMMIT")]
    pub(crate) expected_commit: Option<String>,
    /// The architecture whose sources are fetched
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is done with sources.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SourceCommand {
    /// Put the sources of a definition into a folder, as its `fetch`, `git-checkout` and `patch` steps have them
    Get(SourceGetArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SourceGetArgs {
    /// The definition, `-` for standard input
    pub(crate) file: PathBuf,
    /// The folder that gets them, in one named after the package
    #[arg(short, long, value_name = "DIR", default_value = "./source")]
    pub(crate) output: PathBuf,
    /// Where patches lie; the folder named after the definition if it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,
    /// The architecture whose sources are fetched
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UpdateCacheArgs {
    /// The definition, `-` for standard input
    pub(crate) file: PathBuf,
    /// The folder that gets the sources, as files called sha256:HEX and sha512:HEX
    #[arg(long, value_name = "DIR", default_value = "./melange-cache/")]
    pub(crate) cache_dir: PathBuf,
    /// The architecture whose sources are fetched
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
