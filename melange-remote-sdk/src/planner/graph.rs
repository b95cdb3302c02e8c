//! A graph of what needs what, over numbers: components, levels, shortest ways. Pure.

use std::collections::VecDeque;

/// Nodes `0..nodes` and edges from who needs to what is needed. Edges keep their numbers.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    edges: Vec<(usize, usize)>,
    /// The edges that leave a node begin at its place in `leaving`, and those of the next one end them.
    begins: Vec<usize>,
    leaving: Vec<usize>,
}

/// Which of a graph's edges count.
pub(super) type Kept = Vec<bool>;

impl Graph {
    /// A graph; edges to or from nodes that there are not must not be given.
    pub(super) fn new(nodes: usize, edges: Vec<(usize, usize)>) -> Self {
        let mut begins = vec![0; nodes + 1];
        edges.iter().for_each(|(from, _)| begins[from + 1] += 1);
        for node in 0..nodes {
            begins[node + 1] += begins[node];
        }
        let mut next = begins.clone();
        let mut leaving = vec![0; edges.len()];
        for (edge, (from, _)) in edges.iter().enumerate() {
            leaving[next[*from]] = edge;
            next[*from] += 1;
        }
        Self { edges, begins, leaving }
    }

    pub(super) fn nodes(&self) -> usize {
        self.begins.len() - 1
    }

    pub(super) fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// The numbers of the edges that leave a node, in their order.
    pub(super) fn leaving(&self, node: usize) -> &[usize] {
        &self.leaving[self.begins[node]..self.begins[node + 1]]
    }

    /// All edges count.
    pub(super) fn all(&self) -> Kept {
        vec![true; self.edges.len()]
    }

    /// The component of each node, by number: nodes that need each other, over however many others, share one. Components
    /// are numbered from what is needed to who needs it.
    pub(super) fn components(&self, kept: &Kept) -> Vec<usize> {
        // Tarjan's algorithm, with a stack of its own: chains may be as long as the graph is large.
        const NONE: usize = usize::MAX;
        let count = self.nodes();
        let (mut order, mut low, mut component) = (vec![NONE; count], vec![0; count], vec![NONE; count]);
        let (mut stack, mut calls): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        let (mut next, mut components) = (0, 0);
        for root in 0..count {
            if order[root] != NONE {
                continue;
            }
            calls.push((root, 0));
            while let Some((node, at)) = calls.pop() {
                if at == 0 {
                    (order[node], low[node]) = (next, next);
                    next += 1;
                    stack.push(node);
                }
                let mut descended = false;
                for (place, edge) in self.leaving(node).iter().enumerate().skip(at) {
                    let to = self.edges[*edge].1;
                    if !kept[*edge] {
                        continue;
                    }
                    if order[to] == NONE {
                        // It is looked at again once `to` is done.
                        calls.push((node, place + 1));
                        calls.push((to, 0));
                        descended = true;
                        break;
                    }
                    if component[to] == NONE {
                        low[node] = low[node].min(low[to]);
                    }
                }
                if descended {
                    continue;
                }
                if low[node] == order[node] {
                    while let Some(member) = stack.pop() {
                        component[member] = components;
                        if member == node {
                            break;
                        }
                    }
                    components += 1;
                }
                if let Some((above, _)) = calls.last() {
                    low[*above] = low[*above].min(low[node]);
                }
            }
        }
        component
    }

    /// For each node the longest way, in edges, to one that needs nothing; `None` when there is a cycle.
    pub(super) fn levels(&self, kept: &Kept) -> Option<Vec<usize>> {
        let order = self.order(kept)?;
        let mut levels = vec![0; self.nodes()];
        for node in order {
            let needs = self.leaving(node).iter().filter(|edge| kept[**edge]);
            levels[node] = needs.map(|edge| levels[self.edges[*edge].1] + 1).max().unwrap_or(0);
        }
        Some(levels)
    }

    /// The nodes, each behind all that it needs; `None` when there is a cycle.
    pub(super) fn order(&self, kept: &Kept) -> Option<Vec<usize>> {
        let mut waits = vec![0; self.nodes()];
        let mut needed_by = vec![Vec::new(); self.nodes()];
        for (_, (from, to)) in self.edges.iter().enumerate().filter(|(edge, _)| kept[*edge]) {
            waits[*from] += 1;
            needed_by[*to].push(*from);
        }
        let mut order: Vec<usize> = (0..self.nodes()).filter(|node| waits[*node] == 0).collect();
        let mut next = 0;
        while next < order.len() {
            let node = order[next];
            next += 1;
            for from in &needed_by[node] {
                waits[*from] -= 1;
                if waits[*from] == 0 {
                    order.push(*from);
                }
            }
        }
        (order.len() == self.nodes()).then_some(order)
    }

    /// A shortest way by edges from one node to another one; of equal ones that over the edges that come first. From a node
    /// to itself it is a cycle.
    pub(super) fn shortest(&self, from: usize, to: usize, kept: &Kept) -> Option<Vec<usize>> {
        let mut by: Vec<Option<usize>> = vec![None; self.nodes()];
        let mut left = VecDeque::from([from]);
        while let Some(node) = left.pop_front() {
            for edge in self.leaving(node).iter().filter(|edge| kept[**edge]) {
                let next = self.edges[*edge].1;
                if by[next].is_some() || (next == from && to != from) {
                    continue;
                }
                by[next] = Some(*edge);
                if next == to {
                    return Some(self.way(&by, from, to));
                }
                left.push_back(next);
            }
        }
        None
    }

    fn way(&self, by: &[Option<usize>], from: usize, to: usize) -> Vec<usize> {
        let mut way = Vec::new();
        let mut at = to;
        while let Some(edge) = by[at] {
            way.push(edge);
            at = self.edges[edge].0;
            if at == from {
                break;
            }
        }
        way.reverse();
        way
    }

    /// For each node the edge by which a shortest way from `from` reaches it.
    pub(super) fn reached_by(&self, from: usize, kept: &Kept) -> Vec<Option<usize>> {
        let mut by: Vec<Option<usize>> = vec![None; self.nodes()];
        let mut left = VecDeque::from([from]);
        while let Some(node) = left.pop_front() {
            for edge in self.leaving(node).iter().filter(|edge| kept[**edge]) {
                let next = self.edges[*edge].1;
                if by[next].is_none() {
                    by[next] = Some(*edge);
                    left.push_back(next);
                }
            }
        }
        by
    }

    /// The way that [`Self::reached_by`] knows to a node.
    pub(super) fn way_to(&self, by: &[Option<usize>], from: usize, to: usize) -> Option<Vec<usize>> {
        by[to].map(|_| self.way(by, from, to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edges() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
        (1..12usize)
            .prop_flat_map(|nodes| (Just(nodes), proptest::collection::vec((0..nodes, 0..nodes), 0..40)))
    }

    /// Which nodes reach which, over at least one edge.
    fn reach(nodes: usize, edges: &[(usize, usize)]) -> Vec<Vec<bool>> {
        let mut reach = vec![vec![false; nodes]; nodes];
        edges.iter().for_each(|(from, to)| reach[*from][*to] = true);
        for by in 0..nodes {
            for from in 0..nodes {
                for to in 0..nodes {
                    reach[from][to] |= reach[from][by] && reach[by][to];
                }
            }
        }
        reach
    }

    proptest! {
        #[test]
        fn components_levels_and_ways_are_those_of_the_definition((nodes, edges) in edges()) {
            let graph = Graph::new(nodes, edges.clone());
            let (reach, kept) = (reach(nodes, &edges), graph.all());
            let components = graph.components(&kept);
            for a in 0..nodes {
                for b in 0..nodes {
                    let together = a == b || (reach[a][b] && reach[b][a]);
                    prop_assert_eq!(components[a] == components[b], together);
                    prop_assert!(!reach[a][b] || components[b] <= components[a]);
                    let way = graph.shortest(a, b, &kept);
                    prop_assert_eq!(way.is_some(), reach[a][b], "{} to {}", a, b);
                    let mut at = a;
                    for edge in way.into_iter().flatten() {
                        prop_assert_eq!(edges[edge].0, at);
                        at = edges[edge].1;
                    }
                    prop_assert!(at == b || !reach[a][b]);
                }
            }
            let is_cyclic = (0..nodes).any(|node| reach[node][node]);
            let levels = graph.levels(&kept);
            prop_assert_eq!(levels.is_none(), is_cyclic);
            if let Some(levels) = levels {
                prop_assert!(edges.iter().all(|(from, to)| levels[*from] > levels[*to]));
                let least = |node: usize| edges.iter().filter(|edge| edge.0 == node).map(|edge| levels[edge.1] + 1).max();
                prop_assert!((0..nodes).all(|node| levels[node] == least(node).unwrap_or(0)));
            }
        }
    }
}
