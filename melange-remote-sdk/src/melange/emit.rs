//! `.melange.yaml`: the compiled, locked definition that every package carries.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::{Plan, PlanPackage, PlanStep};

#[derive(Serialize)]
struct Emitted<'a> {
    package: Package<'a>,
    environment: Environment<'a>,
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    capabilities: Capabilities<'a>,
    #[serde(skip_serializing_if = "<[PlanStep]>::is_empty")]
    pipeline: &'a [PlanStep],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subpackages: Vec<Subpackage<'a>>,
}

#[derive(Serialize)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    epoch: u64,
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copyright: Vec<Copyright<'a>>,
    resources: BTreeMap<(), ()>,
}

#[derive(Serialize)]
struct Subpackage<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "<[PlanStep]>::is_empty")]
    pipeline: &'a [PlanStep],
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Common<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    commit: &'a str,
    #[serde(skip_serializing_if = "Dependencies::is_empty")]
    dependencies: Dependencies<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<&'static str, bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    scriptlets: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Copyright<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    attestation: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    license: &'a str,
}

#[derive(Serialize)]
struct Dependencies<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    runtime: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    provides: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    replaces: &'a [String],
    #[serde(rename = "provider-priority", skip_serializing_if = "str::is_empty")]
    provider_priority: &'a str,
    #[serde(rename = "replaces-priority", skip_serializing_if = "str::is_empty")]
    replaces_priority: &'a str,
}

impl Dependencies<'_> {
    fn is_empty(&self) -> bool {
        self.runtime.is_empty()
            && self.provides.is_empty()
            && self.replaces.is_empty()
            && self.provider_priority.is_empty()
            && self.replaces_priority.is_empty()
    }
}

#[derive(Serialize)]
struct Capabilities<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    add: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    drop: &'a [String],
}

impl Capabilities<'_> {
    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.drop.is_empty()
    }
}

#[derive(Serialize)]
struct Environment<'a> {
    contents: Contents<'a>,
    accounts: Accounts<'a>,
    archs: [&'a str; 1],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Contents<'a> {
    repositories: &'a [String],
    keyring: &'a [String],
    packages: &'a [String],
}

#[derive(Serialize)]
struct Accounts<'a> {
    #[serde(rename = "run-as")]
    run_as: &'a str,
    users: Vec<User<'a>>,
    groups: Vec<Group<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    username: &'a str,
    uid: u32,
    gid: u32,
    shell: &'a str,
    homedir: &'a str,
}

#[derive(Serialize)]
struct Group<'a> {
    groupname: &'a str,
    gid: u32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    members: &'a [String],
}

/// The text, with `lock` in place of the requested packages.
///
/// # Errors
/// The YAML writer's, which these types never cause.
pub fn locked_definition(plan: &Plan, lock: &[String]) -> Result<String, serde_yaml::Error> {
    let environment = &plan.environment;
    let emitted = Emitted {
        package: Package {
            name: &plan.package.name,
            version: &plan.package.version,
            epoch: plan.package.epoch,
            common: common(&plan.package),
            copyright: plan
                .package
                .copyright
                .iter()
                .map(|entry| Copyright { attestation: &entry.attestation, license: &entry.license })
                .collect(),
            resources: BTreeMap::new(),
        },
        environment: Environment {
            contents: Contents {
                repositories: &environment.repositories,
                keyring: &environment.keyring,
                packages: lock,
            },
            accounts: Accounts {
                run_as: &environment.run_as,
                users: environment
                    .users
                    .iter()
                    .map(|user| User {
                        username: &user.name,
                        uid: user.uid,
                        gid: user.gid,
                        shell: &user.shell,
                        homedir: &user.home,
                    })
                    .collect(),
                groups: environment
                    .groups
                    .iter()
                    .map(|group| Group { groupname: &group.name, gid: group.gid, members: &group.members })
                    .collect(),
            },
            archs: [plan.arch.oci_name()],
            environment: &environment.variables,
        },
        capabilities: Capabilities { add: &plan.capabilities_add, drop: &plan.capabilities_drop },
        pipeline: &plan.package.pipeline,
        subpackages: plan
            .subpackages
            .iter()
            .map(|sub| Subpackage { name: &sub.name, pipeline: &sub.pipeline, common: common(sub) })
            .collect(),
    };
    serde_yaml::to_string(&emitted)
}

fn common(package: &PlanPackage) -> Common<'_> {
    let options = package.options;
    Common {
        description: &package.description,
        url: &package.url,
        commit: &package.commit,
        dependencies: Dependencies {
            runtime: &package.runtime,
            provides: &package.provides,
            replaces: &package.replaces,
            provider_priority: &package.provider_priority,
            replaces_priority: &package.replaces_priority,
        },
        options: [
            ("no-provides", options.no_provides),
            ("no-depends", options.no_depends),
            ("no-commands", options.no_commands),
            ("no-versioned-shlib-deps", options.no_versioned_shlib_deps),
        ]
        .into_iter()
        .filter(|(_, on)| *on)
        .collect(),
        scriptlets: package
            .scriptlets
            .iter()
            .map(|(name, text)| (name.trim_start_matches('.'), text.as_str()))
            .collect(),
    }
}
