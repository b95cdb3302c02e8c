//! What templates work on: values that know which fields they may have, and how Go prints them.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A value; copies of the larger ones are shared.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing, such as a part of the definition that is not there.
    Nil,
    /// A key that a map does not have.
    Missing,
    Bool(bool),
    Number(i64),
    Decimal(f64),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    Map(Rc<BTreeMap<String, Value>>),
    /// The name of its type, and its fields in order.
    Struct(&'static str, Rc<Vec<(&'static str, Value)>>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What Go takes for true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::Missing => false,
            Self::Bool(value) => *value,
            Self::Number(number) => *number != 0,
            Self::Decimal(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Struct(..) => true,
        }
    }

    /// The kind in the words of messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Missing => "a key that is not there",
            Self::Bool(_) => "a truth value",
            Self::Number(_) | Self::Decimal(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Struct(name, _) => name,
        }
    }

    /// The name that Go's messages have for its type.
    pub(super) fn go_type(&self) -> &'static str {
        match self {
            Self::Nil | Self::Missing => "<nil>",
            Self::Bool(_) => "bool",
            Self::Number(_) => "int",
            Self::Decimal(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]string",
            Self::Map(_) => "map[string]string",
            Self::Struct(name, _) => name,
        }
    }

    /// As Go prints it: lists in brackets, structures in braces, each without commas.
    pub(super) fn print_to(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Missing => out.push_str("<no value>"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Decimal(number) => out.push_str(&number.to_string()),
            Self::Text(text) => out.push_str(text),
            Self::List(items) => print_all(out, "[", items.iter(), "]"),
            Self::Struct(_, fields) => print_all(out, "{", fields.iter().map(|(_, value)| value), "}"),
            Self::Map(map) => {
                out.push_str("map[");
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    out.push_str(key);
                    out.push(':');
                    value.print_to(out);
                }
                out.push(']');
            }
        }
    }
}

fn print_all<'a>(out: &mut String, open: &str, values: impl Iterator<Item = &'a Value>, close: &str) {
    out.push_str(open);
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(' ');
        }
        value.print_to(out);
    }
    out.push_str(close);
}
