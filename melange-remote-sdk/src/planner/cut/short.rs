//! Some cuts more than needed, for shorter chains.

use fastrand::Rng;

use super::Core;

/// Moves of the search for each node of a core.
const MOVES_PER_NODE: usize = 1_500;

/// Moves at most.
const MOVES_MAX: usize = 2_000_000;

/// What leaving an edge out costs that must not be cut: more than all others.
const FORBIDDEN: f64 = 1e6;

/// How hot the search begins and how it ends, in cuts.
const HOT: f64 = 1.5;
const COLD: f64 = 0.05;

/// The cuts that make the longest chain shortest, at most a quarter more than `fewest` has.
///
/// Nodes get levels below a limit; what needs something of its own level or above is cut. The limit is as small as the
/// number of cuts allows.
pub(super) fn cut(core: &Core, fewest: Vec<usize>) -> Vec<usize> {
    let budget = fewest.len() + fewest.len() / 4;
    let Some(first) = core.graph.levels(&core.without(&fewest)) else { return fewest };
    let highest = first.iter().copied().max().unwrap_or(0);
    let mut best = fewest;
    let mut shortest = core.length(&core.without(&best)).unwrap_or(u64::MAX);
    let (mut low, mut high) = (1, highest);
    while low <= high {
        let limit = low.midpoint(high);
        let cuts = annealed(core, &first, highest, limit).filter(|cuts| cuts.len() <= budget);
        let Some(cuts) = cuts else {
            low = limit + 1;
            continue;
        };
        let length = core.length(&core.without(&cuts)).unwrap_or(u64::MAX);
        if length < shortest {
            (best, shortest) = (cuts, length);
        }
        let Some(lower) = limit.checked_sub(1) else { break };
        high = lower;
    }
    best
}

/// Cuts after which no chain has more levels than `limit` and one; `None` when an edge is among them that must stay.
fn annealed(core: &Core, first: &[usize], highest: usize, limit: usize) -> Option<Vec<usize>> {
    let graph = &core.graph;
    let edges = graph.edges();
    let mut near: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes()];
    for (edge, (from, to)) in edges.iter().enumerate() {
        near[*from].push(edge);
        near[*to].push(edge);
    }
    let mut level: Vec<usize> = first.iter().map(|level| level * limit / highest.max(1)).collect();
    let is_cut = |level: &[usize], edge: usize| level[edges[edge].0] <= level[edges[edge].1];
    let price = |edge: usize| if core.may_cut[edge] { 1.0 } else { FORBIDDEN };
    let around = |level: &[usize], node: usize| -> f64 {
        near[node].iter().filter(|edge| is_cut(level, **edge)).map(|edge| price(*edge)).sum()
    };
    let (mut rng, moves) = (Rng::with_seed(2), (MOVES_PER_NODE * graph.nodes()).min(MOVES_MAX));
    let cooling = (COLD / HOT).powf(1.0 / f64::from(u32::try_from(moves.max(1)).unwrap_or(u32::MAX)));
    let mut heat = HOT;
    for _ in 0..moves {
        heat *= cooling;
        let node = rng.usize(..graph.nodes());
        let (before, was) = (around(&level, node), level[node]);
        level[node] = rng.usize(..=limit);
        let worse = around(&level, node) - before;
        if worse > 0.0 && rng.f64() >= (-worse / heat).exp() {
            level[node] = was;
        }
    }
    let cuts: Vec<usize> = (0..edges.len()).filter(|edge| is_cut(&level, *edge)).collect();
    cuts.iter().all(|edge| core.may_cut[*edge]).then(|| needed(core, cuts, limit))
}

/// Leaves out cuts without which the chains have no more levels.
fn needed(core: &Core, mut cuts: Vec<usize>, limit: usize) -> Vec<usize> {
    let mut kept = core.without(&cuts);
    cuts.retain(|edge| {
        kept[*edge] = true;
        let fits = core.graph.levels(&kept).is_some_and(|levels| levels.iter().all(|level| *level <= limit));
        kept[*edge] = fits;
        !fits
    });
    cuts
}
