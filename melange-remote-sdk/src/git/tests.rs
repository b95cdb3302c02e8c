//! What is decided before anything connects: addresses, references, names, and whose fault an error is.

use proptest::prelude::*;

use super::address::GitAddress;
use super::reference::Reference;
use super::tree::{Names, pattern};
use super::*;

fn refused(url: &str, policy: &GitPolicy) -> Error {
    GitAddress::parse(url, policy).unwrap_err()
}

#[test]
fn only_addresses_that_the_policy_allows_pass() {
    let policy = GitPolicy::default();
    for (url, read) in [
        ("https://git.example/a/b.git", "https://git.example/a/b.git"),
        ("https://git.example:8443/a", "https://git.example:8443/a"),
        ("HTTPS://Git.Example/a", "https://git.example/a"),
        ("ssh://git@git.example/a/b", "ssh://git@git.example/a/b"),
        ("git@git.example:a/b.git", "ssh://git@git.example/a/b.git"),
        ("https://[2606:4700::1111]/a", "https://[2606:4700::1111]/a"),
    ] {
        assert_eq!(GitAddress::parse(url, &policy).unwrap().to_string(), read);
    }
    let long = format!("https://git.example/{}", "x".repeat(limits::GIT_URL_BYTES_MAX));
    for url in [
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17/foo",
        "file:///etc",
        "/etc",
        "http://git.example/a",
        "git://git.example/a",
        "ftp://git.example/a",
        "ext://git.example/a",
        "--upload-pack=touch",
        "-c",
        "relative/path",
        "",
        "https://git.example",
        "https://git.example/",
        "https:///a",
        "https://user@git.example/a",
        "https://user:secret@git.example/a",
        "ssh://-oProxyCommand=x/a",
        "ssh://git@-oProxyCommand=x/a",
        "ssh://-o@git.example/a",
        "ssh://git:secret@git.example/a",
        "-oProxyCommand=x@host:a",
        "https://git.example/a b",
        "https://git.example/a\nb",
        "https://git.example/a?x",
        "https://git.example/a#x",
        long.as_str(),
    ] {
        let error = refused(url, &policy);
        assert!(
            matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::PermissionDenied),
            "{url}: {error}"
        );
        assert!(error.hint_text().is_some() && error.blamed().is_some(), "{url}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let mut policy = GitPolicy { allow_http: true, ..GitPolicy::default() };
    policy.files = LocalAccess::Below(vec![folder.clone()]);
    assert!(GitAddress::parse("http://git.example/a", &policy).is_ok());
    let inside = folder.join("a").display().to_string();
    for url in [inside.clone(), format!("file://{inside}")] {
        assert_eq!(GitAddress::parse(&url, &policy).unwrap(), GitAddress::File(folder.join("a")));
    }
    for url in [
        format!("{inside}/../../x"),
        "/etc".to_owned(),
        "file:///etc".to_owned(),
        format!("file://host{inside}"),
    ] {
        refused(&url, &policy);
    }
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_before_anything_connects() {
    let mut policy = GitPolicy { allow_http: true, ..GitPolicy::default() };
    // Some of them are one and the same to a resolver.
    for host in [
        "127.0.0.1",
        "localhost",
        "169.254.169.254",
        "10.0.0.1",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "0x7f.1",
        "2130706433",
    ] {
        let address = GitAddress::parse(&format!("http://{host}:1/a"), &policy).unwrap();
        let error = address.resolve(&policy).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::PermissionDenied, Some(Blame::Policy)),
            "{host}: {error}"
        );
    }
    policy.addresses.allow("127.0.0.1").unwrap();
    let address = GitAddress::parse("http://127.0.0.1:1/a", &policy).unwrap();
    assert_eq!(
        address.resolve(&policy).await.unwrap().pinned,
        ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn references_are_names_and_nothing_else() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (text, read) in [
        ("", Reference::Head),
        ("HEAD", Reference::Head),
        (commit, Reference::Commit(commit.to_owned())),
        ("main", Reference::Name("main".to_owned())),
        ("v1.2.3", Reference::Name("v1.2.3".to_owned())),
        ("feature/ü-x", Reference::Name("feature/ü-x".to_owned())),
        ("pull/7/head", Reference::Full("refs/pull/7/head".to_owned())),
        ("pull/7/merge", Reference::Full("refs/pull/7/merge".to_owned())),
        ("pull/x/head", Reference::Name("pull/x/head".to_owned())),
        ("refs/heads/main", Reference::Full("refs/heads/main".to_owned())),
        (&commit[..12], Reference::Name(commit[..12].to_owned())),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap(), read, "{text}");
    }
    let long = "x".repeat(limits::GIT_REFERENCE_BYTES_MAX + 1);
    for text in [
        "--upload-pack=touch /tmp/x",
        "--upload-pack=x",
        "-c",
        "+main:refs/heads/x",
        "a:b",
        "main^{commit}",
        "main~1",
        "a..b",
        "@{1}",
        "@",
        "refs/heads/*",
        "a b",
        "a\nb",
        "a\0b",
        "/a",
        "a/",
        "a//b",
        "a/.b",
        "a/-b",
        "a.lock",
        "refs/heads/../x",
        "a\\b",
        "$(x)",
        long.as_str(),
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text:?}");
    }
}

fn listing(entries: &[(&str, &str)]) -> Names {
    let line = |(mode, path): &(&str, &str)| format!("{mode} x {:040}\t{path}\0", path.len());
    Names::read(entries.iter().map(line).collect::<String>().as_bytes()).unwrap()
}

#[test]
fn what_fits_is_found_and_what_is_hidden_or_a_pipeline_is_not() {
    let names = listing(&[
        ("100644", "a.yaml"),
        ("120000", "b.yaml"),
        ("040000", "c.yaml"),
        ("160000", "d.yaml"),
        ("100755", "e.yaml"),
        ("100644", ".hidden.yaml"),
        ("100644", ".github/x.yaml"),
        ("100644", "os/f.yaml"),
        ("100644", "os/.x/g.yaml"),
        ("100644", "pipelines/p.yaml"),
        ("100644", "pipelines/q/r.yaml"),
        ("100644", "README.md"),
    ]);
    let found = |glob: &str| names.candidates(&pattern(glob).unwrap()).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(found(""), ["a.yaml", "b.yaml", "e.yaml"]);
    assert_eq!(found("**/*.yaml"), ["a.yaml", "b.yaml", "e.yaml", "os/f.yaml"]);
    assert_eq!(found("os/*"), ["os/f.yaml"]);
    assert_eq!(found("pipelines/*.yaml"), [""; 0]);
    assert_eq!(
        names.files_of("pipelines").iter().map(|file| file.0).collect::<Vec<_>>(),
        ["p.yaml", "q/r.yaml"]
    );
    assert!(pattern("[").is_err() && pattern(&"x".repeat(2_000)).is_err());
    for wrong in [
        "100644 blob 00\t../x\0",
        "100644 blob 00\ta//b\0",
        "100644 blob\tx\0",
        "nothing\0",
        "777777 x 00\tx\0",
    ] {
        assert!(Names::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn links_are_followed_within_the_repository_and_nowhere_else() {
    let mut names = listing(&[
        ("040000", "real"),
        ("100644", "real/file"),
        ("120000", "link"),
        ("120000", "twice"),
        ("040000", "deep"),
        ("120000", "deep/up"),
        ("120000", "absolute"),
        ("120000", "out"),
        ("120000", "deep/out"),
        ("120000", "circle"),
        ("120000", "broken"),
        ("120000", "top"),
    ]);
    for (link, target) in [
        ("link", "real"),
        ("twice", "./link/"),
        ("deep/up", "../real"),
        ("absolute", "/etc"),
        ("out", ".."),
        ("deep/out", "../../etc/passwd"),
        ("circle", "circle"),
        ("broken", "nowhere"),
        ("top", "."),
    ] {
        names.set_target(link.to_owned(), target.to_owned());
    }
    let follow = |path: &str| names.follow(path);
    for (path, real) in [
        ("link", Some("real")),
        ("twice", Some("real")),
        ("twice/file", Some("real/file")),
        ("deep/up", Some("real")),
        ("deep/up/file", Some("real/file")),
        ("broken", None),
        ("nowhere", None),
        ("top", None),
        ("top/real/file", Some("real/file")),
    ] {
        assert_eq!(follow(path).unwrap().as_deref(), real, "{path}");
    }
    for (path, why) in
        [("absolute", "out of"), ("out", "out of"), ("deep/out", "out of"), ("circle", "itself")]
    {
        let error = follow(path).unwrap_err();
        assert!(error.to_string().contains(why), "{path}: {error}");
        assert_eq!(error.blamed(), Some(Blame::Definition));
    }
}

proptest! {
    #[test]
    fn no_link_leads_out(targets in proptest::collection::vec("(\\.\\./|a/|b/|/|\\./){0,4}(a|b|c|\\.\\.)", 3)) {
        let mut names = listing(&[("040000", "a"), ("120000", "a/b"), ("120000", "b"), ("120000", "c"), ("100644", "a/c")]);
        for (link, target) in ["a/b", "b", "c"].iter().zip(&targets) {
            names.set_target((*link).to_owned(), target.clone());
        }
        for path in ["a/b", "b", "c", "a/b/c/a", "b/b/b"] {
            if let Ok(Some(real)) = names.follow(path) {
                prop_assert!(real.split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", real);
                prop_assert!(names.node(&real).is_some());
            }
        }
    }

    #[test]
    fn any_listing_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Names::read(&bytes);
    }
}

#[test]
fn what_git_says_tells_whose_fault_it_is() {
    for (said, kind, blame) in [
        (
            "fatal: could not read Username for 'https://h': terminal prompts disabled",
            ErrorKind::PermissionDenied,
            Blame::Definition,
        ),
        (
            "fatal: unable to access 'https://h/': The requested URL returned error: 404",
            ErrorKind::NotFound,
            Blame::Definition,
        ),
        (
            "fatal: unable to access 'https://h/': The requested URL returned error: 302",
            ErrorKind::PermissionDenied,
            Blame::Definition,
        ),
        (
            "fatal: unable to access 'https://h/': server certificate verification failed",
            ErrorKind::Untrusted,
            Blame::Definition,
        ),
        ("Host key verification failed.\nfatal: x", ErrorKind::Untrusted, Blame::Policy),
        (
            "error: index-pack died of signal 25\nfatal: index-pack failed",
            ErrorKind::LimitExceeded,
            Blame::Definition,
        ),
        ("fatal: remote error: upload-pack: not our ref 1", ErrorKind::NotFound, Blame::Definition),
        ("fatal: write error: No space left on device", ErrorKind::Unexpected, Blame::Farm),
        ("fatal: unable to access 'https://h/': Failed to connect", ErrorKind::Unavailable, Blame::Farm),
        // A server does not get to say that it is not at fault.
        (
            "remote: certificate\nremote: error: 404\nfatal: the remote end hung up",
            ErrorKind::Unavailable,
            Blame::Farm,
        ),
    ] {
        let error = failure::told(said);
        assert_eq!((error.kind(), error.blamed()), (kind, Some(blame)), "{said}: {error}");
    }
    let long = failure::told(&"x".repeat(100_000)).to_string();
    assert!(long.len() < 2_000);
}

#[test]
fn secrets_are_not_shown() {
    let secret = GitSecret::Basic { user: "me".to_owned(), password: "hunter2".to_owned() };
    let mut policy = GitPolicy::default();
    for (name, secret) in [("a", secret), ("b", GitSecret::Bearer("hunter2".to_owned()))] {
        policy.credentials.insert(name.to_owned(), GitCredential::new("git.example", secret));
    }
    assert!(!format!("{policy:?}").contains("hunter2"));
    let fetcher = GitFetcher::new(Path::new("/nowhere"), policy.clone());
    let source = |url: &str, name: &str| {
        let mut source = GitSource::new(url);
        source.credential = Some(name.to_owned());
        let address = GitAddress::parse(url, &policy).unwrap();
        fetcher.credential(&source, &address).map(|found| found.is_some())
    };
    assert!(source("https://Git.example/a", "a").unwrap());
    for (url, name) in
        [("https://evil.example/a", "a"), ("https://git.example/a", "c"), ("ssh://git@git.example/a", "b")]
    {
        let error = source(url, name).unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::PermissionDenied, Some(Blame::Policy)),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

/// A name that no name service knows, and a server that is found all the same: at the address that was checked.
#[tokio::test]
async fn a_host_is_reached_at_the_checked_address_alone() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4_096];
        let read = stream.read(&mut asked).unwrap();
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    let policy = GitPolicy { allow_http: true, ..GitPolicy::default() };
    let address = GitAddress::parse(&format!("http://git.invalid:{port}/a"), &policy).unwrap();
    let place = address::Place { address, pinned: vec!["127.0.0.1".parse().unwrap()] };
    let folder = tempfile::tempdir().unwrap();
    let git = Git::prepare(folder.path(), &policy, &place, None).await.unwrap();
    let error = git.fetch_commit(&Reference::Head).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let asked = answering.join().unwrap();
    assert!(asked.contains(&format!("Host: git.invalid:{port}\r\n")), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
}
