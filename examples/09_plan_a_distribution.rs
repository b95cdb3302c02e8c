//! Plans a small distribution whose compiler needs itself by way of its C library: the order of the jobs, what is cut and
//! what stands in, and why one job waits for another one.
//!
//! Pure: nothing is read, built or downloaded. `cargo run --example 09_plan_a_distribution`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use melange_remote_sdk::apk::index::IndexPackage;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::planner::{ArchPlan, Definition, Durations, PlanInput, PlanRequest, Skip, plan};
use melange_remote_sdk::solver::RepositoryPackages;
use melange_remote_sdk::text::diagnostics::{Diagnostics, Source};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Names of packages, and what their environments ask for.
const DEFINITIONS: [(&str, &str); 5] = [
    ("compiler", "libc-dev"),
    ("libc", "compiler, make"),
    ("make", "compiler"),
    ("zlib", "compiler, make"),
    ("curl", "compiler, zlib-dev"),
];

fn text(name: &str, needs: &str) -> String {
    format!(
        "package: {{name: {name}, version: \"2.0\", epoch: 0}}\n\
         environment: {{contents: {{packages: [{needs}]}}}}\n\
         pipeline:\n  - runs: make install\n\
         subpackages:\n  - name: {name}-dev\n"
    )
}

fn planned() -> Result<ArchPlan> {
    let (mut definitions, mut skipped) = (Vec::new(), Vec::new());
    for (name, needs) in DEFINITIONS {
        let file = format!("{name}.yaml");
        let source = Source::new(file.clone(), text(name, needs));
        let compiled =
            melange::compile(&source, Arch::X86_64, &PipelineSet::default(), &CompileOptions::default());
        match compiled.map_err(Diagnostics::into_error)? {
            Compiled::Plan(plan) => definitions.push(Definition::new(file, &plan)),
            Compiled::Skipped { package, reason } => skipped.push(Skip { name: package, file, reason }),
        }
    }
    // What users have today: an older compiler and its library; nothing else is published.
    let published: Vec<IndexPackage> = ["compiler", "libc", "libc-dev"]
        .map(|name| IndexPackage { name: name.into(), version: "1.0-r0".into(), ..IndexPackage::default() })
        .into();
    let input = PlanInput {
        arch: Arch::X86_64,
        definitions,
        skipped,
        published: &[RepositoryPackages { tag: "", packages: &published }],
        durations: Durations::default(),
    };
    Ok(plan(&input, &PlanRequest::default())?)
}

fn main() -> Result<()> {
    let plan = planned()?;
    let name = |job: usize| plan.jobs[job].name.as_str();
    for job in &plan.jobs {
        let waits: Vec<&str> = job.waits_for.iter().map(|needed| name(*needed)).collect();
        println!("level {}: {}-{} waits for {waits:?}", job.level, job.name, job.version);
    }
    for cut in &plan.cuts {
        let circle: Vec<&str> = cut.cycle.iter().map(|job| name(*job)).collect();
        println!(
            "cut: {} needs {}, {:?} stands in, circle {circle:?}",
            name(cut.from),
            cut.entries[0],
            cut.stand_ins
        );
    }
    let (curl, libc) = (plan.job_of("curl").ok_or("no curl")?, plan.job_of("libc").ok_or("no libc")?);
    for step in plan.chain(curl, libc).map(|chain| chain.steps).unwrap_or_default() {
        println!("{} needs {} by {}", name(step.from), name(step.to), step.entry);
    }
    let path: Vec<&str> = plan.critical_path.iter().map(|job| name(*job)).collect();
    println!("the longest chain: {path:?}, {} minutes", plan.critical_time.as_secs() / 60);
    Ok(())
}
