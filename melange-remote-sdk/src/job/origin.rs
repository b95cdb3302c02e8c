//! Where a definition comes from: what packages and their SBOMs tell of it.

use serde::{Deserialize, Serialize};

use super::spec::SpecMistake;
use crate::error::{Error, Result};
use crate::limits;

/// The origin of a definition; empty parts are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DefinitionOrigin {
    /// The commit of its repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Where the repository is, `https://host/owner/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repository: String,
    /// The licence of the definition itself, an SPDX expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
}

impl DefinitionOrigin {
    /// A commit of the repository at an address, which may be of any form that git takes.
    pub fn of_git(address: &str, commit: impl Into<String>) -> Self {
        let repository = repository_of(address).unwrap_or_default();
        Self { commit: commit.into(), repository, license: String::new() }
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The origin that somebody states, in any form that git takes of an address.
    ///
    /// # Errors
    /// Every mistake, with `git_commit`, `git_repo_url` or `license` as its field; never an empty list.
    pub fn stated(self) -> Result<Self, Vec<SpecMistake>> {
        let mut mistakes = Vec::new();
        for (field, text) in [("git_commit", &self.commit), ("license", &self.license)] {
            if let Err(error) = check_words(text) {
                mistakes.push(SpecMistake { field, error });
            }
        }
        let is_known = !self.repository.is_empty();
        let is_short = |text: &String| text.len() <= limits::GIT_URL_BYTES_MAX;
        let repository = Some(&self.repository).filter(|text| is_known && is_short(text));
        let repository = repository.and_then(|address| repository_of(address)).filter(is_short);
        if is_known && repository.is_none() {
            let error = Error::invalid("this is not the address of a git repository");
            let error = error.hint("give it as https://host/owner/name, or leave it away");
            mistakes.push(SpecMistake { field: "git_repo_url", error });
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self { repository: repository.unwrap_or_default(), ..self })
    }

    /// This origin, and where it tells nothing, the other one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let first = |one: String, other: String| if one.is_empty() { other } else { one };
        Self {
            commit: first(self.commit, other.commit),
            repository: first(self.repository, other.repository),
            license: first(self.license, other.license),
        }
    }
}

/// What stands on one line of a package.
fn check_words(text: &str) -> Result<()> {
    if text.len() > limits::ORIGIN_BYTES_MAX {
        let message = format!("{} bytes, more than {}", text.len(), limits::ORIGIN_BYTES_MAX);
        return Err(Error::invalid(message));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(Error::invalid(format!("{c:?} has no place in it"))),
        None => Ok(()),
    }
}

/// The address of a repository as people open it, `https://host/owner/name`: without user and password, without the
/// port of ssh, without `.git`. `None` for folders and for what is no address.
///
/// ```
/// use melange_remote_sdk::job::repository_of;
/// let of = |address| repository_of(address).unwrap();
/// assert_eq!(of("git@github.com:wolfi-dev/os.git"), "https://github.com/wolfi-dev/os");
/// assert_eq!(of("https://user:token@git.example:8443/a/b/"), "https://git.example:8443/a/b");
/// assert_eq!(of("ssh://git@git.example:2222/~a/b.git"), "https://git.example/~a/b");
/// assert_eq!(repository_of("/srv/git/os"), None);
/// ```
pub fn repository_of(address: &str) -> Option<String> {
    let address = address.trim();
    let (host, path) = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/')?;
            let host = authority.rsplit('@').next().unwrap_or_default();
            let host = match scheme {
                "http" | "https" => host,
                "ssh" | "git" | "git+ssh" | "ssh+git" | "git+https" => match host.rsplit_once(':') {
                    Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                    _ => host,
                },
                _ => return None,
            };
            (host, path)
        }
        None => {
            let (host, path) = address.split_once(':')?;
            (host.rsplit('@').next().unwrap_or_default(), path)
        }
    };
    let mut path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
    // What comes of an address is an address again, and the same one.
    while let Some(plain) = path.strip_suffix(".git") {
        path = plain.trim_end_matches('/');
    }
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let fine = !host.is_empty() && host.chars().all(is_host) && !path.is_empty();
    let plain = !path.contains(|c: char| c.is_control() || c.is_whitespace() || c == '@');
    (fine && plain).then(|| format!("https://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_people_open() {
        for (address, expected) in [
            ("https://github.com/a/b", Some("https://github.com/a/b")),
            ("http://u:p@git.example/a/b.git?x#y", Some("https://git.example/a/b")),
            ("https://token@git.example/a", Some("https://git.example/a")),
            ("git://git.example:9418/a/b.git/", Some("https://git.example/a/b")),
            ("git.example:a/b", Some("https://git.example/a/b")),
            ("ssh://git@[2001:db8::1]:22/a", Some("https://[2001:db8::1]/a")),
            ("file:///srv/a", None),
            ("../a", None),
            ("./a:b", None),
            ("ext::sh -c x", None),
            ("https://git.example", None),
            ("https://git.example/", None),
            ("https://u:p/w@git.example/a", None),
            ("https://a b/c", None),
            ("", None),
        ] {
            assert_eq!(repository_of(address).as_deref(), expected, "{address}");
        }
    }

    proptest::proptest! {
        /// What is stored is read by the same rules.
        #[test]
        fn what_was_stated_may_be_stated_again(
            address in "(https://|ssh://|git://)?(u@)?[a-z:.]{1,6}[:/][a-z/.:?]{0,8}(\\.git){0,3}/?",
        ) {
            if let Some(first) = repository_of(&address) {
                proptest::prop_assert_eq!(repository_of(&first), Some(first.clone()), "{}", address);
            }
        }
    }

    #[test]
    fn what_is_stated_is_checked() {
        let stated = |commit: &str, repository: &str, license: &str| {
            let (commit, repository) = (commit.to_owned(), repository.to_owned());
            DefinitionOrigin { commit, repository, license: license.to_owned() }.stated()
        };
        let origin = stated("c0ffee", "git@git.example:o/r.git", "MIT OR ISC").unwrap();
        assert_eq!(origin.repository, "https://git.example/o/r");
        assert_eq!(stated("", "", "").unwrap(), DefinitionOrigin::default());
        let fields = |found: Result<DefinitionOrigin, Vec<SpecMistake>>| -> Vec<&str> {
            found.unwrap_err().into_iter().map(|mistake| mistake.field).collect()
        };
        let long = "x".repeat(limits::ORIGIN_BYTES_MAX + 1);
        assert_eq!(fields(stated("a\nb", "/srv/os", &long)), ["git_commit", "license", "git_repo_url"]);
        let long = format!("https://git.example/{}", "x".repeat(limits::GIT_URL_BYTES_MAX));
        assert_eq!(fields(stated("", &long, "")), ["git_repo_url"]);
        assert!(stated("", "https://h/.git.git", "").is_err());
        // It is longer when it is written out.
        let long = format!("h:{}", "x".repeat(limits::GIT_URL_BYTES_MAX - 2));
        assert_eq!(fields(stated("", &long, "")), ["git_repo_url"]);
        let known = DefinitionOrigin::of_git("https://git.example/o/r", "");
        let both = known.or(stated("c0ffee", "https://git.example/x/y", "MIT").unwrap());
        assert_eq!((&*both.commit, &*both.repository), ("c0ffee", "https://git.example/o/r"));
    }
}
