//! Definitions from a git repository: a branch, a tag, a commit or a pull request becomes texts and folders of one commit.
//!
//! ```text
//! GitSource ─▶ address, reference checked ─▶ commits and trees of one commit ─▶ names matched ─▶ those files alone
//!                    (policy)                       (git fetch)                  (pure)          (git fetch, cat-file)
//! ```
//!
//! The program `git` speaks with the server and keeps objects; nothing is ever checked out. Files are read out of its
//! objects by name, so filters, hooks, attributes, submodules and links of a repository have no effect on this machine.
//! `git` runs without an environment, with a configuration of our own, in a process group that is ended with it, and within
//! bounds of time, memory and disk.
//!
//! Everything about a source comes from strangers. What it may reach is said by a [`GitPolicy`], which is the operator's:
//! https and ssh to public addresses, unless it says more.

mod address;
mod checkout;
mod command;
mod credentials;
mod failure;
mod redirect;
mod reference;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use checkout::{GitCheckout, GitDefinition};
pub use credentials::read_credentials;

use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;
use crate::rootfs::addresses::AddressPolicy;
use crate::rootfs::repository::LocalAccess;
use crate::scratch::ScratchFolder;
use address::{GitAddress, Place};
use command::Git;
use reference::Reference;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GitSource {
    /// The repository: `https://…`, `ssh://…` or `git@host:path`; more if the policy says so.
    pub url: String,
    /// A branch, a tag, all digits of a commit, `pull/7/head`, or a name that begins with `refs/`; the default branch when
    /// it is empty.
    pub reference: String,
    /// A pattern of paths of definitions, in which `*` does not cross a `/` and `**` does; `*.yaml` when it is empty.
    pub glob: String,
    /// The name of one of the policy's credentials.
    pub credential: Option<String>,
}

impl GitSource {
    /// The definitions beside each other in the top folder of a repository's default branch.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

/// What sources may reach, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GitPolicy {
    /// Which addresses hosts may lead to.
    pub addresses: AddressPolicy,
    /// Which folders of this machine may be named as repositories.
    pub files: LocalAccess,
    /// Whether `http://` is allowed, where anybody on the way may change what comes.
    pub allow_http: bool,
    /// Who we are at which host, by the names that sources may use.
    pub credentials: BTreeMap<String, GitCredential>,
    /// Certificates of authorities that are trusted instead of the system's, a file in PEM form.
    pub authorities: Option<PathBuf>,
    /// The keys of ssh servers, a file as ssh keeps them; without it no source by ssh is taken.
    pub known_hosts: Option<PathBuf>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The bytes of what is fetched at once.
    pub bytes_max: u64,
    /// The folders in which `git`, `ssh` and the shell are looked for, as `PATH` names them.
    pub programs: String,
}

impl Default for GitPolicy {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            files: LocalAccess::Below(Vec::new()),
            allow_http: false,
            credentials: BTreeMap::new(),
            authorities: None,
            known_hosts: None,
            timeout: limits::GIT_TIME,
            bytes_max: limits::GIT_PACK_BYTES_MAX,
            programs: "/usr/local/bin:/usr/bin:/bin".to_owned(),
        }
    }
}

/// Who we are at a host.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GitCredential {
    /// The only host that it is used for.
    pub host: String,
    /// What shows who we are.
    pub secret: GitSecret,
}

impl GitCredential {
    /// A secret for a host.
    pub fn new(host: impl Into<String>, secret: GitSecret) -> Self {
        Self { host: host.into(), secret }
    }
}

/// What shows who we are; never part of arguments, addresses, logs and errors.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GitSecret {
    /// A user with a password, or what a host takes as one: a token of `x-access-token`, for example.
    Basic {
        /// The user.
        user: String,
        /// The password or token.
        password: String,
    },
    /// A token that is sent as it is.
    Bearer(String),
    /// The file of a private key, for ssh.
    SshKey(PathBuf),
}

impl fmt::Debug for GitCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCredential").field("host", &self.host).finish_non_exhaustive()
    }
}

impl fmt::Debug for GitSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::SshKey(_) => "SshKey",
        })
    }
}

/// Fetches sources. Clones share the place where repositories lie meanwhile.
#[derive(Debug, Clone)]
pub struct GitFetcher {
    scratch: Arc<ScratchFolder>,
    policy: Arc<GitPolicy>,
}

impl GitFetcher {
    /// A fetcher that keeps what it fetches below a folder of state, as long as it is used. What a process left there that
    /// lives no more is removed.
    pub fn new(state_dir: &Path, policy: GitPolicy) -> Self {
        Self {
            scratch: Arc::new(ScratchFolder::new(&state_dir.join("git"), "server")),
            policy: Arc::new(policy),
        }
    }

    /// Fetches the definitions of a source, the repository's own pipelines, and the files beside the definitions, all of one
    /// commit. A future that is dropped ends what it started.
    ///
    /// # Errors
    /// `InvalidRequest` for an address, a reference or a pattern that is none, and for links that lead out of the
    /// repository; `PermissionDenied` for what the policy refuses, and when the server wants to know who we are; `NotFound`
    /// when there is no such repository, reference or definition; `LimitExceeded`; `Untrusted` when the server is not who it
    /// should be; `Unavailable` when it does not answer; `Cancelled`.
    pub async fn fetch(&self, source: &GitSource, cancel: &CancellationToken) -> Result<GitCheckout> {
        let fetched = tokio::time::timeout(self.policy.timeout, self.fetch_for_long(source));
        match cancel.run_until_cancelled(fetched).await {
            Some(Ok(done)) => done.map_err(|error| error.with("repository", &source.url)),
            Some(Err(_)) => {
                let seconds = self.policy.timeout.as_secs();
                let message = format!("the repository did not come within {seconds} s");
                Err(Error::new(ErrorKind::Unavailable, message)
                    .blame(Blame::Farm)
                    .hint("ask for fewer files, or try again when its server is less busy")
                    .with("repository", &source.url))
            }
            None => Err(Error::new(ErrorKind::Cancelled, "the fetching of a repository was cancelled")),
        }
    }

    async fn fetch_for_long(&self, source: &GitSource) -> Result<GitCheckout> {
        let reference: Reference = source.reference.parse()?;
        let glob = tree::pattern(&source.glob)?;
        let address = GitAddress::parse(&source.url, &self.policy)?;
        let credential = self.credential(source, &address)?;
        let place = address.resolve(&self.policy).await?;
        let (git, commit, folder) = self.fetch_commit(&reference, place, credential).await?;
        let read = checkout::read(&git, &commit, &glob, folder.path()).await?;
        Ok(GitCheckout::new(address.to_string(), commit, read, folder, Arc::clone(&self.scratch)))
    }

    /// Fetches one commit into a folder of its own, from where its address leads.
    async fn fetch_commit(
        &self,
        reference: &Reference,
        mut place: Place,
        credential: Option<&GitCredential>,
    ) -> Result<(Git, String, tempfile::TempDir)> {
        let mut followed = 0;
        loop {
            let folder = tempfile::tempdir_in(self.scratch.path()?).map_err(|e| {
                Error::unexpected("cannot make a temporary folder").source(e).blame(Blame::Farm)
            })?;
            let git = Git::prepare(folder.path(), &self.policy, &place, credential).await?;
            let error = match git.fetch_commit(reference).await {
                Ok(commit) => return Ok((git, commit, folder)),
                Err(error) => error,
            };
            let (Some(from), Some(to)) = (place.address.url(), git.redirected().await?) else {
                return Err(error);
            };
            let address = redirect::follow(from, &to, &self.policy)?;
            if followed == limits::GIT_REDIRECTS_MAX {
                let why = format!("the last of more than {followed} redirections");
                return Err(failure::leads_elsewhere(&why, &to));
            }
            followed += 1;
            // The host is the same, and so is what was checked of it.
            place.address = address;
        }
    }

    /// The credential that a source names, if it is one for its host.
    fn credential(&self, source: &GitSource, address: &GitAddress) -> Result<Option<&GitCredential>> {
        let Some(name) = &source.credential else { return Ok(None) };
        let refused = |message: String, hint: &'static str| {
            Err(Error::new(ErrorKind::PermissionDenied, message).blame(Blame::Policy).hint(hint))
        };
        let Some(credential) = self.policy.credentials.get(name) else {
            return refused(
                format!("there is no credential {name:?}"),
                "name one that the operator has configured",
            );
        };
        match address.host() {
            Some(host) if host.eq_ignore_ascii_case(&credential.host) => {}
            _ => {
                return refused(
                    format!("the credential {name:?} is for another host"),
                    "a credential is used for the host alone that the operator configured it for",
                );
            }
        }
        if matches!(credential.secret, GitSecret::SshKey(_)) != address.is_ssh() {
            return refused(
                format!("the credential {name:?} is for another protocol"),
                "keys are for ssh, passwords and tokens for https",
            );
        }
        Ok(Some(credential))
    }
}
