//! Package URLs: `pkg:type/namespace/name@version?qualifiers#subpath`, in their canonical form.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands as it is in a qualifier: letters, digits, `.`, `-`, `_`, `~` and the colon.
const QUALIFIER: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~').remove(b':');
/// What stands as it is in a segment of a path: also most of what RFC 3986 lets stand there, but no `+` and no `@`.
const SEGMENT: &AsciiSet = &QUALIFIER
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// The parts of a package URL as they are before they are escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Purl<'a> {
    /// The type, such as `github`.
    pub(super) kind: &'static str,
    /// Segments with `/` between them.
    pub(super) namespace: &'a str,
    /// The name; slashes in it are escaped.
    pub(super) name: &'a str,
    /// The version, if any.
    pub(super) version: &'a str,
    /// Qualifiers; those without a value are left out.
    pub(super) qualifiers: BTreeMap<&'static str, String>,
    /// A path within the package, if any.
    pub(super) subpath: &'a str,
}

impl Purl<'_> {
    /// The URL; `None` without a name.
    pub(super) fn text(&self) -> Option<String> {
        if self.name.is_empty() {
            return None;
        }
        // The namespace and the name of these do not tell cases apart.
        let lower = self.kind == "github";
        let cased = |text: &str| if lower { text.to_lowercase() } else { text.to_owned() };
        let segment = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        let mut purl = format!("pkg:{}", self.kind);
        for part in cased(self.namespace).split('/').filter(|part| !part.is_empty()) {
            purl.push_str(&format!("/{}", segment(part)));
        }
        purl.push_str(&format!("/{}", segment(&cased(self.name))));
        if !self.version.is_empty() {
            purl.push_str(&format!("@{}", segment(self.version)));
        }
        let qualifiers = self.qualifiers.iter().filter(|(_, value)| !value.is_empty());
        for (index, (key, value)) in qualifiers.enumerate() {
            let sign = if index == 0 { '?' } else { '&' };
            purl.push_str(&format!("{sign}{key}={}", utf8_percent_encode(value, QUALIFIER)));
        }
        // Nothing leads out of a package.
        let parts = self.subpath.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
        let subpath: Vec<String> = parts.map(segment).collect();
        if !subpath.is_empty() {
            purl.push_str(&format!("#{}", subpath.join("/")));
        }
        Some(purl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What packageurl-go v0.1.6 makes of the same parts.
    #[test]
    fn urls_are_those_of_melange() {
        let generic = Purl { kind: "generic", name: "lib++x_y", version: "1.0_p1", ..Purl::default() };
        assert_eq!(generic.text().unwrap(), "pkg:generic/lib%2B%2Bx_y@1.0_p1");
        let qualifiers = BTreeMap::from([
            ("download_url", "https://example.org/a+b/sb.tar.gz?x=1&y=2".to_owned()),
            ("checksum", "sha256:aa".to_owned()),
            ("vcs_url", String::new()),
        ]);
        let fetched = Purl { kind: "generic", name: "a b", version: "1@2", qualifiers, ..Purl::default() };
        assert_eq!(
            fetched.text().unwrap(),
            "pkg:generic/a%20b@1%402?checksum=sha256:aa&download_url=https:%2F%2Fexample.org%2Fa%2Bb%2Fsb.tar.gz%3Fx%3D1%26y%3D2"
        );
        let github = Purl {
            kind: "github",
            namespace: "/Foo/",
            name: "Bar_Baz/",
            version: "v1(2)",
            subpath: "/./a b/../é+.yaml",
            ..Purl::default()
        };
        assert_eq!(github.text().unwrap(), "pkg:github/foo/bar_baz%2F@v1(2)#a%20b/%C3%A9%2B.yaml");
        assert_eq!(Purl { kind: "generic", ..Purl::default() }.text(), None);
    }
}
