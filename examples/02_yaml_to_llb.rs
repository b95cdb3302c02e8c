//! From YAML to what a BuildKit daemon gets, without a daemon.
//!
//! A definition is compiled for one architecture, its steps become the scripts of a guest, and the guest becomes
//! a graph in BuildKit's low-level format. All of it is pure: run it anywhere, compare the output in tests.
//!
//! `cargo run --example 02_yaml_to_llb`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::guest::script::{self, ScriptOptions};
use melange_remote_sdk::guest::{Blob, GuestPlan};
use melange_remote_sdk::llb::{self, PlanOptions};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::text::diagnostics::Source;

const DEFINITION: &str = r#"
package:
  name: greeting
  version: "1.0"
  epoch: 0
environment:
  contents:
    packages: [busybox]
pipeline:
  - runs: |
      mkdir -p ${{targets.destdir}}/usr/share
      echo "built for ${{build.arch}}" > ${{targets.destdir}}/usr/share/greeting
  - uses: strip
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = Source::new("greeting.yaml", DEFINITION);
    let compiled =
        melange::compile(&source, Arch::X86_64, &PipelineSet::default(), &CompileOptions::default())?;
    let Compiled::Plan(plan) = compiled else {
        return Err("the definition is for other architectures".into());
    };

    println!("packages of the environment: {}", plan.environment.packages.join(", "));
    let steps = script::guest_steps(&plan, &ScriptOptions::default())?;
    for step in &steps {
        println!("--- {} (network: {})\n{}", step.name, step.network, step.script);
    }

    // The engine would assemble these two archives; the graph only refers to them by their digests.
    let blob = |digit: &str| Blob { path: "unused".into(), sha256: digit.repeat(64), size_bytes: 0 };
    let guest = GuestPlan::new("greeting", Arch::X86_64, blob("a"), vec![blob("b")], steps);
    let lowered = llb::from_plan(&guest, &PlanOptions::new("example"))?;
    println!("--- LLB, digest {}\n{}", lowered.definition.digest(), llb::dump(&lowered.definition));
    Ok(())
}
