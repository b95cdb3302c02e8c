//! Who stands for a name: a package of a definition at hand, or a published one.

use std::cell::RefCell;
use std::collections::HashMap;

use super::definition::Definition;
use crate::apk::dependency::Dependency;
use crate::apk::index::IndexPackage;
use crate::limits;
use crate::solver::{Choice, Policy, Preference, RepositoryPackages, Solver};

/// A package of a definition: which definition, and which of its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Own {
    pub(super) definition: usize,
    pub(super) package: usize,
}

/// Who a solver would choose for an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Provider {
    /// What a definition makes.
    Own(Own),
    /// A published package.
    Published,
    /// Nobody.
    None,
}

/// The packages of all definitions as an index would list them, with those that are published.
#[derive(Debug)]
pub(super) struct Packages<'a> {
    records: Vec<IndexPackage>,
    owners: Vec<Own>,
    published: &'a [RepositoryPackages<'a>],
}

impl<'a> Packages<'a> {
    pub(super) fn new(definitions: &[Definition], published: &'a [RepositoryPackages<'a>]) -> Self {
        let (mut records, mut owners) = (Vec::new(), Vec::new());
        for (definition, made_by) in definitions.iter().enumerate() {
            for (package, record) in made_by.records().enumerate() {
                records.push(record);
                owners.push(Own { definition, package });
            }
        }
        Self { records, owners, published }
    }
}

/// Answers who stands for entries.
#[derive(Debug)]
pub(super) struct Providers<'p> {
    owners: &'p [Own],
    all: Solver<'p>,
    published: Solver<'p>,
    known: RefCell<HashMap<String, Provider>>,
    stand_ins: RefCell<HashMap<String, Option<String>>>,
    published_packages: &'p [RepositoryPackages<'p>],
}

impl<'p> Providers<'p> {
    pub(super) fn new(packages: &'p Packages<'p>) -> Self {
        let own = RepositoryPackages { tag: "", packages: &packages.records };
        let all: Vec<RepositoryPackages<'p>> =
            std::iter::once(own).chain(packages.published.iter().cloned()).collect();
        // A published package of a name that a definition makes is what that definition will replace.
        let preference = Preference { first: 1, by_name_only: "" };
        Self {
            owners: &packages.owners,
            all: Solver::with_preference(&all, preference, Policy::Apko),
            published: Solver::new(packages.published, Policy::Apko),
            known: RefCell::default(),
            stand_ins: RefCell::default(),
            published_packages: packages.published,
        }
    }

    /// Who a solver would choose for an entry when all definitions were built. One whose constraint no definition fulfils is
    /// served by what is published.
    pub(super) fn of(&self, entry: &str) -> Provider {
        if let Some(known) = self.known.borrow().get(entry) {
            return known.clone();
        }
        let found = self.told(entry, self.all.provider(&Dependency::parse(entry)));
        self.known.borrow_mut().insert(entry.to_owned(), found.clone());
        found
    }

    /// Who a solver would choose for the entries of an environment: an entry may be served by what another one asks for.
    pub(super) fn of_all(&self, entries: &[String]) -> Vec<Provider> {
        if entries.len() > limits::PLAN_NEEDS_TOGETHER_MAX {
            return entries.iter().map(|entry| self.of(entry)).collect();
        }
        let requests: Vec<Dependency<'_>> = entries.iter().map(|entry| Dependency::parse(entry)).collect();
        let chosen = self.all.providers(&requests);
        entries.iter().zip(chosen).map(|(entry, choice)| self.told(entry, choice)).collect()
    }

    fn told(&self, entry: &str, choice: Option<Choice>) -> Provider {
        match choice {
            Some(choice) if choice.repository == 0 => Provider::Own(self.owners[choice.package]),
            Some(_) => Provider::Published,
            None if self.stand_in(entry).is_some() => Provider::Published,
            None => Provider::None,
        }
    }

    /// The published packages that a solver would choose for entries together: name and version of each.
    pub(super) fn stand_ins(&self, entries: &[String]) -> Option<Vec<String>> {
        if let [entry] = entries {
            return self.stand_in(entry).map(|stand_in| vec![stand_in]);
        }
        let requests: Vec<Dependency<'_>> = entries.iter().map(|entry| Dependency::parse(entry)).collect();
        let chosen = self.published.providers(&requests);
        chosen.into_iter().map(|choice| self.label(choice?)).collect()
    }

    fn label(&self, choice: Choice) -> Option<String> {
        let package = self.published_packages.get(choice.repository)?.packages.get(choice.package)?;
        Some(format!("{}-{}", package.name, package.version))
    }

    /// The published package that a solver would choose for an entry: name and version.
    pub(super) fn stand_in(&self, entry: &str) -> Option<String> {
        if let Some(known) = self.stand_ins.borrow().get(entry) {
            return known.clone();
        }
        let found = self.published.provider(&Dependency::parse(entry)).and_then(|choice| self.label(choice));
        self.stand_ins.borrow_mut().insert(entry.to_owned(), found.clone());
        found
    }
}
