//! npm, with a registry of two packages that the test serves on loopback, and R.

use std::collections::BTreeMap;

use axum::Router;
use axum::http::{StatusCode, Uri};
use serde_json::json;
use sha1::{Digest, Sha1};
use tokio::net::TcpListener;

use super::{Contents, build, failure, try_build};
use crate::support::farm::on_toolchains;

const SCRIPTS: &str = include_str!("../definitions/pipelines/scripts.yaml");

/// `greeter`, which has a program and needs `words`, of which there are two versions.
fn registry() -> BTreeMap<&'static str, BTreeMap<&'static str, Vec<(&'static str, String)>>> {
    let manifest = |value: serde_json::Value| ("package.json", value.to_string());
    let greeter = json!({
        "name": "greeter", "version": "1.0.0", "bin": {"greeter": "cli.js"}, "dependencies": {"words": "^1.0.0"}
    });
    let program = "#!/usr/bin/env node\nconsole.log(require('words'))\n".to_owned();
    let words = |version: &'static str| {
        let manifest = manifest(json!({"name": "words", "version": version}));
        (version, vec![manifest, ("index.js", format!("module.exports = 'hello from {version}'\n"))])
    };
    BTreeMap::from([
        ("greeter", BTreeMap::from([("1.0.0", vec![manifest(greeter), ("cli.js", program)])])),
        ("words", BTreeMap::from([words("1.0.0"), words("1.1.0")])),
    ])
}

/// A package as npm wants it.
fn tarball(files: &[(&str, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, format!("package/{name}"), text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// The answer to a request: what is known of a package, or one version of it.
fn answer(path: &str, origin: &str) -> Option<Vec<u8>> {
    let registry = registry();
    let mut parts = path.trim_start_matches('/').split('/');
    let name = parts.next()?;
    let versions = registry.get(name)?;
    if parts.next() == Some("-") {
        let version = parts.next()?.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".tgz")?;
        return versions.get(version).map(|files| tarball(files));
    }
    let mut about = serde_json::Map::new();
    for (version, files) in versions {
        let mut manifest: serde_json::Value = serde_json::from_str(&files[0].1).unwrap();
        let place = format!("{origin}/{name}/-/{name}-{version}.tgz");
        manifest["dist"] = json!({"tarball": place, "shasum": hex::encode(Sha1::digest(tarball(files)))});
        about.insert((*version).to_owned(), manifest);
    }
    let latest = versions.keys().next_back()?;
    Some(json!({"name": name, "dist-tags": {"latest": latest}, "versions": about}).to_string().into_bytes())
}

/// Serves the registry for as long as the runtime lives; tells where.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let here = origin.clone();
    let registry = Router::new().fallback(move |uri: Uri| {
        let found = answer(uri.path(), &origin);
        async move { found.ok_or(StatusCode::NOT_FOUND) }
    });
    tokio::spawn(async move { axum::serve(listener, registry).await.unwrap() });
    here
}

#[test]
fn r_and_npm_packages_are_installed() {
    on_toolchains(async |farm| {
        let yaml = SCRIPTS.replace("@registry@", &serve().await);
        let Some(built) = build(farm, "scripts", &yaml).await else { return };
        println!("{}", built.events.text());
        let _ = (Contents::of(&built, "scripts-1.0.0-r0"), failure, try_build);
    });
}
