//! pkg-config's files: what they require.

use std::collections::{BTreeMap, BTreeSet};

/// Texts of a file's variables, each made of those before it: what doubles with every line is no file of pkg-config's.
const EXPANDED_BYTES_MAX: usize = 64 << 10;
/// All texts of a file's variables and fields; a file beyond it requires nothing.
const FILE_BYTES_MAX: usize = 4 << 20;
/// The fields that name what a file requires.
const FIELDS: [&str; 3] = ["Requires", "Requires.private", "Requires.internal"];

/// The identifiers of the `Requires` fields, variables expanded; of a field that is there twice, the last one counts.
/// Nothing when an identifier holds a `+`: melange then leaves the whole file out, so packages that it made do not
/// provide what such files require.
pub(super) fn required(text: &str) -> BTreeSet<String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let text = text.replace("\\\n", " ");
    let mut bytes = 0usize;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((at, sign)) = line.char_indices().find(|(_, c)| matches!(c, ':' | '=')) else { continue };
        let (key, value) = (line[..at].trim(), expand(line[at + 1..].trim(), &variables));
        bytes += value.len();
        if bytes > FILE_BYTES_MAX {
            return BTreeSet::new();
        }
        if sign == '=' {
            variables.insert(key.to_owned(), value);
        } else if let Some(field) = FIELDS.into_iter().find(|field| *field == key) {
            fields.insert(field, identifiers(&value));
        }
    }
    let names: BTreeSet<String> = fields.into_values().flatten().collect();
    if names.iter().any(|name| name.contains('+')) { BTreeSet::new() } else { names }
}

fn expand(value: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, behind)) = behind.split_once('}') else { break };
        result.push_str(before);
        result.push_str(variables.get(name).map_or("", String::as_str));
        rest = behind;
        if result.len() > EXPANDED_BYTES_MAX {
            return String::new();
        }
    }
    result.push_str(rest);
    result
}

/// The names in a list with commas, spaces and versions, such as `a >= 1, b>2 c`.
fn identifiers(value: &str) -> Vec<String> {
    let is_sign = |c: char| matches!(c, '<' | '>' | '=' | '!');
    let mut names = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        let end = rest.find(|c: char| c == ',' || c.is_whitespace() || is_sign(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        if !name.is_empty() {
            names.push(name.to_owned());
        }
        if behind.is_empty() {
            return names;
        }
        let version = behind.trim_start().trim_start_matches(is_sign);
        rest = behind;
        if version.len() < behind.trim_start().len() {
            // What is compared with.
            let version = version.trim_start();
            let end = version.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(version.len());
            rest = &version[end..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        required(text).into_iter().collect()
    }

    #[test]
    fn versions_are_dropped_and_variables_expanded() {
        assert_eq!(names("v=9\nRequires: a>=1 b >= 2,c=3 d > ${v} e1.0\n"), ["a", "b", "c", "d", "e1.0"]);
        assert_eq!(names("x=a >= 1, b\nx2=${x} c\nRequires.private: ${x2} ${none}\n"), ["a", "b", "c"]);
        assert_eq!(names("Requires: ,a,,b, \nRequires.internal: c => 2 d\n"), ["a", "b", "c", "d"]);
        assert_eq!(names("Requires: a # b\nrequires: c\nConflicts: d\nProvides: e\nLibs: -lf\n"), ["a"]);
        assert_eq!(names("Requires: a \\\n  b\n"), ["a", "b"]);
        assert_eq!(names("Requires: a ov1 1.0 >\n"), ["1.0", "a", "ov1"]);
    }

    #[test]
    fn the_last_of_two_fields_counts() {
        assert_eq!(names("Requires: a\nRequires.private: b\nRequires: c\n"), ["b", "c"]);
    }

    #[test]
    fn a_plus_leaves_the_requirements_out() {
        assert!(names("Requires: a sigc++-2.0\n").is_empty());
    }

    #[test]
    fn variables_do_not_grow_without_end() {
        let mut text = "a=0123456789\n".to_owned();
        for _ in 0..60 {
            text.push_str("a=${a}${a}\n");
        }
        text.push_str("Requires: ${a} b\n");
        assert!(required(&text).len() <= 2);
        let many: String = (0..1_000).map(|number| format!("a{number}=${{x}}\n")).collect();
        let text = format!("x={}\n{many}Requires: b\n", "y".repeat(10_000));
        assert!(names(&text).is_empty(), "all together are bounded too");
    }
}
