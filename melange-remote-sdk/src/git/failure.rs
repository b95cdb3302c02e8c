//! What git said when it failed, as an error that tells whose fault it is and what to do.

use crate::error::{Blame, Error, ErrorKind};
use crate::redact::redact;
use crate::text::one_line;

/// What git says where a server redirects it; it does not tell where to.
const REDIRECTED: &[&str] = &["error: 301", "error: 302", "error: 303", "error: 307", "error: 308"];

/// The words of git and of what it calls (`LC_ALL=C`), what they mean, and what to do. Git has one exit code for all of it.
/// Where its words change, an error is told as one of the network, with git's own words.
const PHRASES: [(&[&str], ErrorKind, Blame, &str, &str); 9] = [
    (
        &[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "error: 401",
            "error: 403",
        ],
        ErrorKind::PermissionDenied,
        Blame::Definition,
        "its server wants to know who asks",
        "name a credential that may read it, if it is there at all",
    ),
    // Before what git says behind it of any ssh that fails.
    (
        &["Host key verification failed", "REMOTE HOST IDENTIFICATION"],
        ErrorKind::Untrusted,
        Blame::Policy,
        "the key of its server is not one of those that are known",
        "the operator adds it to the file of known hosts",
    ),
    (
        &["Permission denied (", "Could not read from remote repository"],
        ErrorKind::PermissionDenied,
        Blame::Definition,
        "its server does not take this key, or has no such repository",
        "name a credential whose key may read it",
    ),
    (
        &[
            "error: 404",
            "error: 410",
            "' not found",
            "does not appear to be a git repository",
            "not exported",
        ],
        ErrorKind::NotFound,
        Blame::Definition,
        "there is no such repository",
        "is the address right, and may everybody read it?",
    ),
    (
        REDIRECTED,
        ErrorKind::PermissionDenied,
        Blame::Definition,
        "its address leads elsewhere",
        REDIRECT_HINT,
    ),
    (
        &[
            "not our ref",
            "couldn't find remote ref",
            "no such remote ref",
            "Server does not allow request for unadvertised",
        ],
        ErrorKind::NotFound,
        Blame::Definition,
        "it has no such commit",
        "is it pushed, and to this repository?",
    ),
    (
        &["certificate", "SSL", "TLS"],
        ErrorKind::Untrusted,
        Blame::Definition,
        "the certificate of its server does not hold",
        "the operator may add its authority",
    ),
    (
        &[
            "File too large",
            "signal 25",
            "signal 24",
            "out of memory",
            "Out of memory",
            "mmap failed",
            "malloc",
        ],
        ErrorKind::LimitExceeded,
        Blame::Definition,
        "it is larger than a source may be",
        "keep large files out of it, or let definitions fetch them",
    ),
    (
        &["No space left on device", "Disk quota exceeded"],
        ErrorKind::Unexpected,
        Blame::Farm,
        "the disk is full",
        "make room in the folder of state",
    ),
];

const REDIRECT_HINT: &str =
    "give the address that it leads to; redirections are followed to the same scheme, host and port alone";

/// The most of git's words that are told.
const SAID_BYTES_MAX: usize = 600;

/// What git said itself: other lines are the server's own, which does not decide what is told of it.
fn own_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("remote:")).collect();
    lines.join("\n")
}

/// Whether the server sent git elsewhere.
pub(super) fn is_redirected(said: &str) -> bool {
    let own = own_words(said);
    REDIRECTED.iter().any(|phrase| own.contains(phrase))
}

/// The server sent git where it is not followed to.
pub(super) fn leads_elsewhere(why: &str, to: &str) -> Error {
    let to = one_line(&redact(to), SAID_BYTES_MAX);
    let message = format!("the repository cannot be fetched: its address leads to {to}, {why}");
    Error::new(ErrorKind::PermissionDenied, message).blame(Blame::Definition).hint(REDIRECT_HINT)
}

/// The error for what git said on its standard error.
pub(super) fn told(said: &str) -> Error {
    let own = own_words(said);
    let last = own.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // What comes from the server ends in what is told, so it is one line of bounded length.
    let words = one_line(said, SAID_BYTES_MAX);
    let found = PHRASES.iter().find(|(phrases, ..)| phrases.iter().any(|phrase| own.contains(phrase)));
    let Some((_, kind, blame, message, hint)) = found else {
        let message = format!("the repository cannot be fetched: {}", one_line(last, SAID_BYTES_MAX));
        return Error::new(ErrorKind::Unavailable, message).blame(Blame::Farm).with("git", words);
    };
    Error::new(*kind, format!("the repository cannot be fetched: {message}"))
        .blame(*blame)
        .hint(*hint)
        .with("git", words)
}

/// What is fetched does not fit into a file of the size that one may have.
pub(super) fn too_large(bytes_max: u64) -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        format!("more than {bytes_max} bytes of the repository are asked for"),
    )
    .blame(Blame::Definition)
    .hint("ask for fewer files, keep large ones out of it, or let definitions fetch them")
}
