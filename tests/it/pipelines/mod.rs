//! Every built-in pipeline, run for real: real compilers and installers in the sandbox, and what came out of them.
//!
//! The ones around `autoconf`, `cmake`, `meson` and `strip` are run by `packages.rs` and `corpus` too.

use std::collections::BTreeMap;

use melange_remote_sdk::builder::BuildStatus;

use crate::support::farm::{Backend, Built, Farm};
use crate::support::package::{RawEntry, Sections, entries};

mod absent;
mod languages;
mod npm;
mod sources;
mod splits;

/// What a package holds, by path.
struct Contents(BTreeMap<String, RawEntry>);

impl Contents {
    fn of(built: &Built, package: &str) -> Self {
        let bytes = built.bytes();
        let name = format!("x86_64/{package}.apk");
        let apk = bytes.get(&name).unwrap_or_else(|| panic!("no {name} in {:?}", bytes.keys()));
        let data = entries(&Sections::of(apk).data, true);
        Self(data.into_iter().map(|entry| (entry.name(), entry)).collect())
    }

    /// Every path that is no folder.
    fn files(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, entry)| entry.flag() != '5').map(|(path, _)| path.as_str()).collect()
    }

    fn entry(&self, path: &str) -> &RawEntry {
        self.0.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", self.files()))
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.entry(path).content.clone()).unwrap()
    }
}

/// Says so when a package holds other files than these and the list of what it holds.
fn only_files(contents: &Contents, expected: &[&str]) {
    let mut files = contents.files();
    files.retain(|path| !path.starts_with("var/lib/db/sbom/"));
    assert_eq!(files, expected);
}

/// Builds a definition in the sandbox, which must work; `None` after saying that there is no sandbox.
async fn build(farm: &Farm, name: &str, yaml: &str) -> Option<Built> {
    let built = try_build(farm, name, yaml).await?;
    built.assert_succeeded();
    println!("{name}: {}", built.timings());
    Some(built)
}

/// Builds a definition in the sandbox to its end; `None` after saying that there is no sandbox.
async fn try_build(farm: &Farm, name: &str, yaml: &str) -> Option<Built> {
    farm.runners.sandbox.as_ref()?;
    Some(farm.build(Backend::Sandbox, name, yaml).await)
}

/// The last lines of the step that failed.
fn failure(built: &Built) -> (String, String) {
    let BuildStatus::Failed { failure: Some(failure), .. } = &built.outcome.status else {
        panic!("no step failed: {built:?}")
    };
    (failure.step.clone(), failure.tail.join("\n"))
}
