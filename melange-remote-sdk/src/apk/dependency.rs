//! What packages say of each other: names with constraints, and names they provide.

use std::fmt;

use super::version::Version;

/// How a version is constrained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Any version.
    Any,
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `~`, all that begins with the version.
    Fuzzy,
}

/// A dependency such as `!name`, `name>=1.2`, `so:libz.so.1` or `name@tag`.
///
/// ```
/// use melange_remote_sdk::apk::dependency::{Dependency, Operator};
/// let d = Dependency::parse("busybox>=1.36@edge");
/// assert_eq!((d.name.as_str(), d.operator, d.pin.as_str()), ("busybox", Operator::GreaterEqual, "edge"));
/// assert!(Dependency::parse("!foo").conflict);
/// ```
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The whole text without a leading `!`.
    pub text: String,
    /// Whether it is a conflict.
    pub conflict: bool,
    /// The name.
    pub name: String,
    /// The operator.
    pub operator: Operator,
    /// The version's text; empty without one.
    pub version_text: String,
    /// The version, when it parses.
    pub version: Option<Version>,
    /// The repository tag that it asks for; empty without one.
    pub pin: String,
}

impl Dependency {
    /// Reads a dependency; a text without a recognisable constraint is a name.
    pub fn parse(text: &str) -> Self {
        let (conflict, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (body, pin) = match text.rsplit_once('@') {
            Some((body, pin)) if !body.is_empty() && is_tag(pin) => (body, pin),
            _ => (text, ""),
        };
        let is_operator = |c: char| matches!(c, '=' | '<' | '>' | '~');
        let (name, operator, version_text) = match body.find(is_operator) {
            Some(start) if start > 0 => {
                let rest = &body[start..];
                let end = rest.find(|c| !is_operator(c)).unwrap_or(rest.len());
                let operator = match &rest[..end] {
                    "=" => Operator::Equal,
                    "<" => Operator::Less,
                    "<=" => Operator::LessEqual,
                    ">" => Operator::Greater,
                    ">=" => Operator::GreaterEqual,
                    "~" | "=~" => Operator::Fuzzy,
                    _ => Operator::Any,
                };
                (&body[..start], operator, &rest[end..])
            }
            _ => (body, Operator::Any, ""),
        };
        let version_text = soname_version(name, version_text);
        Self {
            text: text.to_owned(),
            conflict,
            name: name.to_owned(),
            operator: if version_text.is_empty() { Operator::Any } else { operator },
            version: Version::parse(&version_text),
            version_text,
            pin: pin.to_owned(),
        }
    }

    /// Whether `version` satisfies the constraint; a text that is no version satisfies only [`Operator::Any`].
    pub fn accepts(&self, version: Option<&Version>) -> bool {
        if self.operator == Operator::Any {
            return true;
        }
        let (Some(actual), Some(required)) = (version, &self.version) else { return false };
        match self.operator {
            Operator::Any => true,
            Operator::Equal => actual == required,
            Operator::Less => actual < required,
            Operator::LessEqual => actual <= required,
            Operator::Greater => actual > required,
            Operator::GreaterEqual => actual >= required,
            Operator::Fuzzy => actual.is_like(required),
        }
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Versions behind a soname count as `0.…` unless they are whole package versions, so that those always win.
fn soname_version(name: &str, version: &str) -> String {
    let whole = version
        .rsplit_once("-r")
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if name.starts_with("so:") && !version.is_empty() && !whole {
        format!("0.{version}")
    } else {
        version.to_owned()
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.conflict { "!" } else { "" }, self.text)
    }
}

/// A name that a package provides, such as `so:libz.so.1=1` or `cmd:ls`.
#[derive(Debug, Clone)]
pub struct Provide {
    /// The whole text.
    pub text: String,
    /// The name.
    pub name: String,
    /// The version's text; empty without one.
    pub version_text: String,
    /// The version, when it parses.
    pub version: Option<Version>,
}

impl Provide {
    /// Reads a provide.
    pub fn parse(text: &str) -> Self {
        let dependency = Dependency::parse(text);
        Self {
            text: text.to_owned(),
            name: dependency.name,
            version_text: dependency.version_text,
            version: dependency.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_pins() {
        for (text, name, operator, version, pin) in [
            ("foo", "foo", Operator::Any, "", ""),
            ("foo=1.2-r0", "foo", Operator::Equal, "1.2-r0", ""),
            ("foo=~1.2", "foo", Operator::Fuzzy, "1.2", ""),
            ("foo==1.2", "foo", Operator::Any, "1.2", ""),
            ("foo@edge", "foo", Operator::Any, "", "edge"),
            ("so:libq.so.1=1", "so:libq.so.1", Operator::Equal, "0.1", ""),
            ("so:libq.so.1=1.2.3-r0", "so:libq.so.1", Operator::Equal, "1.2.3-r0", ""),
            ("/bin/sh", "/bin/sh", Operator::Any, "", ""),
        ] {
            let dependency = Dependency::parse(text);
            assert_eq!(
                (&*dependency.name, dependency.operator, &*dependency.version_text, &*dependency.pin),
                (name, operator, version, pin),
                "{text}"
            );
        }
    }
}
