//! Plans, as people and Graphviz read them.

use std::collections::BTreeMap;
use std::time::Duration;

use melange_remote_sdk::api::v2::{NoBackendView, PlanMissingView, PlanSummaryView, PlanView};
use melange_remote_sdk::planner::{ArchPlan, Chain};
use serde_json::{Value, json};

use crate::args::PlanPart;
use crate::shown;

/// Names of a list that are told in a sentence.
const NAMED: usize = 5;

/// Entries without anybody who serves them that are told with the summary.
const MISSING_TOLD: usize = 5;

/// Definitions of a circle that are told of one without a beginning.
const CIRCLE_TOLD: usize = 12;

/// A need of a chain.
pub(crate) struct Need {
    from: String,
    to: String,
    entry: String,
    stand_in: Option<String>,
}

/// The needs of a chain, by name.
pub(crate) fn needs(plan: &ArchPlan, chain: &Chain) -> Vec<Need> {
    let name = |job: usize| plan.jobs[job].name.clone();
    let need = |step: &melange_remote_sdk::planner::Step| Need {
        from: name(step.from),
        to: name(step.to),
        entry: step.entry.clone(),
        stand_in: step.stand_in.clone(),
    };
    chain.steps.iter().map(need).collect()
}

/// Chains of needs, one for each architecture.
pub(crate) fn chains(chains: &[(&ArchPlan, Vec<Need>)]) -> String {
    let mut text = String::new();
    for (plan, needs) in chains {
        if chains.len() > 1 {
            text.push_str(&format!("{}:\n", plan.arch));
        }
        for Need { from, to, entry, stand_in } in needs {
            let by = if entry == to { String::new() } else { format!(" by {}", shown::word(entry)) };
            let cut = stand_in.as_ref().map(|stand_in| format!("; cut, {} stands in", shown::word(stand_in)));
            let line =
                format!("{} needs {}{by}{}\n", shown::word(from), shown::word(to), cut.unwrap_or_default());
            text.push_str(&line);
        }
    }
    text
}

/// The same for programs.
pub(crate) fn chains_json(chains: &[(&ArchPlan, Vec<Need>)]) -> Value {
    let step = |need: &Need| json!({ "from": need.from, "to": need.to, "entry": need.entry, "stand_in": need.stand_in });
    let chain = |(plan, needs): &(&ArchPlan, Vec<Need>)| json!({ "arch": plan.arch.apk_name(), "steps": needs.iter().map(step).collect::<Vec<_>>() });
    chains.iter().map(chain).collect()
}

/// The groups of definitions that need each other, with what is cut.
pub(crate) fn cycles(plans: &[ArchPlan]) -> String {
    let mut text = String::new();
    for plan in plans {
        let name = |job: usize| plan.jobs[job].name.as_str();
        let components = plan.components();
        if components.is_empty() && plan.refused.is_empty() {
            text.push_str(&format!("{}: no definition needs itself\n", plan.arch));
        }
        for component in components {
            let names = component.jobs.iter().map(|job| name(*job));
            let cuts = counted(component.cuts.len(), "need is cut", "needs are cut");
            text.push_str(&match component.jobs.len() {
                1 => format!("{}: {} needs itself\n", plan.arch, named(names)),
                count => {
                    format!("{}: {count} definitions need each other, {cuts}: {}\n", plan.arch, named(names))
                }
            });
            for cut in component.cuts.iter().map(|place| &plan.cuts[*place]) {
                text.push_str(&cut_line(
                    name(cut.from),
                    name(cut.to),
                    &cut.entries[0],
                    cut.stand_ins.first().map_or("", String::as_str),
                    cut.cycle.iter().map(|job| name(*job)),
                ));
            }
        }
    }
    text
}

/// The same for programs.
pub(crate) fn cycles_json(plans: &[ArchPlan]) -> Value {
    let components = plans.iter().flat_map(|plan| {
        let name = |job: usize| plan.jobs[job].name.clone();
        plan.components().into_iter().map(move |component| {
            let cuts = component.cuts.iter().map(|place| {
                let cut = &plan.cuts[*place];
                let cycle: Vec<String> = cut.cycle.iter().map(|job| name(*job)).collect();
                json!({ "from": name(cut.from), "to": name(cut.to), "entry": cut.entries.first(), "cycle": cycle,
                        "stand_in": cut.stand_ins.first() })
            });
            let jobs: Vec<String> = component.jobs.iter().map(|job| name(*job)).collect();
            json!({ "arch": plan.arch.apk_name(), "jobs": jobs, "cuts": cuts.collect::<Vec<_>>() })
        })
    });
    components.collect()
}

/// What has no beginning, each once.
pub(crate) fn refusals(plan: &ArchPlan) -> String {
    let mut text = String::new();
    for refusal in &plan.refused {
        let needs: Vec<String> = refusal
            .cycle
            .iter()
            .take(CIRCLE_TOLD)
            .map(|(name, entry)| format!("{} needs {}", shown::word(name), shown::word(entry)))
            .collect();
        let longer = match refusal.cycle.len().saturating_sub(CIRCLE_TOLD) {
            0 => String::new(),
            more => format!(", and so on over {}", counted(more, "more definition", "more definitions")),
        };
        let more = match refusal.members.saturating_sub(refusal.cycle.len()) {
            0 => String::new(),
            more => format!(
                "; so do {} that need each other",
                counted(more, "more definition", "more definitions")
            ),
        };
        text.push_str(&format!(
            "error: {}: cannot be bootstrapped: {}{longer}{more}\n",
            plan.arch,
            needs.join(", ")
        ));
    }
    if !plan.refused.is_empty() {
        text.push_str("hint: name a repository where one of each circle is published (--repository)\n");
    }
    text
}

/// Jobs that no backend could run.
pub(crate) fn no_backend(waiting: &[NoBackendView]) -> String {
    let line = |jobs: &NoBackendView| {
        let names: Vec<&str> = jobs.packages.iter().take(NAMED).map(String::as_str).collect();
        let more = jobs.total.saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}: {}{more} will wait for one\n", jobs.reason, names.join(", "))
    };
    waiting.iter().map(line).collect()
}

/// A summary of a plan, and the parts that are asked for.
pub(crate) fn text(view: &PlanView, parts: &[PlanPart]) -> String {
    let mut text: String = view.summary.iter().map(|summary| account(view, summary)).collect();
    text.push_str(&no_backend(&view.no_backend));
    for part in parts {
        text.push('\n');
        match part {
            PlanPart::Jobs => text.push_str(&jobs(view)),
            PlanPart::Cuts => {
                for cut in &view.cuts {
                    let cycle = cut.cycle.iter().map(String::as_str);
                    text.push_str(&cut_line(&cut.from, &cut.to, &cut.entry, &cut.stand_in, cycle));
                }
            }
            PlanPart::Path => {
                for summary in &view.summary {
                    let path = summary.critical_path.iter().map(|name| shown::word(name)).collect::<Vec<_>>();
                    text.push_str(&format!("{}: {}\n", summary.arch, path.join(" → ")));
                }
            }
            PlanPart::Skipped => {
                for skip in &view.skipped {
                    text.push_str(&format!("{}: {}\n", shown::word(&skip.name), shown::word(&skip.reason)));
                }
            }
            PlanPart::Missing => {
                for missing in &view.missing {
                    text.push_str(&missing_line(missing));
                }
            }
        }
    }
    text
}

fn account(view: &PlanView, summary: &PlanSummaryView) -> String {
    let PlanSummaryView { arch, levels, cuts, ready, .. } = summary;
    let jobs = counted(summary.jobs, "job", "jobs");
    let mut text = format!(
        "{arch}: {jobs} on {}, {ready} can begin at once, {}\n",
        counted(*levels, "level", "levels"),
        counted(*cuts, "need is cut", "needs are cut"),
    );
    if let (Some(first), Some(last)) = (summary.critical_path.first(), summary.critical_path.last()) {
        let path = counted(summary.critical_path.len(), "job", "jobs");
        let (time, work) = (hours(summary.critical_time_s), hours(summary.work_s));
        text.push_str(&format!(
            "  the longest chain has {path}, from {} to {}: {time} expected, of {work} in all\n",
            shown::word(first),
            shown::word(last),
        ));
    }
    if let Some(fewest) = &summary.fewest {
        text.push_str(&format!(
            "  with the fewest cuts: {}, {}, {} expected\n",
            counted(fewest.cuts, "need is cut", "needs are cut"),
            counted(fewest.levels, "level", "levels"),
            hours(fewest.critical_time_s),
        ));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for skip in view.skipped.iter().filter(|skip| skip.arch == *arch) {
        *reasons.entry(kind(&skip.reason)).or_default() += 1;
    }
    for (reason, count) in reasons {
        text.push_str(&format!("  {} skipped: {reason}\n", counted(count, "definition", "definitions")));
    }
    let missing: Vec<_> = view.missing.iter().filter(|missing| missing.arch == *arch).collect();
    for missing in missing.iter().take(MISSING_TOLD) {
        text.push_str(&format!("  {}", missing_line(missing)));
    }
    match missing.len().saturating_sub(MISSING_TOLD) {
        0 => {}
        more => text.push_str(&format!("  and {more} more that nobody provides (--show missing)\n")),
    }
    text
}

/// What reasons have in common that name one package each.
fn kind(reason: &str) -> &str {
    let common = [
        "it has no beginning",
        "is published already",
        "makes the package",
        "cannot be built",
        "the definition is for",
    ];
    match common.iter().find(|words| reason.contains(**words)) {
        Some(&"makes the package") => "another definition makes the package",
        Some(&"cannot be built") => "they need what cannot be built",
        Some(&"is published already") => "published already",
        Some(&"it has no beginning") => "what they need needs them, and nothing published stands in",
        Some(&"the definition is for") => "for other architectures",
        _ => reason,
    }
}

fn missing_line(missing: &PlanMissingView) -> String {
    let made_by = missing.made_by.as_ref().map(|file| {
        format!("; {} makes it, and is not planned (--with-dependencies missing)", shown::word(file))
    });
    let needed_by = named(missing.needed_by.iter().map(String::as_str));
    format!(
        "nobody provides {}, needed by {needed_by}{}\n",
        shown::word(&missing.entry),
        made_by.unwrap_or_default()
    )
}

fn cut_line<'c>(
    from: &str,
    to: &str,
    entry: &str,
    stand_in: &str,
    cycle: impl Iterator<Item = &'c str>,
) -> String {
    let cycle: Vec<_> = cycle.map(shown::word).collect();
    let circle = format!("{} → {}", cycle.join(" → "), shown::word(from));
    let by = if entry == to { String::new() } else { format!(" by {}", shown::word(entry)) };
    format!(
        "  {} needs {}{by}: {} stands in ({circle})\n",
        shown::word(from),
        shown::word(to),
        shown::word(stand_in)
    )
}

fn jobs(view: &PlanView) -> String {
    let mut text = String::new();
    for job in &view.jobs {
        let waits = match job.waits_for.len() {
            0 => String::new(),
            _ => format!(" after {}", named(job.waits_for.iter().map(String::as_str))),
        };
        text.push_str(&format!(
            "{:>4}  {} {}-{}{waits}\n",
            job.level,
            job.arch,
            shown::word(&job.name),
            shown::word(&job.version)
        ));
    }
    text
}

/// The graph in the language of Graphviz: who needs whom, cut needs in dashes.
pub(crate) fn dot(view: &PlanView) -> String {
    let several = view.summary.len() > 1;
    let node =
        |name: &str, arch: &str| quoted(&if several { format!("{name} {arch}") } else { name.to_owned() });
    let mut text = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for job in &view.jobs {
        text.push_str(&format!("  {};\n", node(&job.name, &job.arch)));
    }
    for edge in &view.edges {
        let (from, to) = (node(&edge.from, &edge.arch), node(&edge.to, &edge.arch));
        text.push_str(&format!("  {from} -> {to} [label={}];\n", quoted(&edge.entry)));
    }
    for cut in &view.cuts {
        let (from, to) = (node(&cut.from, &cut.arch), node(&cut.to, &cut.arch));
        let label = quoted(&format!("{}: {}", cut.entry, cut.stand_in));
        text.push_str(&format!(
            "  {from} -> {to} [label={label}, style=dashed, color=red, constraint=false];\n"
        ));
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown::word(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// So many of something.
fn counted(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// The first names, and how many there are besides.
fn named<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.map(shown::word).collect();
    match names.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

/// A time in hours, minutes and seconds, as far as there are.
fn hours(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    match time {
        0..60 => format!("{time} s"),
        60..3_600 => format!("{} min", time / 60),
        _ => format!("{} h {} min", time / 3_600, time % 3_600 / 60),
    }
}
