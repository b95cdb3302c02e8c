//! The solver: which packages make an environment, and in which order they are installed.
//!
//! Pure. The algorithm is apko's greedy one (no backtracking; candidates are disqualified as choices are made),
//! because an environment must hold the same packages as upstream's. [`Policy::Apk`] adds what apk-tools
//! refuses where apko picks: names that only unversioned provides without priority stand for.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::apk::dependency::{Dependency, Operator};
use crate::apk::index::IndexPackage;
use crate::apk::version::Version;
use crate::error::{Error, ErrorKind, Result};

/// Whose rules decide where the two tools differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// apko's: pick a provider by priority, version and name. Builds use it.
    #[default]
    Apko,
    /// apk-tools': refuse a virtual name without priorities unless a provider comes in by another way.
    Apk,
}

/// A repository's packages with the tag that pins them; an empty tag is an ordinary repository.
#[derive(Debug, Clone)]
pub struct RepositoryPackages<'a> {
    /// The tag of `@tag url`.
    pub tag: &'a str,
    /// The packages in index order.
    pub packages: &'a [IndexPackage],
}

/// A package of a solution: which repository, and which of its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Position of the repository.
    pub repository: usize,
    /// Position of the package within it.
    pub package: usize,
}

type Id = usize;

/// The tables over all repositories, made once and used for many requests.
#[derive(Debug)]
pub struct Solver<'a> {
    packages: Vec<(Choice, &'a IndexPackage, &'a str)>,
    by_name: HashMap<&'a str, Vec<Id>>,
    install_if: HashMap<&'a str, Vec<Id>>,
    policy: Policy,
}

impl<'a> Solver<'a> {
    /// Tables over `repositories`, in order.
    pub fn new(repositories: &[RepositoryPackages<'a>], policy: Policy) -> Self {
        Self::with_first(repositories, None, policy)
    }

    /// As [`Self::new`]; what the repository at `first` has is not looked for in the others, whatever their versions.
    pub fn with_first(repositories: &[RepositoryPackages<'a>], first: Option<usize>, policy: Policy) -> Self {
        let own = first.and_then(|first| repositories.get(first)).map_or(&[][..], |entry| entry.packages);
        let hidden: HashSet<&str> = own.iter().map(|package| package.name.as_str()).collect();
        let mut packages = Vec::new();
        let mut by_name: HashMap<&'a str, Vec<Id>> = HashMap::new();
        let mut install_if: HashMap<&'a str, Vec<Id>> = HashMap::new();
        for (repository, entry) in repositories.iter().enumerate() {
            for (index, package) in entry.packages.iter().enumerate() {
                if Some(repository) != first && hidden.contains(package.name.as_str()) {
                    continue;
                }
                let id = packages.len();
                packages.push((Choice { repository, package: index }, package, entry.tag));
                by_name.entry(&package.name).or_default().push(id);
                for condition in &package.install_if {
                    install_if.entry(&condition.name).or_default().push(id);
                }
            }
        }
        for (id, (_, package, _)) in packages.iter().enumerate() {
            let mut own = HashSet::from([package.name.as_str()]);
            for provide in &package.provides {
                if own.insert(&provide.name) {
                    by_name.entry(&provide.name).or_default().push(id);
                }
            }
        }
        Self { packages, by_name, install_if, policy }
    }

    /// The packages for `world`, in installation order.
    ///
    /// # Errors
    /// `NotFound` when nothing provides a name, `Conflict` when choices exclude each other; the message names
    /// the request and the reasons.
    pub fn solve(&self, world: &[String]) -> Result<Vec<Choice>> {
        let mut run = Run {
            solver: self,
            disqualified: HashMap::new(),
            selected: HashMap::new(),
            chosen_by: Vec::new(),
        };
        let order = run.world(world)?;
        if self.policy == Policy::Apk {
            run.refuse_as_apk_does(world, &order)?;
        }
        Ok(order.into_iter().map(|id| self.packages[id].0).collect())
    }

    fn package(&self, id: Id) -> &'a IndexPackage {
        self.packages[id].1
    }

    fn candidates(&self, name: &str) -> &[Id] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    fn label(&self, id: Id) -> String {
        let package = self.package(id);
        format!("{}-{}", package.name, package.version_text)
    }
}

/// What is chosen so far, for the comparator.
#[derive(Debug, Clone, Default)]
struct Existing<'a> {
    by_name: HashMap<&'a str, Id>,
    origins: HashMap<&'a str, &'a str>,
}

impl<'a> Existing<'a> {
    fn add(&mut self, solver: &Solver<'a>, id: Id) {
        let package = solver.package(id);
        self.by_name.insert(&package.name, id);
        if !package.origin.is_empty() {
            self.origins.insert(&package.origin, &package.version_text);
        }
    }
}

struct Run<'s, 'a> {
    solver: &'s Solver<'a>,
    /// Packages out of the question, with the reason.
    disqualified: HashMap<Id, String>,
    selected: HashMap<&'a str, Id>,
    /// Which request or dependency chose which package, for the stricter policy.
    chosen_by: Vec<(String, Id)>,
}

impl<'s, 'a> Run<'s, 'a> {
    fn world(&mut self, world: &[String]) -> Result<Vec<Id>> {
        let requests: Vec<Dependency> = world.iter().map(|text| Dependency::parse(text)).collect();
        self.constrain(&requests);
        let requests: Vec<&Dependency> = requests.iter().filter(|request| !request.conflict).collect();
        let direct = self.direct(&requests)?;
        let mut result: Vec<Id> = Vec::new();
        let mut names: HashSet<&str> = HashSet::new();
        let mut existing = Existing::default();
        direct.values().for_each(|id| existing.add(self.solver, *id));
        for request in &requests {
            let chosen = self.resolve(request)?;
            let mut found = Vec::new();
            self.dependencies(chosen, &request.pin, &mut BTreeSet::new(), &mut existing.clone(), &mut found)?;
            for id in found.into_iter().chain([chosen]) {
                if names.insert(&self.solver.package(id).name) {
                    result.push(id);
                    existing.add(self.solver, id);
                }
            }
        }
        self.install_if(&mut result, &mut names, &mut existing)?;
        Ok(result)
    }

    /// Phase 1: the direct requests, the one with the fewest candidates first.
    fn direct(&mut self, requests: &[&Dependency]) -> Result<BTreeMap<&'a str, Id>> {
        let mut direct = BTreeMap::new();
        let mut left: Vec<&Dependency> = requests.to_vec();
        while !left.is_empty() {
            let mut best: Option<(usize, usize)> = None;
            for (position, request) in left.iter().enumerate() {
                let count = self.filter(request, &request.pin, None).len();
                if count == 0 {
                    return Err(self.nothing_provides(request));
                }
                if best.is_none_or(|(fewest, _)| count < fewest) {
                    best = Some((count, position));
                }
            }
            let Some((_, position)) = best else { break };
            let request = left[position];
            let chosen = self.resolve(request)?;
            direct.insert(self.solver.package(chosen).name.as_str(), chosen);
            left.retain(|other| other.text != request.text);
            self.disqualify_conflicts(chosen);
        }
        Ok(direct)
    }

    fn resolve(&mut self, request: &Dependency) -> Result<Id> {
        let options = self.filter(request, &request.pin, None);
        let best = self.best(&options, &request.name, &request.pin, &Existing::default());
        let chosen = best.ok_or_else(|| self.nothing_provides(request))?;
        self.chosen_by.push((request.name.clone(), chosen));
        Ok(chosen)
    }

    fn nothing_provides(&self, request: &Dependency) -> Error {
        let candidates = self.solver.candidates(&request.name);
        if candidates.is_empty() {
            let similar = crate::text::diagnostics::nearest(
                &request.name,
                self.solver.by_name.keys().copied().filter(|name| {
                    name.len().abs_diff(request.name.len()) <= 2
                        && name.as_bytes().first() == request.name.as_bytes().first()
                }),
            );
            let error = Error::new(ErrorKind::NotFound, format!("nothing provides {:?}", request.text));
            return match similar {
                Some(name) => error.hint(format!("did you mean `{name}`?")),
                None => error.hint("check the name, and that its repository is listed"),
            };
        }
        let mut reasons: Vec<String> = candidates
            .iter()
            .take(8)
            .map(|id| match self.disqualified.get(id) {
                Some(reason) => format!("{}: {reason}", self.solver.label(*id)),
                None => format!("{} does not satisfy it", self.solver.label(*id)),
            })
            .collect();
        reasons.sort();
        reasons.dedup();
        let message =
            format!("nothing that provides {:?} can be chosen: {}", request.text, reasons.join("; "));
        Error::new(ErrorKind::Conflict, message)
            .hint("loosen a version, or drop one of the packages that conflict")
    }

    fn disqualify(&mut self, id: Id, reason: impl FnOnce() -> String) {
        self.disqualified.entry(id).or_insert_with(reason);
    }

    /// What of a name's packages satisfies a constraint now.
    fn filter(&self, wanted: &Dependency, pin: &str, installed: Option<Id>) -> Vec<Id> {
        let fits = |id: &&Id| {
            let (_, package, tag) = self.solver.packages[**id];
            if self.disqualified.contains_key(*id) {
                return false;
            }
            if !tag.is_empty() && tag != pin && installed != Some(**id) {
                return false;
            }
            wanted.operator == Operator::Any
                || wanted.accepts(package.version.as_ref())
                || package.provides.iter().any(|p| p.version.is_some() && wanted.accepts(p.version.as_ref()))
        };
        self.solver.candidates(&wanted.name).iter().filter(fits).copied().collect()
    }

    fn constrain(&mut self, dependencies: &[Dependency]) {
        for wanted in dependencies {
            if wanted.conflict {
                for id in self.filter(wanted, &wanted.pin, None) {
                    self.disqualify(id, || format!("excluded by !{}", wanted.text));
                }
                continue;
            }
            if wanted.operator == Operator::Any {
                continue;
            }
            for index in 0..self.solver.candidates(&wanted.name).len() {
                let id = self.solver.candidates(&wanted.name)[index];
                let package = self.solver.package(id);
                let refused = if package.name == wanted.name {
                    !wanted.accepts(package.version.as_ref())
                } else {
                    package.provides.iter().any(|provide| {
                        provide.name == wanted.name
                            && !provide.version_text.is_empty()
                            && !wanted.accepts(provide.version.as_ref())
                    })
                };
                if refused {
                    self.disqualify(id, || format!("does not satisfy {}", wanted.text));
                }
            }
        }
    }

    /// After choosing `chosen`: whatever cannot stand beside it is out.
    fn disqualify_conflicts(&mut self, chosen: Id) {
        let solver = self.solver;
        let label = solver.label(chosen);
        for provide in &solver.package(chosen).provides {
            for &other in solver.candidates(&provide.name) {
                if other == chosen || self.disqualified.contains_key(&other) {
                    continue;
                }
                let package = solver.package(other);
                let conflicts = if !provide.version_text.is_empty() {
                    true
                } else if package.name == provide.name {
                    !package.version_text.is_empty()
                } else {
                    package
                        .provides
                        .iter()
                        .find(|theirs| theirs.name == provide.name)
                        .is_some_and(|theirs| !theirs.version_text.is_empty())
                };
                if conflicts {
                    self.disqualify(other, || format!("{label} provides {} already", provide.text));
                }
            }
        }
    }

    fn pick(&mut self, id: Id) -> Result<()> {
        let solver = self.solver;
        let package = solver.package(id);
        let conflict = |other: Id, name: &str| {
            let message = format!("{} and {} both stand for {name:?}", solver.label(other), solver.label(id));
            Err(Error::new(ErrorKind::Conflict, message).hint("only one of them can be installed"))
        };
        if let Some(&other) = self.selected.get(package.name.as_str())
            && other != id
        {
            return conflict(other, &package.name);
        }
        self.selected.insert(&package.name, id);
        for provide in &package.provides {
            match self.selected.get(provide.name.as_str()) {
                Some(&other) if other != id => return conflict(other, &provide.name),
                _ if !provide.version_text.is_empty() => {
                    self.selected.insert(&provide.name, id);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn best(&self, options: &[Id], name: &str, pin: &str, existing: &Existing<'a>) -> Option<Id> {
        options.iter().copied().min_by(|a, b| self.compare(*a, *b, name, pin, existing))
    }

    /// `Less` means that `a` is preferred.
    fn compare(&self, a: Id, b: Id, name: &str, pin: &str, existing: &Existing<'a>) -> Ordering {
        let (pa, pb) = (self.solver.package(a), self.solver.package(b));
        let exists = |package: &IndexPackage| {
            existing
                .by_name
                .get(package.name.as_str())
                .is_some_and(|id| self.solver.package(*id).version_text == package.version_text)
        };
        let same_origin = |package: &IndexPackage| {
            !package.origin.is_empty()
                && existing.origins.get(package.origin.as_str()) == Some(&package.version_text.as_str())
        };
        let pinned = |id: Id| self.solver.packages[id].2 == pin;
        let stands_for = |package: &'a IndexPackage| -> (&'a str, Option<&'a Version>) {
            if package.name == name {
                return (&package.version_text, package.version.as_ref());
            }
            let provide = package.provides.iter().find(|provide| provide.name == name);
            provide.map_or(("", None), |provide| (&provide.version_text, provide.version.as_ref()))
        };
        let (va, vb) = (stands_for(pa), stands_for(pb));
        let by_provided_version = if va.0.is_empty() || vb.0.is_empty() || va.0 == vb.0 {
            Ordering::Equal
        } else {
            vb.1.cmp(&va.1)
        };
        exists(pb)
            .cmp(&exists(pa))
            .then_with(|| same_origin(pb).cmp(&same_origin(pa)))
            .then_with(|| pinned(b).cmp(&pinned(a)))
            .then(by_provided_version)
            .then_with(|| if pa.name == pb.name { pb.version.cmp(&pa.version) } else { Ordering::Equal })
            .then_with(|| Reverse(pa.provider_priority).cmp(&Reverse(pb.provider_priority)))
            .then_with(|| pb.version.cmp(&pa.version))
            .then_with(|| pa.name.cmp(&pb.name))
            .then_with(|| a.cmp(&b))
    }

    fn dependencies(
        &mut self,
        id: Id,
        pin: &str,
        parents: &mut BTreeSet<&'a str>,
        existing: &mut Existing<'a>,
        found: &mut Vec<Id>,
    ) -> Result<()> {
        let solver = self.solver;
        let package = solver.package(id);
        if !parents.insert(&package.name) {
            return Ok(());
        }
        self.constrain(&package.depends);
        let mut remaining: Vec<&Dependency> =
            package.depends.iter().filter(|wanted| !wanted.conflict).collect();
        loop {
            let mut options: BTreeMap<&str, (&Dependency, Vec<Id>)> = BTreeMap::new();
            for wanted in &remaining {
                if self.is_satisfied(package, wanted)? {
                    continue;
                }
                let installed = existing.by_name.get(wanted.name.as_str()).copied();
                let candidates = self.filter(wanted, pin, installed);
                if candidates.is_empty() {
                    return Err(self.nothing_provides(wanted).with("needed by", solver.label(id)));
                }
                options.insert(&wanted.text, (wanted, candidates));
            }
            let Some((wanted, candidates)) =
                options.values().min_by_key(|(wanted, candidates)| (candidates.len(), &wanted.text))
            else {
                break;
            };
            let Some(best) = self.best(candidates, &wanted.name, "", existing) else { break };
            self.disqualify_conflicts(best);
            self.pick(best).map_err(|error| error.with("needed by", solver.label(id)))?;
            self.chosen_by.push((wanted.name.clone(), best));
            let mut below = Vec::new();
            self.dependencies(best, pin, parents, existing, &mut below)?;
            below.iter().for_each(|id| existing.add(solver, *id));
            found.extend(below);
            found.push(best);
            let done = wanted.text.clone();
            remaining = options
                .into_values()
                .map(|(wanted, _)| wanted)
                .filter(|wanted| wanted.text != done)
                .collect();
        }
        parents.remove(package.name.as_str());
        Ok(())
    }

    /// Whether the package itself or something selected satisfies what it wants.
    fn is_satisfied(&self, package: &IndexPackage, wanted: &Dependency) -> Result<bool> {
        if package.provides.iter().any(|provide| provide.text == wanted.text || provide.name == wanted.name) {
            return Ok(true);
        }
        if package.name == wanted.name && wanted.accepts(package.version.as_ref()) {
            return Ok(true);
        }
        let Some(&selected) = self.selected.get(wanted.name.as_str()) else { return Ok(false) };
        if wanted.operator == Operator::Any {
            return Ok(true);
        }
        let chosen = self.solver.package(selected);
        let by_provide = chosen.provides.iter().any(|provide| {
            provide.name == wanted.name
                && provide.version.is_some()
                && wanted.accepts(provide.version.as_ref())
        });
        if by_provide || wanted.accepts(chosen.version.as_ref()) {
            return Ok(true);
        }
        let message = format!(
            "{} is selected already, which conflicts with {:?}",
            self.solver.label(selected),
            wanted.text
        );
        Err(Error::new(ErrorKind::Conflict, message)
            .with("needed by", format!("{}-{}", package.name, package.version_text))
            .hint("two packages ask for different versions of one name"))
    }

    /// Packages whose `install_if` holds over the result join it, until none does any more.
    fn install_if(
        &mut self,
        result: &mut Vec<Id>,
        names: &mut HashSet<&'a str>,
        existing: &mut Existing<'a>,
    ) -> Result<()> {
        let mut next = 0;
        while next < result.len() {
            let package = self.solver.package(result[next]);
            next += 1;
            let own = std::iter::once(package.name.as_str())
                .chain(package.provides.iter().map(|p| p.name.as_str()));
            let mut triggered: Vec<Id> =
                own.filter_map(|name| self.solver.install_if.get(name)).flatten().copied().collect();
            triggered.sort_unstable();
            triggered.dedup();
            for id in triggered {
                let candidate = self.solver.package(id);
                let taken = names.contains(candidate.name.as_str()) || self.disqualified.contains_key(&id);
                let holds = |wanted: &Dependency| {
                    result.iter().any(|id| {
                        let present = self.solver.package(*id);
                        (present.name == wanted.name && wanted.accepts(present.version.as_ref()))
                            || present
                                .provides
                                .iter()
                                .any(|p| p.name == wanted.name && wanted.accepts(p.version.as_ref()))
                    }) != wanted.conflict
                };
                if taken || !candidate.install_if.iter().all(holds) {
                    continue;
                }
                let mut found = Vec::new();
                self.dependencies(id, "", &mut BTreeSet::new(), existing, &mut found)?;
                for id in found.into_iter().chain([id]) {
                    if names.insert(&self.solver.package(id).name) {
                        result.push(id);
                        existing.add(self.solver, id);
                    }
                }
            }
        }
        Ok(())
    }

    /// What apk-tools refuses in a finished choice.
    fn refuse_as_apk_does(&self, world: &[String], order: &[Id]) -> Result<()> {
        let solver = self.solver;
        // A package counts as asked for when something names it, or needs a versioned or prioritised provide.
        let wanted = |id: Id| {
            order.iter().flat_map(|other| &solver.package(*other).depends).filter(move |d| {
                !d.conflict && !d.name.is_empty() && solver.candidates(&d.name).contains(&id)
            })
        };
        let requests: Vec<Dependency> = world.iter().map(|text| Dependency::parse(text)).collect();
        let strong = |id: Id, d: &Dependency| {
            let package = solver.package(id);
            package.name == d.name
                || package.provides.iter().any(|provide| {
                    provide.name == d.name
                        && (!provide.version_text.is_empty() || package.provider_priority > 0)
                })
        };
        for &id in order {
            let asked = wanted(id).chain(requests.iter().filter(|d| !d.conflict)).any(|d| strong(id, d));
            let by_condition = !solver.package(id).install_if.is_empty();
            if !asked && !by_condition {
                let name = self
                    .chosen_by
                    .iter()
                    .find(|(_, chosen)| *chosen == id)
                    .map_or("", |(name, _)| name.as_str());
                let message = format!("{name:?} is a virtual name, and no provider of it is asked for");
                return Err(Error::new(ErrorKind::Conflict, message)
                    .hint(format!("ask for one of its providers, such as `{}`", solver.package(id).name)));
            }
        }
        for (position, &id) in order.iter().enumerate() {
            for d in solver.package(id).depends.iter().filter(|d| d.conflict) {
                let hit = order.iter().enumerate().find(|(other, candidate)| {
                    let package = solver.package(**candidate);
                    *other != position
                        && ((package.name == d.name && d.accepts(package.version.as_ref()))
                            || package
                                .provides
                                .iter()
                                .any(|p| p.name == d.name && d.accepts(p.version.as_ref())))
                });
                if let Some((_, other)) = hit {
                    let message = format!("{} excludes {}", solver.label(id), solver.label(*other));
                    return Err(
                        Error::new(ErrorKind::Conflict, message).hint("only one of them can be installed")
                    );
                }
            }
        }
        Ok(())
    }
}
