//! The hand that reads nodes into types: every mistake is collected, reading goes on with a zero value.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Text, TextMap};
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source, nearest};
use crate::text::yaml::{Key, Node, Value};

/// Reads nodes of one source.
pub(super) struct Decoder<'a> {
    pub(super) source: &'a Arc<Source>,
    errors: Vec<Diagnostic>,
    lenient: bool,
    /// How many mistakes left a value behind that is not what was written; unknown fields do not count.
    lost: usize,
}

/// The entries of a map, with the names that were asked for.
pub(super) struct Fields<'n> {
    what: &'static str,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The node of a field; `None` when it is missing or null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        self.entries
            .iter()
            .find(|(key, _)| key.text == name)
            .map(|(_, node)| node)
            .filter(|node| !node.is_null())
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn strict(source: &'a Arc<Source>) -> Self {
        Self { source, errors: Vec::new(), lenient: false, lost: 0 }
    }

    pub(super) fn lenient(source: &'a Arc<Source>) -> Self {
        Self { source, errors: Vec::new(), lenient: true, lost: 0 }
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.errors.is_empty() { Ok(value) } else { Err(Diagnostics(self.mistakes())) }
    }

    /// The mistakes in source order.
    pub(super) fn mistakes(mut self) -> Vec<Diagnostic> {
        self.errors.sort_by_key(|error| error.at);
        self.errors.truncate(limits::DIAGNOSTICS_MAX);
        self.errors
    }

    /// Reads a part that later stages build on: whether it came through whole, and the part.
    pub(super) fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> (bool, T) {
        let before = self.lost;
        let value = read(self);
        (self.lost == before, value)
    }

    pub(super) fn error(&mut self, at: Position, message: impl Into<String>) -> &mut Diagnostic {
        self.lost += 1;
        let index = self.errors.len();
        self.errors.push(Diagnostic::new(self.source, at, message));
        &mut self.errors[index]
    }

    /// The entries of a map; anything else is an error and gives none.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, what: &'static str) -> Fields<'n> {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Map(entries) => entries,
            _ if node.is_null() => &[],
            _ => {
                self.error(node.at, format!("{what} must be a map, this is {}", node.kind()));
                &[]
            }
        };
        Fields { what, entries, known: Vec::new() }
    }

    pub(super) fn refuse_unknown(&mut self, fields: &Fields<'_>) {
        if self.lenient {
            return;
        }
        for (key, _) in fields.entries {
            if self.errors.len() >= limits::DIAGNOSTICS_MAX {
                return;
            }
            if !fields.known.contains(&key.text.as_str()) {
                let hint = match nearest(&key.text, fields.known.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => {
                        let mut known = fields.known.clone();
                        known.sort_unstable();
                        format!("known fields: {}", known.join(", "))
                    }
                };
                let message = format!("unknown field `{}` in {}", key.text, fields.what);
                self.errors.push(Diagnostic::new(self.source, key.at, message).hint(hint));
            }
        }
    }

    /// A scalar as raw text; missing and null give an empty one.
    pub(super) fn text(&mut self, node: Option<&Node>) -> Text {
        let Some(node) = node else { return Text::default() };
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Text { value: text.clone(), at: node.at },
            Value::Scalar { .. } => Text { value: String::new(), at: node.at },
            _ => {
                self.error(node.at, format!("a text is expected, this is {}", node.kind())).hint = Some(
                    "write a scalar; a list of words goes into one text, separated by spaces".to_owned(),
                );
                Text::default()
            }
        }
    }

    pub(super) fn list<T>(&mut self, node: Option<&Node>, read: impl Fn(&mut Self, &Node) -> T) -> Vec<T> {
        let Some(node) = node else { return Vec::new() };
        match &node.value {
            // An item without a value is no item.
            Value::List(items) => {
                items.iter().filter(|item| !item.is_null()).map(|item| read(self, item)).collect()
            }
            _ => {
                self.error(node.at, format!("a list is expected, this is {}", node.kind())).hint =
                    Some("write each item on its own line behind `- `".to_owned());
                Vec::new()
            }
        }
    }

    pub(super) fn texts(&mut self, node: Option<&Node>) -> Vec<Text> {
        self.list(node, |decoder, item| decoder.text(Some(item)))
    }

    pub(super) fn map_of<T>(
        &mut self,
        node: Option<&Node>,
        read: impl Fn(&mut Self, &Node) -> T,
    ) -> BTreeMap<String, T> {
        let Some(node) = node else { return BTreeMap::new() };
        match &node.value {
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| (key.text.clone(), read(self, node))).collect()
            }
            _ => {
                self.error(node.at, format!("a map is expected, this is {}", node.kind()));
                BTreeMap::new()
            }
        }
    }

    pub(super) fn text_map(&mut self, node: Option<&Node>) -> TextMap {
        self.map_of(node, |decoder, item| decoder.text(Some(item)))
    }

    /// A boolean as melange reads it: `true` and `false` of YAML 1.2 without quotes, and some words of YAML 1.1.
    pub(super) fn boolean(&mut self, node: Option<&Node>) -> bool {
        let text = self.text(node);
        let plain = node.is_none_or(|node| matches!(&node.value, Value::Scalar { plain: true, .. }));
        match &*text.value {
            "n" | "N" | "no" | "off" => false,
            "y" | "Y" | "yes" | "on" => true,
            "" | "false" | "False" | "FALSE" if plain => false,
            "true" | "True" | "TRUE" if plain => true,
            _ => {
                self.error(text.at, format!("{:?} is not a boolean", text.value)).hint =
                    Some("write `true` or `false`, without quotes".to_owned());
                false
            }
        }
    }

    /// An unsigned integer in decimal, `0x`, `0o`, `0b` or octal with a leading zero, with `_` separators.
    pub(super) fn integer(&mut self, node: Option<&Node>) -> Option<u64> {
        let node = node?;
        let text = self.text(Some(node));
        let plain = matches!(&node.value, Value::Scalar { plain: true, .. });
        let digits = text.replace('_', "");
        let parsed = match digits.get(..2) {
            Some("0x") => u64::from_str_radix(&digits[2..], 16).ok(),
            Some("0o") => u64::from_str_radix(&digits[2..], 8).ok(),
            Some("0b") => u64::from_str_radix(&digits[2..], 2).ok(),
            Some(_) if digits.starts_with('0') => u64::from_str_radix(&digits[1..], 8).ok(),
            _ => digits.parse().ok(),
        };
        // What is no octal number, and what has a fraction of nothing.
        let whole = digits.split_once('.').map_or(&*digits, |(whole, fraction)| {
            if fraction.bytes().all(|byte| byte == b'0') { whole } else { "" }
        });
        let decimal =
            || whole.bytes().all(|byte| byte.is_ascii_digit()).then(|| whole.parse().ok()).flatten();
        let parsed = parsed.or_else(decimal).or_else(|| with_exponent(&digits));
        let parsed = parsed.filter(|_| plain);
        if parsed.is_none() {
            self.error(node.at, format!("{:?} is not a whole number", text.value)).hint =
                Some("write digits without quotes".to_owned());
        }
        parsed
    }
}

/// A number such as `1e2`, when it is whole.
fn with_exponent(digits: &str) -> Option<u64> {
    /// Up to here every whole number has a floating-point number of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let begins = digits.starts_with(|c: char| c.is_ascii_digit());
    let number: f64 = digits.parse().ok().filter(|_| begins && digits.contains(['e', 'E']))?;
    if number.fract() != 0.0 || !(0.0..=EXACT_MAX).contains(&number) {
        return None;
    }
    format!("{number:.0}").parse().ok()
}
