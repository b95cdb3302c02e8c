//! The manifest: which Debian packages make which APK packages, and what a profile holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

/// The manifest the program is built with.
pub const BUILT_IN: &str = include_str!("../manifest.toml");

/// The manifest for one suite, with the suite's values filled in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Debian packages that are neither downloaded nor converted.
    pub skip: BTreeSet<String>,
    /// The values of each suite.
    pub suite: BTreeMap<String, BTreeMap<String, String>>,
    /// What can be asked for.
    pub profile: BTreeMap<String, Profile>,
    /// Packages made of Debian packages.
    pub package: BTreeMap<String, Spec>,
    /// Packages made here.
    #[serde(rename = "virtual")]
    pub made_here: BTreeMap<String, Spec>,
}

/// A named set of packages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Further profiles this one contains.
    pub include: Vec<String>,
    /// Debian packages to start from.
    pub debs: BTreeSet<String>,
    /// Debian packages taken without what they depend on, unless something else asks for that.
    pub alone: BTreeSet<String>,
    /// APK packages that must come out.
    pub packages: BTreeSet<String>,
    /// Further dependencies that packages have in this profile.
    pub depends: BTreeMap<String, BTreeSet<String>>,
}

/// How one APK package is made.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The Debian packages whose files it holds; those of another suite are passed over.
    pub debs: Vec<String>,
    /// Its version, where no Debian package has one.
    pub version: String,
    /// Its description, where Debian's does not fit.
    pub description: Option<String>,
    /// Take only paths that match.
    pub include: Vec<String>,
    /// Leave out paths that match.
    pub exclude: Vec<String>,
    /// Leave out what has such a path in Debian, where two places of Debian would become one here.
    pub exclude_debian: Vec<String>,
    /// Further dependencies.
    pub depends: Vec<String>,
    /// Of what is made here: only where a profile names it.
    pub only_if_named: bool,
    /// Further names it answers to; without a version they get the package's own.
    pub provides: Vec<String>,
    /// Debian dependencies to leave out.
    pub drop_depends: BTreeSet<String>,
    /// Symbolic links to add.
    pub links: BTreeMap<String, String>,
    /// Executable files to add.
    pub scripts: BTreeMap<String, String>,
    /// Plain files to add.
    pub files: BTreeMap<String, String>,
    /// Rank among packages that provide the same name.
    pub provider_priority: Option<u32>,
    /// Directories whose change runs the package's trigger.
    pub triggers: Vec<String>,
    /// The trigger's script.
    pub trigger: Option<String>,
    /// A change to the files that takes code.
    pub make: Option<Make>,
}

/// Changes to a package's files that take code; see the `special` module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Make {
    /// Directories, links and accounts of an empty root.
    Baselayout,
    /// The list of the links busybox wants, and its trigger.
    Busybox,
    /// One file with all certificates in place of one file each.
    CertificateBundle,
    /// The repository's public key.
    Keys,
    /// Modules are installed into the flat library directory.
    Perl,
    /// Modules are installed into `site-packages` below `/usr`.
    Python,
}

impl Manifest {
    /// Reads the manifest for a suite.
    pub fn parse(text: &str, suite: &str) -> Result<Self> {
        let raw: Manifest = toml::from_str(text).context("manifest")?;
        let values = raw
            .suite
            .get(suite)
            .with_context(|| format!("the manifest has no suite {suite:?}, only {:?}", raw.suite.keys()))?;
        let mut filled = text.to_owned();
        for (word, value) in values {
            filled = filled.replace(&format!("@{word}@"), value);
        }
        if let Some(word) = Regex::new(r"@\w+@")?.find(&filled).filter(|word| word.as_str() != "@words@") {
            bail!("the manifest gives suite {suite:?} no value for {}", word.as_str());
        }
        toml::from_str(&filled).context("manifest with the suite's values")
    }

    /// A value of the suite.
    pub fn value<'a>(&'a self, suite: &str, word: &str) -> Result<&'a str> {
        let values = self.suite.get(suite).with_context(|| format!("no suite {suite:?}"))?;
        Ok(values.get(word).with_context(|| format!("suite {suite:?} has no {word:?}"))?)
    }

    /// The union of some profiles and all they include.
    pub fn profiles(&self, names: &[String]) -> Result<Profile> {
        let mut union = Profile::default();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = todo.pop() {
            let profile = self
                .profile
                .get(name)
                .with_context(|| format!("no profile {name:?}, only {:?}", self.profile.keys()))?;
            if seen.insert(name) {
                union.debs.extend(profile.debs.iter().cloned());
                union.alone.extend(profile.alone.iter().cloned());
                union.packages.extend(profile.packages.iter().cloned());
                for (package, depends) in &profile.depends {
                    union.depends.entry(package.clone()).or_default().extend(depends.iter().cloned());
                }
                todo.extend(profile.include.iter().map(String::as_str));
            }
        }
        Ok(union)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_manifest_reads_for_every_suite() {
        for suite in ["bookworm", "trixie"] {
            let manifest = Manifest::parse(BUILT_IN, suite).unwrap();
            for (name, profile) in &manifest.profile {
                let whole = manifest.profiles(std::slice::from_ref(name)).unwrap();
                assert!(whole.debs.is_superset(&profile.debs));
                for package in &whole.packages {
                    let known =
                        manifest.package.contains_key(package) || manifest.made_here.contains_key(package);
                    assert!(known, "profile {name} expects {package}, which nothing makes");
                }
                for package in whole.depends.keys() {
                    assert!(
                        whole.packages.contains(package),
                        "profile {name} changes {package}, but lacks it"
                    );
                }
            }
        }
        assert!(Manifest::parse(BUILT_IN, "sarge").is_err());
    }

    #[test]
    fn a_suite_must_have_all_values() {
        let text = "skip = []\n[suite.x]\n[profile.p]\n[package.a]\ndebs = ['a-@gcc@']\n[virtual.v]\n";
        let error = Manifest::parse(text, "x").unwrap_err().to_string();
        assert!(error.contains("@gcc@"), "{error}");
    }

    #[test]
    fn profiles_contain_what_they_include() {
        let text = "skip = []\n[suite.x]\n[profile.p]\ndebs = ['a']\ndepends = { a = ['b'] }\n\
            [profile.q]\ninclude = ['p', 'q']\ndebs = ['b']\nalone = ['c']\ndepends = { a = ['c'] }\n[package]\n[virtual]\n";
        let manifest = Manifest::parse(text, "x").unwrap();
        let union = manifest.profiles(&["q".to_owned()]).unwrap();
        assert_eq!(union.debs, ["a", "b"].map(str::to_owned).into());
        assert_eq!(union.depends["a"], ["b", "c"].map(str::to_owned).into());
        assert_eq!(union.alone, ["c"].map(str::to_owned).into());
        assert!(manifest.profiles(&["r".to_owned()]).is_err());
    }
}
