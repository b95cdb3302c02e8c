//! The solver: which packages make an environment, and in which order they are installed.
//!
//! Pure. The algorithm is apko's greedy one (no backtracking; candidates are disqualified as choices are made),
//! because an environment must hold the same packages as upstream's. [`Policy::Apk`] adds what apk-tools
//! refuses where apko picks: names that only unversioned provides without priority stand for.

use std::cell::OnceCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::apk::dependency::{Dependency, Operator, Rules};
use crate::apk::index::IndexPackage;
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

impl Policy {
    fn rules(self) -> Rules {
        match self {
            Self::Apko => Rules::Apko,
            Self::Apk => Rules::ApkTools,
        }
    }
}

/// Names that not every package may stand for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preference<'p> {
    /// So many repositories come first, in order: what a package of one of them is called is not looked for in those behind
    /// it, neither by the name of a package nor by what one provides, whatever the versions.
    pub first: usize,
    /// A name that packages of this name alone stand for, none that provides it; empty for no such name.
    pub by_name_only: &'p str,
}

type Id = usize;

/// The lines of a record that name other packages, read.
#[derive(Debug)]
struct Parsed<'a> {
    depends: Vec<Dependency<'a>>,
    install_if: Vec<Dependency<'a>>,
    provides: Vec<Dependency<'a>>,
}

/// The tables over all repositories, made once and used for many requests.
#[derive(Debug)]
pub struct Solver<'a> {
    packages: Vec<(Choice, &'a IndexPackage, &'a str)>,
    /// Most requests touch few packages, so a record's lines are read when they are first asked for.
    parsed: Vec<OnceCell<Parsed<'a>>>,
    by_name: HashMap<&'a str, Vec<Id>>,
    install_if: HashMap<&'a str, Vec<Id>>,
    policy: Policy,
}

impl<'a> Solver<'a> {
    /// Tables over `repositories`, in order.
    pub fn new(repositories: &[RepositoryPackages<'a>], policy: Policy) -> Self {
        Self::with_preference(repositories, Preference::default(), policy)
    }

    /// As [`Self::new`], with names that not every package may stand for.
    pub fn with_preference(
        repositories: &[RepositoryPackages<'a>],
        preference: Preference<'_>,
        policy: Policy,
    ) -> Self {
        // The repository that has a name first.
        let mut owners: HashMap<&str, usize> = HashMap::new();
        for (repository, entry) in repositories.iter().enumerate().take(preference.first) {
            entry.packages.iter().for_each(|package| _ = owners.entry(&package.name).or_insert(repository));
        }
        let is_hidden =
            |repository: usize, name: &str| owners.get(name).is_some_and(|owner| *owner < repository);
        let mut packages = Vec::new();
        let mut by_name: HashMap<&'a str, Vec<Id>> = HashMap::new();
        let mut install_if: HashMap<&'a str, Vec<Id>> = HashMap::new();
        for (repository, entry) in repositories.iter().enumerate() {
            for (index, package) in entry.packages.iter().enumerate() {
                if is_hidden(repository, &package.name) {
                    continue;
                }
                let id = packages.len();
                packages.push((Choice { repository, package: index }, package, entry.tag));
                by_name.entry(&package.name).or_default().push(id);
                for condition in package.install_if() {
                    install_if.entry(condition.name).or_default().push(id);
                }
            }
        }
        for (id, (_, package, _)) in packages.iter().enumerate() {
            let mut own = HashSet::from([package.name.as_str()]);
            for provide in package.provides() {
                let hidden = is_hidden(packages[id].0.repository, provide.name);
                if !hidden && provide.name != preference.by_name_only && own.insert(provide.name) {
                    by_name.entry(provide.name).or_default().push(id);
                }
            }
        }
        let parsed = packages.iter().map(|_| OnceCell::new()).collect();
        Self { packages, parsed, by_name, install_if, policy }
    }

    /// The package that would be chosen for one request alone, before anything else is; `None` when there is none.
    pub fn provider(&self, request: &Dependency<'_>) -> Option<Choice> {
        let run = Run::new(self);
        let options = run.filter(request, request.pin, None);
        let best = run.best(&options, request.name, request.pin, &Existing::default())?;
        Some(self.packages[best].0)
    }

    /// The packages that would be chosen for requests that are made together, before what these need is looked at; `None`
    /// for a request that nothing satisfies, which the others do not mind.
    pub fn providers(&self, requests: &[Dependency<'_>]) -> Vec<Option<Choice>> {
        let mut run = Run::new(self);
        run.constrain(requests);
        let satisfied = |request: &&Dependency<'_>| {
            !request.conflict && !run.filter(request, request.pin, None).is_empty()
        };
        let together: Vec<&Dependency<'_>> = requests.iter().filter(satisfied).collect();
        // What excludes another request is found out when the environment is made.
        if run.direct(&together).is_err() {
            run = Run::new(self);
        }
        let chosen = |request: &Dependency<'_>| {
            let options = run.filter(request, request.pin, None);
            run.best(&options, request.name, request.pin, &Existing::default()).map(|id| self.packages[id].0)
        };
        requests.iter().map(|request| if request.conflict { None } else { chosen(request) }).collect()
    }

    /// The packages for `world`, in installation order.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed request, `NotFound` when nothing provides a name, `Conflict` when choices exclude each other; the message names
    /// the request and the reasons.
    pub fn solve(&self, world: &[String]) -> Result<Vec<Choice>> {
        let requests =
            world.iter().map(|text| Dependency::checked(text)).collect::<Result<Vec<Dependency<'_>>>>()?;
        let mut run = Run::new(self);
        let order = run.world(&requests)?;
        if self.policy == Policy::Apk {
            run.refuse_as_apk_does(&requests, &order)?;
        }
        Ok(order.into_iter().map(|id| self.packages[id].0).collect())
    }

    fn package(&self, id: Id) -> &'a IndexPackage {
        self.packages[id].1
    }

    fn parsed(&self, id: Id) -> &Parsed<'a> {
        let package = self.packages[id].1;
        self.parsed[id].get_or_init(|| Parsed {
            depends: package.depends().collect(),
            install_if: package.install_if().collect(),
            provides: package.provides().collect(),
        })
    }

    fn candidates(&self, name: &str) -> &[Id] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    fn label(&self, id: Id) -> String {
        let package = self.package(id);
        format!("{}-{}", package.name, package.version)
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
            self.origins.insert(&package.origin, &package.version);
        }
    }
}

struct Run<'s, 'a> {
    solver: &'s Solver<'a>,
    rules: Rules,
    /// Packages out of the question, with the reason.
    disqualified: HashMap<Id, String>,
    selected: HashMap<&'a str, Id>,
    /// Which request or dependency chose which package, for the stricter policy.
    chosen_by: Vec<(String, Id)>,
}

impl<'s, 'a> Run<'s, 'a> {
    fn new(solver: &'s Solver<'a>) -> Self {
        Self {
            solver,
            rules: solver.policy.rules(),
            disqualified: HashMap::new(),
            selected: HashMap::new(),
            chosen_by: Vec::new(),
        }
    }

    fn world(&mut self, requests: &[Dependency<'_>]) -> Result<Vec<Id>> {
        self.constrain(requests);
        let requests: Vec<&Dependency<'_>> = requests.iter().filter(|request| !request.conflict).collect();
        let direct = self.direct(&requests)?;
        let mut result: Vec<Id> = Vec::new();
        let mut names: HashSet<&str> = HashSet::new();
        let mut existing = Existing::default();
        direct.values().for_each(|id| existing.add(self.solver, *id));
        for request in &requests {
            let chosen = self.resolve(request)?;
            if self.solver.policy == Policy::Apko {
                self.pick(chosen)?;
            }
            let mut found = Vec::new();
            self.dependencies(chosen, request.pin, &mut BTreeSet::new(), &mut existing.clone(), &mut found)?;
            if self.solver.policy == Policy::Apko {
                self.install_if_among(&mut found);
            }
            for id in found.into_iter().chain([chosen]) {
                if names.insert(&self.solver.package(id).name) {
                    result.push(id);
                    existing.add(self.solver, id);
                }
            }
        }
        if self.solver.policy == Policy::Apk {
            self.install_if(&mut result, &mut names, &mut existing)?;
        }
        Ok(result)
    }

    /// Phase 1: the direct requests, the one with the fewest candidates first.
    fn direct(&mut self, requests: &[&Dependency<'_>]) -> Result<BTreeMap<&'a str, Id>> {
        let mut direct = BTreeMap::new();
        let mut left: Vec<&Dependency<'_>> = requests.to_vec();
        while !left.is_empty() {
            let mut best: Option<(usize, usize)> = None;
            for (position, request) in left.iter().enumerate() {
                let count = self.filter(request, request.pin, None).len();
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

    fn resolve(&mut self, request: &Dependency<'_>) -> Result<Id> {
        let options = self.filter(request, request.pin, None);
        let best = self.best(&options, request.name, request.pin, &Existing::default());
        let chosen = best.ok_or_else(|| self.nothing_provides(request))?;
        self.chosen_by.push((request.name.to_owned(), chosen));
        Ok(chosen)
    }

    fn nothing_provides(&self, request: &Dependency<'_>) -> Error {
        let candidates = self.solver.candidates(request.name);
        if candidates.is_empty() {
            let similar = crate::text::diagnostics::nearest(
                request.name,
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
    fn filter(&self, wanted: &Dependency<'_>, pin: &str, installed: Option<Id>) -> Vec<Id> {
        let fits = |id: &&Id| {
            let (_, package, tag) = self.solver.packages[**id];
            if self.disqualified.contains_key(*id) {
                return false;
            }
            if !tag.is_empty() && tag != pin && installed != Some(**id) {
                return false;
            }
            wanted.operator == Operator::Any
                || wanted.accepts(&package.version, self.rules)
                || self.solver.parsed(**id).provides.iter().any(|p| wanted.accepts(&p.version, self.rules))
        };
        self.solver.candidates(wanted.name).iter().filter(fits).copied().collect()
    }

    fn constrain(&mut self, dependencies: &[Dependency<'_>]) {
        for wanted in dependencies {
            if wanted.conflict {
                for id in self.filter(wanted, wanted.pin, None) {
                    self.disqualify(id, || format!("excluded by !{}", wanted.text));
                }
                continue;
            }
            if wanted.operator == Operator::Any {
                continue;
            }
            for index in 0..self.solver.candidates(wanted.name).len() {
                let id = self.solver.candidates(wanted.name)[index];
                let package = self.solver.package(id);
                let refused = if package.name == wanted.name {
                    !wanted.accepts(&package.version, self.rules)
                } else {
                    self.solver.parsed(id).provides.iter().any(|provide| {
                        provide.name == wanted.name
                            && !provide.version.is_empty()
                            && !wanted.accepts(&provide.version, self.rules)
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
                    solver
                        .parsed(other)
                        .provides
                        .iter()
                        .find(|theirs| theirs.name == provide.name)
                        .is_some_and(|theirs| !theirs.version.is_empty())
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
        for provide in &solver.parsed(id).provides {
            match self.selected.get(provide.name) {
                Some(&other) if other != id => return conflict(other, provide.name),
                _ if !provide.version.is_empty() => {
                    self.selected.insert(provide.name, id);
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
                .is_some_and(|id| self.solver.package(*id).version == package.version)
        };
        let same_origin = |package: &IndexPackage| {
            !package.origin.is_empty()
                && existing.origins.get(package.origin.as_str()) == Some(&package.version.as_str())
        };
        let pinned = |id: Id| self.solver.packages[id].2 == pin;
        let stands_for = |id: Id| -> &str {
            let package = self.solver.package(id);
            if package.name == name {
                return &package.version;
            }
            let provide = self.solver.parsed(id).provides.iter().find(|provide| provide.name == name);
            provide.map_or("", |provide| &provide.version)
        };
        let newer = |a: &str, b: &str| if a == b { Ordering::Equal } else { self.rules.compare(b, a) };
        let (va, vb) = (stands_for(a), stands_for(b));
        let by_provided_version =
            if va.is_empty() || vb.is_empty() { Ordering::Equal } else { newer(va, vb) };
        exists(pb)
            .cmp(&exists(pa))
            .then_with(|| same_origin(pb).cmp(&same_origin(pa)))
            .then_with(|| pinned(b).cmp(&pinned(a)))
            .then(by_provided_version)
            .then_with(|| if pa.name == pb.name { newer(&pa.version, &pb.version) } else { Ordering::Equal })
            .then_with(|| Reverse(pa.provider_priority).cmp(&Reverse(pb.provider_priority)))
            .then_with(|| newer(&pa.version, &pb.version))
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
        let depends = &solver.parsed(id).depends;
        self.constrain(depends);
        let mut remaining: Vec<&Dependency<'_>> = depends.iter().filter(|wanted| !wanted.conflict).collect();
        loop {
            let mut options: BTreeMap<&str, (&Dependency<'_>, Vec<Id>)> = BTreeMap::new();
            for wanted in &remaining {
                if self.is_satisfied(id, wanted)? {
                    continue;
                }
                let installed = existing.by_name.get(wanted.name).copied();
                let candidates = self.filter(wanted, pin, installed);
                if candidates.is_empty() {
                    return Err(self.nothing_provides(wanted).with("needed by", solver.label(id)));
                }
                options.insert(wanted.text, (wanted, candidates));
            }
            let Some((wanted, candidates)) =
                options.values().min_by_key(|(wanted, candidates)| (candidates.len(), wanted.text))
            else {
                break;
            };
            let Some(best) = self.best(candidates, wanted.name, "", existing) else { break };
            self.disqualify_conflicts(best);
            self.pick(best).map_err(|error| error.with("needed by", solver.label(id)))?;
            self.chosen_by.push((wanted.name.to_owned(), best));
            let mut below = Vec::new();
            self.dependencies(best, pin, parents, existing, &mut below)?;
            below.iter().for_each(|id| existing.add(solver, *id));
            found.extend(below);
            found.push(best);
            let done = wanted.text;
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
    fn is_satisfied(&self, id: Id, wanted: &Dependency<'_>) -> Result<bool> {
        let (package, provides) = (self.solver.package(id), &self.solver.parsed(id).provides);
        if provides.iter().any(|provide| provide.text == wanted.text || provide.name == wanted.name) {
            return Ok(true);
        }
        if package.name == wanted.name && wanted.accepts(&package.version, self.rules) {
            return Ok(true);
        }
        let Some(&selected) = self.selected.get(wanted.name) else { return Ok(false) };
        if wanted.operator == Operator::Any {
            return Ok(true);
        }
        let chosen = self.solver.package(selected);
        let by_provide = self
            .solver
            .parsed(selected)
            .provides
            .iter()
            .any(|provide| provide.name == wanted.name && wanted.accepts(&provide.version, self.rules));
        if by_provide || wanted.accepts(&chosen.version, self.rules) {
            return Ok(true);
        }
        let message = format!(
            "{} is selected already, which conflicts with {:?}",
            self.solver.label(selected),
            wanted.text
        );
        Err(Error::new(ErrorKind::Conflict, message)
            .with("needed by", self.solver.label(id))
            .hint("two packages ask for different versions of one name"))
    }

    /// apko looks at `install_if` for each request alone: what its dependencies fulfil, itself not among them, comes
    /// along without dependencies of its own. Conditions are compared with names and versions as text.
    fn install_if_among(&self, found: &mut Vec<Id>) {
        let solver = self.solver;
        let mut present: HashMap<&str, &str> = HashMap::new();
        for id in found.iter() {
            present.entry(&solver.package(*id).name).or_insert(&solver.package(*id).version);
        }
        let mut next = 0;
        while next < found.len() {
            let triggered = solver.install_if.get(solver.package(found[next]).name.as_str());
            next += 1;
            for &id in triggered.into_iter().flatten() {
                let candidate = solver.package(id);
                let holds = |wanted: &Dependency<'_>| {
                    let version = present.get(wanted.name);
                    version.is_some_and(|version| wanted.version.is_empty() || **version == *wanted.version)
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
            let own = std::iter::once(package.name.as_str())
                .chain(self.solver.parsed(result[next]).provides.iter().map(|p| p.name));
            let mut triggered: Vec<Id> =
                own.filter_map(|name| self.solver.install_if.get(name)).flatten().copied().collect();
            next += 1;
            triggered.sort_unstable();
            triggered.dedup();
            for id in triggered {
                let candidate = self.solver.package(id);
                let taken = names.contains(candidate.name.as_str()) || self.disqualified.contains_key(&id);
                let holds = |wanted: &Dependency<'_>| {
                    result.iter().any(|id| self.stands_for(*id, wanted)) != wanted.conflict
                };
                if taken || !self.solver.parsed(id).install_if.iter().all(holds) {
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

    /// Whether a package is what a constraint names, by itself or by what it provides.
    fn stands_for(&self, id: Id, wanted: &Dependency<'_>) -> bool {
        let package = self.solver.package(id);
        (package.name == wanted.name && wanted.accepts(&package.version, self.rules))
            || self
                .solver
                .parsed(id)
                .provides
                .iter()
                .any(|provide| provide.name == wanted.name && wanted.accepts(&provide.version, self.rules))
    }

    /// What apk-tools refuses in a finished choice.
    fn refuse_as_apk_does(&self, requests: &[Dependency<'_>], order: &[Id]) -> Result<()> {
        let solver = self.solver;
        // A package counts as asked for when something names it, or needs a versioned or prioritised provide.
        let wanted = |id: Id| {
            order
                .iter()
                .flat_map(|other| &solver.parsed(*other).depends)
                .filter(move |d| !d.conflict && !d.name.is_empty() && solver.candidates(d.name).contains(&id))
        };
        let strong = |id: Id, d: &Dependency<'_>| {
            let package = solver.package(id);
            package.name == d.name
                || solver.parsed(id).provides.iter().any(|provide| {
                    provide.name == d.name && (!provide.version.is_empty() || package.provider_priority > 0)
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
            for d in solver.parsed(id).depends.iter().filter(|d| d.conflict) {
                let hit = order
                    .iter()
                    .enumerate()
                    .find(|(other, candidate)| *other != position && self.stands_for(**candidate, d));
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
