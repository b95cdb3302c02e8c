//! Small definitions at the corners, built here, beside what real melange made of them.
//!
//! What a compiler made and what a step saw of its machine is not compared; the rest is equal, or a difference with a
//! reason, which `docs/definitions.md` gives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use melange_remote_sdk::builder::BuildInput;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::corpus::pipelines;
use crate::support::farm::{Backend, Farm, on_farm, run};
use crate::support::oracle;
use crate::support::package::{RawEntry, Sections, entries};

/// A difference that stays: the package, the place, and what tells of it.
type Difference = (&'static str, &'static str, &'static str);

/// Those of the shared definitions.
const DIFFERENCES: [Difference; 18] = [
    // Two sources of one name: SPDX wants identifiers that are unique.
    ("c19-sbom-sub-2.10-r3.apk", "SBOM packages[2]", "\"SPDXRef-Package-Source-c19-sbom-2.10-0-2\""),
    ("c19-sbom-sub-2.10-r3.apk", "SBOM relationships[0]", "\"SPDXRef-Package-Source-c19-sbom-2.10-0-2\""),
    // Users and passwords stay out.
    (
        "c33-gitsbom-1.0-r0.apk",
        "SBOM packages[13]",
        "here {\"SPDXID\":\"SPDXRef-Package-Source-github.com-sec-ret-v1.0",
    ),
    ("c33-gitsbom-1.0-r0.apk", "SBOM relationships[11]", "Source-user-pwC64github.com-sec-ret"),
    // A version that is empty is none.
    ("c44-conf-1.0-r0.apk", ".PKGINFO", "melange \"provides = so:libempty.so.=\""),
    ("c44-conf-1.0-r0.apk", ".PKGINFO", "here \"provides = so:libempty.so.=0\""),
    // Files of pkg-config that melange's reader refuses in whole.
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:bc1\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:bc2\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:c1\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:c2\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:vf1\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:vp1\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"depend = pc:vpl1\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"provides = pc:badcmp=1.0-r0\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"provides = pc:comma=1.0-r0\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"provides = pc:varfirst=1.0-r0\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"provides = pc:varplain=1.0-r0\""),
    ("c54-pc-1.0-r0.apk", ".PKGINFO", "here \"provides = pc:varplus=1.0-r0\""),
];

/// Those of the definitions beside this file.
const OWN_DIFFERENCES: [Difference; 0] = [];

/// Files that hold what a step saw of its machine and runner: processes, networks, sizes of folders, times, accounts that
/// the runner maps.
const MACHINES: [&str; 12] = [
    "/look/",
    "usr/share/c/caps",
    "usr/share/c/ls",
    "usr/share/c/w",
    "usr/share/g/ls",
    "usr/share/g/ps",
    "usr/share/g/stat",
    "usr/share/n/dev",
    "usr/share/n/http",
    "usr/share/n/resolv",
    "usr/share/st/ps",
    "usr/share/ws/list",
];

/// Digits of a content's hash that were recorded.
const HASH_DIGITS: usize = 12;

#[test]
fn packages_are_those_that_melange_made() {
    let Some(path) = oracle("melange-packages/recorded.json") else { return };
    compare_folder(path.parent().unwrap(), &DIFFERENCES);
}

#[test]
fn packages_of_our_own_definitions_are_those_that_melange_made() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/recorded");
    compare_folder(&folder, &OWN_DIFFERENCES);
}

fn compare_folder(folder: &Path, differences: &[Difference]) {
    let recorded = std::fs::read(folder.join("recorded.json")).unwrap();
    let recorded: BTreeMap<String, Value> = serde_json::from_slice(&recorded).unwrap();
    on_farm(async |farm| {
        if farm.runners.sandbox.is_none() {
            return;
        }
        // Every package is made, whatever linters find.
        let engine = farm.engine_with_options(|options| options.linters.required.clear());
        let (mut found, mut count) = (BTreeSet::new(), 0);
        for (name, expected) in &recorded {
            let built = run(&engine, input(folder, name)).await;
            if let Some(expected) = expected.get("linted") {
                let findings = built.outcome.lint.iter().flat_map(|lint| &lint.findings);
                let linters: BTreeSet<&str> = findings.map(|finding| finding.linter.as_str()).collect();
                if *expected != json!(linters) {
                    found.insert(difference(
                        name,
                        "linters",
                        &expected.to_string(),
                        &json!(linters).to_string(),
                    ));
                }
            }
            let packages = built.bytes();
            let names: Vec<&String> = packages.keys().filter(|name| name.ends_with(".apk")).collect();
            let expected = expected["packages"].as_object().unwrap();
            let expected_names: Vec<String> = expected.keys().map(|name| format!("x86_64/{name}")).collect();
            assert_eq!(names.len(), expected.len(), "{names:?} {expected_names:?} {built:?}");
            for (name, expected) in expected {
                compare(name, expected, &packages[&format!("x86_64/{name}")], &mut found);
                count += 1;
            }
        }
        println!("recorded: {count} packages, {} differences with a reason", differences.len());
        let is_known = |found: &String, (package, place, part): &Difference| {
            found.starts_with(&format!("{package} {place}: ")) && found.contains(part)
        };
        let news: Vec<&String> =
            found.iter().filter(|found| !differences.iter().any(|known| is_known(found, known))).collect();
        let gone: Vec<_> = differences
            .iter()
            .filter(|known| found.iter().filter(|found| is_known(found, known)).count() != 1)
            .collect();
        assert!(news.is_empty() && gone.is_empty(), "new: {news:#?}\ngone: {gone:#?}");
    });
}

fn input(folder: &Path, name: &str) -> BuildInput {
    let yaml = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    let mut input = Farm::input(Backend::Sandbox, name, &yaml);
    let beside = folder.join(name);
    input.source_dir = beside.is_dir().then_some(beside);
    input.pipelines = pipelines(folder).into_iter().collect();
    input
}

fn difference(package: &str, place: &str, theirs: &str, ours: &str) -> String {
    format!("{package} {place}: melange {theirs}, here {ours}")
}

/// Puts what differs into `found`.
fn compare(package: &str, expected: &Value, apk: &[u8], found: &mut BTreeSet<String>) {
    let sections = Sections::of(apk);
    let control = entries(&sections.control, false);
    let data = entries(&sections.data, true);
    let mut put = |place: &str, theirs: &Value, ours: &Value| {
        if theirs != ours {
            found.insert(difference(package, place, &theirs.to_string(), &ours.to_string()));
        }
    };
    let names: Vec<String> = control.iter().map(RawEntry::name).collect();
    put("control", &expected["control"], &json!(names));
    for entry in &control {
        if let Some(text) = expected["scripts"].get(entry.name()) {
            put(&entry.name(), text, &json!(String::from_utf8_lossy(&entry.content)));
        }
    }
    lines(&expected["pkginfo"], &control[0], &mut put);
    members(&expected["members"], &data, &mut put);
    let sbom = data.iter().find(|entry| entry.name().ends_with(".spdx.json")).unwrap();
    let mut sbom: Value = serde_json::from_slice(&sbom.content).unwrap();
    sbom["creationInfo"].as_object_mut().unwrap().remove("creators");
    let theirs = expected["sbom"].as_object().unwrap();
    for (key, ours) in sbom.as_object_mut().unwrap() {
        match (theirs.get(key), ours) {
            (Some(Value::Array(theirs)), Value::Array(ours)) => {
                for at in 0..theirs.len().max(ours.len()) {
                    let part = |list: &[Value]| list.get(at).cloned().unwrap_or_default();
                    put(&format!("SBOM {key}[{at}]"), &part(theirs), &part(ours));
                }
            }
            (Some(theirs), ours) => put(&format!("SBOM {key}"), theirs, ours),
            // What was not recorded.
            (None, _) if key == "documentNamespace" => {}
            (None, ours) => put(&format!("SBOM {key}"), &Value::Null, ours),
        }
    }
}

/// Lines of `.PKGINFO`, except those that name the archive itself.
fn lines(expected: &Value, entry: &RawEntry, put: &mut impl FnMut(&str, &Value, &Value)) {
    let left_out = ["size = ", "datahash = ", "builddate = ", "commit = "];
    let text = String::from_utf8(entry.content.clone()).unwrap();
    let ours: Vec<&str> =
        text.lines().filter(|line| !left_out.iter().any(|key| line.starts_with(key))).collect();
    let theirs: Vec<&str> = expected.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    for line in theirs.iter().filter(|line| !ours.contains(line)) {
        put(".PKGINFO", &json!(line), &Value::Null);
    }
    for line in ours.iter().filter(|line| !theirs.contains(line)) {
        put(".PKGINFO", &Value::Null, &json!(line));
    }
    if theirs.len() == ours.len() && theirs.iter().all(|line| ours.contains(line)) {
        put(".PKGINFO", &json!(theirs), &json!(ours));
    }
}

fn members(expected: &Value, data: &[RawEntry], put: &mut impl FnMut(&str, &Value, &Value)) {
    let mut theirs: BTreeMap<String, Value> = BTreeMap::new();
    let mut order = Vec::new();
    for member in expected.as_array().unwrap() {
        let name = member[3].as_str().unwrap().to_owned();
        order.push(name.clone());
        theirs.insert(name, member.clone());
    }
    let names: Vec<String> = data.iter().map(RawEntry::name).collect();
    put("members", &json!(order), &json!(names));
    for entry in data {
        let Some(theirs) = theirs.get(&entry.name()) else { continue };
        let mut theirs = theirs.clone();
        let mut ours = json!([
            entry.flag().to_string(),
            format!("{:o}", entry.mode()),
            entry.owner(),
            entry.name(),
            entry.link(),
            entry.content.len(),
            entry.records.keys().collect::<Vec<_>>(),
            &hex::encode(Sha256::digest(&entry.content))[..HASH_DIGITS],
        ]);
        // A compiler's and a machine's; the document is compared on its own.
        let is_compiled = [&b"\x7fELF"[..], b"!<arch>"].iter().any(|magic| entry.content.starts_with(magic));
        let is_machines = MACHINES.iter().any(|name| entry.name().contains(name));
        if is_compiled || is_machines || entry.name().ends_with(".spdx.json") {
            for at in [5, 7] {
                (theirs[at], ours[at]) = (Value::Null, Value::Null);
            }
        }
        put(&entry.name(), &theirs, &ours);
    }
}
