//! What a resolution can reach: names, who stands for them, who needs them. Found from the requests on, as most packages
//! of a repository are never looked at.

use super::super::{Id, Map, Solver, explain};
use crate::apk::checksum::Sha1Bytes;
use crate::apk::dependency::{Dependency, Operator};
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
    pub providers: Vec<Provider<'s>>,
    /// Names that a package stands for which needs this one.
    pub needed_by: Vec<NameId>,
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

/// A dependency with its name found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'s> {
    pub name: NameId,
    pub wanted: &'s Dependency<'s>,
    /// The tag that a request names.
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
    by_text: Map<&'s str, NameId>,
    by_id: Map<Id, PackageId>,
    /// The same file in several repositories is one package.
    by_checksum: Map<Sha1Bytes, PackageId>,
    tags: Vec<&'s str>,
    /// Names whose providers are found.
    opened: Vec<bool>,
}

impl<'s> Need<'s> {
    /// Whether a provider, or nothing at all, fulfils it; `by` is who needs it, which does not exclude itself.
    pub(super) fn is_met(&self, by: Option<PackageId>, provider: Option<Provider<'s>>) -> bool {
        let Some(provider) = provider else { return self.wanted.conflict };
        if self.wanted.conflict && by == Some(provider.package) {
            return true;
        }
        let wanted = self.wanted;
        let fits = match (wanted.operator, provider.version) {
            (Operator::Malformed, _) => false,
            (Operator::Any, _) => true,
            (operator, version) => {
                let version = version.unwrap_or_default();
                let order = match operator {
                    Operator::Fuzzy | Operator::LessFuzzy | Operator::GreaterFuzzy => {
                        version::compare_fuzzy(version, &wanted.version)
                    }
                    _ => version::compare(version, &wanted.version),
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
        fits != wanted.conflict
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
    ) -> Result<(Self, Vec<Need<'s>>)> {
        let mut universe = Self::default();
        universe.tags.push("");
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
            world.push(Need { name: universe.name(wanted.name), wanted, tag });
        }
        let mut walk = Walk { solver, named: Vec::new(), seen: Vec::new(), entered: Vec::new(), last: 0 };
        for need in &world {
            walk.requested(need.name);
        }
        for need in &world {
            walk.from(&mut universe, need.name);
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
        let mut candidates = solver.candidates(text).to_vec();
        // The tables have packages of the name first.
        candidates.sort_unstable();
        candidates.dedup();
        let mut providers: Vec<Provider<'s>> = Vec::with_capacity(candidates.len());
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
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        let (record, entry) = (solver.package(id), &solver.packages[id as usize]);
        let tag = 1 << self.tags.iter().position(|tag| *tag == entry.tag).unwrap_or_default();
        let same = record.control_sha1.and_then(|sum| self.by_checksum.get(&sum).copied());
        if let Some(known) = same {
            let package = &mut self.packages[known as usize];
            package.tags |= tag;
            package.repository = package.repository.min(entry.choice.repository);
            self.by_id.insert(id, known);
            return known;
        }
        let parsed = solver.parsed(id);
        let name = self.name(&record.name);
        let depends = self.needs(&parsed.depends);
        let provides = parsed
            .provides
            .iter()
            .map(|provide| {
                let version = &*provide.version;
                (self.name(provide.name), (!version.is_empty()).then_some(version))
            })
            .collect();
        let install_if = self.needs(&parsed.install_if);
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
        self.by_id.insert(id, place);
        if let Some(sum) = record.control_sha1 {
            self.by_checksum.insert(sum, place);
        }
        place
    }

    fn needs(&mut self, wanted: &'s [Dependency<'s>]) -> Vec<Need<'s>> {
        wanted.iter().map(|wanted| Need { name: self.name(wanted.name), wanted, tag: UNTAGGED }).collect()
    }

    /// Who needs what, among the names that were reached.
    fn find_who_needs(&mut self, seen: &[bool]) {
        let mut needed_by: Vec<Vec<NameId>> = vec![Vec::new(); self.names.len()];
        for (id, name) in (0..).zip(&self.names) {
            if !seen.get(id as usize).is_some_and(|seen| *seen) {
                continue;
            }
            for provider in &name.providers {
                for need in &self.packages[provider.package as usize].depends {
                    let list = &mut needed_by[need.name as usize];
                    if list.last() != Some(&id) {
                        list.push(id);
                    }
                }
            }
        }
        for (name, list) in self.names.iter_mut().zip(needed_by) {
            name.needed_by = list;
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
