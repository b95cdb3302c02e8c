//! The builder's contract, run by the engine over both runners, and the proof that the suites of all contracts bite.

use std::sync::Arc;

use melange_remote_sdk::builder::Builder;
use melange_remote_sdk::conformance::builder::{Case, all};
use melange_remote_sdk::conformance::mutants::{self, Verdict};

use crate::support::events::{marker, processes_with};
use crate::support::farm::{Farm, distro_defaults, on_farm};

const SUCCEEDING: &str = "package:\n  name: good\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    packages: [busybox]\npipeline:\n  - runs: |\n      echo working\n      mkdir -p ${{targets.destdir}}/usr/share\n      echo done > ${{targets.destdir}}/usr/share/file\n";

#[test]
fn the_engine_keeps_the_builders_contract() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let engine: Arc<dyn Builder> = Arc::new(farm.engine_with(distro_defaults(&farm.places.distro)));
            let script = |script: &str| SUCCEEDING.replace("mkdir -p", &format!("{script}\n      mkdir -p"));
            let marker = marker();
            let long = format!("sleep {marker} &\n      echo begun\n      wait");
            let inputs = [
                Farm::input(backend, "good", SUCCEEDING),
                Farm::input(backend, "bad", &script("exit 3")),
                Farm::input(backend, "long", &script(&long)),
            ];
            all(&Case::new(&engine, inputs, move || processes_with(&marker).len())).await;
            println!("{backend:?} keeps the contract");
        }
    });
}

/// Prints what the suite said of each mutant, and fails when one survived.
fn report(verdict: &Verdict) {
    println!("{verdict}");
    for (mutant, by) in &verdict.caught {
        println!("  {mutant}: {}", by.lines().next().unwrap_or_default());
    }
    assert!(verdict.survived.is_empty(), "{verdict}");
    assert!(verdict.caught.len() >= 10, "there are mutants");
}

#[tokio::test(start_paused = true)]
async fn every_mutant_of_a_job_store_is_caught() {
    report(&mutants::job_store::run().await);
}

#[tokio::test(start_paused = true)]
async fn every_mutant_of_an_artifact_storage_is_caught() {
    report(&mutants::artifact_storage::run().await);
}

#[tokio::test(start_paused = true)]
async fn every_mutant_of_a_backend_registry_is_caught() {
    report(&mutants::backend_registry::run().await);
}

#[test]
fn every_mutant_of_a_backend_selector_is_caught() {
    report(&mutants::backend_selector::run());
}

#[tokio::test]
async fn every_mutant_of_a_source_cache_is_caught() {
    report(&mutants::source_cache::run().await);
}

#[tokio::test(start_paused = true)]
async fn every_mutant_of_a_builder_is_caught() {
    report(&mutants::builder::run().await);
}
