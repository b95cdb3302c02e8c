//! Downloads from a server on this machine that answers what a test wants, and tells what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;
use crate::limits::KEY_BYTES_MAX;

/// A server: each request is kept, the answer depends on its path.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut request = String::new();
                while let Some(Ok(line)) = lines.next()
                    && !line.is_empty()
                {
                    request.push_str(&line);
                    request.push('\n');
                }
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                kept.lock().unwrap().push(request);
                let _ = stream.write_all(answer(&path).as_bytes());
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect(place: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n")
}

fn allowing(places: &[&str]) -> FetchOptions {
    let mut options = FetchOptions::default();
    places.iter().for_each(|place| options.addresses.allow(place).unwrap());
    options
}

async fn fetch(options: FetchOptions, url: &str) -> Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let fetched = HttpFetcher::new(options).unwrap().fetch(url, &path, KEY_BYTES_MAX, Present::Taken).await;
    if fetched.is_err() {
        // Whatever went wrong, nothing is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    fetched.map(|fetched| std::fs::read_to_string(fetched.path).unwrap())
}

#[tokio::test]
async fn private_addresses_are_refused_before_anything_is_sent() {
    let server = Server::start(|_| ok("secret"));
    let port = server.port;
    for host in ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let error = fetch(FetchOptions::default(), &format!("http://{host}:{port}/x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{host}: {error:?}");
        assert!(error.to_string().contains("no public address"), "{error}");
        assert!(error.hint_text().unwrap().contains("--allow-private-address"));
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    for allowed in [allowing(&["127.0.0.0/8"]), allowing(&["127.0.0.1"])] {
        assert_eq!(fetch(allowed, &format!("http://127.0.0.1:{port}/x")).await.unwrap(), "secret");
    }
    assert_eq!(
        fetch(allowing(&["localhost"]), &format!("http://localhost:{port}/x")).await.unwrap(),
        "secret"
    );
}

#[tokio::test]
async fn redirects_do_not_lead_around_the_refusal() {
    let inner = Server::start(|_| ok("secret"));
    let port = inner.port;
    let outer = Server::start(move |path| match path {
        "/address" => redirect(&format!("http://127.0.0.1:{port}/x")),
        "/again" => redirect("/again"),
        _ => ok("fine"),
    });
    // The name is allowed, the address it leads to is not.
    let at = format!("http://localhost:{}", outer.port);
    let error = fetch(allowing(&["localhost"]), &format!("{at}/address")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
    assert_eq!(inner.asked(), Vec::<String>::new());
    assert_eq!(fetch(allowing(&["localhost"]), &format!("{at}/other")).await.unwrap(), "fine");
}

#[tokio::test]
async fn logins_go_to_their_host_and_passwords_into_no_error() {
    let other = Server::start(|_| ok("x"));
    let port = other.port;
    let server = Server::start(move |path| match path {
        "/away" => redirect(&format!("http://localhost:{port}/x")),
        "/locked" => "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => ok("x"),
    });
    let mut options = FetchOptions { addresses: AddressPolicy::allow_any(), ..FetchOptions::default() };
    options.credentials.add_http_auth(&format!("basic:127.0.0.1:{}:user:topsecret2", server.port)).unwrap();
    let at = format!("http://127.0.0.1:{}", server.port);
    let last = |server: &Server| server.asked().last().unwrap().to_lowercase();
    fetch(options.clone(), &format!("{at}/x")).await.unwrap();
    // user:topsecret2
    assert!(last(&server).contains("authorization: basic dxnlcjp0b3bzzwnyzxqy"), "{}", last(&server));
    fetch(options.clone(), &format!("{at}/away")).await.unwrap();
    assert!(!last(&other).contains("authorization"), "{}", last(&other));
    fetch(options.clone(), &format!("http://me:pw@127.0.0.1:{}/x", server.port)).await.unwrap();
    // me:pw
    assert!(last(&server).contains("authorization: basic bwu6chc="), "{}", last(&server));
    let locked = format!("http://me:topsecret@127.0.0.1:{}/locked", server.port);
    let error = fetch(options, &locked).await.unwrap_err();
    let told = format!("{error} {error:?} {}", error.chain());
    assert!(told.contains("me:xxxxx@127.0.0.1") && !told.contains("topsecret"), "{told}");
    assert!(error.hint_text().unwrap().contains("HTTP_AUTH"), "{told}");
}

#[tokio::test]
async fn broken_and_large_answers_leave_nothing_behind() {
    let server = Server::start(|path| match path {
        "/short" => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        _ => ok(&"x".repeat(KEY_BYTES_MAX as usize + 1)),
    });
    let options = FetchOptions { addresses: AddressPolicy::allow_any(), ..FetchOptions::default() };
    let at = format!("http://127.0.0.1:{}", server.port);
    let error = fetch(options.clone(), &format!("{at}/short")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(server.asked().len(), crate::limits::DOWNLOAD_TRIES_MAX as usize);
    let error = fetch(options, &format!("{at}/large")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
}
