//! The order of the builds: what others need comes first, and the big ones come early.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Result, ensure};

/// For each definition, those among the others that it needs: directly, and by way of others.
pub(crate) fn predecessors(makes: &[Vec<String>], needs: &[Vec<String>]) -> Result<Vec<BTreeSet<usize>>> {
    let maker = |name: &String| makes.iter().position(|made| made.contains(name));
    let mut all: Vec<BTreeSet<usize>> = needs
        .iter()
        .enumerate()
        .map(|(own, needs)| needs.iter().filter_map(maker).filter(|other| *other != own).collect())
        .collect();
    loop {
        let mut grown = all.clone();
        for set in &mut grown {
            set.extend(set.clone().iter().flat_map(|other| &all[*other]));
        }
        if grown == all {
            break;
        }
        all = grown;
    }
    let cycle = all.iter().enumerate().find(|(own, set)| set.contains(own));
    ensure!(cycle.is_none(), "definitions that need each other: {:?}", cycle.map(|(own, _)| &makes[own]));
    Ok(all)
}

struct State<T> {
    waiting: BTreeSet<usize>,
    done: Vec<Option<T>>,
}

/// Runs `work` for every index on `jobs` threads, each after all its predecessors; among those that may start, the
/// lowest index does. The answers come back in the order of the indexes.
pub(crate) fn run<T: Send>(
    predecessors: &[BTreeSet<usize>],
    jobs: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let count = predecessors.len();
    let state = Mutex::new(State { waiting: (0..count).collect(), done: (0..count).map(|_| None).collect() });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            scope.spawn(|| {
                let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
                while !held.waiting.is_empty() {
                    let may = |index: &&usize| predecessors[**index].iter().all(|p| held.done[*p].is_some());
                    let Some(index) = held.waiting.iter().find(may).copied() else {
                        held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    };
                    held.waiting.remove(&index);
                    drop(held);
                    let answer = work(index);
                    held = state.lock().unwrap_or_else(PoisonError::into_inner);
                    held.done[index] = Some(answer);
                    changed.notify_all();
                }
            });
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lists: &[&[&str]]) -> Vec<Vec<String>> {
        lists.iter().map(|list| list.iter().map(|&name| name.to_owned()).collect()).collect()
    }

    #[test]
    fn what_others_need_comes_first() {
        let makes = names(&[&["app"], &["lib", "lib-dev"], &["base"]]);
        let needs = names(&[&["gcc", "lib-dev"], &["base", "lib"], &[]]);
        let before = predecessors(&makes, &needs).unwrap();
        assert_eq!(before, [[1, 2].into(), [2].into(), BTreeSet::new()]);
        for jobs in [1, 3] {
            let order = Mutex::new(Vec::new());
            let answers = run(&before, jobs, |index| {
                order.lock().unwrap().push(index);
                index * 10
            });
            assert_eq!(answers, [0, 10, 20]);
            assert_eq!(order.into_inner().unwrap(), [2, 1, 0]);
        }
        assert!(run(&[], 2, |index| index).is_empty());
    }

    #[test]
    fn a_circle_is_an_error() {
        let error = predecessors(&names(&[&["a"], &["b"]]), &names(&[&["b"], &["a"]])).unwrap_err();
        assert!(error.to_string().contains("need each other"), "{error}");
    }
}
