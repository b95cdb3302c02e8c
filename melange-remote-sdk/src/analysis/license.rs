//! Whether a licence of a definition is an SPDX expression, as melange sees it.

use std::collections::HashMap;
use std::sync::LazyLock;

use spdx::identifiers::{EXCEPTIONS, LICENSES};
use spdx::{Expression, ParseMode};

/// What melange's own checker takes: `GPL-2.0+` and identifiers that the list deprecates too.
const MODE: ParseMode = ParseMode {
    allow_slash_as_or_operator: false,
    allow_imprecise_license_names: false,
    allow_postfix_plus_on_gpl: true,
    allow_deprecated: true,
    allow_unknown: false,
};

/// Licences and exceptions of the SPDX list, by their names in lower case.
static NAMES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let licenses = LICENSES.iter().map(|license| license.name);
    let names = licenses.chain(EXCEPTIONS.iter().map(|exception| exception.name));
    names.map(|name| (name.to_ascii_lowercase(), name)).collect()
});

/// Whether `text` is an SPDX expression of licences and exceptions that the SPDX list has, or of `LicenseRef-…`. The case
/// of identifiers does not matter, that of operators does.
pub(super) fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let spelt: Vec<String> = words.iter().map(|word| as_listed(word)).collect();
    !words.iter().any(|word| is_foreign(word)) && Expression::parse_mode(&spelt.join(" "), MODE).is_ok()
}

/// Words that the parser takes and melange's checker does not.
fn is_foreign(word: &str) -> bool {
    let is_operator = |name: &str| word.eq_ignore_ascii_case(name) && word != name;
    ["AND", "OR", "WITH"].into_iter().any(is_operator)
        || ["NONE", "NOASSERTION"].contains(&word)
        || word.contains("AdditionRef-")
}

/// An identifier as the list spells it; other words as they are.
fn as_listed(word: &str) -> String {
    let (name, plus) = word.strip_suffix('+').map_or((word, ""), |name| (name, "+"));
    NAMES.get(&name.to_ascii_lowercase()).map_or_else(|| word.to_owned(), |listed| format!("{listed}{plus}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What melange's checker (go-spdx v2.3.3) said of each.
    #[test]
    fn expressions_are_those_of_melange() {
        for text in [
            "MIT",
            "mit AND apache-2.0",
            "MIT  AND   ISC",
            "MIT OR (Apache-2.0 AND BSD-3-Clause)",
            "((MIT))",
            "GPL-2.0",
            "GPL-2.0+",
            "GPL-2.0-only+",
            "Apache-2.0+",
            "AGPL-3.0",
            "eCos-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "GPL-2.0-only WITH classpath-exception-2.0",
            "GPL-2.0-with-classpath-exception",
            "LicenseRef-foo",
            "DocumentRef-x:LicenseRef-foo",
        ] {
            assert!(is_expression(text), "{text}");
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
            "NONE",
            "NOASSERTION",
            "MIT OR NOASSERTION",
            "licenseref-foo",
            "AdditionRef-foo",
            "GPL-2.0-only WITH foo",
            "GPL-2.0-only with Classpath-exception-2.0",
            "GPL-2.0-only WITH AdditionRef-foo",
        ] {
            assert!(!is_expression(text), "{text}");
        }
    }
}
