//! Reads the operator's file of credentials: strictly, with the place of every mistake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{GitCredential, GitSecret};
use crate::text::diagnostics::{Diagnostics, Position, Source};
use crate::text::strict::{StrictReader, find};
use crate::text::yaml::{self, Node};

/// What a credential may say.
const FIELDS: [&str; 5] = ["host", "user", "password-file", "token-file", "ssh-key"];
/// The longest secret.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// Reads credentials by their names. Secrets stand in files of their own, which `secret` reads; the key of ssh stays where
/// it is.
///
/// ```
/// use melange_remote_sdk::git::read_credentials;
/// use melange_remote_sdk::text::diagnostics::Source;
/// let text = "work:\n  host: git.example\n  user: x-access-token\n  password-file: /run/secrets/git\n";
/// let found = read_credentials(&Source::new("git.yaml", text), &|_| Ok("secret\n".to_owned())).unwrap();
/// assert_eq!(found["work"].host, "git.example");
/// ```
///
/// # Errors
/// Every mistake with its line and column: syntax, unknown or missing fields, files that cannot be read.
pub fn read_credentials(
    source: &Arc<Source>,
    secret: &dyn Fn(&Path) -> std::io::Result<String>,
) -> Result<BTreeMap<String, GitCredential>, Diagnostics> {
    let mut reader = Reader { strict: StrictReader::new(source), secret };
    let mut found = BTreeMap::new();
    if let Some(root) = yaml::read(source)? {
        for (name, node) in reader.strict.entries(&root) {
            if let Some(credential) = reader.credential(node) {
                found.insert(name.text.clone(), credential);
            }
        }
    }
    reader.strict.finish(found)
}

struct Reader<'a> {
    strict: StrictReader<'a>,
    secret: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

impl Reader<'_> {
    fn mistake(&mut self, at: Position, message: impl Into<String>, hint: &str) {
        self.strict.mistake(at, message).hint = Some(hint.to_owned());
    }

    fn credential(&mut self, node: &Node) -> Option<GitCredential> {
        let before = self.strict.mistakes();
        let entries = self.strict.fields(node, &FIELDS);
        let mut fields: BTreeMap<&str, (Position, &str)> = BTreeMap::new();
        for name in FIELDS {
            let Some(value) = find(entries, name) else { continue };
            match self.strict.text(value) {
                Some("") => self.mistake(value.at, format!("`{name}` is empty"), "write a text"),
                Some(text) => _ = fields.insert(name, (value.at, text)),
                None => {}
            }
        }
        if self.strict.mistakes() > before {
            return None;
        }
        let text = |name: &str| fields.get(name).map(|(_, text)| (*text).to_owned());
        let Some(host) = text("host") else {
            let hint = "name the only host that it is used for";
            self.mistake(node.at, "this credential has no `host`", hint);
            return None;
        };
        let secret =
            match (text("user"), fields.get("password-file"), fields.get("token-file"), text("ssh-key")) {
                (Some(user), Some(file), None, None) => {
                    GitSecret::Basic { user, password: self.read(*file)? }
                }
                (None, None, Some(file), None) => GitSecret::Bearer(self.read(*file)?),
                (None, None, None, Some(key)) => GitSecret::SshKey(PathBuf::from(key)),
                _ => {
                    let hint = "give `user` and `password-file`, or `token-file`, or `ssh-key`";
                    self.mistake(node.at, "this credential does not say who we are in one way", hint);
                    return None;
                }
            };
        Some(GitCredential::new(host, secret))
    }

    /// The secret in a file, without the end of its line.
    fn read(&mut self, (at, file): (Position, &str)) -> Option<String> {
        let hint = "the file holds the secret alone, in one line";
        match (self.secret)(Path::new(file)) {
            Ok(text) => {
                let secret = text.trim_end_matches(['\r', '\n']);
                let is_plain = !secret.is_empty() && !secret.contains(|c: char| c.is_control());
                if is_plain && secret.len() <= SECRET_BYTES_MAX {
                    return Some(secret.to_owned());
                }
                self.mistake(at, format!("{file} holds no secret of one line"), hint);
            }
            Err(error) => self.mistake(at, format!("{file} cannot be read: {error}"), hint),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::diagnostics::Diagnostic;

    fn read(text: &str) -> Result<BTreeMap<String, GitCredential>, Diagnostics> {
        read_credentials(&Source::new("git.yaml", text), &|path| match path.to_str() {
            Some("/secret") => Ok("s3cret\n".to_owned()),
            Some("/two") => Ok("one\ntwo\n".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn credentials_are_read_in_their_three_ways() {
        let found = read(
            "a: {host: h, user: u, password-file: /secret}\nb: {host: h, token-file: /secret}\nc: {host: h, ssh-key: /k}\n",
        )
        .unwrap();
        let secret = GitSecret::Basic { user: "u".to_owned(), password: "s3cret".to_owned() };
        assert_eq!(found["a"], GitCredential::new("h", secret));
        assert_eq!(found["b"].secret, GitSecret::Bearer("s3cret".to_owned()));
        assert_eq!(found["c"].secret, GitSecret::SshKey("/k".into()));
        assert!(!format!("{found:?}").contains("s3cret"));
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_have_their_places_and_tell_no_secret() {
        let text = "a: {hots: h}\nb: {user: u, password-file: /secret}\nc: {host: h, user: u}\nd: {host: h, token-file: /no}\n\
                    e: {host: h, token-file: /two}\nf: [x]\n";
        let told: Vec<String> = read(text).unwrap_err().0.iter().map(Diagnostic::summary).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        git.yaml:1:5: unknown field `hots`
        git.yaml:2:4: this credential has no `host`
        git.yaml:3:4: this credential does not say who we are in one way
        git.yaml:4:26: /no cannot be read: entity not found
        git.yaml:5:26: /two holds no secret of one line
        git.yaml:6:4: expected a map, found a list
        ");
    }
}
