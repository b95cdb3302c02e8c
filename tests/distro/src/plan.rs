//! Which packages there will be: the manifest's groups over the Debian packages that are there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::deb::Deb;
use crate::manifest::{Manifest, Profile, Spec};
use crate::version::apk_version;

/// A package to be made.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line about it.
    pub description: String,
    /// Its home page.
    pub url: String,
    /// The source it was built from.
    pub origin: String,
    /// What the manifest says of it.
    pub spec: Spec,
    /// The Debian packages it is made of; none for what is made here.
    pub debs: Vec<Deb>,
    /// Whether it is made here.
    pub made_here: bool,
}

/// Lays out all packages, sorted by name.
pub fn plan(manifest: &Manifest, profile: &Profile, debs: &BTreeMap<String, Deb>) -> Result<Vec<Planned>> {
    let mut planned = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (name, spec) in &manifest.package {
        let group: Vec<Deb> = spec.debs.iter().filter_map(|deb| debs.get(deb).cloned()).collect();
        if !group.is_empty() {
            used.extend(group.iter().map(|deb| deb.name.clone()));
            planned.insert(name.clone(), from_debs(name, spec.clone(), group)?);
        }
    }
    for (name, deb) in debs.iter().filter(|(name, _)| !used.contains(*name)) {
        ensure!(
            !planned.contains_key(name),
            "Debian package {name} is in no group, but its name is a group's"
        );
        planned.insert(name.clone(), from_debs(name, Spec::default(), vec![deb.clone()])?);
    }
    for (name, spec) in usable(manifest, profile, &planned) {
        let package = made_here(name, spec);
        ensure!(planned.insert(name.clone(), package).is_none(), "{name} is made in two ways");
    }
    let missing: Vec<&String> = profile.packages.iter().filter(|name| !planned.contains_key(*name)).collect();
    ensure!(missing.is_empty(), "no Debian package was found for {missing:?}");
    for (name, depends) in &profile.depends {
        let package = planned.get_mut(name).with_context(|| format!("no package {name} to add to"))?;
        package.spec.depends.extend(depends.iter().cloned());
    }
    Ok(planned.into_values().collect())
}

fn from_debs(name: &str, spec: Spec, debs: Vec<Deb>) -> Result<Planned> {
    let control = &debs.first().context("a group has no Debian package")?.control;
    let description = control.get("Description").lines().next().unwrap_or_default();
    let source = control.get("Source").split_whitespace().next().unwrap_or(control.get("Package"));
    Ok(Planned {
        name: name.to_owned(),
        version: apk_version(control.get("Version")).with_context(|| name.to_owned())?,
        description: spec.description.clone().unwrap_or_else(|| description.to_owned()),
        url: control.get("Homepage").to_owned(),
        origin: source.to_owned(),
        spec,
        debs,
        made_here: false,
    })
}

fn made_here(name: &str, spec: &Spec) -> Planned {
    Planned {
        name: name.to_owned(),
        version: spec.version.clone(),
        description: spec.description.clone().unwrap_or_default(),
        url: String::new(),
        origin: name.to_owned(),
        spec: spec.clone(),
        debs: Vec::new(),
        made_here: true,
    }
}

/// The packages made here, without those that need what was not asked for.
fn usable<'a>(
    manifest: &'a Manifest,
    profile: &Profile,
    planned: &BTreeMap<String, Planned>,
) -> BTreeMap<&'a String, &'a Spec> {
    let wanted = |name: &str, spec: &Spec| !spec.only_if_named || profile.packages.contains(name);
    let mut usable: BTreeMap<&String, &Spec> =
        manifest.made_here.iter().filter(|(name, spec)| wanted(name, spec)).collect();
    loop {
        let mut names: BTreeSet<&str> = planned.keys().map(String::as_str).collect();
        names.extend(planned.values().flat_map(|package| package.spec.provides.iter().map(String::as_str)));
        names.extend(usable.keys().map(|name| name.as_str()));
        names.extend(usable.values().flat_map(|spec| spec.provides.iter().map(String::as_str)));
        let lacks = |spec: &Spec| spec.depends.iter().any(|name| !names.contains(name.as_str()));
        let gone: Vec<&String> = usable
            .iter()
            .filter(|(name, spec)| lacks(spec) && !profile.packages.contains(**name))
            .map(|(name, _)| *name)
            .collect();
        if gone.is_empty() {
            return usable;
        }
        usable.retain(|name, _| !gone.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::Control;

    const MANIFEST: &str = "skip = []\n[suite.x]\n[profile.p]\npackages = ['tool']\n\
        [package.tool]\ndebs = ['tool-1', 'tool-data']\n[package.other]\ndebs = ['other-deb']\n\
        [virtual.all]\nversion = '1-r0'\ndepends = ['tool', 'lib']\n\
        [virtual.others]\nversion = '1-r0'\ndepends = ['other']\n\
        [virtual.more]\nversion = '1-r0'\ndepends = ['others']\n";

    fn debs(names: &[&str]) -> BTreeMap<String, Deb> {
        let control = |name: &str| {
            Control::parse(&format!("Package: {name}\nVersion: 1.0-2\nSource: src (3)\nDescription: a\n b\n"))
        };
        let deb =
            |name: &str| Deb { name: name.to_owned(), path: "/".into(), bytes: 1, control: control(name) };
        names.iter().map(|name| ((*name).to_owned(), deb(name))).collect()
    }

    #[test]
    fn groups_single_packages_and_what_is_made_here() {
        let manifest = Manifest::parse(MANIFEST, "x").unwrap();
        let profile = manifest.profiles(&["p".to_owned()]).unwrap();
        let planned = plan(&manifest, &profile, &debs(&["lib", "tool-data", "tool-1"])).unwrap();
        let names: Vec<&str> = planned.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["all", "lib", "tool"]);
        assert_eq!(planned[2].debs.len(), 2);
        assert_eq!(planned[2].version, "1.0-r2");
        assert_eq!(planned[2].origin, "src");
        assert_eq!(planned[2].description, "a");
    }

    #[test]
    fn a_profile_names_and_adds() {
        let text = format!("{MANIFEST}[virtual.rare]\nversion = '1-r0'\nonly_if_named = true\n");
        let text = text.replace(
            "[package.tool]",
            "[profile.q]\ninclude = ['p']\npackages = ['rare']\ndepends = { tool = ['rare'] }\n[package.tool]",
        );
        let manifest = Manifest::parse(&text, "x").unwrap();
        let planned = |profile: &str| {
            let profile = manifest.profiles(&[profile.to_owned()]).unwrap();
            plan(&manifest, &profile, &debs(&["lib", "tool-1"])).unwrap()
        };
        assert!(
            planned("p").iter().all(|package| package.name != "rare" && package.spec.depends != ["rare"])
        );
        let more = planned("q");
        assert!(more.iter().any(|package| package.name == "rare"));
        assert!(more.iter().any(|package| package.name == "tool" && package.spec.depends == ["rare"]));
    }

    #[test]
    fn an_expected_package_without_debian_package_is_an_error() {
        let manifest = Manifest::parse(MANIFEST, "x").unwrap();
        let profile = manifest.profiles(&["p".to_owned()]).unwrap();
        assert!(plan(&manifest, &profile, &debs(&["lib"])).unwrap_err().to_string().contains("tool"));
    }
}
