//! From the words of the document to the values of the plan, field by field.

use std::collections::BTreeMap;

use super::CompileOptions;
use super::document::{Dependencies, Document, Environment, Scriptlets, SetCap, Subpackage, Text};
use super::plan::{PlanCopyright, PlanEnvironment, PlanGroup, PlanPackage, PlanPath, PlanSetCap, PlanUser};

fn texts(list: &[Text]) -> Vec<String> {
    list.iter().map(|text| text.value.clone()).collect()
}

/// The main package without its steps.
pub(super) fn main_package(document: &Document, options: &CompileOptions) -> PlanPackage {
    let package = &document.package;
    let commit =
        if package.commit.is_empty() { options.commit.clone() } else { package.commit.value.clone() };
    let cpe = &package.cpe;
    let cpe_fields = [
        ("part", &cpe.part),
        ("vendor", &cpe.vendor),
        ("product", &cpe.product),
        ("edition", &cpe.edition),
        ("language", &cpe.language),
        ("sw_edition", &cpe.sw_edition),
        ("target_sw", &cpe.target_sw),
        ("target_hw", &cpe.target_hw),
        ("other", &cpe.other),
    ];
    let mut result = PlanPackage {
        name: package.name.value.clone(),
        version: package.version.value.clone(),
        epoch: package.epoch,
        description: package.description.value.clone(),
        url: package.url.value.clone(),
        commit,
        copyright: package
            .copyright
            .iter()
            .map(|entry| PlanCopyright {
                license: entry.license.value.clone(),
                attestation: entry.attestation.value.clone(),
                license_path: entry.license_path.value.clone(),
                detection_override: entry.detection_override.value.clone(),
            })
            .collect(),
        options: package.options,
        trigger_paths: texts(&package.scriptlets.trigger_paths),
        scriptlets: scriptlets(&package.scriptlets),
        checks_disabled: texts(&package.checks.disabled),
        setcap: package.setcap.iter().map(setcap).collect(),
        cpe: cpe_fields
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name, text.value.clone()))
            .collect(),
        ..PlanPackage::default()
    };
    put_dependencies(&mut result, &package.dependencies);
    result
}

/// A subpackage without its steps.
pub(super) fn subpackage(sub: &Subpackage, main: &PlanPackage) -> PlanPackage {
    let mut result = PlanPackage {
        name: sub.name.value.clone(),
        version: main.version.clone(),
        epoch: main.epoch,
        description: sub.description.value.clone(),
        url: sub.url.value.clone(),
        commit: if sub.commit.is_empty() { main.commit.clone() } else { sub.commit.value.clone() },
        copyright: main.copyright.clone(),
        options: sub.options,
        trigger_paths: texts(&sub.scriptlets.trigger_paths),
        scriptlets: scriptlets(&sub.scriptlets),
        checks_disabled: texts(&sub.checks.disabled),
        setcap: sub.setcap.iter().map(setcap).collect(),
        cpe: main.cpe.clone(),
        ..PlanPackage::default()
    };
    put_dependencies(&mut result, &sub.dependencies);
    result
}

fn put_dependencies(package: &mut PlanPackage, dependencies: &Dependencies) {
    package.runtime = texts(&dependencies.runtime);
    package.provides = texts(&dependencies.provides);
    package.replaces = texts(&dependencies.replaces);
    package.provider_priority = dependencies.provider_priority.value.clone();
    package.replaces_priority = dependencies.replaces_priority.value.clone();
}

fn scriptlets(scriptlets: &Scriptlets) -> BTreeMap<&'static str, String> {
    [
        (".trigger", &scriptlets.trigger_script),
        (".pre-install", &scriptlets.pre_install),
        (".post-install", &scriptlets.post_install),
        (".pre-deinstall", &scriptlets.pre_deinstall),
        (".post-deinstall", &scriptlets.post_deinstall),
        (".pre-upgrade", &scriptlets.pre_upgrade),
        (".post-upgrade", &scriptlets.post_upgrade),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .map(|(name, text)| (name, text.value.clone()))
    .collect()
}

fn setcap(setcap: &SetCap) -> PlanSetCap {
    PlanSetCap {
        path: setcap.path.value.clone(),
        add: setcap.add.iter().map(|(name, flags)| (name.clone(), flags.value.clone())).collect(),
    }
}

/// The repositories of an environment, those of the build first, and their keys.
pub(super) fn repositories(environment: &Environment) -> (Vec<String>, Vec<String>) {
    let contents = &environment.contents;
    let all = contents.build_repositories.iter().chain(&contents.repositories);
    (all.map(|text| text.value.clone()).collect(), texts(&contents.keyring))
}

/// The environment without the needs of the steps.
pub(super) fn environment(environment: &Environment) -> PlanEnvironment {
    let contents = &environment.contents;
    let (repositories, keyring) = repositories(environment);
    let or_else = |text: &Text, other: String| if text.is_empty() { other } else { text.value.clone() };
    PlanEnvironment {
        repositories,
        keyring,
        packages: texts(&contents.packages),
        users: environment
            .accounts
            .users
            .iter()
            .map(|user| PlanUser {
                name: user.username.value.clone(),
                uid: user.uid,
                gid: user.gid.unwrap_or(user.uid),
                shell: or_else(&user.shell, "/bin/sh".to_owned()),
                home: or_else(&user.homedir, format!("/home/{}", &*user.username)),
            })
            .collect(),
        groups: environment
            .accounts
            .groups
            .iter()
            .map(|group| PlanGroup {
                name: group.groupname.value.clone(),
                gid: group.gid,
                members: texts(&group.members),
            })
            .collect(),
        run_as: environment.accounts.run_as.value.clone(),
        variables: environment
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.value.clone()))
            .collect(),
        paths: environment
            .paths
            .iter()
            .map(|path| PlanPath {
                path: path.path.value.clone(),
                kind: path.kind.value.clone(),
                uid: path.uid.unwrap_or_default(),
                gid: path.gid.unwrap_or_default(),
                mode: path.permissions,
                source: path.source.value.clone(),
            })
            .collect(),
    }
}
