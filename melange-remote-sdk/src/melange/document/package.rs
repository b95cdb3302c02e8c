//! The `package` section and what subpackages share with it.

use std::time::Duration;

use serde::Serialize;

use super::decode::Decoder;
use super::{Text, TextMap};
use crate::text::diagnostics::Position;
use crate::text::yaml::Node;

/// The main package.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Package {
    /// Where it begins.
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub at: Position,
    /// Its name.
    pub name: Text,
    /// Its version without the epoch.
    pub version: Text,
    /// Rebuilds of one version.
    pub epoch: u64,
    /// One line about it.
    pub description: Text,
    /// Its home page.
    pub url: Text,
    /// The commit of the definition.
    pub commit: Text,
    /// Free annotations, not emitted.
    pub annotations: TextMap,
    /// Architectures it is built for; empty means all.
    pub target_architecture: Vec<Text>,
    /// Licences.
    pub copyright: Vec<Copyright>,
    /// What it needs and provides.
    pub dependencies: Dependencies,
    /// Options of the dependency generator.
    pub options: PackageOptions,
    /// Scripts run at installation.
    pub scriptlets: Scriptlets,
    /// Linters switched off.
    pub checks: Checks,
    /// The name in vulnerability databases.
    pub cpe: Cpe,
    /// File capabilities.
    pub setcap: Vec<SetCap>,
    /// Deadline of the whole build.
    #[cfg_attr(feature = "schema", schemars(with = "Text"))]
    pub timeout: Option<Duration>,
    /// Hints for the machine that builds.
    pub resources: Resources,
    /// Hints for the machine that tests.
    pub test_resources: Resources,
}

/// One licence.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Copyright {
    /// Files it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Text>,
    /// The holder's statement.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub attestation: Text,
    /// An SPDX expression.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub license: Text,
    /// A file with the licence's text.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub license_path: Text,
    /// The licence that a detector should find.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detection_override: Text,
}

/// Dependencies, provides, replaces and their priorities.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Dependencies {
    /// Needed at run time; `!name` is a conflict.
    pub runtime: Vec<Text>,
    /// Names it provides.
    pub provides: Vec<Text>,
    /// Packages whose files it may overwrite.
    pub replaces: Vec<Text>,
    /// Preference among providers of a name, an integer in text.
    pub provider_priority: Text,
    /// Preference among replacing packages, an integer in text.
    pub replaces_priority: Text,
}

/// Switches of the dependency generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct PackageOptions {
    /// No generated provides.
    pub no_provides: bool,
    /// No generated dependencies.
    pub no_depends: bool,
    /// No `cmd:` provides.
    pub no_commands: bool,
    /// No versions on shared library dependencies.
    pub no_versioned_shlib_deps: bool,
}

/// Scripts that the installer runs.
#[derive(Debug, Clone, Default)]
pub struct Scriptlets {
    /// The trigger's script.
    pub trigger_script: Text,
    /// Paths that fire the trigger.
    pub trigger_paths: Vec<Text>,
    /// Before installation.
    pub pre_install: Text,
    /// After installation.
    pub post_install: Text,
    /// Before removal.
    pub pre_deinstall: Text,
    /// After removal.
    pub post_deinstall: Text,
    /// Before an upgrade.
    pub pre_upgrade: Text,
    /// After an upgrade.
    pub post_upgrade: Text,
}

impl Scriptlets {
    /// All scripts, also those that are empty.
    pub(crate) fn scripts(&self) -> [&Text; 7] {
        [
            &self.trigger_script,
            &self.pre_install,
            &self.post_install,
            &self.pre_deinstall,
            &self.post_deinstall,
            &self.pre_upgrade,
            &self.post_upgrade,
        ]
    }

    /// The same, to change them.
    pub(crate) fn scripts_mut(&mut self) -> [&mut Text; 7] {
        [
            &mut self.trigger_script,
            &mut self.pre_install,
            &mut self.post_install,
            &mut self.pre_deinstall,
            &mut self.post_deinstall,
            &mut self.pre_upgrade,
            &mut self.post_upgrade,
        ]
    }
}

/// Linters switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Checks {
    /// Their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<Text>,
}

/// The parts of a CPE 2.3 name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Cpe {
    /// `a` or `o`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub part: Text,
    /// The vendor.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub vendor: Text,
    /// The product.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub product: Text,
    /// The edition.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub edition: Text,
    /// The language.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub language: Text,
    /// The software edition.
    #[serde(rename = "sw_edition", skip_serializing_if = "str::is_empty")]
    pub sw_edition: Text,
    /// The target software.
    #[serde(rename = "target_sw", skip_serializing_if = "str::is_empty")]
    pub target_sw: Text,
    /// The target hardware.
    #[serde(rename = "target_hw", skip_serializing_if = "str::is_empty")]
    pub target_hw: Text,
    /// Anything else.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub other: Text,
}

/// File capabilities of one path.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct SetCap {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// The file, relative to the package's root.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: Text,
    /// Capability lists to flags, such as `cap_net_raw: +ep`.
    #[serde(skip_serializing_if = "TextMap::is_empty")]
    pub add: TextMap,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: Text,
}

/// Hints for the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Resources {
    /// Cores.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cpu: Text,
    /// Model.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cpumodel: Text,
    /// Memory.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub memory: Text,
    /// Disk.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub disk: Text,
}

impl Decoder<'_> {
    pub(super) fn package(&mut self, node: &Node) -> Package {
        let mut fields = self.fields(node, "`package`");
        let package = Package {
            at: node.at,
            name: self.text(fields.get("name")),
            version: self.text(fields.get("version")),
            epoch: self.integer(fields.get("epoch")).unwrap_or_default(),
            description: self.text(fields.get("description")),
            url: self.text(fields.get("url")),
            commit: self.text(fields.get("commit")),
            annotations: self.text_map(fields.get("annotations")),
            target_architecture: self.texts(fields.get("target-architecture")),
            copyright: self.list(fields.get("copyright"), Self::copyright),
            dependencies: self.dependencies(fields.get("dependencies")),
            options: self.package_options(fields.get("options")),
            scriptlets: self.scriptlets(fields.get("scriptlets")),
            checks: self.checks(fields.get("checks")),
            cpe: self.cpe(fields.get("cpe")),
            setcap: self.list(fields.get("setcap"), Self::setcap),
            timeout: self.duration(fields.get("timeout")),
            resources: self.resources(fields.get("resources")),
            test_resources: self.resources(fields.get("test-resources")),
        };
        self.refuse_unknown(&fields);
        package
    }

    fn copyright(&mut self, node: &Node) -> Copyright {
        let mut fields = self.fields(node, "an entry of `copyright`");
        let copyright = Copyright {
            paths: self.texts(fields.get("paths")),
            attestation: self.text(fields.get("attestation")),
            license: self.text(fields.get("license")),
            license_path: self.text(fields.get("license-path")),
            detection_override: self.text(fields.get("detection-override")),
        };
        self.refuse_unknown(&fields);
        copyright
    }

    pub(super) fn dependencies(&mut self, node: Option<&Node>) -> Dependencies {
        let Some(node) = node else { return Dependencies::default() };
        let mut fields = self.fields(node, "`dependencies`");
        let dependencies = Dependencies {
            runtime: self.texts(fields.get("runtime")),
            provides: self.texts(fields.get("provides")),
            replaces: self.texts(fields.get("replaces")),
            provider_priority: self.text(fields.get("provider-priority")),
            replaces_priority: self.text(fields.get("replaces-priority")),
        };
        self.refuse_unknown(&fields);
        dependencies
    }

    pub(super) fn package_options(&mut self, node: Option<&Node>) -> PackageOptions {
        let Some(node) = node else { return PackageOptions::default() };
        let mut fields = self.fields(node, "`options` of a package");
        let options = PackageOptions {
            no_provides: self.boolean(fields.get("no-provides")),
            no_depends: self.boolean(fields.get("no-depends")),
            no_commands: self.boolean(fields.get("no-commands")),
            no_versioned_shlib_deps: self.boolean(fields.get("no-versioned-shlib-deps")),
        };
        self.refuse_unknown(&fields);
        options
    }

    pub(super) fn scriptlets(&mut self, node: Option<&Node>) -> Scriptlets {
        let Some(node) = node else { return Scriptlets::default() };
        let mut fields = self.fields(node, "`scriptlets`");
        let mut scriptlets = Scriptlets {
            pre_install: self.text(fields.get("pre-install")),
            post_install: self.text(fields.get("post-install")),
            pre_deinstall: self.text(fields.get("pre-deinstall")),
            post_deinstall: self.text(fields.get("post-deinstall")),
            pre_upgrade: self.text(fields.get("pre-upgrade")),
            post_upgrade: self.text(fields.get("post-upgrade")),
            ..Scriptlets::default()
        };
        if let Some(trigger) = fields.get("trigger") {
            let mut inner = self.fields(trigger, "`trigger`");
            scriptlets.trigger_script = self.text(inner.get("script"));
            scriptlets.trigger_paths = self.texts(inner.get("paths"));
            self.refuse_unknown(&inner);
        }
        self.refuse_unknown(&fields);
        scriptlets
    }

    pub(super) fn checks(&mut self, node: Option<&Node>) -> Checks {
        let Some(node) = node else { return Checks::default() };
        let mut fields = self.fields(node, "`checks`");
        let checks = Checks { disabled: self.texts(fields.get("disabled")) };
        self.refuse_unknown(&fields);
        checks
    }

    fn cpe(&mut self, node: Option<&Node>) -> Cpe {
        let Some(node) = node else { return Cpe::default() };
        let mut fields = self.fields(node, "`cpe`");
        let cpe = Cpe {
            part: self.text(fields.get("part")),
            vendor: self.text(fields.get("vendor")),
            product: self.text(fields.get("product")),
            edition: self.text(fields.get("edition")),
            language: self.text(fields.get("language")),
            sw_edition: self.text(fields.get("sw_edition")),
            target_sw: self.text(fields.get("target_sw")),
            target_hw: self.text(fields.get("target_hw")),
            other: self.text(fields.get("other")),
        };
        self.refuse_unknown(&fields);
        cpe
    }

    pub(super) fn setcap(&mut self, node: &Node) -> SetCap {
        let mut fields = self.fields(node, "an entry of `setcap`");
        let setcap = SetCap {
            at: node.at,
            path: self.text(fields.get("path")),
            add: self.text_map(fields.get("add")),
            reason: self.text(fields.get("reason")),
        };
        self.refuse_unknown(&fields);
        setcap
    }

    fn resources(&mut self, node: Option<&Node>) -> Resources {
        let Some(node) = node else { return Resources::default() };
        let mut fields = self.fields(node, "`resources`");
        let resources = Resources {
            cpu: self.text(fields.get("cpu")),
            cpumodel: self.text(fields.get("cpumodel")),
            memory: self.text(fields.get("memory")),
            disk: self.text(fields.get("disk")),
        };
        self.refuse_unknown(&fields);
        resources
    }
}
