//! Where sources come from: git, archives, patches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, Uri};
use sha2::{Digest, Sha256, Sha512};
use tokio::net::TcpListener;

use super::{build, failure, try_build};
use crate::support::farm::{Farm, on_farm};

const REPOSITORY: &str = include_str!("../definitions/pipelines/repository.yaml");
const SOURCES: &str = include_str!("../definitions/pipelines/sources.yaml");
const FETCH: &str = include_str!("../definitions/pipelines/fetch.yaml");

/// What each name of the repository stands for; `None` after saying that there is no sandbox.
async fn commits(farm: &Farm) -> Option<BTreeMap<String, String>> {
    let built = build(farm, "checkout", &REPOSITORY.replace("@uses@", "")).await?;
    let lines = built.events.lines_of("checkout: commits");
    let commits: BTreeMap<String, String> = lines
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, commit)| (name.to_owned(), commit.to_owned()))
        .collect();
    assert_eq!(commits.len(), 7);
    Some(commits)
}

/// A step that checks the repository out into `destination`.
fn checkout(destination: &str, with: &[(&str, &str)]) -> String {
    let mut step = format!(
        "  - uses: git-checkout\n    with:\n      repository: file:///home/build/origin\n      \
         destination: {destination}\n      initial-backoff: 0\n"
    );
    for (name, value) in with {
        step.push_str(&format!("      {name}: {value:?}\n"));
    }
    step
}

fn look(name: &str, script: &str) -> String {
    format!("  - name: {name}\n    runs: |\n      {}\n", script.replace('\n', "\n      "))
}

/// What became of the checkouts.
const LOOK: &str = "\
for name in light heavy object older tip two head whole flat picked sparse; do
  echo \"$name $(git -C $name rev-parse HEAD) $(git -C $name rev-list --count HEAD)\"
done
ls light; cat light/file
ls sparse flat/part; ls light/part | wc -l
git -C flat/part rev-list --count HEAD; git -C whole/part rev-list --count HEAD
git -C picked log --format='%s|%b|%an|%cn|%ct' -2; ls picked
git -C head config user.name; git config --global --get-all safe.directory | grep -c /home/build/";

#[test]
fn every_way_to_check_out_leads_to_its_commit() {
    on_farm(async |farm| {
        let Some(commits) = commits(farm).await else { return };
        let of = |name: &str| commits[name].as_str();
        let picks = format!(
            "# what the branch mends\nmaintenance/{}: a fix # with a remark\n\nmaintenance/{}: another\n",
            of("maintenance~1"),
            of("maintenance")
        );
        let upper = of("light").to_uppercase();
        let ways: [(&str, &[(&str, &str)]); 10] = [
            ("light", &[("tag", "light"), ("expected-commit", &upper)]),
            ("heavy", &[("tag", "heavy"), ("expected-commit", of("heavy^{}")), ("type-hint", "gitlab")]),
            ("object", &[("tag", "heavy"), ("expected-commit", of("heavy"))]),
            ("older", &[("branch", "main"), ("expected-commit", of("main~3"))]),
            (
                "tip",
                &[
                    ("branch", "main"),
                    ("expected-commit", of("main")),
                    ("expected-commit-is-branch-tip", "true"),
                ],
            ),
            ("two", &[("branch", "maintenance"), ("depth", "2")]),
            ("head", &[("reason", "whatever is newest")]),
            (
                "whole",
                &[("tag", "light"), ("recurse-submodules", "true"), ("submodule-jobs", "2"), ("depth", "-1")],
            ),
            ("flat", &[("branch", "main"), ("recurse-submodules", "true"), ("shallow-submodules", "true")]),
            ("picked", &[("tag", "heavy"), ("expected-commit", of("heavy^{}")), ("cherry-picks", &picks)]),
        ];
        let mut uses = look("before", "mkdir light; echo mine > light/mine; echo mine > light/file");
        ways.iter().for_each(|(name, with)| uses.push_str(&checkout(name, with)));
        uses.push_str(&checkout("sparse", &[("branch", "main"), ("sparse-paths", "docs\n")]));
        uses.push_str(&look("look", LOOK));
        let built = build(farm, "checkout", &REPOSITORY.replace("@uses@", &uses)).await.unwrap();
        let lines = built.events.lines_of("checkout: look");
        let places: Vec<String> = [
            ("light", "light", 1),
            ("heavy", "heavy^{}", 1),
            ("object", "heavy^{}", 1),
            ("older", "main~3", 1),
            ("tip", "main", 1),
            ("two", "maintenance", 2),
            ("head", "main", 1),
            ("whole", "light", 2),
            ("flat", "main", 1),
        ]
        .map(|(name, commit, count)| format!("{name} {} {count}", of(commit)))
        .to_vec();
        assert_eq!(lines[..9], places);
        // The history is there, as the branch of the fixes is fetched whole.
        assert!(lines[9].starts_with("picked ") && lines[9].ends_with(" 5"), "{}", lines[9]);
        assert_eq!(lines[10], format!("sparse {} 1", of("main")));
        insta::assert_snapshot!("checkout", normalized(&lines[11..], &commits).join("\n"));
        let said = built.events.text();
        let told = [
            format!(
                "git-checkout: {} is the tag's own object, its commit is {}",
                of("heavy"),
                of("heavy^{}")
            ),
            "git-checkout: neither branch nor tag is given".to_owned(),
            "git-checkout: no expected-commit is given".to_owned(),
        ];
        for line in told {
            assert!(said.lines().any(|said| said == line), "{line} is not in:\n{said}");
        }
    });
}

/// Commits by their names, so that a snapshot does not change with every file.
fn normalized(lines: &[String], commits: &BTreeMap<String, String>) -> Vec<String> {
    let name = |line: &String| {
        commits.iter().fold(line.clone(), |line, (name, commit)| line.replace(commit.as_str(), name))
    };
    lines.iter().map(name).collect()
}

#[test]
fn what_is_not_the_expected_commit_is_refused() {
    on_farm(async |farm| {
        let Some(commits) = commits(farm).await else { return };
        let of = |name: &str| commits[name].as_str();
        let nowhere = "0123456789abcdef0123456789abcdef01234567";
        let main = ("branch", "main");
        let tip = ("expected-commit-is-branch-tip", "true");
        let fork = format!("{}: it is not there", of("maintenance"));
        let cases: [(&str, &[(&str, &str)]); 16] = [
            ("the tag light is", &[("tag", "light"), ("expected-commit", of("main"))]),
            ("the tag heavy is", &[("tag", "heavy"), ("expected-commit", nowhere)]),
            ("the tip of main is", &[main, tip, ("expected-commit", of("light"))]),
            ("is not in the history", &[main, ("expected-commit", nowhere)]),
            ("is not in the history", &[main, ("expected-commit", of("maintenance"))]),
            ("set depth to -1", &[main, ("depth", "1"), ("expected-commit", of("light"))]),
            ("set depth to -1", &[("expected-commit", of("light"))]),
            ("exclude each other", &[main, ("tag", "light")]),
            ("needs branch and expected-commit", &[tip, main]),
            ("needs branch and expected-commit", &[tip, ("tag", "light"), ("expected-commit", nowhere)]),
            ("maybe is neither true nor false", &[("recurse-submodules", "maybe")]),
            ("could not be cloned in 2 tries", &[("branch", "nowhere"), ("max-retries", "2")]),
            ("could not be cloned in 1 tries", &[("tag", "nowhere"), ("max-retries", "1")]),
            ("has no comment", &[main, ("cherry-picks", "0123abcd\n")]),
            ("has no comment", &[main, ("cherry-picks", "maintenance/0123abcd: # nothing\n")]),
            ("bad object", &[main, ("cherry-picks", &fork)]),
        ];
        for (message, with) in cases {
            let yaml = REPOSITORY.replace("@uses@", &checkout("out", with));
            let built = try_build(farm, "checkout", &yaml).await.unwrap();
            let (step, tail) = failure(&built);
            assert_eq!(step, "checkout: git-checkout");
            assert!(tail.contains(message), "{with:?} says, without {message:?}:\n{tail}");
        }
    });
}

#[test]
fn mail_is_applied_as_commits() {
    on_farm(async |farm| {
        let mail = look("mail", "git -C origin format-patch -q -o .. main..maintenance; ls *.patch");
        let am = "  - uses: git-am\n    with:\n      patches: |\n        ../0001-a-fix.patch\n        ../0002-another-fix.patch\n    working-directory: out\n";
        let log = look("log", "git -C out log --format='%an %cn %s' -3; ls out");
        let good = format!("{mail}{}{am}{log}", checkout("out", &[("tag", "heavy")]));
        let Some(built) = build(farm, "checkout", &REPOSITORY.replace("@uses@", &good)).await else { return };
        assert_eq!(
            built.events.lines_of("checkout: log"),
            [
                "A Melange Build another fix",
                "A Melange Build a fix",
                "A C three",
                "another",
                "docs",
                "file",
                "fix",
                "part",
                "src"
            ]
        );
        let bad = good.replace("0002-another", "0002-no-such");
        let built = try_build(farm, "checkout", &REPOSITORY.replace("@uses@", &bad)).await.unwrap();
        assert_eq!(failure(&built).0, "checkout: git-am");
    });
}

#[test]
fn patches_are_applied_or_refused() {
    on_farm(async |farm| {
        let Some(built) = build(farm, "sources", SOURCES).await else { return };
        let numbers = "1 2 three 4 5 6 7 8 9 ten 11 12 13 14 15 16 seventeen 18 19 20 ";
        assert_eq!(built.events.lines_of("sources: look"), [numbers]);
        assert!(built.events.text().contains("with fuzz 2"), "{}", built.events.text());
        for (message, with) in [
            ("holds a character that is not allowed", "patches: \"fixes/3.patch;true\""),
            ("holds a character that is not allowed", "patches: fixes/$(true).patch"),
            ("one of patches and series must be given", "fuzz: 1"),
            ("-1 is not a whole number", "patches: fixes/3.patch\n      fuzz: -1"),
            ("the series file none cannot be read", "series: none"),
            ("can't open fixes/none.patch", "patches: fixes/none.patch"),
            ("1 out of 1 hunk FAILED", "patches: ../fixes/3.patch\n      fuzz: 0"),
        ] {
            let yaml = SOURCES.replace("patches: |\n        ../fixes/3.patch", with);
            assert_ne!(yaml, SOURCES);
            let (step, tail) = failure(&try_build(farm, "sources", &yaml).await.unwrap());
            assert_eq!(step, "sources: patch");
            assert!(tail.contains(message), "{with:?} says, without {message:?}:\n{tail}");
        }
    });
}

/// An archive with one folder, and how often it was asked for.
fn server(listener: TcpListener, archive: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let router = Router::new().fallback(move |uri: Uri| {
        let found = match uri.path() {
            "/things-1.0.0.tar.gz" => {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(archive.clone())
            }
            "/plain.txt" => Ok(b"plain\n".to_vec()),
            _ => Err(StatusCode::NOT_FOUND),
        };
        async move { found }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (origin, asked)
}

/// A `.tar.gz` whose owner is nobody the guest knows.
fn archive() -> Vec<u8> {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, mode, text) in [("readme", 0o644, "read me\n"), ("run.sh", 0o755, "#!/bin/sh\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(4242);
        header.set_gid(4242);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, format!("things/{name}"), text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn archives_are_fetched_checked_and_unpacked() {
    on_farm(async |farm| {
        let archive = archive();
        let (origin, asked) = server(farm.listener(), archive.clone());
        let sha256 = hex::encode(Sha256::digest(&archive));
        let good = FETCH
            .replace("@server@", &origin)
            .replace("@gone@", "http://127.0.0.1:9")
            .replace("@sha256@", &sha256.to_uppercase())
            .replace("@sha512@", &hex::encode(Sha512::digest(&archive)));
        let Some(built) = build(farm, "fetched", &good).await else { return };
        assert_eq!(built.events.lines_of("fetched: look"), ["things-1.0.0.tar.gz", "read me", "0:0 755"]);
        assert_eq!(built.events.lines_of("fetched: look again"), ["things", "deleted", "plain"]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        let sum = format!("expected-sha256: {}", sha256.to_uppercase());
        for (message, from, to) in [
            ("has the checksum", sum.as_str(), format!("expected-sha256: {}", "0".repeat(64))),
            ("has the checksum", &sum, format!("expected-sha512: {}", "0".repeat(128))),
            ("one of expected-sha256", &sum, "reason: none".to_owned()),
            ("404", "/things-", "/no-things-".to_owned()),
            ("not look like a tar archive", "/things-${{package.version}}.tar.gz", "/plain.txt".to_owned()),
        ] {
            let mut yaml = good.replacen(from, &to, 1);
            if message.contains("tar archive") {
                yaml = yaml.replacen(&sum, "expected-none: no sum", 1);
            }
            let (step, tail) = failure(&try_build(farm, "fetched", &yaml).await.unwrap());
            assert_eq!(step, "fetched: fetch");
            assert!(tail.contains(message), "{to:?} says, without {message:?}:\n{tail}");
        }
    });
}
