//! Choosing the packages of a build environment: from Alpine's index, from the test distribution's, and from a
//! generated one of Wolfi's size. The first two are benched where they are present.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::solver::{Policy, RepositoryPackages, Solver};

/// Names of the generated index, and versions of each.
const GENERATED: (usize, usize) = (20_000, 5);

fn read(path: &Path) -> Option<Index> {
    let bytes = std::fs::read(path).ok()?;
    Some(Index::read(&bytes, None).expect("a whole index"))
}

fn alpine() -> Option<Index> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/oracles/index");
    read(&folder.join("alpine-3.16-x86_64.APKINDEX.tar.gz"))
}

fn distro() -> Option<Index> {
    let folder = PathBuf::from(std::env::var_os("MELANGE_TEST_DISTRO")?);
    read(&folder.join("x86_64/APKINDEX.tar.gz"))
}

/// Packages in several versions; each needs a library of every smaller power of two below it.
fn generated() -> Index {
    let mut index = Index::default();
    let (names, versions) = GENERATED;
    for number in 0..names {
        let steps = (0..15).map(|power| 1_usize << power).take_while(|step| *step <= number);
        let depends: Vec<String> = steps.map(|step| format!("so:lib{}.so.1", number - step)).collect();
        let depends = depends.join(" ");
        for minor in 0..versions {
            let version = format!("1.{minor}.0-r{}", number % 7);
            let provides = format!("so:lib{number}.so.1=1.{minor}");
            index.packages.push(record(format!("package-{number}"), version, depends.clone(), provides));
        }
    }
    index
}

/// A record that says nothing but what a solver reads.
fn record(name: String, version: String, depends: String, provides: String) -> IndexPackage {
    IndexPackage {
        control_sha1: None,
        origin: name.clone(),
        name,
        version,
        arch: "x86_64".to_owned(),
        size_bytes: 0,
        installed_bytes: 0,
        description: String::new(),
        url: String::new(),
        license: String::new(),
        maintainer: String::new(),
        build_time: 0,
        commit: String::new(),
        depends,
        install_if: String::new(),
        provides,
        provider_priority: 0,
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("solve");
    group.sample_size(20);
    let request = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let base = request(&["build-base", "busybox", "ca-certificates-bundle"]);
    let cases = [
        ("alpine", alpine(), base.clone()),
        ("test distribution", distro(), base),
        ("generated", Some(generated()), request(&["package-300"])),
    ];
    for (name, index, world) in cases {
        let Some(index) = index else {
            eprintln!("skipped: {name}: its index is not here");
            continue;
        };
        let repositories = [RepositoryPackages { tag: "", packages: &index.packages }];
        let solver = Solver::new(&repositories, Policy::Apko);
        let chosen = solver.solve(&world).expect("the request has a solution").len();
        eprintln!("{name}: {chosen} of {} packages", index.packages.len());
        group.bench_function(format!("{name}, tables"), |bencher| {
            bencher.iter(|| {
                black_box(Solver::new(&repositories, Policy::Apko));
            });
        });
        group.bench_function(format!("{name}, choice"), |bencher| {
            bencher.iter(|| black_box(solver.solve(black_box(&world))));
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
