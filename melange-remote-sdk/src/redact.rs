//! Passwords of URLs, kept out of everything that people and packages get to see.

use std::borrow::Cow;

/// What stands for a password, as apko writes it.
const MASK: &str = "xxxxx";

/// The text with the password of every URL in it replaced, so that `https://user:secret@host` becomes
/// `https://user:xxxxx@host`.
///
/// ```
/// use melange_remote_sdk::redact::redact;
/// assert_eq!(redact("cannot fetch https://me:pw@a.example/x"), "cannot fetch https://me:xxxxx@a.example/x");
/// assert_eq!(redact("https://a.example:8080/x@y"), "https://a.example:8080/x@y");
/// ```
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut result = String::new();
    let mut done = 0;
    let mut at = 0;
    while let Some(start) = text[at..].find("://").map(|start| at + start + 3) {
        at = start;
        if let Some((colon, end)) = password(&text[start..]) {
            result.push_str(&text[done..=start + colon]);
            result.push_str(MASK);
            done = start + end;
            at = done;
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    result.push_str(&text[done..]);
    Cow::Owned(result)
}

/// Where the password of an authority lies: behind the colon, up to the `@`.
fn password(rest: &str) -> Option<(usize, usize)> {
    let word =
        rest.find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>'));
    let word = &rest[..word.unwrap_or(rest.len())];
    let authority = word.find(['/', '?', '#']).unwrap_or(word.len());
    let colon = word[..authority].find(':')?;
    let end = match word[..authority].rfind('@') {
        Some(end) => end,
        // A password with a slash or the like that was not escaped; what stands before is no port then.
        None => {
            let port = &word[colon + 1..authority];
            if port.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            word.rfind('@')?
        }
    };
    (colon < end).then_some((colon, end))
}

/// A URL without its user and password, for documents that name where something came from.
///
/// ```
/// use melange_remote_sdk::redact::without_user;
/// assert_eq!(without_user("https://me:pw@a.example/x"), "https://a.example/x");
/// assert_eq!(without_user("a.example/x@y"), "a.example/x@y");
/// ```
pub fn without_user(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Cow::Borrowed(url) };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let end = match rest[..authority].rfind('@') {
        Some(end) => end,
        None => match password(rest) {
            Some((_, end)) => end,
            None => return Cow::Borrowed(url),
        },
    };
    Cow::Owned(format!("{scheme}://{}", &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go_and_the_rest_stays() {
        for (text, expected) in [
            ("https://user:pw@h/x", "https://user:xxxxx@h/x"),
            ("@tag http://u:p@h:80/x", "@tag http://u:xxxxx@h:80/x"),
            ("a https://u:p@h, b https://v:q@i/", "a https://u:xxxxx@h, b https://v:xxxxx@i/"),
            ("https://u:p@w@h/", "https://u:xxxxx@h/"),
            ("https://u:p:q@h/", "https://u:xxxxx@h/"),
            ("https://u:p/w@h/x", "https://u:xxxxx@h/x"),
            ("\"https://:pw@h\"", "\"https://:xxxxx@h\""),
            ("https://token@h/x", "https://token@h/x"),
            ("https://h:8080/a@b", "https://h:8080/a@b"),
            ("https://h/a:b@c", "https://h/a:b@c"),
            ("https://h \"u:p@x\"", "https://h \"u:p@x\""),
            ("git+ssh://u:é@h", "git+ssh://u:xxxxx@h"),
            ("no url u:p@h", "no url u:p@h"),
            ("://", "://"),
        ] {
            assert_eq!(redact(text), expected);
            assert_eq!(redact(expected), expected, "a second time");
        }
    }

    #[test]
    fn users_go_too_where_a_place_is_named() {
        for (url, expected) in [
            ("https://u:p@github.com/a/b", "https://github.com/a/b"),
            ("https://token@github.com/a", "https://github.com/a"),
            ("https://u:p/w@h/x", "https://h/x"),
            ("https://h/x@y", "https://h/x@y"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_user(url), expected);
        }
    }
}
