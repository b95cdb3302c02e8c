//! One of every kind of file, through both builders, down to the bytes of the headers.

use std::fmt::Write;

use sha1::{Digest, Sha1};

use crate::support::farm::{assert_same, on_farm};
use crate::support::package::{RawEntry, Sections, entries};

pub(crate) const ZOO: &str = include_str!("definitions/zoo.yaml");

#[test]
fn every_kind_of_file_comes_out_as_the_format_says() {
    on_farm(async |farm| {
        let mut first = None;
        for backend in farm.backends() {
            let built = farm.build(backend, "zoo", ZOO).await;
            let apk = &built.bytes()["x86_64/zoo-1.0.0-r3.apk"];
            check(apk);
            match &first {
                None => first = Some(built),
                Some(first) => assert_same(&format!("zoo by {backend:?}"), first, &built),
            }
        }
    });
}

fn check(apk: &[u8]) {
    let sections = Sections::of(apk);
    insta::assert_snapshot!("zoo_pkginfo", sections.pkginfo());
    let data = entries(&sections.data, true);
    data.iter().for_each(RawEntry::check);
    let mut shown = String::new();
    data.iter().for_each(|entry| writeln!(shown, "{}", entry.line()).unwrap());
    insta::assert_snapshot!("zoo_entries", shown);
    let find = |name: &str| data.iter().find(|entry| entry.name() == name).unwrap();
    let (one, two) = (find("usr/bin/setuid"), find("opt/links/hard"));
    assert_eq!(one.content, two.content, "a hard link is a copy of its own");
    assert_eq!((two.flag(), two.mode()), ('0', 0o4755));
    assert_eq!(find("usr/bin/plain").content, b"#!/bin/sh\necho plain\n");
    check_control(&sections);
    check_signature(&sections);
}

/// The control section: names in byte order, plain headers, owned by root.
fn check_control(sections: &Sections) {
    let control = entries(&sections.control, false);
    let lines: Vec<String> = control.iter().map(RawEntry::line).collect();
    let root = "0:0 \"root\":\"root\" 0";
    assert_eq!(lines, [format!("0 0644 {root} .PKGINFO"), format!("0 0644 {root} .melange.yaml")]);
}

fn check_signature(sections: &Sections) {
    let signature = entries(&sections.signature, false);
    let lines: Vec<String> = signature.iter().map(RawEntry::line).collect();
    assert_eq!(lines, ["0 0644 0:0 \"root\":\"root\" 0 .SIGN.RSA256.farm.rsa.pub"]);
    assert_eq!(signature[0].content.len(), 256, "one RSA block");
    assert_ne!(Sha1::digest(&signature[0].content), Sha1::digest([0; 256]));
}
