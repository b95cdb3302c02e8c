//! Steps of a pipeline; a pipeline definition is itself a step.

use std::collections::BTreeMap;

use super::decode::Decoder;
#[cfg(feature = "schema")]
use super::schema;
use super::{Text, TextMap};
use crate::text::diagnostics::Position;
use crate::text::yaml::Node;

// `None` and empty differ where a pipeline definition is laid over the step that uses it.
/// A step of a pipeline.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Step {
    /// Where it begins.
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub at: Position,
    /// The condition under which it runs.
    #[cfg_attr(feature = "schema", schemars(rename = "if"))]
    pub condition: Text,
    /// Its name.
    pub name: Text,
    /// The pipeline it uses.
    pub uses: Text,
    /// Values for the inputs of that pipeline.
    pub with: TextMap,
    /// Its script.
    pub runs: Text,
    /// Nested steps.
    pub pipeline: Option<Vec<Step>>,
    /// Inputs that a definition declares.
    pub inputs: BTreeMap<String, Input>,
    /// Packages it needs in the environment.
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Needs>"))]
    pub needs: Option<Vec<Text>>,
    /// A label without effect.
    pub label: Text,
    /// How many direct children must have run.
    #[cfg_attr(feature = "schema", schemars(rename = "assertions", with = "Option<schema::Assertions>"))]
    pub required_steps: Option<u64>,
    /// Its directory, relative to the workspace.
    pub working_directory: Text,
    /// Its environment.
    pub environment: TextMap,
}

/// A declared input.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Input {
    /// What it is for.
    pub description: Text,
    /// The value when none is given.
    pub default: Text,
    /// Whether a value must be given.
    pub required: bool,
}

impl Decoder<'_> {
    pub(super) fn steps(&mut self, node: Option<&Node>) -> Vec<Step> {
        self.list(node, Self::step)
    }

    pub(super) fn step(&mut self, node: &Node) -> Step {
        let mut fields = self.fields(node, "a step");
        let mut step = Step {
            at: node.at,
            condition: self.text(fields.get("if")),
            name: self.text(fields.get("name")),
            uses: self.text(fields.get("uses")),
            with: self.text_map(fields.get("with")),
            runs: self.text(fields.get("runs")),
            pipeline: fields.get("pipeline").map(|node| self.steps(Some(node))),
            inputs: self.map_of(fields.get("inputs"), Self::input),
            label: self.text(fields.get("label")),
            working_directory: self.text(fields.get("working-directory")),
            environment: self.text_map(fields.get("environment")),
            ..Step::default()
        };
        if let Some(needs) = fields.get("needs") {
            let mut inner = self.fields(needs, "`needs`");
            step.needs = Some(self.texts(inner.get("packages")));
            self.refuse_unknown(&inner);
        }
        if let Some(assertions) = fields.get("assertions") {
            let mut inner = self.fields(assertions, "`assertions`");
            step.required_steps = self.integer(inner.get("required-steps"));
            self.refuse_unknown(&inner);
        }
        self.refuse_unknown(&fields);
        step
    }

    fn input(&mut self, node: &Node) -> Input {
        let mut fields = self.fields(node, "an input");
        let input = Input {
            description: self.text(fields.get("description")),
            default: self.text(fields.get("default")),
            required: self.boolean(fields.get("required")),
        };
        self.refuse_unknown(&fields);
        input
    }
}
