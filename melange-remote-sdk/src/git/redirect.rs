//! Where a server sends git, and whether it goes there: to another path of the same scheme, host and port, which were
//! checked and pinned. Git itself follows nothing, since it would ask a name service anew.

use url::Url;

use super::GitPolicy;
use super::address::GitAddress;
use super::failure::leads_elsewhere;
use crate::error::Result;

/// What git asks of a repository first; a redirection that changes it leads to no repository.
const ASKED: &str = "/info/refs";
/// See [`ASKED`].
const QUERY: &str = "service=git-upload-pack";
/// What stands before each header of an answer in git's trace of what curl does.
const HEADER: &str = "<= Recv header: ";

/// The last `Location` in a trace.
pub(super) fn location(trace: &str) -> Option<&str> {
    let headers = trace.lines().filter_map(|line| line.split_once(HEADER)).map(|(_, header)| header);
    let named = headers.filter_map(|header| header.split_once(':'));
    named.filter(|(name, _)| name.eq_ignore_ascii_case("location")).map(|(_, value)| value.trim()).next_back()
}

/// The address of the repository that a location is of, as seen from the address that leads there.
///
/// # Errors
/// `PermissionDenied` for another scheme, host or port, and for what is no repository.
pub(super) fn follow(from: &Url, location: &str, policy: &GitPolicy) -> Result<GitAddress> {
    let refused = |why: &str| leads_elsewhere(why, location);
    let mut asked = from.clone();
    asked.set_path(&format!("{}{ASKED}", from.path().trim_end_matches('/')));
    asked.set_query(Some(QUERY));
    let to = asked.join(location).map_err(|_| refused("which is no address"))?;
    let same =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    if same(&to) != same(from) {
        return Err(refused("which is another scheme, host or port"));
    }
    let path = to.path().strip_suffix(ASKED).filter(|_| to.query() == Some(QUERY) && to.fragment().is_none());
    let path = path.ok_or_else(|| refused("which is no repository"))?.to_owned();
    let mut base = to;
    base.set_path(&path);
    base.set_query(None);
    GitAddress::parse(base.as_str(), policy).map_err(|error| refused("which is no repository").source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const TRACE: &str = "\
12:00:00.000001 http.c:700              => Send header: GET /old.git/info/refs?service=git-upload-pack HTTP/1.1
12:00:00.000002 http.c:700              <= Recv header: HTTP/1.1 301 Moved
12:00:00.000002 http.c:700              <= Recv header: lOcation: /a\r
12:00:00.000002 http.c:700              <= Recv header: x-location: /b
12:00:00.000003 http.c:700              => Send header: Location: /c
fatal: unable to access 'https://a.example/old.git/': The requested URL returned error: 301
";

    #[test]
    fn the_location_is_the_last_one_that_the_server_tells() {
        assert_eq!(location(TRACE), Some("/a"));
        assert_eq!(location(&TRACE.replace("x-location", "Location")), Some("/b"));
        assert_eq!(location("fatal: no"), None);
    }

    #[test]
    fn only_another_repository_of_the_same_place_is_followed() {
        let from: Url = "https://a.example/old.git".parse().unwrap();
        let follow = |location: &str| follow(&from, location, &GitPolicy::default());
        let info = "info/refs?service=git-upload-pack";
        for (location, leads_to) in [
            (format!("/new.git/{info}"), "https://a.example/new.git"),
            (format!("https://a.example:443/x/y/{info}"), "https://a.example/x/y"),
            (format!("//A.example/x/{info}"), "https://a.example/x"),
            (format!("../../new/{info}"), "https://a.example/new"),
        ] {
            assert_eq!(follow(&location).unwrap().to_string(), leads_to, "{location}");
        }
        for location in [
            format!("http://a.example/new.git/{info}"),
            format!("https://b.example/new.git/{info}"),
            format!("https://a.example:8443/new.git/{info}"),
            format!("https://a.example.evil/new.git/{info}"),
            format!("https://me:pw@a.example/new.git/{info}"),
            format!("file:///etc/{info}"),
            "/login?back=/new.git".to_owned(),
            format!("/login?to=/{info}"),
            "/new.git/info/refs".to_owned(),
            "/new.git/info/refs?service=git-receive-pack".to_owned(),
            format!("/{info}"),
            format!("/new.git/{info}#x"),
            "https://".to_owned(),
            "\u{1b}[2J".to_owned(),
        ] {
            let error = follow(&location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{location}");
            assert!(error.message().contains("leads to") && !error.chain().contains("pw"), "{error}");
            assert!(!error.message().contains('\u{1b}'), "{error}");
        }
    }
}
