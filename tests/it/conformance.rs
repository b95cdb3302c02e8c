//! The builder's contract, run by the engine over both runners.

use std::sync::Arc;

use melange_remote_sdk::builder::Builder;
use melange_remote_sdk::conformance::builder::{Case, all};

use crate::support::farm::{Farm, distro_defaults, on_farm};

const SUCCEEDING: &str = "package:\n  name: good\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    packages: [busybox]\npipeline:\n  - runs: |\n      echo working\n      mkdir -p ${{targets.destdir}}/usr/share\n      echo done > ${{targets.destdir}}/usr/share/file\n";

#[test]
fn the_engine_keeps_the_builders_contract() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let engine: Arc<dyn Builder> = Arc::new(farm.engine_with(distro_defaults(&farm.places.distro)));
            let script = |script: &str| SUCCEEDING.replace("mkdir -p", &format!("{script}\n      mkdir -p"));
            all(&Case {
                succeeds: Arc::clone(&engine),
                fails: Arc::clone(&engine),
                runs_long: engine,
                succeeding: Farm::input(backend, "good", SUCCEEDING),
                failing: Farm::input(backend, "bad", &script("exit 3")),
                long: Farm::input(backend, "long", &script("sleep 100000")),
            })
            .await;
            println!("{backend:?} keeps the contract");
        }
    });
}
