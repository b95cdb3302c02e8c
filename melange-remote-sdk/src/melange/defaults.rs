//! What a definition gets when it says nothing: the Wolfi repository and its key, the namespace, the variables
//! that point the language tools at the cache.

use super::document::{Accounts, Environment, Group, Text, User};

/// The repository of definitions that name none.
pub const WOLFI_REPOSITORY: &str = "https://packages.wolfi.dev/os";
/// The key that signs it.
pub const WOLFI_KEY: &str = "https://packages.wolfi.dev/os/wolfi-signing.rsa.pub";
/// The namespace of package URLs.
pub const NAMESPACE: &str = "wolfi";

/// What is injected into definitions that name no repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryDefaults {
    /// Repositories.
    pub repositories: Vec<String>,
    /// Their keys.
    pub keyring: Vec<String>,
}

impl Default for RepositoryDefaults {
    fn default() -> Self {
        Self { repositories: vec![WOLFI_REPOSITORY.to_owned()], keyring: vec![WOLFI_KEY.to_owned()] }
    }
}

impl RepositoryDefaults {
    /// These repositories with their keys.
    pub fn new(repositories: Vec<String>, keyring: Vec<String>) -> Self {
        Self { repositories, keyring }
    }

    /// Adds repositories and keys to `environment` exactly when it names no repository; returns whether it did.
    pub fn inject(&self, environment: &mut Environment) -> bool {
        let contents = &mut environment.contents;
        if !contents.repositories.is_empty() || !contents.build_repositories.is_empty() {
            return false;
        }
        contents.repositories = self.repositories.iter().map(Text::made).collect();
        contents.keyring.extend(self.keyring.iter().map(Text::made));
        true
    }
}

const VARIABLES: [(&str, &str); 7] = [
    ("HOME", "/home/build"),
    ("GOPATH", "/home/build/.cache/go"),
    ("GOMODCACHE", "/var/cache/melange/gomodcache"),
    ("UV_CACHE_DIR", "/var/cache/melange/uv"),
    ("PIP_CACHE_DIR", "/var/cache/melange/pip"),
    ("COMPOSER_CACHE_DIR", "/var/cache/melange/composer"),
    ("npm_config_cache", "/var/cache/melange/npm"),
];

/// Whether a variable is one that environments have by themselves.
pub(super) fn is_variable(name: &str, value: &str) -> bool {
    VARIABLES.contains(&(name, value))
}

/// Adds the build account and, where they are missing or empty, the variables of the tools.
pub(super) fn complete_environment(environment: &mut Environment, with_variables: bool) {
    let Accounts { users, groups, .. } = &mut environment.accounts;
    if !groups.iter().any(|group| &*group.groupname == "build") {
        groups.push(Group { groupname: Text::made("build"), gid: 1000, members: vec![Text::made("build")] });
    }
    if !users.iter().any(|user| &*user.username == "build") {
        users.push(User { username: Text::made("build"), uid: 1000, gid: Some(1000), ..User::default() });
    }
    if with_variables {
        for (name, value) in VARIABLES {
            let variable = environment.environment.entry(name.to_owned()).or_default();
            if variable.is_empty() {
                *variable = Text::made(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_injected_exactly_when_none_is_named() {
        let mut environment = Environment::default();
        assert!(RepositoryDefaults::default().inject(&mut environment));
        assert_eq!(&*environment.contents.repositories[0], WOLFI_REPOSITORY);
        assert_eq!(&*environment.contents.keyring[0], WOLFI_KEY);
        assert!(!RepositoryDefaults::default().inject(&mut environment));
        let mut named = Environment::default();
        named.contents.build_repositories.push(Text::made("https://example.com/r"));
        assert!(!RepositoryDefaults::default().inject(&mut named));
        assert!(named.contents.keyring.is_empty());
    }
}
