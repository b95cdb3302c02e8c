//! The SPDX 2.3 document that every package carries.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::license::is_expression;
use crate::melange::plan::{PlanPackage, PlanStep};
use crate::redact::without_user;

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
    /// The definition's name as it was handed in.
    pub config_name: &'a str,
    /// The licence of the definition.
    pub config_license: &'a str,
    /// Where the definition's repository is, `https://host/owner/name`.
    pub repository: &'a str,
    /// Seconds since 1970.
    pub epoch_seconds: i64,
}

#[derive(Serialize)]
struct Document {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(rename = "spdxVersion")]
    version: &'static str,
    #[serde(rename = "creationInfo")]
    creation: Creation,
    #[serde(rename = "dataLicense")]
    data_license: &'static str,
    #[serde(rename = "documentNamespace")]
    namespace: String,
    #[serde(rename = "documentDescribes")]
    describes: Vec<String>,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
    #[serde(rename = "hasExtractedLicensingInfos", skip_serializing_if = "Vec::is_empty")]
    extracted: Vec<Extracted>,
}

#[derive(Serialize)]
struct Creation {
    created: String,
    creators: [String; 2],
    #[serde(rename = "licenseListVersion")]
    list: &'static str,
}

#[derive(Serialize, Default)]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(rename = "versionInfo", skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(rename = "filesAnalyzed")]
    analyzed: bool,
    #[serde(rename = "licenseConcluded")]
    concluded: &'static str,
    #[serde(rename = "licenseDeclared", skip_serializing_if = "String::is_empty")]
    declared: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(rename = "downloadLocation")]
    location: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    originator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    supplier: String,
    #[serde(rename = "copyrightText", skip_serializing_if = "String::is_empty")]
    copyright: String,
    #[serde(rename = "primaryPackagePurpose", skip_serializing_if = "str::is_empty")]
    purpose: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(rename = "externalRefs", skip_serializing_if = "Vec::is_empty")]
    references: Vec<Reference>,
}

#[derive(Serialize)]
struct Checksum {
    algorithm: &'static str,
    #[serde(rename = "checksumValue")]
    value: String,
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "referenceCategory")]
    category: &'static str,
    #[serde(rename = "referenceLocator")]
    locator: String,
    #[serde(rename = "referenceType")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Relationship {
    #[serde(rename = "spdxElementId")]
    element: String,
    #[serde(rename = "relationshipType")]
    kind: &'static str,
    #[serde(rename = "relatedSpdxElement")]
    related: String,
}

#[derive(Serialize)]
struct Extracted {
    #[serde(rename = "licenseId")]
    id: String,
    #[serde(rename = "extractedText")]
    text: String,
}

/// The path of a package's document inside the package.
pub fn path(package: &PlanPackage) -> String {
    format!("var/lib/db/sbom/{}-{}.spdx.json", package.name, package.full_version())
}

/// The document's bytes.
pub fn document(input: &SbomInput<'_>) -> Vec<u8> {
    let apk = apk_package(input);
    let config = config_package(input);
    let own: Vec<Package> = if input.package.name == input.main.name {
        Vec::new()
    } else {
        sources(&input.package.pipeline, input)
    };
    let main = sources(&input.main.pipeline, input);
    let relate = |element: &str, kind, related: &str| Relationship {
        element: element.to_owned(),
        kind,
        related: related.to_owned(),
    };
    let mut relationships: Vec<Relationship> =
        own.iter().map(|source| relate(&apk.id, "GENERATED_FROM", &source.id)).collect();
    relationships.push(relate(&apk.id, "DESCRIBED_BY", &config.id));
    relationships.extend(main.iter().map(|source| relate(&apk.id, "GENERATED_FROM", &source.id)));
    let (_, extracted) = license(input.main);
    let name = format!("apk-{}-{}", input.package.name, input.package.full_version());
    let document = Document {
        id: "SPDXRef-DOCUMENT".to_owned(),
        name,
        version: "SPDX-2.3",
        creation: Creation {
            created: jiff::Timestamp::from_second(input.epoch_seconds).unwrap_or_default().to_string(),
            creators: [
                format!("Tool: melange-remote ({})", env!("CARGO_PKG_VERSION")),
                format!("Organization: {}", title_case(input.namespace)),
            ],
            list: "3.22",
        },
        data_license: "CC0-1.0",
        namespace: format!(
            "https://spdx.org/spdxdocs/chainguard/melange/{:032x}",
            fnv1a_128(format!("apk-{}-{}", input.namespace, input.package.full_version()).as_bytes())
        ),
        describes: vec![apk.id.clone()],
        packages: std::iter::once(operating_system(input.namespace))
            .chain([apk])
            .chain(own)
            .chain([config])
            .chain(main)
            .collect(),
        relationships,
        extracted,
    };
    // The types above always serialise.
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    let escaped = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    format!("{escaped}\n").into_bytes()
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

fn title_case(namespace: &str) -> String {
    let mut start = true;
    namespace
        .chars()
        .map(|c| {
            let shown = if start { c.to_ascii_uppercase() } else { c };
            start = !c.is_alphanumeric();
            shown
        })
        .collect()
}

fn organization(namespace: &str) -> String {
    format!("Organization: {}", title_case(namespace))
}

fn operating_system(namespace: &str) -> Package {
    Package {
        id: "SPDXRef-OperatingSystem".to_owned(),
        name: namespace.to_owned(),
        concluded: "NOASSERTION",
        declared: "NOASSERTION".to_owned(),
        description: "Operating System".to_owned(),
        location: "NOASSERTION".to_owned(),
        originator: organization(namespace),
        supplier: organization(namespace),
        purpose: "OPERATING-SYSTEM",
        ..Package::default()
    }
}

fn apk_package(input: &SbomInput<'_>) -> Package {
    let (name, full) = (&input.package.name, input.package.full_version());
    let namespace = input.namespace;
    let mut references = vec![Reference {
        category: "PACKAGE-MANAGER",
        locator: format!(
            "pkg:apk/{namespace}/{}@{}?arch={}&distro={namespace}",
            encode(name),
            encode(&full),
            input.arch
        ),
        kind: "purl",
    }];
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
    let (declared, _) = license(input.main);
    Package {
        id: identifier(&["apk", name, &full]),
        name: name.clone(),
        version: full,
        concluded: "NOASSERTION",
        declared,
        location: "NOASSERTION".to_owned(),
        originator: organization(namespace),
        supplier: organization(namespace),
        copyright: if attestations.is_empty() { "NOASSERTION".to_owned() } else { attestations },
        purpose: "APPLICATION",
        references,
        ..Package::default()
    }
}

/// The CPE 2.3 name of a package, when vendor and product are given.
pub fn cpe(package: &PlanPackage) -> Option<String> {
    let field = |name: &str| package.cpe.get(name).map_or("*", String::as_str);
    package.cpe.get("vendor")?;
    package.cpe.get("product")?;
    Some(format!(
        "cpe:2.3:{}:{}:{}:{}:{}:*:{}:{}:{}:{}:{}",
        package.cpe.get("part").map_or("a", String::as_str),
        field("vendor"),
        field("product"),
        package.version,
        field("edition"),
        field("language"),
        field("sw_edition"),
        field("target_sw"),
        field("target_hw"),
        field("other"),
    ))
}

fn config_package(input: &SbomInput<'_>) -> Package {
    let repository = input.repository.split("://").nth(1).unwrap_or(input.repository);
    let mut parts = repository.trim_end_matches(".git").splitn(3, '/').skip(1);
    let (owner, name) = (parts.next().unwrap_or("unknown"), parts.next().unwrap_or("unknown"));
    let commit = &input.main.commit;
    Package {
        id: identifier(&["Melange", input.config_name, commit]),
        name: input.config_name.to_owned(),
        version: commit.clone(),
        concluded: "NOASSERTION",
        declared: input.config_license.to_owned(),
        location: "NOASSERTION".to_owned(),
        originator: organization(owner),
        supplier: organization(owner),
        purpose: "INSTALL",
        references: vec![Reference {
            category: "PACKAGE-MANAGER",
            locator: format!("pkg:github/{owner}/{name}@{commit}#{}", input.config_name),
            kind: "purl",
        }],
        ..Package::default()
    }
}

/// Sources of the top-level steps named exactly `fetch` or `git-checkout`.
fn sources(steps: &[PlanStep], input: &SbomInput<'_>) -> Vec<Package> {
    steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step.uses.as_str() {
            "fetch" => Some(fetched(step, index, input)),
            "git-checkout" => checked_out(step, index, input),
            _ => None,
        })
        .collect()
}

fn fetched(step: &PlanStep, index: usize, input: &SbomInput<'_>) -> Package {
    let with = |name: &str| step.with.get(name).cloned().unwrap_or_default();
    let or = |value: String, other: &str| if value.is_empty() { other.to_owned() } else { value };
    let name = or(with("purl-name"), &input.main.name);
    let version = or(with("purl-version"), &input.main.version);
    let mut checksums = Vec::new();
    let mut checksum = String::new();
    for (key, algorithm, label) in
        [("expected-sha256", "SHA256", "sha256"), ("expected-sha512", "SHA512", "sha512")]
    {
        let value = with(key);
        if !value.is_empty() {
            checksum = format!("{label}:{value}");
            checksums.push(Checksum { algorithm, value });
        }
    }
    let mut purl = format!("pkg:generic/{}@{}?", encode(&name), encode(&version));
    if !checksum.is_empty() {
        purl.push_str(&format!("checksum={checksum}&"));
    }
    let uri = with("uri");
    let uri = without_user(&uri);
    purl.push_str(&format!("download_url={}", encode(&uri)));
    Package {
        id: identifier(&["Source", &name, &version, &index.to_string()]),
        name,
        version,
        concluded: "NOASSERTION",
        declared: "NOASSERTION".to_owned(),
        location: uri.into_owned(),
        originator: organization(input.namespace),
        supplier: organization(input.namespace),
        purpose: "SOURCE",
        checksums,
        references: vec![Reference { category: "PACKAGE-MANAGER", locator: purl, kind: "purl" }],
        ..Package::default()
    }
}

fn checked_out(step: &PlanStep, index: usize, input: &SbomInput<'_>) -> Option<Package> {
    let with = |name: &str| step.with.get(name).map_or("", String::as_str);
    let repository = without_user(with("repository"));
    let (repository, tag, commit) = (&*repository, with("tag"), with("expected-commit"));
    if tag.is_empty() && commit.is_empty() {
        return None;
    }
    let (scheme, rest) = repository.split_once("://").unwrap_or(("https", repository));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches(".git");
    let version = if tag.is_empty() { commit } else { tag };
    let reference = if commit.is_empty() { tag } else { commit };
    let index = index.to_string();
    let parts: Vec<&str> = ["Source", rest, with("branch"), tag, commit, &index]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let (owner, name, location, purl) = if host == "github.com" {
        let (owner, name) = path.split_once('/').unwrap_or(("", path));
        let location = format!("{scheme}://github.com/{owner}/{name}/archive/{reference}.tar.gz");
        (
            owner.to_owned(),
            name.to_owned(),
            location,
            format!("pkg:github/{owner}/{name}@{}", encode(version)),
        )
    } else {
        let digest = hex::encode(Sha256::digest(path.as_bytes()));
        let location = format!(
            "https://tarballs.cgr.dev/{}/{digest}-{reference}.tar.gz",
            path.chars().next().unwrap_or('_')
        );
        let purl = format!(
            "pkg:generic/{}@{}?vcs_url=git%2B{}%40{commit}",
            path.replace('/', "%2F"),
            encode(version),
            encode(repository)
        );
        (input.namespace.to_owned(), path.to_owned(), location, purl)
    };
    Some(Package {
        id: identifier(&parts),
        name,
        version: version.to_owned(),
        concluded: "NOASSERTION",
        declared: license(input.main).0,
        location,
        originator: organization(&owner),
        supplier: organization(&owner),
        purpose: "SOURCE",
        references: vec![Reference { category: "PACKAGE-MANAGER", locator: purl, kind: "purl" }],
        ..Package::default()
    })
}

/// What a package URL escapes: all but letters, digits, `.`, `-`, `_`, `~` and the colon.
const PURL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~').remove(b':');

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, PURL)
}

/// The licence expression, and texts of what is no SPDX expression.
fn license(package: &PlanPackage) -> (String, Vec<Extracted>) {
    let mut extracted: Vec<Extracted> = Vec::new();
    let parts: Vec<String> = package
        .copyright
        .iter()
        .map(|entry| entry.license.trim())
        .filter(|text| !text.is_empty())
        .map(|text| {
            if is_expression(text) {
                return text.to_owned();
            }
            let id = format!("LicenseRef-{}", sanitised(text));
            if !extracted.iter().any(|known| known.id == id) {
                extracted.push(Extracted { id: id.clone(), text: format!("Non-SPDX License: {text}") });
            }
            id
        })
        .collect();
    extracted.sort_by(|a, b| a.id.cmp(&b.id));
    if parts.is_empty() { ("NOASSERTION".to_owned(), extracted) } else { (parts.join(" AND "), extracted) }
}

fn sanitised(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if matches!(c, ' ' | '_') { '-' } else { c })
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .collect();
    if clean.is_empty() { hex::encode(&Sha256::digest(text.as_bytes())[..8]) } else { clean }
}

fn fnv1a_128(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::melange::plan::PlanCopyright;

    #[test]
    fn namespaces_hash_as_the_format_says() {
        assert_eq!(format!("{:032x}", fnv1a_128(b"apk-wolfi-4.11-r0")), "4f2509000ca7af194487a4ea7690b55f");
        assert_eq!(
            format!("{:032x}", fnv1a_128(b"apk-test-ns-1.2.3-r2")),
            "e43c05eed89f57b011808279db234a08"
        );
    }

    #[test]
    fn identifiers_titles_and_licences() {
        assert_eq!(identifier(&["apk", "a+b", "1:2/3"]), "SPDXRef-Package-apk-aC43b-1-2-3");
        assert_eq!(title_case("test-ns"), "Test-Ns");
        assert_eq!(sanitised("see COPYING_x"), "see-COPYING-x");
    }

    #[test]
    fn licences_that_the_list_does_not_have_become_references() {
        let copyright = ["MIT", "Custom", "GPL-2.0-only OR ISC", "Custom"]
            .map(|license| PlanCopyright { license: license.to_owned(), ..PlanCopyright::default() });
        let package = PlanPackage { copyright: copyright.to_vec(), ..PlanPackage::default() };
        let (declared, extracted) = license(&package);
        assert_eq!(declared, "MIT AND LicenseRef-Custom AND GPL-2.0-only OR ISC AND LicenseRef-Custom");
        let [only] = &extracted[..] else { panic!("{}", extracted.len()) };
        assert_eq!((&*only.id, &*only.text), ("LicenseRef-Custom", "Non-SPDX License: Custom"));
    }

    #[test]
    fn sources_are_named_without_credentials() {
        let main = PlanPackage { name: "a".to_owned(), version: "1".to_owned(), ..PlanPackage::default() };
        let input = SbomInput {
            namespace: "wolfi",
            arch: "x86_64",
            main: &main,
            package: &main,
            config_name: "a.yaml",
            config_license: "MIT",
            repository: "https://u:topsecret@github.com/o/r",
            epoch_seconds: 0,
        };
        let step = |uses: &str, with: &[(&str, &str)]| PlanStep {
            uses: uses.to_owned(),
            with: with.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..PlanStep::default()
        };
        let steps = [
            step("fetch", &[("uri", "https://u:topsecret@a.example/x.tar.gz")]),
            step("git-checkout", &[("repository", "https://topsecret@github.com/o/r.git"), ("tag", "v1")]),
            step("git-checkout", &[("repository", "https://u:topsecret@b.example/o/r"), ("tag", "v1")]),
        ];
        let mut packages = sources(&steps, &input);
        packages.push(config_package(&input));
        let text = serde_json::to_string(&packages).unwrap();
        assert!(!text.contains("topsecret"), "{text}");
        assert!(text.contains("https://a.example/x.tar.gz") && text.contains("pkg:github/o/r@v1"), "{text}");
    }
}
