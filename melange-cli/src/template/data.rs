//! A definition as the values that templates see: the fields that Go's structures have for melange, under their names
//! and in their order, whether the definition sets them or not.

use std::collections::BTreeMap;
use std::rc::Rc;

use melange_remote_sdk::analysis::sbom::license_expression;
use melange_remote_sdk::melange::document::{
    Checks, Copyright, Cpe, Dependencies, Document, Environment, Package, PackageOptions, Resources,
    Scriptlets, SetCap, Step, Subpackage, Test, Text, TextMap, Update,
};
use melange_remote_sdk::melange::plan::Plan;
use serde_json::Value as Json;

use super::Value;

type Fields = Vec<(&'static str, Value)>;

fn structure(name: &'static str, fields: Fields) -> Value {
    Value::Struct(name, Rc::new(fields))
}

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(Rc::new(items.into_iter().collect()))
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn texts(texts: &[Text]) -> Value {
    list(texts.iter().map(|text| Value::text(text)))
}

fn map(map: &TextMap) -> Value {
    Value::Map(Rc::new(map.iter().map(|(name, value)| (name.clone(), Value::text(value))).collect()))
}

fn number(number: impl TryInto<i64>) -> Value {
    Value::Number(number.try_into().unwrap_or(i64::MAX))
}

/// What a plan's definition says, before its pipelines are looked up.
pub(crate) fn of(plan: &Plan) -> Value {
    let document: &Document = &plan.document;
    let options = document.options.iter().map(|(name, option)| {
        let contents = structure(
            "config.ContentsOption",
            vec![(
                "Packages",
                structure(
                    "config.ListOption",
                    vec![("Add", texts(&option.add)), ("Remove", texts(&option.remove))],
                ),
            )],
        );
        let environment = structure("config.EnvironmentOption", vec![("Contents", contents)]);
        (
            name.clone(),
            structure("config.BuildOption", vec![("Vars", map(&option.vars)), ("Environment", environment)]),
        )
    });
    structure(
        "config.Configuration",
        vec![
            ("Package", structure("config.Package", package(&document.package))),
            ("Environment", environment(&document.environment)),
            (
                "Capabilities",
                structure(
                    "config.Capabilities",
                    vec![
                        ("Add", texts(&document.capabilities.add)),
                        ("Drop", texts(&document.capabilities.drop)),
                    ],
                ),
            ),
            ("Pipeline", list(document.pipeline.iter().map(step))),
            ("Subpackages", list(document.subpackages.iter().map(subpackage))),
            (
                "Data",
                list(document.data.iter().map(|data| {
                    structure(
                        "config.RangeData",
                        vec![("Name", text(&data.name)), ("Items", map(&data.items))],
                    )
                })),
            ),
            ("Update", update(document.update.as_ref())),
            ("Vars", map(&document.vars)),
            (
                "VarTransforms",
                list(document.var_transforms.iter().map(|entry| {
                    structure(
                        "config.VarTransforms",
                        vec![
                            ("From", text(&entry.from)),
                            ("Match", text(&entry.pattern)),
                            ("Replace", text(&entry.replace)),
                            ("To", text(&entry.to)),
                        ],
                    )
                })),
            ),
            ("Options", Value::Map(Rc::new(options.collect::<BTreeMap<_, _>>()))),
            ("Test", document.test.as_ref().map_or(Value::Nil, test)),
        ],
    )
}

/// What Go's methods without arguments tell of a structure.
pub(super) fn method(of: &str, fields: &[(&'static str, Value)], name: &str) -> Option<Value> {
    let field = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    match (of, super::eval::plain(name).as_str()) {
        ("config.Configuration", "name") => within(field("Package")?, "Name"),
        ("config.Configuration", "allpackagenames") => {
            let Value::List(subpackages) = field("Subpackages")? else { return None };
            let main = within(field("Package")?, "Name");
            Some(list(main.into_iter().chain(subpackages.iter().filter_map(|sub| within(sub, "Name")))))
        }
        ("config.Package", "fullversion") => {
            let (Value::Text(version), Value::Number(epoch)) = (field("Version")?, field("Epoch")?) else {
                return None;
            };
            Some(text(&format!("{version}-r{epoch}")))
        }
        ("config.Package", "licenseexpression") => {
            let Value::List(entries) = field("Copyright")? else { return None };
            let licences: Vec<Value> = entries.iter().filter_map(|entry| within(entry, "License")).collect();
            let texts = licences.iter().filter_map(|licence| match licence {
                Value::Text(text) => Some(&**text),
                _ => None,
            });
            Some(text(&license_expression(texts)))
        }
        ("config.Package", "cpestring") => {
            let cpe = field("CPE")?;
            let or_any = |name: &str, any: &str| match within(cpe, name) {
                Some(Value::Text(value)) if !value.is_empty() => value.to_string(),
                _ => any.to_owned(),
            };
            let Value::Text(version) = field("Version")? else { return None };
            let more = ["Edition", "Language", "SWEdition", "TargetSW", "TargetHW", "Other"];
            let more = more.map(|name| or_any(name, "*")).join(":");
            let (part, vendor, product) =
                (or_any("Part", "a"), or_any("Vendor", "*"), or_any("Product", "*"));
            Some(text(&format!("cpe:2.3:{part}:{vendor}:{product}:{version}:*:{more}")))
        }
        ("config.Package", "fullcopyright") => {
            let Value::List(entries) = field("Copyright")? else { return None };
            let mut statements = String::new();
            for entry in entries.iter() {
                if let Some(Value::Text(statement)) = within(entry, "Attestation")
                    && !statement.is_empty()
                {
                    statements.push_str(&statement);
                    statements.push('\n');
                }
            }
            Some(text(if statements.is_empty() { "NOASSERTION" } else { &statements }))
        }
        _ => None,
    }
}

fn within(value: &Value, name: &str) -> Option<Value> {
    let Value::Struct(_, fields) = value else { return None };
    fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
}

fn package(package: &Package) -> Fields {
    let timeout = package.timeout.map_or_else(|| "0s".to_owned(), |timeout| go_duration(timeout.as_secs()));
    vec![
        ("Name", text(&package.name)),
        ("Version", text(&package.version)),
        ("Epoch", number(package.epoch)),
        ("Description", text(&package.description)),
        ("Annotations", map(&package.annotations)),
        ("URL", text(&package.url)),
        ("Commit", text(&package.commit)),
        ("TargetArchitecture", texts(&package.target_architecture)),
        ("Copyright", list(package.copyright.iter().map(copyright))),
        ("Dependencies", dependencies(&package.dependencies)),
        ("Options", options(package.options)),
        ("Scriptlets", scriptlets(&package.scriptlets)),
        ("Checks", checks(&package.checks)),
        ("CPE", cpe(&package.cpe)),
        ("SetCap", list(package.setcap.iter().map(setcap))),
        ("Timeout", text(&timeout)),
        ("Resources", resources(&package.resources)),
        ("TestResources", resources(&package.test_resources)),
    ]
}

/// A duration as Go prints it.
fn go_duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn subpackage(sub: &Subpackage) -> Value {
    structure(
        "config.Subpackage",
        vec![
            ("If", text(&sub.condition)),
            ("Range", text(&sub.range)),
            ("Name", text(&sub.name)),
            ("Pipeline", list(sub.pipeline.iter().map(step))),
            ("Dependencies", dependencies(&sub.dependencies)),
            ("Options", options(sub.options)),
            ("Scriptlets", scriptlets(&sub.scriptlets)),
            ("Description", text(&sub.description)),
            ("Annotations", map(&sub.annotations)),
            ("URL", text(&sub.url)),
            ("Commit", text(&sub.commit)),
            ("Checks", checks(&sub.checks)),
            ("Test", sub.test.as_ref().map_or(Value::Nil, test)),
            ("SetCap", list(sub.setcap.iter().map(setcap))),
        ],
    )
}

fn copyright(entry: &Copyright) -> Value {
    structure(
        "config.Copyright",
        vec![
            ("Paths", texts(&entry.paths)),
            ("Attestation", text(&entry.attestation)),
            ("License", text(&entry.license)),
            ("LicensePath", text(&entry.license_path)),
            ("DetectionOverride", text(&entry.detection_override)),
        ],
    )
}

fn dependencies(lists: &Dependencies) -> Value {
    structure(
        "config.Dependencies",
        vec![
            ("Runtime", texts(&lists.runtime)),
            ("Provides", texts(&lists.provides)),
            ("Replaces", texts(&lists.replaces)),
            ("ProviderPriority", text(&lists.provider_priority)),
            ("ReplacesPriority", text(&lists.replaces_priority)),
            ("Vendored", list([])),
        ],
    )
}

fn options(options: PackageOptions) -> Value {
    if options == PackageOptions::default() {
        return Value::Nil;
    }
    structure(
        "config.PackageOption",
        vec![
            ("NoProvides", Value::Bool(options.no_provides)),
            ("NoDepends", Value::Bool(options.no_depends)),
            ("NoCommands", Value::Bool(options.no_commands)),
            ("NoVersionedShlibDeps", Value::Bool(options.no_versioned_shlib_deps)),
        ],
    )
}

fn scriptlets(scriptlets: &Scriptlets) -> Value {
    let scripts = [
        ("PreInstall", &scriptlets.pre_install),
        ("PostInstall", &scriptlets.post_install),
        ("PreDeinstall", &scriptlets.pre_deinstall),
        ("PostDeinstall", &scriptlets.post_deinstall),
        ("PreUpgrade", &scriptlets.pre_upgrade),
        ("PostUpgrade", &scriptlets.post_upgrade),
    ];
    if scripts.iter().all(|(_, script)| script.is_empty())
        && scriptlets.trigger_script.is_empty()
        && scriptlets.trigger_paths.is_empty()
    {
        return Value::Nil;
    }
    let trigger = structure(
        "config.Trigger",
        vec![("Script", text(&scriptlets.trigger_script)), ("Paths", texts(&scriptlets.trigger_paths))],
    );
    let all = std::iter::once(("Trigger", trigger));
    structure("config.Scriptlets", all.chain(scripts.map(|(name, script)| (name, text(script)))).collect())
}

fn checks(checks: &Checks) -> Value {
    structure("config.Checks", vec![("Disabled", texts(&checks.disabled))])
}

fn cpe(cpe: &Cpe) -> Value {
    structure(
        "config.CPE",
        vec![
            ("Part", text(&cpe.part)),
            ("Vendor", text(&cpe.vendor)),
            ("Product", text(&cpe.product)),
            ("Edition", text(&cpe.edition)),
            ("Language", text(&cpe.language)),
            ("SWEdition", text(&cpe.sw_edition)),
            ("TargetSW", text(&cpe.target_sw)),
            ("TargetHW", text(&cpe.target_hw)),
            ("Other", text(&cpe.other)),
        ],
    )
}

fn setcap(setcap: &SetCap) -> Value {
    structure(
        "config.Capability",
        vec![("Path", text(&setcap.path)), ("Add", map(&setcap.add)), ("Reason", text(&setcap.reason))],
    )
}

fn resources(resources: &Resources) -> Value {
    let fields = [
        ("CPU", &resources.cpu),
        ("CPUModel", &resources.cpumodel),
        ("Memory", &resources.memory),
        ("Disk", &resources.disk),
    ];
    if fields.iter().all(|(_, value)| value.is_empty()) {
        return Value::Nil;
    }
    structure("config.Resources", fields.map(|(name, value)| (name, text(value))).to_vec())
}

fn step(of: &Step) -> Value {
    let needs = of
        .needs
        .as_ref()
        .map_or(Value::Nil, |needs| structure("config.Needs", vec![("Packages", texts(needs))]));
    let assertions = of.required_steps.map_or(Value::Nil, |steps| {
        structure("config.PipelineAssertions", vec![("RequiredSteps", number(steps))])
    });
    let inputs = of.inputs.iter().map(|(name, input)| {
        let fields = vec![
            ("Description", text(&input.description)),
            ("Default", text(&input.default)),
            ("Required", Value::Bool(input.required)),
        ];
        (name.clone(), structure("config.Input", fields))
    });
    structure(
        "config.Pipeline",
        vec![
            ("If", text(&of.condition)),
            ("Name", text(&of.name)),
            ("Uses", text(&of.uses)),
            ("With", map(&of.with)),
            ("Runs", text(&of.runs)),
            ("Pipeline", list(of.pipeline.iter().flatten().map(step))),
            ("Inputs", Value::Map(Rc::new(inputs.collect::<BTreeMap<_, _>>()))),
            ("Needs", needs),
            ("Label", text(&of.label)),
            ("Assertions", assertions),
            ("WorkDir", text(&of.working_directory)),
            ("Environment", map(&of.environment)),
        ],
    )
}

fn test(test: &Test) -> Value {
    structure(
        "config.Test",
        vec![
            ("Environment", environment(&test.environment)),
            ("Pipeline", list(test.pipeline.iter().map(step))),
        ],
    )
}

fn environment(of: &Environment) -> Value {
    let contents = structure(
        "types.ImageContents",
        vec![
            ("BuildRepositories", texts(&of.contents.build_repositories)),
            ("RuntimeOnlyRepositories", list([])),
            ("Repositories", texts(&of.contents.repositories)),
            ("Keyring", texts(&of.contents.keyring)),
            ("RuntimeKeyring", list([])),
            ("Packages", texts(&of.contents.packages)),
            ("BaseImage", Value::Nil),
        ],
    );
    let users = of.accounts.users.iter().map(|user| {
        structure(
            "types.User",
            vec![
                ("UserName", text(&user.username)),
                ("UID", number(user.uid)),
                ("GID", number(user.gid.unwrap_or(user.uid))),
                ("Shell", text(&user.shell)),
                ("HomeDir", text(&user.homedir)),
            ],
        )
    });
    let groups = of.accounts.groups.iter().map(|group| {
        let fields = vec![
            ("GroupName", text(&group.groupname)),
            ("GID", number(group.gid)),
            ("Members", texts(&group.members)),
        ];
        structure("types.Group", fields)
    });
    let accounts = structure(
        "types.ImageAccounts",
        vec![("RunAs", text(&of.accounts.run_as)), ("Users", list(users)), ("Groups", list(groups))],
    );
    let entrypoint = structure(
        "types.ImageEntrypoint",
        vec![
            ("Type", text(&of.image.entrypoint.kind)),
            ("Command", text(&of.image.entrypoint.command)),
            ("ShellFragment", text(&of.image.entrypoint.shell_fragment)),
            ("Services", map(&of.image.entrypoint.services)),
        ],
    );
    structure(
        "types.ImageConfiguration",
        vec![
            ("Contents", contents),
            ("Entrypoint", entrypoint),
            ("Cmd", text(&of.image.cmd)),
            ("StopSignal", text(&of.image.stop_signal)),
            ("WorkDir", text(&of.image.work_dir)),
            ("Accounts", accounts),
            ("Archs", texts(&of.image.archs)),
            ("Environment", map(&of.environment)),
            ("Paths", list(of.paths.iter().map(path))),
            ("VCSUrl", text(&of.image.vcs_url)),
            ("Annotations", map(&of.image.annotations)),
            ("Include", text(&of.image.include)),
            ("Volumes", texts(&of.image.volumes)),
            ("Layering", Value::Nil),
            ("Format", text("")),
            ("Certificates", Value::Nil),
        ],
    )
}

fn path(of: &melange_remote_sdk::melange::document::PathMutation) -> Value {
    structure(
        "types.PathMutation",
        vec![
            ("Path", text(&of.path)),
            ("Type", text(&of.kind)),
            ("UID", number(of.uid.unwrap_or_default())),
            ("GID", number(of.gid.unwrap_or_default())),
            ("Permissions", number(of.permissions)),
            ("Source", text(&of.source)),
            ("Recursive", Value::Bool(of.recursive)),
        ],
    )
}

/// What `update` says. Each field has its name of Go, the name it is written with, and what it is without a word.
fn update(update: Option<&Update>) -> Value {
    let json = update.and_then(|update| serde_json::to_value(update).ok()).unwrap_or_default();
    typed("config.Update", &json)
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Number,
    Texts,
    Part(&'static str),
    Parts(&'static str),
}

type Layout = &'static [(&'static str, &'static str, Kind)];

const MONITOR: Layout = &[
    ("StripPrefix", "strip-prefix", Kind::Text),
    ("StripSuffix", "strip-suffix", Kind::Text),
    ("TagFilterPrefix", "tag-filter-prefix", Kind::Text),
    ("TagFilterContains", "tag-filter-contains", Kind::Text),
];

const OCI_MONITOR: Layout = &[
    ("Identifier", "identifier", Kind::Text),
    ("StripPrefix", "strip-prefix", Kind::Text),
    ("StripSuffix", "strip-suffix", Kind::Text),
    ("TagFilterPrefix", "tag-filter-prefix", Kind::Text),
    ("TagFilterContains", "tag-filter-contains", Kind::Text),
];

fn layout(name: &str) -> Layout {
    match name {
        "config.Update" => &[
            ("Enabled", "enabled", Kind::Flag),
            ("Manual", "manual", Kind::Flag),
            ("RequireSequential", "require-sequential", Kind::Flag),
            ("Shared", "shared", Kind::Flag),
            ("VersionSeparator", "version-separator", Kind::Text),
            ("IgnoreRegexPatterns", "ignore-regex-patterns", Kind::Texts),
            ("ReleaseMonitor", "release-monitor", Kind::Part("config.ReleaseMonitor")),
            ("GitHubMonitor", "github", Kind::Part("config.GitHubMonitor")),
            ("GitMonitor", "git", Kind::Part("config.GitMonitor")),
            ("OCIMonitor", "oci", Kind::Part("config.OCIMonitor")),
            ("VersionDataMonitor", "version_data", Kind::Part("config.VersionDataMonitor")),
            ("VersionTransform", "version-transform", Kind::Parts("config.VersionTransform")),
            ("ExcludeReason", "exclude-reason", Kind::Text),
            ("Schedule", "schedule", Kind::Part("config.Schedule")),
            ("EnablePreReleaseTags", "enable-prerelease-tags", Kind::Flag),
        ],
        "config.ReleaseMonitor" => &[
            ("Identifier", "identifier", Kind::Number),
            ("StripPrefix", "strip-prefix", Kind::Text),
            ("StripSuffix", "strip-suffix", Kind::Text),
            ("VersionFilterContains", "version-filter-contains", Kind::Text),
            ("VersionFilterPrefix", "version-filter-prefix", Kind::Text),
        ],
        "config.GitHubMonitor" => &[
            ("Identifier", "identifier", Kind::Text),
            ("StripPrefix", "strip-prefix", Kind::Text),
            ("StripSuffix", "strip-suffix", Kind::Text),
            ("TagFilter", "tag-filter", Kind::Text),
            ("TagFilterPrefix", "tag-filter-prefix", Kind::Text),
            ("TagFilterContains", "tag-filter-contains", Kind::Text),
            ("UseTags", "use-tag", Kind::Flag),
        ],
        "config.GitMonitor" => MONITOR,
        "config.OCIMonitor" => OCI_MONITOR,
        "config.VersionDataMonitor" => &[
            ("Format", "version_format", Kind::Text),
            ("Sources", "sources", Kind::Parts("config.VersionDataSource")),
        ],
        "config.VersionDataSource" => &[
            ("Name", "name", Kind::Text),
            ("Stream", "stream", Kind::Text),
            ("Ignore", "ignore", Kind::Texts),
            ("CommitSource", "commit_source", Kind::Text),
            ("UseRelease", "use_release", Kind::Flag),
        ],
        "config.VersionTransform" => &[("Match", "match", Kind::Text), ("Replace", "replace", Kind::Text)],
        _ => &[("Reason", "reason", Kind::Text), ("Period", "period", Kind::Text)],
    }
}

fn typed(name: &'static str, json: &Json) -> Value {
    let fields = layout(name).iter().map(|(field, key, kind)| {
        let json = json.get(key).unwrap_or(&Json::Null);
        let value = match kind {
            Kind::Text => text(json.as_str().unwrap_or_default()),
            Kind::Flag => Value::Bool(json.as_bool().unwrap_or_default()),
            Kind::Number => number(json.as_u64().unwrap_or_default()),
            Kind::Texts => list(json.as_array().into_iter().flatten().filter_map(Json::as_str).map(text)),
            Kind::Part(_) if json.is_null() => Value::Nil,
            Kind::Part(part) => typed(part, json),
            Kind::Parts(part) => list(json.as_array().into_iter().flatten().map(|item| typed(part, item))),
        };
        (*field, value)
    });
    structure(name, fields.collect())
}
