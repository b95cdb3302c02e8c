//! The texts of licences, from the workspace of a guest into the SBOMs of its packages.

use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::job::DefinitionOrigin;
use serde_json::{Value, json};

use crate::support::farm::{Built, Farm, on_farm, run};
use crate::support::package::{Sections, entries};

fn definition(paths: &[&str]) -> String {
    let copyright: String = paths
        .iter()
        .enumerate()
        .map(|(at, path)| format!("    - license: Custom {at}\n      license-path: {path}\n"))
        .collect();
    format!(
        r#"package:
  name: texts
  version: "1"
  epoch: 0
  description: x
  copyright:
{copyright}environment:
  contents:
    packages: [busybox]
pipeline:
  - runs: |
      mkdir -p real-1/docs melange-out/texts/usr outside
      echo "one <text>" > real-1/docs/COPYING
      ln -s real-1 src; ln -s docs/COPYING real-1/LICENSE; ln -s /etc/passwd absolute
      ln -s ../../../../../../etc/os-release above; mkdir folder; mkfifo pipe
      mkdir -p melange-out/.licenses; ln -s /etc melange-out/.licenses/src
      echo x > melange-out/texts/usr/x
subpackages:
  - name: texts-sub
    pipeline:
      - runs: |
          mkdir -p "${{{{targets.contextdir}}}}/usr"; echo y > "${{{{targets.contextdir}}}}/usr/y"
"#
    )
}

/// The texts in the document of a package.
fn texts(built: &Built, package: &str) -> Vec<(String, String)> {
    let bytes = built.bytes();
    let sections = Sections::of(&bytes[&format!("x86_64/{package}-1-r0.apk")]);
    let data = entries(&sections.data, true);
    let names: Vec<String> = data.iter().map(|entry| entry.name()).collect();
    assert!(!names.iter().any(|name| name.contains("licenses")), "{names:?}");
    let document = data.iter().find(|entry| entry.name().ends_with(".spdx.json")).unwrap();
    let document: Value = serde_json::from_slice(&document.content).unwrap();
    assert_eq!(
        document["packages"][1]["licenseDeclared"],
        json!("LicenseRef-Custom-0 AND LicenseRef-Custom-1")
    );
    let infos = document["hasExtractedLicensingInfos"].as_array().unwrap().clone();
    let text = |info: &Value, key: &str| info[key].as_str().unwrap().to_owned();
    infos.iter().map(|info| (text(info, "licenseId"), text(info, "extractedText"))).collect()
}

#[test]
fn texts_come_from_the_workspace_and_links_stay_in_the_guest() {
    on_farm(async |farm: &Farm| {
        for backend in farm.backends() {
            let yaml = definition(&["src/LICENSE", "./real-1//docs/../docs/COPYING"]);
            let built = farm.build(backend, "texts", &yaml).await;
            for package in ["texts", "texts-sub"] {
                let expected = ["LicenseRef-Custom-0", "LicenseRef-Custom-1"]
                    .map(|id| (id.to_owned(), "one <text>\n".to_owned()));
                assert_eq!(texts(&built, package), expected, "{backend:?}");
            }
            assert!(ApkFile::open(built.path("/texts-1-r0.apk")).is_ok());
            let built = farm.build(backend, "texts", &definition(&["absolute", "above"])).await;
            let found = texts(&built, "texts");
            let guests = std::fs::read_to_string("/etc/passwd").unwrap();
            assert!(found[0].1.contains("root:x:0:0") && found[0].1 != guests, "{backend:?}: {found:?}");
            assert!(found[1].1.contains("ID=") && found[1].1.to_lowercase().contains("wolfi"), "{found:?}");
        }
    });
}

#[test]
fn what_is_no_file_of_the_workspace_fails_the_build() {
    on_farm(async |farm: &Farm| {
        for backend in farm.backends() {
            for path in ["LICENSE", "real-1/docs/COPYING/x"] {
                let complaint = farm.build(backend, "texts", &definition(&[path])).await.complaint();
                let expected = format!("`license-path` names {path}, which is no file of the workspace");
                assert!(complaint.contains(&expected), "{backend:?} {path}: {complaint}");
            }
            for path in ["folder", "pipe"] {
                let complaint = farm.build(backend, "texts", &definition(&[path])).await.complaint();
                assert!(complaint.contains(path), "{backend:?} {path}: {complaint}");
            }
            for path in ["../x", "/etc/passwd"] {
                let complaint = farm.build(backend, "texts", &definition(&[path])).await.complaint();
                assert!(complaint.contains("the `license-path`"), "{backend:?} {path}: {complaint}");
                assert!(!complaint.contains("[1/"), "no step ran: {complaint}");
            }
        }
    });
}

#[test]
fn packages_tell_where_their_definition_comes_from() {
    on_farm(async |farm: &Farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let yaml = "package:\n  name: origin\n  version: \"1\"\n  epoch: 0\n  description: x\n  copyright: [license: MIT]\n\
                    environment: {contents: {packages: [busybox]}}\npipeline:\n  - runs: \"true\"\n";
        let mut input = Farm::input(backend, "origin", yaml);
        input.origin = DefinitionOrigin::of_git("git@github.com:Owner/Defs.git", "c0ffee");
        input.origin.license = "Apache-2.0".to_owned();
        let built = run(farm.engine(), input).await;
        let bytes = built.bytes();
        let sections = Sections::of(&bytes["x86_64/origin-1-r0.apk"]);
        assert!(sections.pkginfo().contains("\ncommit = c0ffee\n"), "{}", sections.pkginfo());
        let data = entries(&sections.data, true);
        let document = data.iter().find(|entry| entry.name().ends_with(".spdx.json")).unwrap();
        let document: Value = serde_json::from_slice(&document.content).unwrap();
        let config = &document["packages"][2];
        assert_eq!(
            (&config["versionInfo"], &config["licenseDeclared"]),
            (&json!("c0ffee"), &json!("Apache-2.0"))
        );
        let url = &config["externalRefs"][0]["referenceLocator"];
        assert_eq!(url, "pkg:github/owner/defs@c0ffee#origin.yaml");
    });
}
