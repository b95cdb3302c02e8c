//! Packing: a tree of 64 MB of mixed content into a package, beside plain compression of the same bytes in the same
//! run. What packing adds is hashing, headers and the signature.
//!
//! Then what the machine has of programs and libraries, as one file of 300 MB and as 50,000 small ones, beside `gzip -5` of
//! the same bytes: wall and processor time, size, and the most memory that the packing took.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};
use melange_remote_sdk::apk::pkginfo::PkgInfo;
use melange_remote_sdk::apk::signature::{SigningKey, generate_key};
use melange_remote_sdk::apk::tar_writer::{EntryType, Header, TarWriter};
use melange_remote_sdk::apk::tree::Tree;
use melange_remote_sdk::apk::writer::{AccountNames, EmitOptions, write_package};

mod support;

use support::{cpu, memory, rounds};

/// The content of the tree.
const BYTES: usize = 64 << 20;
/// The level that plain compression is compared at.
const LEVEL: u32 = 6;

/// A generator of numbers that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}

/// Text of a small vocabulary, tables of little numbers, and noise: like a program, its data and its archives.
fn content(numbers: &mut Numbers, size: usize) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["return ", "static ", "const ", "int ", "value", "(index)", ";\n", " = ", "0x", "->", "  ", "name"];
    let kind = numbers.below(10);
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        match kind {
            0..5 => bytes.extend_from_slice(WORDS[numbers.below(WORDS.len())].as_bytes()),
            5..8 => bytes.extend_from_slice(&u32::try_from(numbers.below(5_000)).unwrap_or(0).to_le_bytes()),
            _ => bytes.extend_from_slice(&numbers.next().to_le_bytes()),
        }
    }
    bytes.truncate(size);
    bytes
}

/// Files of a hundred bytes to a megabyte, and their bytes in one piece.
fn tree() -> (Tree, Vec<u8>) {
    let (mut tree, mut all, mut numbers) = (Tree::default(), Vec::with_capacity(BYTES), Numbers(42));
    while all.len() < BYTES {
        let size = (100 << numbers.below(14)).min(BYTES - all.len());
        let bytes = content(&mut numbers, size);
        let path = format!("usr/share/bench/{:02}/file-{:06}", numbers.below(40), tree.len());
        tree.add_file(&path, 0o644, &bytes).expect("a good path");
        all.extend_from_slice(&bytes);
    }
    (tree, all)
}

fn pack(folder: &Path, tree: &Tree, key: &SigningKey) -> u64 {
    let path = folder.join("bench.apk");
    let names = AccountNames::default();
    let mut options = EmitOptions::new(&names);
    options.key = Some(key);
    let mut info = PkgInfo { pkgname: "bench".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
    write_package(&path, tree, &mut info, &BTreeMap::new(), &options).expect("a writable folder");
    std::fs::metadata(&path).expect("the package is there").len()
}

fn plain(bytes: &[u8]) -> u64 {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory").len() as u64
}

fn timed(work: impl Fn() -> u64) -> (Duration, u64) {
    let begin = Instant::now();
    let size = work();
    (begin.elapsed(), size)
}

/// The two in turn, so that a busy machine slows both; the ratio of the fastest rounds.
fn compare(folder: &Path, tree: &Tree, bytes: &[u8], key: &SigningKey) {
    let rounds: Vec<_> =
        (0..3).map(|_| (timed(|| pack(folder, tree, key)), timed(|| plain(bytes)))).collect();
    let fastest = |times: Vec<(Duration, u64)>| times.into_iter().min().expect("a round");
    let packed = fastest(rounds.iter().map(|round| round.0).collect());
    let plain = fastest(rounds.iter().map(|round| round.1).collect());
    let speed = |took: Duration| bytes.len() as f64 / 1e6 / took.as_secs_f64();
    eprintln!(
        "packing {:.0} MB/s to {:.1} MB; plain level {LEVEL} {:.0} MB/s to {:.1} MB; time ratio {:.2}",
        speed(packed.0),
        packed.1 as f64 / 1e6,
        speed(plain.0),
        plain.1 as f64 / 1e6,
        packed.0.as_secs_f64() / plain.0.as_secs_f64()
    );
}

/// Bytes of programs and libraries of this machine.
fn found(bytes_max: usize) -> Vec<u8> {
    let mut folders = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    let mut bytes = Vec::with_capacity(bytes_max);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let content = std::fs::read(entry.path()).unwrap_or_default();
                    bytes.extend_from_slice(&content[..content.len().min(bytes_max - bytes.len())]);
                }
                _ => {}
            }
            if bytes.len() == bytes_max {
                return bytes;
            }
        }
    }
    bytes
}

/// The tar of files of these sizes at most, as a guest leaves it.
fn tar_of(path: &Path, bytes: &[u8], file_bytes: usize) {
    let file = std::io::BufWriter::new(std::fs::File::create(path).expect("a writable folder"));
    let mut tar = TarWriter::new(file);
    for (number, content) in bytes.chunks(file_bytes).enumerate() {
        let name = format!("usr/share/bench/{:03}/file-{number:06}", number / 256);
        let mut header = Header::new(&name, EntryType::File, 0o644);
        header.size = content.len() as u64;
        tar.append(&header, &mut &content[..]).expect("a writable folder");
    }
    tar.finish().and_then(|mut file| file.flush()).expect("a writable folder");
}

/// Packs a tar, and has `gzip -5` compress the same bytes.
fn beside_gzip(folder: &Path, what: &str, tar: &Path, key: &SigningKey) {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let (begin, used) = (Instant::now(), cpu(false));
    let tree = Tree::read_tar(tar).expect("a tar");
    let size = pack(folder, &tree, key);
    let (took, used, most) = (begin.elapsed(), (cpu(false) - used).as_secs_f64(), memory());
    drop(tree);
    let (begin, before) = (Instant::now(), cpu(true));
    let told = Command::new("gzip").arg("-5c").arg(tar).stdin(Stdio::null()).output().expect("gzip");
    let (gzip_took, gzip_used) = (begin.elapsed(), (cpu(true) - before).as_secs_f64());
    let gzip_size = u64::try_from(told.stdout.len()).unwrap_or(0);
    eprintln!(
        "{what}: {:.2} s, {used:.2} s of processor time, {:.1} MB, at most {most} MB of memory; gzip -5 {:.2} s, \
         {gzip_used:.2} s, {:.1} MB; time {:.2}, processor time {:.2}, size {:.3}",
        took.as_secs_f64(),
        size as f64 / 1e6,
        gzip_took.as_secs_f64(),
        gzip_size as f64 / 1e6,
        took.as_secs_f64() / gzip_took.as_secs_f64(),
        used / gzip_used,
        size as f64 / gzip_size as f64,
    );
}

fn benches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (one, many) = (folder.path().join("one.tar"), folder.path().join("many.tar"));
    // The bytes must not stay in memory, which is measured.
    let all = rounds(300 << 20, 1 << 20);
    tar_of(&one, &found(all), all);
    tar_of(&many, &found(all / 2), 3 << 10);
    let pem = generate_key(2048).expect("a key");
    let key = SigningKey::from_pem("bench.rsa", pem.as_bytes()).expect("a good key");
    for _ in 0..rounds(3, 1) {
        beside_gzip(folder.path(), "one file", &one, &key);
        beside_gzip(folder.path(), "small files", &many, &key);
    }
    let (tree, bytes) = tree();
    for _ in 0..rounds(1, 0) {
        compare(folder.path(), &tree, &bytes, &key);
    }
    let mut group = criterion.benchmark_group("apk_pack");
    group.sample_size(10).throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("package", |bencher| bencher.iter(|| pack(folder.path(), &tree, &key)));
    group.bench_function("plain", |bencher| bencher.iter(|| plain(&bytes)));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
