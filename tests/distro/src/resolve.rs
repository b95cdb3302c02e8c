//! The dependencies of the packages: what their files need and what Debian says, in the names of the repository.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::analyse::{Findings, before_version};
use crate::deb::Deb;
use crate::manifest::Spec;

/// A package before its dependencies are known.
#[derive(Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What the manifest says of it.
    pub spec: Spec,
    /// The Debian packages it is made of.
    pub debs: Vec<Deb>,
    /// What was found in its files.
    pub findings: Findings,
    /// Whether it has files below `usr`, and so needs the base layout.
    pub has_usr: bool,
    /// Whether it is made here.
    pub made_here: bool,
}

impl Candidate {
    /// Everything it answers to beside its own name, with versions.
    pub fn provides(&self) -> Vec<String> {
        let declared =
            self.spec.provides.iter().map(|name| {
                if name.contains('=') { name.clone() } else { format!("{name}={}", self.version) }
            });
        let all: BTreeSet<String> = declared.chain(self.findings.provides.iter().cloned()).collect();
        all.into_iter().collect()
    }
}

/// What was found out about all packages.
#[derive(Debug, Default)]
pub struct Resolution {
    /// The dependencies of each package.
    pub depends: BTreeMap<String, Vec<String>>,
    /// Debian dependencies that were left out: package and dependency.
    pub dropped: Vec<(String, String)>,
}

/// Gives every package its dependencies; fails when one leads nowhere, unless it is on one of `skip` or of one
/// of `alone`.
pub fn resolve(
    candidates: &[Candidate],
    skip: &BTreeSet<String>,
    alone: &BTreeSet<String>,
) -> Result<Resolution> {
    let names = Names::collect(candidates);
    let mut resolution = Resolution::default();
    let mut broken = Vec::new();
    for candidate in candidates {
        let mut depends: BTreeSet<String> = candidate.spec.depends.iter().cloned().collect();
        for need in &candidate.findings.needs {
            match names.providers.get(need) {
                Some(providers) if providers.contains(candidate.name.as_str()) => {}
                Some(_) => drop(depends.insert(need.clone())),
                None => broken.push(format!("{} needs {need}", candidate.name)),
            }
        }
        for file in &candidate.findings.foreign_libraries {
            if let Some(soname) = names.sonames.get(file.as_str()) {
                depends.insert(format!("so:{soname}"));
            }
        }
        for deb in &candidate.debs {
            for alternatives in deb.control.depends() {
                match names.debian(candidate, &alternatives, skip) {
                    Debian::Packages(packages) => depends.extend(packages),
                    Debian::Unknown if !alone.contains(&deb.name) => {
                        broken.push(format!("{}: Debian's {}", candidate.name, alternatives.join(" | ")));
                    }
                    Debian::LeftOut | Debian::Unknown => {
                        resolution.dropped.push((candidate.name.clone(), alternatives.join(" | ")));
                    }
                }
            }
        }
        // The bundle comes before the base layout, which depends on it.
        if candidate.has_usr && !candidate.made_here {
            depends.insert("wolfi-baselayout".to_owned());
        }
        let provided = candidate.provides();
        depends.retain(|name| {
            *name != candidate.name && !provided.iter().any(|own| before_version(own) == name)
        });
        broken.extend(
            depends
                .iter()
                .filter(|name| !names.providers.contains_key(before_version(name)))
                .map(|name| format!("{} depends on {name}", candidate.name)),
        );
        resolution.depends.insert(candidate.name.clone(), depends.into_iter().collect());
    }
    if !broken.is_empty() {
        broken.sort_unstable();
        broken.dedup();
        bail!("nothing in the repository provides what is needed:\n  {}", broken.join("\n  "));
    }
    Ok(resolution)
}

/// What a Debian dependency comes to.
enum Debian {
    /// These packages (none, where a library dependency says it already).
    Packages(Vec<String>),
    /// Nothing: the manifest leaves it out.
    LeftOut,
    /// No package of the repository, without the manifest saying so.
    Unknown,
}

/// Who provides what.
struct Names<'a> {
    /// Packages by every name they answer to.
    providers: BTreeMap<String, BTreeSet<&'a str>>,
    /// Library names by the file names they have.
    sonames: BTreeMap<&'a str, &'a str>,
    /// Packages by the Debian package they are made of.
    made_of: BTreeMap<&'a str, Vec<&'a Candidate>>,
    /// Debian packages by the names they provide.
    debian_provides: BTreeMap<String, &'a str>,
}

impl<'a> Names<'a> {
    fn collect(candidates: &'a [Candidate]) -> Self {
        let mut names = Self {
            providers: BTreeMap::new(),
            sonames: BTreeMap::new(),
            made_of: BTreeMap::new(),
            debian_provides: BTreeMap::new(),
        };
        for candidate in candidates {
            names.providers.entry(candidate.name.clone()).or_default().insert(&candidate.name);
            for provided in candidate.provides() {
                names
                    .providers
                    .entry(before_version(&provided).to_owned())
                    .or_default()
                    .insert(&candidate.name);
            }
            names
                .sonames
                .extend(candidate.findings.sonames.iter().map(|(file, name)| (file.as_str(), name.as_str())));
            for deb in &candidate.debs {
                names.made_of.entry(&deb.name).or_default().push(candidate);
                for provided in deb.control.provides() {
                    names.debian_provides.entry(provided).or_insert(&deb.name);
                }
            }
        }
        names
    }

    /// The packages for the first alternative that there is.
    fn debian(&self, candidate: &Candidate, alternatives: &[String], skip: &BTreeSet<String>) -> Debian {
        if alternatives.iter().any(|name| candidate.spec.drop_depends.contains(name)) {
            return Debian::LeftOut;
        }
        let found = alternatives.iter().find_map(|name| {
            let real = self.debian_provides.get(name).copied().unwrap_or(name);
            self.made_of.get(name.as_str()).or_else(|| self.made_of.get(real))
        });
        let Some(targets) = found else {
            let known = alternatives.iter().any(|name| skip.contains(name));
            return if known { Debian::LeftOut } else { Debian::Unknown };
        };
        let own = targets.iter().any(|target| target.name == candidate.name);
        if own {
            return Debian::Packages(Vec::new());
        }
        let said = |target: &&&Candidate| {
            let mut provided = target.findings.provides.iter().map(|name| before_version(name));
            provided.any(|name| name.starts_with("so:") && candidate.findings.needs.contains(name))
        };
        let dropped = |target: &&&Candidate| candidate.spec.drop_depends.contains(&target.name);
        // A Debian package may be split in several: one whose library is needed stands for all of them.
        if targets.iter().any(|target| said(&target)) {
            return Debian::Packages(Vec::new());
        }
        Debian::Packages(
            targets.iter().filter(|target| !dropped(target)).map(|target| target.name.clone()).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::Control;

    fn candidate(name: &str, deb: &str, control: &str) -> Candidate {
        let control = Control::parse(control);
        Candidate {
            name: name.to_owned(),
            version: "1-r0".to_owned(),
            spec: Spec::default(),
            debs: vec![Deb { name: deb.to_owned(), path: "/nowhere".into(), bytes: 0, control }],
            findings: Findings::default(),
            has_usr: false,
            made_here: false,
        }
    }

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_first_alternative_that_there_is_counts() {
        let packages = [
            candidate("app", "app", "Depends: gone | libfoo2 (>= 1), virtual-x, dpkg"),
            candidate("foo", "libfoo2", ""),
            candidate("x", "x-real", "Provides: virtual-x (= 3)"),
        ];
        let resolution = resolve(&packages, &names(&["dpkg"]), &BTreeSet::new()).unwrap();
        assert_eq!(resolution.depends["app"], ["foo", "x"]);
        assert_eq!(resolution.dropped, [("app".to_owned(), "dpkg".to_owned())]);
    }

    #[test]
    fn a_library_dependency_says_it_already() {
        let mut packages = [candidate("app", "app", "Depends: libfoo2"), candidate("foo", "libfoo2", "")];
        packages[0].findings.needs = names(&["so:libfoo.so.2"]);
        packages[1].findings.provides = names(&["so:libfoo.so.2=2"]);
        let resolution = resolve(&packages, &BTreeSet::new(), &BTreeSet::new()).unwrap();
        assert_eq!(resolution.depends["app"], ["so:libfoo.so.2"]);
    }

    #[test]
    fn development_links_need_their_library() {
        let mut packages = [candidate("foo-dev", "libfoo-dev", ""), candidate("foo", "libfoo2", "")];
        packages[0].findings.foreign_libraries = names(&["libfoo.so.2.1", "elsewhere.so"]);
        packages[1].findings.provides = names(&["so:libfoo.so.2=2"]);
        packages[1].findings.sonames = [("libfoo.so.2.1".to_owned(), "libfoo.so.2".to_owned())].into();
        let resolution = resolve(&packages, &BTreeSet::new(), &BTreeSet::new()).unwrap();
        assert_eq!(resolution.depends["foo-dev"], ["so:libfoo.so.2"]);
    }

    #[test]
    fn what_leads_nowhere_is_an_error() {
        let mut package = candidate("app", "app", "Depends: unknown");
        package.findings.needs = names(&["so:libgone.so.1"]);
        package.spec.depends = vec!["absent>1".to_owned()];
        let error = resolve(&[package], &BTreeSet::new(), &BTreeSet::new()).unwrap_err().to_string();
        for part in ["needs so:libgone.so.1", "Debian's unknown", "depends on absent>1"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_taken_alone_may_lack_what_debian_says_but_no_library() {
        let mut package = candidate("app", "app", "Depends: unknown");
        let alone = names(&["app"]);
        let resolution = resolve(std::slice::from_ref(&package), &BTreeSet::new(), &alone).unwrap();
        assert_eq!(resolution.dropped, [("app".to_owned(), "unknown".to_owned())]);
        package.findings.needs = names(&["so:libgone.so.1"]);
        let error = resolve(&[package], &BTreeSet::new(), &alone).unwrap_err().to_string();
        assert!(error.contains("needs so:libgone.so.1") && !error.contains("unknown"), "{error}");
    }

    #[test]
    fn a_package_made_of_two_parts_does_not_depend_on_itself() {
        let mut package = candidate("gcc", "gcc", "Depends: cpp");
        package.debs.push(candidate("", "cpp", "Depends: gcc").debs.remove(0));
        assert_eq!(
            resolve(&[package], &BTreeSet::new(), &BTreeSet::new()).unwrap().depends["gcc"],
            Vec::<String>::new()
        );
    }
}
