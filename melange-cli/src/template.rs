//! The part of Go's template language that people use with `melange query`: fields, `range`, `if`, `else`, `with`,
//! `end`, `$`, string constants, comments and trimming. Fields are found whatever the case, hyphens and underscores of
//! their names, so that `.Package.FullVersion` and `.package.full-version` are the same.

use melange_remote_sdk::error::{Error, Result};
use serde_json::Value;

/// The deepest nesting of blocks.
const DEPTH_MAX: usize = 64;
/// The largest result.
const RESULT_BYTES_MAX: usize = 64 << 20;

/// Renders `template` over `root`.
///
/// # Errors
/// `InvalidRequest` with the column: what is not understood, fields that are not there, results without bound.
pub(crate) fn render(template: &str, root: &Value) -> Result<String> {
    let mut parser = Parser { template, at: 0, trim: false };
    let (nodes, end) = parser.block(0)?;
    if let Some((word, at)) = end {
        return Err(wrong(template, at, format!("`{word}` has no beginning")));
    }
    let mut output = Output { template, root, text: String::new() };
    output.nodes(&nodes, root)?;
    Ok(output.text)
}

fn wrong(template: &str, at: usize, message: impl std::fmt::Display) -> Error {
    let column = template[..at].chars().count() + 1;
    Error::invalid(format!("the template, column {column}: {message}"))
        .hint("write fields as `{{.Package.Version}}`, lists as `{{range .Subpackages}}{{.Name}}{{end}}`")
}

enum Node {
    Text(String),
    Value(Operand, usize),
    Range(Operand, usize, Vec<Node>, Vec<Node>),
    If { operand: Operand, at: usize, then: Vec<Node>, otherwise: Vec<Node>, moves: bool },
}

enum Operand {
    Text(String),
    /// A path from the present value, or from the root.
    Path(bool, Vec<String>),
}

struct Parser<'t> {
    template: &'t str,
    at: usize,
    /// Whether white space at the next text's beginning is left out.
    trim: bool,
}

type End<'t> = Option<(&'t str, usize)>;

impl<'t> Parser<'t> {
    /// Nodes up to `end` or `else`.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End<'t>)> {
        if depth > DEPTH_MAX {
            return Err(wrong(self.template, self.at, format!("blocks deeper than {DEPTH_MAX}")));
        }
        let mut nodes = Vec::new();
        loop {
            let rest = &self.template[self.at..];
            let Some(open) = rest.find("{{") else {
                self.text(&mut nodes, rest, false);
                self.at = self.template.len();
                return Ok((nodes, None));
            };
            let begin = self.at + open;
            let inner = &self.template[begin + 2..];
            let Some(close) = inner.find("}}") else {
                return Err(wrong(self.template, begin, "`{{` is not closed"));
            };
            let mut action = &inner[..close];
            let before = action.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
            self.text(&mut nodes, &rest[..open], before.is_some());
            action = before.unwrap_or(action);
            let after = action.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
            self.trim = after.is_some();
            let action = after.unwrap_or(action).trim();
            self.at = begin + 2 + close + 2;
            if action.starts_with("/*") && action.ends_with("*/") {
                continue;
            }
            let (word, argument) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match word {
                "end" | "else" if argument.is_empty() => return Ok((nodes, Some((word, begin)))),
                "range" => {
                    let operand = self.operand(argument, begin)?;
                    let (body, otherwise) = self.branches(depth, begin)?;
                    nodes.push(Node::Range(operand, begin, body, otherwise));
                }
                "if" | "with" => {
                    let operand = self.operand(argument, begin)?;
                    let (then, otherwise) = self.branches(depth, begin)?;
                    let moves = word == "with";
                    nodes.push(Node::If { operand, at: begin, then, otherwise, moves });
                }
                _ => nodes.push(Node::Value(self.operand(action, begin)?, begin)),
            }
        }
    }

    fn branches(&mut self, depth: usize, begin: usize) -> Result<(Vec<Node>, Vec<Node>)> {
        let (first, end) = self.block(depth + 1)?;
        let (second, end) = match end {
            Some(("else", _)) => self.block(depth + 1)?,
            end => (Vec::new(), end),
        };
        match end {
            Some(("end", _)) => Ok((first, second)),
            _ => Err(wrong(self.template, begin, "this block has no `{{end}}`")),
        }
    }

    fn text(&mut self, nodes: &mut Vec<Node>, text: &str, trim_end: bool) {
        let text = if self.trim { text.trim_start() } else { text };
        let text = if trim_end { text.trim_end() } else { text };
        self.trim = false;
        if !text.is_empty() {
            nodes.push(Node::Text(text.to_owned()));
        }
    }

    fn operand(&self, text: &str, at: usize) -> Result<Operand> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            return Ok(Operand::Text(inner.to_owned()));
        }
        if text.starts_with('"') {
            return serde_json::from_str(text)
                .map(Operand::Text)
                .map_err(|_| wrong(self.template, at, format!("{text} is not a string constant")));
        }
        let (from_root, path) = match text.strip_prefix('$') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let Some(path) =
            path.strip_prefix('.').or_else(|| path.is_empty().then_some("").filter(|_| from_root))
        else {
            return Err(wrong(self.template, at, format!("`{text}` is not understood")));
        };
        let parts: Vec<String> = path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if parts.iter().any(|part| part.contains(|c: char| c.is_whitespace() || "|()\"".contains(c))) {
            return Err(wrong(self.template, at, format!("`{text}` is not a field")));
        }
        Ok(Operand::Path(from_root, parts))
    }
}

struct Output<'a> {
    template: &'a str,
    root: &'a Value,
    text: String,
}

impl Output<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(text) => self.text.push_str(text),
                Node::Value(operand, at) => {
                    let shown = shown(&self.value(operand, *at, dot)?);
                    self.text.push_str(&shown);
                }
                Node::Range(operand, at, body, otherwise) => {
                    let value = self.value(operand, *at, dot)?;
                    let items: Vec<&Value> = match &value {
                        Value::Array(items) => items.iter().collect(),
                        Value::Object(map) => map.values().collect(),
                        Value::Null => Vec::new(),
                        _ => return Err(wrong(self.template, *at, "`range` needs a list or a map")),
                    };
                    for item in &items {
                        self.nodes(body, item)?;
                    }
                    if items.is_empty() {
                        self.nodes(otherwise, dot)?;
                    }
                }
                Node::If { operand, at, then, otherwise, moves } => {
                    let value = self.value(operand, *at, dot)?;
                    let branch = if is_empty(&value) { otherwise } else { then };
                    self.nodes(branch, if *moves && !is_empty(&value) { &value } else { dot })?;
                }
            }
            if self.text.len() > RESULT_BYTES_MAX {
                return Err(Error::invalid("the template's result is too large"));
            }
        }
        Ok(())
    }

    fn value(&self, operand: &Operand, at: usize, dot: &Value) -> Result<Value> {
        let (mut value, path) = match operand {
            Operand::Text(text) => return Ok(Value::String(text.clone())),
            Operand::Path(true, path) => (self.root, path),
            Operand::Path(false, path) => (dot, path),
        };
        for part in path {
            value = match value {
                Value::Object(map) => match map.iter().find(|(key, _)| plain(key) == plain(part)) {
                    Some((_, value)) => value,
                    // What is not set is left out of the data; a name that exists nowhere is a mistake.
                    None if FIELDS.iter().any(|field| plain(field) == plain(part)) => return Ok(Value::Null),
                    None => {
                        let known: Vec<&str> = map.keys().map(String::as_str).collect();
                        let message = format!("there is no field `{part}`; there are {}", known.join(", "));
                        return Err(wrong(self.template, at, message));
                    }
                },
                Value::Null => return Ok(Value::Null),
                _ => {
                    return Err(wrong(
                        self.template,
                        at,
                        format!("`{part}` is a field of something that has none"),
                    ));
                }
            };
        }
        Ok(value.clone())
    }
}

/// Fields that are left out of the data when nothing is said about them.
const FIELDS: [&str; 41] = [
    "description",
    "annotations",
    "url",
    "commit",
    "dependencies",
    "options",
    "scriptlets",
    "checks",
    "setcap",
    "target-architecture",
    "copyright",
    "cpe",
    "timeout",
    "resources",
    "test-resources",
    "runtime",
    "provides",
    "replaces",
    "provider-priority",
    "replaces-priority",
    "pipeline",
    "subpackages",
    "update",
    "vars",
    "var-transforms",
    "test",
    "environment",
    "capabilities",
    "add",
    "drop",
    "name",
    "uses",
    "with",
    "runs",
    "if",
    "needs",
    "label",
    "assertions",
    "working-directory",
    "members",
    "disabled",
];

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// As Go prints it: strings as they are, lists and maps in brackets.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        serde_json::json!({
            "package": {"name": "a", "version": "1.0", "epoch": 2, "full-version": "1.0-r2"},
            "subpackages": [{"name": "a-dev"}, {"name": "a-doc", "description": "text"}],
            "vars": {"soname": "3"},
        })
    }

    #[test]
    fn fields_lists_and_conditions() {
        for (template, expected) in [
            ("{{ .Package.Name }}-{{.Package.Version}}-r{{.package.epoch}}", "a-1.0-r2"),
            ("{{.Package.FullVersion}}", "1.0-r2"),
            (
                "{{range .Subpackages}}{{.Name}}{{if .Description}} ({{.Description}}){{end}}\n{{end}}",
                "a-dev\na-doc (text)\n",
            ),
            ("{{range .Subpackages}}{{$.Package.Name}}{{end}}", "aa"),
            ("{{with .Vars}}{{.soname}}{{else}}none{{end}}", "3"),
            ("{{range .Test}}x{{else}}no test{{end}}", "no test"),
            ("a {{- /* c */ -}} b {{ \"\\n\" }}", "ab \n"),
            ("{{.Subpackages}}", "[map[name:a-dev] map[description:text name:a-doc]]"),
        ] {
            assert_eq!(render(template, &data()).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn mistakes_have_a_column() {
        for (template, expected) in [
            ("x {{.Package.Nam}}", "column 3: there is no field `Nam`; there are epoch, full-version"),
            ("{{if .Package}}", "column 1: this block has no `{{end}}`"),
            ("{{end}}", "column 1: `end` has no beginning"),
            ("{{ .Package", "column 1: `{{` is not closed"),
            ("{{printf \"x\"}}", "`printf \"x\"` is not understood"),
            ("{{.Package.Name.First}}", "`First` is a field of something that has none"),
            (&"{{if .}}".repeat(70), "blocks deeper than 64"),
        ] {
            let error = render(template, &data()).unwrap_err().to_string();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
