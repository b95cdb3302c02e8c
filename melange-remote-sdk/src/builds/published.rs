//! What the repositories publish that the definitions of a request name, as it is when the request is planned.
//!
//! A definition whose own repository cannot be had is left out, and says so; what all definitions have, because the request
//! or the operator names it, must be there.

use std::collections::{BTreeMap, BTreeSet};

use super::compile::{CompiledAll, Places};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::melange::plan::PlanEnvironment;
use crate::planner::Skip;
use crate::redact::redact;
use crate::rootfs::{Assembler, KeptRepository, UnreadPlace};
use crate::text::one_line;

/// Reads the indexes of all repositories that environments name, each once, and leaves definitions out whose own
/// repositories or keys cannot be had. `common` are those that the request and the operator name.
///
/// # Errors
/// The first of `common` that cannot be had; `LimitExceeded` when more than [`limits::PLAN_PLACES_UNREAD_MAX`] others
/// cannot; what is this machine's trouble.
pub(super) async fn read(
    assembler: &Assembler,
    compiled: &mut CompiledAll,
    common: &BTreeSet<String>,
    arch: Arch,
) -> Result<Vec<KeptRepository>> {
    let all: BTreeSet<Places> = compiled.found.values().flat_map(|one| one.places.iter().cloned()).collect();
    let mut kept: BTreeMap<String, KeptRepository> = BTreeMap::new();
    let (mut unread, mut why): (Unread, BTreeMap<Places, String>) = (Unread::default(), BTreeMap::new());
    for places in all {
        if let Some(reason) = unread.known(&places) {
            why.insert(places, reason);
            continue;
        }
        let mut environment = PlanEnvironment::default();
        environment.repositories.clone_from(&places.repositories);
        environment.keyring.clone_from(&places.keyring);
        match assembler.kept_indexes(&environment, arch).await {
            Ok(found) => kept.extend(found.into_iter().map(|found| (found.line.clone(), found))),
            Err(failed) if common.contains(&failed.place) => return Err(for_all(&failed)),
            Err(failed) if is_own_trouble(&failed) => return Err(failed.error),
            Err(failed) => _ = why.insert(places, unread.add(&failed)?),
        }
    }
    leave_out(compiled, &why);
    Ok(kept.into_values().collect())
}

/// Takes the definitions out that name such places.
fn leave_out(compiled: &mut CompiledAll, why: &BTreeMap<Places, String>) {
    let reason_of = |places: &BTreeSet<Places>| places.iter().find_map(|places| why.get(places));
    let skipped = &mut compiled.skipped;
    compiled.found.retain(|file, one| {
        let Some(reason) = reason_of(&one.places) else { return true };
        let (name, reason) = (one.definition.name.clone(), format!("{file} names {reason}"));
        skipped.push(Skip { name, file: file.clone(), reason });
        false
    });
}

/// Places that cannot be had.
#[derive(Default)]
struct Unread {
    /// Why, of those that no other keys would help.
    reasons: BTreeMap<String, String>,
    places: BTreeSet<String>,
}

impl Unread {
    /// Why one of these places cannot be had, when that is known: it is not asked again.
    fn known(&self, places: &Places) -> Option<String> {
        let mut all = places.keyring.iter().chain(&places.repositories);
        all.find_map(|place| self.reasons.get(place)).cloned()
    }

    /// Notes a place; why it cannot be had.
    fn add(&mut self, failed: &UnreadPlace) -> Result<String> {
        let reason = told(failed);
        self.places.insert(failed.place.clone());
        if self.places.len() > limits::PLAN_PLACES_UNREAD_MAX {
            let most = limits::PLAN_PLACES_UNREAD_MAX;
            let message = format!(
                "more than {most} repositories and keys of definitions cannot be had, among them {reason}"
            );
            let error = Error::new(ErrorKind::LimitExceeded, message);
            return Err(error.hint("plan fewer definitions at once, or correct what they name"));
        }
        if failed.error.kind() != ErrorKind::Untrusted {
            self.reasons.insert(failed.place.clone(), reason.clone());
        }
        Ok(reason)
    }
}

/// Whether other definitions would meet the same trouble.
fn is_own_trouble(failed: &UnreadPlace) -> bool {
    failed.place.is_empty() || matches!(failed.error.kind(), ErrorKind::Cancelled | ErrorKind::Unexpected)
}

/// The place that cannot be had, and why, in one line.
fn told(failed: &UnreadPlace) -> String {
    let what = if failed.is_key { "key" } else { "repository" };
    let why = one_line(&failed.error.chain(), limits::PLAN_UNREAD_REASON_BYTES_MAX);
    format!("the {what} {}, which cannot be had: {why}", redact(&failed.place))
}

/// The error for a place that all definitions have.
fn for_all(failed: &UnreadPlace) -> Error {
    let message = format!("all definitions have {}", told(failed));
    let mut error = Error::new(failed.error.kind(), message);
    if let Some(blame) = failed.error.blamed() {
        error = error.blame(blame);
    }
    error.hint(
        failed
            .error
            .hint_text()
            .unwrap_or("correct it in the request, or in the server's configuration")
            .to_owned(),
    )
}
