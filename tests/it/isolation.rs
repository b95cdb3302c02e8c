//! What a step sees: its variables, its place, its owners, no network, and nothing of the machine.

use crate::support::farm::on_farm;
use crate::support::package::{Sections, entries};

pub(crate) const RUN_AS: &str = include_str!("definitions/run-as.yaml");

/// The defaults of every definition that sets none of them.
const VARIABLES: [&str; 11] = [
    "COMPOSER_CACHE_DIR=/var/cache/melange/composer",
    "GOMODCACHE=/var/cache/melange/gomodcache",
    "GOPATH=/home/build/.cache/go",
    "GREETING=hello there",
    "HOME=/home/build",
    "OWN=of the step",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin",
    "PIP_CACHE_DIR=/var/cache/melange/pip",
    "SOURCE_DATE_EPOCH=42",
    "UV_CACHE_DIR=/var/cache/melange/uv",
    "npm_config_cache=/var/cache/melange/npm",
];

#[test]
fn a_step_sees_what_it_should_and_nothing_else() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let built = farm.build(backend, "isolation", include_str!("definitions/isolation.yaml")).await;
            built.assert_succeeded();
            let lines = |step: &str| built.events.lines_of(&format!("isolation: {step}"));
            assert_eq!(lines("variables"), VARIABLES, "{backend:?}");
            assert_eq!(
                lines("place"),
                ["/home/build/deep/er", "0022", "0", "0", "1", "processors", "few processes"],
                "{backend:?}"
            );
            assert_eq!(lines("ruby/clean"), ["lo"], "{backend:?}");
            assert_eq!(
                lines("owners"),
                ["installed 33:44 640", "tree 12345:54321 755", "tree/file 12345:54321 644"],
                "{backend:?}"
            );
            let refused =
                ["no mount", "no unshare", "no disk", "scripts are read-only", "no kernel settings"];
            assert_eq!(lines("refused"), refused, "{backend:?}");
        }
    });
}

#[test]
fn steps_of_another_account_make_files_of_root() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let built = farm.build(backend, "run-as", RUN_AS).await;
            built.assert_succeeded();
            assert_eq!(
                built.events.lines_of("run-as: who"),
                [
                    "1000",
                    "1000",
                    "build",
                    "CapEff:\t0000000000000000",
                    "0022",
                    "the system is not mine",
                    "1000:1000"
                ],
                "{backend:?}"
            );
            let sections = Sections::of(&built.bytes()["x86_64/run-as-1-r0.apk"]);
            let data = entries(&sections.data, true);
            let lines: Vec<String> = data.iter().map(|entry| entry.line()).collect();
            assert!(lines.contains(&"0 0755 0:0 \"root\":\"root\" 0 usr/bin/mine".to_owned()), "{lines:?}");
        }
    });
}
