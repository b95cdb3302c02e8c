//! Which edges of a core are cut, so that what needs itself over others can be built at all. Pure, and the same for the
//! same core.
//!
//! **Fewest** is a smallest set of edges that hits every cycle: rows are the short cycles that are known, a smallest set is
//! found that hits them, a cycle that survives becomes a row, and so on until none does. **Short** allows some cuts more,
//! and limits how long the chains in the core are.

mod hitting;
mod short;

use std::collections::HashMap;

use super::graph::{Graph, Kept};
use hitting::Rows;

/// Triangles of which rows are made; others are found when they survive.
const TRIANGLES_MAX: usize = 200_000;

/// Rounds of adding the cycles that survived; what survives the last one is cut without a search.
const ROUNDS_MAX: usize = 30;

/// Columns that searches for the fewest cuts of a core may look at.
const SEARCH_WORK: usize = 60_000_000;

/// Nodes and edges that may be looked at to exchange cuts for others.
const SHORTEN_WORK: usize = 40_000_000;

/// How edges are chosen that are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CutAim {
    /// As few as can be: most is built with what is new.
    #[default]
    Fewest,
    /// Up to a quarter more, so that chains are shorter and the build ends earlier.
    Short,
}

/// A part of the graph whose nodes all need each other.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) graph: Graph,
    /// Which edges may be cut. Each cycle has one.
    pub(super) may_cut: Vec<bool>,
    /// How long each node takes.
    pub(super) weights: Vec<u64>,
}

impl Core {
    /// The numbers of the edges to cut, in order.
    pub(super) fn cut(&self, aim: CutAim) -> Vec<usize> {
        let fewest = self.shorten(self.fewest());
        match aim {
            CutAim::Fewest => fewest,
            CutAim::Short => short::cut(self, fewest),
        }
    }

    /// As few edges as could be found that hit all cycles.
    fn fewest(&self) -> Vec<usize> {
        let mut rows = Rows::new(self.graph.edges().len());
        self.short_cycles(|cycle| {
            rows.add(self.row(&cycle));
            !rows.is_full()
        });
        let (mut cuts, mut work) = (Vec::new(), SEARCH_WORK);
        for _ in 0..ROUNDS_MAX {
            cuts = rows.smallest(&mut work);
            let kept = self.without(&cuts);
            if !self.survivors(&kept, |cycle| rows.add(self.row(&cycle))) {
                break;
            }
        }
        cuts.extend(self.in_the_way(&self.without(&cuts)));
        self.without_needless(cuts)
    }

    /// Edges without which there is no cycle among those that are kept, found without a search: nodes are put in an order
    /// in which what must stay leads back, and what leads ahead is in the way.
    fn in_the_way(&self, kept: &Kept) -> Vec<usize> {
        if self.graph.order(kept).is_some() {
            return Vec::new();
        }
        let must: Kept = kept.iter().zip(&self.may_cut).map(|(kept, may_cut)| *kept && !may_cut).collect();
        let mut place_of = vec![0; self.graph.nodes()];
        let order = self.graph.order(&must).unwrap_or_default();
        order.into_iter().enumerate().for_each(|(place, node)| place_of[node] = place);
        let leads_ahead = |edge: &usize| {
            let (from, to) = self.graph.edges()[*edge];
            kept[*edge] && self.may_cut[*edge] && place_of[from] < place_of[to]
        };
        (0..kept.len()).filter(leads_ahead).collect()
    }

    /// The edges of a cycle that may be cut.
    fn row(&self, cycle: &[usize]) -> Vec<usize> {
        cycle.iter().copied().filter(|edge| self.may_cut[*edge]).collect()
    }

    /// All edges but these.
    fn without(&self, cuts: &[usize]) -> Kept {
        let mut kept = self.graph.all();
        cuts.iter().for_each(|edge| kept[*edge] = false);
        kept
    }

    /// Tells all cycles of two and three edges, and a shortest one over every edge, as long as they are wanted.
    fn short_cycles(&self, mut tell: impl FnMut(Vec<usize>) -> bool) {
        let graph = &self.graph;
        let edges = graph.edges();
        let count = graph.nodes();
        let between: HashMap<(usize, usize), usize> =
            edges.iter().enumerate().map(|(edge, ends)| (*ends, edge)).collect();
        let edge_of = |from: usize, to: usize| between.get(&(from, to)).copied();
        let mut triangles = 0;
        for (first, (a, b)) in edges.iter().copied().enumerate() {
            if a < b
                && let Some(back) = edge_of(b, a)
            {
                _ = tell(vec![first, back]);
            }
            for second in graph.leaving(b) {
                let c = edges[*second].1;
                // Each once, from its smallest node.
                if a < b
                    && a < c
                    && triangles < TRIANGLES_MAX
                    && let Some(third) = edge_of(c, a)
                {
                    triangles += 1;
                    _ = tell(vec![first, *second, third]);
                }
            }
        }
        let all = graph.all();
        let mut entering = vec![Vec::new(); count];
        edges.iter().enumerate().for_each(|(edge, (_, to))| entering[*to].push(edge));
        for (node, entering) in entering.iter().enumerate() {
            let by = graph.reached_by(node, &all);
            for edge in entering {
                let mut way = graph.way_to(&by, node, edges[*edge].0).unwrap_or_default();
                way.push(*edge);
                if !tell(way) {
                    return;
                }
            }
        }
    }

    /// Tells cycles among the edges that are kept, by way of every node that is on one; whether a new one was among them.
    fn survivors(&self, kept: &Kept, mut tell: impl FnMut(Vec<usize>) -> bool) -> bool {
        let components = self.graph.components(kept);
        let mut sizes = vec![0; self.graph.nodes()];
        components.iter().for_each(|component| sizes[*component] += 1);
        let mut any = false;
        for node in 0..self.graph.nodes() {
            if sizes[components[node]] > 1
                && let Some(cycle) = self.graph.shortest(node, node, kept)
            {
                any |= tell(cycle);
            }
        }
        any
    }

    /// Leaves out cuts without which there is no cycle either.
    fn without_needless(&self, cuts: Vec<usize>) -> Vec<usize> {
        let mut kept = self.without(&cuts);
        let mut left = cuts;
        left.retain(|edge| {
            let (from, to) = self.graph.edges()[*edge];
            let is_needed = self.graph.shortest(to, from, &kept).is_some();
            kept[*edge] = !is_needed;
            is_needed
        });
        left
    }

    /// The time of the longest chain of nodes.
    fn length(&self, kept: &Kept) -> Option<u64> {
        let order = self.graph.order(kept)?;
        let mut ends = vec![0u64; self.graph.nodes()];
        for node in order {
            let needs = self.graph.leaving(node).iter().filter(|edge| kept[**edge]);
            let begin = needs.map(|edge| ends[self.graph.edges()[*edge].1]).max().unwrap_or(0);
            ends[node] = begin.saturating_add(self.weights[node]);
        }
        ends.into_iter().max()
    }

    /// As many cuts, exchanged one by one for others on the same cycles as long as that shortens the longest chain.
    fn shorten(&self, mut cuts: Vec<usize>) -> Vec<usize> {
        let mut kept = self.without(&cuts);
        let Some(mut length) = self.length(&kept) else { return cuts };
        let mut looks = SHORTEN_WORK / (self.graph.nodes() + self.graph.edges().len()).max(1);
        for chosen in &mut cuts {
            let cut = *chosen;
            let (from, to) = self.graph.edges()[cut];
            let Some(back) = self.graph.shortest(to, from, &kept) else { continue };
            for other in self.row(&back) {
                let Some(left) = looks.checked_sub(1) else { break };
                looks = left;
                (kept[cut], kept[other]) = (true, false);
                match self.length(&kept) {
                    Some(shorter) if shorter < length => {
                        length = shorter;
                        *chosen = other;
                        break;
                    }
                    _ => (kept[cut], kept[other]) = (false, true),
                }
            }
        }
        cuts.sort_unstable();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn core(nodes: usize, edges: &[(usize, usize)]) -> Core {
        let mut edges: Vec<_> = edges.iter().copied().filter(|(from, to)| from != to).collect();
        edges.sort_unstable();
        edges.dedup();
        let may_cut = vec![true; edges.len()];
        Core { graph: Graph::new(nodes, edges), may_cut, weights: vec![1; nodes] }
    }

    fn least(core: &Core) -> u32 {
        let count = core.graph.edges().len();
        let is_enough = |set: &u32| {
            let kept = (0..count).map(|edge| set & (1 << edge) == 0).collect();
            core.graph.order(&kept).is_some()
        };
        (0..1u32 << count).filter(is_enough).map(u32::count_ones).min().unwrap()
    }

    proptest! {
        #[test]
        fn no_cycle_is_left_and_fewest_is_fewest(edges in proptest::collection::vec((0..6usize, 0..6usize), 0..12)) {
            let core = core(6, &edges);
            let cuts = core.cut(CutAim::Fewest);
            prop_assert!(core.graph.order(&core.without(&cuts)).is_some());
            prop_assert_eq!(u32::try_from(cuts.len()).unwrap(), least(&core));
            let short = core.cut(CutAim::Short);
            let kept = core.without(&short);
            prop_assert!(core.length(&kept).unwrap() <= core.length(&core.without(&cuts)).unwrap());
        }
    }

    proptest! {
        #[test]
        fn without_a_search_no_cycle_is_left_either(
            edges in proptest::collection::vec((0..6usize, 0..6usize), 0..20), must in proptest::collection::vec(any::<bool>(), 30),
        ) {
            let mut core = core(6, &edges);
            // What must stay leads from greater numbers to smaller ones, so that every cycle can be cut.
            for (edge, (from, to)) in core.graph.edges().iter().enumerate() {
                core.may_cut[edge] = from < to || !must[edge];
            }
            let cuts = core.in_the_way(&core.graph.all());
            prop_assert!(cuts.iter().all(|edge| core.may_cut[*edge]));
            prop_assert!(core.graph.order(&core.without(&cuts)).is_some());
        }
    }

    #[test]
    fn what_may_not_be_cut_is_not() {
        let mut core = core(3, &[(0, 1), (1, 0), (1, 2), (2, 0)]);
        for edge in 0..3 {
            core.may_cut = vec![true; 4];
            core.may_cut[edge] = false;
            for aim in [CutAim::Fewest, CutAim::Short] {
                let cuts = core.cut(aim);
                assert!(!cuts.contains(&edge), "{cuts:?}");
                assert!(core.graph.order(&core.without(&cuts)).is_some());
            }
        }
    }
}
