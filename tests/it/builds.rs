//! Builds of many packages through the real service: a BuildKit daemon builds for one architecture, the sandbox for
//! another one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use melange_remote_sdk::api::v2::{BuildPackageView, BuildView, CreateBuildRequest};
use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::builder::{EnvironmentLock, LockedPackage};
use melange_remote_sdk::client::{EventFilter, PackagesQuery};
use melange_remote_sdk::error::ErrorKind;
use melange_remote_sdk::job::{BuildId, JobId};
use melange_remote_sdk::sources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::service::{Service, start, start_with};

const ARCHS: [&str; 2] = ["x86_64", "aarch64"];

/// A definition that keeps what its environment has of the others, and adds its own name.
fn definition(name: &str, version: &str, needs: &[&str]) -> String {
    let packages: String = needs.iter().map(|need| format!(", {need}")).collect();
    format!(
        "package:\n  name: {name}\n  version: \"{version}\"\n  epoch: 0\nenvironment:\n  contents:\n    \
         packages: [busybox{packages}]\npipeline:\n  - runs: |\n      d=${{{{targets.destdir}}}}/usr/share/{name}\n      \
         mkdir -p $d\n      cat /usr/share/*/made > $d/made 2>/dev/null || true\n      echo {name}-{version} >> $d/made\n\
         subpackages:\n  - name: {name}-doc\n    pipeline:\n      - runs: |\n          \
         mkdir -p ${{{{targets.subpkgdir}}}}/usr/share/doc\n          echo {name} > ${{{{targets.subpkgdir}}}}/usr/share/doc/{name}\n"
    )
}

fn request(definitions: &[(&str, &str, &[&str])]) -> CreateBuildRequest {
    let mut request = CreateBuildRequest::default();
    for (name, version, needs) in definitions {
        let text = definition(name, version, needs);
        request.source.definitions.insert(format!("{name}.yaml"), text);
    }
    request.options.architectures = ARCHS.map(str::to_owned).to_vec();
    request
}

impl Service {
    /// Hands a build in and sees it to its end.
    async fn build(&self, request: &CreateBuildRequest) -> (BuildId, BuildView) {
        let told = self.client.create_build(request).await.unwrap();
        let id: BuildId = told.build_id.expect("there is something to build").parse().unwrap();
        self.client.follow_events(EventFilter::of_build(id), &mut |_| Ok(())).await.unwrap();
        let view = self.client.build(id).await.unwrap();
        if view.status != "success" {
            let failed = self.client.build_packages(id, &PackagesQuery::with_status("failed")).await.unwrap();
            panic!("{}: {:#?}", view.status, failed.packages);
        }
        (id, view)
    }

    async fn package_of(&self, build: BuildId, name: &str, arch: &str) -> (BuildPackageView, JobId) {
        let view = self.client.build_package(build, name, Some(arch)).await.unwrap();
        let job = view.job_id.as_deref().unwrap().parse().unwrap();
        (view, job)
    }

    /// The environment that a package was built in, by the names of its packages.
    async fn environment(&self, build: BuildId, name: &str, arch: &str) -> BTreeMap<String, LockedPackage> {
        let (_, job) = self.package_of(build, name, arch).await;
        let artifacts = self.client.artifacts(job).await.unwrap();
        let lock = artifacts.iter().find(|artifact| artifact.name == "environment.lock.json").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.json");
        self.client.download(job, lock, &path).await.unwrap();
        let lock: EnvironmentLock = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(
            !lock.repositories.is_empty() && lock.repositories.iter().all(|it| it.index_sha256.len() == 64)
        );
        assert!(lock.packages.iter().all(|package| package.repository.is_some() != package.job.is_some()));
        lock.packages.into_iter().map(|package| (package.name.clone(), package)).collect()
    }

    /// The packages of a build by architecture and name, with their checksums.
    async fn made(&self, build: BuildId) -> BTreeMap<String, String> {
        let page = self.client.build_packages(build, &PackagesQuery::default()).await.unwrap();
        let mut made = BTreeMap::new();
        for package in page.packages {
            let job = package.job_id.unwrap().parse().unwrap();
            let artifacts = self.client.artifacts(job).await.unwrap();
            let apks = artifacts.into_iter().filter(|artifact| artifact.name.ends_with(".apk"));
            made.extend(apks.map(|artifact| (artifact.name, artifact.sha256)));
        }
        made
    }

    /// Puts all packages of a build into the repository that requests may name, behind what is there.
    async fn publish(&self, build: BuildId, key: &SigningKey) {
        let page = self.client.build_packages(build, &PackagesQuery::default()).await.unwrap();
        for package in page.packages {
            let job = package.job_id.unwrap().parse().unwrap();
            for artifact in self.client.artifacts(job).await.unwrap() {
                if artifact.name.ends_with(".apk") {
                    let path = self.published().join(&artifact.name);
                    self.client.download(job, &artifact, &path).await.unwrap();
                }
            }
        }
        for arch in ARCHS {
            write_index(&self.published().join(arch), key);
        }
    }
}

impl Service {
    /// The body of an answer that says yes, as any program gets it.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.host).await.unwrap();
        let (host, length) = (&self.host, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        let described = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{described}{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]);
        assert!(head.starts_with("HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer));
        assert!(head.contains("content-length: "), "{head}");
        answer.split_off(end)
    }
}

/// Writes the signed index of a folder of packages.
fn write_index(folder: &Path, key: &SigningKey) {
    let mut index = Index::default();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "apk")) {
        index.put(IndexPackage::from_apk(&ApkFile::open(path).unwrap()));
    }
    std::fs::write(folder.join("APKINDEX.tar.gz"), index.write(Some(key)).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_are_built_with_what_was_just_built_and_only_what_changed_is_built_again() {
    let Some(service) = start().await else { return };
    let chain: [(&str, &str, &[&str]); 4] =
        [("aa", "1.0", &[]), ("bb", "1.0", &["aa"]), ("cc", "1.0", &["bb", "aa-doc"]), ("dd", "1.0", &[])];
    let (first, view) = service.build(&request(&chain)).await;
    assert_eq!((view.counts.total, view.counts.success, view.counts.cached), (8, 8, 0));
    assert_eq!((view.plan.levels, view.plan.cuts), (3, 0));
    for arch in ARCHS {
        let jobs =
            [service.package_of(first, "aa", arch).await.1, service.package_of(first, "bb", arch).await.1];
        let environment = service.environment(first, "cc", arch).await;
        assert_eq!(environment["aa-doc"].job, Some(jobs[0]), "{arch}");
        assert_eq!(environment["bb"].job, Some(jobs[1]), "{arch}");
        assert!(environment["busybox"].repository.is_some());
        assert!(!environment.contains_key("aa") && !environment.contains_key("dd"), "nobody asked for them");
        assert!(service.environment(first, "aa", arch).await.values().all(|package| package.job.is_none()));
        let subpackage = service.client.build_package(first, "cc-doc", Some(arch)).await.unwrap();
        assert_eq!((subpackage.name.as_str(), subpackage.level), ("cc", Some(2)));
    }
    let several = service.client.build_package(first, "cc", None).await.unwrap_err();
    assert_eq!(several.kind(), ErrorKind::InvalidRequest);
    let made = service.made(first).await;
    assert_eq!(made.len(), 16, "{made:?}");

    let (again, view) = service.build(&request(&chain)).await;
    assert_eq!((view.counts.success, view.counts.cached), (8, 8), "nothing changed");
    assert_eq!(service.made(again).await, made);
    let reused = service.package_of(again, "cc", "x86_64").await.0;
    let maker = service.package_of(first, "cc", "x86_64").await.1;
    assert_eq!(reused.cached_from, Some(maker.to_string()));

    let mut anew = request(&chain);
    anew.options.no_cache = true;
    let (anew, view) = service.build(&anew).await;
    assert_eq!((view.counts.success, view.counts.cached), (8, 0));
    assert_eq!(service.made(anew).await, made, "the same comes to the same bytes");

    let mut changed = chain;
    changed[1].1 = "1.1";
    let (changed, view) = service.build(&request(&changed)).await;
    assert_eq!((view.counts.success, view.counts.cached), (8, 4));
    for (name, is_cached) in [("aa", true), ("bb", false), ("cc", false), ("dd", true)] {
        let package = service.package_of(changed, name, "aarch64").await.0;
        assert_eq!(package.cached, is_cached, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_is_cut_where_something_published_stands_in() {
    let Some(service) = start().await else { return };
    let key = SigningKey::from_pem("published.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
    let public = service.published().join(key.public_name());
    std::fs::write(&public, key.public_pem().unwrap()).unwrap();
    let circle = |version| {
        let mut request = request(&[("left", version, &["right"][..]), ("right", version, &["left"][..])]);
        request.options.extra_repos = vec![service.published().display().to_string()];
        request.options.extra_keys = vec![public.display().to_string()];
        request
    };
    for arch in ARCHS {
        std::fs::create_dir(service.published().join(arch)).unwrap();
        write_index(&service.published().join(arch), &key);
    }
    let refused = service.client.create_build(&circle("1.0")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains("left needs right, right needs left"), "{}", refused.chain());

    let (begin, _) = service.build(&request(&[("left", "0.9", &[][..]), ("right", "0.9", &[][..])])).await;
    service.publish(begin, &key).await;
    for (version, stands_in) in [("1.0", "0.9-r0"), ("1.1", "1.0-r0")] {
        let (build, view) = service.build(&circle(version)).await;
        assert_eq!((view.plan.cuts, view.counts.success), (2, 4), "one cut for each architecture");
        let plan = service.client.build_plan(build).await.unwrap();
        for (arch, cut) in ARCHS.iter().zip(&plan.cuts) {
            assert_eq!((cut.arch.as_str(), cut.cycle.len()), (*arch, 2));
            assert_eq!(cut.stand_in, format!("{}-{stands_in}", cut.to));
            let first = service.environment(build, &cut.from, arch).await;
            assert_eq!(first[&cut.to].version, stands_in);
            assert!(first[&cut.to].repository.is_some(), "the published one stands in");
            let second = service.environment(build, &cut.to, arch).await;
            assert_eq!(second[&cut.from].version, format!("{version}-r0"));
            assert!(second[&cut.from].job.is_some(), "the new one is there");
        }
        service.publish(build, &key).await;
    }
    let nothing = service.client.create_build(&circle("1.1")).await.unwrap();
    assert_eq!((nothing.build_id, nothing.total), (None, 4), "all of it is published");
    assert!(nothing.packages.iter().all(|package| package.status == "skipped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_beside_definitions_go_along_also_those_behind_a_link() {
    let Some(service) = start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("plain");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("greeting"), "hello\n").unwrap();
    std::os::unix::fs::symlink(&beside, folder.path().join("linked")).unwrap();
    let mut request = request(&[("plain", "1.0", &[][..]), ("linked", "1.0", &[][..])]);
    for (path, text) in &mut request.source.definitions {
        *text = text.replace("      mkdir -p $d\n", "      mkdir -p $d\n      grep -q hello greeting\n");
        let name = path.strip_suffix(".yaml").unwrap();
        let packed = sources::pack(&folder.path().join(name)).unwrap().expect("there is a file");
        request.source.sources.insert(name.to_owned(), packed.digest.to_string());
    }
    let unknown = service.client.create_build(&request).await.unwrap_err();
    assert!(unknown.chain().contains("has no source files sha256:"), "{}", unknown.chain());
    service.client.send_sources(&sources::pack(&beside).unwrap().unwrap()).await.unwrap();
    let (_, view) = service.build(&request).await;
    assert_eq!((view.counts.success, view.counts.cached), (4, 0));
    std::fs::write(beside.join("greeting"), "hello again\n").unwrap();
    let packed = sources::pack(&beside).unwrap().unwrap();
    service.client.send_sources(&packed).await.unwrap();
    request.source.sources.insert("plain".to_owned(), packed.digest.to_string());
    let (_, view) = service.build(&request).await;
    assert_eq!((view.counts.success, view.counts.cached), (4, 2), "what has other files is built again");
}

/// A client of melange2 hands in; what it made is the repository that the next build takes packages from.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_build_made_is_a_signed_repository_for_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("farm.rsa");
    let pem = generate_key(2048).unwrap();
    std::fs::write(&path, &pem).unwrap();
    let key = SigningKey::from_pem("farm.rsa", pem.as_bytes()).unwrap();
    let flags = ["--signing-key", path.to_str().unwrap(), "--allow-private-address", "127.0.0.1"];
    let Some(service) = start_with(&flags).await else { return };
    let body = serde_json::json!({
        "configs": [definition("bb", "1.0", &["aa"]), definition("aa", "1.0", &[])], "arch": "x86_64",
        "source_files": { "aa": { "greeting": "hello" } }, "mode": "dag",
    });
    let told = service.ask("POST", "/api/v1/builds", &body.to_string()).await;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["packages"], serde_json::json!(["aa", "bb"]));
    let id = told["id"].as_str().unwrap();
    let path = format!("/api/v1/builds/{id}");
    let build = loop {
        let build: serde_json::Value = serde_json::from_slice(&service.ask("GET", &path, "").await).unwrap();
        if !["pending", "running"].contains(&build["status"].as_str().unwrap()) {
            break build;
        }
        // As its client waits.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(build["status"], "success", "{build:#}");

    let mut keyring = Keyring::default();
    keyring.add(&key.public_name(), key.public_pem().unwrap().as_bytes()).unwrap();
    let index = service.ask("GET", &format!("/apk/builds/{id}/x86_64/APKINDEX.tar.gz"), "").await;
    let index = Index::read(&index, Some(&keyring)).unwrap();
    let names: Vec<&str> = index.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["aa", "aa-doc", "bb", "bb-doc"]);
    for package in &index.packages {
        let bytes = service.ask("GET", &format!("/apk/builds/{id}/x86_64/{}", package.file_name()), "").await;
        let path = folder.path().join(package.file_name());
        std::fs::write(&path, bytes).unwrap();
        let apk = ApkFile::open(&path).unwrap();
        assert_eq!(apk.verify_signature(&keyring).unwrap(), key.public_name());
        assert_eq!((Some(apk.control_sha1), apk.size_bytes), (package.control_sha1, package.size_bytes));
    }

    let mut next = request(&[("cc", "1.0", &["bb", "aa-doc"][..])]);
    next.options.architectures = vec!["x86_64".to_owned()];
    next.options.extra_repos = vec![format!("http://{}/apk/builds/{id}", service.host)];
    next.options.extra_keys = vec![format!("http://{}/apk/keys/farm.rsa.pub", service.host)];
    let (next, _) = service.build(&next).await;
    let environment = service.environment(next, "cc", "x86_64").await;
    for name in ["bb", "aa-doc"] {
        let repository = environment[name].repository.as_deref();
        assert!(repository.is_some_and(|line| line.contains(id)), "{name}: {repository:?}");
    }
}
