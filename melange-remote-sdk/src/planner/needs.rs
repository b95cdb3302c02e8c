//! Which definition needs which, and by which entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::definition::Definition;
use super::providers::{Own, Provider, Providers};

/// What a definition's environment takes from other definitions, or from its own.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// By the definition that is needed: the entries, in their order.
    pub(super) by_definition: BTreeMap<usize, Vec<String>>,
    /// What comes along with those, is published nowhere, and must be built before: by the definition that makes it, those
    /// that bring it, with the entry that asks for it.
    pub(super) along: BTreeMap<usize, BTreeMap<usize, String>>,
    /// Entries that nobody stands for.
    pub(super) missing: Vec<String>,
}

/// A definition that another one needs in its environment, at whatever distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) definition: usize,
    /// Whether a published package can stand in.
    pub(super) is_published: bool,
}

/// The needs of all definitions.
#[derive(Debug)]
pub(super) struct Needs<'p> {
    definitions: &'p [Definition],
    providers: &'p Providers<'p>,
    direct: Vec<Direct>,
    /// What comes along when a package is installed: packages of definitions, with the entry that asks for each.
    along: HashMap<Own, Vec<(Own, String)>>,
}

/// Entries about the absence of something, and those that ask for a tag, are no needs of definitions.
fn counts(entry: &str) -> bool {
    !entry.starts_with('!')
}

impl<'p> Needs<'p> {
    pub(super) fn new(definitions: &'p [Definition], providers: &'p Providers<'p>) -> Self {
        let mut needs = Self { definitions, providers, direct: Vec::new(), along: HashMap::new() };
        for definition in definitions {
            let direct = needs.of_environment(definition);
            needs.direct.push(direct);
        }
        needs
    }

    pub(super) fn direct(&self, definition: usize) -> &Direct {
        &self.direct[definition]
    }

    fn of_environment(&mut self, definition: &Definition) -> Direct {
        let mut direct = Direct::default();
        let mut known = BTreeSet::new();
        let mut entries = definition.needs.clone();
        entries.retain(|entry| known.insert(entry.clone()));
        for (entry, provider) in entries.iter().zip(self.providers.of_all(&entries)) {
            if !counts(entry) {
                continue;
            }
            match provider {
                Provider::Own(own) => {
                    direct.add(own.definition, entry);
                    self.add_unpublished(own, &mut direct);
                }
                Provider::Published => {}
                Provider::None => direct.missing.push(entry.clone()),
            }
        }
        direct
    }

    /// What must be there when a package is installed, and is published nowhere, must be built before. What is published
    /// is no reason to wait: a package was built with what it needs.
    fn add_unpublished(&mut self, package: Own, direct: &mut Direct) {
        let bringer = package.definition;
        let mut known = BTreeSet::from([package]);
        let mut left = vec![package];
        while let Some(package) = left.pop() {
            for (other, entry) in self.along(package) {
                if known.insert(*other) {
                    // A package's own definition makes the rest of it too.
                    if other.definition != package.definition {
                        let brought = direct.along.entry(other.definition).or_default();
                        brought.entry(bringer).or_insert_with(|| entry.clone());
                    }
                    left.push(*other);
                }
            }
        }
    }

    /// The packages of definitions, published nowhere, that a package of a definition needs when it is installed.
    fn along(&mut self, package: Own) -> &[(Own, String)] {
        let Self { definitions, providers, along, .. } = self;
        along.entry(package).or_insert_with(|| {
            let entries = &definitions[package.definition].packages[package.package].needs;
            let own = |entry: &String| match providers.of(entry) {
                Provider::Own(own) if providers.stand_in(entry).is_none() => Some((own, entry.clone())),
                _ => None,
            };
            entries.iter().filter(|entry| counts(entry)).filter_map(own).collect()
        })
    }

    /// Every definition that a definition's environment takes packages from, by its entries or by what comes along.
    pub(super) fn all_of(&self, definition: usize) -> BTreeSet<Need> {
        let mut found = BTreeSet::new();
        let mut known: BTreeSet<Own> = BTreeSet::new();
        let mut left: Vec<&str> = self.definitions[definition].needs.iter().map(String::as_str).collect();
        while let Some(entry) = left.pop() {
            if !counts(entry) {
                continue;
            }
            let Provider::Own(own) = self.providers.of(entry) else { continue };
            let is_published = self.providers.stand_in(entry).is_some();
            found.insert(Need { definition: own.definition, is_published });
            if known.insert(own) {
                let package = &self.definitions[own.definition].packages[own.package];
                left.extend(package.needs.iter().map(String::as_str));
            }
        }
        found
    }

    /// The published packages that stand in for all entries of a need together; `None` when one has none.
    pub(super) fn stand_ins(&self, entries: &[String]) -> Option<Vec<String>> {
        self.providers.stand_ins(entries)
    }
}

impl Direct {
    fn add(&mut self, definition: usize, entry: &str) {
        let entries = self.by_definition.entry(definition).or_default();
        if !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
}
