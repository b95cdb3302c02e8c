//! Both passes over `${{…}}`: the exact-token replacement at parse time, which leaves unknown tokens alone, and
//! the strict substitution at compile time, for which an undefined name is an error.

use std::collections::BTreeMap;

use crate::limits;

/// Variables by name, without the `${{ }}`.
pub type Variables = BTreeMap<String, String>;

/// Where references find their values.
pub trait Lookup {
    /// The value of a variable.
    fn value(&self, name: &str) -> Option<&str>;
    /// Every name that has a value, for hints.
    fn names(&self) -> Vec<&str>;
}

impl Lookup for Variables {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

/// Variables on top of others: what a step sees, without a copy of everything around it.
#[derive(Debug)]
pub struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    own: Variables,
}

impl<'a> Scope<'a> {
    /// The outermost scope.
    pub fn new(own: Variables) -> Self {
        Self { outer: None, own }
    }

    /// A scope inside this one; its own variables hide those of the same name.
    pub fn inner(&'a self, own: Variables) -> Scope<'a> {
        Scope { outer: Some(self), own }
    }

    /// Sets a variable of this scope.
    pub fn set(&mut self, name: String, value: String) {
        self.own.insert(name, value);
    }

    /// Whether this scope adds nothing to the one around it.
    pub fn is_transparent(&self) -> bool {
        self.own.is_empty()
    }
}

impl Lookup for Scope<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some(value) = current.own.get(name) {
                return Some(value);
            }
            scope = current.outer;
        }
        None
    }

    fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut scope = Some(self);
        while let Some(current) = scope {
            names.extend(current.own.keys().map(String::as_str));
            scope = current.outer;
        }
        names
    }
}

/// Replaces every literal `${{name}}` whose name is known; one pass, inserted text is not scanned again. `None` when
/// the result would have more than [`limits::TEXT_BYTES_MAX`] bytes.
pub fn replace_tokens(text: &str, variables: &Variables) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    // Where the next closing braces are; looked for once, however many openings stand before them.
    let mut close = 0;
    while let Some(start) = text[at..].find("${{").map(|start| at + start) {
        if result.len() > limits::TEXT_BYTES_MAX {
            return None;
        }
        let name = start + 3;
        if close < name {
            match text[name..].find("}}") {
                Some(end) => close = name + end,
                None => break,
            }
        }
        result.push_str(&text[at..start]);
        match variables.get(&text[name..close]) {
            Some(value) => {
                result.push_str(value);
                at = close + 2;
            }
            None => {
                result.push_str("${{");
                at = name;
            }
        }
    }
    result.push_str(&text[at..]);
    (result.len() <= limits::TEXT_BYTES_MAX).then_some(result)
}

/// A mistake of the strict pass and the byte of its `${{`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubstituteError {
    /// What is wrong.
    pub kind: SubstituteErrorKind,
    /// Where its reference begins.
    pub offset: usize,
}

/// What can be wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubstituteErrorKind {
    /// Nothing stands between the braces.
    EmptyName,
    /// The closing braces are missing, or something else stands before them.
    Unterminated(String),
    /// The name is not defined.
    Undefined(String),
    /// The result is too large.
    TooLarge,
}

impl std::fmt::Display for SubstituteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            SubstituteErrorKind::EmptyName => f.write_str("empty variable name in `${{ }}`"),
            SubstituteErrorKind::Unterminated(name) => {
                write!(f, "the variable reference `${{{{{name}` has no closing `}}}}`")
            }
            SubstituteErrorKind::Undefined(name) => write!(f, "the variable `{name}` is not defined"),
            SubstituteErrorKind::TooLarge => {
                write!(
                    f,
                    "with its variables replaced the text has more than {} bytes",
                    limits::TEXT_BYTES_MAX
                )
            }
        }
    }
}

/// Replaces every `${{ name }}`; white space inside is free; inserted text is not scanned again.
///
/// # Errors
/// Every mistake of the text, in order.
pub fn substitute(text: &str, variables: &impl Lookup) -> Result<String, Vec<SubstituteError>> {
    substitute_with(text, |name, result| variables.value(name).map(|value| result.push_str(value)))
}

/// As [`substitute`], each value inserted as a double-quoted string, for conditions.
///
/// # Errors
/// Every mistake of the text, in order.
pub fn substitute_quoted(text: &str, variables: &impl Lookup) -> Result<String, Vec<SubstituteError>> {
    substitute_with(text, |name, result| variables.value(name).map(|value| quote(value, result)))
}

fn quote(value: &str, quoted: &mut String) {
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
}

fn substitute_with(
    text: &str,
    insert: impl Fn(&str, &mut String) -> Option<()>,
) -> Result<String, Vec<SubstituteError>> {
    let blank = [' ', '\t', '\r', '\n'];
    let mut result = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        result.push_str(&rest[..start]);
        let offset = text.len() - rest.len() + start;
        if result.len() > limits::TEXT_BYTES_MAX || errors.len() > limits::DIAGNOSTICS_MAX {
            errors.push(SubstituteError { kind: SubstituteErrorKind::TooLarge, offset });
            return Err(errors);
        }
        let mut refuse = |kind| errors.push(SubstituteError { kind, offset });
        rest = rest[start + 3..].trim_start_matches(blank);
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
            .unwrap_or(rest.len());
        let name = &rest[..end];
        let after = rest[end..].trim_start_matches(blank);
        if let Some(after) = after.strip_prefix("}}") {
            rest = after;
            if name.is_empty() {
                refuse(SubstituteErrorKind::EmptyName);
            } else if insert(name, &mut result).is_none() {
                refuse(SubstituteErrorKind::Undefined(name.to_owned()));
            }
        } else {
            refuse(SubstituteErrorKind::Unterminated(name.to_owned()));
            rest = after;
        }
    }
    result.push_str(rest);
    if errors.is_empty() { Ok(result) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn tokens_are_exact_and_not_rescanned() {
        let map = variables(&[("a", "${{b}}"), ("b", "x")]);
        assert_eq!(
            replace_tokens("${{a}} ${{ b }} ${{b}} ${{c}} ${{", &map).unwrap(),
            "${{b}} ${{ b }} x ${{c}} ${{"
        );
        assert_eq!(replace_tokens("${{ ${{b}}", &map).unwrap(), "${{ x");
    }

    #[test]
    fn the_strict_pass_collects_every_mistake() {
        let map = variables(&[("a.b-c_1", "v")]);
        assert_eq!(substitute("<${{ a.b-c_1 }}>", &map).unwrap(), "<v>");
        assert_eq!(
            substitute("${{}} ${{x}} ${{y z}}", &map).unwrap_err(),
            [
                SubstituteError { kind: SubstituteErrorKind::EmptyName, offset: 0 },
                SubstituteError { kind: SubstituteErrorKind::Undefined("x".to_owned()), offset: 6 },
                SubstituteError { kind: SubstituteErrorKind::Unterminated("y".to_owned()), offset: 13 },
            ]
        );
    }

    #[test]
    fn conditions_get_quoted_values() {
        let map = variables(&[("a", "x\"y")]);
        assert_eq!(substitute_quoted("${{a}} == 'z'", &map).unwrap(), r#""x\"y" == 'z'"#);
    }

    proptest! {
        #[test]
        fn text_without_references_is_unchanged(text in "[a-z $}{\\n]{0,60}") {
            prop_assume!(!text.contains("${{"));
            prop_assert_eq!(substitute(&text, &Variables::new()).unwrap(), text.clone());
            prop_assert_eq!(replace_tokens(&text, &Variables::new()).unwrap(), text);
        }

        #[test]
        fn hostile_text_never_panics(text in "(\\$\\{\\{|\\}\\}|[a-zé. ]){0,20}") {
            let _ = substitute(&text, &variables(&[("a", "b")]));
            let _ = replace_tokens(&text, &variables(&[("a", "b")]));
        }
    }
}
