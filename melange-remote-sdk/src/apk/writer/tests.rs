//! What is written reads back.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::apk::reader::{ApkEntry, ApkFile};

#[test]
fn a_package_reads_back_and_is_the_same_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let long = format!("usr/share/{}/{}", "d".repeat(120), "é".repeat(90));
    tree.add_file("usr/bin/tool", 0o4755, b"#!/bin/sh\n").unwrap();
    tree.add_file(&long, 0o644, &[7; 3000]).unwrap();
    tree.get_mut("usr/bin/tool").unwrap().xattrs.insert("security.capability".into(), vec![0, 1, 10, 0]);
    tree.get_mut("usr/bin/tool").unwrap().uid = 1000;
    let names = AccountNames::parse("root:x:0:0\n", "root:x:0:\n");
    let options = EmitOptions { epoch_seconds: 5, build_account: 1000, names: &names, key: None };
    let control = BTreeMap::from([(".melange.yaml".to_owned(), b"package: {}\n".to_vec())]);
    let mut bytes = Vec::new();
    for name in ["a.apk", "b.apk"] {
        let path = folder.path().join(name);
        let mut info = PkgInfo { pkgname: "t".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
        write_package(&path, &tree, &mut info, &control, &options).unwrap();
        bytes.push(std::fs::read(&path).unwrap());
    }
    assert_eq!(bytes[0], bytes[1]);
    let apk = ApkFile::open(&folder.path().join("a.apk")).unwrap();
    let entries = apk.entries().unwrap();
    let tool = entries.iter().find(|entry| entry.path == "usr/bin/tool").unwrap();
    assert_eq!(
        (tool.mode.as_str(), tool.uid, tool.xattrs["security.capability"].as_str()),
        ("4755", 0, "00010a00")
    );
    assert!(entries.iter().any(|entry| entry.path == long));
    std::fs::write(folder.path().join("a.apk"), &bytes[0][..bytes[0].len() - 20]).unwrap();
    assert!(ApkFile::open(&folder.path().join("a.apk")).is_err());
}

#[test]
fn file_capabilities_have_the_kernels_layout() {
    let lists = BTreeMap::from([("cap_net_raw".to_owned(), "+ep".to_owned())]);
    let bytes = capability_xattr(&lists);
    assert_eq!(bytes.len(), 24);
    assert_eq!(hex::encode(&bytes[..12]), "010000030020000000000000");
}

/// What an entry of a package says, as [`ApkEntry`] has it.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    path: String,
    kind: &'static str,
    mode: u32,
    owner: (u64, u64),
    size: u64,
    link: String,
    checksum: String,
    xattrs: BTreeMap<String, String>,
}

/// What the reader must tell of a tree.
fn told(tree: &Tree, build_account: u32) -> Vec<Told> {
    let id = |id: u32| if id == build_account { 0 } else { u64::from(id) };
    let of = |(path, entry): (&crate::apk::tree::TreePath, &TreeEntry)| {
        let mut told = Told {
            path: path.joined(),
            kind: "directory",
            mode: entry.mode & 0o777,
            owner: (0, 0),
            size: 0,
            link: String::new(),
            checksum: String::new(),
            xattrs: BTreeMap::new(),
        };
        match &entry.kind {
            EntryKind::Directory => {}
            EntryKind::Symlink(target) => {
                (told.kind, told.mode, told.link) = ("symlink", 0o777, target.clone());
                told.checksum = hex::encode(checksum::sha1(target.as_bytes()));
            }
            EntryKind::CharDevice(..) | EntryKind::Fifo => {
                (told.kind, told.mode, told.owner) = ("device", entry.mode, (id(entry.uid), id(entry.gid)));
            }
            EntryKind::File(content) => {
                (told.kind, told.mode, told.owner) = ("file", entry.mode, (id(entry.uid), id(entry.gid)));
                told.size = content.size();
                told.checksum = hex::encode(checksum::sha1_of(&mut tree.open(content)).unwrap());
                let kept = entry.xattrs.iter().filter(|(name, _)| !XATTRS_DROPPED.contains(&name.as_str()));
                told.xattrs = kept.map(|(name, value)| (name.clone(), hex::encode(value))).collect();
            }
        }
        told
    };
    tree.iter().map(of).collect()
}

fn read(entry: &ApkEntry) -> Told {
    let kinds = ["directory", "symlink", "device", "file"];
    Told {
        path: entry.path.clone(),
        kind: kinds.into_iter().find(|kind| *kind == entry.kind).expect("a kind that was written"),
        mode: u32::from_str_radix(&entry.mode, 8).unwrap(),
        owner: (entry.uid, entry.gid),
        size: entry.size,
        link: entry.link.clone(),
        checksum: entry.checksum.clone(),
        xattrs: entry.xattrs.clone(),
    }
}

/// Names of one part: short, long, not ASCII, with what shells and tars stumble over.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[a-z]{90,120}", "[é漢 ~=@%'\"\\\\\n-]{1,40}", Just("PaxHeaders.0".to_owned()),]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let content = |bytes: Vec<u8>| EntryKind::File(Content::Made(Arc::from(bytes)));
    prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..2_000).prop_map(content),
        // Around the blocks of the compression and the pieces that are read at once.
        1 => (0usize..1_400_000, any::<u8>()).prop_map(move |(size, byte)| content(vec![byte; size])),
        1 => "[a-zé./]{1,150}".prop_map(EntryKind::Symlink),
        1 => prop_oneof![Just(EntryKind::Directory), Just(EntryKind::Fifo)],
        1 => (0u32..4_096, 0u32..1_000).prop_map(|(major, minor)| EntryKind::CharDevice(major, minor)),
    ]
}

fn xattrs() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let name = prop_oneof![Just("security.selinux".to_owned()), "user\\.[a-z]{1,20}"];
    proptest::collection::btree_map(name, proptest::collection::vec(any::<u8>(), 1..200), 0..3)
}

prop_compose! {
    fn entry()(
        kind in kind(),
        mode in 0u32..0o10000,
        uid in prop_oneof![Just(0), Just(1000), any::<u32>()],
        gid in prop_oneof![Just(0), Just(1000), any::<u32>()],
        xattrs in xattrs(),
    ) -> TreeEntry {
        TreeEntry { kind, mode, uid, gid, xattrs }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let path = proptest::collection::vec(name(), 1..5).prop_map(|parts| parts.join("/"));
    proptest::collection::vec((path, entry()), 0..12).prop_map(|entries| {
        let mut tree = Tree::default();
        for (path, entry) in entries {
            // What lies above must be there; what is a file must not become a folder.
            let above: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
            let is_folder = |path: &&str| tree.get(path).is_none_or(|it| it.kind == EntryKind::Directory);
            if tree.get(&path).is_none() && above.iter().all(is_folder) {
                tree.add_file(&path, 0o644, b"").unwrap();
                *tree.get_mut(&path).unwrap() = entry;
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_reads_back_and_a_flipped_byte_is_refused(tree in tree(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.apk");
        let names = AccountNames::parse("root:x:0:0\nsomebody:x:77:77\n", "root:x:0:\n");
        let options = EmitOptions::new(&names);
        let mut info = PkgInfo { pkgname: "t".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
        let written = write_package(&path, &tree, &mut info, &BTreeMap::new(), &options).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        prop_assert_eq!(written.size_bytes, bytes.len() as u64);
        prop_assert_eq!(&written.sha256, &checksum::sha256_hex(&bytes));
        let apk = ApkFile::open(&path).unwrap();
        let found: Vec<Told> = apk.entries().unwrap().iter().map(read).collect();
        prop_assert_eq!(found, told(&tree, options.build_account));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        // Of the control section some bits mean nothing: the time stamp of its header, what fills its last byte. Its
        // signature and its checksum in the index cover those.
        match ApkFile::open(&path) {
            Ok(read) => {
                prop_assert!((at as u64) < apk.data_offset, "bit {bit} of byte {at} of {}", bytes.len());
                prop_assert_eq!((read.info, read.scripts), (apk.info, apk.scripts));
                prop_assert!(read.control_sha1 != apk.control_sha1);
            }
            Err(error) => prop_assert_eq!(error.kind(), crate::error::ErrorKind::Untrusted),
        }
    }
}

#[test]
fn a_file_of_more_than_four_gibibytes_is_written_in_pieces() {
    const BYTES: u64 = (4 << 30) + 12_345;
    let folder = tempfile::tempdir().unwrap();
    let tar_path = folder.path().join("guest.tar");
    let mut tar = TarWriter::new(Vec::new());
    let mut header = Header::new("big", EntryType::File, 0o644);
    tar.append(&header, &mut io::empty()).unwrap();
    let mut block = tar.finish_open();
    // The same header with its real size, by hand: only the blocks that hold something are on the disk.
    header.size = BYTES;
    let size = format!("{BYTES:011o}\0");
    block[124..136].copy_from_slice(size.as_bytes());
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let file = File::create(&tar_path).unwrap();
    file.write_all_at(&block, 0).unwrap();
    file.write_all_at(b"the end", 512 + BYTES - 7).unwrap();
    file.set_len(512 + BYTES.next_multiple_of(512) + 1_024).unwrap();
    let tree = Tree::read_tar(&tar_path).unwrap();
    let path = folder.path().join("big.apk");
    let names = AccountNames::default();
    let mut info = PkgInfo { pkgname: "big".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
    write_package(&path, &tree, &mut info, &BTreeMap::new(), &EmitOptions::new(&names)).unwrap();
    let apk = ApkFile::open(&path).unwrap();
    let entries = apk.entries().unwrap();
    assert_eq!((entries.len(), entries[0].size), (1, BYTES));
}
