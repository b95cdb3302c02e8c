//! Licences of a definition as SPDX expressions: what melange takes as one, and what becomes a `LicenseRef-…`.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use spdx::identifiers::{EXCEPTIONS, LICENSES};

/// The list that documents say their identifiers are of.
pub(super) const LIST_VERSION: &str = "3.22";
/// Parentheses within parentheses: real expressions have one pair.
const DEPTH_MAX: usize = 64;
/// Identifiers and exceptions that the parser's list has and the one of melange's checker (go-spdx v2.7.0) does not.
const NEWER: [&str; 20] = [
    "atc-game",
    "BSD-2-Clause-pos-unchanged",
    "BSD-3-Clause-OpenWebUI",
    "BSD-ask-to-endorse",
    "BSD-Source-alt-GPL",
    "BSD-Source-Code-no-disclaimer",
    "Bugroff",
    "CC-BY-NC-3.0-IGO",
    "FDK-MPEG-H",
    "GFDL-1.1-invariants",
    "GFDL-1.1-no-invariants",
    "GFDL-1.2-invariants",
    "GFDL-1.2-no-invariants",
    "GFDL-1.3-invariants",
    "GFDL-1.3-no-invariants",
    "Hippocratic-3.0-core",
    "Informatica",
    "NOASSERTION",
    "Nokia-Qt-exception-1.1",
    "Spelling-Provider-LGPL-exception",
];

/// Names of a list by their lower case.
type Names = HashMap<String, &'static str>;

static LISTED: LazyLock<Names> = LazyLock::new(|| names(LICENSES.iter().map(|license| license.name)));
static LISTED_EXCEPTIONS: LazyLock<Names> = LazyLock::new(|| names(EXCEPTIONS.iter().map(|e| e.name)));

fn names(list: impl Iterator<Item = &'static str>) -> Names {
    list.filter(|name| !NEWER.contains(name)).map(|name| (name.to_ascii_lowercase(), name)).collect()
}

/// The identifier of the list that is `text` but for its case.
fn listed(text: &str) -> Option<&'static str> {
    LISTED.get(&text.to_ascii_lowercase()).copied()
}

/// What a definition declares as a licence, in the form that a document can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// A valid expression.
    pub(super) expression: String,
    /// The `LicenseRef-…` in it that are of this document.
    pub(super) references: BTreeSet<String>,
    /// What a text of this licence is kept under.
    pub(super) text_id: String,
}

impl Declared {
    /// Reads what stands in a definition; `None` when nothing does.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let made = || format!("LicenseRef-{}", sanitised(text));
        let Some(found) = Expression::read(text) else {
            let id = made();
            return Some(Self { expression: id.clone(), references: [id.clone()].into(), text_id: id });
        };
        let is_one = !found.text.contains(|c: char| !is_of_a_word(c) && c != '+');
        let text_id = if is_one { found.text.clone() } else { made() };
        Some(Self { expression: found.text, references: found.references, text_id })
    }
}

/// An expression that melange takes as one.
struct Expression {
    /// The expression; where melange's checker takes what the grammar does not have, what it takes it for.
    text: String,
    references: BTreeSet<String>,
}

impl Expression {
    fn read(text: &str) -> Option<Self> {
        if let Some(name) = listed(text) {
            // Such as `GPL-2.0+`, which is a name of the list in whole.
            let text = if name.eq_ignore_ascii_case(text) { text.to_owned() } else { name.to_owned() };
            return Some(Self { text, references: BTreeSet::new() });
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
            changed: false,
            references: BTreeSet::new(),
            parts: Vec::new(),
        };
        parser.alternatives(0)?;
        if parser.at < parser.tokens.len() {
            return None;
        }
        let text = if parser.changed { joined(&parser.parts) } else { text.to_owned() };
        Some(Self { text, references: parser.references })
    }
}

/// Words with spaces between them, but not inside of parentheses.
fn joined(parts: &[String]) -> String {
    parts.join(" ").replace("( ", "(").replace(" )", ")")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Colon,
    Plus,
    Word(&'a str),
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.')
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut spaced = false;
    while let Some(first) = rest.chars().next() {
        let token = match first {
            ' ' => None,
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ':' => Some(Token::Colon),
            '+' if spaced => return None,
            '+' => Some(Token::Plus),
            c if is_of_a_word(c) => {
                let end = rest.find(|c: char| !is_of_a_word(c)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                tokens.push(Token::Word(word));
                (rest, spaced) = (behind, false);
                continue;
            }
            _ => return None,
        };
        spaced = token.is_none();
        tokens.extend(token);
        rest = &rest[1..];
    }
    Some(tokens)
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Whether what was written is not what the grammar has.
    changed: bool,
    references: BTreeSet<String>,
    /// The expression in the grammar's form.
    parts: Vec<String>,
}

impl<'a> Parser<'a> {
    fn next_is(&mut self, token: Token<'_>) -> bool {
        let found = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<&'a str> {
        let Some(Token::Word(word)) = self.tokens.get(self.at) else { return None };
        self.at += 1;
        Some(word)
    }

    fn operator(&mut self, name: &str) -> bool {
        let found = self.next_is(Token::Word(name));
        if found {
            self.parts.push(name.to_owned());
        }
        found
    }

    fn alternatives(&mut self, depth: usize) -> Option<()> {
        loop {
            self.conjunction(depth)?;
            if !self.operator("OR") {
                return Some(());
            }
        }
    }

    fn conjunction(&mut self, depth: usize) -> Option<()> {
        loop {
            self.operand(depth)?;
            if !self.operator("AND") {
                return Some(());
            }
        }
    }

    fn operand(&mut self, depth: usize) -> Option<()> {
        if self.next_is(Token::Open) {
            self.parts.push("(".to_owned());
            if depth >= DEPTH_MAX {
                return None;
            }
            self.alternatives(depth + 1)?;
            self.parts.push(")".to_owned());
            return self.next_is(Token::Close).then_some(());
        }
        let word = self.word()?;
        if word.strip_prefix("DocumentRef-").is_some_and(|name| !name.is_empty()) {
            let of_it = self.next_is(Token::Colon).then(|| self.word()).flatten()?;
            let _ = of_it.strip_prefix("LicenseRef-").filter(|name| !name.is_empty())?;
            self.parts.push(format!("{word}:{of_it}"));
            return Some(());
        }
        if word.strip_prefix("LicenseRef-").is_some_and(|name| !name.is_empty()) {
            self.references.insert(word.to_owned());
            self.parts.push(word.to_owned());
            return Some(());
        }
        self.license(word)
    }

    fn license(&mut self, word: &str) -> Option<()> {
        let plus = self.next_is(Token::Plus);
        let mut text = match listed(word) {
            Some(_) => word.to_owned(),
            // The checker takes these behind every licence, the list has them for some.
            None => {
                self.changed = true;
                let later = word.strip_suffix("-or-later").and_then(listed).map(|name| format!("{name}+"));
                later.or_else(|| word.strip_suffix("-only").and_then(listed).map(str::to_owned))?
            }
        };
        if plus && !text.ends_with('+') {
            text.push('+');
        }
        self.parts.push(text);
        let with = self.tokens.get(self.at).copied();
        // Of an expression that is nothing else, the operator may be written small.
        let is_alone = self.at == 1 + usize::from(plus) && self.tokens.len() == self.at + 2;
        let is_with = matches!(with, Some(Token::Word(with)) if with == "WITH"
            || (is_alone && with.eq_ignore_ascii_case("WITH")));
        if is_with {
            self.changed |= with != Some(Token::Word("WITH"));
            self.at += 1;
            let exception = self.word()?;
            LISTED_EXCEPTIONS.get(&exception.to_ascii_lowercase())?;
            self.parts.extend(["WITH".to_owned(), exception.to_owned()]);
        }
        Some(())
    }
}

/// What may stand behind `LicenseRef-`.
fn sanitised(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if matches!(c, ' ' | '_') { '-' } else { c })
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .collect();
    if clean.is_empty() { hex::encode(&Sha256::digest(text.as_bytes())[..8]) } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Option<String> {
        Expression::read(text).map(|found| found.text)
    }

    /// What melange's checker (go-spdx v2.7.0) said of each.
    #[test]
    fn expressions_are_those_of_melange() {
        for text in [
            "MIT",
            "mit AND apache-2.0",
            "MIT  AND   ISC",
            "MIT OR (Apache-2.0 AND BSD-3-Clause)",
            "((MIT))",
            "(MIT)AND(ISC)",
            "GPL-2.0",
            "GPL-2.0+",
            "gpl-2.0+ AND MIT",
            "GPL-2.0-only+",
            "Apache-2.0+",
            "AGPL-3.0",
            "eCos-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "GPL-2.0-only WITH classpath-exception-2.0",
            "GPL-2.0+ WITH Bison-exception-2.2 OR MIT",
            "GPL-2.0-with-classpath-exception",
            "LicenseRef-foo",
            "DocumentRef-x:LicenseRef-foo",
        ] {
            assert_eq!(expression(text).as_deref(), Some(text));
        }
        for (text, valid) in [
            ("MIT-or-later", "MIT+"),
            ("(ISC-only OR MIT)", "(ISC OR MIT)"),
            ("GPL-2.0-only with Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ] {
            assert_eq!(expression(text).as_deref(), Some(valid));
        }
        for text in [
            "",
            "Custom",
            "PROPRIETARY",
            "BSD",
            "public-domain",
            "Apache 2.0",
            "MIT BSD GPL2+",
            "MIT Apache-2.0",
            "MIT/Apache-2.0",
            "MIT and Apache-2.0",
            "MIT AND",
            "(MIT",
            "MIT)",
            "MIT +",
            "MIT\tAND ISC",
            "NONE",
            "NOASSERTION",
            "MIT OR NOASSERTION",
            "Bugroff",
            "licenseref-foo",
            "LicenseRef-",
            "LicenseRef-a_b",
            "AdditionRef-foo",
            "Classpath-exception-2.0",
            "GPL-2.0-only WITH foo",
            "MIT OR GPL-2.0-only with Classpath-exception-2.0",
            "GPL-2.0-only WITH AdditionRef-foo",
        ] {
            assert_eq!(expression(text), None, "{text}");
        }
        assert_eq!(expression(&"(".repeat(100_000)), None);
    }

    #[test]
    fn what_is_declared_can_stand_in_a_document() {
        let read = |text| {
            let declared = Declared::read(text).unwrap();
            (declared.expression, declared.references.into_iter().collect::<Vec<_>>(), declared.text_id)
        };
        let one = |id: &str| (id.to_owned(), vec![id.to_owned()], id.to_owned());
        assert_eq!(read("MIT"), ("MIT".to_owned(), vec![], "MIT".to_owned()));
        assert_eq!(read("Custom License"), one("LicenseRef-Custom-License"));
        assert_eq!(read("MIT BSD GPL2+"), one("LicenseRef-MIT-BSD-GPL2"));
        assert_eq!(read("LicenseRef-a"), one("LicenseRef-a"));
        assert_eq!(read("☃"), one("LicenseRef-51643361c79ecaef"));
        let (expression, references, text_id) = read("MIT OR LicenseRef-a AND DocumentRef-d:LicenseRef-b");
        assert_eq!(expression, "MIT OR LicenseRef-a AND DocumentRef-d:LicenseRef-b");
        assert_eq!(references, ["LicenseRef-a"]);
        assert_eq!(text_id, "LicenseRef-MIT-OR-LicenseRef-a-AND-DocumentRef-dLicenseRef-b");
        assert_eq!(Declared::read("  "), None);
    }
}
