//! Exit codes, the command's contract with scripts.

use std::error::Error as StdError;
use std::io::ErrorKind as IoErrorKind;
use std::process::ExitCode;

use melange_remote_sdk::client::Refusal;
use melange_remote_sdk::error::{Blame, Error, ErrorKind, causes};
use melange_remote_sdk::text::diagnostics::Diagnostics;

/// What the help says, a line a code.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  the build, a test or a check failed, or the definition has mistakes
  2  the call is wrong: an unknown flag, a bad value, a folder in place of a file
  3  cancelled, or stopped waiting (Ctrl-C)
  4  not allowed: by the server, by a rule of its owner, or by a file's permissions
  5  not found: a file, a package, a job, an artifact, a pipeline
  6  the infrastructure failed: the server, a backend, the network, this machine";

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The build or the check failed.
    Failed = 1,
    /// The call or the input is wrong.
    Usage = 2,
    /// The job was cancelled, or the caller stopped waiting for it.
    Cancelled = 3,
    /// The server refused the caller, or a file's permissions did.
    Auth = 4,
    /// The named thing does not exist.
    NotFound = 5,
    /// The server, a backend or the machine is at fault.
    Infrastructure = 6,
}

impl Exit {
    /// The code of work on several things: that of the first that did not end well.
    #[must_use]
    pub(crate) fn and(self, next: Self) -> Self {
        if self == Self::Ok { next } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Where the mistakes of an error's definition are told, when it has any.
pub(crate) fn mistakes(error: &Error) -> Option<&Diagnostics> {
    error.source()?.downcast_ref()
}

/// The exit code of an error.
pub(crate) fn code_of(error: &Error) -> Exit {
    let in_definition = mistakes(error).is_some() || refused_definition(error);
    match error.blamed() {
        Some(Blame::Policy) => return Exit::Auth,
        Some(Blame::Definition) => return Exit::Failed,
        _ if in_definition => return Exit::Failed,
        _ => {}
    }
    match error.kind() {
        ErrorKind::InvalidRequest | ErrorKind::AlreadyExists | ErrorKind::LimitExceeded => Exit::Usage,
        ErrorKind::NotFound | ErrorKind::Gone => Exit::NotFound,
        ErrorKind::Cancelled => Exit::Cancelled,
        ErrorKind::PermissionDenied => Exit::Auth,
        ErrorKind::Untrusted | ErrorKind::Conflict => Exit::Failed,
        _ => of_file(error),
    }
}

/// Whether the server refused a definition for mistakes in it.
fn refused_definition(error: &Error) -> bool {
    let refusal = error.source().and_then(|source| source.downcast_ref::<Refusal>());
    refusal.is_some_and(|refusal| refusal.body.details.iter().any(|detail| detail.line.is_some()))
}

/// What the machine says of a file that the caller named, told by the innermost cause.
fn of_file(error: &Error) -> Exit {
    let of_machine = causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    match of_machine.last().map(std::io::Error::kind) {
        Some(IoErrorKind::NotFound) => Exit::NotFound,
        Some(IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem) => Exit::Auth,
        Some(
            IoErrorKind::IsADirectory
            | IoErrorKind::NotADirectory
            | IoErrorKind::InvalidFilename
            | IoErrorKind::InvalidInput,
        ) => Exit::Usage,
        _ => Exit::Infrastructure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_have_the_codes_of_the_table() {
        let path = std::path::Path::new("x");
        for (kind, expected) in [
            (IoErrorKind::NotFound, Exit::NotFound),
            (IoErrorKind::PermissionDenied, Exit::Auth),
            (IoErrorKind::IsADirectory, Exit::Usage),
            (IoErrorKind::StorageFull, Exit::Infrastructure),
        ] {
            assert_eq!(code_of(&Error::io("read", path, kind.into())), expected, "{kind}");
        }
        assert_eq!(code_of(&Error::invalid("x").blame(Blame::Definition)), Exit::Failed);
        assert_eq!(code_of(&Error::unexpected("x").blame(Blame::Policy)), Exit::Auth);
        assert_eq!(Exit::Ok.and(Exit::NotFound).and(Exit::Failed), Exit::NotFound);
    }
}
