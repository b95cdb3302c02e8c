//! The OpenAPI document: what the handlers say of themselves, as JSON for programs and as Markdown for people.

use std::fmt::Write as _;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Where the document is served.
pub(crate) const PATH: &str = "/api/openapi.json";

/// What stands at the top of the document; the handlers add the rest.
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "melange-remote",
    description = "Builds APK packages from melange definitions. Bodies are JSON; every error has the shape of `ErrorResponse`.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
pub(crate) struct Document;

/// The document with `{name}` where the router has `{*name}`: OpenAPI knows no parameters of several segments.
pub(super) fn plain_paths(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// The document; below a prefix it says so.
pub(super) fn answer(document: &utoipa::openapi::OpenApi, prefix: &str) -> Response {
    let json = if prefix.is_empty() {
        document.to_json()
    } else {
        let mut document = document.clone();
        document.servers = Some(vec![utoipa::openapi::Server::new(prefix)]);
        document.to_json()
    };
    match json {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The document for people: every operation with its parameters and answers, every type with its fields.
pub(crate) fn markdown(document: &Value) -> String {
    let mut text = String::from(
        "# The API\n\nMade from the server's own description, which it serves at `/api/openapi.json`; `make reference` \
         writes this page anew.\n\n## Operations\n",
    );
    for (path, operations) in object(&document["paths"]) {
        for (method, operation) in object(operations) {
            let summary = operation["summary"].as_str().unwrap_or_default();
            let _ = writeln!(text, "\n### `{} {path}`\n\n{summary}", method.to_uppercase());
            if let Some(description) = operation["description"].as_str().filter(|d| !d.is_empty()) {
                let _ = writeln!(text, "\n{description}");
            }
            let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !parameters.is_empty() || operation["requestBody"].is_object() {
                let _ = writeln!(text, "\n| Parameter | In | What |\n|---|---|---|");
            }
            for parameter in parameters {
                let field = |name: &str| parameter[name].as_str().unwrap_or_default();
                let _ =
                    writeln!(text, "| `{}` | {} | {} |", field("name"), field("in"), field("description"));
            }
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if !schema.is_null() {
                let _ = writeln!(text, "| | body | {} |", type_name(schema));
            }
            let _ = writeln!(text, "\n| Answer | What |\n|---|---|");
            for (status, response) in object(&operation["responses"]) {
                let description = response["description"].as_str().unwrap_or_default();
                let schema = &response["content"]["application/json"]["schema"];
                let body = if schema.is_null() { String::new() } else { format!(": {}", type_name(schema)) };
                let _ = writeln!(text, "| {status} | {description}{body} |");
            }
        }
    }
    text.push_str("\n## Types\n");
    for (name, schema) in object(&document["components"]["schemas"]) {
        let description = schema["description"].as_str().unwrap_or_default();
        let _ = writeln!(text, "\n### {name}\n\n{description}");
        of_type(&mut text, schema);
    }
    text
}

/// What a value of a type can be.
fn of_type(text: &mut String, schema: &Value) {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> =
            words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        let _ = writeln!(text, "\nOne of {}.", words.join(", "));
        return;
    }
    for (index, choice) in schema["oneOf"].as_array().into_iter().flatten().enumerate() {
        let either = if index == 0 { "Either" } else { "Or" };
        let what = choice["description"].as_str().map(|what| format!(": {what}")).unwrap_or_default();
        let _ = writeln!(text, "\n{either}{what}");
        of_type(text, choice);
    }
    if schema["oneOf"].is_array() {
        return;
    }
    text.push_str("\n| Field | Type | What |\n|---|---|---|\n");
    // A type that holds another one lists both.
    let own = std::slice::from_ref(schema);
    let parts = schema["allOf"].as_array().map_or(own, Vec::as_slice);
    for part in parts {
        fields(text, part);
        if let Some(other) = reference(part) {
            let _ = writeln!(text, "| | | and the fields of [{other}](#{}) |", other.to_lowercase());
        }
    }
}

fn fields(text: &mut String, schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, schema) in object(&schema["properties"]) {
        let what = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        let may = if required.contains(&field.as_str()) { "" } else { ", may be missing" };
        let _ = writeln!(text, "| `{field}` | {}{may} | {what} |", type_name(schema));
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
}

fn type_name(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[key].as_array() {
            let names: Vec<String> =
                choices.iter().filter(|choice| choice["type"] != "null").map(type_name).collect();
            return names.join(" or ");
        }
    }
    let plain = match &schema["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("any")
        }
        _ => "any",
    };
    match plain {
        "array" => format!("list of {}", type_name(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map of {}", type_name(&schema["additionalProperties"]))
        }
        other => match schema["format"].as_str() {
            Some("date-time") => "time (RFC 3339)".to_owned(),
            _ => other.to_owned(),
        },
    }
}
