//! The JSON Schema of definitions and of pipelines, made of the types that read them, for editors.
//!
//! Draft 2020-12. What the types do not show is added here: scalars may have any YAML type, and everything may be left
//! empty.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{BuildOption, Document, Scriptlets, Step, Text, TextMap};

/// Packages that a step needs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
pub(super) struct Needs {
    /// The packages.
    packages: Vec<Text>,
}

/// What must hold when a step has run.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
pub(super) struct Assertions {
    /// How many direct children must have run.
    required_steps: Option<u64>,
}

/// Scripts that the installer runs.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct ScriptletsAsWritten {
    /// What runs when another package changes a path.
    trigger: Option<Trigger>,
    /// Before installation.
    pre_install: Text,
    /// After installation.
    post_install: Text,
    /// Before removal.
    pre_deinstall: Text,
    /// After removal.
    post_deinstall: Text,
    /// Before an upgrade.
    pre_upgrade: Text,
    /// After an upgrade.
    post_upgrade: Text,
}

/// What runs when another package changes a path.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct Trigger {
    /// The script.
    script: Text,
    /// The paths.
    paths: Vec<Text>,
}

/// A build option: variables and packages that it changes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct BuildOptionAsWritten {
    /// Variables it sets.
    vars: TextMap,
    /// Packages of the environment that it changes.
    environment: Option<OptionEnvironment>,
}

/// Packages of the environment that an option changes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct OptionEnvironment {
    /// Its contents.
    contents: Option<OptionContents>,
}

/// Contents that an option changes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct OptionContents {
    /// Its packages.
    packages: Option<OptionPackages>,
}

/// Packages that an option changes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a part that the types keep flat")]
struct OptionPackages {
    /// Packages it adds to the environment.
    add: Vec<Text>,
    /// Packages it removes, by exact text.
    remove: Vec<Text>,
}

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl JsonSchema for Scriptlets {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scriptlets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ScriptletsAsWritten::json_schema(generator)
    }
}

impl JsonSchema for BuildOption {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BuildOption".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BuildOptionAsWritten::json_schema(generator)
    }
}

/// The schema of definitions.
pub fn definition() -> Value {
    let mut schema = generate::<Document>("A melange package definition");
    require(&mut schema, &["package"]);
    for (name, fields) in [("Package", &["name", "version"][..]), ("Subpackage", &["name"])] {
        if let Some(part) = schema.pointer_mut(&format!("/$defs/{name}")) {
            require(part, fields);
        }
    }
    schema
}

/// The schema of pipelines, the targets of `uses`.
pub fn pipeline() -> Value {
    let mut schema = generate::<Step>("A melange pipeline");
    // A pipeline is read leniently: what it does not know is passed over.
    if let Value::Object(root) = &mut schema {
        root.remove("additionalProperties");
    }
    schema
}

fn generate<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    relax(&mut schema);
    add_dropped(&mut schema);
    schema["title"] = title.into();
    schema
}

fn require(schema: &mut Value, fields: &[&str]) {
    schema["required"] = fields.into();
}

/// Nothing is needed, and everything may be null.
fn relax(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("required");
    if let Some(Value::Object(parts)) = map.get_mut("$defs") {
        parts.values_mut().for_each(relax);
    }
    let fields = map.get_mut("properties").and_then(Value::as_object_mut);
    let mut parts: Vec<&mut Value> = fields.into_iter().flat_map(Map::values_mut).collect();
    parts.iter_mut().for_each(|part| {
        relax(part);
        nullable(part);
    });
    for inner in ["additionalProperties", "items"] {
        if let Some(part) = map.get_mut(inner) {
            relax(part);
            nullable(part);
        }
    }
}

fn nullable(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if map.contains_key("$ref") {
        let described = map.remove("description");
        let inner = Value::Object(std::mem::take(map));
        map.insert("anyOf".to_owned(), json!([inner, { "type": "null" }]));
        map.extend(described.map(|text| ("description".to_owned(), text)));
        return;
    }
    match map.get_mut("type") {
        Some(kind @ Value::String(_)) => *kind = json!([kind.take(), "null"]),
        Some(Value::Array(kinds)) if !kinds.contains(&json!("null")) => kinds.push("null".into()),
        _ => {}
    }
}

/// Fields that are read and dropped.
fn add_dropped(schema: &mut Value) {
    let named = json!({
        "type": ["array", "null"],
        "items": {
            "type": "object",
            "properties": { "name": { "type": ["string", "null"] }, "content": { "type": ["string", "null"] } },
            "additionalProperties": false
        }
    });
    let object = |properties: Value| json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false });
    let text = json!({ "type": ["string", "number", "boolean", "null"] });
    let environment = [
        ("format", text.clone()),
        ("layering", object(json!({ "strategy": text, "budget": { "type": ["integer", "null"] } }))),
        ("certificates", object(json!({ "additional": named }))),
    ];
    let contents = [
        ("runtime_repositories", json!({ "type": ["array", "null"], "items": text })),
        ("runtime_keyring", named.clone()),
        ("baseimage", object(json!({ "image": text, "apkindex": text }))),
    ];
    for (name, fields) in [("Environment", environment), ("Contents", contents)] {
        let place = schema.pointer_mut(&format!("/$defs/{name}/properties")).and_then(Value::as_object_mut);
        let into: &mut Map<String, Value> = match place {
            Some(place) => place,
            None => continue,
        };
        for (field, mut schema) in fields {
            schema["description"] = "Read for images; builds do not use it.".into();
            into.insert(field.to_owned(), schema);
        }
    }
}
