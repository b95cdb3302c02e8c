//! The arguments of `melange plan`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::planner::{CutAim, Rebuild, WithDependencies};

use super::{DefinitionArgs, Output, OutputArgs, host};

/// The form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people: a summary, and what `--show` asks for
    #[default]
    Text,
    /// For programs: jobs, edges, cuts and all else
    Json,
    /// The graph, for Graphviz
    Dot,
}

/// What is told of a plan besides the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanPart {
    /// The jobs by level, with what each waits for
    Jobs,
    /// The needs that published packages serve, each with its circle
    Cuts,
    /// The chain that takes longest
    Path,
    /// The definitions that are not built, with the reasons
    Skipped,
    /// What neither a definition nor a published package serves
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DependenciesArg {
    /// None
    None,
    /// Those that are published nowhere
    Missing,
    /// All
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RebuildArg {
    /// What is published is skipped
    Missing,
    /// What is published is planned too
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CutArg {
    /// As few cuts as can be
    Fewest,
    /// Up to a quarter more, for shorter chains
    Short,
}

/// The word of a choice, on the command line and in the API.
pub(crate) fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl From<DependenciesArg> for WithDependencies {
    fn from(arg: DependenciesArg) -> Self {
        match arg {
            DependenciesArg::None => Self::None,
            DependenciesArg::Missing => Self::Missing,
            DependenciesArg::All => Self::All,
        }
    }
}

impl From<RebuildArg> for Rebuild {
    fn from(arg: RebuildArg) -> Self {
        match arg {
            RebuildArg::Missing => Self::Missing,
            RebuildArg::All => Self::All,
        }
    }
}

impl From<CutArg> for CutAim {
    fn from(arg: CutArg) -> Self {
        match arg {
            CutArg::Fewest => Self::Fewest,
            CutArg::Short => Self::Short,
        }
    }
}

/// What is planned.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PlanOptions {
    /// A package or subpackage to build (repeatable); without this and `--glob`, all
    #[arg(long = "package", value_name = "NAME")]
    pub(crate) packages: Vec<String>,
    /// A pattern of paths of definitions to build, within the folder (repeatable)
    #[arg(long = "glob", value_name = "PATTERN")]
    pub(crate) globs: Vec<String>,
    /// The architectures, with commas between
    #[arg(long, value_delimiter = ',', default_values_t = [host()])]
    pub(crate) arch: Vec<Arch>,
    /// A repository with what is published: a URL or a folder (repeatable)
    #[arg(short, long = "repository", visible_alias = "repository-append", value_name = "DIR|URL")]
    pub(crate) repositories: Vec<String>,
    /// A public key: a file or a URL (repeatable); with any, indexes must be signed
    #[arg(short, long = "keyring", visible_alias = "keyring-append", value_name = "FILE|URL")]
    pub(crate) keyring: Vec<String>,
    /// Which definitions are planned that chosen ones need
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) with_dependencies: DependenciesArg,
    /// What becomes of definitions whose version is published
    #[arg(long, value_enum, default_value = "missing")]
    pub(crate) rebuild: RebuildArg,
    /// How needs are chosen that are cut where definitions need each other
    #[arg(long, value_enum, default_value = "fewest")]
    pub(crate) cut: CutArg,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PlanCommand>,
    /// Folders of definitions, with their `pipelines`, or definitions
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// What is told besides the summary (repeatable)
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) show: Vec<PlanPart>,
    /// How the plan is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: PlanFormat,
    #[command(flatten)]
    pub(crate) options: PlanOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Tell by which needs one package waits for another one
    Why {
        /// The package that waits
        from: String,
        /// The package that it waits for
        to: String,
        /// Folders of definitions, with their `pipelines`, or definitions
        #[arg(value_name = "DIR", default_value = ".")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        options: Box<PlanOptions>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Tell which definitions need each other, and what is cut
    Cycles {
        /// Folders of definitions, with their `pipelines`, or definitions
        #[arg(value_name = "DIR", default_value = ".")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        options: Box<PlanOptions>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl PlanArgs {
    /// The form of results and errors.
    pub(crate) fn output(&self) -> OutputArgs {
        match &self.command {
            Some(PlanCommand::Why { output, .. } | PlanCommand::Cycles { output, .. }) => *output,
            None => OutputArgs {
                output: match self.output {
                    PlanFormat::Json => Some(Output::Json),
                    PlanFormat::Text | PlanFormat::Dot => None,
                },
            },
        }
    }
}
