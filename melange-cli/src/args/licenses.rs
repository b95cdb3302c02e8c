//! Flags about licences.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use melange_remote_sdk::arch::Arch;

use super::{DefinitionArgs, OutputArgs, host};

#[derive(Debug, ClapArgs)]
pub(crate) struct LicenseCheckArgs {
    /// The definition
    pub(crate) file: PathBuf,
    /// The folder with its unpacked sources; they are fetched into a temporary one when missing
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// How deep texts of licences are looked for
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scan_type: ScanType,
    /// The architecture whose sources are fetched
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// Write what was found into the definition's `copyright`
    #[arg(long)]
    pub(crate) fix: bool,
    /// How `--fix` writes it: an entry for each file, or one for all
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: LicenseFormat,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How deep texts of licences are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScanType {
    /// In the folder and in the folders right in it
    #[default]
    Shallow,
    /// Everywhere
    Deep,
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
