//! What a failure is of: one word.

use serde::{Deserialize, Serialize};

/// What an attempt failed of. The words on the wire are those of [`FailureKind::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// Packages could not be chosen: nothing provides a name, or choices exclude each other.
    Solver,
    /// What was fetched has another checksum, or another commit, than was expected.
    Checksum,
    /// A patch does not apply.
    Patch,
    /// A compiler, linker or other tool refused its input.
    Compile,
    /// The configuration of a source tree was refused (autoconf, CMake, Meson).
    Configure,
    /// A test failed.
    Test,
    /// A command, file, header, library or module is not there.
    Missing,
    /// A host, connection, certificate or address: something could not be fetched.
    Network,
    /// A disk is full.
    Space,
    /// The memory ran out.
    Memory,
    /// A process ended by a signal.
    Signal,
    /// A step took too long, or was silent for too long.
    Timeout,
    /// The backend went away.
    LostBackend,
    /// A rule about packages was broken.
    Lint,
    /// A tool says that there was an error, and it is none of the kinds above.
    Error,
    /// Nothing known was said; the last line stands for it.
    Other,
    /// Nothing was said.
    Silent,
}

impl FailureKind {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Solver => "solver",
            Self::Checksum => "checksum",
            Self::Patch => "patch",
            Self::Compile => "compile",
            Self::Configure => "configure",
            Self::Test => "test",
            Self::Missing => "missing",
            Self::Network => "network",
            Self::Space => "space",
            Self::Memory => "memory",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::LostBackend => "lost_backend",
            Self::Lint => "lint",
            Self::Error => "error",
            Self::Other => "other",
            Self::Silent => "silent",
        }
    }
}
