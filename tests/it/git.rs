//! Definitions from git repositories, by git's own server on loopback; and what hostile ones try.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use melange_remote_sdk::error::{Blame, Error, ErrorKind};
use melange_remote_sdk::git::{GitCheckout, GitCredential, GitFetcher, GitPolicy, GitSecret, GitSource};
use melange_remote_sdk::limits;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sources;
use tokio_util::sync::CancellationToken;

use crate::support::events::{marker, processes_with, wait_until};
use crate::support::git_server::{Behaviour, GitServer, Repository};
use crate::support::sshd::Sshd;

/// A policy that allows this machine's loopback, and http for all but the tests of certificates.
fn policy() -> GitPolicy {
    let mut policy = GitPolicy::default();
    policy.addresses.allow("127.0.0.1").unwrap();
    policy.allow_http = true;
    policy.timeout = Duration::from_secs(60);
    policy
}

struct Fetching {
    state: tempfile::TempDir,
    fetcher: GitFetcher,
}

impl Fetching {
    fn new(policy: GitPolicy) -> Self {
        let state = tempfile::tempdir().unwrap();
        let fetcher = GitFetcher::new(state.path(), policy);
        Self { state, fetcher }
    }

    async fn fetch(&self, url: &str, reference: &str) -> Result<GitCheckout, Error> {
        let mut source = GitSource::new(url);
        reference.clone_into(&mut source.reference);
        self.fetcher.fetch(&source, &CancellationToken::new()).await
    }

    /// What lies in the state's folder beside the lock.
    fn left(&self) -> Vec<String> {
        let folders = fs::read_dir(self.state.path().join("git")).into_iter().flatten();
        let inside = folders.flat_map(|own| fs::read_dir(own.unwrap().path()).unwrap());
        inside
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect()
    }
}

fn definition(name: &str) -> String {
    format!("package:\n  name: {name}\n  version: \"1\"\n  epoch: 0\n")
}

/// A repository of everything that there may be.
fn repository(allows_filter: bool) -> Repository {
    let repository = Repository::new(allows_filter);
    repository
        .write("zlib.yaml", definition("zlib"))
        .write("zlib/fix.patch", "--- a\n+++ b\n")
        .executable("zlib/tools/run", "#!/bin/sh\n")
        .link("zlib/link", "/etc/passwd")
        .write("alias.yaml", definition("alias"))
        .link("alias", "zlib")
        .write("plain.yaml", definition("plain"))
        .link("same.yaml", "plain.yaml")
        .write("ident.yaml", format!("# $Id$\n{}", definition("ident")))
        .write("notes.yaml", "notes: no definition\n")
        .write(".hidden.yaml", definition("hidden"))
        .write(".github/workflow.yaml", definition("workflow"))
        .write("os/inner.yaml", definition("inner"))
        .write("os/inner/a", "x")
        .write("pipelines/own/do.yaml", "pipeline:\n  - runs: \"true\"\n")
        .write("pipelines/package.yaml", definition("no-definition"))
        // What these would do in a checkout they do not do here.
        .write(
            ".gitattributes",
            "*.yaml ident filter=evil text eol=crlf export-ignore\nfix.patch export-subst\n",
        )
        .write(".gitmodules", "[submodule \"s\"]\n\tpath = s\n\turl = ext::sh -c touch% /tmp/x\n")
        .write("large", noise(3 << 20));
    repository
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

fn paths(checkout: &GitCheckout) -> Vec<&str> {
    checkout.definitions.iter().map(|definition| definition.path.as_str()).collect()
}

/// What every checkout of [`repository`] must be.
fn check(checkout: &GitCheckout) {
    assert_eq!(paths(checkout), ["alias.yaml", "ident.yaml", "plain.yaml", "same.yaml", "zlib.yaml"]);
    let named = |path: &str| checkout.definitions.iter().find(|definition| definition.path == path).unwrap();
    assert_eq!(named("zlib.yaml").text, definition("zlib"));
    assert_eq!(named("same.yaml").text, definition("plain"));
    assert!(named("ident.yaml").text.starts_with("# $Id$\n"), "no filter touches it");
    assert_eq!(named("plain.yaml").source_dir, None);
    let pipelines: Vec<&str> = checkout.pipelines.keys().map(String::as_str).collect();
    assert_eq!(pipelines, ["own/do.yaml", "package.yaml"]);
    let folder = named("zlib.yaml").source_dir.as_deref().unwrap();
    assert_eq!(named("alias.yaml").source_dir.as_deref(), Some(folder), "one folder for both");
    let listed = sources::list(folder).unwrap();
    let files: Vec<(&str, u32)> = listed.files.iter().map(|file| (file.path.as_str(), file.mode())).collect();
    assert_eq!((files, listed.links), (vec![("fix.patch", 0o644), ("tools/run", 0o755)], 0));
    assert_eq!(fs::read_to_string(folder.join("fix.patch")).unwrap(), "--- a\n+++ b\n");
    assert_eq!(sources::pack(folder).unwrap().unwrap().files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_of_a_pinned_commit_come_over_https_and_nothing_else_comes() {
    let repository = repository(true);
    let first = repository.commit();
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.git(&["update-ref", "refs/pull/7/head", &first]);
    repository.write("zlib.yaml", definition("later"));
    let second = repository.commit();
    let server = GitServer::start_with_tls(Behaviour::Serve(repository.root().to_owned()));
    let authority = tempfile::NamedTempFile::new().unwrap();
    fs::write(authority.path(), server.authority.as_deref().unwrap()).unwrap();
    let mut policy = policy();
    policy.allow_http = false;
    policy.authorities = Some(authority.path().to_owned());
    let fetching = Fetching::new(policy);
    let url = server.url("work/.git");
    for reference in ["v1", "pull/7/head", "refs/tags/v1", "refs/pull/7/head", &first] {
        let before = server.sent();
        let checkout = fetching.fetch(&url, reference).await.unwrap();
        assert_eq!(
            (checkout.commit.as_str(), checkout.url.as_str()),
            (first.as_str(), url.as_str()),
            "{reference}"
        );
        check(&checkout);
        let sent = server.sent() - before;
        assert!(sent < 64 << 10, "{sent} bytes came, the file that nobody asked for among them");
    }
    for reference in ["", "HEAD", "main", "refs/heads/main"] {
        let checkout = fetching.fetch(&url, reference).await.unwrap();
        assert_eq!(checkout.commit, second, "{reference}");
        assert!(checkout.definitions.iter().any(|read| read.text == definition("later")));
    }
    assert_eq!(fetching.left(), [""; 0], "folders go with their checkouts");
    // With the authorities of the system alone it is nobody.
    let error = Fetching::new(self::policy()).fetch(&url, "main").await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Untrusted, Some(Blame::Definition)), "{error}");
}

/// Over http, so that the test needs no certificates; so do those below.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_leave_files_out_and_folders_of_this_machine_do_too() {
    let repository = repository(false);
    let commit = repository.commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let mut policy = policy();
    policy.files = LocalAccess::Below(vec![repository.root().canonicalize().unwrap()]);
    let fetching = Fetching::new(policy);
    let local = repository.root().join("work").display().to_string();
    for url in [server.url("work/.git"), local.clone(), format!("file://{local}")] {
        for reference in [commit.as_str(), "main"] {
            let checkout = fetching.fetch(&url, reference).await.unwrap();
            assert_eq!(checkout.commit, commit);
            check(&checkout);
        }
    }
    let error = Fetching::new(self::policy()).fetch(&local, "main").await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::PermissionDenied, Some(Blame::Policy)));
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_definitions_in_folders() {
    let repository = repository(true);
    repository.commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let fetching = Fetching::new(policy());
    let fetch = async |glob: &str| {
        let mut source = GitSource::new(server.url("work/.git"));
        glob.clone_into(&mut source.glob);
        fetching.fetcher.fetch(&source, &CancellationToken::new()).await
    };
    let checkout = fetch("os/*.yaml").await.unwrap();
    assert_eq!(paths(&checkout), ["os/inner.yaml"]);
    let folder = checkout.definitions[0].source_dir.as_deref().unwrap();
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "x");
    assert_eq!(paths(&fetch("{zlib,plain,notes}.yaml").await.unwrap()), ["plain.yaml", "zlib.yaml"]);
    for glob in ["notes.yaml", "pipelines/*.yaml", ".*.yaml", "nothing"] {
        let error = fetch(glob).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::NotFound, Some(Blame::Definition)),
            "{glob}: {error}"
        );
    }
    assert_eq!(fetch("[").await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_and_what_means_two_things_too() {
    let repository = repository(true);
    let commit = repository.commit();
    repository.git(&["tag", "both"]);
    repository.git(&["branch", "both"]);
    let blob = repository.git(&["rev-parse", "HEAD:zlib.yaml"]);
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let fetching = Fetching::new(policy());
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    for (path, reference, kind) in [
        ("work/.git", "nothing", ErrorKind::NotFound),
        ("work/.git", "pull/8/head", ErrorKind::NotFound),
        ("work/.git", &commit[..12], ErrorKind::NotFound),
        ("work/.git", unknown, ErrorKind::NotFound),
        ("work/.git", &blob, ErrorKind::InvalidRequest),
        ("work/.git", "both", ErrorKind::InvalidRequest),
        ("elsewhere.git", "main", ErrorKind::NotFound),
    ] {
        let error = fetching.fetch(&server.url(path), reference).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (kind, Some(Blame::Definition)),
            "{path} {reference}: {error:?}"
        );
        assert!(error.to_string().contains(&server.url(path)), "{error}");
    }
    assert_eq!(fetching.fetch(&server.url("work/.git"), "refs/heads/both").await.unwrap().commit, commit);
    assert_eq!(fetching.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_would_be_options_or_programs_are_neither() {
    let repository = repository(true);
    repository.commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let fetching = Fetching::new(policy());
    let touched = fetching.state.path().join("touched");
    let touch = format!("touch {}", touched.display());
    for reference in
        [format!("--upload-pack={touch}"), "--upload-pack=x".to_owned(), format!("-c core.x={touch}")]
    {
        let error = fetching.fetch(&server.url("work/.git"), &reference).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::InvalidRequest, Some(Blame::Definition)),
            "{reference}"
        );
    }
    let percent = touch.replace(' ', "% ");
    for url in [
        format!("ext::sh -c {percent}"),
        format!("ext::sh%20-c%20{percent}"),
        format!("--upload-pack={touch}"),
        format!("ssh://-oProxyCommand={}/x", touch.replace(' ', "$IFS")),
        format!("file://{}", repository.root().display()),
        "git://127.0.0.1/x".to_owned(),
    ] {
        let error = fetching.fetch(&url, "main").await.unwrap_err();
        let kinds = [ErrorKind::InvalidRequest, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&error.kind()), "{url}: {error:?}");
    }
    assert!(!touched.exists());
    assert_eq!(server.asked(), [""; 0], "nothing connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_out_of_the_repository_are_refused() {
    for (link, target) in [("zlib", "/etc"), ("zlib", "../../../../etc"), ("bad.yaml", "/etc/passwd")] {
        let repository = Repository::new(true);
        repository.write("zlib.yaml", definition("zlib")).link(link, target);
        repository.commit();
        let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
        let fetching = Fetching::new(policy());
        let error = fetching.fetch(&server.url("work/.git"), "main").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::InvalidRequest, Some(Blame::Definition)),
            "{target}"
        );
        assert!(
            error.to_string().contains(&format!("{link} is a link that leads out of the repository")),
            "{error}"
        );
        assert_eq!(fetching.left(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    // A definition that nobody would write, which compresses well.
    let repository = Repository::new(true);
    let text = definition("huge") + &"#".repeat(limits::DEFINITION_BYTES_MAX);
    repository.write("huge.yaml", text).commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let error = Fetching::new(policy()).fetch(&server.url("work/.git"), "main").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.blamed()),
        (ErrorKind::LimitExceeded, Some(Blame::Definition)),
        "{error}"
    );
    assert!(error.to_string().contains("huge.yaml"), "{error}");
    // More than may lie on the disk: the program that writes it is ended.
    let repository = Repository::new(true);
    repository.write("a.yaml", definition("a")).write("a/large", noise(3 << 20)).commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let mut policy = policy();
    policy.bytes_max = 1 << 20;
    let fetching = Fetching::new(policy);
    let error = fetching.fetch(&server.url("work/.git"), "main").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.blamed()),
        (ErrorKind::LimitExceeded, Some(Blame::Definition)),
        "{error}"
    );
    assert_eq!(fetching.left(), [""; 0]);
}

/// Four levels of forty folders that are one and the same: a few kilobytes for git, two million names.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_multiplies_is_refused() {
    let repository = Repository::new(true);
    repository.write("a.yaml", definition("a")).commit();
    let blob = repository.git(&["rev-parse", "HEAD:a.yaml"]);
    let mut kind = ("100644 blob", blob);
    for _ in 0..4 {
        let lines: String = (0..40).map(|n| format!("{} {}\tn{n}\n", kind.0, kind.1)).collect();
        let list = repository.root().join("list");
        fs::write(&list, lines).unwrap();
        let tree = repository.git(&["-c", "alias.t=!git mktree < ../list", "t"]);
        kind = ("040000 tree", tree);
    }
    let commit = repository.git(&["commit-tree", "-m", "x", &kind.1]);
    repository.git(&["update-ref", "refs/heads/bomb", &commit]);
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let fetching = Fetching::new(policy());
    let error = fetching.fetch(&server.url("work/.git"), "bomb").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.blamed()),
        (ErrorKind::LimitExceeded, Some(Blame::Definition)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_left_with_all_that_was_started() {
    let server = GitServer::start(Behaviour::Silent);
    let mut policy = policy();
    policy.timeout = Duration::from_secs(1);
    let url = server.url(&format!("{}.git", marker()));
    let fetching = Fetching::new(policy);
    let begun = Instant::now();
    let error = fetching.fetch(&url, "main").await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Unavailable, Some(Blame::Farm)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_until(Duration::from_secs(5), || processes_with(&url).is_empty()).await;
    assert_eq!(fetching.left(), [""; 0]);
    // The same for somebody who does not want it any more.
    let fetching = Fetching::new(self::policy());
    let url = server.url(&format!("{}.git", marker()));
    let (cancel, source, asked) = (CancellationToken::new(), GitSource::new(&url), server.asked().len());
    let fetch = fetching.fetcher.fetch(&source, &cancel);
    let cancelling = async {
        wait_until(Duration::from_secs(20), || server.asked().len() > asked).await;
        assert!(!processes_with(&url).is_empty(), "a helper of git has the address as its argument");
        cancel.cancel();
    };
    let (fetched, ()) = tokio::join!(fetch, cancelling);
    assert_eq!(fetched.unwrap_err().kind(), ErrorKind::Cancelled);
    wait_until(Duration::from_secs(5), || processes_with(&url).is_empty()).await;
    assert_eq!(fetching.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_and_so_is_the_way_to_them_by_a_redirection() {
    let repository = repository(true);
    repository.commit();
    let private = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let mut strict = policy();
    strict.addresses = melange_remote_sdk::rootfs::addresses::AddressPolicy::default();
    let by_name = format!("http://localhost:{}/work/.git", private.address.port());
    for url in [private.url("work/.git"), by_name] {
        let error = Fetching::new(strict.clone()).fetch(&url, "main").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::PermissionDenied, Some(Blame::Policy)),
            "{error}"
        );
    }
    let public =
        GitServer::start(Behaviour::Redirect(private.url("work/.git/info/refs?service=git-upload-pack")));
    let error = Fetching::new(policy()).fetch(&public.url("a.git"), "main").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.blamed()),
        (ErrorKind::PermissionDenied, Some(Blame::Definition)),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("leads to {}", private.url("work/.git"))), "{error}");
    assert_eq!((public.asked().len(), private.asked().len()), (2, 0), "once more, to learn where it leads");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_are_followed_on_the_same_host_and_a_few_times() {
    let repository = repository(true);
    let commit = repository.commit();
    let to = |place: &str| format!("{place}/info/refs?service=git-upload-pack");
    let moved = vec![
        ("/old.git/", to("http://{host}/older.git")),
        ("/older.git/", to("/work/.git")),
        ("/round.git/", to("/round.git")),
        ("/page.git/", "/login?back=page".to_owned()),
        ("/port.git/", to("http://127.0.0.1:1/work/.git")),
        ("/name.git/", to("http://localhost/work/.git")),
    ];
    let server = GitServer::start(Behaviour::Moved(repository.root().to_owned(), moved));
    let fetching = Fetching::new(policy());
    let checkout = fetching.fetch(&server.url("old.git"), "main").await.unwrap();
    assert_eq!((checkout.commit.as_str(), checkout.url.as_str()), (commit.as_str(), &*server.url("old.git")));
    check(&checkout);
    drop(checkout);
    for (path, words) in [
        ("round.git", "the last of more than 3 redirections"),
        ("page.git", "leads to /login?back=page, which is no repository"),
        (
            "port.git",
            "127.0.0.1:1/work/.git/info/refs?service=git-upload-pack, which is another scheme, host or port",
        ),
        ("name.git", "which is another scheme, host or port"),
    ] {
        let error = fetching.fetch(&server.url(path), "main").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.blamed()),
            (ErrorKind::PermissionDenied, Some(Blame::Definition)),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(fetching.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used_where_they_belong_and_shown_nowhere() {
    let repository = repository(true);
    repository.commit();
    let basic = "Basic bWU6aHVudGVyMg==".to_owned();
    let bearer = "Bearer hunter2".to_owned();
    for (login, secret) in [
        (basic, GitSecret::Basic { user: "me".to_owned(), password: "hunter2".to_owned() }),
        (bearer, GitSecret::Bearer("hunter2".to_owned())),
    ] {
        let server = GitServer::start(Behaviour::ServeTo(repository.root().to_owned(), login));
        let url = server.url("work/.git");
        let mut policy = policy();
        policy.credentials.insert("farm".to_owned(), GitCredential::new("127.0.0.1", secret));
        let wrong = GitSecret::Basic { user: "me".to_owned(), password: "s3cr3t-word".to_owned() };
        policy.credentials.insert("old".to_owned(), GitCredential::new("127.0.0.1", wrong));
        let fetching = Fetching::new(policy);
        let fetch = async |credential: Option<&str>| {
            let mut source = GitSource::new(&url);
            source.credential = credential.map(str::to_owned);
            fetching.fetcher.fetch(&source, &CancellationToken::new()).await
        };
        check(&fetch(Some("farm")).await.unwrap());
        for credential in [None, Some("old")] {
            let error = fetch(credential).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.blamed()),
                (ErrorKind::PermissionDenied, Some(Blame::Definition)),
                "{error}"
            );
            let told = format!("{error:?} {}", error.chain());
            assert!(!told.contains("s3cr3t-word") && !told.contains("bWU6"), "{told}");
        }
        assert_eq!(fetch(Some("nobody")).await.unwrap_err().blamed(), Some(Blame::Policy));
        assert_eq!(fetching.left(), [""; 0], "with the files that held them");
    }
}

/// A program that stands for ssh shows what it is given and speaks with the repository's folder.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_to_the_checked_address_with_the_named_key_and_nothing_of_this_machine() {
    let repository = repository(true);
    let commit = repository.commit();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let script = format!(
        "#!/bin/sh\n{{ printf '%s\\n' \"$@\"; cat \"$2\"; env; }} > {}\nfor last; do :; done\ncd {} && eval \"$last\"\n",
        at("seen").display(),
        repository.root().display()
    );
    fs::write(at("ssh"), script).unwrap();
    fs::set_permissions(at("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut policy = policy();
    policy.programs = format!("{}:{}", folder.path().display(), policy.programs);
    policy.known_hosts = Some(at("known hosts"));
    policy
        .credentials
        .insert("farm".to_owned(), GitCredential::new("localhost", GitSecret::SshKey(at("key"))));
    let path = repository.root().join("work");
    let mut source = GitSource::new(format!("ssh://git@localhost:2222{}", path.display()));
    let fetching = Fetching::new(policy.clone());
    let fetch = async |source: &GitSource| fetching.fetcher.fetch(source, &CancellationToken::new()).await;
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.blamed()),
        (ErrorKind::PermissionDenied, Some(Blame::Policy)),
        "no key: {error}"
    );
    source.credential = Some("farm".to_owned());
    let checkout = fetch(&source).await.unwrap();
    assert_eq!(checkout.commit, commit);
    check(&checkout);
    let seen = fs::read_to_string(at("seen")).unwrap();
    let has = |line: &str| seen.lines().any(|seen| seen.trim() == line);
    for line in [
        "-F",
        "git@localhost",
        "HostName 127.0.0.1",
        "HostKeyAlias localhost",
        "StrictHostKeyChecking yes",
        "BatchMode yes",
        &format!("IdentityFile \"{}\"", at("key").display()),
        &format!("UserKnownHostsFile \"{}\"", at("known hosts").display()),
    ] {
        assert!(has(line), "{line}: {seen}");
    }
    assert!(!seen.contains(env!("CARGO_MANIFEST_DIR")), "no variable of ours: {seen}");
    policy.known_hosts = None;
    let error = Fetching::new(policy).fetcher.fetch(&source, &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("known hosts"), "{error}");
}

/// The real programs: the key of the server is one that is known, and the named key opens it.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_ssh_server_gives_what_it_has_to_the_named_key_and_must_have_the_known_one() {
    let Some(server) = Sshd::start() else { return };
    let repository = repository(true);
    let commit = repository.commit();
    let fetch = async |known: &str, key: &str| {
        let mut policy = policy();
        policy.known_hosts = Some(server.known_hosts(known));
        let secret = GitSecret::SshKey(server.key(key));
        policy.credentials.insert("farm".to_owned(), GitCredential::new("localhost", secret));
        let mut source = GitSource::new(server.url(&repository.root().join("work")));
        source.credential = Some("farm".to_owned());
        let fetching = Fetching::new(policy);
        let fetched = fetching.fetcher.fetch(&source, &CancellationToken::new()).await;
        // The folder of state is there as long as the first of these.
        (fetching, fetched)
    };
    let (_fetching, checkout) = fetch("host", "user").await;
    let checkout = checkout.unwrap();
    assert_eq!(checkout.commit, commit);
    check(&checkout);
    for (known, key, kind, blame) in [
        ("other", "user", ErrorKind::Untrusted, Blame::Policy),
        ("host", "other", ErrorKind::PermissionDenied, Blame::Definition),
    ] {
        let (fetching, fetched) = fetch(known, key).await;
        let error = fetched.unwrap_err();
        assert_eq!((error.kind(), error.blamed()), (kind, Some(blame)), "{known} {key}: {}", error.chain());
        assert_eq!(fetching.left(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_git_says_so() {
    let empty = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", empty.path().join("sh")).unwrap();
    let mut policy = policy();
    policy.programs = empty.path().display().to_string();
    let error = Fetching::new(policy).fetch("http://127.0.0.1:1/a", "main").await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Unsupported, Some(Blame::Farm)), "{error}");
    assert!(error.hint_text().unwrap().contains("install git"));
}

/// Two thirds of a distribution: all definitions, and one of them for a fifteenth of the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_distribution_comes_and_one_definition_of_it_alone() {
    let Some(corpus) = crate::support::corpus::corpus() else { return };
    let repository = Repository::new(true);
    repository.add_folder(corpus);
    let commit = repository.commit();
    let server = GitServer::start(Behaviour::Serve(repository.root().to_owned()));
    let fetching = Fetching::new(policy());
    let mut sent = Vec::new();
    for (glob, count) in [("", crate::support::corpus::definitions(corpus).len()), ("zlib.yaml", 1)] {
        let mut source = GitSource::new(server.url("work/.git"));
        glob.clone_into(&mut source.glob);
        let (begun, before) = (Instant::now(), server.sent());
        let checkout = fetching.fetcher.fetch(&source, &CancellationToken::new()).await.unwrap();
        assert_eq!((checkout.definitions.len(), &checkout.commit), (count, &commit));
        sent.push(server.sent() - before);
        let with_files =
            checkout.definitions.iter().filter(|definition| definition.source_dir.is_some()).count();
        let (took, bytes) = (begun.elapsed(), sent.last().unwrap());
        println!("{count} definitions, {with_files} with files: {bytes} bytes in {took:.2?}");
    }
    assert!(sent[1] * 5 < sent[0], "{sent:?}");
}
