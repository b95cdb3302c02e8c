//! The JSON Schema of definitions: what editors are told is what the reader takes.

use std::collections::BTreeSet;

use melange_remote_sdk::conformance::job_store;
use melange_remote_sdk::dependencies::jiff::Timestamp;
use melange_remote_sdk::job::Event;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{EventQuery, JobReading};
use melange_remote_sdk::melange::document::{Document, schema};
use melange_remote_sdk::melange::pipelines::{builtins, reference};
use melange_remote_sdk::text::diagnostics::{Diagnostics, Source};
use melange_remote_sdk::text::yaml::{self, Node, Value as Yaml};
use serde_json::{Map, Value, json};

use crate::support::corpus::{corpus, definitions, pipelines};
use crate::support::root;

#[test]
fn the_generated_documents_are_up_to_date() {
    let pretty = |schema: Value| format!("{schema:#}\n");
    let reference = format!("{}\n", reference::all().trim_end());
    for (name, expected) in [
        ("definition.schema.json", pretty(schema::definition())),
        ("pipeline.schema.json", pretty(schema::pipeline())),
        ("event.schema.json", pretty(melange_remote_sdk::job::event_schema())),
        ("pipelines.md", reference),
    ] {
        let found = std::fs::read_to_string(root().join("docs").join(name)).unwrap();
        assert!(found == expected, "docs/{name} is out of date: run `make reference`");
    }
}

/// A node as editors see it: plain scalars have a type.
fn as_json(node: &Node) -> Value {
    match &node.value {
        Yaml::Map(entries) => {
            Value::Object(entries.iter().map(|(key, node)| (key.text.clone(), as_json(node))).collect())
        }
        Yaml::List(items) => items.iter().map(as_json).collect(),
        Yaml::Scalar { .. } if node.is_null() => Value::Null,
        Yaml::Scalar { text, plain: true, .. } => match text.as_str() {
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => text
                .parse::<u64>()
                .map(Value::from)
                .or_else(|_| text.parse::<f64>().map(Value::from))
                .unwrap_or_else(|_| text.into()),
        },
        Yaml::Scalar { text, .. } => text.as_str().into(),
    }
}

fn read(name: &str, text: String) -> Value {
    yaml::read(&Source::new(name, text)).unwrap().map_or(Value::Null, |node| as_json(&node))
}

#[test]
fn every_real_definition_fits_its_schema() {
    let Some(folder) = corpus() else { return };
    let validator = jsonschema::validator_for(&schema::definition()).unwrap();
    let mut wrong = Vec::new();
    for path in definitions(folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let value = read(name, std::fs::read_to_string(&path).unwrap());
        wrong.extend(
            validator.iter_errors(&value).map(|error| format!("{name}: {} {error}", error.instance_path)),
        );
    }
    let validator = jsonschema::validator_for(&schema::pipeline()).unwrap();
    let built_in = builtins().map(|pipeline| (pipeline.name.to_owned(), pipeline.text.to_owned()));
    for (name, text) in pipelines(folder).into_iter().chain(built_in) {
        let value = read(&name, text);
        wrong.extend(
            validator.iter_errors(&value).map(|error| format!("{name}: {} {error}", error.instance_path)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_definitions_do_not_fit() {
    let validator = jsonschema::validator_for(&schema::definition()).unwrap();
    let folder = root().join("melange-remote-sdk/fixtures/broken");
    for name in
        ["unknown-field", "unknown-in-step", "unknown-in-environment", "list-for-text", "epoch-in-quotes"]
    {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        assert!(!validator.is_valid(&read(name, text)), "{name}");
    }
}

/// A definition that has every field of the schema, and in every map one that no schema has.
struct Everything<'s> {
    schema: &'s Value,
    /// The fields of each map that was made.
    maps: Vec<BTreeSet<String>>,
}

const STRANGER: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

impl Everything<'_> {
    fn of(&mut self, schema: &Value, depth: usize) -> Value {
        if let Some(name) = schema["$ref"].as_str() {
            let part = self.schema.pointer(name.trim_start_matches('#')).unwrap().clone();
            return self.of(&part, depth + 1);
        }
        if let Some(any) = schema["anyOf"].as_array() {
            return self.of(&any[0], depth);
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            other => panic!("{other}: {schema}"),
        };
        match kinds[0] {
            "object" => match schema["properties"].as_object() {
                // Steps hold steps: once is enough.
                Some(_) if depth > 12 => Value::Null,
                Some(fields) => self.map(fields, depth),
                None => json!({ "key": self.of(&schema["additionalProperties"], depth) }),
            },
            "array" => json!([self.of(&schema["items"], depth)]),
            "integer" => json!(7),
            "boolean" => json!(true),
            "string" => json!("directory"),
            other => panic!("{other}: {schema}"),
        }
    }

    fn map(&mut self, fields: &Map<String, Value>, depth: usize) -> Value {
        let mut map = Map::new();
        for (name, field) in fields {
            let value = match name.as_str() {
                "period" => json!("daily"),
                "timeout" => json!("1h"),
                _ => self.of(field, depth + 1),
            };
            map.insert(name.clone(), value);
        }
        map.insert(STRANGER.to_owned(), Value::Null);
        self.maps.push(fields.keys().cloned().collect());
        Value::Object(map)
    }
}

#[test]
fn the_schema_and_the_reader_know_the_same_fields() {
    let schema = schema::definition();
    let mut known = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut look = |definition: &Value, maps: Vec<BTreeSet<String>>| {
        let source = Source::new("everything.yaml", definition.to_string());
        let Err(Diagnostics(mistakes)) = Document::parse(&source) else { return };
        known.extend(maps);
        for mistake in &mistakes {
            assert!(mistake.message.starts_with(&format!("unknown field `{STRANGER}`")), "{mistake}");
            let hint = mistake.hint.as_deref().unwrap();
            let fields = hint.strip_prefix("known fields: ").unwrap_or_else(|| panic!("{mistake}"));
            seen.insert(fields.split(", ").map(str::to_owned).collect::<BTreeSet<String>>());
        }
    };
    // One section at a time: a run tells a hundred mistakes at most.
    let sections = schema["properties"].as_object().unwrap();
    for (name, section) in sections {
        let mut everything = Everything { schema: &schema, maps: Vec::new() };
        let mut definition = json!({ "package": { "name": "a", "version": "1" } });
        definition[name] = everything.of(section, 0);
        look(&definition, everything.maps);
    }
    look(&json!({ STRANGER: null, "package": {} }), vec![sections.keys().cloned().collect()]);
    assert_eq!(seen, known);
    assert!(known.len() > 30);
}

/// Events of everything that the suite of job stores does.
#[tokio::test]
async fn events_are_as_their_schema_says() {
    let store = MemoryJobStore::default();
    job_store::all(&store).await;
    let validator = jsonschema::validator_for(&melange_remote_sdk::job::event_schema()).unwrap();
    let mut kinds = BTreeSet::new();
    let mut query = EventQuery::after(0);
    loop {
        let page = store.events(&query).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        query.after = page.last;
        for event in page.events {
            let value = serde_json::to_value(&event).unwrap();
            let mistakes: Vec<String> =
                validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(mistakes.is_empty(), "{value}: {mistakes:?}");
            kinds.insert(event.kind.name());
        }
    }
    let gap = serde_json::to_value(Event::gap(1, 7, Timestamp::UNIX_EPOCH)).unwrap();
    assert!(validator.is_valid(&gap), "{gap}");
    let expected = [
        "build.state",
        "job.attempt",
        "job.cancel_requested",
        "job.phase",
        "job.state",
        "job.step",
        "job.test",
    ];
    assert!(kinds.iter().copied().eq(expected), "{kinds:?}");
    for wrong in [json!({}), json!({ "version": 1 }), json!({ "type": "job.state", "data": {} })] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}
