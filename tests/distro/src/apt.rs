//! A private apt: its own configuration, state and cache, so that the machine's apt is neither used nor changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::host::{self, Origin};

/// How old package lists may be before they are fetched again.
const LISTS_FRESH: Duration = Duration::from_secs(24 * 3600);

/// The parts of the machine's apt configuration that say how to reach an archive. The rest could run programs.
const REACH: &[&str] = &[
    "Acquire::http",
    "Acquire::https",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-FutureTime",
];

/// What is fetched: packages or their sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Binary packages.
    Packages,
    /// Source packages.
    Sources,
}

/// A private apt for one suite.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Sets one up below a directory; what an earlier run fetched is kept.
    pub fn new(directory: &Path, suite: &str, fetch: Fetch) -> Result<Self> {
        let directory = std::path::absolute(directory)?;
        for part in ["lists/partial", "archives/partial", "sources"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let origin = host::archive(Path::new("/etc"), suite)?;
        fs::write(directory.join("status"), "")?;
        fs::write(directory.join("sources/archive.sources"), source_text(&origin, suite, fetch))?;
        let config = directory.join("apt.conf");
        let reach = format!("{}{}", host_reach()?, leniency(suite, fetch));
        fs::write(&config, configuration(&directory, &reach))?;
        Ok(Self { directory, config })
    }

    /// Fetches the lists of packages, unless there are recent ones.
    pub fn update(&self, always: bool) -> Result<()> {
        let stamp = self.directory.join("updated");
        let age =
            fs::metadata(&stamp).and_then(|stat| stat.modified()).ok().and_then(|time| time.elapsed().ok());
        if !always && age.is_some_and(|age| age < LISTS_FRESH) {
            return Ok(());
        }
        self.run("apt-get", &["--quiet=2", "--error-on=any", "update"], Path::new("/"))?;
        Ok(fs::write(stamp, "")?)
    }

    /// What apt would install on an empty system to have some packages: names and versions.
    pub fn closure(&self, roots: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
        let mut arguments = vec!["--simulate", "--no-install-recommends", "install"];
        arguments.extend(roots.iter().map(String::as_str));
        let output = self.run("apt-get", &arguments, Path::new("/"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let closure: BTreeMap<String, String> = text.lines().filter_map(parse_install_line).collect();
        ensure!(roots.iter().all(|root| closure.contains_key(root)), "apt does not install all of {roots:?}");
        Ok(closure)
    }

    /// The newest versions of some packages.
    pub fn versions(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut arguments = vec!["show", "--no-all-versions"];
        arguments.extend(names.iter().map(String::as_str));
        let output = self.run("apt-cache", &arguments, Path::new("/"))?;
        let mut versions = BTreeMap::new();
        for paragraph in String::from_utf8_lossy(&output.stdout).split("\n\n") {
            let field = |name| paragraph.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(name), Some(version)) = (field("Package: "), field("Version: ")) {
                versions.insert(name.to_owned(), version.to_owned());
            }
        }
        let missing: Vec<&String> = names.iter().filter(|name| !versions.contains_key(*name)).collect();
        ensure!(missing.is_empty(), "apt knows no {missing:?}");
        Ok(versions)
    }

    /// Downloads packages into a directory; apt checks them against its signed lists.
    pub fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        // Many names in one call, but not so many that a command line gets too long.
        for some in packages.chunks(100) {
            let mut arguments = vec!["--quiet=2", "download"];
            arguments.extend(some.iter().map(String::as_str));
            self.run("apt-get", &arguments, into)?;
        }
        Ok(())
    }

    /// Downloads the upstream tarball of a source package into a directory.
    pub fn tarball(&self, source: &str, into: &Path) -> Result<()> {
        let arguments = ["--quiet=2", "source", "--tar-only", "--download-only", "--only-source", source];
        self.run("apt-get", &arguments, into).map(drop)
    }

    fn run(&self, program: &str, arguments: &[&str], directory: &Path) -> Result<Output> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .env("APT_CONFIG", &self.config)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let words: Vec<&str> = arguments.iter().copied().take(8).collect();
            bail!("{program} {} failed:\n{}", words.join(" "), errors.trim());
        }
        Ok(output)
    }
}

/// The sources file of a private apt.
fn source_text(origin: &Origin, suite: &str, fetch: Fetch) -> String {
    let kind = if fetch == Fetch::Packages { "deb" } else { "deb-src" };
    let mut text = format!("Types: {kind}\nURIs: {}\nSuites: {suite}\nComponents: main\n", origin.uri);
    if !origin.signed_by.is_empty() {
        // A key in the file itself goes on over several lines, which start with a blank.
        text.push_str(&format!("Signed-By: {}\n", origin.signed_by.replace('\n', "\n ")));
    }
    if origin.trusted {
        text.push_str("Trusted: yes\n");
    }
    text
}

fn configuration(directory: &Path, reach: &str) -> String {
    let directory = directory.display();
    format!(
        "Dir::State \"{directory}\";\n\
         Dir::State::lists \"{directory}/lists\";\n\
         Dir::State::status \"{directory}/status\";\n\
         Dir::Cache \"{directory}\";\n\
         Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{directory}/sources\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures \"amd64\";\n\
         APT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::PDiffs \"false\";\n\
         {reach}"
    )
}

/// How this machine reaches archives: proxies and the like.
fn host_reach() -> Result<String> {
    let output = Command::new("apt-config").arg("dump").output().context("cannot run apt-config")?;
    ensure!(output.status.success(), "apt-config dump failed");
    Ok(select_reach(&String::from_utf8_lossy(&output.stdout)))
}

/// The lists of the suite that never ends are out of date wherever a mirror has stopped following it. Its tarballs
/// are checked against sums of our own, so for these, and only these, old lists are good enough.
fn leniency(suite: &str, fetch: Fetch) -> &'static str {
    match (suite, fetch) {
        ("sid", Fetch::Sources) => "Acquire::Check-Valid-Until \"false\";\n",
        _ => "",
    }
}

fn select_reach(dump: &str) -> String {
    let chosen = |line: &&str| {
        REACH.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', ':'])))
    };
    dump.lines().filter(chosen).map(|line| format!("{line}\n")).collect()
}

/// `Inst name (version origin [arch])`, as a simulation prints it.
fn parse_install_line(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.split_once('(')?.1.split([' ', ')']).next()?;
    Some((name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulations_name_packages_and_versions() {
        let line = "Inst libc6 (2.36-9+deb12u4 Debian:12.5/stable [amd64]) []";
        assert_eq!(parse_install_line(line), Some(("libc6".to_owned(), "2.36-9+deb12u4".to_owned())));
        assert_eq!(parse_install_line("Conf libc6 (2.36-9 x)"), None);
    }

    #[test]
    fn only_the_way_to_the_archive_is_taken_over() {
        let dump = "APT \"\";\nAcquire::http::Proxy \"http://p.invalid:1\";\nAcquire::httpx \"a\";\n\
            DPkg::Post-Invoke:: \"rm\";\nAcquire::Check-Date \"false\";\nAcquire::Languages \"en\";\n";
        assert_eq!(
            select_reach(dump),
            "Acquire::http::Proxy \"http://p.invalid:1\";\nAcquire::Check-Date \"false\";\n"
        );
    }

    #[test]
    fn keys_in_the_sources_stay_whole() {
        let origin = Origin {
            uri: "http://a.invalid/debian".to_owned(),
            suites: vec![],
            components: vec![],
            signed_by: "-----BEGIN-----\n.\nabc".to_owned(),
            trusted: false,
        };
        let text = source_text(&origin, "trixie", Fetch::Sources);
        assert!(text.starts_with("Types: deb-src\nURIs: http://a.invalid/debian\nSuites: trixie\n"));
        assert!(text.ends_with("Signed-By: -----BEGIN-----\n .\n abc\n"));
    }
}
