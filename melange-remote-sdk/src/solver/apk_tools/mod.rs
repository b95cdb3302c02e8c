//! How apk-tools chooses: constraints are carried down to what every candidate of a name needs and up to whoever needs a
//! name, until one candidate after the other is decided. Nothing is picked for a virtual name without priorities.
//!
//! [`universe`] holds what a resolution can reach, [`decide`] the state and its rules, [`install`] the order of what was
//! chosen and what is wrong with it.

mod decide;
mod install;
mod universe;

use self::decide::Decisions;
use self::universe::Universe;
use super::{Id, Solver};
use crate::apk::dependency::Dependency;
use crate::error::Result;

/// The packages for requests that are distinct, in the order of their installation.
pub(super) fn solve<'s>(solver: &'s Solver<'_>, requests: &'s [Dependency<'s>]) -> Result<Vec<Id>> {
    // apk-tools sorts what is asked for by name without regard to letter case.
    let mut requests: Vec<&Dependency<'_>> = requests.iter().collect();
    requests.sort_by_cached_key(|request| request.name.to_ascii_lowercase());
    let (universe, world) = Universe::reach(solver, &requests)?;
    let mut decisions = Decisions::new(&universe);
    decisions.decide(&world);
    install::order(solver, &universe, decisions, &world)
}
