//! What documents say, and that every one is valid.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::melange::plan::{PlanCopyright, PlanStep};

fn package(name: &str) -> PlanPackage {
    PlanPackage { name: name.to_owned(), version: "1".to_owned(), ..PlanPackage::default() }
}

fn step(uses: &str, with: &[(&str, &str)]) -> PlanStep {
    PlanStep {
        uses: uses.to_owned(),
        with: with.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..PlanStep::default()
    }
}

fn copyright(license: &str, path: &str) -> PlanCopyright {
    PlanCopyright { license: license.to_owned(), license_path: path.to_owned(), ..PlanCopyright::default() }
}

/// What the tests do not change.
struct Around {
    texts: BTreeMap<String, String>,
    repository: &'static str,
}

impl Default for Around {
    fn default() -> Self {
        Self { texts: BTreeMap::new(), repository: UNKNOWN_REPOSITORY }
    }
}

impl Around {
    fn document(&self, main: &PlanPackage, package: &PlanPackage) -> Value {
        let bytes = document(&SbomInput {
            namespace: "wolfi",
            arch: "x86_64",
            main,
            package,
            license_texts: &self.texts,
            config_name: "a.yaml",
            config_license: "NOASSERTION",
            repository: self.repository,
            commit: "c0ffee",
            epoch_seconds: 0,
        });
        let document = serde_json::from_slice(&bytes).unwrap();
        check(&document).unwrap();
        document
    }

    fn extracted(&self, main: &PlanPackage) -> Vec<(String, String)> {
        let document = self.document(main, main);
        let infos = document["hasExtractedLicensingInfos"].as_array().cloned().unwrap_or_default();
        let text = |info: &Value, key: &str| info[key].as_str().unwrap().to_owned();
        infos.iter().map(|info| (text(info, "licenseId"), text(info, "extractedText"))).collect()
    }
}

/// The URL of the definition.
fn config_url(repository: &'static str) -> String {
    let main = package("a");
    let document = Around { repository, ..Around::default() }.document(&main, &main);
    document["packages"][2]["externalRefs"][0]["referenceLocator"].as_str().unwrap().to_owned()
}

#[test]
fn namespaces_hash_as_the_format_says() {
    assert_eq!(format!("{:032x}", fnv1a_128(b"apk-wolfi-4.11-r0")), "4f2509000ca7af194487a4ea7690b55f");
    assert_eq!(format!("{:032x}", fnv1a_128(b"apk-test-ns-1.2.3-r2")), "e43c05eed89f57b011808279db234a08");
}

#[test]
fn identifiers_and_titles() {
    assert_eq!(identifier(&["apk", "a+b", "1:2/3"]), "SPDXRef-Package-apk-aC43b-1-2-3");
    // As Go's `cases.Title` has them.
    for (name, title) in [
        ("test-ns", "Test-Ns"),
        ("GNOME", "Gnome"),
        ("cgr.dev", "Cgr.dev"),
        ("foo_bar", "Foo_bar"),
        ("3dfoo", "3Dfoo"),
        ("o'neil", "O'neil"),
        ("x.1a", "X.1a"),
        ("a:b", "A:b"),
        ("a--b", "A--B"),
        ("_ab", "_Ab"),
        ("1-a b", "1-A B"),
    ] {
        assert_eq!(title_case(name), title);
    }
    assert_eq!(organization(" \n"), "NOASSERTION");
}

#[test]
fn licences_that_the_list_does_not_have_are_extracted() {
    let mut main = package("a");
    main.copyright = ["MIT", "Custom", "GPL-2.0-only OR ISC", "Custom", "LicenseRef-own OR MIT"]
        .map(|license| copyright(license, ""))
        .to_vec();
    let document = Around::default().document(&main, &main);
    assert_eq!(
        document["packages"][1]["licenseDeclared"],
        "MIT AND LicenseRef-Custom AND GPL-2.0-only OR ISC AND LicenseRef-Custom AND LicenseRef-own OR MIT"
    );
    let entry = |id: &str, text: &str| (id.to_owned(), text.to_owned());
    assert_eq!(
        Around::default().extracted(&main),
        [
            entry("LicenseRef-Custom", "Non-SPDX License: Custom"),
            entry("LicenseRef-own", "Non-SPDX License: LicenseRef-own OR MIT"),
        ]
    );
    main.copyright = vec![
        copyright("MIT", "LICENSE"),
        copyright("Custom License", "LIC"),
        copyright("Custom License", ""),
        copyright("MIT OR ISC", "COPYING"),
        copyright("0BSD", "not-read"),
    ];
    let texts = [("LICENSE", "the <text>"), ("LIC", "lic\n"), ("COPYING", "both")];
    let texts = texts.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    assert_eq!(
        Around { texts, ..Around::default() }.extracted(&main),
        [
            entry("LicenseRef-Custom-License", "lic\n"),
            entry("LicenseRef-MIT-OR-ISC", "both"),
            entry("MIT", "the <text>"),
        ]
    );
}

#[test]
fn definitions_are_named_by_their_repository() {
    assert_eq!(config_url("https://github.com/Chainguard/OS.git"), "pkg:github/chainguard/os@c0ffee#a.yaml");
    assert_eq!(
        config_url("https://u:pw@git.example/o/r.git"),
        "pkg:generic/o%2Fr@c0ffee?vcs_url=git%2Bhttps:%2F%2Fgit.example%2Fo%2Fr.git%40c0ffee#a.yaml"
    );
    // What melange makes of its own placeholder.
    assert_eq!(
        config_url(UNKNOWN_REPOSITORY),
        "pkg:github/https:/%2Funknown%2Funknown%2Funknown@c0ffee#a.yaml"
    );
}

#[test]
fn names_that_were_given_before_are_counted() {
    let fetch = step("fetch", &[("uri", "https://a.example/x.tar.gz")]);
    let mut main = package("a");
    let mut sub = package("a-sub");
    main.pipeline = vec![fetch.clone()];
    sub.pipeline = vec![fetch];
    let document = Around::default().document(&main, &sub);
    let ids: Vec<&str> =
        document["packages"].as_array().unwrap().iter().map(|p| p["SPDXID"].as_str().unwrap()).collect();
    assert_eq!(
        ids[2..],
        [
            "SPDXRef-Package-Source-a-1-0-2",
            "SPDXRef-Package-Melange-a.yaml-c0ffee",
            "SPDXRef-Package-Source-a-1-0"
        ]
    );
}

#[test]
fn sources_are_named_without_credentials() {
    let mut main = package("a");
    main.pipeline = vec![
        step("fetch", &[("uri", "https://u:topsecret@a.example/x.tar.gz")]),
        step("git-checkout", &[("repository", "https://topsecret@github.com/o/r.git"), ("tag", "v1")]),
        step("git-checkout", &[("repository", "https://u:topsecret@b.example/o/r"), ("tag", "v1")]),
    ];
    let around = Around { repository: "https://u:topsecret@github.com/o/r", ..Around::default() };
    let text = around.document(&main, &main).to_string();
    assert!(!text.contains("topsecret"), "{text}");
    assert!(text.contains("https://a.example/x.tar.gz") && text.contains("pkg:github/o/r@v1"), "{text}");
}

#[test]
fn platforms_are_escaped_or_left_out() {
    let mut main = package("a");
    main.version = "1.0+git".to_owned();
    let cpe_of = |vendor: &str| {
        let mut main = main.clone();
        main.cpe = [("vendor", vendor), ("product", "p")].map(|(k, v)| (k, v.to_owned())).into();
        cpe(&main)
    };
    assert_eq!(cpe_of("gnu").unwrap(), r"cpe:2.3:a:gnu:p:1.0\+git:*:*:*:*:*:*:*");
    assert_eq!(cpe_of(r"a\/b").unwrap(), r"cpe:2.3:a:a\/b:p:1.0\+git:*:*:*:*:*:*:*");
    assert_eq!(cpe_of("two words"), None);
}

/// The rules of SPDX 2.3 for what a document of ours has: its JSON schema's, and those of the specification that the
/// schema leaves out.
fn check(document: &Value) -> Result<(), String> {
    let text = |value: &Value, key: &str| {
        value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in {value}"))
    };
    let one_of = |value: &str, values: &[&str]| {
        if values.contains(&value) { Ok(()) } else { Err(format!("{value:?} is none of {values:?}")) }
    };
    only(
        document,
        &[
            "SPDXID name spdxVersion creationInfo dataLicense documentNamespace documentDescribes packages relationships",
            "hasExtractedLicensingInfos",
        ],
    )?;
    one_of(&text(document, "spdxVersion")?, &["SPDX-2.3"])?;
    one_of(&text(document, "dataLicense")?, &["CC0-1.0"])?;
    one_of(&text(document, "SPDXID")?, &["SPDXRef-DOCUMENT"])?;
    uri(&text(document, "documentNamespace")?)?;
    let creation = &document["creationInfo"];
    only(creation, &["created creators licenseListVersion"])?;
    let created = text(creation, "created")?;
    if created.len() != 20 || !created.ends_with('Z') || created.parse::<jiff::Timestamp>().is_err() {
        return Err(format!("not a time: {created}"));
    }
    for creator in creation["creators"].as_array().ok_or("no creators")? {
        let creator = creator.as_str().ok_or("a creator is no text")?;
        if !["Tool: ", "Organization: "].iter().any(|kind| creator.strip_prefix(kind).is_some_and(is_name)) {
            return Err(format!("not a creator: {creator:?}"));
        }
    }
    let mut extracted = BTreeSet::new();
    for info in document["hasExtractedLicensingInfos"].as_array().into_iter().flatten() {
        only(info, &["licenseId extractedText"])?;
        let id = text(info, "licenseId")?;
        let listed = ::spdx::license_id(id.trim_end_matches('+')).is_some();
        let reference = id.strip_prefix("LicenseRef-").is_some_and(is_id);
        if !(listed || ::spdx::imprecise_license_id(&id).is_some() || reference)
            || !extracted.insert(id.clone())
        {
            return Err(format!("not a name of a licence, or one twice: {id}"));
        }
        text(info, "extractedText")?;
    }
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
    for package in document["packages"].as_array().ok_or("no packages")? {
        check_package(package, &extracted)?;
        let id = text(package, "SPDXID")?;
        if !id.strip_prefix("SPDXRef-").is_some_and(is_id) || !ids.insert(id.clone()) {
            return Err(format!("not an identifier, or one twice: {id}"));
        }
    }
    let known = |id: &str| if ids.contains(id) { Ok(()) } else { Err(format!("{id} is nowhere")) };
    for described in document["documentDescribes"].as_array().ok_or("nothing described")? {
        known(described.as_str().unwrap_or_default())?;
    }
    for relationship in document["relationships"].as_array().ok_or("no relationships")? {
        only(relationship, &["spdxElementId relationshipType relatedSpdxElement"])?;
        one_of(&text(relationship, "relationshipType")?, &["DESCRIBED_BY", "GENERATED_FROM"])?;
        known(&text(relationship, "spdxElementId")?)?;
        known(&text(relationship, "relatedSpdxElement")?)?;
    }
    Ok(())
}

/// Objects have no fields but these.
fn only(value: &Value, fields: &[&str]) -> Result<(), String> {
    let fields = fields.join(" ");
    let object = value.as_object().ok_or_else(|| format!("not an object: {value}"))?;
    match object.keys().find(|key| !fields.split(' ').any(|field| field == key.as_str())) {
        Some(key) => Err(format!("a field {key}")),
        None => Ok(()),
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(|c: char| c.is_control())
}

fn uri(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    let escaped = text.split('%').skip(1).all(|rest| {
        rest.len() >= 2 && rest.is_char_boundary(2) && rest[..2].bytes().all(|b| b.is_ascii_hexdigit())
    });
    match text.split_once(':') {
        Some((scheme, rest)) if !rest.is_empty() && text.chars().all(allowed) && escaped => {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
            if is_scheme && text.matches('#').count() <= 1 {
                Ok(())
            } else {
                Err(format!("not a URI: {text:?}"))
            }
        }
        _ => Err(format!("not a URI: {text:?}")),
    }
}

fn check_package(package: &Value, extracted: &BTreeSet<String>) -> Result<(), String> {
    only(
        package,
        &[
            "SPDXID name versionInfo filesAnalyzed licenseConcluded licenseDeclared description downloadLocation",
            "originator supplier copyrightText primaryPackagePurpose checksums externalRefs",
        ],
    )?;
    let text = |key: &str| package[key].as_str().ok_or_else(|| format!("no {key} in {package}"));
    text("name")?;
    for key in ["originator", "supplier"] {
        let name = text(key)?;
        if name != "NOASSERTION" && !name.strip_prefix("Organization: ").is_some_and(is_name) {
            return Err(format!("not a supplier: {name:?}"));
        }
    }
    let purposes = ["APPLICATION", "OPERATING-SYSTEM", "INSTALL", "SOURCE"];
    if !purposes.contains(&text("primaryPackagePurpose")?) {
        return Err(format!("not a purpose in {package}"));
    }
    if !matches!(text("downloadLocation")?, "NOASSERTION" | "NONE") {
        uri(text("downloadLocation")?)?;
    }
    for key in ["licenseConcluded", "licenseDeclared"] {
        check_expression(text(key)?, extracted)?;
    }
    for checksum in package["checksums"].as_array().into_iter().flatten() {
        only(checksum, &["algorithm checksumValue"])?;
        let count = match checksum["algorithm"].as_str() {
            Some("SHA256") => 64,
            Some("SHA512") => 128,
            other => return Err(format!("not an algorithm: {other:?}")),
        };
        let value = checksum["checksumValue"].as_str().unwrap_or_default();
        if value.len() != count || !value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!("not a checksum: {value:?}"));
        }
    }
    package["externalRefs"].as_array().into_iter().flatten().try_for_each(check_reference)
}

fn check_expression(text: &str, extracted: &BTreeSet<String>) -> Result<(), String> {
    if matches!(text, "NOASSERTION" | "NONE") {
        return Ok(());
    }
    let mode = ::spdx::ParseMode {
        allow_deprecated: true,
        allow_postfix_plus_on_gpl: true,
        ..::spdx::ParseMode::STRICT
    };
    // The list's identifiers are matched whatever their case; this parser wants them as they are listed.
    let words: Vec<String> = text
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
        .map(|word| {
            let (name, plus) = word.strip_suffix('+').map_or((word, ""), |name| (name, "+"));
            let names = ::spdx::identifiers::LICENSES.iter().map(|license| license.name);
            let names = names.chain(::spdx::identifiers::EXCEPTIONS.iter().map(|exception| exception.name));
            let listed = names.into_iter().find(|listed| listed.eq_ignore_ascii_case(name));
            listed.map_or_else(|| word.to_owned(), |listed| format!("{listed}{plus}"))
        })
        .collect();
    let expression =
        ::spdx::Expression::parse_mode(&words.join(" "), mode).map_err(|e| format!("{text}: {e}"))?;
    for requirement in expression.requirements() {
        if let ::spdx::LicenseItem::Other(other) = &requirement.req.license
            && other.doc_ref.is_none()
            && !extracted.contains(&format!("LicenseRef-{}", other.lic_ref))
        {
            return Err(format!("the text of LicenseRef-{} is nowhere", other.lic_ref));
        }
    }
    Ok(())
}

fn check_reference(reference: &Value) -> Result<(), String> {
    only(reference, &["referenceCategory referenceLocator referenceType"])?;
    let locator = reference["referenceLocator"].as_str().unwrap_or_default();
    match (reference["referenceCategory"].as_str(), reference["referenceType"].as_str()) {
        (Some("PACKAGE-MANAGER"), Some("purl")) => {
            uri(locator)?;
            let rest = locator.strip_prefix("pkg:").ok_or("not a package URL")?;
            let (kind, rest) = rest.split_once('/').ok_or("a package URL without a name")?;
            let path = rest.split(['?', '#']).next().unwrap_or_default();
            let (name, version) = path.split_once('@').unwrap_or((path, "1"));
            let parts_are_there =
                [name.rsplit('/').next().unwrap_or_default(), version].iter().all(|p| !p.is_empty());
            let plain = matches!(kind, "apk" | "generic" | "github") && !version.contains(['@', '/']);
            if plain && parts_are_there && !name.contains("//") && !rest.contains(['+', ' ']) {
                Ok(())
            } else {
                Err(format!("not a package URL: {locator}"))
            }
        }
        (Some("SECURITY"), Some("cpe23Type")) => {
            let escaped = locator.replace("\\\\", "").replace("\\:", "");
            if locator.starts_with("cpe:2.3:") && escaped.matches(':').count() == 12 && locator.is_ascii() {
                Ok(())
            } else {
                Err(format!("not a CPE name: {locator}"))
            }
        }
        _ => Err(format!("not a reference: {reference}")),
    }
}

/// Texts as hostile as they come, and ordinary ones with something odd at an end.
fn odd() -> impl Strategy<Value = String> {
    let ordinary = proptest::sample::select(vec![
        "",
        "MIT",
        "mit",
        "GPL-2.0+",
        "MIT OR (ISC AND LicenseRef-x)",
        "LicenseRef-a_b",
        "Custom License",
        "NONE",
        "NOASSERTION",
        "Apache-2.0 WITH LLVM-exception",
        "MIT-or-later",
        "DocumentRef-a:LicenseRef-b",
        "(((",
        "gpl-2.0-only with classpath-exception-2.0",
        "☃",
        "a/../b",
        "https://u:p@h/x y#z#",
        "git@github.com:a/b.git",
        "https://github.com/A/B/",
        "https://github.com/",
        "http://[::1]/%zz",
        "git://h",
        "file:///x",
        "://",
        "1.0_p1-r0",
        "0123456789012345678901234567890123456789012345678901234567890123",
        "a\nb",
        "\u{2028}<&>",
        "eCos-2.0",
        "wolfi",
    ]);
    prop_oneof![
        3 => ordinary.prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => ".{0,12}",
        1 => "[a-zA-Z0-9:/@.%?#+ -]{0,30}",
    ]
}

fn any_step() -> impl Strategy<Value = PlanStep> {
    let names = [
        "uri",
        "purl-name",
        "purl-version",
        "expected-sha256",
        "expected-sha512",
        "repository",
        "tag",
        "branch",
    ];
    let with = proptest::collection::vec(odd(), names.len());
    (proptest::sample::select(vec!["fetch", "git-checkout", "x"]), with, odd()).prop_map(
        move |(uses, with, commit)| {
            let with: Vec<(&str, &str)> = names
                .into_iter()
                .chain(["expected-commit"])
                .zip(with.iter().map(String::as_str).chain([&*commit]))
                .collect();
            step(uses, &with)
        },
    )
}

fn any_package() -> impl Strategy<Value = PlanPackage> {
    let licenses = proptest::collection::vec((odd(), odd(), odd()), 0..4);
    let cpe = proptest::collection::vec(odd(), 4);
    let steps = proptest::collection::vec(any_step(), 0..5);
    (odd(), odd(), licenses, cpe, steps).prop_map(|(name, version, licenses, cpe, pipeline)| PlanPackage {
        name,
        version,
        copyright: licenses
            .into_iter()
            .map(|(license, attestation, license_path)| PlanCopyright {
                license,
                attestation,
                license_path,
                ..PlanCopyright::default()
            })
            .collect(),
        cpe: ["vendor", "product", "part", "other"].into_iter().zip(cpe).collect(),
        pipeline,
        ..PlanPackage::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_document_is_valid(
        (main, sub) in (any_package(), any_package()),
        (namespace, arch, config, license, repository, commit) in (odd(), odd(), odd(), odd(), odd(), odd()),
        texts in proptest::collection::btree_map(odd(), odd(), 0..5),
        epoch_seconds: i64,
    ) {
        for package in [&main, &sub] {
            let bytes = document(&SbomInput {
                namespace: &namespace,
                arch: &arch,
                main: &main,
                package,
                license_texts: &texts,
                config_name: &config,
                config_license: &license,
                repository: &repository,
                commit: &commit,
                epoch_seconds,
            });
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(check(&value), Ok(()));
            let is_escaped = !bytes.contains(&b'<');
            prop_assert!(is_escaped);
        }
    }
}
