//! How apko chooses: greedily and without a way back. Whatever cannot stand beside a choice is out of the question from
//! then on, and a request that nothing is left for ends the resolution.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::explain::Reason;
use super::{Id, Ids, Map, Solver, explain};
use crate::apk::dependency::{Dependency, Operator, Rules};
use crate::apk::index::IndexPackage;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// What would be chosen for requests that are made together; `None` for those that nothing satisfies.
pub(super) fn providers(solver: &Solver<'_>, requests: &[Dependency<'_>]) -> Vec<Option<Id>> {
    let mut run = Run::new(solver);
    // What excludes another request is found out when the environment is made.
    let together: Vec<&Dependency<'_>> = if run.constrain(requests).is_ok() {
        requests.iter().filter(|wanted| !wanted.conflict && !run.filter(wanted, None).is_empty()).collect()
    } else {
        Vec::new()
    };
    if together.is_empty() || run.direct(&together).is_err() {
        run = Run::new(solver);
    }
    requests.iter().map(|wanted| if wanted.conflict { None } else { run.best_for(wanted) }).collect()
}

/// What is chosen so far, for the comparison of candidates.
#[derive(Debug, Clone, Default)]
struct Existing<'a> {
    by_name: Map<&'a str, Id>,
    origins: Map<&'a str, &'a str>,
}

impl<'a> Existing<'a> {
    fn add(&mut self, solver: &Solver<'a>, id: Id) {
        let package = solver.package(id);
        self.by_name.insert(&package.name, id);
        if !package.origin.is_empty() {
            self.origins.insert(&package.origin, &package.version);
        }
    }

    fn add_new(&mut self, solver: &Solver<'a>, id: Id) {
        if !self.by_name.contains_key(solver.package(id).name.as_str()) {
            self.add(solver, id);
        }
    }

    fn has(&self, solver: &Solver<'a>, package: &IndexPackage) -> bool {
        let found = self.by_name.get(package.name.as_str());
        found.is_some_and(|id| solver.package(*id).version == package.version)
    }

    fn has_origin_of(&self, package: &IndexPackage) -> bool {
        !package.origin.is_empty()
            && self.origins.get(package.origin.as_str()) == Some(&package.version.as_str())
    }
}

/// One resolution.
pub(super) struct Run<'s, 'a> {
    solver: &'s Solver<'a>,
    /// Packages out of the question, with the reason.
    pub(super) disqualified: Map<Id, Reason<'s>>,
    /// The packages whose dependencies are looked at, by their names and what they provide with a version.
    selected: Map<&'s str, Id>,
    /// The packages whose dependencies are being looked at, outermost first.
    above: Vec<Id>,
    /// How often dependencies were looked at.
    visits: usize,
}

impl<'s, 'a> Run<'s, 'a> {
    pub(super) fn new(solver: &'s Solver<'a>) -> Self {
        Self { solver, disqualified: Map::default(), selected: Map::default(), above: Vec::new(), visits: 0 }
    }

    /// What one request would be answered with now.
    pub(super) fn best_for(&self, wanted: &Dependency<'_>) -> Option<Id> {
        self.best(&self.filter(wanted, None), wanted.name, wanted.pin, &Existing::default())
    }

    /// The packages for requests that are sorted and distinct, in the order of their installation.
    pub(super) fn world(&mut self, requests: &'s [Dependency<'s>]) -> Result<Vec<Id>> {
        if let Some(request) = requests.iter().find(|request| request.conflict) {
            return Err(explain::excluded_in_world(request));
        }
        self.constrain(requests)?;
        let requests: Vec<&'s Dependency<'s>> = requests.iter().collect();
        let mut existing = Existing::default();
        for id in self.direct(&requests)? {
            existing.add(self.solver, id);
        }
        let mut result: Vec<Id> = Vec::new();
        let mut names: Map<&str, Id> = Map::default();
        for request in requests {
            let chosen = self.resolve(request)?;
            let mut found = Vec::new();
            self.dependencies(chosen, request.pin, &mut existing.clone(), &mut found)
                .map_err(|error| error.with("asked for by", request.to_string()))?;
            let mut own: Map<&str, Id> = Map::default();
            found.retain(|id| own.insert(&self.solver.package(*id).name, *id).is_none());
            self.install_if(&mut found);
            for id in found.into_iter().chain([chosen]) {
                if names.insert(&self.solver.package(id).name, id).is_none() {
                    result.push(id);
                }
                existing.add_new(self.solver, id);
            }
        }
        Ok(result)
    }

    /// The answers to the requests alone, the one with the fewest candidates first, as each rules others out.
    fn direct(&mut self, requests: &[&Dependency<'_>]) -> Result<Vec<Id>> {
        let mut direct = Vec::new();
        let mut left: Vec<&Dependency<'_>> = requests.to_vec();
        while !left.is_empty() {
            let mut fewest: Option<(usize, usize)> = None;
            for (position, request) in left.iter().enumerate() {
                let count = self.filter(request, None).len();
                if count == 0 {
                    return Err(explain::nothing_provides(self.solver, &self.disqualified, request));
                }
                if fewest.is_none_or(|(fewest, _)| count < fewest) {
                    fewest = Some((count, position));
                }
            }
            let Some((_, position)) = fewest else { break };
            let request = left[position];
            let chosen = self.resolve(request)?;
            direct.push(chosen);
            left.retain(|other| other.text != request.text);
            self.disqualify_conflicts(chosen);
        }
        Ok(direct)
    }

    fn resolve(&self, request: &Dependency<'_>) -> Result<Id> {
        let chosen = self.best_for(request);
        chosen.ok_or_else(|| explain::nothing_provides(self.solver, &self.disqualified, request))
    }

    /// What of a name's packages satisfies a constraint now; a tagged one does where the tag is asked for, or where it
    /// is `installed` already.
    fn filter(&self, wanted: &Dependency<'_>, installed: Option<Id>) -> Ids {
        self.filter_tagged(wanted, wanted.pin, installed)
    }

    fn filter_tagged(&self, wanted: &Dependency<'_>, pin: &str, installed: Option<Id>) -> Ids {
        if wanted.operator == Operator::Malformed {
            return Ids::new();
        }
        let fits = |id: &&Id| {
            let (package, tag) = (self.solver.package(**id), self.solver.tag(**id));
            if self.disqualified.contains_key(*id)
                || (!tag.is_empty() && tag != pin && installed != Some(**id))
            {
                return false;
            }
            if wanted.operator == Operator::Any || wanted.accepts(&package.version, Rules::Apko) {
                return true;
            }
            // Any versioned name that a package provides may fulfil the constraint, as long as its own version is one.
            let provides = &self.solver.parsed(**id).provides;
            provides.iter().any(|provide| wanted.accepts(&provide.version, Rules::Apko))
                && Rules::Apko.is_version(&package.version)
        };
        self.solver.candidates(wanted.name).iter().filter(fits).copied().collect()
    }

    fn disqualify(&mut self, id: Id, reason: Reason<'s>) {
        self.disqualified.entry(id).or_insert(reason);
    }

    /// What does not satisfy a constraint is out, whichever name it is wanted by later.
    fn constrain<'d: 's>(&mut self, dependencies: &'d [Dependency<'d>]) -> Result<()> {
        let solver = self.solver;
        for wanted in dependencies {
            if wanted.conflict {
                for id in self.filter(wanted, None) {
                    self.disqualify(id, Reason::Excluded(wanted.text));
                }
                continue;
            }
            let candidates = solver.candidates(wanted.name);
            if candidates.is_empty() || matches!(wanted.operator, Operator::Any | Operator::Malformed) {
                continue;
            }
            if !Rules::Apko.is_version(&wanted.version) {
                return Err(explain::no_version(wanted));
            }
            for &id in candidates {
                let package = solver.package(id);
                let refused = if package.name == wanted.name {
                    !wanted.accepts(&package.version, Rules::Apko)
                } else {
                    let provides = solver.parsed(id).provides.iter();
                    let mut versioned = provides.filter(|p| p.name == wanted.name && !p.version.is_empty());
                    versioned.any(|provide| !wanted.accepts(&provide.version, Rules::Apko))
                };
                if refused {
                    self.disqualify(id, Reason::Unsatisfied(wanted.text));
                }
            }
        }
        Ok(())
    }

    /// Whatever cannot stand beside a package is out: all that a versioned name of its stands for, and for an unversioned
    /// one whoever has a version for it.
    fn disqualify_conflicts(&mut self, chosen: Id) {
        let solver = self.solver;
        for provide in &solver.parsed(chosen).provides {
            for &other in solver.candidates(provide.name) {
                if other == chosen || self.disqualified.contains_key(&other) {
                    continue;
                }
                let package = solver.package(other);
                let conflicts = if !provide.version.is_empty() {
                    true
                } else if package.name == provide.name {
                    !package.version.is_empty()
                } else {
                    let mut theirs = solver.parsed(other).provides.iter();
                    theirs.find(|theirs| theirs.name == provide.name).is_some_and(|p| !p.version.is_empty())
                };
                if conflicts {
                    self.disqualify(other, Reason::ProvidedBy(chosen, provide.name));
                }
            }
        }
    }

    /// From now on a package stands for its name and for what it provides with a version. Nothing may stand for one of
    /// these names already, not even the package itself under a name that it states twice.
    fn select(&mut self, id: Id) -> Result<()> {
        let solver = self.solver;
        let package = solver.package(id);
        match self.selected.insert(&package.name, id) {
            Some(other) if other == id => return Ok(()),
            Some(other) => return Err(explain::both_stand_for(solver, other, id, &package.name)),
            None => {}
        }
        for provide in &solver.parsed(id).provides {
            if let Some(&other) = self.selected.get(provide.name) {
                return Err(explain::both_stand_for(solver, other, id, provide.name));
            }
            if !provide.version.is_empty() {
                self.selected.insert(provide.name, id);
            }
        }
        Ok(())
    }

    fn best(&self, options: &[Id], name: &str, pin: &str, existing: &Existing<'a>) -> Option<Id> {
        let (first, others) = options.split_first()?;
        let better = |best: Id, other: &Id| {
            if self.compare(*other, best, name, pin, existing).is_lt() { *other } else { best }
        };
        Some(others.iter().fold(*first, better))
    }

    /// `Less` means that `a` is preferred: what is there already, then what belongs to it, the tag, the version of the
    /// name that is wanted, the version, the priority, the newest of different packages, the name.
    fn compare(&self, a: Id, b: Id, name: &str, pin: &str, existing: &Existing<'a>) -> Ordering {
        let solver = self.solver;
        let (pa, pb) = (solver.package(a), solver.package(b));
        let stands_for = |id: Id| -> &str {
            let package = solver.package(id);
            if package.name == name {
                return &package.version;
            }
            let provide = solver.parsed(id).provides.iter().find(|provide| provide.name == name);
            provide.map_or("", |provide| &provide.version)
        };
        let newer = |a: &str, b: &str| match (Rules::Apko.is_version(a), Rules::Apko.is_version(b)) {
            _ if a == b => Ordering::Equal,
            (false, _) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (true, true) => Rules::Apko.compare(b, a),
        };
        let pinned = |id: Id| solver.tag(id) == pin;
        existing
            .has(solver, pb)
            .cmp(&existing.has(solver, pa))
            .then_with(|| existing.has_origin_of(pb).cmp(&existing.has_origin_of(pa)))
            .then_with(|| pinned(b).cmp(&pinned(a)))
            .then_with(|| {
                let (a, b) = (stands_for(a), stands_for(b));
                if a.is_empty() || b.is_empty() { Ordering::Equal } else { newer(a, b) }
            })
            .then_with(|| if pa.name == pb.name { newer(&pa.version, &pb.version) } else { Ordering::Equal })
            .then_with(|| pb.provider_priority.cmp(&pa.provider_priority))
            .then_with(|| newer(&pa.version, &pb.version))
            .then_with(|| pa.name.cmp(&pb.name))
    }

    /// What a package needs and what that needs, children before parents.
    fn dependencies(
        &mut self,
        id: Id,
        pin: &str,
        existing: &mut Existing<'a>,
        found: &mut Vec<Id>,
    ) -> Result<()> {
        let solver = self.solver;
        let package = solver.package(id);
        if self.above.iter().any(|above| solver.package(*above).name == package.name) {
            return Ok(());
        }
        if self.above.len() >= limits::SOLVER_DEPTH_MAX {
            return Err(explain::too_deep(solver, id));
        }
        self.visits += 1;
        if self.visits > limits::SOLVER_VISITS_MAX {
            return Err(explain::too_often(solver, id));
        }
        let depends = &solver.parsed(id).depends;
        self.constrain(depends).map_err(|error| self.needed_by(id, error))?;
        let mut remaining: Vec<&Dependency<'_>> = depends.iter().filter(|wanted| !wanted.conflict).collect();
        loop {
            let mut options: BTreeMap<&str, (&Dependency<'_>, Ids)> = BTreeMap::new();
            for wanted in remaining {
                if self.is_satisfied(id, wanted).map_err(|error| self.needed_by(id, error))? {
                    continue;
                }
                let installed = existing.by_name.get(wanted.name).copied();
                let candidates = self.filter_tagged(wanted, pin, installed);
                if candidates.is_empty() {
                    let error = explain::nothing_provides(solver, &self.disqualified, wanted);
                    return Err(self.needed_by(id, error));
                }
                options.insert(wanted.text, (wanted, candidates));
            }
            let fewest = options.values().min_by_key(|(wanted, candidates)| (candidates.len(), wanted.text));
            let Some((wanted, candidates)) = fewest else { return Ok(()) };
            let Some(best) = self.best(candidates, wanted.name, "", existing) else { return Ok(()) };
            self.disqualify_conflicts(best);
            self.select(id).map_err(|error| self.needed_by(id, error))?;
            let before = found.len();
            self.above.push(id);
            self.dependencies(best, pin, existing, found)?;
            self.above.pop();
            found[before..].iter().for_each(|id| existing.add(solver, *id));
            found.push(best);
            let done = wanted.text;
            options.remove(done);
            remaining = options.into_values().map(|(wanted, _)| wanted).collect();
        }
    }

    /// Whether the package itself or something selected satisfies what it wants.
    fn is_satisfied(&self, id: Id, wanted: &Dependency<'_>) -> Result<bool> {
        let (package, provides) = (self.solver.package(id), &self.solver.parsed(id).provides);
        if provides.iter().any(|provide| provide.text == wanted.text || provide.name == wanted.name) {
            return Ok(true);
        }
        if package.name == wanted.name
            && Rules::Apko.is_version(&package.version)
            && wanted.accepts(&package.version, Rules::Apko)
        {
            return Ok(true);
        }
        let Some(&selected) = self.selected.get(wanted.name) else { return Ok(false) };
        if wanted.operator == Operator::Any {
            return Ok(true);
        }
        // A provided version counts by the operator that it is provided with, which is `=` for all that are known.
        let accepts = |provide: &Dependency<'_>| {
            let turned = Dependency { version: wanted.version.clone(), ..provide.clone() };
            provide.name == wanted.name
                && !provide.version.is_empty()
                && turned.accepts(&provide.version, Rules::Apko)
        };
        let chosen = self.solver.package(selected);
        if self.solver.parsed(selected).provides.iter().any(accepts)
            || wanted.accepts(&chosen.version, Rules::Apko)
        {
            return Ok(true);
        }
        let message = format!(
            "{} is selected already, which conflicts with {:?}",
            self.solver.label(selected),
            wanted.text
        );
        Err(Error::new(ErrorKind::Conflict, message)
            .hint("two packages ask for different versions of one name"))
    }

    /// The way from the request to the package that an error is about.
    fn needed_by(&self, id: Id, error: Error) -> Error {
        error.with("needed by", explain::chain(self.solver, self.above.iter().copied().chain([id])))
    }

    /// `install_if` is looked at for each request alone: what its dependencies fulfil, itself not among them, comes
    /// along without dependencies of its own. Conditions are compared with names and versions as text.
    fn install_if(&self, found: &mut Vec<Id>) {
        let solver = self.solver;
        let mut present: Map<&str, &str> = Map::default();
        for id in found.iter() {
            present.insert(&solver.package(*id).name, &solver.package(*id).version);
        }
        let mut next = 0;
        while let Some(&by) = found.get(next) {
            next += 1;
            let by = solver.package(by);
            let triggered = match solver.install_if_of(&by.name) {
                [] if !solver.install_if.is_empty() => {
                    solver.install_if_of(&format!("{}={}", by.name, by.version))
                }
                plain => plain,
            };
            for &id in triggered {
                let candidate = solver.package(id);
                let holds = |wanted: &Dependency<'_>| {
                    let version = present.get(wanted.name);
                    !wanted.conflict
                        && version.is_some_and(|v| wanted.version.is_empty() || **v == *wanted.version)
                };
                if !present.contains_key(candidate.name.as_str())
                    && solver.parsed(id).install_if.iter().all(holds)
                {
                    present.insert(&candidate.name, &candidate.version);
                    found.push(id);
                }
            }
        }
    }
}
