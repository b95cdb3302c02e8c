//! Where a definition comes from: what packages and their SBOMs tell of it.

/// The origin of a definition; empty parts are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinitionOrigin {
    /// The commit of its repository.
    pub commit: String,
    /// Where the repository is, `https://host/owner/name`.
    pub repository: String,
    /// The licence of the definition itself, an SPDX expression.
    pub license: String,
}

impl DefinitionOrigin {
    /// A commit of the repository at an address, which may be of any form that git takes.
    pub fn of_git(address: &str, commit: impl Into<String>) -> Self {
        let repository = repository_of(address).unwrap_or_default();
        Self { commit: commit.into(), repository, license: String::new() }
    }
}

/// The address of a repository as people open it, `https://host/owner/name`: without user and password, without the
/// port of ssh, without `.git`. `None` for folders and for what is no address.
///
/// ```
/// use melange_remote_sdk::builder::repository_of;
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
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
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
}
