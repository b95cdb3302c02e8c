//! Two thirds of a real distribution compile, and come to what was counted by other means.
//!
//! The figures of the part that is here were counted with another YAML reader on the text of the files; those of the
//! whole distribution stand beside them, as far as they do not depend on how built-in pipelines are divided into steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::document::{Document, Step};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::plan::{Plan, PlanStep};
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};
use melange_remote_sdk::text::diagnostics::Source;
use melange_remote_sdk::text::shell;

use crate::support::corpus::{corpus, definitions, pipelines};

/// What is counted, here and in the whole distribution.
const COUNTS: [(&str, usize, usize); 9] = [
    ("definitions", 2_233, 3_401),
    ("definitions with subpackages", 1_333, 2_005),
    ("subpackages", 2_964, 4_460),
    ("subpackages, ranges expanded", 4_951, 7_765),
    ("uses", 16_319, 24_880),
    ("scripts", 6_047, 8_972),
    ("variables", 1_715, 2_612),
    ("transforms", 662, 1_010),
    ("outermost build steps", 15_626, 24_058),
];

/// The pipelines used most: how often here, how often in the whole distribution.
const USES: [(&str, usize, usize); 12] = [
    ("git-checkout", 2_176, 3_285),
    ("test/tw/ldd-check", 1_581, 2_433),
    ("strip", 1_497, 2_249),
    ("python/import", 922, 1_384),
    ("autoconf/make", 582, 879),
    ("py/pip-build-install", 503, 748),
    ("autoconf/make-install", 493, 775),
    ("test/tw/pip-check", 453, 667),
    ("split/dev", 432, 665),
    ("ruby/clean", 430, 689),
    ("ruby/install", 428, 686),
    ("ruby/build", 424, 677),
];

#[derive(Default)]
struct Counted {
    counts: BTreeMap<&'static str, usize>,
    uses: BTreeMap<String, usize>,
    skipped: usize,
    tests: usize,
    mistakes: Vec<String>,
    /// Different scripts of steps that run, which the compiler took for shell.
    scripts: BTreeSet<String>,
}

impl Counted {
    fn add(&mut self, what: &'static str, number: usize) {
        *self.counts.entry(what).or_default() += number;
    }

    fn written(&mut self, document: &Document) {
        self.add("definitions", 1);
        self.add("definitions with subpackages", usize::from(!document.subpackages.is_empty()));
        self.add("subpackages", document.subpackages.len());
        self.add("variables", document.vars.len());
        self.add("transforms", document.var_transforms.len());
        let tests =
            document.test.iter().chain(document.subpackages.iter().filter_map(|sub| sub.test.as_ref()));
        let steps = document.pipeline.iter().chain(document.subpackages.iter().flat_map(|sub| &sub.pipeline));
        for step in steps.chain(tests.flat_map(|test| &test.pipeline)) {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        if !step.uses.is_empty() {
            self.add("uses", 1);
            *self.uses.entry(step.uses.value.clone()).or_default() += 1;
        }
        self.add("scripts", usize::from(!step.runs.is_empty()));
        step.pipeline.iter().flatten().for_each(|child| self.step(child));
    }

    fn compiled(&mut self, name: &str, plan: &Plan) {
        self.add("subpackages, ranges expanded", plan.subpackages.len());
        self.add("outermost build steps", plan.packages().map(|package| package.pipeline.len()).sum());
        self.tests += plan.tests.len();
        let steps = plan.packages().flat_map(|package| &package.pipeline);
        for step in steps.chain(plan.tests.iter().flat_map(|test| &test.pipeline)) {
            self.check(name, step);
        }
    }

    fn check(&mut self, name: &str, step: &PlanStep) {
        let texts = [&step.runs, &step.condition, &step.working_directory];
        if texts.into_iter().chain(&step.needs).chain(step.with.values()).any(|text| text.contains("${{")) {
            self.mistakes.push(format!("{name}: a reference is left in {}", step.title()));
        }
        if !step.enabled {
            return;
        }
        self.scripts.insert(step.runs.clone());
        step.pipeline.iter().for_each(|child| self.check(name, child));
    }
}

/// Compiles everything for `arch` on two threads.
fn compile_all(arch: Arch) -> Option<Counted> {
    let folder = corpus()?;
    let files = definitions(folder);
    let pipelines = PipelineSet::new(&pipelines(folder)).unwrap();
    let options = CompileOptions::default();
    let (next, counted) = (AtomicUsize::new(0), Mutex::new(Counted::default()));
    let work = || {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let source = Source::new(name, std::fs::read_to_string(path).unwrap());
            let document = Document::parse(&source);
            let result = compile(&source, arch, &pipelines, &options);
            let mut counted = counted.lock().unwrap();
            if let Ok(document) = &document {
                counted.written(document);
            }
            match result {
                Ok(Compiled::Plan(plan)) => counted.compiled(name, &plan),
                Ok(Compiled::Skipped { .. }) => counted.skipped += 1,
                Err(mistakes) => counted.mistakes.push(mistakes.to_string()),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    Some(counted.into_inner().unwrap())
}

/// Whether a part is about as large as the part of the definitions is of all definitions.
fn in_proportion(here: usize, whole: usize) -> bool {
    let share = here as f64 / whole as f64;
    (0.615..0.700).contains(&share)
}

#[test]
fn every_definition_compiles_for_both_architectures_and_the_counts_are_right() {
    for (arch, skipped) in [(Arch::X86_64, 1), (Arch::Aarch64, 3)] {
        let Some(counted) = compile_all(arch) else { return };
        assert!(counted.mistakes.is_empty(), "{arch}: {}", counted.mistakes.join("\n"));
        assert_eq!(counted.skipped, skipped, "{arch}");
        println!("{arch}: {:?}, {} tests", counted.counts, counted.tests);
        if arch != Arch::X86_64 {
            continue;
        }
        // Every definition and every subpackage has a test; the whole distribution has 3,400 + 7,765.
        assert_eq!(counted.tests, 2_232 + 4_951);
        for (what, here, whole) in COUNTS {
            assert_eq!(counted.counts[what], here, "{what}");
            assert!(in_proportion(here, whole), "{what}: {here} of {whole}");
        }
        for (name, here, whole) in USES {
            assert_eq!(counted.uses[name], here, "{name}");
            assert!(in_proportion(here, whole), "{name}: {here} of {whole}");
        }
    }
}

/// The script without its last line, when that is the outermost end of a block.
fn without_its_end(script: &str) -> Option<(&str, &str)> {
    let (before, last) = script.trim_end().rsplit_once('\n')?;
    matches!(last, "fi" | "done" | "esac" | "}").then_some((before, last))
}

#[test]
fn scripts_without_their_last_word_are_refused_where_the_block_begins() {
    let Some(counted) = compile_all(Arch::X86_64) else { return };
    let mut refused = 0;
    for (broken, end) in counted.scripts.iter().filter_map(|script| without_its_end(script)) {
        let mistake = shell::check(broken).expect_err(broken);
        let line = broken.lines().nth(mistake.line - 1).unwrap_or_default();
        let begins = match end {
            "fi" => line.starts_with("if ") || line.contains(" if "),
            "done" => ["for ", "while ", "until ", "| while ", "done"].iter().any(|word| line.contains(word)),
            "esac" => line.contains("case "),
            _ => line.contains('{'),
        };
        assert!(begins, "{mistake} at {line:?} without the last `{end}`:\n{broken}");
        refused += 1;
    }
    println!("{refused} of {} scripts are refused without their last line", counted.scripts.len());
    assert!(refused > 1_000, "only {refused} scripts end with a block");
}
