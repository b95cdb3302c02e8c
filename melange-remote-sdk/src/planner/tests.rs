//! Plans of small distributions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::apk::index::IndexPackage;

/// A definition with version 1-r0 that makes the package of its name.
fn definition(name: &str, needs: &[&str]) -> Definition {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let main = Produced { name: name.to_owned(), provides: own(&[]), needs: own(&[]), provider_priority: 0 };
    Definition {
        file: format!("{name}.yaml"),
        name: name.to_owned(),
        version: "1-r0".to_owned(),
        arch: Arch::X86_64,
        packages: vec![main],
        needs: own(needs),
    }
}

impl Definition {
    fn at(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    fn makes(mut self, name: &str, provides: &[&str]) -> Self {
        let provides = provides.iter().map(|text| (*text).to_owned()).collect();
        self.packages.push(Produced {
            name: name.to_owned(),
            provides,
            needs: Vec::new(),
            provider_priority: 0,
        });
        self
    }

    fn runs_with(mut self, needs: &[&str]) -> Self {
        self.packages[0].needs = needs.iter().map(|text| (*text).to_owned()).collect();
        self
    }
}

fn published(packages: &[(&str, &str)]) -> Vec<IndexPackage> {
    let package = |(name, version): &(&str, &str)| IndexPackage {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        ..IndexPackage::default()
    };
    packages.iter().map(package).collect()
}

fn planned(
    definitions: &[Definition],
    published: &[IndexPackage],
    request: &PlanRequest,
) -> Result<ArchPlan> {
    let repositories = [RepositoryPackages { tag: "", packages: published }];
    let input = PlanInput {
        arch: Arch::X86_64,
        definitions: definitions.to_vec(),
        skipped: Vec::new(),
        published: &repositories,
        durations: Durations::default(),
    };
    plan(&input, request)
}

fn all() -> PlanRequest {
    PlanRequest { rebuild: Rebuild::All, ..PlanRequest::default() }
}

fn named(packages: &[&str]) -> PlanRequest {
    let packages = packages.iter().map(|name| (*name).to_owned()).collect();
    PlanRequest { selection: Selection { packages, globs: Vec::new() }, ..PlanRequest::default() }
}

impl ArchPlan {
    fn names(&self) -> Vec<&str> {
        self.jobs.iter().map(|job| job.name.as_str()).collect()
    }

    /// The needs in words: `a -> b by c`.
    fn needs(&self) -> Vec<String> {
        let told = |edge: &Edge| {
            let (from, to) = (&self.jobs[edge.from].name, &self.jobs[edge.to].name);
            format!("{from} -> {to} by {}", edge.entries.join(" "))
        };
        self.edges.iter().map(told).collect()
    }

    /// The cuts in words: `a -> b by c: b-1-r0 in a b`.
    fn told_cuts(&self) -> Vec<String> {
        let told = |cut: &Cut| {
            let name = |job: &usize| self.jobs[*job].name.as_str();
            let cycle: Vec<&str> = cut.cycle.iter().map(name).collect();
            let (from, to, cycle) = (name(&cut.from), name(&cut.to), cycle.join(" "));
            format!("{from} -> {to} by {}: {} in {cycle}", cut.entries.join(" "), cut.stand_ins.join(" "))
        };
        self.cuts.iter().map(told).collect()
    }

    fn reasons(&self) -> Vec<String> {
        self.skipped.iter().map(|skip| format!("{}: {}", skip.name, skip.reason)).collect()
    }
}

#[test]
fn needs_are_of_packages_subpackages_and_what_they_provide_and_order_the_jobs() {
    let definitions = [
        definition("app", &["lib-dev", "lib", "tool>=1", "cmd:make", "!app"]),
        definition("lib", &["compiler"]).makes("lib-dev", &[]),
        definition("tool", &[]).makes("tool-extra", &["cmd:make=2"]),
        definition("compiler", &[]),
    ];
    let plan = planned(&definitions, &[], &PlanRequest::default()).unwrap();
    assert_eq!(plan.names(), ["compiler", "tool", "lib", "app"]);
    assert_eq!(plan.jobs.iter().map(|job| job.level).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(
        plan.needs(),
        ["lib -> compiler by compiler", "app -> tool by tool>=1 cmd:make", "app -> lib by lib-dev lib"]
    );
    assert_eq!(
        plan.critical_path.iter().map(|job| &plan.jobs[*job].name).collect::<Vec<_>>(),
        ["compiler", "lib", "app"]
    );
    assert_eq!(plan.critical_time, limits::PLAN_JOB_DURATION * 3);
    assert_eq!(plan.jobs.iter().map(|job| job.dependents).collect::<Vec<_>>(), [2, 1, 1, 0]);
    assert_eq!(plan.jobs[0].remaining, limits::PLAN_JOB_DURATION * 3);
    assert_eq!((plan.levels(), plan.cuts.len(), plan.refused.len(), plan.missing.len()), (3, 0, 0, 0));
}

#[test]
fn of_several_providers_the_one_counts_that_the_solver_chooses() {
    let definitions = [
        definition("app", &["python3"]),
        definition("other", &["python3", "python-3.11"]),
        definition("python-3.11", &[]).makes("python-3.11-base", &["python3=3.11.999"]),
        definition("python-3.12", &[]).makes("python-3.12-base", &["python3=3.12.4"]),
    ];
    let plan = planned(&definitions, &[], &PlanRequest::default()).unwrap();
    assert_eq!(
        plan.needs(),
        [
            "app -> python-3.12 by python3",
            "other -> python-3.11 by python-3.11",
            "other -> python-3.12 by python3"
        ]
    );
}

#[test]
fn what_a_definition_does_not_fulfil_the_published_package_serves() {
    let definitions = [definition("app", &["tool=0.9-r1"]), definition("tool", &[])];
    let plan = planned(&definitions, &published(&[("tool", "0.9-r1")]), &PlanRequest::default()).unwrap();
    assert!(plan.edges.is_empty() && plan.missing.is_empty());
    let plan = planned(&definitions, &[], &PlanRequest::default()).unwrap();
    assert!(plan.edges.is_empty());
    assert_eq!(plan.missing[0].entry, "tool=0.9-r1");
    assert_eq!(plan.missing[0].needed_by, ["app"]);
    assert_eq!(plan.names(), ["app", "tool"], "a repository of its own may have it");
}

#[test]
fn circles_are_cut_where_a_published_package_stands_in_and_each_cut_is_told() {
    let definitions = [
        definition("compiler", &["libc", "compiler"]),
        definition("libc", &["compiler", "docs"]),
        definition("docs", &["libc"]),
        definition("app", &["libc"]),
    ];
    let known = [("compiler", "0.8-r0"), ("libc", "0.9-r0"), ("docs", "1-r0")];
    let plan = planned(&definitions, &published(&known), &all()).unwrap();
    assert_eq!(plan.cuts.len(), 3, "{:?}", plan.told_cuts());
    assert!(
        plan.told_cuts()
            .contains(&"compiler -> compiler by compiler: compiler-0.8-r0 in compiler".to_owned())
    );
    for cut in &plan.cuts {
        assert_eq!(cut.cycle[0], cut.from);
        assert_eq!(cut.cycle.get(1).copied().unwrap_or(cut.from), cut.to);
    }
    let components = plan.components();
    assert_eq!((components.len(), components[0].jobs.len(), components[0].cuts.len()), (1, 3, 3));
    assert!(plan.refused.is_empty());
    // Only what is published can be cut.
    let plan = planned(&definitions, &published(&known[..2]), &all()).unwrap();
    let cuts = plan.told_cuts();
    assert!(!cuts.iter().any(|cut| cut.contains("-> docs")), "{cuts:?}");
    assert!(plan.refused.is_empty());
}

#[test]
fn what_has_no_beginning_is_said_once_and_the_rest_is_planned() {
    let definitions = [
        definition("a", &["b"]),
        definition("b", &["c"]),
        definition("c", &["a", "b"]),
        definition("needs-a", &["a"]),
        definition("needs-that", &["needs-a"]),
        definition("self", &["self"]),
        definition("alone", &[]),
        definition("served", &["old"]),
        definition("old", &["old"]),
    ];
    let plan = planned(&definitions, &published(&[("old", "0-r0")]), &all()).unwrap();
    assert_eq!(plan.names(), ["alone", "old", "served"]);
    let step = |name: &str, entry: &str| (name.to_owned(), entry.to_owned());
    assert_eq!(
        plan.refused,
        [
            Refusal { cycle: vec![step("b", "c"), step("c", "b")], members: 3 },
            Refusal { cycle: vec![step("self", "self")], members: 1 },
        ]
    );
    let gone = "it has no beginning: what it needs needs it, and nothing published stands in";
    assert_eq!(
        plan.reasons(),
        [
            format!("a: {gone}"),
            format!("b: {gone}"),
            format!("c: {gone}"),
            "needs-a: it needs a, which cannot be built".to_owned(),
            "needs-that: it needs needs-a, which cannot be built".to_owned(),
            format!("self: {gone}"),
        ]
    );
    // Where one of the circle is published, there is a beginning.
    let plan = planned(&definitions[..4], &published(&[("b", "0-r0")]), &all()).unwrap();
    assert_eq!(plan.refused, []);
    assert_eq!(plan.told_cuts(), ["a -> b by b: b-0-r0 in a b c", "c -> b by b: b-0-r0 in c b"]);
}

#[test]
fn what_comes_along_and_is_published_nowhere_is_waited_for() {
    let definitions = [
        definition("app", &["lib"]),
        definition("lib", &[]).runs_with(&["data", "shell"]),
        definition("data", &[]).runs_with(&["more-data"]),
        definition("more-data", &[]),
        definition("shell", &[]),
    ];
    let plan = planned(&definitions, &published(&[("shell", "0-r0")]), &all()).unwrap();
    assert_eq!(plan.needs(), ["app -> data by data", "app -> lib by lib", "app -> more-data by more-data"]);
}

#[test]
fn what_comes_along_with_what_is_published_is_not_waited_for() {
    // The new p needs r when it is installed, the published one does not.
    let definitions =
        [definition("d", &["p"]), definition("p", &[]).runs_with(&["r"]), definition("r", &["d"])];
    let known = published(&[("p", "0-r0")]);
    let plan = planned(&definitions, &known, &all()).unwrap();
    assert_eq!(plan.needs(), ["r -> d by d"]);
    assert_eq!(plan.told_cuts(), ["d -> p by p: p-0-r0 in d p r"]);
    let plan = planned(&definitions, &known, &named(&["d", "r"])).unwrap();
    assert_eq!((plan.needs(), plan.cuts.len(), plan.refused.len()), (vec!["r -> d by d".to_owned()], 0, 0));
}

#[test]
fn who_serves_an_entry_is_planned_or_published() {
    let definitions = [
        definition("d", &["virt"]),
        definition("pa", &[]).makes("pa-x", &["virt=9"]),
        definition("pb", &[]).makes("pb-x", &["virt=1"]),
        definition("alone", &["pa-x"]),
    ];
    let plan = planned(&definitions, &[], &named(&["d", "pb", "alone"])).unwrap();
    assert_eq!(plan.needs(), ["d -> pb by virt"]);
    assert_eq!((plan.missing.len(), plan.missing[0].entry.as_str()), (1, "pa-x"));
    assert_eq!(plan.missing[0].made_by.as_deref(), Some("pa.yaml"));
}

#[test]
fn cuts_are_served_by_packages_that_stand_in_together() {
    let definitions = [definition("d", &["p", "p<2"]).at("9-r0"), definition("p", &["d"])];
    let known = published(&[("p", "3-r0"), ("p", "1-r0")]);
    let plan = planned(&definitions, &known, &all()).unwrap();
    assert_eq!(plan.told_cuts(), ["d -> p by p p<2: p-1-r0 p-1-r0 in d p"]);
}

#[test]
fn many_definitions_that_need_each_other_are_cut_in_a_bounded_time() {
    let mut rng = fastrand::Rng::with_seed(3);
    let names: Vec<String> = (0..300).map(|number| format!("p{number}")).collect();
    let definitions: Vec<Definition> = names
        .iter()
        .map(|name| {
            let needs: Vec<&str> = (0..4).map(|_| names[rng.usize(..300)].as_str()).collect();
            definition(name, &needs)
        })
        .collect();
    let known: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "0-r0")).collect();
    let plan = planned(&definitions, &published(&known), &all()).unwrap();
    assert_eq!(plan.jobs.len(), 300);
    assert!(plan.edges.iter().all(|edge| plan.jobs[edge.from].level > plan.jobs[edge.to].level));
}

#[test]
fn a_request_names_packages_or_patterns_and_what_comes_with_them() {
    let definitions = [
        definition("app", &["lib-dev"]),
        definition("lib", &["tool"]).makes("lib-dev", &[]),
        definition("tool", &[]),
        Definition { file: "py/py3-x.yaml".to_owned(), ..definition("py3-x", &[]) },
    ];
    let known = published(&[("tool", "1-r0"), ("py3-x", "0-r0")]);
    let names = |request: &PlanRequest| {
        planned(&definitions, &known, request)
            .map(|plan| plan.names().into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(names(&named(&["app"])).unwrap(), ["app"]);
    assert_eq!(names(&named(&["lib-dev"])).unwrap(), ["lib"], "subpackages stand for their definitions");
    let missing = PlanRequest { with_dependencies: WithDependencies::Missing, ..named(&["app"]) };
    assert_eq!(names(&missing).unwrap(), ["lib", "app"]);
    let with_all =
        PlanRequest { with_dependencies: WithDependencies::All, rebuild: Rebuild::All, ..named(&["app"]) };
    assert_eq!(names(&with_all).unwrap(), ["tool", "lib", "app"]);
    let glob = |pattern: &str| {
        let mut request = PlanRequest::default();
        request.selection.globs.push(pattern.to_owned());
        names(&request)
    };
    assert_eq!(glob("**/py3-*.yaml").unwrap(), ["py3-x"]);
    assert_eq!(glob("{app,lib}.yaml").unwrap(), ["lib", "app"]);
    let refused = |result: Result<Vec<String>>| {
        let error = result.unwrap_err();
        format!("{:?}: {} ({})", error.kind(), error, error.hint_text().unwrap_or_default())
    };
    assert_eq!(
        refused(names(&named(&["lib-de"]))),
        "NotFound: no definition makes the package \"lib-de\" (did you mean `lib-dev`?)"
    );
    assert_eq!(
        refused(glob("py3-*.yaml")),
        "NotFound: no definition has a path like py3-*.yaml (patterns are of whole paths, such as `**/py3-*.yaml`)"
    );
    assert_eq!(refused(glob("[")), "InvalidRequest: the pattern \"[\" cannot be read (such as `py3-*.yaml`)");
}

#[test]
fn what_is_published_at_its_version_is_skipped_and_said_so() {
    let definitions =
        [definition("app", &["lib"]), definition("lib", &[]), definition("new", &["lib"]).at("2-r1")];
    let known = published(&[("app", "1-r0"), ("lib", "1-r0"), ("new", "2-r0")]);
    let plan = planned(&definitions, &known, &PlanRequest::default()).unwrap();
    assert_eq!(plan.names(), ["new"]);
    assert!(plan.edges.is_empty());
    assert_eq!(plan.reasons(), ["app: app-1-r0 is published already", "lib: lib-1-r0 is published already"]);
}

#[test]
fn of_two_definitions_of_one_package_the_first_counts() {
    let twin = Definition { file: "z.yaml".to_owned(), ..definition("a", &[]) };
    let plan = planned(&[twin, definition("a", &[])], &[], &PlanRequest::default()).unwrap();
    assert_eq!(
        (plan.names(), plan.reasons()),
        (vec!["a"], vec!["a: a.yaml makes the package a too".to_owned()])
    );
}

#[test]
fn a_chain_tells_why_one_waits_for_another() {
    let definitions = [
        definition("app", &["lib"]),
        definition("lib", &["tool>0"]),
        definition("tool", &["lib"]),
        definition("alone", &[]),
    ];
    let plan = planned(&definitions, &published(&[("lib", "0-r0")]), &all()).unwrap();
    let job = |name| plan.job_of(name).unwrap();
    let told = |from, to| {
        let steps = plan.chain(job(from), job(to))?.steps;
        let step = |step: Step| {
            format!("{} {} {:?}", plan.jobs[step.from].name, step.entry, step.stand_in.as_deref())
        };
        Some(steps.into_iter().map(step).collect::<Vec<_>>())
    };
    assert_eq!(told("app", "tool").unwrap(), ["app lib None", "lib tool>0 None"]);
    assert_eq!(told("tool", "lib").unwrap(), ["tool lib Some(\"lib-0-r0\")"], "a cut need is told as one");
    assert_eq!(told("app", "alone"), None);
}

#[test]
fn short_chains_cost_cuts_and_the_trade_is_told() {
    // A ring where each also needs the one after the next.
    let names: Vec<String> = (0..12).map(|number| format!("p{number:02}")).collect();
    let needs = |number: usize| [1, 2].map(|step| names[(number + step) % 12].as_str());
    let definitions: Vec<Definition> =
        (0..12).map(|number| definition(&names[number], &needs(number))).collect();
    let known: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "0-r0")).collect();
    let fewest = planned(&definitions, &published(&known), &all()).unwrap();
    let short =
        planned(&definitions, &published(&known), &PlanRequest { cut: CutAim::Short, ..all() }).unwrap();
    assert!(fewest.fewest.is_none());
    let trade = short.fewest.as_ref().unwrap();
    assert_eq!((trade.cuts, trade.levels), (fewest.cuts.len(), fewest.levels()));
    assert!(short.critical_time <= trade.critical_time);
    assert!(short.cuts.len() <= trade.cuts + trade.cuts / 4);
}

proptest! {
    /// Whatever needs what: no circle is left, every need is an edge or a cut, and the order of the input does not matter.
    #[test]
    fn every_need_is_waited_for_or_cut(
        needs in proptest::collection::vec((0..14usize, 0..14usize), 0..50), seed in any::<u64>(), short in any::<bool>(),
    ) {
        let name = |number: usize| format!("p{number}");
        let mut by: BTreeMap<usize, Vec<String>> = (0..14).map(|number| (number, Vec::new())).collect();
        needs.iter().for_each(|(from, to)| by.entry(*from).or_default().push(name(*to)));
        let mut definitions: Vec<Definition> = by
            .iter()
            .map(|(number, needs)| definition(&name(*number), &needs.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        let names: Vec<String> = (0..14).map(name).collect();
        // Half of them are published.
        let known: Vec<(&str, &str)> = names.iter().step_by(2).map(|name| (name.as_str(), "0-r0")).collect();
        let cut = if short { CutAim::Short } else { CutAim::Fewest };
        let request = PlanRequest { cut, ..all() };
        let plan = planned(&definitions, &published(&known), &request).unwrap();
        for edge in &plan.edges {
            prop_assert!(plan.jobs[edge.from].level > plan.jobs[edge.to].level);
        }
        let job_of: BTreeMap<&str, usize> = plan.names().into_iter().enumerate().map(|(job, name)| (name, job)).collect();
        for (from, to) in &needs {
            let (from, to) = (name(*from), name(*to));
            if let (Some(from), Some(to)) = (job_of.get(from.as_str()), job_of.get(to.as_str())) {
                let waits = plan.edges.iter().any(|edge| (edge.from, edge.to) == (*from, *to));
                let is_cut = plan.cuts.iter().any(|cut| (cut.from, cut.to) == (*from, *to));
                prop_assert!(waits != is_cut);
            }
        }
        let is_told = |name: &str| plan.skipped.iter().any(|skip| skip.name == name);
        prop_assert!(names.iter().all(|name| job_of.contains_key(name.as_str()) != is_told(name)));
        fastrand::Rng::with_seed(seed).shuffle(&mut definitions);
        prop_assert_eq!(planned(&definitions, &published(&known), &request).unwrap(), plan);
    }
}
