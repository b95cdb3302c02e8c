//! What an attempt failed of: who is at fault. Pure.

use serde::{Deserialize, Serialize};

/// Who is at fault when a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The definition or one of its steps; the same input fails again.
    Build,
    /// The farm: a daemon, a disk, the network. Another attempt may succeed.
    Infrastructure,
    /// No backend could ever run it.
    Unschedulable,
    /// A rule of the operator does not allow it.
    Policy,
    /// A job that it waits for did not succeed.
    Dependency,
}

impl FailureClass {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Infrastructure => "infrastructure",
            Self::Unschedulable => "unschedulable",
            Self::Policy => "policy",
            Self::Dependency => "dependency",
        }
    }
}
