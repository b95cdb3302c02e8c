//! The repository of a farm: readers see it whole while jobs publish, over HTTP and in the storage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::job::JobId;
use tokio_util::sync::CancellationToken;

use crate::service::{Service, start_with};

const ARCHS: [(&str, &str); 2] = [("x86_64", "daemon"), ("aarch64", "sandbox")];
/// Jobs of each architecture.
const JOBS: usize = 25;

fn definition(name: &str, epoch: u32, content: &str) -> String {
    format!(
        "package:\n  name: {name}\n  version: \"1.0\"\n  epoch: {epoch}\nenvironment:\n  contents:\n    \
         packages: [busybox]\npipeline:\n  - runs: |\n      d=${{{{targets.destdir}}}}/usr/share/{name}\n      \
         mkdir -p $d\n      echo {content} > $d/content\nsubpackages:\n  - name: {name}-doc\n    pipeline:\n      \
         - runs: |\n          d=${{{{targets.subpkgdir}}}}/usr/share/doc/{name}\n          mkdir -p $d\n          \
         echo {content} > $d/README\n"
    )
}

/// That a package is the one that an index tells of.
fn check(path: &Path, package: &IndexPackage, keyring: &Keyring) {
    let apk = ApkFile::open(path).unwrap();
    apk.verify_signature(keyring).unwrap();
    assert_eq!((Some(apk.control_sha1), apk.size_bytes), (package.control_sha1, package.size_bytes));
}

/// Reads the repository again and again, as apk and as a web server that has the storage would; how often.
async fn read_until(service: &Service, keyring: &Keyring, stop: &CancellationToken) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for round in 1.. {
        let is_last = stop.is_cancelled();
        for (arch, _) in ARCHS {
            let bytes = service.ask("GET", &format!("/apk/{arch}/APKINDEX.tar.gz"), "").await;
            let index = Index::read(&bytes, Some(keyring)).unwrap();
            let names: BTreeSet<String> = index.packages.iter().map(IndexPackage::file_name).collect();
            let before = seen.insert(arch, names.clone()).unwrap_or_default();
            assert!(before.is_subset(&names), "{arch}: {:?} went", before.difference(&names));
            for package in &index.packages {
                let file = package.file_name();
                let sibling = match package.name.strip_suffix("-doc") {
                    Some(name) => format!("{name}-{}.apk", package.version),
                    None => format!("{}-doc-{}.apk", package.name, package.version),
                };
                assert!(names.contains(&sibling), "{file} without {sibling}");
                let bytes = service.ask("GET", &format!("/apk/{arch}/{file}"), "").await;
                let path = folder.path().join(&file);
                std::fs::write(&path, bytes).unwrap();
                check(&path, package, keyring);
            }
            let stored = service.output().join(arch);
            if let Ok(bytes) = std::fs::read(stored.join("APKINDEX.tar.gz")) {
                for package in Index::read(&bytes, Some(keyring)).unwrap().packages {
                    check(&stored.join(package.file_name()), &package, keyring);
                }
            }
        }
        if is_last {
            return round;
        }
    }
    unreachable!("it stops when it is told to")
}

/// What is told of the packages of a job, once that is not about to change.
async fn published(service: &Service, id: JobId) -> (String, String) {
    loop {
        let told = service.client.job(id).await.unwrap().published.expect("it makes packages");
        if told.status != "soon" {
            return (told.status, told.reason.unwrap_or_default());
        }
        // As a client looks again.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_a_whole_repository_while_jobs_publish() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("farm.rsa");
    let pem = generate_key(2048).unwrap();
    std::fs::write(&path, &pem).unwrap();
    let key = SigningKey::from_pem("farm.rsa", pem.as_bytes()).unwrap();
    let mut keyring = Keyring::default();
    keyring.add(&key.public_name(), key.public_pem().unwrap().as_bytes()).unwrap();
    let Some(service) = start_with(&["--signing-key", path.to_str().unwrap()]).await else { return };
    let done = CancellationToken::new();
    let writing = async {
        let mut jobs = Vec::new();
        for number in 0..JOBS {
            for (arch, tier) in ARCHS {
                let config = definition(&format!("p{number}"), 0, "once");
                jobs.push(service.submit(arch, tier, config).await);
            }
        }
        for id in jobs {
            assert_eq!(service.wait(id).await.status, "success");
            assert_eq!(published(&service, id).await, ("yes".to_owned(), String::new()));
        }
        // Other content of the same version stays away; the next epoch comes.
        let (arch, tier) = ARCHS[1];
        let other = service.submit(arch, tier, definition("p0", 0, "twice")).await;
        let next = service.submit(arch, tier, definition("p0", 1, "twice")).await;
        for id in [other, next] {
            assert_eq!(service.wait(id).await.status, "success");
        }
        let (status, reason) = published(&service, other).await;
        assert_eq!(status, "no");
        assert!(reason.starts_with("p0-1.0-r0.apk is there with other content"), "{reason}");
        assert_eq!(published(&service, next).await.0, "yes");
        done.cancel();
    };
    let (rounds, ()) = tokio::join!(read_until(&service, &keyring, &done), writing);
    println!("the repository was read {rounds} times while {} jobs published", 2 * JOBS + 2);
    for (arch, _) in ARCHS {
        let bytes = std::fs::read(service.output().join(arch).join("APKINDEX.tar.gz")).unwrap();
        let index = Index::read(&bytes, Some(&keyring)).unwrap();
        let epochs = if arch == ARCHS[1].0 { 2 } else { 0 };
        assert_eq!(index.packages.len(), 2 * JOBS + epochs, "{arch}");
        assert_eq!(index.description, b"wolfi");
    }
}
