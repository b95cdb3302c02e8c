//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use melange_remote_sdk::analysis::lint::{Linter, LinterSets};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::error::Error;

mod compat;
mod licenses;
mod plan;
mod remote;
mod sign;
mod sources;

pub(crate) use compat::{EmitArgs, GuestArgs, LogLevel, LogPolicy, OriginArgs, Runner};
pub(crate) use licenses::{LicenseCheckArgs, LicenseFormat, ScanType};
pub(crate) use plan::{
    CutArg, DependenciesArg, PlanArgs, PlanCommand, PlanFormat, PlanOptions, PlanPart, RebuildArg, word,
};
pub(crate) use remote::{
    BackendNameArgs, BackendsCommand, EventsArgs, LogsArgs, RemoteBuildArgs, RemoteCommand, ReportCommand,
    ServerArgs, SubmitArgs,
};
pub(crate) use sign::{IndexArgs, SignArgs, SignIndexArgs};
pub(crate) use sources::{BumpArgs, SourceCommand, SourceGetArgs, UpdateCacheArgs};

/// Build APK packages from melange definitions, here or on a build farm.
#[derive(Debug, Parser)]
#[command(
    name = "melange",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true
)]
#[command(after_help = crate::exit::TABLE)]
pub(crate) struct Args {
    /// Say more about what happens
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// How much is said: debug, info, warn or error
    #[arg(long, global = true, value_enum, value_name = "LEVEL", conflicts_with = "verbose")]
    pub(crate) log_level: Option<LogLevel>,
    /// Where what is said goes: builtin:stderr, builtin:discard, or a file that it is added to
    #[arg(long, global = true, value_name = "WHERE")]
    pub(crate) log_policy: Option<LogPolicy>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results and errors are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Output {
    /// For people.
    #[default]
    #[value(alias = "yaml")]
    Text,
    /// For programs.
    Json,
}

/// The form of results and errors; the verb's goes before that of the whole command.
#[derive(Debug, Clone, Copy, Default, ClapArgs)]
pub(crate) struct OutputArgs {
    /// How results and errors are printed
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Work with a build server
    Remote {
        #[command(subcommand)]
        command: RemoteCommand,
    },
    /// Build a definition on this machine, in the sandbox or on a BuildKit daemon
    Build(Box<BuildArgs>),
    /// Test packages as their definition says, in the sandbox or on a BuildKit daemon
    Test(Box<TestArgs>),
    /// Compile definitions and print what would be built, without building
    Compile(CompileArgs),
    /// Tell what a build of many definitions would do: in which order, and why
    Plan(Box<PlanArgs>),
    /// Look for mistakes and doubtful places in definitions, and for broken rules in packages
    Lint(LintArgs),
    /// Print what a definition says, by a template such as '{{.Package.Version}}'
    Query(QueryArgs),
    /// Print the JSON Schema of definitions, for editors
    Schema {
        /// That of pipelines, the targets of `uses`, instead
        #[arg(long)]
        pipeline: bool,
        /// That of the events of a server instead
        #[arg(long, conflicts_with = "pipeline")]
        event: bool,
    },
    /// Show the built-in pipelines
    Pipelines {
        #[command(subcommand)]
        command: PipelinesCommand,
    },
    /// Compare the licences that a definition declares with the texts of licences in its sources
    ///
    /// Looks at files such as LICENSE and COPYING in a folder and in the folders right in it, and at those that
    /// `license-path` names. Exits with 1 when one holds a licence that the definition does not declare.
    LicenseCheck(LicenseCheckArgs),
    /// Make a key pair for signing packages and indexes
    Keygen(KeygenArgs),
    /// Make a repository index of packages
    Index(IndexArgs),
    /// Sign packages; signatures that they have are dropped
    Sign(SignArgs),
    /// Sign a repository index
    SignIndex(SignIndexArgs),
    /// Give a definition another version, with the checksums of its sources
    Bump(BumpArgs),
    /// Fetch the sources of a definition into a cache
    UpdateCache(UpdateCacheArgs),
    /// Work with the sources of a definition
    Source {
        #[command(subcommand)]
        command: SourceCommand,
    },
    /// Print the name and the version of what a definition makes, as in `hello-2.12-r3`
    PackageVersion(PackageVersionArgs),
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
    /// Print what the exit codes mean
    #[command(after_help = crate::exit::TABLE)]
    ExitCodes {
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl Args {
    /// The form of results and errors that was asked for.
    pub(crate) fn output(&self) -> Output {
        let own = match &self.command {
            Command::Remote { command } => command.output(),
            Command::Build(args) => args.run.output,
            Command::Test(args) => args.run.output,
            Command::Compile(args) => OutputArgs { output: args.output.output.or(args.format) },
            Command::Plan(args) => args.output(),
            Command::Lint(args) => OutputArgs { output: args.output.map(LintOutput::plain) },
            Command::Query(args) => args.output,
            Command::Sign(args) => args.output,
            Command::SignIndex(args) => args.output,
            Command::Bump(args) => args.output,
            Command::UpdateCache(args) => args.output,
            Command::PackageVersion(args) => args.output,
            Command::Pipelines { command } => match command {
                PipelinesCommand::List { output } | PipelinesCommand::Show { output, .. } => *output,
                PipelinesCommand::Reference => OutputArgs::default(),
            },
            Command::LicenseCheck(args) => args.output,
            Command::Keygen(args) => args.output,
            Command::Apk { command } => match command {
                ApkCommand::Resolve(resolve) | ApkCommand::Install { resolve, .. } => resolve.output,
                ApkCommand::Version { output, .. }
                | ApkCommand::Info { output, .. }
                | ApkCommand::Scan { output, .. }
                | ApkCommand::Verify { output, .. } => *output,
            },
            Command::ExitCodes { output } => *output,
            // Their `--output` is a file or a folder, as melange has it.
            Command::Index(_)
            | Command::Source { .. }
            | Command::Schema { .. }
            | Command::Completions { .. } => OutputArgs::default(),
        };
        own.output.or(self.output.output).unwrap_or_default()
    }
}

/// Where packages of environments come from.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RepositoryArgs {
    /// A repository behind those of the definition: a URL or a folder (repeatable); without any, Wolfi's is used
    #[arg(
        short,
        long = "repository",
        visible_alias = "repository-append",
        value_name = "DIR|URL",
        value_delimiter = ','
    )]
    pub(crate) repositories: Vec<String>,
    /// A public key besides those of the definition: a file or a URL (repeatable)
    #[arg(
        short,
        long = "keyring",
        visible_alias = "keyring-append",
        value_name = "FILE|URL",
        value_delimiter = ','
    )]
    pub(crate) keyring: Vec<String>,
    /// Use repositories whose index is not signed by a known key
    #[arg(long, visible_alias = "ignore-signatures")]
    pub(crate) allow_untrusted: bool,
}

/// What changes how a definition is read.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DefinitionArgs {
    /// A folder of pipelines; the first that has a pipeline counts (repeatable)
    #[arg(long = "pipeline-dir", alias = "pipeline-dirs", value_name = "DIR", value_delimiter = ',')]
    pub(crate) pipeline_dirs: Vec<PathBuf>,
    /// A YAML map of variables laid over those of the definition (repeatable, the last wins)
    #[arg(long = "vars-file", value_name = "FILE")]
    pub(crate) vars_files: Vec<PathBuf>,
    /// Environment variables in dotenv syntax; the definition wins over them (repeatable, the first wins)
    #[arg(long = "env-file", value_name = "FILE", value_delimiter = ',')]
    pub(crate) env_files: Vec<PathBuf>,
    /// A build option to switch on (repeatable)
    #[arg(long = "build-option", value_name = "OPTION", value_delimiter = ',')]
    pub(crate) build_options: Vec<String>,
    /// The flavor of `${{host.triplet.*}}`
    #[arg(
        long = "override-host-triplet-libc-substitution-flavor",
        value_name = "FLAVOR",
        default_value = "gnu"
    )]
    pub(crate) libc_flavor: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompileArgs {
    /// Definitions; a folder stands for the `.yaml` files in it, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The architecture
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// How results and mistakes are printed: YAML documents as packages carry them, or one JSON object a line
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// How the result is printed, mistakes aside
    #[arg(long, value_enum, hide = true)]
    pub(crate) format: Option<Output>,
    /// How mistakes are printed: `json` is the form of the Language Server Protocol
    #[arg(long, value_enum, hide = true)]
    pub(crate) message_format: Option<Output>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct QueryArgs {
    /// The definition, `-` for standard input
    pub(crate) file: PathBuf,
    /// Fields, lists and conditions as in Go's templates
    #[arg(value_name = "TEMPLATE")]
    pub(crate) template: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// The architecture
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipelinesCommand {
    /// List them
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what one does, needs and takes
    Show {
        /// Its name, such as autoconf/make
        name: String,
        /// Print its file instead
        #[arg(long)]
        source: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the reference of all, in Markdown
    Reference,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LintArgs {
    /// Definitions and packages, which are told apart by their bytes; a folder stands for the `.yaml` files in it, `-` for
    /// a definition on standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Read the files as definitions, whatever they are
    #[arg(long, hide = true)]
    pub(crate) definitions: bool,
    /// The architecture
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    #[command(flatten)]
    pub(crate) linters: LinterArgs,
    /// Where the findings of packages are written, below a folder named after the architecture
    #[arg(long, default_value = "packages")]
    pub(crate) out_dir: PathBuf,
    /// How findings are printed: for people, one file a line (of definitions in the form of the Language Server Protocol),
    /// or all in one document of SARIF 2.1.0
    #[arg(long, alias = "message-format", value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<LintOutput>,
    /// Fail for warnings too
    #[arg(long)]
    pub(crate) strict: bool,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintOutput {
    /// For people.
    #[value(alias = "yaml")]
    Text,
    /// For programs.
    Json,
    /// For code hosts and editors.
    Sarif,
}

impl LintOutput {
    /// The form of errors that goes with it.
    fn plain(self) -> Output {
        match self {
            Self::Text => Output::Text,
            Self::Json | Self::Sarif => Output::Json,
        }
    }
}

/// Which linters of packages run.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct LinterArgs {
    /// Linters whose findings fail it, separated by commas; those of melange when missing, none when empty
    #[arg(long, value_name = "LINTER", value_delimiter = ',')]
    pub(crate) lint_require: Option<Vec<LinterName>>,
    /// Linters whose findings are told, in the same form
    #[arg(long, value_name = "LINTER", value_delimiter = ',')]
    pub(crate) lint_warn: Option<Vec<LinterName>>,
    /// Write what linters find in packages to `lint-NAME-VERSION.json` files in the packages' folder
    #[arg(long)]
    pub(crate) persist_lint_results: bool,
}

impl LinterArgs {
    /// The linters that run.
    pub(crate) fn sets(&self) -> LinterSets {
        let mut sets = LinterSets::default();
        for (given, set) in [(&self.lint_require, &mut sets.required), (&self.lint_warn, &mut sets.warned)] {
            if let Some(names) = given {
                *set = names.iter().filter_map(|name| name.0).collect();
            }
        }
        sets
    }
}

/// A linter; an empty word stands for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinterName(Option<Linter>);

impl std::str::FromStr for LinterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let told = |error: Error| match error.hint_text() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        text.trim().parse().map(|linter| Self(Some(linter))).map_err(told)
    }
}

/// This machine's architecture.
pub(crate) fn host() -> Arch {
    Arch::host().unwrap_or(Arch::X86_64)
}

/// What `--arch` may say where it may be given several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchChoice {
    /// Every one there is.
    All,
    /// One.
    One(Arch),
}

impl std::str::FromStr for ArchChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "host" => Ok(Self::One(host())),
            name => name.parse().map(Self::One),
        }
    }
}

/// The architectures that were asked for, each once, in the order of their first mention.
pub(crate) fn chosen(choices: &[ArchChoice]) -> Vec<Arch> {
    let mut found = Vec::new();
    for choice in choices {
        let named: Vec<Arch> = match choice {
            ArchChoice::All => Arch::all().collect(),
            ArchChoice::One(arch) => vec![*arch],
        };
        for arch in named {
            if !found.contains(&arch) {
                found.push(arch);
            }
        }
    }
    found
}

/// Where and how steps run.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
    /// Files that are copied into the workspace; when missing, the folder named after the definition, and where there is
    /// none the one in which it lies
    #[arg(long, value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repositories: RepositoryArgs,
    /// A folder that steps find, and may write to, as /var/cache/melange: sources named `sha256:HEX` or `sha512:HEX`, and
    /// what Go, pip, npm and others keep for the next build; it is used when it is there
    #[arg(long, value_name = "DIR", default_value = "./melange-cache/")]
    pub(crate) cache_dir: PathBuf,
    /// A BuildKit daemon: tcp://host:port, unix:///path or docker:///path; the sandbox when missing
    #[arg(long, value_name = "ADDR")]
    pub(crate) buildkit_addr: Option<String>,
    /// Port of this machine's loopback that steps in the sandbox may reach, as their own 127.0.0.1:PORT; may be
    /// repeated; otherwise they reach none
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) sandbox_allow_host_port: Vec<u16>,
    /// Where downloads, root filesystems and scratch folders are kept
    #[arg(long, env = "MELANGE_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// What the state folder may keep of packages, indexes and root filesystems; what was not used for longest leaves first
    #[arg(long, env = "MELANGE_CACHE_SIZE", value_name = "SIZE", default_value = "20G", value_parser = cache_size)]
    pub(crate) cache_size: u64,
    /// The namespace of package URLs
    #[arg(long, default_value = "unknown")]
    pub(crate) namespace: String,
    /// Trace every command of the steps
    #[arg(long)]
    pub(crate) debug: bool,
    /// A package added to the environment of every test (repeatable)
    #[arg(long = "test-package-append", value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) test_package_append: Vec<String>,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BuildArgs {
    /// Definitions, built one after the other; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Architectures, built one after the other: names, `host` or `all` (repeatable, or separated by commas); when
    /// missing, those that the definition lists and this machine or the daemon runs
    #[arg(long = "arch", value_name = "ARCH", value_delimiter = ',')]
    pub(crate) archs: Vec<ArchChoice>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Where packages and the index go, below a folder named after the architecture
    #[arg(long, default_value = "packages")]
    pub(crate) out_dir: PathBuf,
    /// The key that signs packages and the index
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// A package added to the environment (repeatable)
    #[arg(long = "package-append", value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) package_append: Vec<String>,
    #[command(flatten)]
    pub(crate) origin: OriginArgs,
    /// Seconds since 1970 stamped on everything
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_parser = epoch_seconds)]
    pub(crate) source_date_epoch: Option<Epoch>,
    /// Test the packages too; nothing is written when a test fails
    #[arg(long)]
    pub(crate) test: bool,
    #[command(flatten)]
    pub(crate) emit: EmitArgs,
    #[command(flatten)]
    pub(crate) linters: LinterArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TestArgs {
    /// The definition, `-` for standard input
    pub(crate) file: PathBuf,
    /// An option that melange knows and does not use
    #[arg(long, hide = true)]
    pub(crate) test_option: Vec<String>,
    /// The package that the main test is about, such as hello=2.10-r0; the definition's own when missing
    pub(crate) package: Option<String>,
    /// The architecture
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Only the test of this package, main or sub (repeatable)
    #[arg(long = "only", value_name = "PACKAGE")]
    pub(crate) only: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeygenArgs {
    /// The private key's file; the public one gets `.pub` behind it
    #[arg(default_value = "melange.rsa")]
    pub(crate) name: PathBuf,
    /// Bits of the key: 2048, 3072, 4096 or 8192
    #[arg(long, default_value_t = 4096)]
    pub(crate) key_size: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PackageVersionArgs {
    /// The definition, `-` for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) definition: DefinitionArgs,
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
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a package's description and files
    Info {
        /// The package
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Derive anew what a package needs and provides, from its files and the definition that it carries
    ///
    /// Prints `depend`, `provides` and `# vendored` lines as a package's description has them.
    Scan {
        /// The package
        file: PathBuf,
        /// A package that was made beside it, whose libraries its links lead to (repeatable)
        #[arg(long = "beside", value_name = "FILE")]
        beside: Vec<PathBuf>,
        /// Print what differs from the package's description: `-` before what only that has, `+` before what was found;
        /// exits with 1 when anything does
        #[arg(long)]
        diff: bool,
        #[command(flatten)]
        output: OutputArgs,
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
        #[command(flatten)]
        output: OutputArgs,
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
    #[arg(long, default_value_t = host())]
    pub(crate) arch: Arch,
    /// Pick providers of virtual names as builds do, instead of refusing as `apk add` does
    #[arg(long)]
    pub(crate) pick: bool,
    /// Requested packages, with constraints
    #[arg(required = true)]
    pub(crate) packages: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}

fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a time such as 2s or 500ms"))?;
    let milliseconds = match unit {
        "ms" => number,
        "s" | "" => number.saturating_mul(1_000),
        "m" => number.saturating_mul(60_000),
        "h" => number.saturating_mul(3_600_000),
        _ => return Err(format!("{unit:?} is not one of ms, s, m and h")),
    };
    if milliseconds == 0 {
        return Err("the interval must not be 0".to_owned());
    }
    Ok(std::time::Duration::from_millis(milliseconds))
}

/// Seconds since 1970, or none: an empty variable counts as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(pub(crate) Option<i64>);

fn epoch_seconds(text: &str) -> Result<Epoch, std::num::ParseIntError> {
    if text.is_empty() { Ok(Epoch(None)) } else { text.parse().map(|seconds| Epoch(Some(seconds))) }
}

/// A size as `--cache-size` takes it.
fn cache_size(text: &str) -> Result<u64, String> {
    StateCache::parse_size(text).ok_or_else(|| "write a number and a unit, such as 500M or 20G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_counted_once_in_the_order_of_their_first_mention() {
        let chosen_of = |names: &[&str]| {
            let choices: Vec<ArchChoice> = names.iter().map(|name| name.parse().unwrap()).collect();
            chosen(&choices)
        };
        assert_eq!(chosen_of(&["aarch64", "amd64", "arm64"]), [Arch::Aarch64, Arch::X86_64]);
        assert_eq!(chosen_of(&["host"]), [host()]);
        assert_eq!(chosen_of(&["s390x", "all"]).len(), Arch::all().count());
        assert!("z80".parse::<ArchChoice>().is_err());
    }
}
