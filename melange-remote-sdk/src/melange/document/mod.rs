//! A definition as written: every field of melange's schema, strict about unknown ones, every text with its
//! place. Variables and conditions are still in it; [`super::compile`] makes them concrete.
//!
//! Field tables: `engine-spec` of the format, section 1 of melange's configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};
use crate::text::yaml::{self, Node};

mod decode;
mod environment;
mod package;
#[cfg(feature = "schema")]
pub mod schema;
mod step;
mod text;
mod update;

use decode::Decoder;

pub use environment::{
    Accounts, BaseImage, Contents, Entrypoint, Environment, Group, Image, PathMutation, User,
};
pub use package::{
    Checks, Copyright, Cpe, Dependencies, Package, PackageOptions, Resources, Scriptlets, SetCap,
};
pub use step::{Input, Step};
pub use text::Text;
pub use update::{
    GitMonitor, GithubMonitor, OciMonitor, ReleaseMonitor, Schedule, Update, VersionData, VersionSource,
    VersionTransform,
};

/// A map of texts, sorted by key.
pub type TextMap = BTreeMap<String, Text>;

/// For serde: leaves out a switch that is off.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A whole definition.
#[derive(Debug, Clone)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Document {
    /// The text it was read from.
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub source: Arc<Source>,
    /// The main package.
    pub package: Package,
    /// The build environment.
    pub environment: Environment,
    /// Capabilities of the sandbox.
    pub capabilities: Capabilities,
    /// The steps of the main package.
    pub pipeline: Vec<Step>,
    /// Subpackages, ranges not yet expanded.
    pub subpackages: Vec<Subpackage>,
    /// Sources of ranges.
    pub data: Vec<RangeData>,
    /// Metadata for update bots.
    pub update: Option<Update>,
    /// Variables.
    pub vars: TextMap,
    /// Variables derived from others, in order.
    pub var_transforms: Vec<VarTransform>,
    /// Build options by name.
    pub options: BTreeMap<String, BuildOption>,
    /// The test of the main package.
    pub test: Option<Test>,
}

/// Capabilities added to and dropped from the sandbox's default set.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Capabilities {
    /// Added, such as `CAP_SYS_ADMIN`.
    pub add: Vec<Text>,
    /// Dropped.
    pub drop: Vec<Text>,
}

/// A subpackage.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Subpackage {
    /// Where it begins.
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub at: Position,
    /// The condition under which it exists.
    #[cfg_attr(feature = "schema", schemars(rename = "if"))]
    pub condition: Text,
    /// The name of the range that multiplies it.
    pub range: Text,
    /// Its name.
    pub name: Text,
    /// Its steps.
    pub pipeline: Vec<Step>,
    /// What it needs and provides.
    pub dependencies: Dependencies,
    /// Options of the dependency generator.
    pub options: PackageOptions,
    /// Scripts run at installation.
    pub scriptlets: Scriptlets,
    /// One line about it.
    pub description: Text,
    /// Its home page.
    pub url: Text,
    /// The commit it was built from; the main package's when empty.
    pub commit: Text,
    /// Free annotations.
    pub annotations: TextMap,
    /// Linters switched off.
    pub checks: Checks,
    /// Its test.
    pub test: Option<Test>,
    /// File capabilities.
    pub setcap: Vec<SetCap>,
}

/// A test: an environment and steps.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Test {
    /// The environment of the test.
    pub environment: Environment,
    /// Its steps.
    pub pipeline: Vec<Step>,
}

/// One source of a range.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct RangeData {
    /// The name that `range:` refers to.
    pub name: Text,
    /// Keys and values.
    pub items: TextMap,
}

/// One `var-transforms` entry.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct VarTransform {
    /// The text to transform; variables in it are replaced.
    pub from: Text,
    /// An RE2 expression.
    #[cfg_attr(feature = "schema", schemars(rename = "match"))]
    pub pattern: Text,
    /// The replacement, with `$1` and `${name}`.
    pub replace: Text,
    /// The name of the resulting variable.
    pub to: Text,
}

/// A build option: variables and packages that it changes.
#[derive(Debug, Clone, Default)]
pub struct BuildOption {
    /// Variables it sets.
    pub vars: TextMap,
    /// Packages it adds to the environment.
    pub add: Vec<Text>,
    /// Packages it removes, by exact text.
    pub remove: Vec<Text>,
}

/// A definition that was read, mistakes included.
#[derive(Debug)]
pub(super) struct Reading {
    /// What could be read; fields at fault have their zero value.
    pub(super) document: Document,
    /// The mistakes, in source order.
    pub(super) mistakes: Vec<Diagnostic>,
    /// Whether later stages can look for further mistakes without naming these again.
    pub(super) usable: bool,
}

impl Document {
    /// Reads a definition.
    ///
    /// # Errors
    /// Every independent mistake of the file, in source order; one alone for broken syntax.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Diagnostics> {
        let Reading { document, mistakes, .. } = Self::read(source)?;
        if mistakes.is_empty() { Ok(document) } else { Err(Diagnostics(mistakes)) }
    }

    /// Reads as much of a definition as can be read.
    ///
    /// # Errors
    /// Broken syntax, and a file that holds nothing.
    pub(super) fn read(source: &Arc<Source>) -> Result<Reading, Diagnostic> {
        let Some(root) = yaml::read(source)? else {
            let message = "the definition is empty";
            return Err(Diagnostic::new(source, Position { line: 1, column: 1 }, message)
                .hint("a definition begins with `package:`"));
        };
        let mut decoder = Decoder::strict(source);
        let (usable, document) = decoder.document(&root);
        Ok(Reading { document, usable, mistakes: decoder.mistakes() })
    }
}

/// Reads a file of variables: one map of texts.
///
/// # Errors
/// Broken syntax, anything but a map, values that are no scalars.
pub fn parse_variables(source: &Arc<Source>) -> Result<TextMap, Diagnostics> {
    let Some(root) = yaml::read(source)? else { return Ok(TextMap::new()) };
    let mut decoder = Decoder::strict(source);
    let variables = decoder.text_map(Some(&root));
    decoder.finish(variables)
}

impl Step {
    /// Reads a pipeline definition (the target of a `uses`): unknown fields are ignored, an empty file defines
    /// nothing.
    ///
    /// # Errors
    /// Every independent mistake of the file.
    pub fn parse_definition(source: &Arc<Source>) -> Result<Self, Diagnostics> {
        let Some(root) = yaml::read(source)? else { return Ok(Self::default()) };
        let mut decoder = Decoder::lenient(source);
        let step = decoder.step(&root);
        decoder.finish(step)
    }
}

impl Decoder<'_> {
    /// The definition, and whether the parts that its variables come from were read whole.
    fn document(&mut self, root: &Node) -> (bool, Document) {
        let (is_map, mut fields) = self.whole(|decoder| decoder.fields(root, "the definition"));
        let package = fields.get("package");
        if package.is_none() && is_map {
            self.error(root.at, "the definition has no `package`").hint =
                Some("add `package:` with `name`, `version` and `epoch`".to_owned());
        }
        let has_package = package.is_some_and(|node| matches!(node.value, yaml::Value::Map(_)));
        let package = package.map(|node| self.package(node)).unwrap_or_default();
        let (has_variables, (vars, var_transforms, data)) = self.whole(|decoder| {
            let vars = decoder.text_map(fields.get("vars"));
            let transforms = decoder.list(fields.get("var-transforms"), Self::var_transform);
            (vars, transforms, decoder.list(fields.get("data"), Self::range_data))
        });
        let document = Document {
            source: Arc::clone(self.source),
            package,
            environment: fields.get("environment").map(|node| self.environment(node)).unwrap_or_default(),
            capabilities: fields.get("capabilities").map(|node| self.capabilities(node)).unwrap_or_default(),
            pipeline: self.steps(fields.get("pipeline")),
            subpackages: self.list(fields.get("subpackages"), Self::subpackage),
            data,
            update: fields.get("update").map(|node| self.update(node)),
            vars,
            var_transforms,
            options: self.map_of(fields.get("options"), Self::build_option),
            test: fields.get("test").map(|node| self.test(node)),
        };
        self.refuse_unknown(&fields);
        (is_map && has_package && has_variables, document)
    }

    fn capabilities(&mut self, node: &Node) -> Capabilities {
        let mut fields = self.fields(node, "`capabilities`");
        let capabilities =
            Capabilities { add: self.texts(fields.get("add")), drop: self.texts(fields.get("drop")) };
        self.refuse_unknown(&fields);
        capabilities
    }

    fn subpackage(&mut self, node: &Node) -> Subpackage {
        let mut fields = self.fields(node, "a subpackage");
        let subpackage = Subpackage {
            at: node.at,
            condition: self.text(fields.get("if")),
            range: self.text(fields.get("range")),
            name: self.text(fields.get("name")),
            pipeline: self.steps(fields.get("pipeline")),
            dependencies: self.dependencies(fields.get("dependencies")),
            options: self.package_options(fields.get("options")),
            scriptlets: self.scriptlets(fields.get("scriptlets")),
            description: self.text(fields.get("description")),
            url: self.text(fields.get("url")),
            commit: self.text(fields.get("commit")),
            annotations: self.text_map(fields.get("annotations")),
            checks: self.checks(fields.get("checks")),
            test: fields.get("test").map(|node| self.test(node)),
            setcap: self.list(fields.get("setcap"), Self::setcap),
        };
        self.refuse_unknown(&fields);
        subpackage
    }

    fn test(&mut self, node: &Node) -> Test {
        let mut fields = self.fields(node, "`test`");
        let test = Test {
            environment: fields.get("environment").map(|node| self.environment(node)).unwrap_or_default(),
            pipeline: self.steps(fields.get("pipeline")),
        };
        self.refuse_unknown(&fields);
        test
    }

    fn range_data(&mut self, node: &Node) -> RangeData {
        let mut fields = self.fields(node, "an entry of `data`");
        let data =
            RangeData { name: self.text(fields.get("name")), items: self.text_map(fields.get("items")) };
        self.refuse_unknown(&fields);
        data
    }

    fn var_transform(&mut self, node: &Node) -> VarTransform {
        let mut fields = self.fields(node, "an entry of `var-transforms`");
        let transform = VarTransform {
            from: self.text(fields.get("from")),
            pattern: self.text(fields.get("match")),
            replace: self.text(fields.get("replace")),
            to: self.text(fields.get("to")),
        };
        self.refuse_unknown(&fields);
        transform
    }

    fn build_option(&mut self, node: &Node) -> BuildOption {
        let mut fields = self.fields(node, "a build option");
        let mut option = BuildOption { vars: self.text_map(fields.get("vars")), ..BuildOption::default() };
        if let Some(environment) = fields.get("environment") {
            let mut inner = self.fields(environment, "`environment` of a build option");
            if let Some(contents) = inner.get("contents") {
                let mut inner = self.fields(contents, "`contents` of a build option");
                if let Some(packages) = inner.get("packages") {
                    let mut inner = self.fields(packages, "`packages` of a build option");
                    option.add = self.texts(inner.get("add"));
                    option.remove = self.texts(inner.get("remove"));
                    self.refuse_unknown(&inner);
                }
                self.refuse_unknown(&inner);
            }
            self.refuse_unknown(&inner);
        }
        self.refuse_unknown(&fields);
        option
    }

    fn duration(&mut self, node: Option<&Node>) -> Option<Duration> {
        let text = self.text(node);
        if text.is_empty() {
            return None;
        }
        match parse_go_duration(&text) {
            Some(duration) => Some(duration),
            None => {
                self.error(text.at, format!("{:?} is not a duration", text.value)).hint =
                    Some("write a number with its unit, such as `30m` or `1h15m`".to_owned());
                None
            }
        }
    }
}

/// Go's duration syntax without a sign: `1h15m`, `1.5s`, `300ms`, `0`.
fn parse_go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(())?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("30m", 1800.0), ("1h15m", 4500.0), ("1.5s", 1.5), ("300ms", 0.3), ("0", 0.0)]
        {
            assert_eq!(parse_go_duration(text).map(|d| d.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "30", "m", "1d", "1h-1m", "1.2.3s"] {
            assert_eq!(parse_go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn nulls_are_absent_and_scalars_raw() {
        let text = "package:\n  name: a\n  version: 1.10\n  epoch: 0x10\n  description:\n  dependencies:\n    runtime:\nvars:\n  a: ~\n  b: 00303\n";
        let document = Document::parse(&Source::new("t.yaml", text)).unwrap();
        assert_eq!((&*document.package.version, document.package.epoch), ("1.10", 16));
        assert!(document.package.dependencies.runtime.is_empty());
        assert_eq!((&*document.vars["a"], &*document.vars["b"]), ("", "00303"));
    }
}
