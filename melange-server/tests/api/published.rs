//! The repository of the farm, as apk and caches ask for it.

use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::publishing::Publisher;

use super::builds::{Planned, content, listed, makes};
use super::*;

const INDEX: &str = "/apk/x86_64/APKINDEX.tar.gz";

/// Publishes what the jobs of a service have made so far.
async fn publish(service: &Planned) {
    let repository = service.app.published.clone().unwrap();
    Publisher::new(repository, Arc::clone(&service.app.job_store)).pass().await.unwrap();
}

async fn asked(service: &Planned, path: &str, name: header::HeaderName, value: &str) -> Answer {
    service.send(Request::get(path).header(name, value).body(Body::empty()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_read_whole_in_parts_and_not_again() {
    let key = SigningKey::from_pem("farm.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
    let mut keyring = Keyring::default();
    keyring.add(&key.public_name(), key.public_pem().unwrap().as_bytes()).unwrap();
    let service = Planned::start(vec![makes("zlib"), makes("curl")], Some(key));
    let empty = service.get(INDEX).await;
    assert_eq!(listed(&empty, Some(&keyring)), [""; 0], "it is there from the beginning");
    let build = service.build(&[("zlib", ""), ("curl", "zlib-dev")]).await;
    service.succeeded(&build, 2).await;
    let view = service.get(&format!("/api/v2/builds/{build}/packages/zlib")).await.json();
    let job = format!("/api/v1/jobs/{}", view["job_id"].as_str().unwrap());
    assert_eq!(service.get(&job).await.json()["published"], json!({ "status": "soon" }));
    publish(&service).await;
    assert_eq!(service.get(&job).await.json()["published"], json!({ "status": "yes" }));

    let whole = service.get(INDEX).await;
    let files = ["curl-1.0-r0.apk", "curl-dev-1.0-r0.apk", "zlib-1.0-r0.apk", "zlib-dev-1.0-r0.apk"];
    assert_eq!(listed(&whole, Some(&keyring)), files);
    let tag = whole.header(header::ETAG);
    assert_ne!(tag, empty.header(header::ETAG));
    assert_eq!(whole.header(header::CONTENT_TYPE), "application/gzip");
    assert_eq!(whole.header(header::CACHE_CONTROL), "no-cache");
    let known = asked(&service, INDEX, header::IF_NONE_MATCH, tag).await;
    assert_eq!((known.status, known.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    let part = asked(&service, INDEX, header::RANGE, "bytes=10-19").await;
    assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, &whole.bytes[10..20]));
    assert_eq!(part.header(header::CONTENT_RANGE), format!("bytes 10-19/{}", whole.bytes.len()));
    let outside = asked(&service, INDEX, header::RANGE, "bytes=999999-").await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    // Who has the first part of another index gets this one from its beginning.
    let of_another =
        Request::get(INDEX).header(header::RANGE, "bytes=10-19").header(header::IF_RANGE, "\"x\"");
    let of_another = service.send(of_another.body(Body::empty()).unwrap()).await;
    assert_eq!((of_another.status, of_another.bytes), (StatusCode::OK, whole.bytes.clone()));

    for file in files {
        let path = format!("/apk/x86_64/{file}");
        let package = service.get(&path).await;
        assert_eq!(package.bytes, content(file.strip_suffix("-1.0-r0.apk").unwrap()));
        assert_eq!(package.header(header::CONTENT_TYPE), "application/vnd.apk");
        let part = asked(&service, &path, header::RANGE, "bytes=4-10").await;
        assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, &b"package"[..]));
        let known = asked(&service, &path, header::IF_NONE_MATCH, package.header(header::ETAG)).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_published_is_not_found() {
    let service = Planned::start(vec![makes("a")], None);
    let build = service.build(&[("a", "")]).await;
    service.succeeded(&build, 1).await;
    publish(&service).await;
    for path in [
        "amd64/APKINDEX.tar.gz",
        "noarch/a-1.0-r0.apk",
        "x86_64/a-1.0-r1.apk",
        "x86_64/APKINDEX",
        "aarch64/a-1.0-r0.apk",
        "x86_64/..%2Fx86_64%2Fa-1.0-r0.apk",
        "x86_64/%00.apk",
    ] {
        let answer = service.get(&format!("/apk/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json()["error"]["hint"].is_string(), "{path}: {}", answer.text());
    }
    let nothing = service.get("/apk/aarch64/APKINDEX.tar.gz").await;
    assert_eq!(listed(&nothing, None), [""; 0], "it lists nothing for other architectures");
    let without = Service::start([]);
    assert_eq!(without.get(INDEX).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}
