//! Flags of what signs.

use std::path::PathBuf;

use clap::Args as ClapArgs;

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
