//! What is packed comes back as it was, and hostile archives touch nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::artifact_storage::layout::source_key;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::error::{Blame, ErrorKind};
use crate::job::SourceDigest;
use crate::limits;

/// Path, whether it can be executed, content.
type Tree = BTreeMap<String, (bool, Vec<u8>)>;

fn write(folder: &Path, tree: &Tree) {
    for (path, (is_executable, content)) in tree {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = if *is_executable { 0o755 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn read(folder: &Path) -> Tree {
    let files = list(folder).unwrap().files;
    files
        .into_iter()
        .map(|file| {
            let content = fs::read(folder.join(&file.path)).unwrap();
            (file.path, (file.is_executable, content))
        })
        .collect()
}

/// The bytes of an archive as they are sent: twice, since requests are repeated.
fn bytes_of(packed: &PackedSources) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let collect = || async { packed.stream().map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap() };
    let (first, second) = runtime.block_on(async { tokio::join!(collect(), collect()) });
    assert_eq!(first, second);
    first
}

fn archive(mut entries: impl FnMut(&mut TarWriter<Vec<u8>>)) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    entries(&mut tar);
    tar.finish().unwrap()
}

fn file(tar: &mut TarWriter<Vec<u8>>, name: &str, content: &[u8]) {
    let header = Header { size: content.len() as u64, ..Header::new(name, EntryType::File, 0o644) };
    tar.append(&header, &mut &content[..]).unwrap();
}

fn other(tar: &mut TarWriter<Vec<u8>>, name: &str, kind: EntryType, link: &str) {
    tar.append(&Header { link, ..Header::new(name, kind, 0o777) }, &mut io::empty()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_packed_unpacks_as_it_was(
        files in proptest::collection::btree_map(
            "[a-z]{1,3}/([ -.0-~é\n]{1,40}/){0,3}[ -.0-~]{1,120}x",
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..2_000)),
            1..8,
        ),
    ) {
        // No part of a path is special to file systems.
        let plain = |path: &&String| path.split('/').all(|part| !matches!(part, "." | ".."));
        prop_assume!(files.keys().all(|path| plain(&path)));
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(from.path(), &files);
        let packed = pack(from.path()).unwrap().unwrap();
        prop_assert_eq!(packed.files, files.len());
        let bytes = bytes_of(&packed);
        prop_assert_eq!(bytes.len() as u64, packed.size_bytes);
        prop_assert_eq!(SourceDigest::new(Sha256::digest(&bytes).into()), packed.digest);
        let summary = unpack(&bytes[..], to.path()).unwrap();
        let size = files.values().map(|(_, content)| content.len() as u64).sum::<u64>();
        prop_assert_eq!((summary.files, summary.size_bytes), (files.len(), size));
        prop_assert_eq!(&read(to.path()), &files);
        // The digest follows from the files alone: not from modes beyond the one bit, not from where they lie.
        prop_assert_eq!(pack(to.path()).unwrap().unwrap().digest, packed.digest);
    }

    #[test]
    fn broken_archives_never_panic_and_stay_in_their_folder(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        at in any::<prop::sample::Index>(),
        changed in any::<u8>(),
    ) {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let _ = unpack(&bytes[..], &inner);
        // A good one with one byte changed.
        bytes = archive(|tar| { file(tar, "a/b", b"content"); file(tar, "c", b"more"); });
        let at = at.index(bytes.len());
        bytes[at] = changed;
        let again = outer.path().join("again");
        fs::create_dir(&again).unwrap();
        let _ = unpack(&bytes[..], &again);
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
    }
}

#[test]
fn the_digest_of_an_archive_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &Tree::from([
            ("fix.patch".to_owned(), (false, b"--- a\n+++ b\n".to_vec())),
            ("tools/run".to_owned(), (true, b"#!/bin/sh\n".to_vec())),
        ]),
    );
    let packed = pack(folder.path()).unwrap().unwrap();
    assert_eq!((packed.files, packed.links, packed.size_bytes), (2, 0, 3_072));
    let known = "sha256:01a84ca79532568c6a7328e31dc120a2b713563cf99904365c5dd28a682faec1";
    assert_eq!(packed.digest.to_string(), known, "archives that servers know would be sent again");
}

#[test]
fn links_and_empty_folders_are_left_out_and_the_folder_itself_may_be_a_link() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("real");
    fs::create_dir_all(folder.join("empty/inner")).unwrap();
    fs::write(folder.join("kept"), "x").unwrap();
    symlink("/etc/passwd", folder.join("out")).unwrap();
    symlink("kept", folder.join("inside")).unwrap();
    symlink("/", folder.join("root")).unwrap();
    symlink("real", outer.path().join("link")).unwrap();
    for folder in ["real", "link"].map(|name| outer.path().join(name)) {
        let list = list(&folder).unwrap();
        let paths: Vec<&str> = list.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!((paths, list.links), (vec!["kept"], 3));
    }
    let packed = ["real", "link"].map(|name| pack(&outer.path().join(name)).unwrap().unwrap());
    assert_eq!(packed[0].digest, packed[1].digest);
    assert_eq!(packed[0].links, 3);
    assert!(pack(&folder.join("empty")).unwrap().is_none());
    assert!(pack(&outer.path().join("nowhere")).unwrap().is_none());
}

#[test]
fn special_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a-socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = pack(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a-socket is a socket"), "{error}");
    fs::remove_file(socket).unwrap();
    use std::os::unix::ffi::OsStrExt;
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    assert!(pack(folder.path()).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn hostile_archives_are_refused_and_touch_nothing() {
    let long = "x/".repeat(limits::SOURCE_PATH_BYTES_MAX / 2) + "x";
    let wide = "w".repeat(limits::SOURCE_NAME_BYTES_MAX + 1);
    let one = |name: &str| archive(|tar| file(tar, name, b"x"));
    let special = |kind, link: &str| archive(|tar| other(tar, "x", kind, link));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (one("/etc/x"), "begins with a slash"),
        (one("../x"), "leads out"),
        (one("a/../../x"), "leads out"),
        (one("a/.."), "leads out"),
        (one("."), "is no name"),
        (one(&long), "path of the archive"),
        (one(&wide), "a name in the archive"),
        (special(EntryType::Symlink, "/etc"), "is a link"),
        (special(EntryType::Symlink, "y"), "is a link"),
        (special(EntryType::HardLink, "/etc/passwd"), "is a link"),
        (special(EntryType::CharDevice, ""), "is a device"),
        (special(EntryType::BlockDevice, ""), "is a device"),
        (special(EntryType::Fifo, ""), "is a named pipe"),
        (archive(|tar| ["a", "a"].iter().for_each(|name| file(tar, name, b"x"))), "is there twice"),
        (archive(|tar| ["a", "./a"].iter().for_each(|name| file(tar, name, b"x"))), "is there twice"),
        (archive(|tar| ["a", "a/b"].iter().for_each(|name| file(tar, name, b"x"))), "a file and a folder"),
        (archive(|tar| ["a/b", "a"].iter().for_each(|name| file(tar, name, b"x"))), "is there twice"),
        (
            archive(|tar| {
                other(tar, "a", EntryType::Directory, "");
                file(tar, "a", b"x");
            }),
            "is there twice",
        ),
        (
            archive(|tar| {
                let mut header = Header::new("s", EntryType::File, 0o644);
                header.records.insert("GNU.sparse.realsize".to_owned(), b"9000000000000".to_vec());
                tar.append(&header, &mut io::empty()).unwrap();
            }),
            "sparse",
        ),
        ([one("a"), b"behind".to_vec()].concat(), "no archive"),
        (one("a")[..512].to_vec(), "no archive"),
        (
            b"PK\x03\x04 this is something else, and long enough to be read as one block".repeat(20),
            "no archive",
        ),
    ];
    for (bytes, why) in cases {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for error in [check(&bytes[..]).unwrap_err(), unpack(&bytes[..], &inner).unwrap_err()] {
            assert!(error.to_string().contains(why), "{why}: {error}");
            assert!(
                matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::LimitExceeded),
                "{error:?}"
            );
        }
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "{why}");
        assert!(list(&inner).unwrap().links == 0);
    }
}

#[test]
fn large_archives_are_refused_before_they_cost_much() {
    // A size that stands in a header alone costs nothing.
    let mut claimed = archive(|tar| file(tar, "huge", b""));
    let size = limits::SOURCE_ARCHIVE_BYTES_MAX + 1;
    claimed[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    claimed[148..156].copy_from_slice(b"        ");
    let sum: u64 = claimed[..512].iter().map(|byte| u64::from(*byte)).sum();
    claimed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let error = check(&claimed[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // An archive of nothing that goes on for ever.
    let short = archive(|tar| file(tar, "a", b"x"));
    let error = check(io::Read::chain(&short[..], io::repeat(0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // Each of these names a thousand folders.
    let deep = archive(|tar| {
        for number in 0..200 {
            file(tar, &format!("{number}{}", "/d".repeat(1_000)), b"");
        }
    });
    let error = check(&deep[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}

#[test]
fn archives_of_other_tools_are_taken() {
    let bytes = archive(|tar| {
        other(tar, "./", EntryType::Directory, "");
        other(tar, "./b/", EntryType::Directory, "");
        let header = Header {
            size: 1,
            mtime: 7,
            uid: 1_000,
            uname: "me",
            ..Header::new("./b/run", EntryType::File, 0o4_711)
        };
        tar.append(&header, &mut &b"x"[..]).unwrap();
        file(tar, "./a", b"y");
    });
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&bytes[..], folder.path()).unwrap().files, 2);
    let told =
        Tree::from([("a".to_owned(), (false, b"y".to_vec())), ("b/run".to_owned(), (true, b"x".to_vec()))]);
    assert_eq!(read(folder.path()), told);
    let mode = fs::metadata(folder.path().join("b/run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7_022, 0, "no more than a file of ours");
}

async fn put(storage: &dyn ArtifactStorage, digest: SourceDigest, bytes: Vec<u8>) {
    let stream = stream::iter([Ok(Bytes::from(bytes))]).boxed();
    storage.put(&source_key(&digest).unwrap(), stream).await.unwrap();
}

#[tokio::test]
async fn an_archive_is_fetched_checked_and_removed_again() {
    let state = tempfile::tempdir().unwrap();
    let storage = ObjectArtifactStorage::memory();
    let bytes = archive(|tar| file(tar, "a/fix.patch", b"content"));
    let digest = SourceDigest::new(Sha256::digest(&bytes).into());
    let folders = SourceFolders::below(state.path());
    let error = folders.fetch(&storage, digest).await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Gone, Some(Blame::Farm)));
    assert!(error.hint_text().unwrap().contains("submit the definition again"));
    put(&storage, digest, bytes.clone()).await;
    let folder = folders.fetch(&storage, digest).await.unwrap();
    assert!(folder.path().starts_with(state.path().join("sources")));
    assert_eq!(fs::read(folder.path().join("a/fix.patch")).unwrap(), b"content");
    assert_eq!(folder.summary().files, 1);
    // Another process that starts on the same state leaves it alone.
    let other = SourceFolders::below(state.path());
    assert!(folder.path().exists());
    let path = folder.path().to_owned();
    folder.remove().await;
    assert!(!path.exists());
    put(&storage, digest, [bytes, vec![0; 512]].concat()).await;
    let error = folders.fetch(&storage, digest).await.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Untrusted, Some(Blame::Farm)), "{error}");
    drop((folders, other));
    assert_eq!(fs::read_dir(state.path().join("sources")).unwrap().count(), 0, "nothing is left");
}

/// A storage that gives a little of everything, and then says nothing.
#[derive(Debug)]
struct Silent(ObjectArtifactStorage);

#[async_trait::async_trait]
impl ArtifactStorage for Silent {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> crate::error::Result<StoredArtifact> {
        self.0.put(key, bytes).await
    }

    async fn copy_if_absent(
        &self,
        from: &ArtifactKey,
        to: &ArtifactKey,
    ) -> crate::error::Result<StoredArtifact> {
        self.0.copy_if_absent(from, to).await
    }

    async fn get(
        &self,
        key: &ArtifactKey,
        range: Option<std::ops::Range<u64>>,
    ) -> crate::error::Result<ArtifactBody> {
        let mut body = self.0.get(key, range).await?;
        body.bytes = body.bytes.take(1).chain(stream::pending()).boxed();
        Ok(body)
    }

    async fn head(&self, key: &ArtifactKey) -> crate::error::Result<StoredArtifact> {
        self.0.head(key).await
    }

    async fn stored_at(&self, key: &ArtifactKey) -> crate::error::Result<jiff::Timestamp> {
        self.0.stored_at(key).await
    }

    async fn list(&self, prefix: &ArtifactKey) -> crate::error::Result<Vec<StoredArtifact>> {
        self.0.list(prefix).await
    }

    async fn folders(&self, behind: &str, limit: usize) -> crate::error::Result<Vec<ArtifactKey>> {
        self.0.folders(behind, limit).await
    }

    async fn delete(&self, key: &ArtifactKey) -> crate::error::Result<()> {
        self.0.delete(key).await
    }

    fn url(&self, key: &ArtifactKey) -> String {
        self.0.url(key)
    }
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_says_nothing_is_waited_for_so_long_and_no_longer() {
    let (state, storage) = (tempfile::tempdir().unwrap(), Silent(ObjectArtifactStorage::memory()));
    let bytes = archive(|tar| file(tar, "a/fix.patch", b"content"));
    let digest = SourceDigest::new(Sha256::digest(&bytes).into());
    put(&storage, digest, bytes).await;
    let (folders, begun) = (SourceFolders::below(state.path()), tokio::time::Instant::now());
    let error = folders.fetch(&storage, digest).await.unwrap_err();
    let took = begun.elapsed();
    let most = limits::SOURCE_ARCHIVE_FETCH_TIME;
    assert!(took >= most && took < most + std::time::Duration::from_secs(5), "{took:?}");
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Unavailable, Some(Blame::Farm)), "{error}");
    assert!(error.to_string().contains("did not come from the storage within 600 s"), "{error}");
    drop(folders);
    assert_eq!(fs::read_dir(state.path().join("sources")).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed() {
    let state = tempfile::tempdir().unwrap();
    let left = state.path().join("sources/server.killed/unpacked");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.parent().unwrap().join(crate::locks::FOLDER_LOCK), "").unwrap();
    let _folders = SourceFolders::below(state.path());
    assert!(!left.exists());
}

/// What is listed of a folder is listed of what was packed of it: a job has the same files on any machine.
#[test]
fn what_is_left_out_here_is_left_out_everywhere() {
    let paths = ["a.orig", "docs", "docs.d/a", "fix.patch", "gone/deep/a", "sub/fix.patch", "sub/x/a.orig"];
    for (patterns, kept) in [
        (
            "*.orig\ngone/**\ndocs/\n/fifo\n",
            &[".melangeignore", "docs.d/a", "fix.patch", "sub/fix.patch"][..],
        ),
        (
            ".melange*\nfifo\nsub/*\n",
            &["a.orig", "docs", "docs.d/a", "fix.patch", "gone/deep/a", "sub/x/a.orig"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(folder.path(), &paths.map(|path| (path.to_owned(), (false, b"x".to_vec()))).into());
        fs::write(at(".melangeignore"), patterns).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let names = |folder: &Path| {
            list(folder).unwrap().files.into_iter().map(|file| file.path).collect::<Vec<String>>()
        };
        assert_eq!(names(folder.path()), kept);
        let packed = pack(folder.path()).unwrap().unwrap();
        assert_eq!(packed.files, kept.len());
        let (bytes, there) = (bytes_of(&packed), tempfile::tempdir().unwrap());
        unpack(bytes.as_slice(), there.path()).unwrap();
        assert_eq!(names(there.path()), kept);
        assert_eq!(pack(there.path()).unwrap().unwrap().digest, packed.digest);
    }
}

#[test]
fn texts_are_packed_as_a_folder_of_them_is() {
    let texts: BTreeMap<String, String> =
        [("fix.patch", "--- a\n"), ("sub/a", ""), ("sub-b", "b"), ("sub/c/d", "d")]
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .into();
    let folder = tempfile::tempdir().unwrap();
    let tree = texts.iter().map(|(path, text)| (path.clone(), (false, text.clone().into_bytes())));
    write(folder.path(), &tree.collect());
    let packed = pack_texts(&texts).unwrap().unwrap();
    assert_eq!(packed.digest, pack(folder.path()).unwrap().unwrap().digest);
    assert_eq!((packed.files, packed.links), (4, 0));
    assert!(pack_texts(&BTreeMap::new()).unwrap().is_none());
    let long = "a/".repeat(limits::SOURCE_PATH_BYTES_MAX);
    let name = "a".repeat(limits::SOURCE_NAME_BYTES_MAX + 1);
    for path in ["../x", "/etc/x", "a//b", "", "./a", "a/.", "a\0", &long, &name, "sub", "sub/a/b"] {
        let mut hostile = texts.clone();
        hostile.insert(path.to_owned(), String::new());
        assert_eq!(pack_texts(&hostile).unwrap_err().kind(), ErrorKind::InvalidRequest, "{path:?}");
    }
}
