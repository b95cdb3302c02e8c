//! Our answers beside those of the real tools.

use std::collections::BTreeMap;

use melange_remote_sdk::analysis::scan;
use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::version::Version;
use melange_remote_sdk::solver::{Policy, RepositoryPackages, Solver};
use serde_json::Value;

use crate::support::oracle;

fn cases(name: &str) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(oracle(name)?).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn versions_compare_as_apk_tools_does() {
    let Some(cases) = cases("apk-version-cases.json") else { return };
    let mut wrong = Vec::new();
    for case in &cases {
        let (a, b) = (case["a"].as_str().unwrap(), case["b"].as_str().unwrap());
        let found = match (Version::parse(a), Version::parse(b)) {
            (Some(a), Some(b)) => Some(match a.cmp(&b) {
                std::cmp::Ordering::Less => "<",
                std::cmp::Ordering::Equal => "=",
                std::cmp::Ordering::Greater => ">",
            }),
            _ => None,
        };
        if found != case["result"].as_str() {
            wrong.push(format!("{a} {b}: {found:?} instead of {}", case["result"]));
        }
    }
    println!("versions: {} of {} equal", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_solver_chooses_as_apk_tools_does() {
    let Some(cases) = cases("apk-solver-cases.json") else { return };
    let indexes = indexes();
    let (mut wrong, mut solvers) = (Vec::new(), BTreeMap::new());
    for case in &cases {
        let found = solve(case, &indexes, Policy::Apk, &mut solvers);
        // Where the two major versions differ, the newer one is the mark.
        let mark = if case["apk3"].is_object() { &case["apk3"] } else { case };
        let expected: Option<Vec<&str>> =
            mark["result"].as_array().map(|names| names.iter().map(|name| name.as_str().unwrap()).collect());
        let same = match (&found, &expected) {
            (Ok(found), Some(expected)) => found == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{} {}: {}",
                case["kind"],
                case["request"],
                explain(&found, expected.as_deref())
            ));
        }
    }
    println!("solver: {} of {} equal", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn indexes() -> BTreeMap<&'static str, Index> {
    let files = [
        ("alpine-3.16", "alpine-3.16-x86_64"),
        ("alpine-3.17", "alpine-3.17-aarch64"),
        ("alpine-3.17x", "alpine-3.17x-x86_64"),
    ];
    files
        .into_iter()
        .map(|(name, file)| {
            let path = oracle(&format!("index/{file}.APKINDEX.tar.gz")).unwrap();
            (name, Index::read(&std::fs::read(path).unwrap(), None).unwrap())
        })
        .collect()
}

#[test]
fn the_solver_chooses_as_apko_does() {
    let Some(cases) = cases("apko-solver-cases.json") else { return };
    let indexes = indexes();
    let (mut wrong, mut solvers) = (Vec::new(), BTreeMap::new());
    for case in &cases {
        let found = solve(case, &indexes, Policy::Apko, &mut solvers);
        let expected: Option<Vec<&str>> =
            case["apko"].as_array().map(|names| names.iter().map(|name| name.as_str().unwrap()).collect());
        let same = match (&found, &expected) {
            (Ok(found), Some(expected)) => found == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!("{}: {}", case["request"], explain(&found, expected.as_deref())));
        }
    }
    println!("solver beside apko: {} of {} equal", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The answer of our solver; the tables over indexes are made once.
fn solve<'i>(
    case: &Value,
    indexes: &'i BTreeMap<&'static str, Index>,
    policy: Policy,
    solvers: &mut BTreeMap<String, Solver<'i>>,
) -> Result<Vec<String>, String> {
    let repositories: Vec<RepositoryPackages<'i>> = case["index"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| match entry.as_str() {
            Some(name) => RepositoryPackages { tag: "", packages: &indexes[name].packages },
            // The cases know one tag. apko's answers were recorded with such a repository as one without.
            None => RepositoryPackages {
                tag: match policy {
                    Policy::Apko => "",
                    Policy::Apk if entry["tag"] == "new" => "new",
                    Policy::Apk => panic!("{entry}"),
                },
                packages: &indexes[entry["index"].as_str().unwrap()].packages,
            },
        })
        .collect();
    let world: Vec<String> =
        case["request"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let solver =
        solvers.entry(case["index"].to_string()).or_insert_with(|| Solver::new(&repositories, policy));
    let chosen = solver.solve(&world).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = chosen
        .iter()
        .map(|choice| {
            let repository = &repositories[choice.repository];
            let package = &repository.packages[choice.package];
            let tag = if repository.tag.is_empty() { String::new() } else { format!("@{}", repository.tag) };
            format!("{}{tag}-{}", package.name, package.version)
        })
        .collect();
    names.sort();
    Ok(names)
}

fn explain(found: &Result<Vec<String>, String>, expected: Option<&[&str]>) -> String {
    match (found, expected) {
        (Err(error), _) => format!("error: {error}"),
        (Ok(_), None) => "chosen, where apk refuses".to_owned(),
        (Ok(found), Some(expected)) => {
            let more: Vec<&String> = found.iter().filter(|name| !expected.contains(&name.as_str())).collect();
            let less: Vec<&&str> = expected.iter().filter(|name| !found.iter().any(|f| f == *name)).collect();
            format!("too many {more:?}, missing {less:?}")
        }
    }
}

/// Packages that melange made, scanned anew: they say what their analysis found.
#[test]
fn packages_need_and_provide_what_melange_found() {
    // Made before melange knew the rule: modules of Perl need it, programs that are libraries too provide those.
    let known = [
        (
            "libcap",
            "-so:libcap.so.2 -so:libpsx.so.2 +so-ver:libcap.so.2=2.69-r0 +so-ver:libpsx.so.2=2.69-r0 +so:libcap.so.2=2 +so:libpsx.so.2=2",
        ),
        ("perl-json", "+perl~5"),
    ];
    let Some(folder) = oracle("apks") else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let apk = ApkFile::open(&entry.unwrap().path()).unwrap();
        let found = scan::of_packages(&apk, &[]).unwrap();
        let pairs = [(&apk.info.depend, &found.runtime), (&apk.info.provides, &found.provides)];
        let mut differences = Vec::new();
        for (sign, at) in [("-", 0), ("+", 1)] {
            for (recorded, found) in pairs {
                let (one, other) = if at == 0 { (recorded, found) } else { (found, recorded) };
                let only = one.iter().filter(|item| !other.contains(item));
                differences.extend(only.map(|item| format!("{sign}{item}")));
            }
        }
        let expected = known.iter().find(|(name, _)| *name == apk.info.pkgname).map_or("", |(_, text)| *text);
        assert_eq!(differences.join(" "), expected, "{}", apk.info.pkgname);
        count += 1;
    }
    assert_eq!(count, 7);
}
