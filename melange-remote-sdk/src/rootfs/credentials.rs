//! Users and passwords of repositories, by host, as data: where they come from is the caller's to know.

use std::fmt;

use crate::error::{Error, Result};

/// The most hosts that credentials are kept for.
const HOSTS_MAX: usize = 1_000;

/// Who somebody is at a host.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Logins by host. Those added first count, and one for every host comes last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_host: Vec<(String, Login)>,
    everywhere: Option<Login>,
}

impl Credentials {
    /// Adds what `HTTP_AUTH` holds in apko's form, `basic:HOST:USER:PASSWORD` or `basic:HOST:PORT:USER:PASSWORD`;
    /// several are separated by commas.
    ///
    /// # Errors
    /// `InvalidRequest` for an entry of another form, named by its number, and for more than a thousand of them.
    pub fn add_http_auth(&mut self, text: &str) -> Result<()> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        let mut entries: Vec<String> = Vec::new();
        for part in text.split(',') {
            match entries.last_mut() {
                // A comma that begins no entry belongs to the password.
                Some(last) if !part.trim_start().starts_with("basic:") => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => entries.push(part.trim_start().to_owned()),
            }
        }
        for (index, entry) in entries.iter().enumerate() {
            let parts: Vec<&str> = entry.split(':').collect();
            let (host, user, password) = match parts[..] {
                ["basic", host, user, password] => (host.to_owned(), user, password),
                ["basic", host, port, user, password] if port.parse::<u16>().is_ok() => {
                    (format!("{host}:{port}"), user, password)
                }
                _ => {
                    let message = format!("entry {} of the credentials is not of apko's form", index + 1);
                    return Err(Error::invalid(message).hint("write `basic:HOST:USER:PASSWORD`"));
                }
            };
            self.add(&host, user, password)?;
        }
        Ok(())
    }

    /// Adds the entries of a netrc file: `machine HOST login USER password PASSWORD`, and `default` for all others.
    ///
    /// # Errors
    /// `InvalidRequest` for an entry without login or password, named by its number, and for more than a thousand.
    pub fn add_netrc(&mut self, text: &str) -> Result<()> {
        let mut words = netrc_words(text).into_iter().peekable();
        let mut number = 0;
        while let Some(word) = words.next() {
            let host = match word {
                "machine" => words.next(),
                "default" => None,
                _ => continue,
            };
            number += 1;
            let (mut user, mut password) = (None, None);
            while let Some(key) = words.next_if(|word| !matches!(*word, "machine" | "default")) {
                match key {
                    "login" => user = words.next(),
                    "password" => password = words.next(),
                    "account" => drop(words.next()),
                    _ => {}
                }
            }
            let (Some(user), Some(password)) = (user, password) else {
                let message = format!("entry {number} of the netrc file has no login or no password");
                return Err(Error::invalid(message).hint("write `machine HOST login USER password PASSWORD`"));
            };
            match host {
                Some(host) => self.add(host, user, password)?,
                None if self.everywhere.is_none() => {
                    self.everywhere = Some(Login { user: user.to_owned(), password: password.to_owned() });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Adds one login.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty host, and for more than a thousand hosts.
    pub fn add(&mut self, host: &str, user: &str, password: &str) -> Result<()> {
        if host.is_empty() || self.by_host.len() >= HOSTS_MAX {
            let message = format!("credentials name a host each, at most {HOSTS_MAX} of them");
            return Err(Error::invalid(message).hint("write `basic:HOST:USER:PASSWORD`"));
        }
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        self.by_host.push((host.to_ascii_lowercase(), login));
        Ok(())
    }

    /// The login for a host; one that names the port comes before one that does not.
    pub fn find(&self, host: &str, port: Option<u16>) -> Option<&Login> {
        let host = host.to_ascii_lowercase();
        let with_port = port.map(|port| format!("{host}:{port}"));
        let named =
            |wanted: &str| self.by_host.iter().find(|(host, _)| host == wanted).map(|(_, login)| login);
        with_port.and_then(|wanted| named(&wanted)).or_else(|| named(&host)).or(self.everywhere.as_ref())
    }
}

/// The words of a netrc file without its comments and macros.
fn netrc_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        in_macro = in_macro && !line.trim().is_empty();
        if in_macro {
            continue;
        }
        for word in line.split_whitespace() {
            if word == "macdef" {
                in_macro = true;
                break;
            }
            // `#` begins a comment only where an entry or a key may begin; passwords may hold it.
            let follows_key = matches!(words.last(), Some(&("login" | "password" | "account" | "machine")));
            if word.starts_with('#') && !follows_key {
                break;
            }
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(credentials: &Credentials, host: &str, port: Option<u16>) -> Option<String> {
        credentials.find(host, port).map(|login| format!("{}/{}", login.user, login.password))
    }

    #[test]
    fn http_auth_as_apko_reads_it_and_several() {
        let mut credentials = Credentials::default();
        credentials
            .add_http_auth("basic:a.example:u:p,basic:b.example:8080:v:q,r,basic:b.example:w:s")
            .unwrap();
        for (host, port, expected) in [
            ("a.example", None, Some("u/p")),
            ("A.Example", Some(443), Some("u/p")),
            ("b.example", Some(8080), Some("v/q,r")),
            ("b.example", Some(81), Some("w/s")),
            ("c.example", None, None),
        ] {
            assert_eq!(found(&credentials, host, port).as_deref(), expected, "{host}");
        }
        assert!(credentials.add_http_auth(" ").is_ok());
        for text in ["bearer:a:b:c", "basic:a:u", "basic::u:p", "basic:a:x:u:secret"] {
            let error = Credentials::default().add_http_auth(text).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        assert!(!format!("{credentials:?}").contains("\"p\""), "{credentials:?}");
    }

    #[test]
    fn netrc_files() {
        let mut credentials = Credentials::default();
        let text = "# mine\nmachine a.example login u password #p\nmachine b.example\n  login v\n  account z\n  password q\nmacdef init\nmachine x login y password z\n\ndefault login d password e\n";
        credentials.add_netrc(text).unwrap();
        assert_eq!(found(&credentials, "a.example", None).as_deref(), Some("u/#p"));
        assert_eq!(found(&credentials, "b.example", None).as_deref(), Some("v/q"));
        assert_eq!(found(&credentials, "x", None).as_deref(), Some("d/e"));
        assert!(Credentials::default().add_netrc("machine a login b").is_err());
    }
}
