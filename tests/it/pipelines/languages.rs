//! Go, Rust, Python, Perl, Ruby and PHP.

use super::{Contents, build, failure, only_files, try_build};
use crate::support::farm::on_toolchains;

const GO: &str = include_str!("../definitions/pipelines/go.yaml");
const RUST: &str = include_str!("../definitions/pipelines/rust.yaml");
const PYTHON: &str = include_str!("../definitions/pipelines/python.yaml");
const EXTENSIONS: &str = include_str!("../definitions/pipelines/extensions.yaml");

/// The lines of a step from the one that starts with `first` on.
fn from(lines: Vec<String>, first: &str) -> Vec<String> {
    lines.into_iter().skip_while(|line| !line.starts_with(first)).collect()
}

#[test]
fn go_programs_are_built_installed_and_measured() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "go-programs", GO).await else { return };
        assert_eq!(
            built.events.lines_of("go-programs: run"),
            [
                "version 1.2.3 by two words on 1970-01-01 with fancy things",
                "-buildmode exe",
                "-tags netgo,osusergo,fancy",
                "-trimpath true",
                "GOAMD64 v2",
                "no ignore file"
            ]
        );
        assert_eq!(built.events.lines_of("go-programs: go/covdata"), ["Statements coverage: 85.7%"]);
        let programs = Contents::of(&built, "go-programs-1.2.3-r0");
        only_files(&programs, &["opt/tools/libexec/one", "usr/bin/greet"]);
        assert_eq!(programs.entry("usr/bin/greet").mode(), 0o755);

        let look = built.events.lines_of("go-vendored: look");
        assert_eq!(look[0], "*.o", "the ignore file is back");
        let run = from(look, "version ");
        assert_eq!(run[0], "version vendored by  on  with nothing");
        assert_eq!(run[run.len() - 1], "0", "sections with debugging information");
        let vendored = Contents::of(&built, "go-vendored-1.2.3-r0");
        only_files(&vendored, &["usr/bin/first", "usr/bin/programs", "usr/bin/second"]);

        assert!(built.events.text().lines().any(|line| line == "second"), "{}", built.events.text());
        only_files(&Contents::of(&built, "go-installed-1.2.3-r0"), &["usr/bin/second"]);

        let changed =
            ["with the tool of new", "require example.org/tool.git v1.1.0", "example.org", "modules.txt"];
        let look = built.events.lines_of("go-dependent: look");
        assert_eq!(look[..4], changed);
        assert_eq!(look[4..], ["tool.git@v1.1.0"], "the cache of modules");
        assert_eq!(built.events.lines_of("go-dependent: run what was installed"), ["tool of old"]);
        let dependent = Contents::of(&built, "go-dependent-1.2.3-r0");
        only_files(&dependent, &["usr/bin/dependent", "usr/libexec/tool"]);

        for (message, from, to) in [
            ("there is no go.mod in tree", "modroot: src\n", "modroot: tree\n"),
            ("directory not found", "packages: .\n", "packages: ./nothing\n"),
        ] {
            let yaml = GO.replacen(from, to, 1).replace("mkdir -p words", "mkdir -p tree words");
            let (step, tail) = failure(&try_build(farm, "go-programs", &yaml).await.unwrap());
            assert_eq!(step, "go-programs: go/build");
            assert!(tail.contains(message), "no {message:?} in:\n{tail}");
        }
    });
}

#[test]
fn a_crate_is_built_and_measured() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "rust-program", RUST).await else { return };
        // The section is the list of dependencies.
        let look = ["hello from release", "specially", ".dep-v0", "greet"];
        assert_eq!(built.events.lines_of("rust-program: look"), look);
        let program = Contents::of(&built, "rust-program-0.1.0-r0");
        only_files(&program, &["usr/bin/greet"]);
        assert_eq!(program.entry("usr/bin/greet").mode(), 0o755);
        assert_eq!(
            built.events.lines_of("rust-measured: run"),
            ["hello from debug", "greet", "greet.d", "1"]
        );
        let measured = Contents::of(&built, "rust-measured-0.1.0-r0");
        only_files(&measured, &["opt/measured/greet", "opt/measured/greet.d"]);
        // Eight of thirteen lines run, by the path of the program and by its name.
        let coverage = "Statements coverage: 61.54%";
        assert_eq!(built.events.lines_of("rust-measured: llvm/covreport"), [coverage; 2]);

        let yaml = RUST.replacen("object: greet", "object: no-such-program", 1);
        let (step, tail) = failure(&try_build(farm, "rust-program", &yaml).await.unwrap());
        assert_eq!(step, "rust-measured: llvm/covreport");
        assert!(tail.contains("the program was not found"), "{tail}");
    });
}

#[test]
fn python_packages_are_built_and_imported() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "python-module", PYTHON).await else { return };
        assert_eq!(built.events.lines_of("python-module: run"), ["__init__.py", "hello of old"]);
        let module = Contents::of(&built, "python-module-2.0-r0");
        let packages = "usr/lib/python3.13/site-packages";
        assert_eq!(module.entry("usr/bin/old-greet").mode(), 0o755);
        assert!(module.text(&format!("{packages}/oldtools/__init__.py")).starts_with("def greet()"));

        assert_eq!(built.events.lines_of("python-wheel: run"), ["hello of new"]);
        assert_eq!(
            built.events.lines_of("python-wheel: python/import"),
            [
                "python/import: using /usr/bin/python3.13",
                "PASS: import newtools",
                "PASS: from newtools.deep import ANSWER",
                "PASS: import newtools, newtools.deep",
                "PASS: from newtools.deep import ANSWER; assert ANSWER == 42, \"$(not a command)\""
            ]
        );
        let tested = ["tested 42", "both lines of the 'command'"];
        assert_eq!(built.events.lines_of("python-wheel: python/test"), tested);
        let wheel = Contents::of(&built, "python-wheel-2.0-r0");
        assert_eq!(wheel.entry("usr/bin/new-greet").mode(), 0o755);
        assert_eq!(wheel.text(&format!("{packages}/newtools/deep.py")), "ANSWER = 42\n");
        assert!(!wheel.files().iter().any(|path| path.ends_with(".pyc")), "{:?}", wheel.files());
    });
}

#[test]
fn an_import_that_fails_or_says_nothing_fails_the_step() {
    on_toolchains(async |farm| {
        let import = |packages: &str, with: &str| {
            format!(
                "package:\n  name: import\n  version: 1\n  epoch: 0\nenvironment:\n  contents:\n    packages: [{packages}]\n\
                 pipeline:\n  - uses: python/import\n    with:\n      {with}\n"
            )
        };
        for (message, packages, with) in [
            (
                "FAIL: import nothing",
                "python3",
                "imports: |\n        import json\n        import nothing\n        import re",
            ),
            ("PASS: import re", "python3", "imports: |\n        import nothing\n        import re"),
            ("from needs import", "python3", "from: json"),
            ("imports excludes import", "python3", "{import: json, imports: import re}"),
            ("nothing to import was given", "python3", "imports: '# nothing'"),
            ("/nowhere/bin/python: not found", "python3", "{import: json, venv: /nowhere}"),
            ("found 0 interpreters", "busybox", "import: json"),
        ] {
            let Some(built) = try_build(farm, "import", &import(packages, with)).await else { return };
            let (step, tail) = failure(&built);
            assert_eq!(step, "import: python/import");
            assert!(tail.contains(message), "no {message:?} in:\n{tail}");
        }
    });
}

#[test]
fn modules_in_c_are_built_for_perl_ruby_and_php() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "extensions", EXTENSIONS).await else { return };
        let lines = |step: &str| built.events.lines_of(step);
        assert_eq!(lines("perl-fast: before cleaning"), [".packlist", "perllocal.pod"]);
        // The flags of the environment and those of perl itself were both used.
        assert_eq!(lines("perl-fast: run"), ["105"]);
        let perl = Contents::of(&built, "perl-fast-0.3.1-r0");
        let ends = |contents: &Contents, end: &str| {
            contents
                .files()
                .into_iter()
                .filter(|path| path.ends_with(end))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!((ends(&perl, "auto/Fast/Fast.so").len(), ends(&perl, "/Fast.pm").len()), (1, 1));
        assert!(ends(&perl, ".packlist").is_empty() && ends(&perl, "perllocal.pod").is_empty());

        assert_eq!(lines("ruby-fast: before cleaning"), ["fast-0.3.1.gem", "gem_make.out", "mkmf.log"]);
        assert_eq!(lines("ruby-fast: run"), ["23"]);
        let ruby = Contents::of(&built, "ruby-fast-0.3.1-r0");
        assert_eq!(ruby.entry("usr/bin/fast-add").mode(), 0o755);
        assert!(!ends(&ruby, "specifications/fast-0.3.1.gemspec").is_empty(), "{:?}", ruby.files());
        for left in [".gem", "gem_make.out", "mkmf.log"] {
            assert!(ends(&ruby, left).is_empty(), "{left} in {:?}", ruby.files());
        }
        assert!(built.events.text().contains("File: again.gem"));
        Contents::of(&built, "ruby-fast-file-0.3.1-r0").entry("usr/bin/fast-add3.3");

        assert_eq!(lines("php-fast: run").last().unwrap(), "42");
        let php = Contents::of(&built, "php-fast-0.3.1-r0");
        assert_eq!(php.text("etc/php/conf.d/fast.ini"), "extension=fast.so\n");
        assert_eq!(ends(&php, "/fast.so").len(), 1);
    });
}
