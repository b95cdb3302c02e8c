//! Who the server is at other servers: repositories of packages and of definitions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use melange_remote_sdk::git::{self, GitCredential};
use melange_remote_sdk::rootfs::credentials::Credentials;
use melange_remote_sdk::text::diagnostics::Source;

use super::Reader;

impl Reader<'_> {
    /// Who the server is at git servers.
    pub(super) fn git_credentials(&mut self, given: Option<String>) -> BTreeMap<String, GitCredential> {
        let Some(path) = self.file("--git-credentials", given) else { return BTreeMap::new() };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                self.wrong(format!("--git-credentials: {} cannot be read: {error}", path.display()));
                return BTreeMap::new();
            }
        };
        let source = Source::new(path.display().to_string(), text);
        git::read_credentials(&source, &|path| std::fs::read_to_string(path)).unwrap_or_else(|mistakes| {
            mistakes.0.iter().for_each(|mistake| self.wrong(mistake.summary()));
            BTreeMap::new()
        })
    }

    /// Logins from `HTTP_AUTH`, in apko's form, and from the netrc file.
    pub(super) fn credentials(&mut self) -> Credentials {
        let mut credentials = Credentials::default();
        let given = (self.environment)("HTTP_AUTH").unwrap_or_default();
        credentials.add_http_auth(&given).unwrap_or_else(|error| self.error("HTTP_AUTH", &error));
        let home = || Some(PathBuf::from((self.environment)("HOME")?).join(".netrc"));
        if let Some(path) = (self.environment)("NETRC").map(PathBuf::from).or_else(home)
            && let Ok(text) = std::fs::read_to_string(path)
        {
            credentials.add_netrc(&text).unwrap_or_else(|error| self.error("netrc", &error));
        }
        credentials
    }
}
