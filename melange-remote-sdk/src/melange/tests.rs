//! Compilation as a whole: worked examples, and a folder of broken definitions with what people read.

use std::collections::BTreeMap;
use std::path::Path;

use super::pipelines::PipelineSet;
use super::plan::{Plan, PlanStep};
use super::{CompileOptions, Compiled, compile};
use crate::arch::Arch;
use crate::text::diagnostics::{Diagnostics, Source};

fn try_plan(text: &str, inline: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
    let inline: BTreeMap<String, String> =
        inline.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let pipelines = PipelineSet::new(&inline).unwrap();
    match compile(&Source::new("t.yaml", text), Arch::X86_64, &pipelines, &CompileOptions::default())? {
        Compiled::Plan(plan) => Ok(*plan),
        Compiled::Skipped { reason, .. } => panic!("skipped: {reason}"),
    }
}

fn plan(text: &str, inline: &[(&str, &str)]) -> Plan {
    try_plan(text, inline).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

const HEAD: &str = "package:\n  name: a\n  version: 1.10\n  epoch: 2\n";

fn scripts(steps: &[PlanStep]) -> Vec<String> {
    let mut all = Vec::new();
    for step in steps.iter().filter(|step| step.enabled) {
        if !step.runs.is_empty() {
            all.push(step.runs.clone());
        }
        all.extend(scripts(&step.pipeline));
    }
    all
}

#[test]
fn broken_definitions_read_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/broken");
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    names.sort();
    assert!(names.len() >= 60);
    let mut compiled = Vec::new();
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match compile_broken(&path) {
            Ok(_) => compiled.push(name),
            Err(mistakes) => insta::assert_snapshot!(name, mistakes.to_string()),
        }
    }
    assert!(compiled.is_empty(), "not broken: {compiled:?}");
}

/// Compiles a definition with what lies beside it: `X.pipelines/`, `X.vars` and `X.env`.
fn compile_broken(path: &Path) -> Result<Compiled, Diagnostics> {
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        std::fs::read_to_string(path).ok().map(|text| Source::new(name, text))
    };
    let mut inline = BTreeMap::new();
    let base = path.with_extension("pipelines");
    let mut folders = vec![base.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match std::fs::read_to_string(entry.path()) {
                Ok(text) => {
                    let name = entry.path().strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
                    inline.insert(name, text);
                }
                Err(_) => folders.push(entry.path()),
            }
        }
    }
    let options = CompileOptions {
        vars_files: read(&path.with_extension("vars")).into_iter().collect(),
        env_files: read(&path.with_extension("env")).into_iter().collect(),
        ..CompileOptions::default()
    };
    compile(&read(path).unwrap(), Arch::X86_64, &PipelineSet::new(&inline).unwrap(), &options)
}

/// What fuzzing found, and inputs of the kinds that readers of YAML have stumbled over; parts are divided by `%%` as for
/// the fuzz target.
#[test]
fn strange_inputs_are_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut parts = text.split("\n%%\n");
        let source = Source::new("strange.yaml", parts.next().unwrap());
        let inline = parts.next().map(|text| ("mine.yaml".to_owned(), text.to_owned())).into_iter().collect();
        let file = |text: Option<&str>| text.map(|text| Source::new("file", text)).into_iter().collect();
        let (vars_files, env_files) = (file(parts.next()), file(parts.next()));
        let options = CompileOptions { vars_files, env_files, ..CompileOptions::default() };
        match compile(&source, Arch::X86_64, &PipelineSet::new(&inline).unwrap(), &options) {
            Ok(Compiled::Plan(plan)) => {
                super::emit::yaml(&super::emit::compiled_definition(&plan)).unwrap();
            }
            Ok(Compiled::Skipped { reason, .. }) => panic!("{reason}"),
            Err(mistakes) => assert!(mistakes.0.iter().all(|mistake| !mistake.to_string().is_empty())),
        }
        count += 1;
    }
    assert!(count >= 15);
}

#[test]
fn transforms_chain_and_follow_go_expansion() {
    for (replace, expected) in [("${1}_${2}", "1_10"), ("$1_$2", "10")] {
        let text = format!(
            "{HEAD}var-transforms:\n  - from: ${{{{package.version}}}}\n    match: ^(\\d+)\\.(\\d+)$\n    replace: {replace}\n    to: und\n  - from: v${{{{vars.und}}}}\n    match: v\n    replace: w\n    to: more\npipeline:\n  - runs: echo ${{{{vars.und}}}} ${{{{vars.more}}}}\n"
        );
        assert_eq!(scripts(&plan(&text, &[]).package.pipeline), [format!("echo {expected} w{expected}")]);
    }
}

#[test]
fn ranges_expand_in_byte_order_and_conditions_see_quoted_values() {
    let text = format!(
        "{HEAD}data:\n  - name: v\n    items:\n      3.9: old\n      3.10: new\nsubpackages:\n  - range: v\n    name: py${{{{range.key}}}}-a\n    description: ${{{{range.value}}}}\n    pipeline:\n      - if: \"'${{{{range.key}}}}' == '3.10'\"\n        runs: echo ${{{{subpkg.name}}}} ${{{{targets.contextdir}}}}\n"
    );
    let plan = plan(&text, &[]);
    let names: Vec<(&str, &str)> =
        plan.subpackages.iter().map(|sub| (sub.name.as_str(), sub.description.as_str())).collect();
    assert_eq!(names, [("py3.10-a", "new"), ("py3.9-a", "old")]);
    assert_eq!(scripts(&plan.subpackages[0].pipeline), ["echo py3.10-a /home/build/melange-out/py3.10-a"]);
    assert!(scripts(&plan.subpackages[1].pipeline).is_empty());
}

#[test]
fn inputs_are_forwarded_defaulted_and_scoped() {
    let outer = "inputs:\n  dir:\n    default: src\n  flag:\n    default: --x\npipeline:\n  - uses: inner\n    with:\n      dir: ${{inputs.dir}}\n  - runs: echo ${{inputs.flag}}\n";
    let inner = "needs:\n  packages: [\"tool-${{inputs.dir}}\"]\ninputs:\n  dir:\n    required: true\n  flag:\n    default: --inner\nruns: echo ${{inputs.dir}} ${{inputs.flag}} ${{context.name}}\n";
    let text = format!("{HEAD}pipeline:\n  - uses: outer\n    with:\n      dir: lib\n");
    let plan = plan(&text, &[("outer.yaml", outer), ("inner.yaml", inner)]);
    assert_eq!(scripts(&plan.package.pipeline), ["echo lib --inner a", "echo --x"]);
    assert_eq!(plan.environment.packages, ["tool-lib"]);
    assert_eq!(plan.package.pipeline[0].with["dir"], "lib");
}

#[test]
fn a_step_that_does_not_run_needs_nothing() {
    let text = format!(
        "{HEAD}pipeline:\n  - if: ${{{{build.arch}}}} == \"aarch64\"\n    uses: patch\n    with:\n      patches: x\n  - uses: strip\n"
    );
    assert_eq!(plan(&text, &[]).environment.packages, ["binutils", "scanelf"]);
}

#[test]
fn nested_steps_inherit_directory_and_environment() {
    let text = format!(
        "{HEAD}pipeline:\n  - working-directory: d\n    environment: {{A: '1', B: '2'}}\n    pipeline:\n      - runs: x\n        environment: {{B: '3'}}\n"
    );
    let step = &plan(&text, &[]).package.pipeline[0].pipeline[0];
    assert_eq!(step.directory(), "/home/build/d");
    assert_eq!((step.environment["A"].as_str(), step.environment["B"].as_str()), ("1", "3"));
}

#[test]
fn pipelines_that_use_themselves_are_refused() {
    let text = format!("{HEAD}pipeline:\n  - uses: loop\n");
    let mistakes = try_plan(&text, &[("loop.yaml", "pipeline:\n  - uses: loop\n")]).unwrap_err();
    assert_eq!(mistakes.0.len(), 1, "{mistakes}");
    assert!(mistakes.0[0].message.contains("use each other more than"));
}

#[test]
fn other_architectures_are_skipped_and_none_means_all() {
    let text = "package:\n  name: a\n  version: 1\n  target-architecture: [aarch64]\n";
    let set = PipelineSet::default();
    let run = |arch| compile(&Source::new("t.yaml", text), arch, &set, &CompileOptions::default()).unwrap();
    assert!(matches!(run(Arch::X86_64), Compiled::Skipped { .. }));
    assert!(matches!(run(Arch::Aarch64), Compiled::Plan(_)));
}

#[test]
fn mistakes_in_an_inline_pipeline_name_it_and_the_way_there() {
    let text = format!("{HEAD}pipeline:\n  - uses: mine/p\n");
    let mistakes =
        try_plan(&text, &[("mine/p.yaml", "pipeline:\n  - runs: |\n      echo ${{nope}}\n")]).unwrap_err();
    let shown = mistakes.to_string();
    assert!(shown.contains("--> mine/p.yaml:3:12"), "{shown}");
    assert!(shown.contains("note: used as `mine/p` at t.yaml:6:11"), "{shown}");
}

#[test]
fn an_item_without_a_value_is_no_item() {
    let text = format!(
        "{HEAD}environment:\n  contents:\n    packages:\n      - foo\n      -\n      - ~\nsubpackages:\n  -\npipeline:\n  -\n  - runs: x\n"
    );
    let plan = plan(&text, &[]);
    assert_eq!(plan.environment.packages, ["foo"]);
    assert_eq!((plan.subpackages.len(), plan.package.pipeline.len()), (0, 1));
}

#[test]
fn transforms_see_the_fields_of_the_package_after_their_variables() {
    let text = "package:\n  name: a\n  version: ${{vars.major}}.2\n  epoch: 0\nvars:\n  major: \"1\"\nvar-transforms:\n  - from: ${{package.version}}\n    match: ^(\\d+)\\..*$\n    replace: $1\n    to: mm\nenvironment:\n  contents:\n    packages:\n      - x-${{ vars.mm }}\npipeline:\n  - runs: echo ${{ vars.mm }}\n";
    let plan = plan(text, &[]);
    assert_eq!(plan.environment.packages, ["x-1"]);
    assert_eq!(scripts(&plan.package.pipeline), ["echo 1"]);
}

#[test]
fn inputs_may_follow_each_other_but_not_themselves() {
    let chain = "inputs:\n  a: {default: \"${{inputs.b}}a\"}\n  b: {default: \"${{inputs.c}}b\"}\n  c: {default: \"${{inputs.d}}c\"}\n  d: {default: \"${{inputs.e}}d\"}\n  e: {default: e}\npipeline:\n  - runs: echo ${{inputs.a}}\n";
    let text = format!("{HEAD}pipeline:\n  - uses: ./mine/./p\n");
    assert_eq!(scripts(&plan(&text, &[("mine/p.yaml", chain)]).package.pipeline), ["echo edcba"]);
    let circle = "inputs:\n  a: {default: \"${{inputs.b}}\"}\n  b: {default: \"${{inputs.a}}\"}\nruns: echo ${{inputs.a}}\n";
    let mistakes = try_plan(&text, &[("mine/p.yaml", circle)]).unwrap_err();
    assert!(mistakes.to_string().contains("leads back to itself"), "{mistakes}");
}

#[test]
fn a_condition_that_is_never_reached_need_not_be_readable() {
    let text = |condition: &str| {
        format!(
            "{HEAD}pipeline:\n  - if: {condition}\n    pipeline:\n      - if: nonsense\n        runs: x\n"
        )
    };
    assert!(try_plan(&text("${{build.arch}} == 'z80'"), &[]).is_ok());
    assert!(try_plan(&text("${{build.arch}} == 'x86_64'"), &[]).is_err());
}

#[test]
fn packages_added_to_a_plan_are_in_its_tests_too() {
    let text = format!(
        "{HEAD}pipeline:\n  - runs: make\ntest:\n  environment:\n    contents:\n      packages: [z, curl]\n  pipeline:\n    - runs: a\n"
    );
    let mut plan = plan(&text, &[]);
    plan.add_packages(&["curl".to_owned(), "busybox".to_owned()]);
    assert_eq!(plan.environment.packages, ["curl", "busybox"]);
    assert_eq!(plan.tests[0].environment.packages, ["a", "busybox", "curl", "z"]);
}

#[test]
fn replacements_of_transforms_keep_references_for_later() {
    let text = format!(
        "{HEAD}vars:\n  cfg: --host=__h__ --prefix=/usr\n  v: 3.14\nvar-transforms:\n  - from: ${{{{vars.cfg}}}}\n    match: __h__\n    replace: ${{{{host.triplet.gnu}}}}\n    to: cfg\n  - from: ${{{{vars.v}}}}\n    match: (\\d+)\\.(\\d+)\n    replace: $1_$2 ${{1}}_$2\n    to: w\npipeline:\n  - runs: ./configure ${{{{vars.cfg}}}} ${{{{vars.w}}}}\n"
    );
    let runs = scripts(&plan(&text, &[]).package.pipeline);
    // `$1_` is the group `1_`, which is not there.
    assert_eq!(runs, ["./configure --host=x86_64-pc-linux-gnu --prefix=/usr 14 3_14"]);
}

#[test]
fn dependencies_are_read_wherever_they_stand() {
    let text = format!(
        "{HEAD}  dependencies:\n    runtime:\n      - b=\n    provides:\n      - c<\n    replaces: ['d>@x']\nenvironment:\n  contents:\n    packages:\n      - e><1\n      - f=~1.2\npipeline:\n  - uses: x\nsubpackages:\n  - name: s\n    dependencies:\n      runtime: ['g=a b']\n    test:\n      environment:\n        contents:\n          packages: ['h=1.x']\n"
    );
    let inline = [("x.yaml", "needs:\n  packages:\n    - i~\npipeline:\n  - runs: x\n")];
    let told = try_plan(&text, &inline).unwrap_err();
    let lines: Vec<(u32, String)> =
        told.0.iter().map(|mistake| (mistake.at.unwrap().line, mistake.message.clone())).collect();
    let has = |line: u32, part: &str| {
        assert!(lines.iter().any(|(at, message)| *at == line && message.contains(part)), "{part}: {told}");
    };
    has(7, "\"b=\" has an operator and no version");
    has(9, "\"c<\" has an operator and no version");
    has(10, "\"d>@x\" has an operator and no version");
    has(14, "\"e><1\" has an operator that means nothing");
    has(21, "has a space");
    has(25, "no apk version");
    has(3, "\"i~\" has an operator and no version");
    assert_eq!(lines.len(), 7, "{told}");
}

#[test]
fn variables_that_lead_back_to_themselves_are_refused() {
    let vars = |text: &str| format!("{HEAD}vars:\n{text}pipeline:\n  - runs: echo ${{{{vars.a}}}}\n");
    for (text, line, message) in [
        ("  a: x${{vars.a}}\n", 6, "the variable `a` refers to itself (a → a)"),
        ("  a: ${{ vars.b }}\n  b: ${{vars.c}}\n  c: ${{vars.a}}\n", 6, "(a → b → c → a)"),
        ("  a: 1\n  b: ${{vars.c}}\n  c: ${{vars.b}}\n", 7, "(b → c → b)"),
    ] {
        let told = try_plan(&vars(text), &[]).unwrap_err();
        let found = told.0.iter().find(|mistake| mistake.message.contains(message));
        assert_eq!(found.map(|mistake| mistake.at.unwrap().line), Some(line), "{told}");
    }
    let fine = vars("  a: ${{vars.b}}-${{vars.c}}\n  b: ${{vars.d}}\n  c: ${{vars.d}}\n  d: 1\n");
    assert!(try_plan(&fine, &[]).is_ok());
    let transformed =
        "  a: ${{vars.a}}\nvar-transforms:\n  - from: x\n    match: x\n    replace: y\n    to: a\n";
    assert_eq!(scripts(&plan(&vars(transformed), &[]).package.pipeline), ["echo y"]);
}

#[test]
fn split_pipelines_and_coverage_need_what_their_scripts_run() {
    let needs = |uses: &str| {
        let text = format!("{HEAD}pipeline:\n  - uses: {uses}\n");
        plan(&text, &[]).package.pipeline[0].needs.clone()
    };
    for name in ["alldocs", "bin", "dev", "infodir", "lib", "locales", "manpages", "static"] {
        assert_eq!(needs(&format!("split/{name}")), ["busybox"], "{name}");
    }
    assert_eq!(needs("xcover/stop"), ["busybox"]);
    assert_eq!(needs("xcover/ensure"), ["busybox", "jq"]);
}

#[test]
fn passwords_of_repositories_are_not_recorded() {
    let text = format!(
        "{HEAD}environment:\n  contents:\n    repositories: ['https://user:topsecret2@a.example/r', '@t https://u:topsecret2@b.example']\n    keyring: ['https://user:topsecret2@a.example/k.rsa.pub']\n"
    );
    let plan = plan(&text, &[]);
    assert!(plan.environment.repositories[0].contains("topsecret2"));
    let record = super::emit::locked_definition(&plan, &[]).unwrap();
    assert!(!record.contains("topsecret2") && record.contains("https://user:xxxxx@a.example/r"), "{record}");
}

#[test]
fn a_cancelled_compilation_comes_to_an_end() {
    let text = format!("{HEAD}pipeline:\n  - runs: x\n");
    let options = CompileOptions::default();
    let run =
        || compile(&Source::new("t.yaml", text.as_str()), Arch::X86_64, &PipelineSet::default(), &options);
    assert!(run().is_ok());
    options.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(run().unwrap_err().to_string().contains("the check was cancelled"));
}
