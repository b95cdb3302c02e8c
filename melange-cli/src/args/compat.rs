//! Flags of melange, with its meaning.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use melange_remote_sdk::guest::GuestResources;

/// What runs steps, by melange's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runner {
    /// The sandbox of this program.
    Bubblewrap,
    /// The BuildKit of the machine's docker daemon.
    Docker,
    /// A virtual machine, which this program has not.
    Qemu,
}

/// Flags of `build` and `test` that say where and how long steps run.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct GuestArgs {
    /// What runs the steps: the sandbox (bubblewrap), or the BuildKit of this machine's docker daemon
    #[arg(long, value_enum, value_name = "RUNNER", conflicts_with = "buildkit_addr")]
    pub(crate) runner: Option<Runner>,
    /// Where downloaded packages and indexes are kept, instead of the state folder
    #[arg(long, value_name = "DIR")]
    pub(crate) apk_cache_dir: Option<PathBuf>,
    /// The time that a build may take whose definition says nothing, such as 30m or 1h30m; 0 for no bound
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Cores that steps have whose definition says nothing, such as 2 or 1500m
    #[arg(long, value_name = "CORES", default_value = "", hide_default_value = true)]
    pub(crate) cpu: String,
    /// Memory that steps have whose definition says nothing, such as 8Gi
    #[arg(long, value_name = "SIZE", default_value = "", hide_default_value = true)]
    pub(crate) memory: String,
    /// Disk that steps have whose definition says nothing, such as 50Gi
    #[arg(long, value_name = "SIZE", default_value = "", hide_default_value = true)]
    pub(crate) disk: String,
    /// The processor of a virtual machine
    #[arg(long = "cpumodel", value_name = "NAME", hide = true)]
    pub(crate) cpu_model: Option<String>,
    /// Where the cache came from in old versions of melange
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) cache_source: Option<String>,
    /// Remove what a build leaves behind, which always happens
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub(crate) rm: bool,
    /// Keep the guest of a build
    #[arg(long, hide = true)]
    pub(crate) debug_runner: bool,
    /// Open a shell where a step failed
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    /// Where the workspace lies while steps run
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) workspace_dir: Option<PathBuf>,
}

impl GuestArgs {
    /// What steps may use whose definition says nothing.
    ///
    /// # Errors
    /// For what is no quantity.
    pub(crate) fn resources(&self) -> melange_remote_sdk::error::Result<GuestResources> {
        GuestResources::read(&self.cpu, &self.memory, &self.disk)
    }

    /// The flags that were given and change nothing, with the reason.
    pub(crate) fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (self.debug_runner, "--debug-runner", "the guest of a build ends with it"),
            (self.interactive, "--interactive", "no shell is opened where a step fails"),
            (!self.rm, "--rm=false", "nothing is left that could be kept"),
            (self.workspace_dir.is_some(), "--workspace-dir", "the workspace lies in the guest's own tree"),
            (self.cpu_model.is_some(), "--cpumodel", "there is no virtual machine"),
            (
                self.cache_source.is_some(),
                "--cache-source",
                "sources are cached in the folder of --cache-dir",
            ),
        ];
        all.into_iter().filter(|(given, ..)| *given).map(|(_, flag, why)| (flag, why)).collect()
    }
}

/// Flags of `build` alone.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct EmitArgs {
    /// Whether the index is written too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) generate_index: bool,
    /// Copy no files into the workspace
    #[arg(long, conflicts_with = "source_dir")]
    pub(crate) empty_workspace: bool,
    /// Make every package its own origin, for bootstraps
    #[arg(long)]
    pub(crate) strip_origin_name: bool,
    /// The time stamped on everything, such as 2024-05-01T12:00:00Z; SOURCE_DATE_EPOCH goes before it
    #[arg(long, value_name = "TIME", value_parser = date)]
    pub(crate) build_date: Option<i64>,
    /// Add what was built to the file packages.log in this folder: architecture, origin, name and version, with `|` between
    #[arg(long)]
    pub(crate) create_build_log: bool,
    /// Write what each package needs and provides to FILE.ARCH, a JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) dependency_log: Option<PathBuf>,
    /// Write when each phase and step began and ended, in the form that trace viewers of browsers read
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Remove the guest's folder, which always happens
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub(crate) cleanup: bool,
    /// What `--lint-require` says now
    #[arg(long, hide = true)]
    pub(crate) fail_on_lint_warning: bool,
}

/// Where definitions come from, for packages and their SBOMs.
#[derive(Debug, ClapArgs)]
pub(crate) struct OriginArgs {
    /// The commit of the definitions' repository; that of their checkout when missing
    #[arg(long, value_name = "COMMIT")]
    pub(crate) git_commit: Option<String>,
    /// The address of the definitions' repository, such as https://host/owner/name; that of the remote `origin` of their
    /// checkout when missing
    #[arg(long, value_name = "URL")]
    pub(crate) git_repo_url: Option<String>,
    /// The licence of the definitions themselves, as an SPDX expression
    #[arg(long, value_name = "LICENSE", default_value = "NOASSERTION")]
    pub(crate) license: String,
}

/// How much is said of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// All of it.
    Debug,
    /// The lines of builds, and what is doubtful.
    #[value(alias = "warn", alias = "warning")]
    Info,
    /// What goes wrong.
    Error,
}

/// Where what is said goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogPolicy {
    /// Standard error.
    Stderr,
    /// Nowhere.
    Discard,
    /// The end of a file.
    File(PathBuf),
}

impl std::str::FromStr for LogPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "builtin:stderr" => Ok(Self::Stderr),
            "builtin:discard" => Ok(Self::Discard),
            "" => Err("it is empty".to_owned()),
            _ if text.starts_with("builtin:") => {
                Err(format!("{text:?} is not builtin:stderr or builtin:discard"))
            }
            path => Ok(Self::File(path.into())),
        }
    }
}

/// A time as Go writes it: `1h30m`, `90s`, `1.5h`, `300ms`, or `0`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 30m or 1h30m");
    let mut rest = text;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let unit_end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_end);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        whole = whole.checked_add(part).ok_or_else(wrong)?;
        rest = next;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(whole) }
}

/// Seconds since 1970 of a date, RFC 3339, or of such a number.
fn date(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed
        .map(jiff::Timestamp::as_second)
        .map_err(|_| format!("{text:?} is no time such as 2024-05-01T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("2m300ms", Some(120_300)),
            ("", None),
            ("90", None),
            ("s", None),
            ("1x", None),
            ("-1s", None),
            ("1e9h", None),
        ] {
            let read = duration(text).ok().map(|read| u64::try_from(read.as_millis()).unwrap());
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn dates_are_moments_or_seconds() {
        assert_eq!(date("2024-05-01T12:00:00Z"), Ok(1_714_564_800));
        assert_eq!(date("2024-05-01T14:00:00+02:00"), Ok(1_714_564_800));
        assert_eq!(date("1714564800"), Ok(1_714_564_800));
        assert!(date("yesterday").is_err() && date("").is_err());
    }
}
