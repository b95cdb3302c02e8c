//! `report.json`: what a repository is made of, and what was left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::apk::Metadata;
use crate::deb::Deb;
use crate::make::Options;
use crate::resolve::Resolution;

/// How long the parts of a run took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// Package lists and the closure.
    pub resolve: f64,
    /// Downloading Debian packages and reading what they say of themselves.
    pub download: f64,
    /// Reading and writing files.
    pub convert: f64,
    /// Dependencies, signatures, index.
    pub write: f64,
    /// The whole run.
    pub all: f64,
}

/// The report of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    suite: String,
    profiles: Vec<String>,
    debs: usize,
    deb_bytes: u64,
    apks: usize,
    repository_bytes: u64,
    installed_bytes: u64,
    seconds: Seconds,
    /// Debian dependencies that were left out, by package.
    dropped_depends: BTreeMap<String, Vec<String>>,
    dropped_depends_count: usize,
    packages: Vec<Metadata>,
}

impl Report {
    /// Gathers the report of a repository.
    pub fn new(
        options: &Options,
        debs: &BTreeMap<String, Deb>,
        packages: Vec<Metadata>,
        resolution: Resolution,
        repository: &Path,
        seconds: Seconds,
    ) -> Result<Self> {
        let mut repository_bytes = 0;
        for entry in fs::read_dir(repository)? {
            repository_bytes += entry?.metadata()?.len();
        }
        let dropped_depends_count = resolution.dropped.len();
        let mut dropped_depends: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (package, dependency) in resolution.dropped {
            dropped_depends.entry(package).or_default().push(dependency);
        }
        Ok(Self {
            suite: options.suite.clone(),
            profiles: options.profiles.clone(),
            debs: debs.len(),
            deb_bytes: debs.values().map(|deb| deb.bytes).sum(),
            apks: packages.len(),
            repository_bytes,
            installed_bytes: packages.iter().map(|package| package.installed_bytes).sum(),
            seconds,
            dropped_depends,
            dropped_depends_count,
            packages,
        })
    }

    /// Writes it as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }
}
