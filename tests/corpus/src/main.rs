//! Builds Wolfi's own definitions, unmodified, with the `melange` command: packages come from the test distribution,
//! upstream tarballs from Debian's archive. Prints what became of each definition.
//!
//! In the order of the work: [`corpus`] unpacks and reads the definitions, the test distribution and the tarballs are
//! made, [`schedule`] settles the order, [`build`] calls `melange`, [`table`] writes the report.

mod build;
mod corpus;
mod schedule;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use build::{Outcome, Setting};
use corpus::{Definition, List};

/// Builds Wolfi's definitions unmodified and prints what became of each.
#[derive(Parser)]
struct Arguments {
    /// The `melange` program.
    #[arg(long)]
    melange: PathBuf,
    /// Where everything goes; what an earlier run left is used.
    #[arg(long)]
    out: PathBuf,
    /// The definitions: a checkout of github.com/wolfi-dev/os, or an archive of one.
    #[arg(long, env = "MELANGE_CORPUS")]
    corpus: Option<PathBuf>,
    /// Where Debian packages are kept between runs.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// How many definitions are built at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How many seconds one build may take.
    #[arg(long, default_value_t = 3600)]
    deadline: u64,
    /// Fewer built definitions than this are a failure; the list's own number when missing.
    #[arg(long)]
    minimum: Option<usize>,
    /// Only these, such as `tk.yaml`.
    definitions: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let begin = Instant::now();
    let arguments = Arguments::parse();
    let list = List::read()?;
    let chosen = chosen(&list, &arguments.definitions)?;
    let minimum = arguments.minimum.unwrap_or(list.minimum.min(chosen.len()));
    let work = std::path::absolute(&arguments.out)?;
    let _lock = test_distro::cache::lock(&work)?;
    for part in ["logs", "packages", "state"] {
        let path = work.join(part);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }

    let given = arguments.corpus.clone().unwrap_or_else(|| beside_the_checkout("corpus/wolfi-os.tar.xz"));
    let corpus = corpus::unpack(&given, &work)?;
    let mut definitions =
        chosen.iter().map(|file| Definition::read(&corpus, file)).collect::<Result<Vec<_>>>()?;
    let cache = arguments.cache.clone().map_or_else(test_distro::cache::default_directory, Ok)?;
    let sources = tarballs(&work, &cache, &chosen)?;
    let distro = distribution(&work, &cache, &list, arguments.jobs)?;

    let melange = std::path::absolute(&arguments.melange)?;
    let setting = Setting {
        can_test: Setting::can_test(&melange),
        melange,
        corpus,
        distro_key: distro.join("keys").join(test_distro::key::KEY_NAME),
        distro,
        cache: work.join("sources"),
        key: work.join("corpus.rsa"),
        work: work.clone(),
        deadline: Duration::from_secs(arguments.deadline),
    };
    setting.make_key()?;
    // Much source text takes long to build.
    definitions.sort_by_key(|definition| std::cmp::Reverse(source_bytes(definition, &setting.cache)));
    let mut outcomes = build_all(&setting, &definitions, arguments.jobs, &sources)?;
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));

    let report = table::markdown(&outcomes, minimum, begin.elapsed());
    fs::write(work.join("report.md"), &report)?;
    std::io::Write::write_all(&mut std::io::stdout().lock(), report.as_bytes())?;
    eprintln!("logs and report: {}", work.display());
    Ok(if table::built(&outcomes) < minimum { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shared material that stands beside the checkout.
fn beside_the_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path)
}

fn chosen(list: &List, named: &[String]) -> Result<Vec<String>> {
    for name in named {
        ensure!(list.definitions.contains(name), "{name:?} is not in the list: {:?}", list.definitions);
    }
    Ok(if named.is_empty() { list.definitions.clone() } else { named.to_vec() })
}

/// Fetches what can be had, and keeps what was heard of the rest.
fn tarballs(work: &Path, cache: &Path, chosen: &[String]) -> Result<String> {
    let mut heard = String::new();
    test_distro::sources::fetch(&work.join("sources"), cache, chosen, |line| {
        eprintln!("{line}");
        heard.push_str(line);
        heard.push('\n');
    })?;
    Ok(heard)
}

fn distribution(work: &Path, cache: &Path, list: &List, jobs: usize) -> Result<PathBuf> {
    let out = work.join("distro");
    let options = test_distro::make::Options {
        out: out.clone(),
        cache: cache.to_owned(),
        suite: list.suite.clone(),
        profiles: vec![list.profile.clone()],
        refresh: false,
        jobs,
    };
    let begin = Instant::now();
    let outcome = test_distro::make::make(&options).context("the test distribution")?;
    eprintln!("test distribution: {outcome:?} in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(out)
}

fn source_bytes(definition: &Definition, cache: &Path) -> u64 {
    let size = |name: &String| fs::metadata(cache.join(name)).map_or(0, |stat| stat.len());
    definition.tarballs.iter().map(|tarball| size(&tarball.cached)).sum()
}

fn build_all(
    setting: &Setting,
    definitions: &[Definition],
    jobs: usize,
    sources: &str,
) -> Result<Vec<Outcome>> {
    let makes: Vec<Vec<String>> = definitions.iter().map(|definition| definition.makes.clone()).collect();
    let needs: Vec<Vec<String>> = definitions.iter().map(|definition| definition.needs.clone()).collect();
    let predecessors = schedule::predecessors(&makes, &needs)?;
    Ok(schedule::run(&predecessors, jobs, |index| {
        let before: Vec<&str> =
            predecessors[index].iter().map(|other| definitions[*other].name.as_str()).collect();
        let outcome = setting.build_and_test(&definitions[index], &before, sources);
        let took = outcome.took.map_or_else(String::new, |took| format!(" in {:.1} s", took.as_secs_f64()));
        eprintln!(
            "{}: {}{took}, tests: {} {}",
            outcome.name,
            table::verdict(&outcome.verdict),
            table::tests(outcome.tested),
            outcome.reason
        );
        outcome
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_can_be_chosen() {
        let list = List::read().unwrap();
        assert_eq!(chosen(&list, &[]).unwrap(), list.definitions);
        assert_eq!(chosen(&list, &["tk.yaml".to_owned()]).unwrap(), ["tk.yaml"]);
        assert!(chosen(&list, &["hello.yaml".to_owned()]).is_err());
    }
}
