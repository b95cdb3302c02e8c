//! Exit codes, the command's contract with scripts.

use std::process::ExitCode;

use melange_remote_sdk::error::{Blame, Error, ErrorKind};

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The build or the check failed.
    Failed = 1,
    /// The call or the input is wrong.
    Usage = 2,
    /// The job was cancelled.
    Cancelled = 3,
    /// The server refused the caller.
    Auth = 4,
    /// The named thing does not exist.
    NotFound = 5,
    /// The server, a backend or the machine is at fault.
    Infrastructure = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of an error.
pub(crate) fn code_of(error: &Error) -> Exit {
    if error.blamed() == Some(Blame::Policy) {
        return Exit::Auth;
    }
    match error.kind() {
        ErrorKind::InvalidRequest | ErrorKind::AlreadyExists | ErrorKind::LimitExceeded => Exit::Usage,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Cancelled => Exit::Cancelled,
        ErrorKind::PermissionDenied => Exit::Auth,
        ErrorKind::Untrusted | ErrorKind::Conflict => Exit::Failed,
        _ => Exit::Infrastructure,
    }
}
