//! The SPDX 2.3 document that every package carries.
//!
//! Whatever a definition says, the document is valid: identifiers are unique and made of what they may hold, URIs are
//! URIs or `NOASSERTION`, expressions name licences of the list or have their texts extracted.

use std::collections::{BTreeMap, BTreeSet};

use self::model::{Creation, Document, Extracted, NO_ASSERTION, Package, Reference, Relationship};
use super::license::{self, Declared};
use super::purl::Purl;
use crate::melange::plan::PlanPackage;
use crate::redact::without_user;

mod model;
mod sources;
#[cfg(test)]
mod tests;

/// The last second of the year 9999: the format's times have four digits for the year.
const SECONDS_MAX: i64 = 253_402_300_799;

/// What the document says of the build.
#[derive(Debug, Clone)]
pub struct SbomInput<'a> {
    /// The namespace of package URLs.
    pub namespace: &'a str,
    /// The architecture in APK's spelling.
    pub arch: &'a str,
    /// The main package.
    pub main: &'a PlanPackage,
    /// The package that the document is about: main or a subpackage.
    pub package: &'a PlanPackage,
    /// The texts of the files that the main package names as `license-path`, by these paths.
    pub license_texts: &'a BTreeMap<String, String>,
    /// The definition's name as it was handed in.
    pub config_name: &'a str,
    /// The licence of the definition.
    pub config_license: &'a str,
    /// Where the definition's repository is, `https://host/owner/name`.
    pub repository: &'a str,
    /// The commit of that repository.
    pub commit: &'a str,
    /// Seconds since 1970.
    pub epoch_seconds: i64,
}

/// The path of a package's document inside the package.
pub fn path(package: &PlanPackage) -> String {
    format!("var/lib/db/sbom/{}-{}.spdx.json", package.name, package.full_version())
}

/// The document's bytes.
pub fn document(input: &SbomInput<'_>) -> Vec<u8> {
    let licenses = Licenses::of(input);
    let system = operating_system(input.namespace);
    let mut apk = apk_package(input, &licenses);
    let mut config = config_package(input, &licenses);
    let mut main = sources::of(&input.main.pipeline, input, &licenses);
    let is_main = input.package.name == input.main.name;
    let steps = if is_main { &[][..] } else { &input.package.pipeline };
    let mut own = sources::of(steps, input, &licenses);
    // A subpackage's sources come last, so that those of main have the same names in all documents.
    let mut ids = BTreeSet::from([system.id.clone()]);
    let others = main.iter_mut().chain(&mut own);
    [&mut apk, &mut config]
        .into_iter()
        .chain(others)
        .for_each(|package| make_unique(&mut package.id, &mut ids));

    let relate =
        |kind, related: &Package| Relationship { element: apk.id.clone(), kind, related: related.id.clone() };
    let mut relationships: Vec<Relationship> =
        own.iter().map(|source| relate("GENERATED_FROM", source)).collect();
    relationships.push(relate("DESCRIBED_BY", &config));
    relationships.extend(main.iter().map(|source| relate("GENERATED_FROM", source)));
    let document = Document {
        id: "SPDXRef-DOCUMENT".to_owned(),
        name: format!("apk-{}-{}", input.package.name, input.package.full_version()),
        version: "SPDX-2.3",
        creation: Creation {
            created: time(input.epoch_seconds),
            creators: [format!("Tool: melange-remote ({})", env!("CARGO_PKG_VERSION"))]
                .into_iter()
                .chain(Some(organization(input.namespace)).filter(|name| name != NO_ASSERTION))
                .collect(),
            list: license::LIST_VERSION,
        },
        data_license: "CC0-1.0",
        namespace: format!(
            "https://spdx.org/spdxdocs/chainguard/melange/{:032x}",
            fnv1a_128(format!("apk-{}-{}", input.namespace, input.package.full_version()).as_bytes())
        ),
        describes: vec![apk.id.clone()],
        relationships,
        packages: [system, apk].into_iter().chain(own).chain([config]).chain(main).collect(),
        extracted: licenses.extracted(),
    };
    // The types above always serialise.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    // What Go escapes in texts; outside of them none of it stands.
    for (character, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if text.contains(character) {
            text = text.replace(character, escaped);
        }
    }
    format!("{text}\n").into_bytes()
}

fn time(epoch_seconds: i64) -> String {
    jiff::Timestamp::from_second(epoch_seconds.clamp(0, SECONDS_MAX)).unwrap_or_default().to_string()
}

/// The licences of a document: what is declared, and the texts of what the list does not have.
struct Licenses {
    /// The expression of the package.
    package: String,
    /// The expression of the definition.
    config: String,
    /// Texts by identifiers.
    texts: BTreeMap<String, String>,
}

impl Licenses {
    fn of(input: &SbomInput<'_>) -> Self {
        let mut texts = BTreeMap::new();
        let mut placeholders = BTreeMap::new();
        let mut declared = |license: &str, text: Option<&String>| {
            let found = Declared::read(license)?;
            let of_each = found.references.iter().chain(text.map(|_| &found.text_id));
            for id in of_each {
                match text {
                    // The last one of several counts, as it does for melange.
                    Some(text) => drop(texts.insert(id.clone(), text.clone())),
                    None => drop(placeholders.insert(id.clone(), format!("Non-SPDX License: {license}"))),
                }
            }
            Some(found.expression)
        };
        let copyright = input.main.copyright.iter();
        let parts: Vec<String> = copyright
            .filter_map(|entry| declared(entry.license.trim(), input.license_texts.get(&entry.license_path)))
            .collect();
        let or_nothing = |text: String| if text.is_empty() { NO_ASSERTION.to_owned() } else { text };
        let config = match input.config_license.trim() {
            nothing @ ("NONE" | "NOASSERTION") => nothing.to_owned(),
            license => or_nothing(declared(license, None).unwrap_or_default()),
        };
        for (id, text) in placeholders {
            texts.entry(id).or_insert(text);
        }
        Self { package: or_nothing(parts.join(" AND ")), config, texts }
    }

    fn extracted(self) -> Vec<Extracted> {
        self.texts.into_iter().map(|(id, text)| Extracted { id, text }).collect()
    }
}

fn identifier(parts: &[&str]) -> String {
    let mut id = String::from("SPDXRef-Package-");
    for c in parts.join("-").chars() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' => id.push(c),
            ':' | '/' => id.push('-'),
            other => id.push_str(&format!("C{}", u32::from(other))),
        }
    }
    id
}

/// Counts up behind an identifier that was given before.
fn make_unique(id: &mut String, known: &mut BTreeSet<String>) {
    let mut unique = id.clone();
    let mut count = 1_u64;
    while !known.insert(unique.clone()) {
        count += 1;
        unique = format!("{id}-{count}");
    }
    *id = unique;
}

/// The first letter of every word large, all others small, as melange writes names of suppliers.
fn title_case(name: &str) -> String {
    let mut title = String::new();
    let mut inside = false;
    let mut characters = name.chars().peekable();
    let mut before = ' ';
    while let Some(c) = characters.next() {
        let joins =
            |next: Option<&char>| before.is_alphanumeric() && next.is_some_and(|c| c.is_alphanumeric());
        if c.is_alphabetic() {
            if inside {
                title.extend(c.to_lowercase())
            } else {
                title.extend(c.to_uppercase())
            }
            inside = true;
        } else {
            title.push(c);
            let is_of_a_word = c.is_alphanumeric()
                || c == '_'
                || (matches!(c, '.' | ':' | '\'') && joins(characters.peek()));
            inside &= is_of_a_word;
        }
        before = c;
    }
    title
}

/// A supplier; nobody where there is no name.
fn organization(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.trim() {
        "" => NO_ASSERTION.to_owned(),
        plain => format!("Organization: {}", title_case(plain)),
    }
}

fn purl(purl: &Purl<'_>) -> Option<Reference> {
    let locator = purl.text()?;
    Some(Reference { category: "PACKAGE-MANAGER", locator, kind: "purl" })
}

fn operating_system(namespace: &str) -> Package {
    Package {
        id: "SPDXRef-OperatingSystem".to_owned(),
        name: namespace.to_owned(),
        concluded: NO_ASSERTION,
        declared: NO_ASSERTION.to_owned(),
        description: "Operating System".to_owned(),
        location: NO_ASSERTION.to_owned(),
        originator: organization(namespace),
        supplier: organization(namespace),
        purpose: "OPERATING-SYSTEM",
        ..Package::default()
    }
}

fn apk_package(input: &SbomInput<'_>, licenses: &Licenses) -> Package {
    let (name, full) = (&input.package.name, input.package.full_version());
    let namespace = input.namespace;
    let distro = if namespace == "unknown" { "" } else { namespace };
    let qualifiers = [("arch", input.arch.to_owned()), ("distro", distro.to_owned())].into();
    let url = Purl { kind: "apk", namespace, name, version: &full, qualifiers, ..Purl::default() };
    let mut references: Vec<Reference> = purl(&url).into_iter().collect();
    if let Some(cpe) = cpe(input.main) {
        references.push(Reference { category: "SECURITY", locator: cpe, kind: "cpe23Type" });
    }
    let attestations: String = input
        .main
        .copyright
        .iter()
        .map(|entry| entry.attestation.as_str())
        .filter(|text| !text.is_empty())
        .map(|text| format!("{text}\n"))
        .collect();
    Package {
        id: identifier(&["apk", name, &full]),
        name: name.clone(),
        version: full,
        concluded: NO_ASSERTION,
        declared: licenses.package.clone(),
        location: NO_ASSERTION.to_owned(),
        originator: organization(namespace),
        supplier: organization(namespace),
        copyright: if attestations.is_empty() { NO_ASSERTION.to_owned() } else { attestations },
        purpose: "APPLICATION",
        references,
        ..Package::default()
    }
}

/// The licences of a package as one expression, what no list has as a reference; empty for none.
///
/// ```
/// use melange_remote_sdk::analysis::sbom::license_expression;
/// assert_eq!(license_expression(["MIT", "My own"]), "MIT AND LicenseRef-My-own");
/// ```
pub fn license_expression<'a>(licenses: impl IntoIterator<Item = &'a str>) -> String {
    let declared = licenses.into_iter().filter_map(Declared::read);
    declared.map(|found| found.expression).collect::<Vec<_>>().join(" AND ")
}

/// The CPE 2.3 name of a package, when vendor and product are given.
pub fn cpe(package: &PlanPackage) -> Option<String> {
    let field = |name: &str| {
        let text = package.cpe.get(name).map_or("*", String::as_str);
        cpe_value(text)
    };
    package.cpe.get("vendor")?;
    package.cpe.get("product")?;
    let part = package.cpe.get("part").map_or("a", String::as_str);
    if !matches!(part, "a" | "o" | "h") {
        return None;
    }
    Some(format!(
        "cpe:2.3:{part}:{}:{}:{}:{}:*:{}:{}:{}:{}:{}",
        field("vendor")?,
        field("product")?,
        cpe_value(&package.version)?,
        field("edition")?,
        field("language")?,
        field("sw_edition")?,
        field("target_sw")?,
        field("target_hw")?,
        field("other")?,
    ))
}

/// A value with what the format reserves escaped, unless it is already; `None` for what it cannot hold.
fn cpe_value(text: &str) -> Option<String> {
    if matches!(text, "*" | "-") {
        return Some(text.to_owned());
    }
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            _ if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') => value.push(c),
            '\\' => {
                let escaped = characters.next().unwrap_or('\\');
                value.extend(escaped.is_ascii_punctuation().then_some(['\\', escaped])?);
            }
            _ if c.is_ascii_punctuation() => value.extend(['\\', c]),
            _ => return None,
        }
    }
    (!value.is_empty()).then_some(value)
}

fn config_package(input: &SbomInput<'_>, licenses: &Licenses) -> Package {
    let repository = without_user(input.repository);
    let commit = input.commit;
    // The file's name is the path within its repository.
    let subpath = input.config_name;
    let github = repository.strip_prefix("https://github.com/").map(|path| path.trim_end_matches('/'));
    let url = match github {
        Some(path) => {
            let (namespace, name) = path.trim_end_matches(".git").split_once('/').unwrap_or(("", path));
            Purl { kind: "github", namespace, name, version: commit, subpath, ..Purl::default() }
        }
        // A repository that nobody knows is named as melange names it, so that documents agree.
        None if *repository == *UNKNOWN_REPOSITORY => Purl {
            kind: "github",
            namespace: "https:",
            name: "/unknown/unknown/unknown",
            version: commit,
            subpath,
            ..Purl::default()
        },
        None => {
            let place = repository.split_once("://").map_or(&*repository, |(_, place)| place);
            let path = place.split_once('/').map_or("", |(_, path)| path).trim_end_matches(".git");
            let qualifiers = [("vcs_url", format!("git+{repository}@{commit}"))].into();
            Purl { kind: "generic", name: path, version: commit, qualifiers, subpath, ..Purl::default() }
        }
    };
    Package {
        id: identifier(&["Melange", input.config_name, commit]),
        name: input.config_name.to_owned(),
        version: commit.to_owned(),
        concluded: NO_ASSERTION,
        declared: licenses.config.clone(),
        location: NO_ASSERTION.to_owned(),
        originator: organization(input.namespace),
        supplier: organization(input.namespace),
        purpose: "INSTALL",
        references: purl(&url).into_iter().collect(),
        ..Package::default()
    }
}

/// The repository of definitions that come from nowhere in particular.
pub const UNKNOWN_REPOSITORY: &str = "https://unknown/unknown/unknown";

fn fnv1a_128(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
