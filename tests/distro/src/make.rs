//! Making a repository, from the question to the finished directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::analyse::{Findings, analyse};
use crate::apk::{ARCH, DataMember, INDEX, Metadata, write_data, write_index, write_package};
use crate::apt::{Apt, Fetch};
use crate::cache::{Stamp, digest, generator, lock, remove_directory, replace_directory};
use crate::deb::Deb;
use crate::key::{KEY_NAME, SigningKey};
use crate::manifest::{BUILT_IN, Manifest, Profile};
use crate::parallel;
use crate::plan::{Planned, plan};
use crate::report::{Report, Seconds};
use crate::resolve::{Candidate, Resolution, resolve};
use crate::special::{Surroundings, apply};
use crate::tree::{Node, Tree};

/// What to make, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory the repository goes into.
    pub out: PathBuf,
    /// Where Debian packages and lists are kept between runs.
    pub cache: PathBuf,
    /// The Debian suite.
    pub suite: String,
    /// The profiles.
    pub profiles: Vec<String>,
    /// Ask the archive again although everything is there.
    pub refresh: bool,
    /// How many threads work.
    pub jobs: usize,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// The repository was there already.
    Kept,
    /// The repository was made.
    Made,
}

/// A package whose data member is written.
struct Converted {
    planned: Planned,
    findings: Findings,
    data: DataMember,
    data_path: PathBuf,
    build_date: u64,
    /// Every path, and whether it is a directory.
    paths: BTreeMap<String, bool>,
}

/// Makes the repository, unless it is there.
pub fn make(options: &Options) -> Result<Outcome> {
    let begin = Instant::now();
    let _lock = lock(&options.out)?;
    let mut manifest = Manifest::parse(BUILT_IN, &options.suite)?;
    let profile = manifest.profiles(&options.profiles)?;
    manifest.skip.retain(|name| !profile.debs.contains(name));
    let key = SigningKey::load_or_generate(&options.out.join("keys"))?;
    let profiles = options.profiles.join(" ");
    let request = digest(&[BUILT_IN, &generator(), &options.suite, &profiles, key.public_pem()]);
    let stamp = Stamp::read(&options.out).filter(|_| options.out.join(ARCH).join(INDEX).is_file());
    if !options.refresh && stamp.as_ref().is_some_and(|stamp| stamp.request == request) {
        return Ok(Outcome::Kept);
    }

    let (debs, mut seconds) = debian_packages(options, &manifest)?;
    let versions: Vec<String> =
        debs.values().map(|deb| format!("{}={}", deb.name, deb.control.get("Version"))).collect();
    let content = digest(&[request.as_str(), &versions.join("\n")]);
    if stamp.is_some_and(|stamp| stamp.content == content) {
        return Ok(Outcome::Kept);
    }

    let work = options.out.join(".new");
    remove_directory(&work)?;
    let repository = work.join(ARCH);
    fs::create_dir_all(&repository).with_context(|| repository.display().to_string())?;
    let start = Instant::now();
    let converted = convert(options, &manifest, &plan(&manifest, &profile, &debs)?, &key, &work)?;
    seconds.convert = start.elapsed().as_secs_f64();

    let start = Instant::now();
    check_owners(&converted)?;
    let (converted, resolution) = with_dependencies(converted, &manifest, &profile)?;
    let packages = write_packages(options, &converted, &resolution, &repository, &key)?;
    seconds.write = start.elapsed().as_secs_f64();
    seconds.all = begin.elapsed().as_secs_f64();
    let report = Report::new(options, &debs, packages, resolution, &repository, seconds)?;

    Stamp::remove(&options.out)?;
    replace_directory(&repository, &options.out.join(ARCH))?;
    remove_directory(&work)?;
    report.write(&options.out.join("report.json"))?;
    Stamp { request, content }.write(&options.out)?;
    Ok(Outcome::Made)
}

/// The versions of the Debian packages of a profile.
fn wanted(apt: &Apt, profile: &Profile, skip: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let mut wanted = apt.closure(&profile.debs)?;
    wanted.extend(apt.versions(&profile.alone)?);
    wanted.retain(|name, _| !skip.contains(name));
    Ok(wanted)
}

/// The Debian packages of the profiles, downloaded.
fn debian_packages(options: &Options, manifest: &Manifest) -> Result<(BTreeMap<String, Deb>, Seconds)> {
    let _lock = lock(&options.cache)?;
    let mut seconds = Seconds::default();
    let start = Instant::now();
    let apt = Apt::new(&options.cache.join("apt").join(&options.suite), &options.suite, Fetch::Packages)?;
    apt.update(options.refresh)?;
    let profile = manifest.profiles(&options.profiles)?;
    let mut closure = wanted(&apt, &profile, &manifest.skip)?;
    seconds.resolve = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let directory = options.cache.join("debs");
    if download(&apt, &closure, &directory).is_err() {
        // The archive has moved on since the lists were fetched.
        apt.update(true)?;
        closure = wanted(&apt, &profile, &manifest.skip)?;
        download(&apt, &closure, &directory)?;
    }
    let files: Vec<(String, PathBuf)> = closure
        .iter()
        .map(|(name, version)| Ok((name.clone(), deb_path(&directory, name, version).context(name.clone())?)))
        .collect::<Result<_>>()?;
    let debs = parallel::map(options.jobs, &files, |(name, path)| Deb::open(name, path))?;
    seconds.download = start.elapsed().as_secs_f64();
    Ok((debs.into_iter().map(|deb| (deb.name.clone(), deb)).collect(), seconds))
}

/// Downloads what is not there yet.
fn download(apt: &Apt, closure: &BTreeMap<String, String>, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let missing: Vec<String> = closure
        .iter()
        .filter(|(name, version)| deb_path(directory, name, version).is_none())
        .map(|(name, version)| format!("{name}={version}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Only whole files get their final names: a run may be stopped at any time.
    let partial = tempfile::tempdir_in(directory)?;
    apt.download(&missing, partial.path())?;
    for entry in fs::read_dir(partial.path())? {
        let entry = entry?;
        fs::rename(entry.path(), directory.join(entry.file_name()))?;
    }
    Ok(())
}

/// The file of a downloaded package, if it is there.
fn deb_path(directory: &Path, name: &str, version: &str) -> Option<PathBuf> {
    let version = version.replace(':', "%3a");
    ["amd64", "all"]
        .map(|arch| directory.join(format!("{name}_{version}_{arch}.deb")))
        .into_iter()
        .find(|path| path.is_file())
}

/// Writes the data member of every package.
fn convert(
    options: &Options,
    manifest: &Manifest,
    planned: &[Planned],
    key: &SigningKey,
    work: &Path,
) -> Result<Vec<Converted>> {
    let mut libc = planned.iter().flat_map(|package| &package.debs).filter(|deb| deb.name == "libc6");
    let around = Surroundings {
        python: manifest.value(&options.suite, "python")?.to_owned(),
        key_name: KEY_NAME.to_owned(),
        public_key: key.public_pem().as_bytes().to_vec(),
        libc: libc.next().context("the C library is not among the packages")?.clone(),
    };
    // The biggest first, so that no thread is left with one at the end.
    let mut order: Vec<&Planned> = planned.iter().collect();
    order.sort_by_key(|package| std::cmp::Reverse(package.debs.iter().map(|deb| deb.bytes).sum::<u64>()));
    let convert_one = |package: &&Planned| {
        convert_package(package, &around, work).with_context(|| format!("package {}", package.name))
    };
    let mut converted = parallel::map(options.jobs, &order, convert_one)?;
    converted.sort_by(|a, b| a.planned.name.cmp(&b.planned.name));
    Ok(converted)
}

fn convert_package(planned: &Planned, around: &Surroundings, work: &Path) -> Result<Converted> {
    let mut tree = Tree::from_debs(&planned.debs, &planned.spec, &around.python)?;
    apply(&mut tree, &planned.spec, around)?;
    tree.add_parents()?;
    let findings = analyse(&tree, &planned.version)?;
    let data_path = work.join(format!("{}.data", planned.name));
    let data = write_data(&tree, &data_path)?;
    let build_date = tree.newest();
    let paths = tree.0.into_iter().map(|(path, entry)| (path, entry.node == Node::Directory)).collect();
    Ok(Converted { planned: planned.clone(), findings, data, data_path, build_date, paths })
}

/// Makes sure that no two packages want the same path, nor one a file where another has a directory.
fn check_owners(converted: &[Converted]) -> Result<()> {
    let mut owners: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for package in converted {
        let name = package.planned.name.as_str();
        for (path, is_directory) in &package.paths {
            match owners.get(path.as_str()) {
                Some((_, true)) if *is_directory => {}
                Some((owner, _)) => clashes.push(format!("{path}: {owner} and {name}")),
                None => drop(owners.insert(path, (name, *is_directory))),
            }
        }
    }
    clashes.truncate(20);
    ensure!(clashes.is_empty(), "paths with two owners:\n  {}", clashes.join("\n  "));
    Ok(())
}

fn with_dependencies(
    converted: Vec<Converted>,
    manifest: &Manifest,
    profile: &Profile,
) -> Result<(Vec<(Converted, Candidate)>, Resolution)> {
    let mut candidates = Vec::new();
    let mut rest = Vec::new();
    for mut package in converted {
        candidates.push(Candidate {
            name: package.planned.name.clone(),
            version: package.planned.version.clone(),
            spec: package.planned.spec.clone(),
            debs: package.planned.debs.clone(),
            findings: std::mem::take(&mut package.findings),
            has_usr: package.paths.keys().any(|path| path.starts_with("usr/")),
            made_here: package.planned.made_here,
        });
        rest.push(package);
    }
    let resolution = resolve(&candidates, &manifest.skip, &profile.alone)?;
    Ok((rest.into_iter().zip(candidates).collect(), resolution))
}

/// Writes all packages and the index.
fn write_packages(
    options: &Options,
    converted: &[(Converted, Candidate)],
    resolution: &Resolution,
    repository: &Path,
    key: &SigningKey,
) -> Result<Vec<Metadata>> {
    let written = parallel::map(options.jobs, converted, |(package, candidate)| {
        let planned = &package.planned;
        let metadata = Metadata {
            name: planned.name.clone(),
            version: planned.version.clone(),
            description: planned.description.clone(),
            url: planned.url.clone(),
            origin: planned.origin.clone(),
            build_date: package.build_date,
            installed_bytes: package.data.installed_bytes,
            depends: resolution.depends.get(&planned.name).cloned().unwrap_or_default(),
            provides: candidate.provides(),
            provider_priority: planned.spec.provider_priority,
            triggers: planned.spec.triggers.clone(),
        };
        let trigger = planned.spec.trigger.as_deref();
        let record = write_package(repository, &metadata, &package.data, &package.data_path, trigger, key)
            .with_context(|| format!("package {}", planned.name))?;
        fs::remove_file(&package.data_path)?;
        Ok((metadata, record))
    })?;
    let (packages, records): (Vec<Metadata>, Vec<String>) = written.into_iter().unzip();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    ensure!(names.len() == packages.len(), "two packages have the same name");
    let description = format!("test distribution of Debian {}", options.suite);
    write_index(&repository.join(INDEX), &description, &records, key)?;
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloaded_files_are_found_by_name_and_version() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("git_1%3a2.39.5-0_amd64.deb"), "").unwrap();
        fs::write(directory.path().join("m4_1_all.deb"), "").unwrap();
        assert!(deb_path(directory.path(), "git", "1:2.39.5-0").is_some());
        assert!(deb_path(directory.path(), "m4", "1").is_some());
        assert!(deb_path(directory.path(), "m4", "2").is_none());
    }
}
