//! What a resolution can reach: names, who stands for them, who needs them. Found from the requests on, as most packages
//! of a repository are never looked at.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::super::{Id, Ids, Map, RandomState, Solver, explain};
use crate::apk::checksum::Sha1Bytes;
use crate::apk::dependency::{Dependency, Operator, Rules};
use crate::apk::version;
use crate::error::Result;

/// A name by its place.
pub(super) type NameId = u32;
/// A package by its place among those reached.
pub(super) type PackageId = u32;

/// Repositories without a tag.
pub(super) const UNTAGGED: u64 = 1;

/// A name that something is called, provides or needs.
#[derive(Debug, Default)]
pub(super) struct Name<'s> {
    pub text: &'s str,
    /// Who stands for it, in the order of the repositories.
    pub providers: SmallVec<[Provider<'s>; 1]>,
    /// Names that a package stands for which needs this one, as a part of [`Universe::who_needs`].
    needed_by: (u32, u32),
    /// Names that a package stands for which comes along with this one.
    pub brings: Vec<NameId>,
    /// Which name is decided first: the highest.
    pub rank: i64,
}

/// A package in its part as provider of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Provider<'s> {
    pub package: PackageId,
    /// The version that it has for the name. An unversioned name has none, which is older than any.
    pub version: Option<&'s str>,
}

/// A dependency with its name found. A resolution can reach tens of thousands, so they hold no more than is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'s> {
    pub name: NameId,
    pub operator: Operator,
    pub conflict: bool,
    pub version: &'s str,
    pub text: &'s str,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'s> {
    pub need: Need<'s>,
    /// The tag that it names.
    pub tag: u64,
}

/// A package that a resolution can reach.
#[derive(Debug)]
pub(super) struct Package<'s> {
    pub id: Id,
    pub name: NameId,
    pub version: &'s str,
    pub priority: u64,
    /// One bit for each tag of the repositories that have it.
    pub tags: u64,
    /// The first repository that has it.
    pub repository: usize,
    /// Packages without content are usable whatever the tag of their repository.
    pub is_empty: bool,
    pub depends: Vec<Need<'s>>,
    pub provides: Vec<(NameId, Option<&'s str>)>,
    pub install_if: Vec<Need<'s>>,
}

/// Everything that can be reached.
#[derive(Debug, Default)]
pub(super) struct Universe<'s> {
    pub names: Vec<Name<'s>>,
    pub packages: Vec<Package<'s>>,
    /// Who needs a name, for all names one after the other.
    who_needs: Vec<NameId>,
    by_text: Map<&'s str, NameId>,
    /// By the place in the tables of the solver.
    by_id: Vec<Option<PackageId>>,
    has_several_repositories: bool,
    /// The same file in several repositories is one package.
    by_checksum: Map<Sha1Bytes, PackageId>,
    tags: Vec<&'s str>,
    /// Names whose providers are found.
    opened: Vec<bool>,
}

impl<'s> Need<'s> {
    /// Whether a provider, or nothing at all, fulfils it; `by` is who needs it, which does not exclude itself.
    pub(super) fn is_met(&self, by: Option<PackageId>, provider: Option<Provider<'s>>) -> bool {
        let Some(provider) = provider else { return self.conflict };
        if self.conflict && by == Some(provider.package) {
            return true;
        }
        let fits = match (self.operator, provider.version) {
            (Operator::Malformed, _) => false,
            (Operator::Any, _) => true,
            (operator, version) => {
                let version = version.unwrap_or_default();
                let order = match operator {
                    Operator::Fuzzy | Operator::LessFuzzy | Operator::GreaterFuzzy => {
                        version::compare_fuzzy(version, self.version)
                    }
                    _ => version::compare(version, self.version),
                };
                match operator {
                    Operator::Equal | Operator::Fuzzy => order.is_eq(),
                    Operator::Less => order.is_lt(),
                    Operator::Greater => order.is_gt(),
                    Operator::LessEqual | Operator::LessFuzzy => order.is_le(),
                    _ => order.is_ge(),
                }
            }
        };
        fits != self.conflict
    }
}

/// Where the walk through the names of one name is; each step names the next one.
struct Frame {
    name: NameId,
    stage: Stage,
    outer: usize,
    inner: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Depends,
    Brings,
    Provided,
    Conditions,
}

impl<'s> Universe<'s> {
    /// All that requests can reach, and the requests with their names found.
    pub(super) fn reach(
        solver: &'s Solver<'_>,
        requests: &[&'s Dependency<'s>],
    ) -> Result<(Self, Vec<Request<'s>>)> {
        // Most names of a repository are reached once a few are.
        let count = solver.by_name.len();
        let mut universe = Self {
            names: Vec::with_capacity(count),
            opened: Vec::with_capacity(count),
            by_text: Map::with_capacity_and_hasher(count, RandomState::default()),
            packages: Vec::with_capacity(solver.packages.len()),
            ..Self::default()
        };
        universe.tags.push("");
        universe.by_id = vec![None; solver.packages.len()];
        universe.has_several_repositories =
            solver.packages.last().is_some_and(|last| last.choice.repository > 0);
        for entry in &solver.packages {
            if !universe.tags.contains(&entry.tag) {
                universe.tags.push(entry.tag);
            }
        }
        if universe.tags.len() > u64::BITS as usize {
            return Err(explain::too_many_tags(universe.tags.len()));
        }
        let mut world = Vec::new();
        for wanted in requests {
            let tag = universe.tags.iter().position(|tag| *tag == wanted.pin);
            let tag = 1 << tag.ok_or_else(|| explain::unknown_tag(wanted, &universe.tags))?;
            let need = universe.need(wanted, &wanted.version);
            world.push(Request { need, tag });
        }
        let mut walk = Walk { solver, named: Vec::new(), seen: Vec::new(), entered: Vec::new(), last: 0 };
        for request in &world {
            walk.requested(request.need.name);
        }
        for request in &world {
            walk.from(&mut universe, request.need.name);
        }
        universe.find_who_needs(&walk.seen);
        Ok((universe, world))
    }

    fn name(&mut self, text: &'s str) -> NameId {
        let next = NameId::try_from(self.names.len()).unwrap_or(NameId::MAX);
        let id = *self.by_text.entry(text).or_insert(next);
        if id == next {
            self.names.push(Name { text, ..Name::default() });
            self.opened.push(false);
        }
        id
    }

    /// Finds who stands for a name and who comes along with it.
    fn open(&mut self, solver: &'s Solver<'_>, name: NameId) {
        if std::mem::replace(&mut self.opened[name as usize], true) {
            return;
        }
        let text = self.names[name as usize].text;
        let mut candidates = Ids::from_slice(solver.candidates(text));
        // The tables have packages of the name first.
        candidates.sort_unstable();
        candidates.dedup();
        let mut providers: SmallVec<[Provider<'s>; 1]> = SmallVec::new();
        for id in candidates {
            let package = self.package(solver, id);
            if providers.iter().any(|known| known.package == package) {
                continue;
            }
            let own = &self.packages[package as usize];
            if own.name == name {
                providers.push(Provider { package, version: Some(own.version) });
            }
            let provided = own.provides.iter().filter(|(provided, _)| *provided == name);
            providers.extend(provided.map(|(_, version)| Provider { package, version: *version }));
        }
        self.names[name as usize].providers = providers;
        let mut brings = Vec::new();
        for &id in solver.install_if_of(text) {
            let package = self.package(solver, id);
            let package = &self.packages[package as usize];
            brings.extend([package.name].into_iter().chain(package.provides.iter().map(|(name, _)| *name)));
        }
        brings.sort_unstable();
        brings.dedup();
        self.names[name as usize].brings = brings;
    }

    fn package(&mut self, solver: &'s Solver<'_>, id: Id) -> PackageId {
        if let Some(known) = self.by_id[id as usize] {
            return known;
        }
        let (record, entry) = (solver.package(id), &solver.packages[id as usize]);
        let tag = 1 << self.tags.iter().position(|tag| *tag == entry.tag).unwrap_or_default();
        let sum = record.control_sha1.filter(|_| self.has_several_repositories);
        let same = sum.and_then(|sum| self.by_checksum.get(&sum).copied());
        if let Some(known) = same {
            let package = &mut self.packages[known as usize];
            package.tags |= tag;
            package.repository = package.repository.min(entry.choice.repository);
            self.by_id[id as usize] = Some(known);
            return known;
        }
        let name = self.name(&record.name);
        let depends = self.needs(record.depends_words());
        let mut provides = Vec::with_capacity(record.provides_words().count());
        for word in record.provides_words() {
            let provide = self.read(word);
            provides.push((provide.name, (!provide.version.is_empty()).then_some(provide.version)));
        }
        let install_if = self.needs(record.install_if_words());
        let place = PackageId::try_from(self.packages.len()).unwrap_or(PackageId::MAX);
        self.packages.push(Package {
            id,
            name,
            version: &record.version,
            priority: record.provider_priority,
            tags: tag,
            repository: entry.choice.repository,
            is_empty: record.installed_bytes == 0,
            depends,
            provides,
            install_if,
        });
        self.by_id[id as usize] = Some(place);
        if let Some(sum) = sum {
            self.by_checksum.insert(sum, place);
        }
        place
    }

    fn needs(&mut self, words: impl Iterator<Item = &'s str>) -> Vec<Need<'s>> {
        words.map(|word| self.read(word)).collect::<SmallVec<[Need<'s>; 16]>>().to_vec()
    }

    fn read(&mut self, word: &'s str) -> Need<'s> {
        let wanted = Dependency::parse_as(word, Rules::ApkTools);
        // These rules take versions as they are written.
        let version = if let Cow::Borrowed(version) = wanted.version { version } else { "" };
        self.need(&wanted, version)
    }

    fn need(&mut self, wanted: &Dependency<'s>, version: &'s str) -> Need<'s> {
        let Dependency { operator, conflict, text, .. } = *wanted;
        Need { name: self.name(wanted.name), operator, conflict, version, text }
    }

    /// Names that a package stands for which needs this one.
    pub(super) fn needed_by(&self, name: NameId) -> &[NameId] {
        let (from, to) = self.names[name as usize].needed_by;
        self.who_needs.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Who needs what, among the names that were reached: counted first, so that all lists are one.
    fn find_who_needs(&mut self, seen: &[bool]) {
        let mut last = vec![NameId::MAX; self.names.len()];
        let mut counts = vec![0u32; self.names.len()];
        self.each_need(seen, |by, needed| {
            if std::mem::replace(&mut last[needed as usize], by) != by {
                counts[needed as usize] += 1;
            }
        });
        let mut at = 0;
        for (name, count) in self.names.iter_mut().zip(&counts) {
            name.needed_by = (at, at);
            at += count;
        }
        let mut who_needs = vec![0; at as usize];
        let mut ends: Vec<u32> = self.names.iter().map(|name| name.needed_by.0).collect();
        last.fill(NameId::MAX);
        self.each_need(seen, |by, needed| {
            if std::mem::replace(&mut last[needed as usize], by) != by {
                let end = &mut ends[needed as usize];
                who_needs[*end as usize] = by;
                *end += 1;
            }
        });
        for (name, end) in self.names.iter_mut().zip(ends) {
            name.needed_by.1 = end;
        }
        self.who_needs = who_needs;
    }

    fn each_need(&self, seen: &[bool], mut tell: impl FnMut(NameId, NameId)) {
        for ((id, name), seen) in (0..).zip(&self.names).zip(seen) {
            for provider in name.providers.iter().filter(|_| *seen) {
                let depends = &self.packages[provider.package as usize].depends;
                depends.iter().for_each(|need| tell(id, need.name));
            }
        }
    }
}

/// The walk over all names that can be reached. It is a loop, as chains of names may be as long as a repository.
struct Walk<'s, 'a> {
    solver: &'s Solver<'a>,
    /// Names that a request states.
    named: Vec<bool>,
    seen: Vec<bool>,
    /// Packages whose dependencies are walked.
    entered: Vec<bool>,
    last: i64,
}

fn mark(list: &mut Vec<bool>, at: u32) -> bool {
    let at = at as usize;
    if list.len() <= at {
        list.resize(at + 1, false);
    }
    std::mem::replace(&mut list[at], true)
}

impl<'s> Walk<'s, '_> {
    fn requested(&mut self, name: NameId) {
        mark(&mut self.named, name);
    }

    fn from(&mut self, universe: &mut Universe<'s>, start: NameId) {
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(name) = next.take()
                && !mark(&mut self.seen, name)
            {
                universe.open(self.solver, name);
                stack.push(Frame { name, stage: Stage::Depends, outer: 0, inner: 0 });
            }
            let Some(frame) = stack.last_mut() else { return };
            next = self.step(universe, frame);
            if next.is_none() {
                stack.pop();
            }
        }
    }

    /// The next name behind the one of a frame; `None` when all were named.
    fn step(&mut self, universe: &mut Universe<'s>, frame: &mut Frame) -> Option<NameId> {
        loop {
            let name = &universe.names[frame.name as usize];
            let provider = name.providers.get(frame.outer).copied();
            let package = provider.map(|p| &universe.packages[p.package as usize]);
            let at = frame.inner;
            frame.inner += 1;
            let found = match (frame.stage, package) {
                (Stage::Depends, Some(package)) => {
                    // What is entered by another name is walked from there.
                    if at == 0 && mark(&mut self.entered, provider.map_or(0, |p| p.package)) {
                        None
                    } else {
                        package.depends.get(at).map(|need| need.name)
                    }
                }
                (Stage::Brings, _) => name.brings.get(at).copied(),
                (Stage::Provided, Some(package)) => {
                    let own = package.name;
                    universe.open(self.solver, own);
                    let brings = &universe.names[own as usize].brings;
                    let package = &universe.packages[provider?.package as usize];
                    let provided = at.checked_sub(brings.len()).map(|at| package.provides.get(at));
                    brings.get(at).copied().or_else(|| provided.flatten().map(|(name, _)| *name))
                }
                (Stage::Conditions, Some(package)) => package.install_if.get(at).map(|need| need.name),
                (_, None) => None,
            };
            if found.is_some() {
                return found;
            }
            frame.inner = 0;
            frame.outer += 1;
            let is_last = frame.stage == Stage::Brings || provider.is_none();
            if !is_last {
                continue;
            }
            frame.outer = 0;
            frame.stage = match frame.stage {
                Stage::Depends => Stage::Brings,
                Stage::Brings => Stage::Provided,
                Stage::Provided => {
                    self.rank(universe, frame.name);
                    Stage::Conditions
                }
                Stage::Conditions => return None,
            };
        }
    }

    /// Requested names come before the others, those of packages before those that are only provided, and of either kind
    /// those that need much before what they need.
    fn rank(&mut self, universe: &mut Universe<'s>, name: NameId) {
        self.last += 1;
        let is_requested = self.named.get(name as usize).is_some_and(|named| *named);
        let entry = &mut universe.names[name as usize];
        let is_package = entry.providers.iter().any(|p| universe.packages[p.package as usize].name == name);
        entry.rank = self.last + (i64::from(is_requested) << 33) + (i64::from(is_package) << 32);
    }
}
