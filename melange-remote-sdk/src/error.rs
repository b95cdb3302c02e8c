//! The one error type of the SDK: a kind to act on, words to read, the source kept.
//!
//! A build whose script fails is an *outcome* ([`crate::builder::BuildStatus`]), never an error.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
#[cfg(feature = "apk")]
use std::sync::Arc;

use crate::redact::redact;

/// The result of every fallible function of the SDK.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error; never match on its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input is wrong; the same input fails again.
    InvalidRequest,
    /// The named thing does not exist.
    NotFound,
    /// The named thing was there and was removed; it will not come back.
    Gone,
    /// The named thing exists already.
    AlreadyExists,
    /// Somebody else changed the thing first: read it again, do not retry blindly.
    Conflict,
    /// A service did not answer; the same call may succeed later.
    Unavailable,
    /// A bound of [`crate::limits`] was reached.
    LimitExceeded,
    /// The caller asked for the operation to stop.
    Cancelled,
    /// The implementation or the peer lacks the capability.
    Unsupported,
    /// The caller may not do this.
    PermissionDenied,
    /// A signature or checksum did not hold.
    Untrusted,
    /// Anything else: a defect or a broken environment.
    Unexpected,
}

impl ErrorKind {
    /// The stable name used in JSON, `snake_case`.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::LimitExceeded => "limit_exceeded",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::PermissionDenied => "permission_denied",
            Self::Untrusted => "untrusted",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// Who is at fault, said where it is known; never read off an [`ErrorKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The definition, one of its steps, or what it names; the same input fails again.
    Definition,
    /// The machine that runs the farm: its disk, its programs, its network.
    Farm,
    /// The backend: it cannot be reached, or broke off. Another one may do.
    Backend,
    /// A rule of the operator.
    Policy,
}

impl Blame {
    /// The stable name used in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Farm => "farm",
            Self::Backend => "backend",
            Self::Policy => "policy",
        }
    }
}

/// An error with its kind, message, hint, context and source.
///
/// ```
/// use melange_remote_sdk::error::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::NotFound, "no such job").with("job", "0197").hint("list jobs first");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "no such job (job: 0197)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    blame: Option<Blame>,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error of `kind`; `message` is one sentence without a full stop. Passwords of URLs in it are not kept.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let message = match redact(&message) {
            Cow::Borrowed(_) => message,
            Cow::Owned(redacted) => Cow::Owned(redacted),
        };
        let context = Vec::new();
        Self(Box::new(Inner { kind, blame: None, message, hint: None, context, source: None }))
    }

    /// Shorthand for [`ErrorKind::InvalidRequest`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// Shorthand for [`ErrorKind::Unexpected`].
    pub fn unexpected(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unexpected, message)
    }

    /// An input or output failure on `path`, a file of the farm's own.
    pub fn io(operation: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Unexpected,
        };
        Self::new(kind, format!("cannot {operation} {}", path.display())).blame(Blame::Farm).source(source)
    }

    /// Says who is at fault.
    #[must_use]
    pub fn blame(mut self, blame: Blame) -> Self {
        self.0.blame = Some(blame);
        self
    }

    /// Says who is at fault unless that was said already, nearer to the cause.
    #[must_use]
    pub fn blame_if_unknown(mut self, blame: Blame) -> Self {
        self.0.blame.get_or_insert(blame);
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a key and a value that say where it happened.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, redact(&value.to_string()).into_owned()));
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// An error that several waited for, as one of them tells it.
    #[cfg(feature = "apk")]
    pub(crate) fn shared(error: Arc<Self>) -> Self {
        let error = match Arc::try_unwrap(error) {
            Ok(error) => return error,
            Err(error) => error,
        };
        let told = &*error.0;
        let mut copy = Self::new(told.kind, told.message.clone());
        (copy.0.hint, copy.0.blame) = (told.hint.clone(), told.blame);
        copy.0.context.clone_from(&told.context);
        match &told.source {
            Some(source) => copy.source(source.to_string()),
            None => copy,
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who is at fault, when that is known.
    pub fn blamed(&self) -> Option<Blame> {
        self.0.blame
    }

    /// The message without context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, when known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Where it happened: keys and values.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The message, its context and every source, as [`chain`] tells them, for logs and terminals.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and every cause of it, joined by `: `. Causes that repeat what was said before, as those of many libraries
/// do, are left out.
///
/// ```
/// use melange_remote_sdk::error::{Error, chain};
/// let cause = std::io::Error::other("no account");
/// let error = Error::invalid("the store says: no account").source(cause);
/// assert_eq!(chain(&error), "the store says: no account");
/// ```
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = redact(&error.to_string()).into_owned();
    for cause in causes(error).skip(1) {
        let cause = redact(&cause.to_string()).into_owned();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// An error, its source, the source of that, and so on.
pub fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if !self.0.context.is_empty() {
            let pairs: Vec<String> = self.0.context.iter().map(|(k, v)| format!("{k}: {v}")).collect();
            write!(f, " ({})", pairs.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.code(), self.chain())?;
        if let Some(hint) = &self.0.hint {
            write!(f, " [{hint}]")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blame_is_kept_from_where_it_was_known_first() {
        let path = std::path::Path::new("/x");
        let error = Error::io("open", path, std::io::ErrorKind::NotFound.into());
        assert_eq!(error.blame_if_unknown(Blame::Definition).blamed(), Some(Blame::Farm));
        let error = Error::invalid("no such package").blame_if_unknown(Blame::Definition);
        assert_eq!(error.blamed(), Some(Blame::Definition));
    }

    #[test]
    fn passwords_of_urls_are_not_kept() {
        let inner = std::io::Error::other("at https://u:secret@h");
        let error = Error::invalid("no https://u:secret@h").with("url", "https://u:secret@h").source(inner);
        let told = format!("{error} {error:?} {}", error.chain());
        assert!(!told.contains("secret") && told.contains("https://u:xxxxx@h"), "{told}");
    }

    #[test]
    fn chain_tells_every_cause_and_display_only_the_first() {
        let inner = Error::unexpected("inner").source(std::io::Error::other("disk"));
        let outer = Error::new(ErrorKind::Unavailable, "outer").with("addr", "tcp://x").source(inner);
        assert_eq!(outer.to_string(), "outer (addr: tcp://x)");
        assert_eq!(outer.chain(), "outer (addr: tcp://x): inner: disk");
        assert!(outer.kind().is_retryable());
        let refused = || std::io::Error::other("tcp connect error: refused");
        let repeated =
            Error::unexpected("x").source(Error::unexpected(refused().to_string()).source(refused()));
        assert_eq!(repeated.chain(), "x: tcp connect error: refused");
        let within =
            Error::unexpected("no account").with("addr", "x").source(std::io::Error::other("no account"));
        assert_eq!(within.chain(), "no account (addr: x)");
    }
}
