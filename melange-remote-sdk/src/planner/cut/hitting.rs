//! The smallest set that hits every row: which edges to cut so that every known cycle is. Pure, and the same for the same
//! rows.

use std::collections::HashSet;

use fastrand::Rng;

/// Sets of numbers below `columns`, each of which is to be hit.
#[derive(Debug, Default)]
pub(super) struct Rows {
    columns: usize,
    rows: Vec<Vec<usize>>,
    known: HashSet<Vec<usize>>,
    /// The sizes of all rows together.
    size: usize,
}

/// The sizes of all rows together, beyond which no more are taken.
const SIZE_MAX: usize = 3_000_000;

/// Steps of the search for each column that is left in doubt.
const STEPS_PER_COLUMN: usize = 60;

/// Steps of the search in all, at least and at most.
const STEPS: std::ops::RangeInclusive<usize> = 2_000..=60_000;

impl Rows {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns, rows: Vec::new(), known: HashSet::new(), size: 0 }
    }

    /// Whether no more rows are taken.
    pub(super) fn is_full(&self) -> bool {
        self.size >= SIZE_MAX
    }

    /// Adds a row, unless there are too many; whether it is a new one. An empty row can never be hit and must not be given.
    pub(super) fn add(&mut self, mut row: Vec<usize>) -> bool {
        row.sort_unstable();
        row.dedup();
        let is_new = !self.is_full() && self.known.insert(row.clone());
        if is_new {
            self.size += row.len();
            self.rows.push(row);
        }
        is_new
    }

    /// A set that hits all rows, as small as could be found, in order. `work` is how many columns may still be looked at;
    /// without any the set is only one that hits all rows.
    pub(super) fn smallest(&self, work: &mut usize) -> Vec<usize> {
        let mut reduced = Reduced::new(self.columns, &self.rows);
        let mut found = reduced.reduce();
        if reduced.rows.iter().any(|row| row.is_some()) {
            found.extend(Search::new(self.columns, reduced.left()).run(work));
        }
        found.sort_unstable();
        found
    }
}

/// The rows of each column, in order.
fn by_column(columns: usize, rows: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut of = vec![Vec::new(); columns];
    for (number, row) in rows.iter().enumerate() {
        row.iter().for_each(|column| of[*column].push(number));
    }
    of
}

/// Rows from which everything is dropped that decides nothing.
struct Reduced {
    rows: Vec<Option<Vec<usize>>>,
    /// The rows of each column, in order, with some that are gone.
    of: Vec<Vec<usize>>,
}

impl Reduced {
    fn new(columns: usize, rows: &[Vec<usize>]) -> Self {
        let of = by_column(columns, rows);
        Self { rows: rows.iter().cloned().map(Some).collect(), of }
    }

    fn left(&self) -> Vec<Vec<usize>> {
        self.rows.iter().flatten().cloned().collect()
    }

    /// Drops rows that another one lies within, and columns that hit nothing that another one does not hit, until none is
    /// left; the columns that must be taken.
    fn reduce(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            self.drop_rows();
            let forced = self.take_forced(&mut taken);
            let dropped = self.drop_columns();
            if !forced && !dropped {
                return taken;
            }
        }
    }

    fn tidy(&mut self) {
        for rows in &mut self.of {
            rows.retain(|row| self.rows[*row].is_some());
        }
    }

    fn drop_rows(&mut self) {
        self.tidy();
        let mut order: Vec<usize> = (0..self.rows.len()).filter(|row| self.rows[*row].is_some()).collect();
        order.sort_by_key(|row| self.rows[*row].as_ref().map_or(0, Vec::len));
        for number in order {
            let Some(row) = self.rows[number].clone() else { continue };
            // Whatever this one lies within has its rarest column too.
            let Some(rarest) = row.iter().min_by_key(|column| self.of[**column].len()) else { continue };
            for other in &self.of[*rarest] {
                let is_wider = self.rows[*other]
                    .as_ref()
                    .is_some_and(|other| other.len() > row.len() && holds(other, &row));
                if is_wider {
                    self.rows[*other] = None;
                }
            }
        }
        self.tidy();
    }

    fn take_forced(&mut self, taken: &mut Vec<usize>) -> bool {
        let before = taken.len();
        for number in 0..self.rows.len() {
            if let Some([only]) = self.rows[number].as_deref() {
                let only = *only;
                taken.push(only);
                for row in std::mem::take(&mut self.of[only]) {
                    self.rows[row] = None;
                }
            }
        }
        self.tidy();
        taken.len() > before
    }

    fn drop_columns(&mut self) -> bool {
        let mut dropped = false;
        for column in 0..self.of.len() {
            let Some(first) = self.of[column].first() else { continue };
            let row = self.rows[*first].clone().unwrap_or_default();
            let better = row.iter().any(|other| {
                let (own, theirs) = (&self.of[column], &self.of[*other]);
                // Of two that hit the same rows one stays.
                *other != column
                    && own.len() <= theirs.len()
                    && (own.len() < theirs.len() || *other < column)
                    && holds(theirs, own)
            });
            if better {
                dropped = true;
                for row in std::mem::take(&mut self.of[column]) {
                    if let Some(row) = &mut self.rows[row] {
                        row.retain(|other| *other != column);
                    }
                }
            }
        }
        dropped
    }
}

/// Whether a sorted list has all of another one.
fn holds(list: &[usize], part: &[usize]) -> bool {
    let mut rest = list.iter();
    part.iter().all(|wanted| rest.by_ref().take_while(|item| *item <= wanted).any(|item| item == wanted))
}

/// A local search that weighs rows by how often they were left out.
///
/// Source of the idea: Gao, Weise and Li, "An efficient local search heuristic with row weighting for the unicost set
/// covering problem" (2015).
struct Search {
    rows: Vec<Vec<usize>>,
    of: Vec<Vec<usize>>,
    /// The columns that hit anything.
    columns: Vec<usize>,
    is_in: Vec<bool>,
    hits: Vec<usize>,
    weights: Vec<u64>,
    /// What the weight of hit rows would change by if the column changed sides, without its sign.
    scores: Vec<u64>,
    /// When it changed sides last.
    moved: Vec<usize>,
    /// Whether something near it changed since it was taken out.
    is_free: Vec<bool>,
    open: Vec<usize>,
    place_of: Vec<usize>,
}

impl Search {
    fn new(columns: usize, rows: Vec<Vec<usize>>) -> Self {
        let of = by_column(columns, &rows);
        let scores = of.iter().map(|rows| u64::try_from(rows.len()).unwrap_or(u64::MAX)).collect();
        let count = rows.len();
        Self {
            columns: (0..columns).filter(|column| !of[*column].is_empty()).collect(),
            rows,
            of,
            is_in: vec![false; columns],
            hits: vec![0; count],
            weights: vec![1; count],
            scores,
            moved: vec![0; columns],
            is_free: vec![true; columns],
            open: (0..count).collect(),
            place_of: (0..count).collect(),
        }
    }

    fn run(mut self, work: &mut usize) -> Vec<usize> {
        while let Some(row) = self.open.first().copied() {
            let outside = self.columns.iter().copied().filter(|column| !self.is_in[*column]);
            let best = outside.max_by_key(|column| self.worth(*column));
            self.turn(best.unwrap_or(self.rows[row][0]), 0);
        }
        let mut best = self.is_in.clone();
        let (mut rng, mut last_out) = (Rng::with_seed(1), None);
        // Each step looks at all columns that are in.
        let wanted = (self.columns.len() * STEPS_PER_COLUMN).clamp(*STEPS.start(), *STEPS.end());
        let steps = wanted.min(*work / self.columns.len().max(1));
        *work -= steps * self.columns.len();
        for step in 1..=steps {
            while self.open.is_empty() {
                best.clone_from(&self.is_in);
                let Some(out) = self.least_missed(None) else { return numbers(&best) };
                self.turn(out, step);
            }
            if let Some(out) = self.least_missed(last_out) {
                self.turn(out, step);
                self.is_free[out] = false;
                last_out = Some(out);
            }
            if self.open.is_empty() {
                continue;
            }
            let row = self.open[rng.usize(..self.open.len())];
            let options = self.rows[row].iter().copied();
            let Some(into) =
                options.filter(|column| self.is_free[*column]).max_by_key(|column| self.worth(*column))
            else {
                continue;
            };
            self.turn(into, step);
            last_out = last_out.filter(|out| *out != into);
            for row in &self.open {
                self.weights[*row] += 1;
                self.rows[*row].iter().for_each(|column| self.scores[*column] += 1);
            }
        }
        numbers(&best)
    }

    /// By what columns are compared that are to come in.
    fn worth(&self, column: usize) -> impl Ord + use<> {
        use std::cmp::Reverse;
        (self.scores[column], Reverse(self.moved[column]), Reverse(column))
    }

    /// The column that is in and would be missed least.
    fn least_missed(&self, but: Option<usize>) -> Option<usize> {
        let inside =
            self.columns.iter().copied().filter(|column| self.is_in[*column] && Some(*column) != but);
        inside.min_by_key(|column| (self.scores[*column], self.moved[*column], *column))
    }

    /// Takes a column in or out.
    fn turn(&mut self, column: usize, step: usize) {
        self.is_in[column] = !self.is_in[column];
        self.moved[column] = step;
        let comes = self.is_in[column];
        for place in 0..self.of[column].len() {
            let row = self.of[column][place];
            let weight = self.weights[row];
            let before = self.hits[row];
            self.hits[row] = if comes { before + 1 } else { before - 1 };
            // Scores change only where a row gets its first or second hit, or loses one of these.
            let change: Option<(bool, bool)> = match (comes, before) {
                (true, 0) => Some((false, true)),
                (true, 1) => Some((true, false)),
                (false, 2) => Some((true, true)),
                (false, 1) => Some((false, false)),
                _ => None,
            };
            for at in 0..self.rows[row].len() {
                let other = self.rows[row][at];
                self.is_free[other] = true;
                if other == column {
                    continue;
                }
                match change {
                    // Nobody else gains by this row any more.
                    Some((false, true)) => self.scores[other] -= weight,
                    Some((false, false)) => self.scores[other] += weight,
                    // The one that hits it alone would be missed, or no longer.
                    Some((true, false)) if self.is_in[other] => self.scores[other] -= weight,
                    Some((true, true)) if self.is_in[other] => self.scores[other] += weight,
                    _ => {}
                }
            }
            match (comes, before) {
                (true, 0) => self.close(row),
                (false, 1) => self.reopen(row),
                _ => {}
            }
        }
        self.scores[column] = self.own_score(column);
    }

    fn own_score(&self, column: usize) -> u64 {
        let alone = usize::from(self.is_in[column]);
        let counts = self.of[column].iter().filter(|row| self.hits[**row] == alone);
        counts.map(|row| self.weights[*row]).sum()
    }

    fn close(&mut self, row: usize) {
        let place = self.place_of[row];
        self.open.swap_remove(place);
        if let Some(moved) = self.open.get(place) {
            self.place_of[*moved] = place;
        }
    }

    fn reopen(&mut self, row: usize) {
        self.place_of[row] = self.open.len();
        self.open.push(row);
    }
}

fn numbers(is_in: &[bool]) -> Vec<usize> {
    is_in.iter().enumerate().filter(|(_, is_in)| **is_in).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The size of the smallest set that hits all rows, by trying all.
    fn least(columns: usize, rows: &[Vec<usize>]) -> u32 {
        let hits = |set: &u32| rows.iter().all(|row| row.iter().any(|column| set & (1 << column) != 0));
        (0..1u32 << columns).filter(hits).map(u32::count_ones).min().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_found_hits_all_and_is_the_smallest(
            rows in proptest::collection::vec(proptest::collection::vec(0..10usize, 1..5), 0..30),
        ) {
            let mut known = Rows::new(10);
            rows.iter().for_each(|row| _ = known.add(row.clone()));
            let found = known.smallest(&mut 1_000_000);
            prop_assert!(rows.iter().all(|row| row.iter().any(|column| found.contains(column))));
            prop_assert_eq!(u32::try_from(found.len()).unwrap(), least(10, &rows));
        }
    }
}
