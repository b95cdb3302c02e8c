//! The planner on two thirds of a real distribution.

use std::collections::{BTreeMap, BTreeSet};

use melange_remote_sdk::apk::index::IndexPackage;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};
use melange_remote_sdk::planner::{
    ArchPlan, CutAim, Definition, Durations, PlanInput, PlanRequest, Rebuild, Skip, plan,
};
use melange_remote_sdk::solver::RepositoryPackages;
use melange_remote_sdk::text::diagnostics::Source;

use crate::support::corpus::{corpus, definitions, pipelines};

/// The cuts between different definitions: no fewer do, as an integer program over the same graph proves.
const CUTS: usize = 61;

fn compiled() -> Option<(Vec<Definition>, Vec<Skip>)> {
    let folder = corpus()?;
    let pipelines = PipelineSet::new(&pipelines(folder)).unwrap();
    let (mut all, mut skipped) = (Vec::new(), Vec::new());
    for path in definitions(folder) {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let source = Source::new(file.clone(), std::fs::read_to_string(path).unwrap());
        match compile(&source, Arch::X86_64, &pipelines, &CompileOptions::default()).unwrap() {
            Compiled::Plan(plan) => all.push(Definition::new(file, &plan)),
            Compiled::Skipped { package, reason } => skipped.push(Skip { name: package, file, reason }),
        }
    }
    Some((all, skipped))
}

/// All packages of the definitions, as if they were published.
fn published(definitions: &[Definition]) -> Vec<IndexPackage> {
    definitions.iter().flat_map(Definition::records).collect()
}

fn planned(input: &(Vec<Definition>, Vec<Skip>), published: &[IndexPackage], cut: CutAim) -> ArchPlan {
    let repositories = [RepositoryPackages { tag: "", packages: published }];
    let input = PlanInput {
        arch: Arch::X86_64,
        definitions: input.0.clone(),
        skipped: input.1.clone(),
        published: &repositories,
        durations: Durations::default(),
    };
    let mut request = PlanRequest::default();
    (request.rebuild, request.cut) = (Rebuild::All, cut);
    plan(&input, &request).unwrap()
}

#[test]
fn a_distribution_is_planned_with_the_fewest_cuts_each_explained() {
    let Some(input) = compiled() else { return };
    let packages = published(&input.0);
    let plan = planned(&input, &packages, CutAim::Fewest);
    assert_eq!((plan.jobs.len(), plan.skipped.len(), plan.refused.len()), (2_232, 1, 0));
    let between: Vec<_> = plan.cuts.iter().filter(|cut| cut.from != cut.to).collect();
    assert_eq!(between.len(), CUTS);
    let needs: BTreeSet<(usize, usize)> = plan
        .edges
        .iter()
        .map(|edge| (edge.from, edge.to))
        .chain(plan.cuts.iter().map(|cut| (cut.from, cut.to)))
        .collect();
    for cut in &plan.cuts {
        assert_eq!(cut.stand_ins.len(), cut.entries.len(), "each entry has a package that stands in");
        let next = cut.cycle.iter().cycle().skip(1);
        assert!(cut.cycle.iter().zip(next).all(|(from, to)| needs.contains(&(*from, *to))), "{cut:?}");
    }
    // Jobs are in the order of their levels, so that no circle is left.
    assert!(plan.edges.iter().all(|edge| plan.jobs[edge.from].level > plan.jobs[edge.to].level));
    assert_eq!(planned(&input, &packages, CutAim::Fewest), plan, "the same input gives the same plan");
    let short = planned(&input, &packages, CutAim::Short);
    let trade = short.fewest.as_ref().unwrap();
    assert_eq!((trade.cuts, trade.levels), (plan.cuts.len(), plan.levels()));
    assert!(short.levels() < trade.levels && short.critical_time < trade.critical_time);
}

#[test]
fn without_anything_published_what_has_no_beginning_is_said_once() {
    let Some(input) = compiled() else { return };
    let plan = planned(&input, &[], CutAim::Fewest);
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in plan.refused.iter().flat_map(|refusal| &refusal.cycle) {
        *named.entry(name).or_default() += 1;
    }
    assert!(named.values().all(|times| *times == 1), "{named:?}");
    assert!(plan.refused.iter().any(|refusal| refusal.members > 100), "the core is one thing");
    assert_eq!(plan.jobs.len() + plan.skipped.len(), 2_233);
    assert!(plan.cuts.is_empty());
}
