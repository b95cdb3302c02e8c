//! The command line of the test distribution's generator.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use test_distro::make::{Options, Outcome, make};
use test_distro::{cache::default_directory, sources, verify};

/// Makes a signed APK repository out of Debian packages.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a repository, unless it is there.
    Make {
        /// The directory it goes into.
        #[arg(long)]
        out: PathBuf,
        /// What it holds; may be given several times.
        #[arg(long = "profile", default_value = "base")]
        profiles: Vec<String>,
        /// The Debian suite it is made of.
        #[arg(long, default_value = "bookworm")]
        suite: String,
        /// Where Debian packages are kept between runs.
        #[arg(long)]
        cache: Option<PathBuf>,
        /// Ask the archive for newer packages.
        #[arg(long)]
        refresh: bool,
        /// How many threads work.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Fetch the upstream tarballs that definitions want, as `sha256:<sum>`.
    Sources {
        /// The directory they go into.
        #[arg(long)]
        out: PathBuf,
        /// Where package lists are kept between runs.
        #[arg(long)]
        cache: Option<PathBuf>,
        /// Only for these definitions, such as `hello.yaml`.
        definitions: Vec<String>,
    },
    /// Read a repository back and check everything in it.
    Verify {
        /// The directory given to `make`.
        directory: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Make { out, profiles, suite, cache, refresh, jobs } => {
            let cache = cache.map_or_else(default_directory, Ok)?;
            let options = Options { out, cache, suite, profiles, refresh, jobs };
            match make(&options)? {
                Outcome::Kept => eprintln!("{} is up to date", options.out.display()),
                Outcome::Made => eprintln!("{} made, see report.json in it", options.out.display()),
            }
            Ok(())
        }
        Command::Sources { out, cache, definitions } => {
            let cache = cache.map_or_else(default_directory, Ok)?;
            sources::fetch(&out, &cache, &definitions, |line| eprintln!("{line}"))
        }
        Command::Verify { directory } => {
            let checked = verify::repository(&directory)?;
            eprintln!("{checked}");
            Ok(())
        }
    }
}
