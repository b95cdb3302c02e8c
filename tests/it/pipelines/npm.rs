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

/// Files by their names.
type Files = Vec<(&'static str, String)>;

/// `greeter`, which has a program and needs `words`, of which there are two versions.
fn registry() -> BTreeMap<&'static str, BTreeMap<&'static str, Files>> {
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
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
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
fn serve(listener: TcpListener) -> String {
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
        let yaml = SCRIPTS.replace("@registry@", &serve(farm.listener()));
        let Some(built) = build(farm, "scripts", &yaml).await else { return };
        assert_eq!(built.events.lines_of("scripts: run"), ["hello there "]);
        let words = Contents::of(&built, "scripts-1.0.0-r0");
        assert!(words.text("usr/lib/R/library/words/DESCRIPTION").contains("Version: 1.0.0\n"));

        assert_eq!(built.events.lines_of("npm-greeter: run"), ["hello from 1.1.0"]);
        let greeter = Contents::of(&built, "npm-greeter-1.0.0-r0");
        assert_eq!(greeter.entry("usr/bin/greeter").link(), "../lib/node_modules/greeter/cli.js");
        assert_eq!(greeter.entry("usr/lib/node_modules/greeter/cli.js").mode(), 0o755);
        let program = "usr/lib/node_modules/greeter/node_modules/words/index.js";
        assert_eq!(greeter.text(program), "module.exports = 'hello from 1.1.0'\n");

        let overridden = built.events.lines_of("npm-overridden: run");
        assert_eq!(
            overridden,
            ["hello from 1.0.0", ".:", "node_modules", "", "node_modules:", ".bin", "greeter"]
        );
        let opt = Contents::of(&built, "npm-overridden-1.0.0-r0");
        let program = "opt/greeter/lib/node_modules/greeter/node_modules/words/index.js";
        assert_eq!(opt.text(program), "module.exports = 'hello from 1.0.0'\n");

        for (step, message, from, to) in [
            (
                "npm-greeter: npm/install",
                "No matching version",
                "version: ${{package.version}}\n      - name",
                "version: 9.9.9\n      - name",
            ),
            ("npm-overridden: npm/install", "the override words has no version", "words@1.0.0", "words"),
            ("scripts: R/build", "words 1.0.0 was not installed", "join <- ", "join <- )"),
        ] {
            let changed = yaml.replacen(from, to, 1);
            assert_ne!(changed, yaml);
            let (failed, tail) = failure(&try_build(farm, "scripts", &changed).await.unwrap());
            assert_eq!(failed, step);
            assert!(tail.contains(message), "no {message:?} in:\n{tail}");
        }
    });
}
