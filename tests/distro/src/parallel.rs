//! Work on a list with several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Applies `work` to every item on `jobs` threads and returns the results in the items' order, or the first error
/// (in that order too, so that a failure reads the same in every run).
pub fn map<T: Sync, R: Send>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((item, slot)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).zip(results.get(index))
                } {
                    let result = work(item);
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    results
        .into_iter()
        .map(|slot| {
            slot.into_inner().unwrap_or_else(PoisonError::into_inner).context("a worker stopped early")?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_reports_the_first_error() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(map(3, &items, |n| Ok(n * 2)).unwrap()[49], 98);
        let error =
            map(3, &items, |n| if n % 10 == 7 { anyhow::bail!("bad {n}") } else { Ok(()) }).unwrap_err();
        assert_eq!(error.to_string(), "bad 7");
    }
}
