//! What people ask of a plan: why one job waits for another one, and which jobs need each other.

use std::collections::BTreeMap;

use super::graph::Graph;
use super::{ArchPlan, Cut};

/// A chain of needs from one job to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The needs, each beginning where the one before ends; not empty.
    pub steps: Vec<Step>,
}

/// A need of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The job that needs.
    pub from: usize,
    /// The job that it needs.
    pub to: usize,
    /// The entry that the other one serves, the first of several.
    pub entry: String,
    /// The published package that serves it instead, where the need is cut.
    pub stand_in: Option<String>,
}

/// Jobs that need each other, over however many others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The jobs, in order.
    pub jobs: Vec<usize>,
    /// The places of its cuts in [`ArchPlan::cuts`].
    pub cuts: Vec<usize>,
}

impl ArchPlan {
    /// The job that makes a package.
    pub fn job_of(&self, package: &str) -> Option<usize> {
        let by_name = self.jobs.iter().position(|job| job.name == package);
        by_name.or_else(|| self.jobs.iter().position(|job| job.packages.iter().any(|made| made == package)))
    }

    /// The shortest chain by which a job waits for another one; when it does not, the shortest by which it needs it, cuts
    /// included. `None` when it needs it in no way.
    pub fn chain(&self, from: usize, to: usize) -> Option<Chain> {
        let waits: Vec<_> =
            self.edges.iter().map(|edge| self.step(edge.from, edge.to, &edge.entries, None)).collect();
        let cut = |cut: &Cut| self.step(cut.from, cut.to, &cut.entries, cut.stand_ins.first().cloned());
        let needs: Vec<_> = waits.iter().cloned().chain(self.cuts.iter().map(cut)).collect();
        self.way(&waits, from, to).or_else(|| self.way(&needs, from, to)).map(|steps| Chain { steps })
    }

    fn step(&self, from: usize, to: usize, entries: &[String], stand_in: Option<String>) -> Step {
        Step { from, to, entry: entries.first().cloned().unwrap_or_default(), stand_in }
    }

    fn way(&self, steps: &[Step], from: usize, to: usize) -> Option<Vec<Step>> {
        let graph = Graph::new(self.jobs.len(), steps.iter().map(|step| (step.from, step.to)).collect());
        let way = graph.shortest(from, to, &graph.all())?;
        Some(way.into_iter().map(|step| steps[step].clone()).collect())
    }

    /// The jobs that need each other, the largest groups first, and those that need themselves.
    pub fn components(&self) -> Vec<Component> {
        let waits = self.edges.iter().map(|edge| (edge.from, edge.to));
        let all = waits.chain(self.cuts.iter().map(|cut| (cut.from, cut.to))).collect();
        let graph = Graph::new(self.jobs.len(), all);
        let component_of = graph.components(&graph.all());
        let mut found: BTreeMap<usize, Component> = BTreeMap::new();
        for (place, cut) in self.cuts.iter().enumerate() {
            let known = found.entry(component_of[cut.from]);
            known.or_insert(Component { jobs: Vec::new(), cuts: Vec::new() }).cuts.push(place);
        }
        for (job, component) in component_of.iter().enumerate() {
            if let Some(component) = found.get_mut(component) {
                component.jobs.push(job);
            }
        }
        let mut found: Vec<Component> = found.into_values().collect();
        found.sort_by(|a, b| b.jobs.len().cmp(&a.jobs.len()).then_with(|| a.jobs.cmp(&b.jobs)));
        found
    }

    /// How many levels there are.
    pub fn levels(&self) -> usize {
        self.jobs.iter().map(|job| job.level + 1).max().unwrap_or(0)
    }
}
