//! What linters need of a definition: the linters that it switches off, and the pipelines that its tests use.

use std::collections::BTreeSet;

use super::linter::{self, Linter};
use crate::melange::document::{Document, Text};
use crate::text::diagnostics::Diagnostic;

/// The pipelines that the steps of one package's test use, by their names, such as `test/ldd-check`. Steps within steps
/// do not count, and neither does whether a step's condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TestSteps {
    /// There is no definition to tell them.
    Unknown,
    /// These.
    Uses(BTreeSet<String>),
}

impl TestSteps {
    /// Those of a package, main or sub; none for a package that the definition does not make.
    pub fn of(document: &Document, package: &str) -> Self {
        let test = if *document.package.name == *package {
            document.test.as_ref()
        } else {
            let sub = document.subpackages.iter().find(|sub| *sub.name == *package);
            sub.and_then(|sub| sub.test.as_ref())
        };
        let steps = test.into_iter().flat_map(|test| &test.pipeline);
        Self::Uses(steps.map(|step| step.uses.to_string()).filter(|uses| !uses.is_empty()).collect())
    }

    /// Whether one of these pipelines is used.
    #[cfg(any(test, feature = "apk"))]
    pub(super) fn has(&self, pipelines: &[&str]) -> bool {
        matches!(self, Self::Uses(uses) if pipelines.iter().any(|pipeline| uses.contains(*pipeline)))
    }
}

/// The names under `checks.disabled` that no linter has: such a definition does not build.
pub fn unknown_linters(document: &Document) -> Vec<Diagnostic> {
    let subpackages = document.subpackages.iter().map(|sub| &sub.checks);
    let named =
        std::iter::once(&document.package.checks).chain(subpackages).flat_map(|checks| &checks.disabled);
    let is_unknown = |name: &&Text| !name.contains("${{") && name.parse::<Linter>().is_err();
    let mistake = |name: &Text| {
        let diagnostic = Diagnostic::new(&document.source, name.at, linter::unknown(name));
        diagnostic.hint(linter::known_hint(name)).whole()
    };
    named.filter(is_unknown).map(mistake).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::diagnostics::{Diagnostics, Source};

    fn document(text: &str) -> Document {
        Document::parse(&Source::new("a.yaml", text)).unwrap()
    }

    #[test]
    fn unknown_names_are_told_with_their_place() {
        let text = "package:\n  name: a\n  version: '1'\n  epoch: 0\n  checks:\n    disabled:\n      - dev\n      \
                    - worldwrit\nsubpackages:\n  - name: a-dev\n    checks:\n      disabled: [nonsense, opt]\n";
        let found = unknown_linters(&document(text));
        insta::assert_snapshot!(Diagnostics(found).to_string());
    }

    #[test]
    fn the_steps_of_a_test_are_those_of_its_package() {
        let text = "package:\n  name: a\n  version: '1'\n  epoch: 0\ntest:\n  pipeline:\n    - uses: test/ldd-check\n    \
                    - pipeline:\n        - uses: test/pkgconf\nsubpackages:\n  - name: a-dev\n    test:\n      \
                    pipeline:\n        - uses: test/pkgconf\n  - name: a-doc\n";
        let document = document(text);
        let main = TestSteps::of(&document, "a");
        assert!(main.has(&["test/tw/ldd-check", "test/ldd-check"]) && !main.has(&["test/pkgconf"]));
        assert!(TestSteps::of(&document, "a-dev").has(&["test/pkgconf"]));
        assert_eq!(TestSteps::of(&document, "a-doc"), TestSteps::Uses(BTreeSet::new()));
        assert!(!TestSteps::Unknown.has(&["test/pkgconf"]));
    }
}
