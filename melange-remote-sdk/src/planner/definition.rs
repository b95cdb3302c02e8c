//! What a planner has to know of definitions.

use serde::{Deserialize, Serialize};

use crate::apk::index::IndexPackage;
use crate::arch::Arch;
use crate::melange::plan::{Plan, PlanPackage};

/// A definition as compiled for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Definition {
    /// Its path, as people know it.
    pub file: String,
    /// The name of its main package.
    pub name: String,
    /// The version of all its packages, with the epoch: `1.2.3-r0`.
    pub version: String,
    /// The architecture.
    pub arch: Arch,
    /// The packages that it makes, the main one first.
    pub packages: Vec<Produced>,
    /// What its build environment asks for, the needs of its steps included, in order of appearance.
    pub needs: Vec<String>,
}

/// A package that a definition makes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Produced {
    /// Its name.
    pub name: String,
    /// What it declares to provide.
    pub provides: Vec<String>,
    /// What it declares to need when it is installed.
    pub needs: Vec<String>,
    /// Its preference among providers.
    pub provider_priority: u64,
}

impl Definition {
    /// What the plan of a definition says.
    pub fn new(file: impl Into<String>, plan: &Plan) -> Self {
        Self {
            file: file.into(),
            name: plan.package.name.clone(),
            version: plan.package.full_version(),
            arch: plan.arch,
            packages: plan.packages().map(Produced::from).collect(),
            needs: plan.environment.packages.clone(),
        }
    }

    /// Its packages as an index lists them, as far as a planner looks at them.
    pub fn records(&self) -> impl Iterator<Item = IndexPackage> {
        self.packages.iter().map(|made| IndexPackage {
            name: made.name.clone(),
            version: self.version.clone(),
            origin: self.name.clone(),
            provides: made.provides.join(" "),
            provider_priority: made.provider_priority,
            ..IndexPackage::default()
        })
    }
}

impl From<&PlanPackage> for Produced {
    fn from(package: &PlanPackage) -> Self {
        Self {
            name: package.name.clone(),
            provides: package.provides.clone(),
            needs: package.runtime.clone(),
            provider_priority: package.provider_priority.parse().unwrap_or(0),
        }
    }
}

/// A definition of which there is nothing to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The name of its main package.
    pub name: String,
    /// Its path.
    pub file: String,
    /// Why, in a sentence without a full stop.
    pub reason: String,
}
