//! The compiled definition as data: `.melange.yaml`, which every package carries, and what people and programs read
//! of a compilation. Keys stand in the order of the schema; values that say nothing are left out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::defaults;
use super::document::{
    self, BuildOption, Checks, Copyright, Cpe, Document, Entrypoint, PathMutation, Resources, SetCap, Text,
    TextMap, Update,
};
use super::plan::{Plan, PlanEnvironment, PlanPackage, PlanStep, PlanTest};
use crate::error::{Error, Result};
use crate::redact::redact;

/// A compiled definition, ready for any serializer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CompiledDefinition<'a> {
    #[serde(skip)]
    timeout: Option<Duration>,
    package: Package<'a>,
    environment: Environment<'a>,
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    capabilities: Capabilities<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipeline: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subpackages: Vec<Subpackage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<&'a Update>,
    #[serde(skip_serializing_if = "is_empty_map")]
    vars: &'a TextMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    var_transforms: Vec<VarTransform<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<&'a str, Options<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Test<'a>>,
}

/// A compiled definition for programs: lists that they walk are always there, and every environment tells its packages
/// in one place.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CompiledObject<'a> {
    package: Package<'a>,
    environment: FlatEnvironment<'a>,
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    capabilities: Capabilities<'a>,
    pipeline: Vec<Step<'a>>,
    subpackages: Vec<SubpackageObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<&'a Update>,
    #[serde(skip_serializing_if = "is_empty_map")]
    vars: &'a TextMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    var_transforms: Vec<VarTransform<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<&'a str, Options<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<TestObject<'a>>,
}

#[derive(Debug, Serialize)]
struct SubpackageObject<'a> {
    name: &'a str,
    pipeline: Vec<Step<'a>>,
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<TestObject<'a>>,
}

#[derive(Debug, Serialize)]
struct TestObject<'a> {
    environment: FlatEnvironment<'a>,
    pipeline: Vec<Step<'a>>,
}

/// An environment with its packages beside its contents.
#[derive(Debug, Serialize)]
struct FlatEnvironment<'a> {
    packages: &'a [String],
    #[serde(flatten)]
    environment: Environment<'a>,
}

impl<'a> From<Environment<'a>> for FlatEnvironment<'a> {
    fn from(environment: Environment<'a>) -> Self {
        Self { packages: environment.contents.packages, environment }
    }
}

impl<'a> From<Test<'a>> for TestObject<'a> {
    fn from(test: Test<'a>) -> Self {
        Self { environment: test.environment.into(), pipeline: test.pipeline }
    }
}

impl<'a> From<CompiledDefinition<'a>> for CompiledObject<'a> {
    fn from(definition: CompiledDefinition<'a>) -> Self {
        let subpackage = |sub: Subpackage<'a>| SubpackageObject {
            name: sub.name,
            pipeline: sub.pipeline,
            common: sub.common,
            test: sub.test.map(TestObject::from),
        };
        let mut package = definition.package;
        if let Some(timeout) = definition.timeout {
            let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            package.timeout = Some(Timeout::Nanoseconds(nanoseconds));
        }
        Self {
            package,
            environment: definition.environment.into(),
            capabilities: definition.capabilities,
            pipeline: definition.pipeline,
            subpackages: definition.subpackages.into_iter().map(subpackage).collect(),
            update: definition.update,
            vars: definition.vars,
            var_transforms: definition.var_transforms,
            options: definition.options,
            test: definition.test.map(TestObject::from),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    epoch: u64,
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    target_architecture: &'a [Text],
    #[serde(skip_serializing_if = "<[Copyright]>::is_empty")]
    copyright: &'a [Copyright],
    #[serde(skip_serializing_if = "is_default")]
    cpe: &'a Cpe,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Timeout>,
    resources: &'a Resources,
    #[serde(skip_serializing_if = "is_default")]
    test_resources: &'a Resources,
}

/// A time as Go writes it: in texts with units, in objects as a number of nanoseconds.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Timeout {
    Text(String),
    Nanoseconds(u64),
}

/// A time such as `1h30m0s`; parts of a second are cut off, as no timeout has any.
fn go_duration(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3_600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[derive(Debug, Serialize)]
struct Subpackage<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipeline: Vec<Step<'a>>,
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Test<'a>>,
}

/// What main packages and subpackages share.
#[derive(Debug, Serialize)]
struct Common<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "is_empty_map")]
    annotations: &'a TextMap,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    commit: &'a str,
    #[serde(skip_serializing_if = "Dependencies::is_empty")]
    dependencies: Dependencies<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<&'static str, bool>,
    #[serde(skip_serializing_if = "Scriptlets::is_empty")]
    scriptlets: Scriptlets<'a>,
    #[serde(skip_serializing_if = "is_default")]
    checks: &'a Checks,
    #[serde(skip_serializing_if = "<[SetCap]>::is_empty")]
    setcap: &'a [SetCap],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Dependencies<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    runtime: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    provides: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    replaces: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    provider_priority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
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

#[derive(Debug, Serialize)]
struct Scriptlets<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<Trigger<'a>>,
    #[serde(flatten)]
    scripts: BTreeMap<&'a str, &'a str>,
}

impl Scriptlets<'_> {
    fn is_empty(&self) -> bool {
        self.trigger.is_none() && self.scripts.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct Trigger<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    script: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    paths: &'a [String],
}

#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
struct Environment<'a> {
    contents: Contents<'a>,
    #[serde(skip_serializing_if = "is_default")]
    entrypoint: &'a Entrypoint,
    #[serde(skip_serializing_if = "str::is_empty")]
    cmd: &'a str,
    #[serde(rename = "stop-signal", skip_serializing_if = "str::is_empty")]
    stop_signal: &'a str,
    #[serde(rename = "work-dir", skip_serializing_if = "str::is_empty")]
    work_dir: &'a str,
    accounts: Accounts<'a>,
    archs: [&'a str; 1],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "<[PathMutation]>::is_empty")]
    paths: &'a [PathMutation],
    #[serde(rename = "vcs-url", skip_serializing_if = "str::is_empty")]
    vcs_url: Cow<'a, str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    include: Cow<'a, str>,
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    volumes: &'a [Text],
}

#[derive(Debug, Serialize)]
struct Contents<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    build_repositories: Vec<Cow<'a, str>>,
    repositories: Vec<Cow<'a, str>>,
    keyring: Vec<Cow<'a, str>>,
    packages: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    baseimage: BTreeMap<&'static str, Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Accounts<'a> {
    run_as: &'a str,
    users: Vec<User<'a>>,
    groups: Vec<Group<'a>>,
}

#[derive(Debug, Serialize)]
struct User<'a> {
    username: &'a str,
    uid: u32,
    gid: u32,
    shell: &'a str,
    homedir: &'a str,
}

#[derive(Debug, Serialize)]
struct Group<'a> {
    groupname: &'a str,
    gid: u32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    members: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Step<'a> {
    #[serde(rename = "if", skip_serializing_if = "str::is_empty")]
    condition: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uses: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    with: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    runs: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipeline: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Needs<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    assertions: Option<Assertions>,
    #[serde(skip_serializing_if = "str::is_empty")]
    working_directory: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Needs<'a> {
    packages: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Assertions {
    required_steps: u64,
}

#[derive(Debug, Serialize)]
struct VarTransform<'a> {
    from: &'a str,
    r#match: &'a str,
    replace: &'a str,
    to: &'a str,
}

/// A build option; its packages lie as deep as they are written.
#[derive(Debug, Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "is_empty_map")]
    vars: &'a TextMap,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<&'static str, BTreeMap<&'static str, OptionPackages<'a>>>,
}

#[derive(Debug, Serialize)]
struct OptionPackages<'a> {
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    add: &'a [Text],
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    remove: &'a [Text],
}

#[derive(Debug, Serialize)]
struct Test<'a> {
    environment: Environment<'a>,
    pipeline: Vec<Step<'a>>,
}

fn is_empty_map(map: &&TextMap) -> bool {
    map.is_empty()
}

fn is_default<T: Default + PartialEq>(value: &&T) -> bool {
    **value == T::default()
}

/// The text of `.melange.yaml`: the compiled definition, with `lock` in place of the requested packages.
///
/// # Errors
/// The YAML writer's, which these types never cause.
pub fn locked_definition(plan: &Plan, lock: &[String]) -> Result<String> {
    written(&view(plan, lock))
}

fn written(value: &impl Serialize) -> Result<String> {
    serde_yaml::to_string(value).map_err(|e| Error::unexpected("cannot write the definition").source(e))
}

/// A compiled definition as YAML.
///
/// # Errors
/// The YAML writer's, which these types never cause.
pub fn yaml(definition: &CompiledDefinition<'_>) -> Result<String> {
    written(definition)
}

/// The compiled definition, with the packages that its environment asks for.
pub fn compiled_definition(plan: &Plan) -> CompiledDefinition<'_> {
    view(plan, &plan.environment.packages)
}

fn view<'a>(plan: &'a Plan, packages: &'a [String]) -> CompiledDefinition<'a> {
    let document = &*plan.document;
    let written: BTreeMap<&str, _> = document
        .subpackages
        .iter()
        .map(|sub| (&*sub.name, (&sub.annotations, &sub.checks, &sub.setcap)))
        .collect();
    let tests: BTreeMap<&str, &PlanTest> =
        plan.tests.iter().map(|test| (test.subject.as_str(), test)).collect();
    let test = |name: &str| tests.get(name).map(|test| self::test(test, plan));
    let package = &document.package;
    CompiledDefinition {
        timeout: package.timeout,
        package: Package {
            name: &plan.package.name,
            version: &plan.package.version,
            epoch: plan.package.epoch,
            common: common(&plan.package, &package.annotations, &package.checks, &package.setcap),
            target_architecture: &package.target_architecture,
            copyright: &package.copyright,
            cpe: &package.cpe,
            timeout: package.timeout.map(|timeout| Timeout::Text(go_duration(timeout))),
            resources: &package.resources,
            test_resources: &package.test_resources,
        },
        environment: environment(&plan.environment, packages, (&document.environment, true), plan),
        capabilities: Capabilities { add: &plan.capabilities_add, drop: &plan.capabilities_drop },
        pipeline: steps(&plan.package.pipeline, true),
        subpackages: plan
            .subpackages
            .iter()
            .filter_map(|sub| {
                let (annotations, checks, setcap) = written.get(sub.name.as_str())?;
                Some(Subpackage {
                    name: &sub.name,
                    pipeline: steps(&sub.pipeline, true),
                    common: common(sub, annotations, checks, setcap),
                    test: test(&sub.name),
                })
            })
            .collect(),
        update: document.update.as_ref(),
        vars: &document.vars,
        var_transforms: document
            .var_transforms
            .iter()
            .map(|entry| VarTransform {
                from: &entry.from,
                r#match: &entry.pattern,
                replace: &entry.replace,
                to: &entry.to,
            })
            .collect(),
        options: document
            .options
            .iter()
            .map(|(name, option)| (name.as_str(), self::option(option)))
            .collect(),
        test: test(&plan.package.name),
    }
}

fn option(option: &BuildOption) -> Options<'_> {
    let packages = OptionPackages { add: &option.add, remove: &option.remove };
    let environment = if option.add.is_empty() && option.remove.is_empty() {
        BTreeMap::new()
    } else {
        BTreeMap::from([("contents", BTreeMap::from([("packages", packages)]))])
    };
    Options { vars: &option.vars, environment }
}

fn test<'a>(test: &'a PlanTest, plan: &'a Plan) -> Test<'a> {
    Test {
        environment: environment(
            &test.environment,
            &test.environment.packages,
            (written_for(test, &plan.document), false),
            plan,
        ),
        pipeline: steps(&test.pipeline, true),
    }
}

/// What a definition says of the environment of a test.
fn written_for<'a>(test: &PlanTest, document: &'a Document) -> &'a document::Environment {
    let own = document.subpackages.iter().find(|sub| *sub.name == test.subject);
    let test = own.map_or(document.test.as_ref(), |sub| sub.test.as_ref());
    test.map_or(&document.environment, |test| &test.environment)
}

/// An environment as it is planned and as it is written, which tells whether variables that it has by itself are shown.
fn environment<'a>(
    environment: &'a PlanEnvironment,
    packages: &'a [String],
    (written, with_defaults): (&'a document::Environment, bool),
    plan: &Plan,
) -> Environment<'a> {
    // The record goes into every package.
    let lines = |lines: &'a [String]| lines.iter().map(|line| redact(line)).collect();
    let (own, others) = environment
        .repositories
        .split_at_checked(written.contents.build_repositories.len())
        .unwrap_or((&[], &environment.repositories));
    let variables = environment.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let shown = variables.filter(|(name, value)| with_defaults || !defaults::is_variable(name, value));
    let image = &written.image;
    Environment {
        entrypoint: &image.entrypoint,
        cmd: &image.cmd,
        stop_signal: &image.stop_signal,
        work_dir: &image.work_dir,
        paths: &written.paths,
        vcs_url: redact(&image.vcs_url),
        annotations: image.annotations.iter().map(|(name, value)| (name.as_str(), redact(value))).collect(),
        include: redact(&image.include),
        volumes: &image.volumes,
        contents: Contents {
            build_repositories: lines(own),
            repositories: lines(others),
            baseimage: [
                ("image", &written.contents.baseimage.image),
                ("apkindex", &written.contents.baseimage.apkindex),
            ]
            .into_iter()
            .filter(|(_, place)| !place.is_empty())
            .map(|(name, place)| (name, redact(place)))
            .collect(),
            keyring: environment.keyring.iter().map(|line| redact(line)).collect(),
            packages,
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
        environment: shown.collect(),
    }
}

/// Needs of outermost steps are part of the environment by now and left out, as melange does.
fn steps(steps: &[PlanStep], outermost: bool) -> Vec<Step<'_>> {
    let needs = |step: &PlanStep| !outermost && !step.needs.is_empty();
    steps
        .iter()
        .map(|step| Step {
            condition: &step.condition,
            name: &step.name,
            uses: &step.uses,
            with: &step.with,
            runs: &step.runs,
            pipeline: self::steps(&step.pipeline, false),
            needs: needs(step).then_some(Needs { packages: &step.needs }),
            label: &step.label,
            assertions: step.required_steps.map(|required_steps| Assertions { required_steps }),
            working_directory: &step.working_directory,
            environment: &step.environment,
        })
        .collect()
}

fn common<'a>(
    package: &'a PlanPackage,
    annotations: &'a TextMap,
    checks: &'a Checks,
    setcap: &'a [SetCap],
) -> Common<'a> {
    let options = package.options;
    let trigger = package.scriptlets.get(".trigger").map_or("", String::as_str);
    Common {
        description: &package.description,
        annotations,
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
        scriptlets: Scriptlets {
            trigger: (!trigger.is_empty() || !package.trigger_paths.is_empty())
                .then_some(Trigger { script: trigger, paths: &package.trigger_paths }),
            scripts: package
                .scriptlets
                .iter()
                .filter(|(name, _)| **name != ".trigger")
                .map(|(name, text)| (name.trim_start_matches('.'), text.as_str()))
                .collect(),
        },
        checks,
        setcap,
    }
}
