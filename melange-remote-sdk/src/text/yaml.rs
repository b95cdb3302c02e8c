//! YAML as a tree of nodes with positions and raw scalars; the typed reading is [`crate::melange::document`]'s.
//!
//! Only the first document of a stream counts. Scalars keep their source text whatever type YAML would give
//! them, duplicate keys are errors, merge keys (`<<`) are applied, aliases are copied under a budget.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::diagnostics::{Diagnostic, Position, Source};
use crate::limits;

/// The deepest nesting read.
const DEPTH_MAX: usize = 64;
/// The most nodes of one text, aliases expanded.
const NODES_MAX: usize = 500_000;
/// The most bytes of all texts, aliases expanded.
const TEXTS_BYTES_MAX: usize = 8 << 20;

/// A node with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar: its text, and whether it was written without quotes.
    Scalar {
        /// Unescaped content of a quoted scalar, source text of a plain one.
        text: String,
        /// Whether it was plain, so that `null`, `~` and nothing mean "absent".
        plain: bool,
        /// Whether it was a block scalar, so that its content begins on the next line.
        block: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map in source order; keys are raw text.
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The raw text.
    pub text: String,
    /// Where it begins.
    pub at: Position,
}

impl Node {
    /// Whether the node stands for "absent": nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true, .. }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar.
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Scalar { .. } => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// How many nodes it has, and how many bytes their texts.
    fn size(&self) -> (usize, usize) {
        let add =
            |(nodes, bytes): (usize, usize), (more, texts): (usize, usize)| (nodes + more, bytes + texts);
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| add(node.size(), (0, key.text.len()))).fold((1, 0), add)
            }
        }
    }
}

/// Reads the first document of `source`; `None` when it holds nothing.
///
/// # Errors
/// One diagnostic with its place: syntax, duplicate key, too large, too deep, alias expansion beyond bounds.
pub fn read(source: &Arc<Source>) -> Result<Option<Node>, Diagnostic> {
    if source.text.len() > limits::DEFINITION_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, more than the {} allowed",
            source.text.len(),
            limits::DEFINITION_BYTES_MAX
        );
        return Err(Diagnostic::new(source, Position { line: 1, column: 1 }, message));
    }
    if let Some(diagnostic) = control_character(source) {
        return Err(diagnostic);
    }
    let mut text = Cow::Borrowed(&*source.text);
    for _ in 0..TABS_MAX {
        match read_text(source, &text) {
            Err(diagnostic) if diagnostic.message.ends_with(TAB_COMPLAINT) => {
                let tabs = diagnostic.at.and_then(|at| tabs_before(&text, at));
                let Some(tabs) = tabs else { return Err(diagnostic) };
                let spaces = " ".repeat(tabs.len());
                text.to_mut().replace_range(tabs, &spaces);
            }
            read => return read,
        }
    }
    read_text(source, &text)
}

/// What the parser says of a tab between a `:` and its value, which YAML allows.
const TAB_COMPLAINT: &str = "':' must be followed by a valid YAML whitespace";
/// How many such tabs a text may have: it is read anew for each.
const TABS_MAX: usize = 64;

/// The tabs that end at a place.
fn tabs_before(text: &str, at: Position) -> Option<Range<usize>> {
    let end = at.offset_in(text)?;
    let begin = text[..end].trim_end_matches('\t').len();
    (begin < end).then_some(begin..end)
}

/// The first character that YAML allows nowhere.
fn control_character(source: &Arc<Source>) -> Option<Diagnostic> {
    let is_control = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}');
    let (offset, found) = source.text.char_indices().find(|(_, c)| is_control(*c))?;
    let before = &source.text[..offset];
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let at = Position { line: number(line), column: number(column) };
    let message = format!("the control character U+{:04X} is not allowed", u32::from(found));
    Some(Diagnostic::new(source, at, message).hint("remove it, or write it as an escape in double quotes"))
}

fn read_text(source: &Arc<Source>, text: &str) -> Result<Option<Node>, Diagnostic> {
    let mut reader =
        Reader { source, events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, bytes: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(None),
            other => return reader.node(other, span, 0).map(Some),
        }
    }
}

/// Tabs cannot indent YAML; a scanner that stumbles over one says so only in riddles.
fn indented_by_tab(source: &Arc<Source>, at: Position) -> Option<Diagnostic> {
    let lines = [at.line.saturating_sub(1), at.line];
    let line =
        lines.into_iter().find(|line| source.line(*line).is_some_and(|text| text.starts_with('\t')))?;
    let diagnostic = Diagnostic::new(source, Position { line, column: 1 }, "a tab cannot indent YAML");
    Some(diagnostic.hint("indent with spaces"))
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

fn position(span: Span) -> Position {
    Position {
        line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
        column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
    }
}

/// What is probably behind a mistake that the scanner found only later.
fn syntax_hint(source: &Source, at: Position, info: &str) -> Option<String> {
    if info.contains("mapping values are not allowed") {
        let number = usize::try_from(at.line).ok()?;
        let lines = source.text.lines().enumerate().take(number.saturating_sub(1));
        let before = lines.filter(|(_, line)| !line.trim().is_empty()).last();
        let glued = |line: &str| {
            let bytes = line.as_bytes();
            let colon = line.find(':')?;
            (!line.contains(": ") && !line.trim_end().ends_with(':') && bytes.get(colon + 1) != Some(&b'/'))
                .then_some(())
        };
        return Some(match before {
            Some((index, line)) if glued(line).is_some() => {
                format!("write a space behind the `:` of line {}", index + 1)
            }
            _ => "indent this line like the one that it belongs to, or put the text into quotes".to_owned(),
        });
    }
    let hint = if info.contains("illegal placement of ':'") || info.contains("flow") {
        "a bracket, brace or quote before this place is not closed"
    } else if info.contains("quoted scalar") {
        "the quote that begins here is not closed"
    } else if info.contains("anchor") {
        "an alias needs an anchor (`&name`) before it"
    } else if info.contains("did not find expected") {
        "the indentation of this line does not fit those before it"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.events.next_event() {
            Some(Ok(pair)) => Ok(pair),
            Some(Err(error)) => {
                let at = position(Span::empty(*error.marker()));
                if let Some(diagnostic) = indented_by_tab(self.source, at) {
                    return Err(diagnostic);
                }
                if error.info().contains("recursion limit") {
                    return Err(Diagnostic::new(
                        self.source,
                        at,
                        format!("nested deeper than {DEPTH_MAX} levels"),
                    ));
                }
                let message = format!("this is not valid YAML: {}", error.info());
                let diagnostic = Diagnostic::new(self.source, at, message);
                Err(match syntax_hint(self.source, at, error.info()) {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn error(&self, at: Position, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.source, at, message)
    }

    fn count(&mut self, at: Position, (nodes, bytes): (usize, usize)) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > NODES_MAX {
            return Err(self.error(at, format!("the file expands to more than {NODES_MAX} nodes")));
        }
        if self.bytes > TEXTS_BYTES_MAX {
            return Err(self.error(at, format!("the file expands to more than {TEXTS_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Diagnostic> {
        let at = position(span);
        if depth > DEPTH_MAX {
            return Err(self.error(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.count(at, (1, 0))?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                // A tag says what quotes would.
                let plain = match tag.as_deref().filter(|tag| tag.is_yaml_core_schema()) {
                    Some(tag) => tag.suffix != "str",
                    None => style == ScalarStyle::Plain,
                };
                (anchor, Value::Scalar { text: text.into_owned(), plain, block })
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => {
                let Some(size) = self.anchors.get(&anchor).map(Node::size) else {
                    return Err(self.error(at, "this alias refers to an anchor that is not complete here"));
                };
                self.count(at, size)?;
                return Ok(Node { at, value: self.anchors[&anchor].value.clone() });
            }
            _ => return Err(self.error(at, "this is not valid YAML: a value was expected")),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let at = position(span);
            let (text, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => return Err(self.error(at, "a key must be a scalar")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if plain && matches!(text.as_str(), "~" | "null" | "Null" | "NULL") {
                // What has no name is nowhere, as in melange.
                continue;
            }
            if text == "<<" && plain {
                merges.push(node);
                continue;
            }
            if let Some(first) = seen.insert(text.clone(), at) {
                let message = format!("the key `{text}` stands twice in this map");
                return Err(self.error(at, message).hint(format!("its first place is line {}", first.line)));
            }
            entries.push((Key { text, at }, node));
        }
        for merge in merges {
            self.merge(&mut entries, merge)?;
        }
        Ok(Value::Map(entries))
    }

    fn merge(&self, entries: &mut Vec<(Key, Node)>, merge: Node) -> Result<(), Diagnostic> {
        let at = merge.at;
        let maps = match merge.value {
            Value::Map(map) => vec![map],
            Value::List(items) => {
                let mut maps = Vec::new();
                for item in items {
                    match item.value {
                        Value::Map(map) => maps.push(map),
                        _ => return Err(self.error(item.at, "a merge key takes maps only")),
                    }
                }
                maps
            }
            Value::Scalar { .. } => return Err(self.error(at, "a merge key takes a map or a list of maps")),
        };
        let mut known: HashSet<String> = entries.iter().map(|(key, _)| key.text.clone()).collect();
        for (key, node) in maps.into_iter().flatten() {
            if known.insert(key.text.clone()) {
                entries.push((key, node));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Node>, Diagnostic> {
        read(&Source::new("t.yaml", text))
    }

    fn scalar(node: &Node) -> &str {
        match &node.value {
            Value::Scalar { text, .. } => text,
            _ => panic!("not a scalar"),
        }
    }

    #[test]
    fn scalars_stay_raw() {
        let node = parse("a: 1.10\nb: 00303\nc: \"x\\ty\"\nd: yes\n3.10: z\n").unwrap().unwrap();
        let Value::Map(entries) = node.value else { panic!("map") };
        let values: Vec<&str> = entries.iter().map(|(_, node)| scalar(node)).collect();
        assert_eq!(values, ["1.10", "00303", "x\ty", "yes", "z"]);
        assert_eq!(entries[4].0.text, "3.10");
        assert_eq!(entries[1].1.at, Position { line: 2, column: 4 });
    }

    #[test]
    fn duplicate_keys_are_refused_with_both_places() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.at, Some(Position { line: 3, column: 1 }));
        assert_eq!(error.hint.as_deref(), Some("its first place is line 1"));
    }

    #[test]
    fn merge_keys_give_what_the_map_lacks() {
        let node = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").unwrap().unwrap();
        let Value::Map(entries) = node.value else { panic!("map") };
        let Value::Map(used) = &entries[1].1.value else { panic!("map") };
        let pairs: Vec<(&str, &str)> = used.iter().map(|(k, n)| (k.text.as_str(), scalar(n))).collect();
        assert_eq!(pairs, [("y", "3"), ("x", "1")]);
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().message.contains("more than 500000 nodes"));
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn only_the_first_document_counts_and_nothing_is_none() {
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("# only a comment\n").unwrap(), None);
        assert_eq!(scalar(&parse("one\n---\n[broken").unwrap().unwrap()), "one");
    }
}
