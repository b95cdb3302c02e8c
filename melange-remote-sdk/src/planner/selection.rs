//! Which definitions a request is about.

use std::collections::{BTreeSet, HashMap, HashSet};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::definition::{Definition, Skip};
use super::needs::Needs;
use super::{Rebuild, WithDependencies};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::text::diagnostics::nearest;

/// Which definitions are asked for: names of packages, and patterns of paths. Without both, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of packages or subpackages.
    pub packages: Vec<String>,
    /// Patterns of paths; `*` does not cross a `/`, `**` does.
    pub globs: Vec<String>,
}

impl Selection {
    /// Which of some paths the patterns fit.
    ///
    /// # Errors
    /// `InvalidRequest` for a pattern that cannot be read; `LimitExceeded` for too many.
    pub fn fitting<'p>(&self, paths: impl IntoIterator<Item = &'p str>) -> Result<Vec<bool>> {
        let patterns = self.patterns()?;
        Ok(paths.into_iter().map(|path| patterns.is_match(path)).collect())
    }

    /// The patterns, read.
    ///
    /// # Errors
    /// `InvalidRequest` for one that cannot be read; `LimitExceeded` for too many.
    fn patterns(&self) -> Result<GlobSet> {
        if self.globs.len() > limits::PLAN_GLOBS_MAX {
            let message =
                format!("there are {} patterns, at most {}", self.globs.len(), limits::PLAN_GLOBS_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let wrong = |text: &str, error| {
            Error::invalid(format!("the pattern {text:?} cannot be read"))
                .source(error)
                .hint("such as `py3-*.yaml`")
        };
        let mut set = GlobSetBuilder::new();
        for text in &self.globs {
            set.add(
                GlobBuilder::new(text).literal_separator(true).build().map_err(|error| wrong(text, error))?,
            );
        }
        set.build().map_err(|error| wrong(&self.globs.join(" "), error))
    }

    /// The numbers of the definitions that are asked for, in order.
    ///
    /// # Errors
    /// `NotFound` for a name that no definition makes, and for patterns that no path fits; `InvalidRequest` for a pattern
    /// that cannot be read.
    pub(super) fn choose(
        &self,
        definitions: &[Definition],
        skipped: &mut Vec<Skip>,
    ) -> Result<BTreeSet<usize>> {
        if self.packages.is_empty() && self.globs.is_empty() {
            return Ok((0..definitions.len()).collect());
        }
        let mut makers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, definition) in definitions.iter().enumerate() {
            let names: HashSet<&str> =
                definition.packages.iter().map(|package| package.name.as_str()).collect();
            names.into_iter().for_each(|name| makers.entry(name).or_default().push(number));
        }
        let mut chosen = BTreeSet::new();
        for name in &self.packages {
            match makers.get(name.as_str()) {
                Some(numbers) => chosen.extend(numbers),
                // It is told among those that are skipped.
                None if skipped.iter().any(|skip| skip.name == *name) => {}
                None => {
                    let error =
                        Error::new(ErrorKind::NotFound, format!("no definition makes the package {name:?}"));
                    return Err(match nearest(name, makers.keys().copied()) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error.hint("name packages or subpackages of the definitions"),
                    });
                }
            }
        }
        let patterns = self.patterns()?;
        let by_path: Vec<usize> =
            (0..definitions.len()).filter(|number| patterns.is_match(&definitions[*number].file)).collect();
        // Of those that are skipped the others were not asked for.
        let fits = |skip: &Skip| patterns.is_match(&skip.file);
        if !self.globs.is_empty() && by_path.is_empty() && !skipped.iter().any(fits) {
            let message = format!("no definition has a path like {}", self.globs.join(" or "));
            let error = Error::new(ErrorKind::NotFound, message);
            return Err(error.hint("patterns are of whole paths, such as `**/py3-*.yaml`"));
        }
        skipped.retain(|skip| fits(skip) || self.packages.contains(&skip.name));
        chosen.extend(by_path);
        Ok(chosen)
    }
}

/// Adds the definitions that chosen ones need, directly and by way of others.
pub(super) fn with_dependencies(chosen: &mut BTreeSet<usize>, which: WithDependencies, needs: &Needs<'_>) {
    if which == WithDependencies::None {
        return;
    }
    let mut left: Vec<usize> = chosen.iter().copied().collect();
    while let Some(definition) = left.pop() {
        for need in needs.all_of(definition) {
            if (which == WithDependencies::All || !need.is_published) && chosen.insert(need.definition) {
                left.push(need.definition);
            }
        }
    }
}

/// Takes out those that need not be built, with the reason.
pub(super) fn published(
    chosen: &mut BTreeSet<usize>,
    rebuild: Rebuild,
    definitions: &[Definition],
    published: &HashSet<(&str, &str)>,
) -> Vec<(usize, String)> {
    let mut skipped = Vec::new();
    if rebuild == Rebuild::Missing {
        chosen.retain(|number| {
            let Definition { name, version, .. } = &definitions[*number];
            let is_there = published.contains(&(name.as_str(), version.as_str()));
            if is_there {
                skipped.push((*number, format!("{name}-{version} is published already")));
            }
            !is_there
        });
    }
    skipped
}
