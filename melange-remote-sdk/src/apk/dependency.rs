//! What packages say of each other: names with constraints, and names they provide.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::apko_version::ApkoVersion;
use super::version;
use crate::error::{Error, Result};

/// How a version is constrained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Any version.
    Any,
    /// `=`, `==`
    Equal,
    /// `<`
    Less,
    /// `<=`, `=<`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`, `=>`
    GreaterEqual,
    /// `~`, `=~`, `~=`: all that begins with the version.
    Fuzzy,
    /// `<~`: all that is older or begins with the version.
    LessFuzzy,
    /// `>~`: all that is newer or begins with the version.
    GreaterFuzzy,
    /// No constraint that means anything, such as `=` without a version: no version satisfies it.
    Malformed,
}

/// Whose order of versions decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// apko's, which builds follow.
    Apko,
    /// apk-tools', which installed systems follow.
    ApkTools,
}

impl Rules {
    /// The order of two versions; a text that is no version is older than any.
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Apko => ApkoVersion::parse(a).cmp(&ApkoVersion::parse(b)),
            Self::ApkTools => match (version::is_version(a), version::is_version(b)) {
                (true, true) => version::compare(a, b),
                (a, b) => a.cmp(&b),
            },
        }
    }

    /// The order of two versions and whether the first lies in what `~` and the second stand for.
    fn relate(self, actual: &str, required: &str) -> Option<(Ordering, bool)> {
        match self {
            Self::Apko => {
                let (actual, required) = (ApkoVersion::parse(actual)?, ApkoVersion::parse(required)?);
                Some((actual.cmp(&required), actual.is_like(&required)))
            }
            Self::ApkTools => {
                let whole = version::is_version(actual) && version::is_version(required);
                whole.then(|| {
                    let like = version::compare_fuzzy(actual, required).is_eq();
                    (version::compare(actual, required), like)
                })
            }
        }
    }

    /// Whether a text is a version by these rules.
    pub(crate) fn is_version(self, text: &str) -> bool {
        match self {
            Self::Apko => ApkoVersion::parse(text).is_some(),
            Self::ApkTools => version::is_version(text),
        }
    }
}

/// A dependency such as `!name`, `name>=1.2`, `so:libz.so.1` or `name@tag`, or a name that a package provides such as
/// `so:libz.so.1=1`; it borrows the text that it was read from.
///
/// ```
/// use melange_remote_sdk::apk::dependency::{Dependency, Operator};
/// let d = Dependency::parse("busybox>=1.36@edge");
/// assert_eq!((d.name, d.operator, d.pin), ("busybox", Operator::GreaterEqual, "edge"));
/// assert!(Dependency::parse("!foo").conflict);
/// assert!(Dependency::checked("foo=").is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Dependency<'a> {
    /// The whole text without a leading `!`.
    pub text: &'a str,
    /// Whether it is a conflict.
    pub conflict: bool,
    /// The name.
    pub name: &'a str,
    /// The operator.
    pub operator: Operator,
    /// The version's text; empty without one.
    pub version: Cow<'a, str>,
    /// The repository tag that it asks for; empty without one.
    pub pin: &'a str,
}

impl<'a> Dependency<'a> {
    /// Reads a dependency as a record of an index has it; what is malformed is kept as [`Operator::Malformed`].
    pub fn parse(text: &'a str) -> Self {
        Self::parse_as(text, Rules::Apko)
    }

    /// As [`Self::parse`], by the rules of one tool: apko's tag stands at the end and its sonames have versions of their
    /// own order; the tag of apk-tools stands behind the name.
    pub fn parse_as(text: &'a str, rules: Rules) -> Self {
        let (conflict, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (body, pin) = match text.rsplit_once('@') {
            Some((body, pin)) if rules == Rules::Apko && !body.is_empty() && is_tag(pin) => (body, pin),
            _ => (text, ""),
        };
        let start = body.find(is_operator).unwrap_or(body.len());
        let (name, rest) = body.split_at(start);
        let (name, pin) = match name.split_once('@') {
            Some((name, pin)) if rules == Rules::ApkTools && !name.is_empty() && is_tag(pin) => (name, pin),
            _ => (name, pin),
        };
        let (signs, version) = rest.split_at(rest.find(|c| !is_operator(c)).unwrap_or(rest.len()));
        let operator = match operator(signs, rules) {
            Operator::Any if signs.is_empty() => Operator::Any,
            _ if name.is_empty() || version.is_empty() => Operator::Malformed,
            known => known,
        };
        let version = match rules {
            Rules::Apko if signs.contains('=') => soname_version(name, version),
            _ => Cow::Borrowed(version),
        };
        Self { text, conflict, name, operator, version, pin }
    }

    /// The name that [`Self::parse_as`] reads, and nothing else.
    #[cfg(feature = "apk")]
    pub(crate) fn name_of(text: &'a str, rules: Rules) -> &'a str {
        let body = text.strip_prefix('!').unwrap_or(text);
        match body.find(|c| is_operator(c) || c == '@') {
            None => body,
            Some(at) if body.as_bytes().get(at) != Some(&b'@') => &body[..at],
            Some(_) => Self::parse_as(text, rules).name,
        }
    }

    /// Reads a dependency that somebody wrote.
    ///
    /// # Errors
    /// `InvalidRequest` for anything malformed: a missing name or version, an operator that means nothing here, a
    /// version that is none.
    pub fn checked(text: &'a str) -> Result<Self> {
        let dependency = Self::parse(text);
        dependency.check(text, |version| version::is_version(version) || Rules::Apko.is_version(version))?;
        Ok(dependency)
    }

    /// As [`Self::checked`], by the rules of one tool.
    ///
    /// # Errors
    /// As [`Self::checked`].
    pub fn checked_as(text: &'a str, rules: Rules) -> Result<Self> {
        let dependency = Self::parse_as(text, rules);
        dependency.check(text, |version| rules.is_version(version))?;
        Ok(dependency)
    }

    fn check(&self, text: &str, is_version: impl Fn(&str) -> bool) -> Result<()> {
        let wrong = |what: String| {
            Err(Error::invalid(format!("the dependency {text:?} {what}"))
                .hint("write `name`, `name=1.2-r0`, `name>=1.2` or `name~1.2`"))
        };
        if self.name.is_empty() {
            return wrong("has no name".to_owned());
        }
        if let Some((before, _)) = text.split_once(char::is_whitespace) {
            return wrong(format!("has a space behind {before:?}"));
        }
        if let Some((name, tag)) = self.name.split_once('@').or_else(|| self.version.split_once('@')) {
            return Err(Error::invalid(format!("the dependency {text:?} has {tag:?} behind `@` of {name:?}, which is no tag there"))
                .hint("for builds and `--pick` write the tag last, `name=1.2-r0@tag`; for apk-tools behind the name, `name@tag=1.2-r0`"));
        }
        match self.operator {
            Operator::Malformed if self.version.is_empty() => {
                wrong("has an operator and no version".to_owned())
            }
            Operator::Malformed => wrong("has an operator that means nothing".to_owned()),
            Operator::Any => Ok(()),
            _ if is_version(&self.version) => Ok(()),
            _ => wrong(format!("has the version {:?}, which is no apk version", self.version)),
        }
    }

    /// Whether `version` satisfies the constraint; a text that is no version satisfies only [`Operator::Any`].
    pub fn accepts(&self, version: &str, rules: Rules) -> bool {
        match self.operator {
            Operator::Any => return true,
            Operator::Malformed => return false,
            _ => {}
        }
        let Some((order, like)) = rules.relate(version, &self.version) else { return false };
        match self.operator {
            Operator::Any => true,
            Operator::Malformed => false,
            Operator::Equal => order.is_eq(),
            Operator::Less => order.is_lt(),
            Operator::LessEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterEqual => order.is_ge(),
            Operator::Fuzzy => like,
            Operator::LessFuzzy => like || order.is_lt(),
            Operator::GreaterFuzzy => like || order.is_gt(),
        }
    }
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '<' | '>' | '~')
}

/// What a run of signs means: apk takes it as a set, so order and repetition do not matter.
fn operator(signs: &str, rules: Rules) -> Operator {
    let has = |sign: char| signs.contains(sign);
    match (has('<'), has('>'), has('~'), has('=')) {
        (false, false, false, false) => Operator::Any,
        (false, false, false, true) => Operator::Equal,
        (false, false, true, _) => Operator::Fuzzy,
        (true, false, false, false) => Operator::Less,
        (true, false, false, true) => Operator::LessEqual,
        (true, false, true, _) => Operator::LessFuzzy,
        (false, true, false, false) => Operator::Greater,
        (false, true, false, true) => Operator::GreaterEqual,
        (false, true, true, _) => Operator::GreaterFuzzy,
        // All three together exclude nothing, and apk-tools takes them so.
        (true, true, fuzzy, equal) if rules == Rules::ApkTools && (fuzzy || equal) => Operator::Any,
        // apk's `><` compares checksums of installed packages, which no index has.
        (true, true, ..) => Operator::Malformed,
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Versions behind a soname count as `0.…` unless they are whole package versions, so that those always win.
fn soname_version<'a>(name: &str, version: &'a str) -> Cow<'a, str> {
    let whole = version
        .rsplit_once("-r")
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if name.starts_with("so:") && !version.is_empty() && !whole {
        Cow::Owned(format!("0.{version}"))
    } else {
        Cow::Borrowed(version)
    }
}

impl fmt::Display for Dependency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.conflict { "!" } else { "" }, self.text)
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
            ("foo~=1.2", "foo", Operator::Fuzzy, "1.2", ""),
            ("foo==1.2", "foo", Operator::Equal, "1.2", ""),
            ("foo<~1.2", "foo", Operator::LessFuzzy, "1.2", ""),
            ("foo~>1.2", "foo", Operator::GreaterFuzzy, "1.2", ""),
            ("foo=<1.2", "foo", Operator::LessEqual, "1.2", ""),
            ("foo><1.2", "foo", Operator::Malformed, "1.2", ""),
            ("foo=", "foo", Operator::Malformed, "", ""),
            ("foo>@edge", "foo", Operator::Malformed, "", "edge"),
            ("=1", "", Operator::Malformed, "1", ""),
            ("foo@edge", "foo", Operator::Any, "", "edge"),
            ("so:libq.so.1=1", "so:libq.so.1", Operator::Equal, "0.1", ""),
            ("so:libq.so.1=1.2.3-r0", "so:libq.so.1", Operator::Equal, "1.2.3-r0", ""),
            ("/bin/sh", "/bin/sh", Operator::Any, "", ""),
        ] {
            let found = Dependency::parse(text);
            assert_eq!(
                (found.name, found.operator, &*found.version, found.pin),
                (name, operator, version, pin),
                "{text}"
            );
        }
    }

    #[test]
    fn what_each_operator_accepts() {
        for (text, accepted, refused) in [
            ("a=1", "1-r0", "1-r1"),
            ("a==1", "1", "1-r1"),
            ("a~=1", "1.9-r3", "2"),
            ("a<~1", "1.9", "2"),
            ("a<~1", "0.5", "2"),
            ("a>~1", "1.0", "0.9"),
            ("a<=1", "1-r0", "1-r1"),
        ] {
            let wanted = Dependency::parse(text);
            assert!(wanted.accepts(accepted, Rules::Apko), "{text} {accepted}");
            assert!(!wanted.accepts(refused, Rules::Apko), "{text} {refused}");
        }
        assert!(!Dependency::parse("a=1").accepts("1-r0", Rules::ApkTools));
        assert!(!Dependency::parse("a=").accepts("1", Rules::Apko));
    }

    #[test]
    fn malformed_dependencies_are_refused_with_the_reason() {
        for (text, reason) in [
            ("foo=", "has an operator and no version"),
            ("foo>", "has an operator and no version"),
            ("foo~@edge", "has an operator and no version"),
            ("foo><1", "means nothing"),
            ("=1", "has no name"),
            ("", "has no name"),
            ("foo=a.b", "no apk version"),
            ("foo =1", "has a space"),
        ] {
            let told = Dependency::checked(text).unwrap_err().to_string();
            assert!(told.contains(reason), "{text}: {told}");
        }
        for text in ["foo", "!foo", "foo@edge", "foo>=1.2_rc1", "so:libc.so.6", "/bin/sh", "cmd:x=1-r0"] {
            assert!(Dependency::checked(text).is_ok(), "{text}");
        }
    }
}
