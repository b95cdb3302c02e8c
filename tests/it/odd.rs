//! Odd definitions: what they compile to here, beside what melange compiles them to.

use std::collections::BTreeMap;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::emit::{CompiledObject, compiled_definition};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::text::diagnostics::Source;
use serde_json::{Value, json};

use crate::support::oracle;

/// Those that differ, with the reason. All are in `docs/definitions.md`.
const DIFFERENT: [(&str, &str); 5] = [
    ("latin-nel", "U+0085 ends a line in YAML 1.1 only"),
    ("plain-nel", "U+0085 ends a line in YAML 1.1 only"),
    ("nested-env-noparent", "melange crashes"),
    ("test-empty", "a test without steps is none"),
    ("version-binary", "`!!binary` is read as the text that is written"),
];

/// The pipelines that the definitions use besides the built-in ones.
fn pipelines() -> Option<PipelineSet> {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(oracle("melange-compile-odd-pipelines")?).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        texts.insert(name, std::fs::read_to_string(path).unwrap());
    }
    Some(PipelineSet::new(&texts).unwrap())
}

/// Without what says nothing, which one of the two writes and the other leaves out.
fn without_blanks(value: &Value) -> Value {
    let is_blank = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), without_blanks(value)));
            fields.filter(|(_, value)| !is_blank(value)).collect()
        }
        Value::Array(items) => items.iter().map(without_blanks).collect(),
        other => other.clone(),
    }
}

/// Without what we record of every environment, and melange when the definition says it: the architecture, and the shell
/// and the home of accounts.
fn comparable(value: &Value) -> Value {
    let mut value = without_blanks(value);
    for place in ["/environment", "/test/environment"] {
        let Some(Value::Object(environment)) = value.pointer_mut(place) else { continue };
        // Our list of packages in one place.
        environment.remove("packages");
        environment.remove("archs");
        let users = environment.get_mut("accounts").and_then(|accounts| accounts.get_mut("users"));
        for user in users.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            user.retain(|name, value| {
                (name, &*value) != (&"shell".to_owned(), &json!("/bin/sh"))
                    && (name, &*value) != (&"homedir".to_owned(), &json!("/home/build"))
            });
        }
    }
    // The texts of built-in pipelines are each one's own.
    for step in value.get_mut("pipeline").and_then(Value::as_array_mut).into_iter().flatten() {
        if step["uses"] == "fetch"
            && let Some(step) = step.as_object_mut()
        {
            step.remove("name");
            step.remove("pipeline");
        }
    }
    without_blanks(&value)
}

#[test]
fn odd_definitions_compile_as_in_melange() {
    let Some(pipelines) = pipelines() else { return };
    let text = std::fs::read_to_string(oracle("melange-compile-odd.json").unwrap()).unwrap();
    let cases: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let mut options = CompileOptions::default();
    (options.defaults, options.any_version, options.any_script) = (None, true, true);
    let (mut equal, mut wrong) = (0, Vec::new());
    for (name, case) in &cases {
        // Each character is a byte.
        let bytes: Vec<u8> =
            case["yaml"].as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect();
        let file = case["file"].as_str().unwrap();
        let compiled = match String::from_utf8(bytes) {
            Ok(text) => {
                melange::compile(&Source::new(file, text.as_str()), Arch::X86_64, &pipelines, &options)
                    .map_err(|mistakes| mistakes.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let (told, is_equal) = match (&compiled, case.get("compiled")) {
            (Ok(Compiled::Plan(plan)), Some(expected)) => {
                let object = CompiledObject::from(compiled_definition(plan));
                let ours = comparable(&serde_json::to_value(object).unwrap());
                (format!("{ours} instead of {}", comparable(expected)), ours == comparable(expected))
            }
            (Err(_), None) => (String::new(), true),
            (Err(mistakes), Some(_)) => (mistakes.clone(), false),
            (Ok(_), _) => (format!("it compiles; melange says {}", case["refused"]), false),
        };
        let listed = DIFFERENT.iter().any(|(different, _)| different == name);
        equal += usize::from(is_equal);
        match (is_equal, listed) {
            (false, false) => wrong.push(format!("{name}: {told}")),
            (true, true) => wrong.push(format!("{name} is equal and need not be listed")),
            _ => {}
        }
    }
    println!("odd definitions: {equal} of {} equal", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(equal * 100 >= cases.len() * 97, "{equal} of {} are too few", cases.len());
}
