//! Where a repository lies, and where that leads: checked before anything connects, and pinned to what was checked.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::GitPolicy;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;
use crate::redact::redact;
use crate::rootfs::addresses::RefusedAddress;

/// The address of a repository, of a kind that the policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GitAddress {
    Remote(Url),
    File(PathBuf),
}

/// An address with the addresses that its host leads to.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) address: GitAddress,
    /// Empty for what needs no name service.
    pub(super) pinned: Vec<IpAddr>,
}

impl GitAddress {
    /// Reads an address.
    pub(super) fn parse(text: &str, policy: &GitPolicy) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!("{:?} is no address of a repository: {why}", redact(text)))
                .blame(Blame::Definition)
                .hint("write it as https://host/path or ssh://git@host/path")
        };
        if text.len() > limits::GIT_URL_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("it is empty or holds spaces"));
        }
        // `ext::…` and its kind are programs that git would start.
        if text.starts_with('-') || text.contains("::") && !text.contains("://[") {
            return Err(refused("helpers of git are not allowed", "write it as https://host/path"));
        }
        if text.starts_with('/') {
            return Self::file(Path::new(text), policy);
        }
        let url = match scp_form(text) {
            Some(url) => url.parse::<Url>(),
            None => text.parse::<Url>(),
        };
        let url = url.map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("it is no path of this machine"))?;
                return Self::file(&path, policy);
            }
            "https" | "ssh" => {}
            "http" if policy.allow_http => {}
            "http" => {
                return Err(refused(
                    "http is not allowed, where anybody on the way may change what comes",
                    "use https",
                ));
            }
            other => return Err(refused(&format!("{other} is not allowed"), "use https or ssh")),
        }
        if url.password().is_some() || url.scheme() != "ssh" && !url.username().is_empty() {
            return Err(wrong("it holds a user or a password")
                .hint("name a credential that the operator has configured"));
        }
        let is_plain =
            |user: &str| user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_plain(url.username()) || url.username().starts_with('-') {
            return Err(wrong("its user has an unusual name"));
        }
        if url.host_str().is_none_or(|host| host.is_empty() || host.starts_with('-')) {
            return Err(wrong("it has no host"));
        }
        if url.path().trim_matches('/').is_empty() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has no path, or something behind its path"));
        }
        Ok(Self::Remote(url))
    }

    fn file(path: &Path, policy: &GitPolicy) -> Result<Self> {
        let allowed = policy
            .files
            .check(path)
            .map_err(|_| refused("paths of this machine are not allowed", "use https or ssh"))?;
        Ok(Self::File(allowed))
    }

    /// The address of what is not on this machine.
    pub(super) fn url(&self) -> Option<&Url> {
        match self {
            Self::Remote(url) => Some(url),
            Self::File(_) => None,
        }
    }

    /// The host's name or address, without brackets; nothing for files.
    pub(super) fn host(&self) -> Option<String> {
        match self {
            Self::Remote(url) => match url.host()? {
                Host::Domain(name) => Some(name.to_owned()),
                Host::Ipv4(address) => Some(address.to_string()),
                Host::Ipv6(address) => Some(address.to_string()),
            },
            Self::File(_) => None,
        }
    }

    pub(super) fn is_ssh(&self) -> bool {
        matches!(self, Self::Remote(url) if url.scheme() == "ssh")
    }

    /// The scheme, as git's list of allowed protocols has it.
    pub(super) fn protocol(&self) -> &str {
        match self {
            Self::Remote(url) => url.scheme(),
            Self::File(_) => "file",
        }
    }

    /// The port, of the address or of the scheme.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Remote(url) => url.port_or_known_default().unwrap_or(22),
            Self::File(_) => 0,
        }
    }

    /// Asks where the host leads, and keeps what the policy allows.
    pub(super) async fn resolve(&self, policy: &GitPolicy) -> Result<Place> {
        let place = |pinned| Place { address: self.clone(), pinned };
        let Some(host) = self.host() else { return Ok(place(Vec::new())) };
        // What is written as an address is one, whatever a name service says of it.
        if let Ok(address) = host.parse::<IpAddr>() {
            policy.addresses.check(&host, address).map_err(|error| not_public(&error))?;
            return Ok(place(vec![address]));
        }
        let found = tokio::net::lookup_host((host.as_str(), self.port())).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("the address of {host} is not found"))
                .source(error)
                .blame(Blame::Farm)
                .hint("is the name right?")
        })?;
        let (mut allowed, mut last) = (Vec::new(), None);
        for address in found.map(|found| found.ip()) {
            match policy.addresses.check(&host, address) {
                Ok(()) if allowed.contains(&address) => {}
                Ok(()) => allowed.push(address),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if allowed.is_empty() => Err(not_public(&error)),
            _ => Ok(place(allowed)),
        }
    }
}

impl fmt::Display for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(url) => f.write_str(url.as_str()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `user@host:path` as the address that it stands for.
fn scp_form(text: &str) -> Option<String> {
    if text.contains("://") {
        return None;
    }
    let (login, path) = text.split_once(':')?;
    let (user, host) = login.split_once('@')?;
    (!host.is_empty() && !host.contains('/'))
        .then(|| format!("ssh://{user}@{host}/{}", path.trim_start_matches('/')))
}

fn refused(why: &str, hint: &'static str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("this repository may not be read: {why}"))
        .blame(Blame::Policy)
        .hint(hint)
}

fn not_public(error: &RefusedAddress) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("this repository may not be read: {error}"))
        .blame(Blame::Policy)
        .hint("the operator may allow the host, the address or its network")
}
