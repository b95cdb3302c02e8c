//! The functions that templates may call.

use std::cmp::Ordering;
use std::rc::Rc;

use super::Value;

/// Their names.
pub(super) const NAMES: [&str; 17] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt", "le", "gt",
    "ge", "html", "urlquery",
];

/// The widest field and the most digits that `printf` fills.
const WIDTH_MAX: usize = 1_000;

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

type Called = Result<Value, String>;

/// Calls a function; the text that it makes has at most so many bytes.
pub(super) fn call(name: &str, values: &[Value], bytes_max: usize) -> Called {
    let result = match (name, values) {
        ("not", [value]) => Value::Bool(!value.is_true()),
        ("len", [value]) => length(value)?,
        ("index", [value, keys @ ..]) => {
            keys.iter().try_fold(value.clone(), |value, key| index(&value, key))?
        }
        ("slice", [value, bounds @ ..]) => slice(value, bounds)?,
        ("print", values) => Value::text(&print(values)),
        ("println", values) => Value::text(&println(values)),
        ("printf", [format, values @ ..]) => match format {
            Value::Text(format) => Value::text(&printf(format, values, bytes_max)?),
            other => return Err(format!("`printf` needs a text, not {}", other.kind())),
        },
        ("html", values) => Value::text(&escaped(&print(values))),
        ("urlquery", values) => Value::text(&encoded(&print(values))),
        ("eq", [first, second, more @ ..]) => {
            let mut others = std::iter::once(second).chain(more);
            Value::Bool(
                others.try_fold(false, |found, other| Ok::<_, String>(found || equal(first, other)?))?,
            )
        }
        ("ne", [first, second]) => Value::Bool(!equal(first, second)?),
        ("lt", [first, second]) => Value::Bool(order(first, second)?.is_lt()),
        ("le", [first, second]) => Value::Bool(order(first, second)?.is_le()),
        ("gt", [first, second]) => Value::Bool(order(first, second)?.is_gt()),
        ("ge", [first, second]) => Value::Bool(order(first, second)?.is_ge()),
        _ => return Err(format!("`{name}` does not take {} values", values.len())),
    };
    match &result {
        Value::Text(text) if text.len() > bytes_max => Err("the template's result is too large".to_owned()),
        _ => Ok(result),
    }
}

fn length(value: &Value) -> Called {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("`len` of {}", other.kind())),
    };
    Ok(Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: &Value, key: &Value) -> Called {
    match (value, key) {
        (Value::List(items), Value::Number(number)) => {
            let item = usize::try_from(*number).ok().and_then(|number| items.get(number));
            item.cloned().ok_or_else(|| format!("there is no index {number} in a list of {}", items.len()))
        }
        (Value::Text(text), Value::Number(number)) => {
            let byte = usize::try_from(*number).ok().and_then(|number| text.as_bytes().get(number));
            let byte =
                byte.ok_or_else(|| format!("there is no index {number} in a text of {}", text.len()))?;
            Ok(Value::Number(i64::from(*byte)))
        }
        // What a map of texts does not have is an empty text.
        (Value::Map(map), Value::Text(name)) => {
            Ok(map.get(&**name).cloned().unwrap_or_else(|| Value::text("")))
        }
        (value, key) => Err(format!("{} cannot be the index of {}", key.kind(), value.kind())),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Called {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("`slice` of {}", other.kind())),
    };
    let bound = |index: usize, other: usize| match bounds.get(index) {
        None => Ok(other),
        Some(Value::Number(number)) => usize::try_from(*number)
            .ok()
            .filter(|number| *number <= length)
            .ok_or_else(|| format!("there is no index {number} in what has {length}")),
        Some(other) => Err(format!("{} cannot be an index", other.kind())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let range = if from <= to && bounds.len() <= 2 {
        from..to
    } else {
        return Err("the indexes are out of order".to_owned());
    };
    match value {
        Value::Text(text) => {
            text.get(range).map(Value::text).ok_or_else(|| "the slice cuts a character in parts".to_owned())
        }
        Value::List(items) => Ok(Value::List(Rc::new(items.get(range).unwrap_or_default().to_vec()))),
        _ => Ok(Value::Nil),
    }
}

/// All values, with a space between two of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !after_text && !is_text {
            out.push(' ');
        }
        value.print_to(&mut out);
        after_text = is_text;
    }
    out
}

fn println(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        value.print_to(&mut out);
    }
    out.push('\n');
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A text as part of an address, as Go encodes it.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn equal(first: &Value, second: &Value) -> Result<bool, String> {
    match (first, second) {
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Number(a), Value::Number(b)) => Ok(a == b),
        (Value::Decimal(a), Value::Decimal(b)) => Ok(a == b),
        (Value::Nil | Value::Missing, other) | (other, Value::Nil | Value::Missing) => {
            Ok(matches!(other, Value::Nil | Value::Missing))
        }
        _ => Err(format!("{} cannot be compared with {}", first.kind(), second.kind())),
    }
}

fn order(first: &Value, second: &Value) -> Result<Ordering, String> {
    let ordering = match (first, second) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Decimal(a), Value::Decimal(b)) => a.partial_cmp(b),
        _ => None,
    };
    ordering.ok_or_else(|| format!("{} and {} have no order", first.kind(), second.kind()))
}

/// A place of a format: `%-5s` and the like.
#[derive(Default)]
struct Verb {
    left: bool,
    zeros: bool,
    sign: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

fn printf(format: &str, values: &[Value], bytes_max: usize) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if out.len() > bytes_max {
            return Err("the template's result is too large".to_owned());
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = rest.next_if(|c| matches!(c, '-' | '0' | '+' | '#' | ' ')) {
            match flag {
                '-' => verb.left = true,
                '0' => verb.zeros = true,
                '+' => verb.sign = true,
                '#' => verb.sharp = true,
                _ => {}
            }
        }
        let mut number = || {
            let mut number = None;
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                let digit = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or(0);
                number = Some((number.unwrap_or(0_usize) * 10 + digit).min(WIDTH_MAX + 1));
            }
            number
        };
        verb.width = number().unwrap_or(0);
        if rest.next_if_eq(&'.').is_some() {
            let mut digits = None;
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                let digit = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or(0);
                digits = Some((digits.unwrap_or(0_usize) * 10 + digit).min(WIDTH_MAX + 1));
            }
            verb.precision = Some(digits.unwrap_or(0));
        }
        if verb.width > WIDTH_MAX || verb.precision.is_some_and(|precision| precision > WIDTH_MAX) {
            return Err(format!("`printf` fills at most {WIDTH_MAX} characters"));
        }
        match rest.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match values.next() {
                None => out.push_str(&format!("%!{letter}(MISSING)")),
                Some(value) => out.push_str(&verb.format(letter, value)),
            },
        }
    }
    let left: Vec<String> = values.map(typed).collect();
    if !left.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", left.join(", ")));
    }
    Ok(out)
}

/// A value with its type, as Go complains about it.
fn typed(value: &Value) -> String {
    if matches!(value, Value::Nil | Value::Missing) {
        return "<nil>".to_owned();
    }
    let mut text = String::new();
    value.print_to(&mut text);
    format!("{}={text}", value.go_type())
}

impl Verb {
    fn format(&self, letter: char, value: &Value) -> String {
        let text = match (letter, value) {
            ('T', value) => value.go_type().to_owned(),
            // Each item of a list is formatted by itself.
            (_, Value::List(items)) if letter != 'v' => {
                let items: Vec<String> = items.iter().map(|item| self.format(letter, item)).collect();
                return format!("[{}]", items.join(" "));
            }
            ('v', Value::Nil | Value::Missing) => "<nil>".to_owned(),
            ('v', Value::Text(text)) if self.sharp => format!("{text:?}"),
            ('v' | 'd', Value::Number(number)) => self.number(*number, &number.unsigned_abs().to_string()),
            ('v', value) => {
                let mut text = String::new();
                value.print_to(&mut text);
                text
            }
            ('s', Value::Text(text)) => self.cut(text),
            ('q', Value::Text(text)) => go_quoted(&self.cut(text)),
            ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            ('t', Value::Bool(value)) => value.to_string(),
            ('x', Value::Number(number)) => self.number(*number, &format!("{:x}", number.unsigned_abs())),
            ('X', Value::Number(number)) => self.number(*number, &format!("{:X}", number.unsigned_abs())),
            ('o', Value::Number(number)) => self.number(*number, &format!("{:o}", number.unsigned_abs())),
            ('b', Value::Number(number)) => self.number(*number, &format!("{:b}", number.unsigned_abs())),
            ('c', Value::Number(number)) => {
                u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
            }
            ('f', Value::Decimal(number)) => format!("{number:.*}", self.precision.unwrap_or(6)),
            ('s' | 'd' | 'q', Value::Struct(_, fields)) => {
                let fields: Vec<String> =
                    fields.iter().map(|(_, value)| self.format(letter, value)).collect();
                return format!("{{{}}}", fields.join(" "));
            }
            (letter, Value::Nil | Value::Missing) => format!("%!{letter}(<nil>)"),
            (letter, value) => return format!("%!{letter}({})", typed(value)),
        };
        self.padded(&text)
    }

    fn cut(&self, text: &str) -> String {
        text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()
    }

    fn number(&self, number: i64, digits: &str) -> String {
        let sign = if number < 0 {
            "-"
        } else if self.sign {
            "+"
        } else {
            ""
        };
        let zeros = if self.zeros && !self.left { self.width.saturating_sub(sign.len()) } else { 0 };
        let least = self.precision.unwrap_or(zeros);
        format!("{sign}{}{digits}", "0".repeat(least.saturating_sub(digits.len())))
    }

    fn padded(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => format!("{}{text}", "0".repeat(missing)),
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}

/// A text in quotes, as Go writes it.
fn go_quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
