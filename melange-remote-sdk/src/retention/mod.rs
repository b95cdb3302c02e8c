//! What of ended jobs is kept, and for how long: the rules, and the collector that removes the rest.
//!
//! ```text
//! KeepRules + Usage ─▶ Plan ─▶ for each ended job, oldest first: does it go, and why?
//! Collector: plan a page ─▶ remove its objects ─▶ note that in the job store ─▶ the next page
//! ```
//!
//! Sources that definitions name by a checksum, and the archives of the files beside definitions, belong to no job;
//! [`Collector::remove_unused_sources`] removes those that nobody uses any more.
//!
//! Never removed, whatever the rules say:
//! * anything of a job that waits or runs, or that one of those waits for, also by way of others;
//! * anything of a job whose build has a job that has not ended;
//! * the newest success of each project, package and architecture, unless [`KeepLatest::No`];
//! * anything of a job that ended less than [`limits::RETENTION_RECENT`](crate::limits::RETENTION_RECENT) ago.

pub mod collector;
mod plan;
mod rules;
mod sources;
#[cfg(test)]
pub(crate) mod tests;

pub use collector::{Collector, CollectorOptions, Mode, Orphans};
pub use plan::{Class, Plan, Protection, Reason, Removal, Report, Total};
pub use rules::{Keep, KeepLatest, KeepRules};
pub use sources::{UnusedFiles, UnusedSources};
