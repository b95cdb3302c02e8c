//! The library's own words for what goes wrong, from requests over loopback.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::ObjectArtifactStorage;
use super::*;
use crate::artifact_storage::ArtifactStorage;
use crate::conformance::artifact_storage::{bytes, key};

const NO_BUCKET: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Error><Code>NoSuchBucket</Code>\
     <Message>The specified bucket does not exist</Message><HostId>9G</HostId></Error>";
const AZURE_DENIES: &str = "<?xml version=\"1.0\"?>\n<Error>\n  <Code>AuthorizationFailure</Code>\n  <Message>Server \
     failed to authenticate the request.\nRequestId:e599\nTime:2026</Message>\n</Error>";
const HTML: &str = "<html>\n<body>\n<h1>\u{7}Bad gateway</h1>";

/// A store that answers every request in the same way.
async fn store(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = connection.write_all(answer.as_bytes()).await;
                // What was sent and not read would take the answer with it.
                let _ = connection.shutdown().await;
                let _ = connection.read_to_end(&mut request).await;
            });
        }
    });
    addr
}

fn options(options: &[(&str, &str)]) -> Vec<(String, String)> {
    options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn s3(addr: SocketAddr) -> ObjectArtifactStorage {
    let endpoint = format!("http://u:secret@{addr}");
    let options = options(&[
        ("aws_endpoint", &endpoint),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "secret"),
    ]);
    ObjectArtifactStorage::open("s3://farm/team", &options).unwrap()
}

/// What is told of an error, without the port.
fn told(error: &Error, addr: SocketAddr) -> String {
    let chain = error.chain();
    assert!(!chain.contains('\n') && !chain.contains("secret"), "{chain}");
    let hint = error.hint_text().map(|hint| format!(" [{hint}]")).unwrap_or_default();
    format!("{}: {chain}{hint}", error.kind().code()).replace(&addr.port().to_string(), "PORT")
}

#[tokio::test]
async fn refusals_are_told_in_one_line_with_what_to_do() {
    let mut lines = Vec::new();
    for (status, body) in
        [("404 Not Found", NO_BUCKET), ("403 Forbidden", AZURE_DENIES), ("401 Unauthorized", "")]
    {
        let addr = store(status, body).await;
        let storage = s3(addr);
        lines.push(told(&storage.check().await.unwrap_err(), addr));
        lines.push(told(&storage.put(&key("j/a.apk"), bytes(vec![vec![1]])).await.unwrap_err(), addr));
        lines.push(told(&storage.list(&key("j")).await.unwrap_err(), addr));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    unexpected: cannot use the storage: the bucket or container may not exist: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 404 Not Found, NoSuchBucket: The specified bucket does not exist [create it, or correct its name; it must exist before it is used]
    unexpected: cannot store the artifact j/a.apk: the bucket or container may not exist: s3://farm/team: PUT http://u:xxxxx@127.0.0.1:PORT: 404 Not Found, NoSuchBucket: The specified bucket does not exist [create it, or correct its name; it must exist before it is used]
    unexpected: cannot list the artifacts of j: the bucket or container may not exist: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 404 Not Found, NoSuchBucket: The specified bucket does not exist [create it, or correct its name; it must exist before it is used]
    unexpected: cannot use the storage: access is denied: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 403 Forbidden, AuthorizationFailure: Server failed to authenticate the request. [check the credentials, and that they may list, read, write and remove objects there]
    unexpected: cannot store the artifact j/a.apk: access is denied: s3://farm/team: PUT http://u:xxxxx@127.0.0.1:PORT: 403 Forbidden, AuthorizationFailure: Server failed to authenticate the request. [check the credentials, and that they may list, read, write and remove objects there]
    unexpected: cannot list the artifacts of j: access is denied: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 403 Forbidden, AuthorizationFailure: Server failed to authenticate the request. [check the credentials, and that they may list, read, write and remove objects there]
    unexpected: cannot use the storage: access is denied: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 401 Unauthorized [check the credentials, and that they may list, read, write and remove objects there]
    unexpected: cannot store the artifact j/a.apk: access is denied: s3://farm/team: PUT http://u:xxxxx@127.0.0.1:PORT: 401 Unauthorized [check the credentials, and that they may list, read, write and remove objects there]
    unexpected: cannot list the artifacts of j: access is denied: s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: 401 Unauthorized [check the credentials, and that they may list, read, write and remove objects there]
    ");
}

#[tokio::test]
async fn a_missing_artifact_is_no_missing_bucket() {
    let addr = store("404 Not Found", "").await;
    let error = s3(addr).head(&key("j/a.apk")).await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text(), error.blamed()), (ErrorKind::NotFound, None, None));
    assert_eq!(error.message(), "cannot look up the artifact j/a.apk");
}

#[tokio::test]
async fn what_may_pass_is_unavailable_and_what_will_not_refuses_the_start() {
    let mut lines = Vec::new();
    for status in ["400 Bad Request", "409 Conflict", "418 I'm a teapot"] {
        let addr = store(status, HTML).await;
        let storage = s3(addr);
        lines.push(told(&storage.check().await.unwrap_err(), addr));
        lines.push(told(&storage.put(&key("j/a.apk"), bytes(vec![vec![1]])).await.unwrap_err(), addr));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    unexpected: cannot use the storage: s3://farm/team answered with status 400: GET http://u:xxxxx@127.0.0.1:PORT: 400 Bad Request, <html> <body> <h1> Bad gateway</h1> [check the options and credentials of the storage]
    unavailable: cannot store the artifact j/a.apk: s3://farm/team answered with status 400: PUT http://u:xxxxx@127.0.0.1:PORT: 400 Bad Request, <html> <body> <h1> Bad gateway</h1>
    unavailable: cannot use the storage: s3://farm/team answered with status 409: GET http://u:xxxxx@127.0.0.1:PORT: 409 Conflict, <html> <body> <h1> Bad gateway</h1>
    unavailable: cannot store the artifact j/a.apk: s3://farm/team answered with status 409: PUT http://u:xxxxx@127.0.0.1:PORT: 409 Conflict, <html> <body> <h1> Bad gateway</h1>
    unexpected: cannot use the storage: s3://farm/team answered with status 418: GET http://u:xxxxx@127.0.0.1:PORT: 418 I'm a teapot, <html> <body> <h1> Bad gateway</h1> [check the options and credentials of the storage]
    unavailable: cannot store the artifact j/a.apk: s3://farm/team answered with status 418: PUT http://u:xxxxx@127.0.0.1:PORT: 418 I'm a teapot, <html> <body> <h1> Bad gateway</h1>
    ");
}

#[tokio::test]
async fn nobody_there_is_told_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = s3(addr).check().await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Unavailable, Some(Blame::Farm)));
    insta::assert_snapshot!(told(&error, addr), @"unavailable: cannot use the storage: there is no answer from s3://farm/team: GET http://u:xxxxx@127.0.0.1:PORT: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111) [it may be back later; otherwise check its endpoint and the network, and that credentials are given]");
}

#[tokio::test]
async fn an_address_that_only_the_client_refuses_is_told_as_one() {
    // The file of the account names the address here, which nothing looks at before the first request.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("account.json");
    let account = r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true,
        "gcs_base_url": "http://127.0.0.1:1"}"#;
    std::fs::write(&file, account).unwrap();
    let options =
        options(&[("google_service_account", file.to_str().unwrap()), ("google_allow_http", "false")]);
    let storage = ObjectArtifactStorage::open("gs://farm", &options).unwrap();
    let error = storage.check().await.unwrap_err();
    insta::assert_snapshot!(told(&error, "127.0.0.1:65535".parse().unwrap()), @"unexpected: cannot use the storage: the endpoint has no address that may be used: gs://farm: GET http://127.0.0.1:1: builder error: URL scheme is not allowed [an endpoint begins with https://, or with http:// and the option google_allow_http=true]");
}

#[test]
fn endpoints_that_no_request_would_reach_are_refused_when_the_storage_is_opened() {
    let cases: [(&str, &[(&str, &str)]); 7] = [
        ("s3://b/p", &[("aws_endpoint", "http://h:1")]),
        ("s3://b", &[("AWS_ENDPOINT_URL_S3", "http://u:secret@h:1"), ("aws_allow_http", "no")]),
        ("s3://b", &[("aws_endpoint", "h:9000"), ("aws_allow_http", "true")]),
        ("gs://b", &[("google_base_url", "http://h:1"), ("google_allow_http", "false")]),
        ("az://c", &[("azure_endpoint", "http://h:1/account"), ("azure_storage_account_name", "account")]),
        ("az://c", &[("azure_storage_account_key", "c2VjcmV0")]),
        ("s3://b", &[("aws_colour", "blue")]),
    ];
    let lines: Vec<String> = cases
        .map(|(url, given)| {
            let error = ObjectArtifactStorage::open(url, &options(given)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            told(&error, "127.0.0.1:65535".parse().unwrap())
        })
        .to_vec();
    insta::assert_snapshot!(lines.join("\n"), @r"
    invalid_request: the storage s3://b is not configured well: the endpoint http://h:1 is plain HTTP, which is not allowed [allow it with the option aws_allow_http=true, or use https://]
    invalid_request: the storage s3://b is not configured well: the endpoint http://u:xxxxx@h:1 is plain HTTP, which is not allowed [allow it with the option aws_allow_http=true, or use https://]
    invalid_request: the storage s3://b is not configured well: the endpoint h:9000 has no scheme [an endpoint begins with https:// or http://, such as https://host:9000]
    invalid_request: the storage gs://b is not configured well: the endpoint http://h:1 is plain HTTP, which is not allowed [allow it with the option google_allow_http=true, or use https://]
    invalid_request: the storage az://c is not configured well: the endpoint http://h:1/account is plain HTTP, which is not allowed [allow it with the option azure_allow_http=true, or use https://]
    invalid_request: the storage az://c is not configured well: Generic MicrosoftAzure error: Account must be specified [check its options and the variables that stand for them]
    invalid_request: the storage s3://b is not configured well: Configuration key: 'aws_colour' is not valid for store 'S3'. [check its options and the variables that stand for them]
    ");
    let emulator = options(&[("azure_storage_use_emulator", "true"), ("azure_endpoint", "http://h:1")]);
    ObjectArtifactStorage::open("az://c", &emulator).unwrap();
}

#[test]
fn answers_become_a_line() {
    assert_eq!(answer(NO_BUCKET), "NoSuchBucket: The specified bucket does not exist");
    assert_eq!(answer(AZURE_DENIES), "AuthorizationFailure: Server failed to authenticate the request.");
    assert_eq!(answer("<Error><Code>X</Code></Error>"), "X");
    assert_eq!(answer(r#"{"error":{"code":404,"message":"Not\nhere"}}"#), "Not here");
    assert_eq!(answer(r#"{"error":"invalid_grant","error_description":"Bad JWT"}"#), "Bad JWT");
    assert_eq!(answer(HTML), "<html> <body> <h1> Bad gateway</h1>");
    assert_eq!(answer(""), "");
    let long = answer(&"ü".repeat(1_000));
    assert!(long.len() <= limits::STORE_ANSWER_BYTES_MAX + '…'.len_utf8() && long.ends_with("ü…"));
}
