//! The built-in pipelines: all there, documented, and shell that every shell reads.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::arch::Arch;
use crate::guest::script::{ScriptOptions, guest_steps};
use crate::melange::{CompileOptions, Compiled, compile};

/// Every built-in pipeline of melange.
const ALL: [&str; 51] = [
    "R/build",
    "autoconf/configure",
    "autoconf/make",
    "autoconf/make-install",
    "cargo/build",
    "cmake/build",
    "cmake/configure",
    "cmake/install",
    "fetch",
    "git-am",
    "git-checkout",
    "go/build",
    "go/build/v2",
    "go/bump",
    "go/covdata",
    "go/install",
    "llvm/covreport",
    "maven/configure-mirror",
    "maven/pombump",
    "meson/compile",
    "meson/configure",
    "meson/install",
    "npm/install",
    "patch",
    "pecl/install",
    "pecl/phpize",
    "perl/cleanup",
    "perl/make",
    "python/build",
    "python/build-wheel",
    "python/import",
    "python/install",
    "python/test",
    "ruby/build",
    "ruby/clean",
    "ruby/install",
    "split/alldocs",
    "split/bin",
    "split/debug",
    "split/dev",
    "split/infodir",
    "split/lib",
    "split/locales",
    "split/manpages",
    "split/static",
    "strip",
    "xcover/ensure",
    "xcover/profile",
    "xcover/status",
    "xcover/stop",
    "xcover/wait",
];

#[test]
fn all_are_there_and_describe_themselves() {
    let names: Vec<&str> = builtins().map(|builtin| builtin.name).collect();
    assert_eq!(names, ALL);
    assert!(builtin_names().eq(names));
    for builtin in builtins() {
        let name = builtin.name;
        assert_eq!(builtin_text(name), Some(builtin.text));
        assert!(!builtin.title.is_empty(), "{name}");
        for (input, about) in &builtin.inputs {
            assert!(!about.description.is_empty(), "{name} {input}");
            assert!(!about.required || about.default.is_empty(), "{name} {input} cannot be missing");
        }
    }
}

#[test]
fn only_what_works_on_files_alone_has_no_network() {
    let without: Vec<&str> = builtins().filter(|builtin| !builtin.network).map(|it| it.name).collect();
    let (splits, others): (Vec<&str>, Vec<&str>) =
        without.into_iter().partition(|name| name.starts_with("split/"));
    assert_eq!(splits.len(), ALL.iter().filter(|name| name.starts_with("split/")).count());
    let expected = ["git-am", "go/covdata", "llvm/covreport", "patch", "perl/cleanup", "ruby/clean", "strip"];
    assert_eq!(others, expected);
}

/// The scripts that a step makes of a built-in pipeline: `(title, script)`.
fn scripts(name: &str, with: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut text =
        format!("package:\n  name: example\n  version: 1.2.3\n  epoch: 4\npipeline:\n  - uses: {name}\n");
    if !with.is_empty() {
        text.push_str("    with:\n");
    }
    for (key, value) in with {
        text.push_str(&format!("      {key}: {value:?}\n"));
    }
    let source = Source::new("example.yaml", text);
    let options = CompileOptions { defaults: None, ..CompileOptions::default() };
    let compiled = compile(&source, Arch::X86_64, &PipelineSet::default(), &options);
    let Compiled::Plan(plan) = compiled.unwrap_or_else(|mistakes| panic!("{mistakes}")) else {
        panic!("{name} was skipped")
    };
    let steps = guest_steps(&plan, &ScriptOptions::default()).unwrap();
    steps.into_iter().map(|step| (step.name, step.script)).collect()
}

/// What the required inputs get, or every input.
fn examples(builtin: &BuiltinPipeline, every: bool) -> Vec<(&str, &str)> {
    let given = builtin.inputs.iter().filter(|(_, about)| every || about.required);
    given
        .map(|(input, about)| {
            let value = match input.as_str() {
                "expected-commit" => "0123456789abcdef0123456789abcdef01234567",
                "expected-sha256" | "expected-sha512" | "expected-none" => "",
                _ if !about.default.is_empty() => &*about.default,
                _ => "an example of \"words\"\nand $(echo lines)\n",
            };
            (input.as_str(), value)
        })
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// Has a shell read a script without running it.
fn check(shell: &[&str], script: &str) -> Result<(), String> {
    let mut child = Command::new(shell[0])
        .args(&shell[1..])
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn every_shell_reads_every_script() {
    let there =
        |shell: &&[&str]| Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(":").output().is_ok();
    let shells: [&[&str]; 3] = [&["sh"], &["bash"], &["busybox", "ash"]];
    let shells: Vec<&[&str]> = shells.into_iter().filter(there).collect();
    assert!(shells.contains(&&["sh"][..]));
    assert!(check(&["sh"], "if true; then").is_err());
    for builtin in builtins() {
        for every in [false, true] {
            let made = scripts(builtin.name, &examples(&builtin, every));
            assert!(!made.is_empty(), "{}", builtin.name);
            for (title, script) in made {
                for shell in &shells {
                    let read = check(shell, &script);
                    assert_eq!(read, Ok(()), "{} ({title}) by {shell:?}:\n{script}", builtin.name);
                }
            }
        }
    }
}

/// The scripts around programs that no distribution at hand has: read here, run elsewhere with stand-ins.
#[test]
fn scripts_around_absent_programs_are_as_before() {
    let cases: [(&str, &[(&str, &str)]); 7] = [
        ("go/bump", &[("deps", "example.org/a@v1.2.3"), ("modroot", "src")]),
        ("maven/pombump", &[("properties", "a.version@1.2"), ("debug", "true")]),
        ("xcover/ensure", &[("min-coverage", "12")]),
        ("xcover/profile", &[("executable-path", "/usr/bin/example"), ("exclude-functions", "^runtime")]),
        ("xcover/status", &[]),
        ("xcover/stop", &[]),
        ("xcover/wait", &[("wait-timeout", "5")]),
    ];
    for (name, with) in cases {
        let shown: Vec<String> = scripts(name, with).into_iter().map(|(_, script)| script).collect();
        insta::assert_snapshot!(name.replace('/', "_"), shown.join("----\n"));
    }
}

/// Runs a pipeline that splits `other` in a folder that stands for the workspace; returns the outcome and the files
/// of `other` and of what they are moved to.
fn split(name: &str, with: &[(&str, &str)], files: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let (from, to) = (format!("{at}/melange-out/other"), format!("{at}/melange-out/example"));
    for file in files {
        let path = std::path::Path::new(&from).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.extension().is_some_and(|extension| extension == "so") {
            std::os::unix::fs::symlink("target", &path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
    }
    std::fs::create_dir_all(&to).unwrap();
    let mut given = vec![("package", "other")];
    given.extend(with);
    let mut made = scripts(name, &given);
    let script = made.remove(0).1.replace("/home/build", &at).replace("set -eo pipefail", "set -e");
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let below = |root: &str| {
        let list = Command::new("find").args([".", "!", "-type", "d"]).current_dir(root).output().unwrap();
        let text = String::from_utf8(list.stdout).unwrap();
        let mut names: Vec<String> =
            text.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
        names.sort_unstable();
        names
    };
    let found = (output.status.code(), below(&from), below(&to));
    assert!(found.0 == Some(0) || !output.stderr.is_empty());
    found
}

#[test]
fn development_files_of_a_package_whose_prefix_is_the_root_move() {
    let files = [
        "bin/a",
        "bin/a-config",
        "include/a.h",
        "include/deep/include/b.h",
        "lib/liba.a",
        "lib/liba.so",
        "lib/liba.so.1",
        "lib/pkgconfig/a.pc",
        "share/aclocal/a.m4",
        "share/odd name.h",
    ];
    let development: Vec<&str> =
        files.into_iter().filter(|file| !["bin/a", "lib/liba.so.1"].contains(file)).collect();
    for prefix in ["/", "//", "."] {
        let (code, left, moved) = split("split/dev", &[("prefix", prefix)], &files);
        assert_eq!(code, Some(0), "{prefix:?}");
        assert_eq!(left, ["bin/a", "lib/liba.so.1"], "{prefix:?}");
        assert_eq!(moved, development, "{prefix:?}");
    }
    for prefix in ["..", "/usr/../..", "../other"] {
        let (code, left, _) = split("split/dev", &[("prefix", prefix)], &files);
        assert_eq!((code, left.len()), (Some(1), files.len()), "{prefix:?}");
    }
}

#[test]
fn libraries_and_programs_move() {
    let files =
        ["lib/liba.a", "usr/bin/.hidden", "usr/bin/a", "usr/bin/b c", "usr/lib/libb.so.2", "x/libc.so.3"];
    let (code, left, moved) = split("split/lib", &[("paths", "/x")], &files);
    assert_eq!((code, left.len()), (Some(0), 4));
    assert_eq!(moved, ["usr/lib/libb.so.2", "x/libc.so.3"]);
    assert_eq!(split("split/lib", &[("paths", "x/../..")], &files).0, Some(1));
    assert_eq!(split("split/static", &[], &files).2, ["lib/liba.a"]);
    let (code, _, moved) = split("split/bin", &[], &files);
    assert_eq!(code, Some(0));
    assert_eq!(moved, ["usr/bin/.hidden", "usr/bin/a", "usr/bin/b c"]);
}

proptest! {
    #[test]
    fn no_accepted_path_leaves_its_folder(path in "[a-z./]{1,24}\\.yaml") {
        if let Ok(path) = PipelinePath::parse(&path) {
            prop_assert!(!path.as_str().starts_with('/'));
            prop_assert!(path.as_str().split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
        }
    }
}
