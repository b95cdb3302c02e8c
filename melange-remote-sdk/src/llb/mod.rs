//! Build graphs in BuildKit's low-level format (LLB): pure functions from a [`crate::guest::GuestPlan`] to the
//! bytes that a daemon takes. No connection, clock, disk or environment is involved; sending the bytes is
//! the task of `buildkit`.
//!
//! ```text
//! root tar ──upload──▶ unpack ──▶ + workspace tars ──▶ step 0 ──▶ step 1 ─ … ─▶ copy of the output folder
//!            (shared by all builds)   (the last: one     each step's root is the tree that the one before left
//!                                      build's own)
//! ```
//!
//! The same plan and options give the same bytes: every map is ordered, every time stamp is fixed. Only
//! features of BuildKit v0.8 (Docker 20.10) are used, and every op names the capabilities that it needs, so
//! that a daemon without one says so.

mod dump;
mod exec;
mod file;
mod from_plan;
mod graph;
mod output;

pub use dump::dump;
pub use exec::{Exec, Mount, Network};
pub use file::FileActions;
pub use from_plan::{CacheMounts, LoweredPlan, PlanOptions, from_plan};
pub use graph::{Definition, Graph};
pub use output::OpOutput;
