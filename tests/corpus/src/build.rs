//! One definition through the `melange` command, as a user would call it: built, and then tested where the command
//! can do that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::corpus::Definition;

/// How `timeout` ends when it had to stop the program.
const STOPPED: i32 = 124;

/// What all calls have in common.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The `melange` program.
    pub(crate) melange: PathBuf,
    /// Whether it has a `test` command.
    pub(crate) can_test: bool,
    /// The definitions' folder.
    pub(crate) corpus: PathBuf,
    /// The test distribution.
    pub(crate) distro: PathBuf,
    /// The key that signs it.
    pub(crate) distro_key: PathBuf,
    /// The source cache.
    pub(crate) cache: PathBuf,
    /// The key that signs what is built.
    pub(crate) key: PathBuf,
    /// Where everything goes.
    pub(crate) work: PathBuf,
    /// How long one call may take.
    pub(crate) deadline: Duration,
}

/// What became of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It built.
    Built,
    /// It did not.
    Failed,
    /// A tarball it fetches is nowhere to be had.
    NoTarball,
}

/// What became of a definition's tests: how many of its packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tested {
    /// Their tests passed.
    pub(crate) passed: usize,
    /// Their tests ask for a package that the test distribution does not have.
    pub(crate) lacking: usize,
    /// Their tests failed.
    pub(crate) failed: usize,
}

impl Tested {
    /// Reads what `melange test` prints: a line for each package.
    fn read(text: &str) -> Self {
        let mut tested = Self::default();
        for line in text.lines() {
            let (_, how) = line.split_once(' ').unwrap_or_default();
            if how.starts_with("passed (") {
                tested.passed += 1;
            } else if how.starts_with("failed: nothing provides ") {
                tested.lacking += 1;
            } else if how.starts_with("failed: ") {
                tested.failed += 1;
            }
        }
        tested
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) packages: Vec<String>,
    pub(crate) took: Option<Duration>,
    pub(crate) verdict: Verdict,
    pub(crate) tested: Tested,
    pub(crate) reason: String,
}

impl Setting {
    /// Whether a `melange` can run tests.
    pub(crate) fn can_test(melange: &Path) -> bool {
        let mut command = Command::new(melange);
        command.args(["test", "--help"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Makes the key that signs what is built, unless it is there.
    pub(crate) fn make_key(&self) -> Result<()> {
        if self.key.is_file() {
            return Ok(());
        }
        let status = Command::new(&self.melange).arg("keygen").arg(&self.key).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run {}", self.melange.display()))?;
        anyhow::ensure!(status.success(), "`melange keygen` failed");
        Ok(())
    }

    /// The folder of what a definition makes.
    fn out(&self, name: &str) -> PathBuf {
        self.work.join("packages").join(name)
    }

    /// Builds a definition, with what `before` made at hand, and tests it.
    pub(crate) fn build_and_test(&self, definition: &Definition, before: &[&str], sources: &str) -> Outcome {
        let mut outcome = Outcome {
            name: definition.name.clone(),
            version: definition.version.clone(),
            packages: Vec::new(),
            took: None,
            verdict: Verdict::NoTarball,
            tested: Tested::default(),
            reason: missing(definition, &self.cache, sources),
        };
        if !outcome.reason.is_empty() {
            return outcome;
        }
        let begin = Instant::now();
        let built = self.build(definition, before);
        outcome.took = Some(begin.elapsed());
        match built {
            Ok(packages) => {
                outcome.verdict = Verdict::Built;
                outcome.packages = packages;
                if let Err(error) = self.install(definition, &outcome.packages, before) {
                    outcome.reason = format!("not to be installed: {error:#}");
                }
            }
            Err(error) => {
                outcome.verdict = Verdict::Failed;
                outcome.reason = format!("{error:#}");
                return outcome;
            }
        }
        if self.can_test {
            if let Err(error) = self.test(definition, before) {
                outcome.reason = format!("{error:#}");
            }
            let log = self.log(definition, "test");
            outcome.tested = Tested::read(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()));
        }
        outcome
    }

    fn build(&self, definition: &Definition, before: &[&str]) -> Result<Vec<String>> {
        let out = self.out(&definition.name);
        test_distro::cache::remove_directory(&out)?;
        let mut command = self.command("build", definition, before);
        command.arg("--out-dir").arg(&out).arg("--signing-key").arg(&self.key);
        self.run(command, "build", definition)?;
        let packages = packages(&out)?;
        anyhow::ensure!(packages.contains(&definition.name), "no package {} came out", definition.name);
        Ok(packages)
    }

    /// Looks for everything that an installation of the packages would bring.
    fn install(&self, definition: &Definition, packages: &[String], before: &[&str]) -> Result<()> {
        let own = [&[definition.name.as_str()], before].concat();
        let mut command = Command::new(&self.melange);
        command.args(["apk", "resolve", "--pick"]);
        self.add_repositories(&mut command, &own);
        command.args(packages);
        self.run(command, "install", definition)
    }

    /// The tests find what was built in its folder.
    fn test(&self, definition: &Definition, before: &[&str]) -> Result<()> {
        let own = [&[definition.name.as_str()], before].concat();
        let mut command = self.command("test", definition, &own);
        // Few definitions ask for the shell that their tests run in.
        command.args(["--test-package-append", "wolfi-base"]);
        self.run(command, "test", definition)
    }

    /// What `build` and `test` are both told.
    fn command(&self, verb: &str, definition: &Definition, before: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--kill-after=60"]).arg(format!("{}s", self.deadline.as_secs()));
        command.arg(&self.melange).arg(verb).arg(&definition.path);
        if let Some(side) = &definition.side {
            command.arg("--source-dir").arg(side);
        }
        command.arg("--pipeline-dir").arg(self.corpus.join("pipelines"));
        self.add_repositories(&mut command, before);
        command.arg("--cache-dir").arg(&self.cache).arg("--state-dir").arg(self.work.join("state"));
        command
    }

    /// The test distribution, and what some definitions made.
    fn add_repositories(&self, command: &mut Command, before: &[&str]) {
        command.arg("--repository").arg(&self.distro).arg("--keyring").arg(&self.distro_key);
        for name in before.iter().filter(|name| self.out(name).is_dir()) {
            command.arg("--repository").arg(self.out(name));
        }
        if !before.is_empty() {
            command.arg("--keyring").arg(self.key.with_added_extension("pub"));
        }
    }

    fn log(&self, definition: &Definition, verb: &str) -> PathBuf {
        self.work.join("logs").join(format!("{}.{verb}.log", definition.name))
    }

    fn run(&self, mut command: Command, verb: &str, definition: &Definition) -> Result<()> {
        let path = self.log(definition, verb);
        let log = File::create(&path).with_context(|| path.display().to_string())?;
        let status = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(STOPPED) => anyhow::bail!("{verb} stopped after {} s", self.deadline.as_secs()),
            _ => {
                let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                Err(anyhow::anyhow!(cause(&text).unwrap_or_else(|| format!("{verb} ended with {status}"))))
            }
        }
    }
}

/// What a definition lacks to be built, with what was heard when its tarballs were fetched; empty when it lacks nothing.
fn missing(definition: &Definition, cache: &Path, sources: &str) -> String {
    let missing = definition.missing(cache);
    if missing.is_empty() {
        return String::new();
    }
    let names: BTreeSet<&str> = missing.iter().map(|tarball| tarball.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let file = definition.path.file_name().unwrap_or_default().to_string_lossy();
    let heard = sources.lines().find_map(|line| line.strip_prefix(&format!("{file}: passed over: ")));
    match heard {
        Some(heard) => format!("{} not to be had: {heard}", names.join(", ")),
        None => format!("{} not in Debian's archive", names.join(", ")),
    }
}

/// The names of the packages in a folder, without versions.
fn packages(out: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for arch in fs::read_dir(out).with_context(|| out.display().to_string())? {
        for entry in fs::read_dir(arch?.path())? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            // name-version-rN.apk
            let mut parts = file.strip_suffix(".apk").unwrap_or_default().rsplitn(3, '-');
            if let (Some(_), Some(_), Some(name)) = (parts.next(), parts.next(), parts.next()) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Why a call failed, by its log: what it says itself, and the last line of the step that failed.
fn cause(log: &str) -> Option<String> {
    let said = |line: &&str| !line.is_empty() && !line.starts_with("time: ");
    let lines: Vec<&str> = log.lines().map(str::trim).filter(said).collect();
    let at = lines.iter().rposition(|line| line.starts_with("failed: ") || line.starts_with("error: "))?;
    let said = lines[at].split_once(": ").map_or(lines[at], |(_, rest)| rest);
    match lines[at + 1..].last() {
        Some(last) => Some(format!("{said}: {last}")),
        None => Some(said.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_of_tests_is_counted() {
        let text = "  a passed (in a log)\ntest of a passed (1.0 s)\na passed (1.00 s)\nb failed: nothing provides \"x\" (0.10 s)\n\
            c failed: the step failed (2.00 s)\nfailed: the test of b failed\n";
        assert_eq!(Tested::read(text), Tested { passed: 1, lacking: 1, failed: 1 });
    }

    #[test]
    fn logs_say_why() {
        let log = "[1/2] a: fetch\n  x\nfailed: the step `a: fetch` failed\nits last lines:\n  y\n  no such thing\n\
            time: compile 0.00 s\n";
        assert_eq!(cause(log).unwrap(), "the step `a: fetch` failed: no such thing");
        assert_eq!(cause("error: nothing provides x\n").unwrap(), "nothing provides x");
        assert_eq!(cause("x\n"), None);
    }

    #[test]
    fn packages_have_names_without_versions() {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir(out.path().join("x86_64")).unwrap();
        for name in ["b-dev-1.0-r0.apk", "b-1.0-r0.apk", "APKINDEX.tar.gz"] {
            fs::write(out.path().join("x86_64").join(name), "").unwrap();
        }
        assert_eq!(packages(out.path()).unwrap(), ["b", "b-dev"]);
    }
}
