//! Small archives that would take gigabytes: each is read in a process of its own, whose memory is measured.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use melange_remote_sdk::apk::gzip::{MemberKind, member};
use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::tar_writer::{EntryType, Header, TarWriter};
use sha2::{Digest, Sha256};

use crate::support::oracle;

/// Names the archive that a process of its own reads.
const ARCHIVE: &str = "MELANGE_TEST_ARCHIVE";
/// The most memory that any of them may take.
const PEAK_BYTES_MAX: u64 = 300 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    member(MemberKind::Plain, bytes).unwrap()
}

/// A tar without an end, of entries that a function appends.
fn tar(append: impl FnOnce(&mut TarWriter<Vec<u8>>)) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    append(&mut writer);
    writer.finish_open()
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    tar(|writer| {
        let mut header = Header::new(name, EntryType::File, 0o644);
        header.size = content.len() as u64;
        writer.append(&header, &mut &content[..]).unwrap();
    })
}

/// One header block whose checksum holds, without what the writer would refuse.
fn block(name: &str, flag: u8, size: usize) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = flag;
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An entry behind one PAX record, whose value may have any size.
fn with_record(key: &str, value: &[u8], flag: u8) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length =
        (1..20).map(|digits| rest + digits).find(|total| total.to_string().len() + rest == *total).unwrap();
    let mut body = format!("{length} {key}=").into_bytes();
    body.extend_from_slice(value);
    body.push(b'\n');
    let mut bytes = block("x", b'x', body.len());
    let padded = body.len().div_ceil(512) * 512;
    body.resize(padded, 0);
    bytes.extend(body);
    bytes.extend(block("f", flag, 0));
    bytes
}

/// Writes a package around compressed data; its digest fits.
fn package(path: &Path, data: &[u8]) {
    let digest = hex::encode(Sha256::digest(data));
    let info = format!("pkgname = a\npkgver = 1-r0\narch = x86_64\nsize = 1\ndatahash = {digest}\n");
    let mut out = std::fs::File::create(path).unwrap();
    out.write_all(&gzip(&file(".PKGINFO", info.as_bytes()))).unwrap();
    out.write_all(data).unwrap();
}

/// Writes an index of records that a function makes, `count` times `text`.
fn index(path: &Path, count: usize, text: impl Fn(usize) -> String) {
    let mut records = String::new();
    (0..count).for_each(|number| records.push_str(&text(number)));
    std::fs::write(path, gzip(&file("APKINDEX", records.as_bytes()))).unwrap();
}

/// The child's part: reads what the variable names and tells how that went, and how much memory it took. Without the
/// variable there is nothing to read; the parent fails when its child said nothing.
#[test]
fn an_archive_is_read_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(ARCHIVE).map(PathBuf::from) else { return };
    let read = if path.extension().is_some_and(|extension| extension == "gz") {
        Index::read(&std::fs::read(&path).unwrap(), None).map(|index| index.packages.len())
    } else {
        let mut entries = 0usize;
        ApkFile::open_control(&path).and_then(|apk| apk.for_each_entry(|_| entries += 1)).map(|()| entries)
    };
    let told = match read {
        Ok(count) => format!("read {count}"),
        Err(error) => format!("refused {}", error.chain()),
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    println!("\nresult: {} {told}", peak.trim_end_matches(" kB"));
}

/// Reads an archive in a child: the most memory it took in bytes, and what it told.
fn read_aside(path: &Path) -> (u64, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["archives::an_archive_is_read_in_a_process_of_its_own", "--exact", "--nocapture"])
        .env(ARCHIVE, path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("result: "));
    let (peak, told) = line.unwrap_or_else(|| panic!("{text}")).split_once(' ').unwrap();
    (peak.parse::<u64>().unwrap() << 10, told.to_owned())
}

#[test]
fn small_archives_take_little_memory_and_are_refused_by_their_bound() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    index(&at("dependencies.gz"), 200, |n| format!("P:a{n}\nV:1\nD:{}\n\n", "b ".repeat(500_000)));
    index(&at("words.gz"), 240, |n| format!("P:a{n}\nV:1\nD:{}\n\n", "b".repeat(1_000_000)));
    index(&at("packages.gz"), 1_000_000, |n| format!("P:a{n}\nV:1\n\n"));
    let large = vec![b'v'; 4 << 20];
    package(&at("attributes.apk"), &gzip(&with_record("SCHILY.xattr.user.a", &large, b'0')).repeat(400));
    let small = vec![b'v'; 60_000];
    package(
        &at("many-attributes.apk"),
        &gzip(&with_record("SCHILY.xattr.user.a", &small, b'0')).repeat(2_000),
    );
    package(&at("links.apk"), &gzip(&with_record("linkpath", &large, b'2')).repeat(400));
    package(&at("files.apk"), &gzip(&block("f", b'0', 0).repeat(1_000)).repeat(2_000));
    let cases = [
        ("dependencies.gz", "words in the line `D:`"),
        ("words.gz", "bytes of memory"),
        ("packages.gz", "more than 500000 packages"),
        ("attributes.apk", "bytes of attributes and names"),
        ("many-attributes.apk", "bytes of names, link targets and attributes"),
        ("links.apk", "bytes of attributes and names"),
        ("files.apk", "more than 500000 entries"),
    ];
    println!("archive              bytes    peak, MB");
    for (name, bound) in cases {
        let (peak, told) = read_aside(&at(name));
        println!("{name:20} {:8} {:8}", at(name).metadata().unwrap().len(), peak >> 20);
        assert!(told.starts_with("refused") && told.contains(bound), "{name}: {told}");
        assert!(peak < PEAK_BYTES_MAX, "{name}: {} MB", peak >> 20);
    }
}

#[test]
fn honest_indexes_of_any_distribution_are_read() {
    let folder = tempfile::tempdir().unwrap();
    // As many packages, and as large records, as the largest distribution has.
    let large = folder.path().join("large.gz");
    index(&large, 130_000, |n| {
        format!(
            "C:Q1w0Rl6HA39gsEkqaJArR01meHQmQ=\nP:package-{n}-with-a-name\nV:1.{n}.3-r4\nA:x86_64\nS:{n}\nI:{n}\n\
             T:A description of about the usual length, number {n}\nU:https://example.org/project/{n}\n\
             L:Apache-2.0\no:package-{n}\nm:\nt:1700000000\nc:0123456789abcdef0123456789abcdef01234567\n\
             D:so:libc.so.6 so:libm.so.6 so:ld-linux-x86-64.so.2 so:libstdc++.so.6 package-{n}-common\n\
             p:cmd:tool-{n}=1.{n}.3-r4 so:libproject{n}.so.1=1 so:libother{n}.so.2=2\n\n"
        )
    });
    let mut archives = vec![(large, "read 130000")];
    if let Some(alpine) = oracle("index/alpine-3.16-x86_64.APKINDEX.tar.gz") {
        archives.push((alpine, "read 4929"));
    }
    for (path, expected) in archives {
        let (peak, told) = read_aside(&path);
        println!("{expected}: {} MB", peak >> 20);
        assert_eq!(told, expected);
        assert!(peak < PEAK_BYTES_MAX, "{} MB", peak >> 20);
    }
}

/// Whoever makes the data also makes the digest, so that a digest that fits says nothing about the rest.
#[test]
fn data_that_is_cut_off_or_followed_by_something_is_refused_though_its_digest_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.apk");
    let open = |data: &[u8]| {
        package(&path, data);
        ApkFile::open(&path).and_then(|apk| apk.entries()).map(|entries| entries.len())
    };
    let whole = gzip(&file("usr/x", &[7; 5_000]));
    assert_eq!(open(&whole).unwrap(), 1);
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let inside = gzip(&[file("usr/x", b"x"), vec![0; 1_024], file("usr/y", b"y")].concat());
    for (what, data) in [
        ("cut off", whole[..whole.len() - 9].to_vec()),
        ("without its checksum", whole[..whole.len() - 8].to_vec()),
        ("wrong checksum", wrong_sum),
        ("something behind", [&whole[..], b"garbage"].concat()),
        ("zeros behind", [&whole[..], &[0; 512]].concat()),
        ("an archive behind the end", inside),
        ("negative size", gzip(&with_record("size", b"-5", b'0'))),
    ] {
        let error = open(&data).unwrap_err();
        assert!(error.to_string().contains("is no intact package"), "{what}: {error}");
    }
    std::fs::write(&path, b"ADBd\0\0\0").unwrap();
    let error = ApkFile::open(&path).unwrap_err();
    assert!(error.to_string().contains("format of apk 3"), "{error}");
    let error = Index::read(b"ADB.\0\0", None).unwrap_err();
    assert!(error.to_string().contains("format of apk 3"), "{error}");
}
