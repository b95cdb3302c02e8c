//! A package made by hand: pack a tree, sign it, read it back, put it into a signed index.
//!
//! `cargo run --example 03_pack_and_read_apk`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::BTreeMap;

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::pkginfo::PkgInfo;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::apk::tree::Tree;
use melange_remote_sdk::apk::writer::{AccountNames, EmitOptions, installed_size, write_package};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;

    // A tree usually comes from a guest's output; here it is made in memory.
    let mut tree = Tree::default();
    tree.add_file("usr/bin/greet", 0o755, b"#!/bin/sh\necho hello\n")?;

    let key = SigningKey::from_pem("example.rsa", generate_key(2048)?.as_bytes())?;
    let names = AccountNames::parse("root:x:0:0:::\n", "root:x:0:\n");
    let mut options = EmitOptions::new(&names);
    options.key = Some(&key);
    let mut info = PkgInfo {
        pkgname: "greet".to_owned(),
        pkgver: "1.0-r0".to_owned(),
        arch: "x86_64".to_owned(),
        size: installed_size(&tree),
        provides: vec!["cmd:greet=1.0-r0".to_owned()],
        ..PkgInfo::default()
    };
    let path = folder.path().join("greet-1.0-r0.apk");
    write_package(&path, &tree, &mut info, &BTreeMap::new(), &options)?;

    // Reading checks the data's digest; the signature and each file's checksum are checked on request.
    let mut keyring = Keyring::default();
    keyring.add(&key.public_name(), key.public_pem()?.as_bytes())?;
    let apk = ApkFile::open(&path)?;
    println!("signed by {}", apk.verify_signature(&keyring)?);
    print!("{}", apk.info.to_text());
    for entry in apk.entries()? {
        println!("{} {}", entry.mode, entry.path);
    }

    let mut index = Index::default();
    index.put(IndexPackage::from_apk(&apk));
    let bytes = index.write(Some(&key))?;
    println!(
        "an index of {} bytes holds {} package",
        bytes.len(),
        Index::read(&bytes, Some(&keyring))?.packages.len()
    );
    Ok(())
}
