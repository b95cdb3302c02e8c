//! Rules of both tools, each on the smallest index that shows it; the real indexes are compared in `tests/it/oracles.rs`.

use super::{Policy, RepositoryPackages, Solver};
use crate::apk::index::IndexPackage;
use crate::error::{Error, ErrorKind};
use crate::limits;

/// `name-version: needs; provides; install_if`, and `k=N` behind for a priority.
fn package(text: &str) -> IndexPackage {
    let (label, rest) = text.split_once(':').unwrap_or((text, ""));
    let (name, version) = label.split_once('-').unwrap();
    let mut parts = rest.split(';').map(|part| part.trim().to_owned());
    let mut next = || parts.next().unwrap_or_default();
    IndexPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        depends: next(),
        provides: next(),
        install_if: next(),
        provider_priority: next().strip_prefix("k=").map_or(0, |priority| priority.parse().unwrap()),
        installed_bytes: 1,
        ..IndexPackage::default()
    }
}

fn packages(texts: &[&str]) -> Vec<IndexPackage> {
    texts.iter().map(|text| package(text)).collect()
}

/// What is installed for a request, in order.
fn solve(policy: Policy, repositories: &[(&str, &[&str])], request: &[&str]) -> Result<String, Error> {
    let read: Vec<(&str, Vec<IndexPackage>)> =
        repositories.iter().map(|(tag, texts)| (*tag, packages(texts))).collect();
    let repositories: Vec<RepositoryPackages<'_>> =
        read.iter().map(|(tag, packages)| RepositoryPackages { tag, packages }).collect();
    let world: Vec<String> = request.iter().map(|text| (*text).to_owned()).collect();
    let chosen = Solver::new(&repositories, policy).solve(&world)?;
    let label = |choice: &super::Choice| {
        let package = &read[choice.repository].1[choice.package];
        format!("{}-{}", package.name, package.version)
    };
    Ok(chosen.iter().map(label).collect::<Vec<String>>().join(" "))
}

fn told(error: &Error) -> String {
    let context: Vec<String> = error.context().iter().map(|(key, value)| format!("{key} {value}")).collect();
    format!("{}; {}; {}", error.message(), context.join("; "), error.hint_text().unwrap_or_default())
}

#[test]
fn what_is_asked_for_is_a_sorted_set() {
    let index: &[&str] = &["a-1: ;", "b-1: ;"];
    for policy in [Policy::Apko, Policy::Apk] {
        assert_eq!(solve(policy, &[("", index)], &["b", "a", "b"]).unwrap(), "a-1 b-1");
    }
}

#[test]
fn virtual_names_are_picked_by_one_tool_and_refused_by_the_other() {
    let index: &[&str] = &["one-1: ; sh", "two-2: ; sh", "user-1: sh"];
    assert_eq!(solve(Policy::Apko, &[("", index)], &["user"]).unwrap(), "two-2 user-1");
    let error = solve(Policy::Apk, &[("", index)], &["user"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    insta::assert_snapshot!(told(&error), @r#""sh" is a virtual name, and no provider of it is asked for; needed by user-1; asked for by user; ask for one of its providers, such as `one`, `two`; `--pick` takes one by apko's rules"#);
    assert_eq!(solve(Policy::Apk, &[("", index)], &["user", "one"]).unwrap(), "one-1 user-1");
    let prior: &[&str] = &["one-1: ; sh; ; k=5", "two-2: ; sh", "user-1: sh"];
    assert_eq!(solve(Policy::Apk, &[("", prior)], &["user"]).unwrap(), "one-1 user-1");
}

#[test]
fn each_tool_decides_in_its_own_order() {
    // apko takes `lib` first, by its name, and cannot go back from its newest when `user` turns out to need the other.
    let index: &[&str] =
        &["app-1: lib user", "base-1", "lib-1: base", "lib-2: base", "user-1: lib<2", "user-2: lib<2"];
    assert_eq!(solve(Policy::Apk, &[("", index)], &["app"]).unwrap(), "base-1 lib-1 user-2 app-1");
    let error = solve(Policy::Apko, &[("", index)], &["app"]).unwrap_err();
    assert!(told(&error).contains("needed by app-1 → user-2"), "{}", told(&error));
}

#[test]
fn tags_stand_where_each_tool_has_them() {
    let repositories: &[(&str, &[&str])] = &[("", &["a-1", "b-1: a"]), ("new", &["a-2", "c-2: a"])];
    assert_eq!(solve(Policy::Apko, repositories, &["a=2@new"]).unwrap(), "a-2");
    assert_eq!(solve(Policy::Apk, repositories, &["a@new=2"]).unwrap(), "a-2");
    assert_eq!(solve(Policy::Apk, repositories, &["c@new"]).unwrap(), "a-1 c-2");
    for (policy, request, reason) in [
        (Policy::Apk, "c", "c-2 is only in the repository tagged @new"),
        (Policy::Apko, "c", "only in the repository tagged @new, ask for c@new"),
        (Policy::Apk, "a@old", "no repository has the tag @old"),
        (Policy::Apk, "a=2@new", "which is no tag there"),
        (Policy::Apko, "a@new=2", "which is no tag there"),
    ] {
        let error = solve(policy, repositories, &[request]).unwrap_err();
        assert!(told(&error).contains(reason), "{request}: {}", told(&error));
    }
}

#[test]
fn an_unversioned_name_is_older_than_any_version_to_apk_tools() {
    let index: &[&str] = &["a-1: ; virtual", "b-1: a virtual<3", "c-1: a virtual>=1"];
    assert_eq!(solve(Policy::Apk, &[("", index)], &["b"]).unwrap(), "a-1 b-1");
    let error = solve(Policy::Apk, &[("", index)], &["c"]).unwrap_err();
    assert!(told(&error).contains("c-1"), "{}", told(&error));
}

#[test]
fn what_comes_along_by_itself() {
    let index: &[&str] = &["a-1", "b-1", "both-1: ;; a b", "exact-1: ;; a=2", "app-1: a b"];
    assert_eq!(solve(Policy::Apk, &[("", index)], &["a", "b"]).unwrap(), "a-1 b-1 both-1");
    // apko looks at one request after the other, and at what it needs rather than at itself.
    assert_eq!(solve(Policy::Apko, &[("", index)], &["a", "b"]).unwrap(), "a-1 b-1");
    assert_eq!(solve(Policy::Apko, &[("", index)], &["app"]).unwrap(), "a-1 b-1 both-1 app-1");
}

#[test]
fn refusals_tell_the_way_and_the_nearest() {
    let index: &[&str] = &["app-1: middle", "middle-1: zlob", "zlib-1", "old-1: zlib<1", "new-1: zlib>=1"];
    for (policy, request, expected) in [
        (
            Policy::Apko,
            &["app"][..],
            r#"nothing provides "zlob"; needed by app-1 → middle-1; asked for by app; did you mean `zlib`?"#,
        ),
        (
            Policy::Apk,
            &["app"],
            r#"nothing provides "zlob"; needed by app-1 → middle-1; asked for by app; did you mean `zlib`?"#,
        ),
        (Policy::Apko, &["zlip"], r#"nothing provides "zlip"; ; did you mean `zlib`?"#),
        (Policy::Apk, &["zlip"], r#"nothing provides "zlip"; ; did you mean `zlib`?"#),
        (
            Policy::Apk,
            &["zlib=9"],
            r#"zlib-1 cannot be chosen: it does not satisfy "zlib=9" of the request; asked for by zlib=9; loosen a version, or drop one of the packages that conflict"#,
        ),
        (
            Policy::Apko,
            &["!zlib", "app"],
            r#"the request "!zlib" excludes a package, which an environment cannot ask for; ; name the packages that it should hold; packages exclude others by `!name` among their dependencies"#,
        ),
    ] {
        let error = solve(policy, &[("", index)], request).unwrap_err();
        assert_eq!(told(&error), expected, "{policy:?} {request:?}");
    }
}

#[test]
fn a_name_that_is_stated_twice_is_refused_as_apko_refuses_it() {
    let index: &[&str] = &["a-1: b; a=1", "b-1"];
    let error = solve(Policy::Apko, &[("", index)], &["a"]).unwrap_err();
    assert!(told(&error).contains("a-1 provides \"a\" more than once"), "{}", told(&error));
}

#[test]
fn packages_that_are_met_on_ever_more_ways_are_refused() {
    let each = (0..40).map(|at| format!("p{at}-1: a{} b{}; a{at} b{at}", at + 1, at + 1));
    let all: Vec<String> = each.chain(["p40-1:; a40 b40".to_owned()]).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let error = solve(Policy::Apko, &[("", &all)], &["p0"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", told(&error));
}

#[test]
fn long_chains_end_without_the_stack() {
    let length = 20 * limits::SOLVER_DEPTH_MAX;
    let chain: Vec<String> = (0..length).map(|at| format!("p{at}-1: p{}", at + 1)).collect();
    let mut chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    let last = format!("p{length}-1");
    chain.push(&last);
    let solved = solve(Policy::Apk, &[("", &chain)], &["p0"]).unwrap();
    assert_eq!(solved.split(' ').count(), length + 1);
    let error = solve(Policy::Apko, &[("", &chain)], &["p0"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    // The deepest chain that is allowed fits the stack of a thread.
    let deep = format!("p{}", length - limits::SOLVER_DEPTH_MAX + 1);
    let solved = solve(Policy::Apko, &[("", &chain)], &[&deep]).unwrap();
    assert_eq!(solved.split(' ').count(), limits::SOLVER_DEPTH_MAX);
}
