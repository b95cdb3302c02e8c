//! What every implementation of a contract must pass. The functions panic when it does not.
//!
//! Each module has one public function for each promise and `all`, which calls them in order. They need a tokio
//! runtime; time inside is given to the calls, so that a paused clock works as well. [`mutants`] shows that the suites
//! bite: implementations with one mistake each, which must fail.

pub mod artifact_storage;
pub mod backend_registry;
pub mod backend_selector;
pub mod builder;
pub mod job_store;
pub mod mutants;
pub mod simulation;
pub mod source_cache;
