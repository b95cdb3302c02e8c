//! The solver: which packages make an environment, and in which order they are installed.
//!
//! Pure. An environment must hold the same packages as upstream's, so each [`Policy`] is one tool's way of choosing:
//! `apko` for builds, `apk_tools` for what an installed system would do. The tables over the repositories are common
//! to both, and `explain` tells why there is no choice.

mod apk_tools;
mod apko;
mod explain;

use std::cell::OnceCell;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::apk::dependency::{Dependency, Rules};
use crate::apk::index::IndexPackage;
use crate::error::Result;

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

/// A package by its place in the tables.
type Id = u32;

/// A map with a quick hash; its seed is drawn anew for each process, as names come from strangers.
type Map<K, V> = HashMap<K, V, RandomState>;

/// Most names stand for one package or two.
type Ids = SmallVec<[Id; 2]>;

/// The lines of a record that name other packages, read.
#[derive(Debug)]
struct Parsed<'a> {
    depends: Vec<Dependency<'a>>,
    install_if: Vec<Dependency<'a>>,
    provides: Vec<Dependency<'a>>,
}

/// A package with its place.
#[derive(Debug)]
struct Entry<'a> {
    choice: Choice,
    package: &'a IndexPackage,
    tag: &'a str,
    /// Most requests touch few packages, so a record's lines are read when they are first asked for.
    parsed: OnceCell<Box<Parsed<'a>>>,
}

/// The tables over all repositories, made once and used for many requests.
#[derive(Debug)]
pub struct Solver<'a> {
    packages: Vec<Entry<'a>>,
    /// What stands for a name: packages of that name before those that provide it.
    by_name: Map<&'a str, Ids>,
    /// By the condition: for apko as it is written, for apk-tools by its name.
    install_if: Map<&'a str, Ids>,
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
        let mut owners: Map<&str, usize> = Map::default();
        for (repository, entry) in repositories.iter().enumerate().take(preference.first) {
            entry.packages.iter().for_each(|package| _ = owners.entry(&package.name).or_insert(repository));
        }
        let is_hidden =
            |repository: usize, name: &str| owners.get(name).is_some_and(|owner| *owner < repository);
        let count = repositories.iter().map(|entry| entry.packages.len()).sum();
        let mut solver = Self {
            packages: Vec::with_capacity(count),
            by_name: Map::with_capacity_and_hasher(2 * count, RandomState::default()),
            install_if: Map::default(),
            policy,
        };
        for (repository, entry) in repositories.iter().enumerate() {
            for (index, package) in entry.packages.iter().enumerate() {
                if is_hidden(repository, &package.name) {
                    continue;
                }
                let Ok(id) = Id::try_from(solver.packages.len()) else { break };
                let choice = Choice { repository, package: index };
                solver.packages.push(Entry { choice, package, tag: entry.tag, parsed: OnceCell::new() });
                solver.by_name.entry(&package.name).or_default().push(id);
                for condition in package.install_if_words() {
                    let condition = match policy {
                        Policy::Apko => condition,
                        Policy::Apk => Dependency::name_of(condition, Rules::ApkTools),
                    };
                    solver.install_if.entry(condition).or_default().push(id);
                }
            }
        }
        for (id, entry) in (0..).zip(&solver.packages) {
            for word in entry.package.provides_words() {
                let name = Dependency::name_of(word, policy.rules());
                let hidden = !owners.is_empty() && is_hidden(entry.choice.repository, name);
                if !hidden && name != preference.by_name_only {
                    solver.by_name.entry(name).or_default().push(id);
                }
            }
        }
        solver
    }

    /// The package that would be chosen for one request alone, before anything else is; `None` when there is none.
    pub fn provider(&self, request: &Dependency<'_>) -> Option<Choice> {
        let chosen = apko::Run::new(self).best_for(request)?;
        Some(self.choice(chosen))
    }

    /// The packages that would be chosen for requests that are made together, before what these need is looked at; `None`
    /// for a request that nothing satisfies, which the others do not mind.
    pub fn providers(&self, requests: &[Dependency<'_>]) -> Vec<Option<Choice>> {
        let chosen = apko::providers(self, requests);
        chosen.into_iter().map(|id| id.map(|id| self.choice(id))).collect()
    }

    /// The packages for `world`, in installation order.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed request, `NotFound` when nothing provides a name, `Conflict` when choices exclude each other; the message names
    /// the request and the reasons.
    pub fn solve(&self, world: &[String]) -> Result<Vec<Choice>> {
        // Both tools keep what is asked for as a sorted set, and take it in that order.
        let mut world: Vec<&str> = world.iter().map(String::as_str).collect();
        world.sort_unstable();
        world.dedup();
        let rules = self.policy.rules();
        let requests = world
            .into_iter()
            .map(|text| Dependency::checked_as(text, rules))
            .collect::<Result<Vec<Dependency<'_>>>>()?;
        let order = match self.policy {
            Policy::Apko => apko::Run::new(self).world(&requests)?,
            Policy::Apk => apk_tools::solve(self, &requests)?,
        };
        Ok(order.into_iter().map(|id| self.choice(id)).collect())
    }

    fn choice(&self, id: Id) -> Choice {
        self.packages[id as usize].choice
    }

    fn package(&self, id: Id) -> &'a IndexPackage {
        self.packages[id as usize].package
    }

    fn tag(&self, id: Id) -> &'a str {
        self.packages[id as usize].tag
    }

    fn parsed(&self, id: Id) -> &Parsed<'a> {
        let entry = &self.packages[id as usize];
        let (package, rules) = (entry.package, self.policy.rules());
        entry.parsed.get_or_init(|| {
            let read = |word: &'a str| Dependency::parse_as(word, rules);
            Box::new(Parsed {
                depends: package.depends_words().map(read).collect(),
                install_if: package.install_if_words().map(read).collect(),
                provides: package.provides_words().map(read).collect(),
            })
        })
    }

    fn candidates(&self, name: &str) -> &[Id] {
        self.by_name.get(name).map_or(&[], SmallVec::as_slice)
    }

    fn install_if_of(&self, condition: &str) -> &[Id] {
        self.install_if.get(condition).map_or(&[], SmallVec::as_slice)
    }

    fn label(&self, id: Id) -> String {
        let package = self.package(id);
        format!("{}-{}", package.name, package.version)
    }
}

#[cfg(test)]
mod tests;
