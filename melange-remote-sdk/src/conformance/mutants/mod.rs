//! Implementations with one mistake each. A suite that lets one of them pass does not hold the contract.
//!
//! Each module has `run`, which tries the suite on a sound implementation first and then on every mutant.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

pub mod artifact_storage;
pub mod backend_registry;
pub mod backend_selector;
pub mod builder;
pub mod job_store;
pub mod source_cache;

/// What a suite said of the mutants of one contract.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The contract, such as `JobStore`.
    pub contract: &'static str,
    /// Mutants that failed, with what the suite said.
    pub caught: Vec<(String, String)>,
    /// Mutants that passed; there should be none.
    pub survived: Vec<String>,
}

impl Verdict {
    fn new(contract: &'static str) -> Self {
        Self { contract, caught: Vec::new(), survived: Vec::new() }
    }

    /// Runs the suite on a mutant to its end or to its panic.
    async fn try_on(&mut self, mutant: &str, suite: impl Future<Output = ()>) {
        let end = AssertUnwindSafe(suite).catch_unwind().await;
        self.count(mutant, end);
    }

    fn count(&mut self, mutant: &str, end: Result<(), Box<dyn Any + Send>>) {
        match end {
            Ok(()) => self.survived.push(mutant.to_owned()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                self.caught.push((mutant.to_owned(), text.to_owned()));
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (caught, all) = (self.caught.len(), self.caught.len() + self.survived.len());
        write!(f, "{}: mutants caught: {caught} of {all}", self.contract)?;
        for mutant in &self.survived {
            write!(f, "\n  survived: {mutant}")?;
        }
        Ok(())
    }
}
