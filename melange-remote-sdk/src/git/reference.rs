//! Which commit is meant: names that cannot be anything but names.

use std::str::FromStr;

use crate::error::{Blame, Error, Result};
use crate::limits;

/// What somebody calls a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// The default branch.
    Head,
    /// All digits of a commit.
    Commit(String),
    /// A name that begins with `refs/`.
    Full(String),
    /// The name of a branch or a tag.
    Name(String),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match text {
            "" | "HEAD" => return Ok(Self::Head),
            _ if is_hex && matches!(text.len(), 40 | 64) => return Ok(Self::Commit(text.to_owned())),
            _ => {}
        }
        if !is_plain(text) {
            let shown: String = text.chars().take(100).collect();
            return Err(Error::invalid(format!("{shown:?} is no reference"))
                .blame(Blame::Definition)
                .hint("give a branch, a tag, all digits of a commit, pull/7/head, or refs/…"));
        }
        Ok(match text {
            _ if text.starts_with("refs/") => Self::Full(text.to_owned()),
            _ if is_pull(text) => Self::Full(format!("refs/{text}")),
            _ => Self::Name(text.to_owned()),
        })
    }
}

/// `pull/<number>/head` and `pull/<number>/merge`.
fn is_pull(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts[..], ["pull", number, "head" | "merge"] if is_number(number))
}

/// Git's rules for names of references, and of these only such as nobody takes for anything else: no option, no pattern, no
/// refspec, no expression.
fn is_plain(text: &str) -> bool {
    let legal = |c: char| c.is_alphanumeric() || "._/-+@#%=,".contains(c);
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && !part.ends_with(".lock")
    };
    text.len() <= limits::GIT_REFERENCE_BYTES_MAX
        && text != "@"
        && text.chars().all(legal)
        && !text.contains("..")
        && text.split('/').all(part)
}
