//! The order in which the chosen packages are installed, and what is wrong with the choice.

use super::super::{Id, Map, Solver, explain};
use super::decide::{Cause, Decisions, Failure};
use super::universe::{NameId, Need, PackageId, Request, Universe};
use crate::error::{Error, ErrorKind, Result};

/// How many providers, candidates or reasons a message names.
const NAMED_MAX: usize = 8;

/// A package on its way into the order: first what it needs, then itself, then what comes along with it.
struct Frame {
    package: PackageId,
    at: usize,
    /// Whether the need at `at` was gone into.
    is_inside: bool,
    /// Names that may come along, once the package is in.
    brought: Vec<NameId>,
}

struct Order<'u, 's> {
    universe: &'u Universe<'s>,
    decisions: Decisions<'u, 's>,
    is_done: Vec<bool>,
    is_in: Vec<bool>,
    order: Vec<Id>,
}

/// The chosen packages in the order of their installation.
pub(super) fn order<'s>(
    solver: &Solver<'_>,
    universe: &Universe<'s>,
    decisions: Decisions<'_, 's>,
    world: &[Request<'s>],
) -> Result<Vec<Id>> {
    let mut order = Order {
        universe,
        decisions,
        is_done: vec![false; universe.names.len()],
        is_in: vec![false; universe.packages.len()],
        order: Vec::new(),
    };
    for request in world {
        if let Some(package) = order.enter(request.need.name) {
            order.go_through(package);
        }
    }
    if order.decisions.failures.is_empty() {
        return Ok(order.order);
    }
    Err(Explanation { solver, universe, decisions: &order.decisions, world }.error())
}

impl<'s> Order<'_, 's> {
    /// The package that stands for a name, if it is not in yet.
    fn enter(&mut self, name: NameId) -> Option<PackageId> {
        if std::mem::replace(&mut self.is_done[name as usize], true) {
            return None;
        }
        let package = self.decisions.names[name as usize].chosen?.package;
        if std::mem::replace(&mut self.is_in[package as usize], true) {
            return None;
        }
        let entry = &self.universe.packages[package as usize];
        self.is_done[entry.name as usize] = true;
        entry.provides.iter().for_each(|(name, _)| self.is_done[*name as usize] = true);
        Some(package)
    }

    /// A loop, as chains of packages may be as long as a repository.
    fn go_through(&mut self, package: PackageId) {
        let frame = |package| Frame { package, at: 0, is_inside: false, brought: Vec::new() };
        let mut stack = vec![frame(package)];
        while let Some(top) = stack.last_mut() {
            let entry = &self.universe.packages[top.package as usize];
            if let Some(need) = entry.depends.get(top.at) {
                if std::mem::replace(&mut top.is_inside, true) {
                    (top.at, top.is_inside) = (top.at + 1, false);
                    self.carry_up(top.package, need);
                    continue;
                }
                let chosen = self.decisions.names[need.name as usize].chosen;
                if !need.is_met(Some(top.package), chosen) {
                    let failure = Failure::Unfulfilled(top.package, need.text);
                    self.decisions.fail(top.package, failure);
                }
                stack.extend(self.enter(need.name).map(frame));
                continue;
            }
            let behind = top.at - entry.depends.len();
            if behind == 0 {
                self.order.push(entry.id);
                let names = [entry.name].into_iter().chain(entry.provides.iter().map(|(name, _)| *name));
                top.brought =
                    names.flat_map(|name| &self.universe.names[name as usize].brings).copied().collect();
            }
            top.at += 1;
            match top.brought.get(behind).copied() {
                Some(name) if self.comes_along(name) => stack.extend(self.enter(name).map(frame)),
                Some(_) => {}
                None => _ = stack.pop(),
            }
        }
    }

    /// What is wrong below is wrong above; the first failure tells the cause.
    fn carry_up(&mut self, package: PackageId, need: &Need<'s>) {
        let below = self.decisions.names[need.name as usize].chosen;
        if below.is_some_and(|below| self.decisions.packages[below.package as usize].failed) {
            self.decisions.fail(package, Failure::Unfulfilled(package, need.text));
        }
    }

    /// Whether all that a package comes along with is in, or at least decided.
    fn comes_along(&self, name: NameId) -> bool {
        let Some(chosen) = self.decisions.names[name as usize].chosen else { return false };
        let holds = |need: &Need<'_>| {
            (need.conflict || self.is_done[need.name as usize])
                && need.is_met(Some(chosen.package), self.decisions.names[need.name as usize].chosen)
        };
        self.universe.packages[chosen.package as usize].install_if.iter().all(holds)
    }
}

/// What is told when there is no solution.
struct Explanation<'e, 'a, 's> {
    solver: &'e Solver<'a>,
    universe: &'e Universe<'s>,
    decisions: &'e Decisions<'e, 's>,
    world: &'e [Request<'s>],
}

impl Explanation<'_, '_, '_> {
    fn error(&self) -> Error {
        let Some(failure) = self.decisions.failures.first() else {
            return Error::unexpected("the resolution failed without a reason");
        };
        let (error, below) = match *failure {
            Failure::Nothing(name) => (self.nothing(name), self.who_needs(name)),
            Failure::Impossible(package) => (self.impossible(package), Some(package)),
            Failure::Both(package, other, name) => (self.both(package, other, name), Some(package)),
            Failure::Unfulfilled(package, text) => {
                let message = format!("{} needs {text:?}, which is not fulfilled", self.label(package));
                (
                    Error::new(ErrorKind::Conflict, message).hint("drop one of the packages that conflict"),
                    Some(package),
                )
            }
        };
        let Some(below) = below else { return error };
        let (request, mut way) = self.way_to(below);
        if !matches!(failure, Failure::Nothing(_)) {
            // The message names it.
            way.pop();
        }
        match (request, way) {
            (request, way) if way.is_empty() => error.with("asked for by", request),
            (request, way) => {
                let ids = way.into_iter().map(|package| self.universe.packages[package as usize].id);
                error.with("needed by", explain::chain(self.solver, ids)).with("asked for by", request)
            }
        }
    }

    fn label(&self, package: PackageId) -> String {
        self.solver.label(self.universe.packages[package as usize].id)
    }

    fn text(&self, name: NameId) -> &str {
        self.universe.names[name as usize].text
    }

    /// Nothing may be picked for a name: it is unknown, virtual, or all that stands for it is ruled out.
    fn nothing(&self, name: NameId) -> Error {
        let (text, providers) = (self.text(name), &self.universe.names[name as usize].providers);
        if providers.is_empty() {
            let error = Error::new(ErrorKind::NotFound, format!("nothing provides {text:?}"));
            return match explain::similar(self.solver, text) {
                Some(name) => error.hint(format!("did you mean `{name}`?")),
                None => error.hint("check the name, and that its repository is listed"),
            };
        }
        let mut names: Vec<&str> = providers
            .iter()
            .map(|provider| self.text(self.universe.packages[provider.package as usize].name))
            .collect();
        names.sort_unstable();
        names.dedup();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        let mut names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let message = format!("{text:?} is a virtual name, and no provider of it is asked for");
        Error::new(ErrorKind::Conflict, message).hint(format!(
            "ask for one of its providers, such as {}; `--pick` takes one by apko's rules",
            names.join(", ")
        ))
    }

    fn impossible(&self, package: PackageId) -> Error {
        let (label, entry) = (self.label(package), &self.universe.packages[package as usize]);
        let Some(cause) = self.decisions.causes[package as usize] else {
            let tag = self.solver.tag(entry.id);
            let name = self.text(entry.name);
            return Error::new(
                ErrorKind::Conflict,
                format!("{label} is only in the repository tagged @{tag}"),
            )
            .hint(format!("ask for `{name}@{tag}`"));
        };
        let by = |by: Option<PackageId>| by.map_or("the request".to_owned(), |by| self.label(by));
        let (reason, hint) = match cause {
            Cause::Constraint(who, text) => (
                format!("it does not satisfy {text:?} of {}", by(who)),
                "loosen a version, or drop one of the packages that conflict",
            ),
            Cause::Dependency(text) => (
                format!("its dependency {text:?} cannot be fulfilled"),
                "ask for that dependency alone to see why",
            ),
            Cause::Lacks(name) => (
                format!("it does not provide {:?}, which is needed too", self.text(name)),
                "drop one of the packages that conflict",
            ),
            Cause::Taken(name, who) => (
                match who {
                    Some(who) => format!("{} stands for {:?} already", self.label(who), self.text(name)),
                    None => format!("nothing was chosen for {:?}, which it provides", self.text(name)),
                },
                "drop one of the packages that conflict",
            ),
        };
        Error::new(ErrorKind::Conflict, format!("{label} cannot be chosen: {reason}")).hint(hint)
    }

    fn both(&self, package: PackageId, other: Option<PackageId>, name: NameId) -> Error {
        match other {
            Some(other) => {
                let (a, b) =
                    (self.universe.packages[package as usize].id, self.universe.packages[other as usize].id);
                explain::both_stand_for(self.solver, b, a, self.text(name))
            }
            None => {
                let message = format!(
                    "{} provides {:?}, for which nothing was chosen",
                    self.label(package),
                    self.text(name)
                );
                Error::new(ErrorKind::Conflict, message).hint("drop one of the packages that conflict")
            }
        }
    }

    fn who_needs(&self, name: NameId) -> Option<PackageId> {
        let chosen = self.decisions.names.iter().filter_map(|state| state.chosen);
        let needs = |package: &PackageId| {
            let depends = &self.universe.packages[*package as usize].depends;
            depends.iter().any(|need| need.name == name && !need.conflict)
        };
        let asked_for = self.world.iter().any(|request| request.need.name == name);
        if asked_for { None } else { chosen.map(|chosen| chosen.package).find(needs) }
    }

    /// The shortest way from a request to a package, the request first.
    fn way_to(&self, package: PackageId) -> (String, Vec<PackageId>) {
        let mut from: Map<PackageId, Option<PackageId>> = Map::default();
        let mut request_of: Map<PackageId, String> = Map::default();
        let mut next = std::collections::VecDeque::new();
        for need in self.world.iter().map(|request| &request.need).filter(|need| !need.conflict) {
            if let Some(chosen) = self.decisions.names[need.name as usize].chosen
                && from.insert(chosen.package, None).is_none()
            {
                request_of.insert(chosen.package, need.text.to_owned());
                next.push_back(chosen.package);
            }
        }
        while let Some(at) = next.pop_front() {
            for need in &self.universe.packages[at as usize].depends {
                let Some(chosen) = self.decisions.names[need.name as usize].chosen else { continue };
                if !need.conflict && !from.contains_key(&chosen.package) {
                    from.insert(chosen.package, Some(at));
                    next.push_back(chosen.package);
                }
            }
        }
        let mut way = vec![package];
        while let Some(Some(above)) = way.last().and_then(|last| from.get(last)) {
            way.push(*above);
        }
        let request = way.last().and_then(|first| request_of.get(first)).cloned().unwrap_or_default();
        way.reverse();
        (request, way)
    }
}
