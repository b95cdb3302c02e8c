//! The files beside definitions: sent by digest, checked before they get their name, needed before a job names them.

use melange_remote_sdk::apk::tar_writer::{EntryType, Header, TarWriter};
use melange_remote_sdk::artifact_storage::layout::{SOURCES_FOLDER, source_key};
use melange_remote_sdk::job::SourceDigest;
use melange_remote_sdk::sources;

use super::*;

/// An archive of one file, with its digest.
fn archive(name: &str, content: &[u8]) -> (SourceDigest, Vec<u8>) {
    let mut tar = TarWriter::new(Vec::new());
    let header = Header { size: content.len() as u64, ..Header::new(name, EntryType::File, 0o644) };
    tar.append(&header, &mut &content[..]).unwrap();
    named(tar.finish().unwrap())
}

/// Bytes with their digest.
fn named(bytes: Vec<u8>) -> (SourceDigest, Vec<u8>) {
    let hex = melange_remote_sdk::apk::checksum::sha256_hex(&bytes);
    (format!("sha256:{hex}").parse().unwrap(), bytes)
}

impl Service {
    async fn put(&self, digest: impl std::fmt::Display, body: impl Into<Body>) -> Answer {
        let request = Request::put(format!("/api/v1/sources/{digest}"));
        self.send(request.header("content-type", "application/x-tar").body(body.into()).unwrap()).await
    }

    async fn head(&self, digest: impl std::fmt::Display) -> Answer {
        self.ask(Method::HEAD, &format!("/api/v1/sources/{digest}"), Body::empty()).await
    }

    async fn stored(&self) -> usize {
        self.app.artifact_storage.list(&SOURCES_FOLDER.parse().unwrap()).await.unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn an_archive_is_sent_once_and_then_named_by_jobs() {
    let gate = Arc::new(Notify::new());
    let service = Service::start([Act::Wait(Arc::clone(&gate))]);
    let (digest, bytes) = archive("fix.patch", b"--- a\n");
    assert_eq!(service.head(digest).await.status, StatusCode::NOT_FOUND);
    let mut request = hello();
    request["source"] = json!(digest.to_string());
    let refused = service.post("/api/v1/jobs", &request).await;
    insta::assert_snapshot!("unknown_source", refusal(&refused));
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let answer = service.put(digest, bytes.clone()).await;
        assert_eq!(answer.status, status);
        let view = json!({ "digest": digest.to_string(), "size": 2048, "files": 1 });
        assert_eq!(answer.json(), view);
    }
    let head = service.head(digest).await;
    assert_eq!((head.status, head.header(header::CONTENT_LENGTH)), (StatusCode::OK, "2048"));
    let got = service.get(&format!("/api/v1/sources/{digest}")).await;
    assert_eq!((got.bytes, got.headers["content-type"].to_str().unwrap()), (bytes, "application/x-tar"));
    let id = service.submit(&request).await;
    gate.notify_one();
    let job = service.wait(&id, "success").await;
    assert_eq!(job["spec"]["source"], digest.to_string());
    let listed = service.get("/api/v1/jobs").await.json();
    assert_eq!(listed[0]["spec"]["source"], digest.to_string());
    let log = service.get(&format!("/api/v1/jobs/{id}/logs")).await.text();
    assert!(log.contains(&format!("1 file of 6 bytes beside the definition ({digest})")), "{log}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_archive_of_source_files_gets_no_name() {
    let service = Service::start([]);
    let (digest, bytes) = archive("fix.patch", b"--- a\n");
    let (other, _) = archive("fix.patch", b"--- b\n");
    let wrong = service.put(other, bytes.clone()).await;
    insta::assert_snapshot!("wrong_digest", refusal(&wrong));
    let (out, hostile) = archive("../../etc/cron.d/x", b"x");
    insta::assert_snapshot!("hostile_archive", refusal(&service.put(out, hostile).await));
    let (nothing, text) = named(b"this is no tar".to_vec());
    assert_eq!(service.put(nothing, text).await.status, StatusCode::BAD_REQUEST);
    let deep: Vec<String> = (0..200).map(|number| format!("{number}{}", "/d".repeat(1_000))).collect();
    let mut tar = TarWriter::new(Vec::new());
    for name in &deep {
        tar.append(&Header::new(name, EntryType::File, 0o644), &mut std::io::empty()).unwrap();
    }
    let (many, folders) = named(tar.finish().unwrap());
    assert_eq!(service.put(many, folders).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for name in
        ["x", "sha256:", &digest.hex(), &format!("md5:{}", digest.hex()), &digest.to_string().to_uppercase()]
    {
        assert_eq!(service.put(name, bytes.clone()).await.status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(service.head(name).await.status, StatusCode::BAD_REQUEST, "{name}");
    }
    let path = format!("/api/v1/sources/{digest}");
    let typed = service.ask(Method::PUT, &path, bytes.clone()).await;
    assert_eq!(typed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "it came as JSON");
    let mut request = hello();
    request["source"] = json!("sha256:1");
    let refused = service.post("/api/v1/jobs", &request).await;
    assert_eq!(refused.json()["error"]["details"][0]["field"], "source");
    assert_eq!(service.stored().await, 0);
    // Something else under the name is no archive of this digest, and is replaced.
    let key = source_key(&digest).unwrap();
    let junk = futures_util::stream::iter([Ok("junk".into())]).boxed();
    service.app.artifact_storage.put(&key, junk).await.unwrap();
    assert_eq!(service.head(digest).await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.put(digest, bytes).await.status, StatusCode::CREATED);
    assert_eq!(service.head(digest).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn archives_have_a_bound_a_time_and_a_room() {
    let service = Service::start([]);
    let (digest, bytes) = archive("fix.patch", b"--- a\n");
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 16 << 20]));
    assert_eq!(service.put(digest, Body::from_stream(endless)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let stalled = futures_util::stream::pending::<std::io::Result<Vec<u8>>>();
    assert_eq!(service.put(digest, Body::from_stream(stalled)).await.status, StatusCode::REQUEST_TIMEOUT);
    let room = u32::try_from(limits::SOURCE_ARCHIVES_BYTES_MAX >> 10).unwrap();
    let held = service.app.archives.try_acquire_many(room).unwrap();
    let refused = service.put(digest, bytes.clone()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header(header::RETRY_AFTER), "5");
    drop(held);
    assert_eq!(service.put(digest, bytes.clone()).await.status, StatusCode::CREATED);
    assert_eq!(service.app.archives.available_permits(), room as usize, "the room comes back");
    service.app.stopping.cancel();
    assert_eq!(service.put(digest, bytes).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// The client over a real connection: what it packs is what the server keeps.
#[tokio::test]
async fn a_client_sends_what_the_server_does_not_have() {
    let service = Service::start([]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client =
        melange_remote_sdk::client::Client::new(&format!("http://{}", listener.local_addr().unwrap()));
    let client = client.unwrap();
    tokio::spawn(melange_server::serve(listener, service.app.clone(), service.shutdown.clone()));
    let folder = tempfile::tempdir().unwrap();
    // More than one chunk of it.
    let content: Vec<u8> = (0..700_000u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(folder.path().join("large"), &content).unwrap();
    let packed = sources::pack(folder.path()).unwrap().unwrap();
    assert!(!client.has_sources(&packed.digest).await.unwrap());
    assert!(client.send_sources(&packed).await.unwrap());
    assert!(client.has_sources(&packed.digest).await.unwrap());
    assert!(!client.send_sources(&packed).await.unwrap());
    let (to, storage) = (tempfile::tempdir().unwrap(), &service.app.artifact_storage);
    let fetched = sources::SourceFolders::below(to.path()).fetch(&**storage, packed.digest).await.unwrap();
    assert_eq!(std::fs::read(fetched.path().join("large")).unwrap(), content);
}
