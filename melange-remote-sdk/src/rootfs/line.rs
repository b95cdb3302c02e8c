//! A repository line, `[@tag ]<place>`: the one reader of it.

use crate::error::{Error, Result};

/// A line taken apart; what the place is, is not looked at.
///
/// ```
/// use melange_remote_sdk::rootfs::line::RepositoryLine;
/// let line = RepositoryLine::parse("@edge  https://a.example/os").unwrap();
/// assert_eq!((line.tag, line.place), ("edge", "https://a.example/os"));
/// assert_eq!(RepositoryLine::parse("/packages").unwrap().path(), Some("/packages"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepositoryLine<'a> {
    /// The tag that pins its packages; empty without one.
    pub tag: &'a str,
    /// A URL or a path.
    pub place: &'a str,
}

impl<'a> RepositoryLine<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty line, and for a tag without a name or a place.
    pub fn parse(line: &'a str) -> Result<Self> {
        let text = line.trim();
        let (tag, place) = match text.strip_prefix('@') {
            Some(rest) => {
                rest.split_once(char::is_whitespace).map_or((rest, ""), |(tag, place)| (tag, place.trim()))
            }
            None => ("", text),
        };
        if place.is_empty() || (text.starts_with('@') && tag.is_empty()) {
            let what = if text.is_empty() { "is empty" } else { "has a tag and no place" };
            return Err(
                Error::invalid(format!("the repository {line:?} {what}")).hint("write `URL` or `@tag URL`")
            );
        }
        Ok(Self { tag, place })
    }

    /// Whether the place is an http(s) URL.
    pub fn is_http(&self) -> bool {
        self.place.starts_with("https://") || self.place.starts_with("http://")
    }

    /// The place's path, when it is one: plain, or behind `file://`.
    pub fn path(&self) -> Option<&'a str> {
        let path = self.place.strip_prefix("file://").unwrap_or(self.place);
        (!path.contains("://")).then_some(path)
    }

    /// The host of an http(s) URL, without user and port.
    pub fn host(&self) -> Option<&'a str> {
        let (_, rest) = self.place.split_once("://").filter(|_| self.is_http())?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let end = match host.strip_prefix('[') {
            Some(inner) => inner.find(']').map(|end| end + 2),
            None => host.find(':'),
        };
        Some(&host[..end.unwrap_or(host.len())]).filter(|host| !host.is_empty())
    }

    /// The line with another place.
    pub fn with_place(&self, place: &str) -> String {
        if self.tag.is_empty() { place.to_owned() } else { format!("@{} {place}", self.tag) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_taken_apart() {
        for (line, tag, place, path, host) in [
            ("https://a.example/os", "", "https://a.example/os", None, Some("a.example")),
            ("@t\thttp://u:p@[::1]:80/x", "t", "http://u:p@[::1]:80/x", None, Some("[::1]")),
            (" @t  /a b ", "t", "/a b", Some("/a b"), None),
            ("file:///x", "", "file:///x", Some("/x"), None),
            ("ftp://a/b", "", "ftp://a/b", None, None),
        ] {
            let read = RepositoryLine::parse(line).unwrap();
            assert_eq!((read.tag, read.place, read.path(), read.host()), (tag, place, path, host), "{line}");
        }
        for wrong in ["", " ", "@t", "@ /x", "@t  "] {
            assert!(RepositoryLine::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(RepositoryLine::parse("@t x").unwrap().with_place("/x"), "@t /x");
    }
}
