//! What a package was made from: the top-level steps named exactly `fetch` or `git-checkout`.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::model::{Checksum, NO_ASSERTION, Package};
use super::{Licenses, SbomInput, identifier, organization, purl};
use crate::analysis::purl::Purl;
use crate::melange::plan::PlanStep;
use crate::redact::without_user;

/// What no URI holds, and what the format reserves for itself.
const NOT_IN_URIS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The sources that these steps get.
pub(super) fn of(steps: &[PlanStep], input: &SbomInput<'_>, licenses: &Licenses) -> Vec<Package> {
    steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step.uses.as_str() {
            "fetch" => Some(fetched(step, index, input)),
            "git-checkout" => checked_out(step, index, input, licenses),
            _ => None,
        })
        .collect()
}

/// Where something is downloaded from, as a URI.
fn location(address: &str) -> String {
    let scheme = address.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme || scheme.len() + 1 == address.len() {
        return NO_ASSERTION.to_owned();
    }
    let mut uri = String::with_capacity(address.len());
    let mut rest = address;
    // A percent sign that begins no escape is escaped itself.
    while let Some(at) = rest.find('%') {
        uri.extend(utf8_percent_encode(&rest[..at], NOT_IN_URIS));
        rest = &rest[at + 1..];
        let is_escape = rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
        uri.push_str(if is_escape { "%" } else { "%25" });
    }
    uri.extend(utf8_percent_encode(rest, NOT_IN_URIS));
    // Brackets are for addresses of hosts alone, and there is one fragment.
    let path =
        uri.find("://").and_then(|at| Some(at + 3 + uri[at + 3..].find(['/', '?', '#'])?)).unwrap_or(0);
    let (host, path) = uri.split_at(path);
    let (path, fragment) = path.split_once('#').map_or((path, None), |(path, rest)| (path, Some(rest)));
    let plain = |text: &str| text.replace('[', "%5B").replace(']', "%5D").replace('#', "%23");
    match fragment {
        Some(fragment) => format!("{host}{}#{}", plain(path), plain(fragment)),
        None => format!("{host}{}", plain(path)),
    }
}

/// A checksum as hexadecimal digits; nothing where it is none, as a build would find out.
fn digits(value: &str, count: usize) -> Option<String> {
    let is_one = value.len() == count && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| value.to_ascii_lowercase())
}

fn fetched(step: &PlanStep, index: usize, input: &SbomInput<'_>) -> Package {
    let with = |name: &str| step.with.get(name).cloned().unwrap_or_default();
    let or = |value: String, other: &str| if value.is_empty() { other.to_owned() } else { value };
    let name = or(with("purl-name"), &input.main.name);
    let version = or(with("purl-version"), &input.main.version);
    let mut checksums = Vec::new();
    let mut checksum = String::new();
    for (key, algorithm, label, count) in
        [("expected-sha256", "SHA256", "sha256", 64), ("expected-sha512", "SHA512", "sha512", 128)]
    {
        if let Some(value) = digits(&with(key), count) {
            checksum = format!("{label}:{value}");
            checksums.push(Checksum { algorithm, value });
        }
    }
    let uri = with("uri");
    let uri = without_user(&uri).into_owned();
    let location = location(&uri);
    let qualifiers = BTreeMap::from([("checksum", checksum), ("download_url", uri)]);
    let url = Purl { kind: "generic", name: &name, version: &version, qualifiers, ..Purl::default() };
    Package {
        id: identifier(&["Source", &name, &version, &index.to_string()]),
        references: purl(&url).into_iter().collect(),
        name,
        version,
        concluded: NO_ASSERTION,
        declared: NO_ASSERTION.to_owned(),
        location,
        originator: organization(input.namespace),
        supplier: organization(input.namespace),
        purpose: "SOURCE",
        checksums,
        ..Package::default()
    }
}

/// A repository's address in parts, without its user.
#[derive(Debug, PartialEq, Eq)]
struct Repository<'a> {
    scheme: &'a str,
    host: &'a str,
    /// Without the slash before it, with escapes replaced.
    path: String,
}

impl<'a> Repository<'a> {
    fn read(address: &'a str) -> Self {
        let decoded = |path: &str| {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let path = percent_decode_str(path).decode_utf8_lossy();
            path.strip_prefix('/').unwrap_or(&path).to_owned()
        };
        if let Some((scheme, rest)) = address.split_once("://") {
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let host = rest[..at].rsplit('@').next().unwrap_or_default();
            return Self { scheme, host, path: decoded(&rest[at..]) };
        }
        // The short form of ssh, `user@host:path`.
        match address.split_once(':') {
            Some((host, path)) if !host.contains('/') => {
                let host = host.rsplit('@').next().unwrap_or_default();
                Self { scheme: "https", host, path: decoded(path) }
            }
            _ => Self { scheme: "https", host: "", path: decoded(address) },
        }
    }
}

fn checked_out(step: &PlanStep, index: usize, input: &SbomInput<'_>, licenses: &Licenses) -> Option<Package> {
    let with = |name: &str| step.with.get(name).map_or("", String::as_str);
    let address = without_user(with("repository"));
    let (tag, commit) = (with("tag"), with("expected-commit"));
    let version = if tag.is_empty() { commit } else { tag };
    if version.is_empty() {
        return None;
    }
    let repository = Repository::read(&address);
    let reference = if commit.is_empty() { tag } else { commit };
    let whole = repository.path.strip_suffix(".git").unwrap_or(&repository.path);
    let (owner, name, location, url);
    if repository.host == "github.com" {
        let (namespace, of_it) = whole.split_once('/').unwrap_or((whole, ""));
        (owner, name) = (namespace, of_it);
        location = self::location(&format!(
            "{}://github.com/{namespace}/{of_it}/archive/{reference}.tar.gz",
            repository.scheme
        ));
        url = Purl { kind: "github", namespace, name, version, ..Purl::default() };
    } else {
        (owner, name) = (input.namespace, whole);
        // One folder for each first letter.
        let folder = whole.chars().next().map_or_else(|| "_".to_owned(), String::from);
        let digest = hex::encode(Sha256::digest(whole.as_bytes()));
        location = self::location(&format!("https://tarballs.cgr.dev/{folder}/{digest}-{reference}.tar.gz"));
        let prefix = if address.starts_with("git") { "" } else { "git+" };
        let at = if commit.is_empty() { String::new() } else { format!("@{commit}") };
        let qualifiers = BTreeMap::from([("vcs_url", format!("{prefix}{address}{at}"))]);
        url = Purl { kind: "generic", name, version, qualifiers, ..Purl::default() };
    }
    let plain = ["https://", "http://"].into_iter().find_map(|scheme| address.strip_prefix(scheme));
    let index = index.to_string();
    let parts: Vec<&str> = ["Source", plain.unwrap_or(&address), with("branch"), tag, commit, &index]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    Some(Package {
        id: identifier(&parts),
        name: if name.is_empty() { address.clone().into_owned() } else { name.to_owned() },
        version: version.to_owned(),
        concluded: NO_ASSERTION,
        declared: licenses.package.clone(),
        location,
        originator: organization(owner),
        supplier: organization(owner),
        purpose: "SOURCE",
        references: purl(&url).into_iter().collect(),
        ..Package::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_uris_or_nothing() {
        for (address, expected) in [
            ("https://a.example/x+y?z=%20&[1]#a#b", "https://a.example/x+y?z=%20&%5B1%5D#a%23b"),
            ("https://[::1]:80/x", "https://[::1]:80/x"),
            ("http://a.example/x y/é%", "http://a.example/x%20y/%C3%A9%25"),
            ("git://a.example/x", "git://a.example/x"),
            ("x.tar.gz", "NOASSERTION"),
            ("", "NOASSERTION"),
            ("1a://x", "NOASSERTION"),
            ("https:", "NOASSERTION"),
        ] {
            assert_eq!(location(address), expected, "{address}");
        }
    }

    #[test]
    fn addresses_of_repositories() {
        let read = |address| {
            let Repository { scheme, host, path } = Repository::read(address);
            format!("{scheme} {host} {path}")
        };
        assert_eq!(read("https://a.example:8080/x%20y/r.git?q#f"), "https a.example:8080 x y/r.git");
        assert_eq!(read("git@github.com:foo/bar.git"), "https github.com foo/bar.git");
        assert_eq!(read("https://a.example"), "https a.example ");
        assert_eq!(read("/srv/git/x"), "https  srv/git/x");
    }
}
