//! Definitions that try to leave their guest, or to exhaust the engine.

use std::fmt::Write as _;

use melange_remote_sdk::error::Blame;

use crate::support::farm::{Backend, on_farm};

fn definition(name: &str, environment: &str, script: &str) -> String {
    let script = script.replace('\n', "\n      ");
    format!(
        "package:\n  name: {name}\n  version: \"1\"\n  epoch: 0\nenvironment:\n  contents:\n    packages: [busybox]\n\
         {environment}pipeline:\n  - runs: |\n      {script}\n"
    )
}

/// Builds in the sandbox what must fail, and returns the reason.
fn refused(yaml: &str) -> Option<String> {
    let mut told = None;
    on_farm(async |farm| {
        if !farm.backends().contains(&Backend::Sandbox) {
            return;
        }
        told = Some(farm.build(Backend::Sandbox, "hostile", yaml).await.complaint());
    });
    told
}

#[test]
fn the_output_folder_may_not_lead_out_of_the_guest() {
    for (name, script) in [
        ("etc", "cd /\nrm -rf /home/build/melange-out\nln -s / /home/build/melange-out"),
        (
            "etc",
            "cd /\nrm -rf /home/build/melange-out\nln -s ../../../../../../../.. /home/build/melange-out",
        ),
        ("out", "cd /\nmv /home/build /home/other\nln -s / /home/build"),
        ("out", "cd /\nmv /home /other\nln -s / /home"),
    ] {
        let Some(reason) = refused(&definition(name, "", script)) else { return };
        assert!(reason.contains("is a link or a file where the guest must have a folder"), "{reason}");
    }
}

#[test]
fn paths_of_the_environment_may_not_lead_out_of_the_guest() {
    let outside = tempfile::tempdir().unwrap();
    let before = std::fs::metadata(outside.path()).unwrap().permissions();
    // Folders that packages or accounts bring are there before such changes, and stay.
    let path = "/var/cache/melange";
    let source = outside.path().display();
    let paths = format!("  paths:\n    - path: {path}\n      type: symlink\n      source: {source}\n");
    let Some(reason) = refused(&definition("out", &paths, "true")) else { return };
    assert!(reason.contains("is a link or a file where the guest must have a folder"), "{reason}");
    assert_eq!(std::fs::metadata(outside.path()).unwrap().permissions(), before);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn mount_points_are_not_made_through_links() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("made-by-root");
    let source = format!("/oldroot{}", target.display());
    let paths =
        format!("  paths:\n    - path: /etc/resolv.conf\n      type: symlink\n      source: {source}\n");
    let yaml = definition("out", &paths, "test -f /etc/resolv.conf");
    on_farm(async |farm| {
        if farm.backends().contains(&Backend::Sandbox) {
            farm.build(Backend::Sandbox, "hostile", &yaml).await.assert_succeeded();
        }
    });
    assert!(!target.exists(), "bubblewrap made {}", target.display());
}

#[test]
fn capabilities_of_the_machine_are_not_given() {
    let yaml = definition("out", "", "true") + "capabilities:\n  add: [CAP_DAC_READ_SEARCH]\n";
    on_farm(async |farm| {
        if !farm.backends().contains(&Backend::Sandbox) {
            return;
        }
        let (_, _, build) = farm.start(Backend::Sandbox, "out", &yaml);
        let error = build.await.unwrap().unwrap_err();
        assert_eq!(error.blamed(), Some(Blame::Policy), "{error:?}");
        assert!(error.to_string().contains("CAP_DAC_READ_SEARCH"), "{error}");
    });
}

#[test]
fn definitions_that_grow_without_end_are_refused_at_once() {
    let mut doubling =
        String::from("package:\n  name: a\n  version: \"1\"\nvars:\n  a00: xxxxxxxxxxxxxxxx\n");
    let mut transforms = String::from("var-transforms:\n");
    for level in 1..60 {
        writeln!(doubling, "  a{level:02}: ${{{{vars.a{0:02}}}}}${{{{vars.a{0:02}}}}}", level - 1).unwrap();
        let from = if level == 1 { "vars.a00".to_owned() } else { format!("vars.t{}", level - 1) };
        writeln!(
            transforms,
            "  - from: ${{{{{from}}}}}${{{{{from}}}}}\n    match: y\n    replace: z\n    to: t{level}"
        )
        .unwrap();
    }
    let mut ranged = String::from("package:\n  name: a\n  version: \"1\"\ndata:\n  - name: d\n    items:\n");
    for item in 0..50_000 {
        writeln!(ranged, "      k{item}: v").unwrap();
    }
    write!(
        ranged,
        "subpackages:\n  - range: d\n    name: s${{{{range.key}}}}\n    pipeline:\n      - runs: {}\n",
        "x".repeat(100_000)
    )
    .unwrap();
    let long = format!(
        "package:\n  name: a\n  version: \"1\"\nvars:\n  v: {}\npipeline:\n  - runs: {}\n",
        "x".repeat(60_000),
        "${{vars.v}}".repeat(20_000)
    );
    let large = format!("package:\n  name: a\n  version: \"1\"\n# {}\n", "x".repeat(3 << 20));
    let deep = format!("package: {}", "[".repeat(100_000));
    let mut aliases = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 'b'..'i' {
        let before = char::from_u32(u32::from(level) - 1).unwrap();
        let refs = vec![format!("*{before}"); 10].join(", ");
        writeln!(aliases, "{level}: &{level} [{refs}]").unwrap();
    }
    let steps =
        format!("package:\n  name: a\n  version: \"1\"\npipeline:\n{}", "  - runs: x\n".repeat(30_000));
    let head = "package:\n  name: a\n  version: \"1\"\n";
    let mut alias_texts = format!("{head}  description: &a {}\nsubpackages:\n", "x".repeat(50_000));
    (0..4_900).for_each(|n| writeln!(alias_texts, "  - {{name: s{n}, description: *a}}").unwrap());
    let mut scriptlets = format!("{head}data:\n  - name: d\n    items:\n");
    (0..1_000).for_each(|n| writeln!(scriptlets, "      k{n}: v").unwrap());
    let script = "x".repeat(400_000);
    write!(scriptlets, "subpackages:\n  - range: d\n    name: s${{{{range.key}}}}\n    scriptlets:\n      post-install: {script}\n").unwrap();
    let mut inherited = format!("{head}pipeline:\n  - environment:\n");
    (0..1_000).for_each(|n| writeln!(inherited, "      V{n}: {}", "x".repeat(200)).unwrap());
    inherited.push_str("    pipeline:\n");
    (0..2_000).for_each(|_| inherited.push_str("      - runs: x\n"));
    let mut variables = format!("{head}environment:\n  environment:\n");
    (0..2_000).for_each(|n| writeln!(variables, "    V{n}: {}", "x".repeat(500)).unwrap());
    variables.push_str("pipeline:\n");
    (0..2_000).for_each(|_| variables.push_str("  - runs: x\n"));
    for (what, text) in [
        ("aliases of texts", alias_texts),
        ("ranges of scriptlets", scriptlets),
        ("inherited environments", inherited),
        ("variables of every step", variables),
        ("size", large),
        ("depth", deep),
        ("aliases", aliases),
        ("steps", steps),
        ("transforms", format!("package:\n  name: a\n  version: \"1\"\nvars:\n  a00: xx\n{transforms}")),
        ("ranges", ranged),
        ("texts", long),
    ] {
        let mistakes = compile(&text).unwrap_err();
        let bound = mistakes.contains("more than") || mistakes.contains("deeper than");
        assert!(bound, "{what}: {mistakes:.300}");
    }
    // Each level is resolved from what is written, not from what the others became.
    assert!(compile(&doubling).is_ok());
}

/// Each took minutes when every mistake was compared with everything; a bound on work is shown by coming to an end.
#[test]
fn mistakes_without_end_are_told_a_hundred_times() {
    let head = "package:\n  name: a\n  version: \"1\"\n";
    let long = "x".repeat(40);
    let mut conditions = format!("{head}vars:\n");
    (0..3_000).for_each(|n| writeln!(conditions, "  {long}{n}: v").unwrap());
    conditions.push_str("pipeline:\n");
    (0..3_000).for_each(|n| writeln!(conditions, "  - if: ${{{{vars.{long}x{n}}}}}\n    runs: x").unwrap());
    let mut unknown = head.to_owned();
    (0..100_000).for_each(|n| writeln!(unknown, "f{n}: x").unwrap());
    let mut inputs = format!("{head}pipeline:\n  - uses: fetch\n    with:\n");
    (0..50_000).for_each(|n| writeln!(inputs, "      {long}{n}: x").unwrap());
    let openings = format!("{head}pipeline:\n  - runs: {}\n", "${{".repeat(600_000));
    for (what, text) in
        [("conditions", conditions), ("fields", unknown), ("inputs", inputs), ("openings", openings)]
    {
        let mistakes = compile(&text).unwrap_err();
        let count = mistakes.lines().filter(|line| line.starts_with("error: ")).count();
        assert!((1..=100).contains(&count), "{what}: {count}");
    }
}

/// 50 of them took eleven seconds to compile, one by one; what they would cost is told from their parsed form.
#[test]
fn costly_expressions_are_refused_before_they_are_compiled() {
    let mut text = String::from("package:\n  name: a\n  version: \"1\"\nvar-transforms:\n");
    for n in 0..1_000 {
        writeln!(
            text,
            "  - from: x\n    match: '[\\x{{{:x}}}-\\x{{10ffff}}]{{900}}'\n    replace: y\n    to: t{n}",
            n + 256
        )
        .unwrap();
    }
    let begun = std::time::Instant::now();
    let mistakes = compile(&text).unwrap_err();
    assert!(mistakes.contains("states") && mistakes.contains("hostile.yaml:"), "{mistakes:.300}");
    // Milliseconds; a hundred times as much still tells it from the minute that it was.
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

fn compile(text: &str) -> Result<(), String> {
    use melange_remote_sdk::arch::Arch;
    use melange_remote_sdk::melange::pipelines::PipelineSet;
    use melange_remote_sdk::melange::{self, CompileOptions};
    use melange_remote_sdk::text::diagnostics::Source;

    let source = Source::new("hostile.yaml", text);
    melange::compile(&source, Arch::X86_64, &PipelineSet::default(), &CompileOptions::default())
        .map(drop)
        .map_err(|diagnostics| diagnostics.to_string())
}
