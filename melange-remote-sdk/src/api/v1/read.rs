//! Reads requests by hand, so that one answer tells every mistake and a mistyped field gets its right name.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{BackendName, BackendView, ErrorDetail, SubmitRequest};
use crate::text::diagnostics::nearest;

/// Reads the body of `POST /api/v1/jobs`.
///
/// # Errors
/// Every mistake: bad JSON with its line and column, unknown fields, wrong types, missing fields.
pub fn read_submit(body: &[u8]) -> Result<SubmitRequest, Vec<ErrorDetail>> {
    let mut fields = Fields::read(body)?;
    let request = SubmitRequest {
        config_yaml: fields.required("config_yaml"),
        config_name: fields.text("config_name"),
        test_packages: fields.list("test_packages"),
        pipelines: fields.texts("pipelines"),
        arch: fields.text("arch"),
        backend_selector: fields.texts("backend_selector"),
        with_test: fields.flag("with_test"),
        debug: fields.flag("debug"),
        project: fields.text("project"),
        priority: fields.number("priority"),
        waits_for: fields.list("waits_for"),
        source: fields.text("source"),
        git_commit: fields.text("git_commit"),
        git_repo_url: fields.text("git_repo_url"),
        license: fields.text("license"),
        dedupe_seconds: fields.number("dedupe_seconds"),
    };
    fields.finish(request)
}

/// Reads the body of `POST /api/v1/backends`.
///
/// # Errors
/// As [`read_submit`].
pub fn read_backend(body: &[u8]) -> Result<BackendView, Vec<ErrorDetail>> {
    let mut fields = Fields::read(body)?;
    let backend = BackendView {
        addr: fields.required("addr"),
        arch: fields.required("arch"),
        labels: fields.texts("labels"),
        max_jobs: fields.number("maxJobs"),
        cpus: fields.text("cpus"),
        memory: fields.text("memory"),
        state: None,
    };
    fields.finish(backend)
}

/// Reads the body of the requests that name a backend.
///
/// # Errors
/// As [`read_submit`].
pub fn read_backend_name(body: &[u8]) -> Result<BackendName, Vec<ErrorDetail>> {
    let mut fields = Fields::read(body)?;
    let name = BackendName { addr: fields.required("addr"), machine: fields.text("machine") };
    fields.finish(name)
}

/// The fields of a request object that were not asked for yet, and the mistakes so far.
pub(in crate::api) struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    mistakes: Vec<ErrorDetail>,
}

impl Fields {
    pub(in crate::api) fn read(body: &[u8]) -> Result<Self, Vec<ErrorDetail>> {
        if body.is_empty() {
            return Err(vec![mistake(None, "the request has no body".to_owned(), "send a JSON object")]);
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(left)) => Ok(Self { left, known: Vec::new(), mistakes: Vec::new() }),
            Ok(_) => Err(vec![mistake(None, "the body is JSON, but no object".to_owned(), "send {…}")]),
            Err(error) => Err(vec![ErrorDetail {
                message: format!("the body is not valid JSON: {error}"),
                line: u32::try_from(error.line()).ok(),
                column: u32::try_from(error.column()).ok(),
                ..ErrorDetail::default()
            }]),
        }
    }

    /// The value of a field; null counts as missing.
    pub(in crate::api) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    pub(in crate::api) fn wrong(&mut self, field: String, value: &Value, wanted: &str) {
        let message = format!("`{field}` is {}, not {wanted}", kind(value));
        self.mistakes.push(ErrorDetail { message, field: Some(field), ..ErrorDetail::default() });
    }

    pub(in crate::api) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(name.to_owned(), &other, "a string");
                None
            }
        }
    }

    pub(in crate::api) fn required(&mut self, name: &'static str) -> String {
        let mistakes = self.mistakes.len();
        let text = self.text(name).unwrap_or_default();
        if text.trim().is_empty() && self.mistakes.len() == mistakes {
            let message = format!("`{name}` is missing or empty");
            self.mistakes.push(ErrorDetail { message, field: Some(name.to_owned()), ..Default::default() });
        }
        text
    }

    pub(in crate::api) fn texts(&mut self, name: &'static str) -> BTreeMap<String, String> {
        match self.take(name) {
            None => BTreeMap::new(),
            Some(Value::Object(map)) => self.strings(name, map),
            Some(other) => {
                self.wrong(name.to_owned(), &other, "an object of strings");
                BTreeMap::new()
            }
        }
    }

    /// An object of objects of strings.
    pub(in crate::api) fn texts_within(
        &mut self,
        name: &'static str,
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        let map = match self.take(name) {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                self.wrong(name.to_owned(), &other, "an object of objects of strings");
                Map::new()
            }
        };
        for (key, value) in map {
            match value {
                Value::Null => {}
                Value::Object(texts) => {
                    let texts = self.strings(&format!("{name}.{key}"), texts);
                    all.insert(key, texts);
                }
                other => self.wrong(format!("{name}.{key}"), &other, "an object of strings"),
            }
        }
        all
    }

    /// The strings of an object; what is none is told.
    fn strings(&mut self, place: &str, map: Map<String, Value>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, value) in map {
            match value {
                Value::String(text) => {
                    texts.insert(key, text);
                }
                other => self.wrong(format!("{place}.{key}"), &other, "a string"),
            }
        }
        texts
    }

    pub(in crate::api) fn list(&mut self, name: &'static str) -> Vec<String> {
        let items = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong(name.to_owned(), &other, "a list of strings");
                Vec::new()
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.wrong(format!("{name}.{index}"), &other, "a string"),
            }
        }
        texts
    }

    pub(in crate::api) fn flag(&mut self, name: &'static str) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.wrong(name.to_owned(), &other, "true or false");
                false
            }
        }
    }

    pub(in crate::api) fn number(&mut self, name: &'static str) -> Option<u32> {
        let value = self.take(name)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            self.wrong(name.to_owned(), &value, "a whole number from 1");
        }
        number
    }

    pub(in crate::api) fn finish<T>(mut self, value: T) -> Result<T, Vec<ErrorDetail>> {
        for field in self.left.keys() {
            let hint = match nearest(field, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known fields: {}", self.known.join(", ")),
            };
            self.mistakes.push(mistake(Some(field.clone()), format!("unknown field `{field}`"), &hint));
        }
        if self.mistakes.is_empty() { Ok(value) } else { Err(self.mistakes) }
    }

    /// The fields of an object within; its mistakes are told with its name by [`Self::absorb`].
    pub(in crate::api) fn object(&mut self, name: &'static str) -> Option<Self> {
        match self.take(name)? {
            Value::Object(left) => Some(Self { left, known: Vec::new(), mistakes: Vec::new() }),
            other => {
                self.wrong(name.to_owned(), &other, "an object");
                None
            }
        }
    }

    /// Takes over the mistakes of an object within that was read to its end.
    pub(in crate::api) fn absorb<T: Default>(
        &mut self,
        name: &'static str,
        read: Result<T, Vec<ErrorDetail>>,
    ) -> T {
        read.unwrap_or_else(|mistakes| {
            let within = |mut mistake: ErrorDetail| {
                mistake.field =
                    Some(mistake.field.map_or_else(|| name.to_owned(), |field| format!("{name}.{field}")));
                mistake
            };
            self.mistakes.extend(mistakes.into_iter().map(within));
            T::default()
        })
    }

    /// A field that is a string or a list of strings.
    pub(in crate::api) fn one_or_many(&mut self, name: &'static str) -> Vec<String> {
        match self.left.get(name) {
            Some(Value::String(_)) => self.text(name).into_iter().collect(),
            _ => self.list(name),
        }
    }
}

fn mistake(field: Option<String>, message: String, hint: &str) -> ErrorDetail {
    ErrorDetail { message, field, hint: Some(hint.to_owned()), ..ErrorDetail::default() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_a_request_is_told() {
        let body = br#"{"config_yml":"a","pipelines":{"a.yaml":1},"arch":7,"debug":"yes"}"#;
        let told: Vec<String> =
            read_submit(body).unwrap_err().into_iter().map(|detail| detail.message).collect();
        assert_eq!(
            told,
            [
                "`config_yaml` is missing or empty",
                "`pipelines.a.yaml` is a number, not a string",
                "`arch` is a number, not a string",
                "`debug` is a string, not true or false",
                "unknown field `config_yml`",
            ]
        );
        assert_eq!(read_submit(body).unwrap_err()[4].hint.as_deref(), Some("did you mean `config_yaml`?"));
    }

    #[test]
    fn what_a_client_writes_reads_back_and_null_counts_as_missing() {
        let request = SubmitRequest {
            config_yaml: "a".to_owned(),
            arch: Some("x86_64".to_owned()),
            debug: true,
            source: Some("sha256:0".to_owned()),
            ..SubmitRequest::default()
        };
        assert_eq!(read_submit(&serde_json::to_vec(&request).unwrap()).unwrap(), request);
        assert_eq!(read_submit(br#"{"config_yaml":"a","arch":null}"#).unwrap().arch, None);
    }

    #[test]
    fn broken_json_has_a_place() {
        let detail = &read_submit(b"{\n \"config_yaml\": }").unwrap_err()[0];
        assert_eq!((detail.line, detail.column), (Some(2), Some(17)));
        assert!(read_submit(b"[]").is_err() && read_submit(b"").is_err());
        assert!(read_backend(br#"{"addr":"tcp://a:1","arch":"x86_64","maxJobs":-1}"#).is_err());
        assert_eq!(read_backend_name(br#"{"addr":"tcp://a:1"}"#).unwrap().addr, "tcp://a:1");
    }
}
