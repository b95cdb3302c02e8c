//! Flags about licences.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::OutputArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct LicenseCheckArgs {
    /// The definition
    pub(crate) file: PathBuf,
    /// The folder with its unpacked sources
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: PathBuf,
    /// Write what was found into the definition's `copyright`
    #[arg(long)]
    pub(crate) fix: bool,
    /// How `--fix` writes it: an entry for each file, or one for all
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: LicenseFormat,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How licences are written into a definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LicenseFormat {
    /// An entry with `license` and `license-path` for each
    #[default]
    Flat,
    /// One expression
    Simple,
}
