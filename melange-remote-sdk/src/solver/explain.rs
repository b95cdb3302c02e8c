//! Why there is no choice: the request, the way to it, and what comes closest.

use super::{Id, Map, Solver};
use crate::apk::dependency::Dependency;
use crate::error::{Error, ErrorKind};
use crate::limits;
use crate::text::diagnostics;

/// How many candidates, reasons or links of a chain a message names.
const NAMED_MAX: usize = 8;

/// Why a package is out of the question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason<'s> {
    /// Somebody asks for its absence.
    Excluded(&'s str),
    /// It is not of the version that somebody asks for.
    Unsatisfied(&'s str),
    /// A package that is chosen stands for a name of its.
    ProvidedBy(Id, &'s str),
}

impl Reason<'_> {
    fn told(&self, solver: &Solver<'_>) -> String {
        match self {
            Self::Excluded(text) => format!("excluded by !{text}"),
            Self::Unsatisfied(text) => format!("does not satisfy {text}"),
            Self::ProvidedBy(id, name) => format!("{} provides {name} already", solver.label(*id)),
        }
    }
}

/// `a → b → c`, its middle left out where it is long.
pub(super) fn chain(solver: &Solver<'_>, ids: impl Iterator<Item = Id>) -> String {
    let mut labels: Vec<String> = ids.map(|id| solver.label(id)).collect();
    if labels.len() > NAMED_MAX {
        let left_out = labels.len() - NAMED_MAX;
        labels.splice(2..2 + left_out, [format!("… {left_out} more …")]);
    }
    labels.join(" → ")
}

/// The error for a name that nothing is left for.
pub(super) fn nothing_provides(
    solver: &Solver<'_>,
    disqualified: &Map<Id, Reason<'_>>,
    request: &Dependency<'_>,
) -> Error {
    let candidates = solver.candidates(request.name);
    if candidates.is_empty() {
        let error = Error::new(ErrorKind::NotFound, format!("nothing provides {:?}", request.text));
        return match similar(solver, request.name) {
            Some(name) => error.hint(format!("did you mean `{name}`?")),
            None => error.hint("check the name, and that its repository is listed"),
        };
    }
    let mut reasons: Vec<String> = candidates
        .iter()
        .take(NAMED_MAX)
        .map(|id| {
            let reason = match disqualified.get(id) {
                Some(reason) => reason.told(solver),
                None if !solver.tag(*id).is_empty() && solver.tag(*id) != request.pin => {
                    let (name, tag) = (request.name, solver.tag(*id));
                    format!("only in the repository tagged @{tag}, ask for {name}@{tag}")
                }
                None => "does not satisfy it".to_owned(),
            };
            format!("{}: {reason}", solver.label(*id))
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    if candidates.len() > NAMED_MAX {
        reasons.push(format!("and {} more", candidates.len() - NAMED_MAX));
    }
    let message = format!("nothing that provides {:?} can be chosen: {}", request.text, reasons.join("; "));
    Error::new(ErrorKind::Conflict, message)
        .hint("loosen a version, or drop one of the packages that conflict")
}

/// The known name that a misspelt one was likely meant to be.
pub(super) fn similar<'a>(solver: &Solver<'a>, name: &str) -> Option<&'a str> {
    let first = name.as_bytes().first();
    diagnostics::nearest(
        name,
        solver
            .by_name
            .keys()
            .copied()
            .filter(|known| known.len().abs_diff(name.len()) <= 2 && known.as_bytes().first() == first),
    )
}

/// An environment of apko's cannot be asked to lack a package.
pub(super) fn excluded_in_world(request: &Dependency<'_>) -> Error {
    let message = format!(
        "the request {:?} excludes a package, which an environment cannot ask for",
        request.to_string()
    );
    Error::invalid(message).hint(
        "name the packages that it should hold; packages exclude others by `!name` among their dependencies",
    )
}

/// A constraint whose version is none.
pub(super) fn no_version(wanted: &Dependency<'_>) -> Error {
    let message =
        format!("the constraint {:?} has the version {:?}, which is none", wanted.text, wanted.version);
    Error::new(ErrorKind::Conflict, message)
        .hint("the package that states it must be mended, or another version of it taken")
}

/// Two packages of one solution stand for a name that only one can have.
pub(super) fn both_stand_for(solver: &Solver<'_>, a: Id, b: Id, name: &str) -> Error {
    if a == b {
        let message = format!("{} provides {name:?} more than once", solver.label(a));
        return Error::new(ErrorKind::Conflict, message)
            .hint("apko refuses it too; its definition should provide each name once, and not its own");
    }
    let message = format!("{} and {} both stand for {name:?}", solver.label(a), solver.label(b));
    Error::new(ErrorKind::Conflict, message).hint("only one of them can be installed")
}

/// Dependencies that lead down further than those of any honest repository.
pub(super) fn too_deep(solver: &Solver<'_>, id: Id) -> Error {
    let bound = limits::SOLVER_DEPTH_MAX;
    let message = format!("the dependencies lead down more than {bound} packages, to {}", solver.label(id));
    Error::new(ErrorKind::LimitExceeded, message)
        .hint("no honest repository has such a chain; ask who publishes it")
}

/// The same packages are met again and again on different ways.
pub(super) fn too_often(solver: &Solver<'_>, id: Id) -> Error {
    let bound = limits::SOLVER_VISITS_MAX;
    let message = format!(
        "the dependencies lead to the same packages on more than {bound} ways, among them {}",
        solver.label(id)
    );
    Error::new(ErrorKind::LimitExceeded, message)
        .hint("no honest repository is so entangled; ask who publishes it")
}

/// A request names a tag that no repository has.
pub(super) fn unknown_tag(wanted: &Dependency<'_>, tags: &[&str]) -> Error {
    let known: Vec<String> = tags.iter().filter(|tag| !tag.is_empty()).map(|tag| format!("@{tag}")).collect();
    let message = format!("no repository has the tag @{} of {:?}", wanted.pin, wanted.text);
    Error::invalid(message).hint(if known.is_empty() {
        "list the repository as `@tag url`".to_owned()
    } else {
        format!("known tags are {}", known.join(", "))
    })
}

/// More tags than are told apart.
pub(super) fn too_many_tags(count: usize) -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        format!("{count} different tags of repositories are more than {}", u64::BITS),
    )
    .hint("give fewer tags")
}
