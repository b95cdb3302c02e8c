//! Packages are linted before they are made: what is found is what real melange found, and what stands against a package
//! fails the build of it.

use std::collections::BTreeSet;
use std::fs;

use melange_remote_sdk::analysis::lint::{LintSeverity, Linter, LinterSets, PackageLint};
use melange_remote_sdk::builder::BuildStatus;
use melange_remote_sdk::engine::EngineBuilder;

use crate::support::farm::{Backend, Built, Farm, on_farm, run};
use crate::support::oracle;

/// Definitions that fetch from hosts which tests do not reach; linters found nothing in their packages.
const FETCHING: [&str; 2] = ["c19-sbom", "c48-net"];

/// The names of the linters that found something, of one weight or of any.
fn linters(found: &[PackageLint], severity: Option<LintSeverity>) -> BTreeSet<String> {
    let findings = found.iter().flat_map(|lint| &lint.findings);
    let counts = |weight| severity.is_none_or(|severity| severity == weight);
    findings.filter(|finding| counts(finding.severity)).map(|finding| finding.linter.clone()).collect()
}

fn names(list: &serde_json::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Whether a recorded package has a file whose name ends in `.la`.
fn has_libtool_archives(record: &serde_json::Value) -> bool {
    let packages = record["packages"].as_object().unwrap().values();
    let mut members = packages.flat_map(|package| package["members"].as_array().unwrap());
    members.any(|member| member[3].as_str().unwrap().ends_with(".la"))
}

#[test]
fn findings_are_those_of_melange() {
    let Some(folder) = oracle("melange-packages") else { return };
    let recorded: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("recorded.json")).unwrap()).unwrap();
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let mut wrong = Vec::new();
        for (name, expected) in recorded.as_object().unwrap() {
            if FETCHING.contains(&name.as_str()) {
                assert_eq!(names(&expected["lint_warned"]), BTreeSet::new());
                continue;
            }
            let yaml = fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            let mut input = Farm::input(backend, name, &yaml);
            let mine = fs::read_to_string(folder.join("pipelines/local/mine.yaml")).unwrap();
            input.pipelines = [("local/mine.yaml".to_owned(), mine)].into();
            input.source_dir = Some(folder.join(name)).filter(|beside| beside.is_dir());
            let built = run(farm.engine(), input).await;
            let lint = &built.outcome.lint;
            // The record's log does not tell required findings from others.
            let required = linters(lint, Some(LintSeverity::Required));
            let found = (linters(lint, None), required.clone());
            let mut expected_of = (names(&expected["lint_warned"]), names(&expected["lint_required_failed"]));
            // The record has no names with a dash; its packages hold what this linter looks for.
            if has_libtool_archives(expected) {
                expected_of.0.insert(Linter::LaFiles.to_string());
                expected_of.1.insert(Linter::LaFiles.to_string());
            }
            if found != expected_of {
                wrong.push(format!("{name}: {found:?} instead of {expected_of:?}\n{built:?}"));
            }
            assert_eq!(built.outcome.status == BuildStatus::Succeeded, required.is_empty(), "{built:?}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// A definition whose package holds what `script` installs.
fn definition(name: &str, script: &str, more: &str) -> String {
    format!(
        "package:\n  name: {name}\n  version: '1.0'\n  epoch: 0\n  copyright: [{{license: MIT}}]\n{more}environment:\n  \
         contents:\n    packages: [busybox]\npipeline:\n  - runs: |\n      cd ${{{{targets.destdir}}}}\n      {script}\n"
    )
}

/// Of these nine, real melange refuses six.
#[test]
fn what_breaks_a_required_rule_is_not_made() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            for (linter, script, is_refused) in [
                (Linter::Dev, "mkdir dev; echo x > dev/x", true),
                (Linter::ManInfo, "mkdir -p usr/share/info; echo x > usr/share/info/dir", false),
                (Linter::Opt, "mkdir opt; echo x > opt/x", false),
                (Linter::SetUidGid, "mkdir -p usr/bin; echo x > usr/bin/x; chmod 4755 usr/bin/x", true),
                (Linter::Srv, "mkdir srv; echo x > srv/x", false),
                (Linter::TempDir, "mkdir tmp; echo x > tmp/x", true),
                (Linter::UsrMerge, "mkdir bin; echo x > bin/x", true),
                (Linter::VarEmpty, "mkdir -p var/empty; echo x > var/empty/x", true),
                (Linter::WorldWrite, "mkdir usr; echo x > usr/x; chmod 777 usr/x", true),
            ] {
                let built = farm.build(backend, "tripping", &definition("tripping", script, "")).await;
                assert_eq!(
                    linters(&built.outcome.lint, None),
                    BTreeSet::from([linter.to_string()]),
                    "{built:?}"
                );
                if !is_refused {
                    built.assert_succeeded();
                    continue;
                }
                let complaint = built.complaint();
                let begin = format!("reason: unable to lint package tripping: linter \"{linter}\" failed: ");
                assert!(complaint.starts_with(&begin), "{complaint}");
                assert!(complaint.contains("name the linter under its `checks.disabled`"), "{complaint}");
                let off = format!("  checks: {{disabled: [{linter}]}}\n");
                let built = farm.build(backend, "tripping", &definition("tripping", script, &off)).await;
                built.assert_succeeded();
                let warned = linters(&built.outcome.lint, Some(LintSeverity::Warning));
                assert_eq!(warned, BTreeSet::from([linter.to_string()]));
            }
        }
    });
}

/// Two packages: what the one switches off counts for the other.
const TWO: &str = "subpackages:
  - name: two-sub
    pipeline:
      - runs: |
          mkdir -p ${{targets.subpkgdir}}/dev ${{targets.subpkgdir}}/srv
          echo x > ${{targets.subpkgdir}}/dev/y; echo x > ${{targets.subpkgdir}}/srv/z
          echo x > ${{targets.subpkgdir}}/worldly; chmod 666 ${{targets.subpkgdir}}/worldly
";

#[test]
fn each_package_is_judged_by_its_own_checks() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let yaml = definition("two", "mkdir dev; echo x > dev/x", "  checks: {disabled: [dev]}\n") + TWO;
        let built = farm.build(backend, "two", &yaml).await;
        let complaint = built.complaint();
        let engine: Vec<&str> = complaint.lines().filter(|line| !line.contains("environment of")).collect();
        insta::assert_snapshot!(engine.join("\n"));
    });
}

fn engine_with(farm: &Farm, linters: LinterSets) -> EngineBuilder {
    farm.engine_with_options(|options| options.linters = linters)
}

#[test]
fn the_sets_are_the_callers() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let yaml = definition("sets", "mkdir -p dev srv; echo x > dev/x; echo x > srv/x", "");
        let sets = LinterSets { required: vec![Linter::Srv], warned: Vec::new() };
        let built = run(&engine_with(farm, sets), Farm::input(backend, "sets", &yaml)).await;
        assert!(built.complaint().starts_with("reason: unable to lint package sets: linter \"srv\" failed"));
        let none = LinterSets { required: Vec::new(), warned: Vec::new() };
        let built: Built = run(&engine_with(farm, none), Farm::input(backend, "sets", &yaml)).await;
        built.assert_succeeded();
        assert!(built.outcome.lint.is_empty());
    });
}

/// Before anything of the environment is fetched.
#[test]
fn unknown_linters_are_refused_with_their_place() {
    on_farm(async |farm| {
        let yaml = definition("unknown", "true", "  checks:\n    disabled: [usrmergd]\n");
        let built = farm.build(Backend::Sandbox, "unknown", &yaml).await;
        insta::assert_snapshot!(built.complaint());
    });
}
