//! The chosen definitions with their needs, until no circle is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cut::{Core, CutAim};
use super::definition::{Definition, Skip};
use super::durations::Durations;
use super::graph::{Graph, Kept};
use super::needs::Needs;
use super::{ArchPlan, Cut, Edge, Missing, PlannedJob, Refusal, skip};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// A need of a chosen definition for a chosen one.
#[derive(Debug, Clone)]
struct Needed {
    entries: Vec<String>,
    /// What is published for the entries; `None` when something is not.
    stand_ins: Option<Vec<String>>,
    /// The edges to those that bring it along, for what is needed only because they are; empty for a need of its own.
    brought_by: Vec<usize>,
}

/// Members of a group from which the shortest circle is looked for.
const SHORTEST_TRIED: usize = 500;

/// A plan in the making. Nodes are numbers among the chosen definitions.
#[derive(Debug, Clone)]
pub(super) struct Draft<'p> {
    definitions: &'p [Definition],
    needs: &'p Needs<'p>,
    nodes: Vec<usize>,
    graph: Graph,
    needed: Vec<Needed>,
    cut: BTreeSet<usize>,
    /// Needs that are none any more, because what would bring them along is cut.
    gone: BTreeSet<usize>,
    refused: Vec<Refusal>,
    dropped: Vec<Skip>,
}

impl<'p> Draft<'p> {
    /// The chosen definitions with their needs for each other.
    ///
    /// # Errors
    /// `LimitExceeded` for too many needs.
    pub(super) fn new(
        definitions: &'p [Definition],
        needs: &'p Needs<'p>,
        chosen: BTreeSet<usize>,
    ) -> Result<Self> {
        let mut draft = Self {
            definitions,
            needs,
            nodes: Vec::new(),
            graph: Graph::new(0, Vec::new()),
            needed: Vec::new(),
            cut: BTreeSet::new(),
            gone: BTreeSet::new(),
            refused: Vec::new(),
            dropped: Vec::new(),
        };
        draft.take(chosen);
        let edges = draft.needed.len();
        if edges > limits::PLAN_EDGES_MAX {
            let message = format!(
                "the definitions need each other in {edges} ways, at most {} are planned",
                limits::PLAN_EDGES_MAX
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message).hint("plan fewer definitions at once"));
        }
        Ok(draft)
    }

    /// Makes these the chosen ones.
    fn take(&mut self, chosen: BTreeSet<usize>) {
        self.nodes = chosen.into_iter().collect();
        let node_of: BTreeMap<usize, usize> =
            self.nodes.iter().enumerate().map(|(node, definition)| (*definition, node)).collect();
        let mut edges = Vec::new();
        self.needed.clear();
        for (node, definition) in self.nodes.iter().enumerate() {
            let direct = self.needs.direct(*definition);
            let mut edge_to: BTreeMap<usize, usize> = BTreeMap::new();
            for (to, entries) in &direct.by_definition {
                if let Some(to_node) = node_of.get(to) {
                    edge_to.insert(*to, edges.len());
                    edges.push((node, *to_node));
                    let stand_ins = self.needs.stand_ins(entries);
                    self.needed.push(Needed { entries: entries.clone(), stand_ins, brought_by: Vec::new() });
                }
            }
            for (to, bringers) in &direct.along {
                let brought_by: Vec<usize> =
                    bringers.keys().filter_map(|bringer| edge_to.get(bringer)).copied().collect();
                let Some(to_node) = node_of.get(to).filter(|_| !edge_to.contains_key(to)) else { continue };
                if brought_by.is_empty() {
                    continue;
                }
                // It is needed for as long as those are that bring it: their published packages need it not.
                let stand_ins: Option<Vec<Vec<String>>> =
                    brought_by.iter().map(|edge| self.needed[*edge].stand_ins.clone()).collect();
                edges.push((node, *to_node));
                let entries = bringers.values().take(1).cloned().collect();
                self.needed.push(Needed {
                    entries,
                    stand_ins: stand_ins.map(|all| all.concat()),
                    brought_by,
                });
            }
        }
        self.graph = Graph::new(self.nodes.len(), edges);
    }

    fn name(&self, node: usize) -> &'p str {
        &self.definitions[self.nodes[node]].name
    }

    /// Takes out what has no beginning, and what needs it and is served by nothing published.
    pub(super) fn refuse(&mut self) {
        let must: Kept = self.needed.iter().map(|needed| needed.stand_ins.is_none()).collect();
        let components = self.graph.components(&must);
        let members = members_of(&components);
        let mut gone: BTreeMap<usize, String> = BTreeMap::new();
        let together = |(from, to): &(usize, usize)| components[*from] == components[*to];
        let kept: Kept =
            self.graph.edges().iter().zip(&must).map(|(ends, must)| *must && together(ends)).collect();
        for members in members.values() {
            // Most components are one definition that does not need itself.
            if !members.iter().any(|node| self.graph.leaving(*node).iter().any(|edge| kept[*edge])) {
                continue;
            }
            let tried = members.iter().take(SHORTEST_TRIED);
            let cycles = tried.filter_map(|node| self.graph.shortest(*node, *node, &kept));
            let Some(cycle) = cycles.min_by_key(Vec::len) else { continue };
            let step = |edge: &usize| {
                let (from, _) = self.graph.edges()[*edge];
                (self.name(from).to_owned(), self.unserved(*edge).to_owned())
            };
            self.refused.push(Refusal { cycle: cycle.iter().map(step).collect(), members: members.len() });
            for node in members {
                gone.insert(
                    *node,
                    "it has no beginning: what it needs needs it, and nothing published stands in".to_owned(),
                );
            }
        }
        self.drop_with_dependents(gone, &must);
    }

    /// An entry of a need that nothing published serves.
    fn unserved(&self, edge: usize) -> &str {
        let entries = &self.needed[edge].entries;
        let unserved =
            entries.iter().find(|entry| self.needs.stand_ins(std::slice::from_ref(entry)).is_none());
        unserved.or(entries.first()).map_or("", String::as_str)
    }

    /// Takes out nodes, and those that cannot do without them.
    fn drop_with_dependents(&mut self, mut gone: BTreeMap<usize, String>, must: &Kept) {
        if gone.is_empty() {
            return;
        }
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (edge, (from, to)) in self.graph.edges().iter().enumerate() {
            if must[edge] {
                dependents[*to].push(*from);
            }
        }
        let mut left: Vec<usize> = gone.keys().copied().collect();
        while let Some(node) = left.pop() {
            for from in &dependents[node] {
                if !gone.contains_key(from) {
                    gone.insert(*from, format!("it needs {}, which cannot be built", self.name(node)));
                    left.push(*from);
                }
            }
        }
        // Those that stay take what is published in its place.
        let mut served: BTreeMap<usize, Vec<(&str, &str)>> = BTreeMap::new();
        for ((from, to), needed) in self.graph.edges().iter().zip(&self.needed) {
            if !gone.contains_key(from)
                && gone.contains_key(to)
                && let Some(stand_in) = needed.stand_ins.iter().flatten().next()
            {
                served.entry(*to).or_default().push((self.name(*from), stand_in));
            }
        }
        for (node, mut reason) in std::mem::take(&mut gone) {
            if let Some([(name, stand_in), more @ ..]) = served.get(&node).map(Vec::as_slice) {
                let more = match more.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                reason.push_str(&format!("; the published {stand_in} serves {name}{more}"));
            }
            self.dropped.push(skip(&self.definitions[self.nodes[node]], reason));
        }
        let dropped: BTreeSet<&str> = self.dropped.iter().map(|skip| skip.name.as_str()).collect();
        let rest = self.nodes.iter().enumerate().filter(|(node, _)| !dropped.contains(self.name(*node)));
        let rest = rest.map(|(_, definition)| *definition).collect();
        self.take(rest);
    }

    /// Cuts needs until there is no circle.
    ///
    /// # Errors
    /// `LimitExceeded` when definitions need each other in more ways than can be looked at.
    pub(super) fn cut(&mut self, aim: CutAim, durations: &Durations) -> Result<()> {
        let mut kept = self.graph.all();
        for (edge, (from, to)) in self.graph.edges().iter().enumerate() {
            if from == to {
                self.cut.insert(edge);
                kept[edge] = false;
            }
        }
        let expected = self.expected(durations);
        let components = self.graph.components(&kept);
        let members = members_of(&components);
        for members in members.values().filter(|members| members.len() > 1) {
            let (core, numbers) = self.core(members, &kept, &expected);
            if members.len().saturating_mul(numbers.len()) > limits::PLAN_CORE_WORK_MAX {
                let (members, needs) = (members.len(), numbers.len());
                let message = format!(
                    "{members} definitions need each other in {needs} ways, which is too much to cut"
                );
                return Err(
                    Error::new(ErrorKind::LimitExceeded, message).hint("plan fewer definitions at once")
                );
            }
            self.cut.extend(core.cut(aim).into_iter().map(|edge| numbers[edge]));
        }
        self.cut_what_brings();
        Ok(())
    }

    /// What comes along is cut by cutting what brings it, and is needed no longer once all of that is.
    fn cut_what_brings(&mut self) {
        let brings: Vec<usize> =
            self.cut.iter().flat_map(|edge| self.needed[*edge].brought_by.iter().copied()).collect();
        self.cut.extend(brings);
        for (edge, needed) in self.needed.iter().enumerate() {
            if !needed.brought_by.is_empty() && needed.brought_by.iter().all(|edge| self.cut.contains(edge)) {
                self.gone.insert(edge);
            }
        }
        self.cut.retain(|edge| !self.gone.contains(edge));
    }

    fn expected(&self, durations: &Durations) -> Vec<Duration> {
        durations.expected((0..self.nodes.len()).map(|node| self.name(node)))
    }

    /// The part of the graph between some nodes, and the numbers of its edges.
    fn core(&self, members: &[usize], kept: &Kept, expected: &[Duration]) -> (Core, Vec<usize>) {
        let place: BTreeMap<usize, usize> =
            members.iter().enumerate().map(|(place, node)| (*node, place)).collect();
        let (mut edges, mut numbers) = (Vec::new(), Vec::new());
        for edge in members.iter().flat_map(|node| self.graph.leaving(*node)) {
            let (from, to) = self.graph.edges()[*edge];
            if let (true, Some(from), Some(to)) = (kept[*edge], place.get(&from), place.get(&to)) {
                edges.push((*from, *to));
                numbers.push(*edge);
            }
        }
        let seconds = |node: &usize| expected[*node].as_secs().max(1);
        let core = Core {
            may_cut: numbers.iter().map(|edge| self.needed[*edge].stand_ins.is_some()).collect(),
            graph: Graph::new(members.len(), edges),
            weights: members.iter().map(seconds).collect(),
        };
        (core, numbers)
    }

    /// The plan.
    ///
    /// # Errors
    /// `Unexpected` when a circle is left, which would be a mistake of the planner.
    pub(super) fn finish(
        self,
        arch: Arch,
        mut skipped: Vec<Skip>,
        durations: &Durations,
    ) -> Result<ArchPlan> {
        let mut kept = self.graph.all();
        self.cut.iter().chain(&self.gone).for_each(|edge| kept[*edge] = false);
        let levels = self.graph.levels(&kept).ok_or_else(|| Error::unexpected("the plan has a circle"))?;
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|a, b| (levels[*a], self.name(*a)).cmp(&(levels[*b], self.name(*b))));
        let mut job_of = vec![0; order.len()];
        order.iter().enumerate().for_each(|(job, node)| job_of[*node] = job);
        let expected = self.expected(durations);
        let mut jobs: Vec<PlannedJob> = order
            .iter()
            .map(|node| {
                let definition = &self.definitions[self.nodes[*node]];
                PlannedJob {
                    name: definition.name.clone(),
                    file: definition.file.clone(),
                    version: definition.version.clone(),
                    packages: definition.packages.iter().map(|made| made.name.clone()).collect(),
                    level: levels[*node],
                    waits_for: Vec::new(),
                    expected: expected[*node],
                    remaining: Duration::ZERO,
                    dependents: 0,
                }
            })
            .collect();
        let mut edges: Vec<Edge> = Vec::new();
        for (edge, (from, to)) in self.graph.edges().iter().enumerate().filter(|(edge, _)| kept[*edge]) {
            let entries = self.needed[edge].entries.clone();
            edges.push(Edge { from: job_of[*from], to: job_of[*to], entries });
        }
        edges.sort_by_key(|edge| (edge.from, edge.to));
        edges.iter().for_each(|edge| jobs[edge.from].waits_for.push(edge.to));
        let cuts = self.cuts(&kept, &job_of);
        let missing = self.missing();
        let Self { refused, dropped, .. } = self;
        skipped.extend(dropped);
        skipped.sort_by(|a, b| (&a.name, &a.file).cmp(&(&b.name, &b.file)));
        let (critical_path, critical_time) = timed(&mut jobs);
        count_dependents(&mut jobs);
        Ok(ArchPlan {
            arch,
            jobs,
            edges,
            cuts,
            skipped,
            missing,
            refused,
            critical_path,
            critical_time,
            fewest: None,
        })
    }

    fn cuts(&self, kept: &Kept, job_of: &[usize]) -> Vec<Cut> {
        let explained = |edge: &usize| {
            let (from, to) = self.graph.edges()[*edge];
            let cycle = self.circle(*edge, kept).into_iter().map(|node| job_of[node]).collect();
            let Needed { entries, stand_ins, .. } = self.needed[*edge].clone();
            let stand_ins = stand_ins.unwrap_or_default();
            Cut { from: job_of[from], to: job_of[to], entries, cycle, stand_ins }
        };
        let mut cuts: Vec<Cut> = self.cut.iter().map(explained).collect();
        cuts.sort_by_key(|cut| (cut.from, cut.to));
        cuts
    }

    /// The nodes of a circle that a cut was in, beginning with who needs.
    fn circle(&self, edge: usize, kept: &Kept) -> Vec<usize> {
        let edges = self.graph.edges();
        let (from, to) = edges[edge];
        if from == to {
            return vec![from];
        }
        let way = |way: Vec<usize>| way.into_iter().map(|edge| edges[edge].0);
        if let Some(back) = self.graph.shortest(to, from, kept) {
            return std::iter::once(from).chain(way(back)).collect();
        }
        // It was cut for what it brings along.
        let brought = self.gone.iter().filter(|gone| self.needed[**gone].brought_by.contains(&edge));
        let brought = brought.map(|gone| edges[*gone].1);
        let mut backs = brought.filter_map(|node| match node == from {
            true => Some(Vec::new()),
            false => self.graph.shortest(node, from, kept),
        });
        [from, to].into_iter().chain(backs.next().into_iter().flat_map(way)).collect()
    }

    fn missing(&self) -> Vec<Missing> {
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (node, definition) in self.nodes.iter().enumerate() {
            for entry in &self.needs.direct(*definition).missing {
                missing.entry(entry).or_default().insert(self.name(node));
            }
        }
        let told = |(entry, needed_by): (&str, BTreeSet<&str>)| Missing {
            entry: entry.to_owned(),
            needed_by: needed_by.into_iter().map(str::to_owned).collect(),
            made_by: None,
        };
        missing.into_iter().map(told).collect()
    }
}

/// Says of each job how much is left once it begins; the chain that takes longest, and its time.
fn timed(jobs: &mut [PlannedJob]) -> (Vec<usize>, Duration) {
    // Jobs are in the order of their levels: who waits comes behind.
    let mut after: Vec<(Duration, Option<usize>)> = vec![(Duration::ZERO, None); jobs.len()];
    for job in (0..jobs.len()).rev() {
        let remaining = jobs[job].expected.saturating_add(after[job].0);
        jobs[job].remaining = remaining;
        for needed in jobs[job].waits_for.clone() {
            if after[needed].1.is_none() || after[needed].0 < remaining {
                after[needed] = (remaining, Some(job));
            }
        }
    }
    let longest = (0..jobs.len()).rev().max_by_key(|job| jobs[*job].remaining);
    let time = longest.map_or(Duration::ZERO, |job| jobs[job].remaining);
    let path = std::iter::successors(longest, |job| after[*job].1).collect();
    (path, time)
}

/// Says of each job how many wait for it.
fn count_dependents(jobs: &mut [PlannedJob]) {
    let words = jobs.len().div_ceil(64);
    let mut waiting: Vec<Vec<u64>> = vec![vec![0; words]; jobs.len()];
    for job in (0..jobs.len()).rev() {
        let own = std::mem::take(&mut waiting[job]);
        jobs[job].dependents = own.iter().map(|word| word.count_ones() as usize).sum();
        for needed in jobs[job].waits_for.clone() {
            waiting[needed].iter_mut().zip(&own).for_each(|(all, own)| *all |= own);
            waiting[needed][job / 64] |= 1 << (job % 64);
        }
    }
}

/// The nodes of each component.
fn members_of(components: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (node, component) in components.iter().enumerate() {
        members.entry(*component).or_default().push(node);
    }
    members
}
