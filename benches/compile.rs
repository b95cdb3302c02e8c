//! From the text of a definition to its plan: the real definitions of the test distribution, and one that is far
//! larger than any real one.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, compile};
use melange_remote_sdk::text::diagnostics::Source;

/// Subpackages of the generated definition; the largest real one has 100.
const SUBPACKAGES: usize = 1_000;

fn definitions() -> Vec<Arc<Source>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/distro/definitions");
    let entries = std::fs::read_dir(folder).expect("the definitions are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).expect("a readable file");
    paths.iter().map(|path| Source::new(path.display().to_string(), read(path))).collect()
}

/// A definition with a range of subpackages, each with steps, conditions and variables.
fn generated() -> Arc<Source> {
    let mut text = String::from(
        "package:\n  name: big\n  version: 1.2.3\n  epoch: 0\nvars:\n  flavour: plain\ndata:\n  - name: modules\n    items:\n",
    );
    for number in 0..SUBPACKAGES {
        writeln!(text, "      module-{number:04}: value-{number}").expect("memory");
    }
    text.push_str(
        "pipeline:\n  - uses: autoconf/configure\n  - uses: autoconf/make\n  - uses: autoconf/make-install\n\
         subpackages:\n  - range: modules\n    name: ${{package.name}}-${{range.key}}\n    \
         description: ${{range.value}} of ${{package.full-version}}\n    dependencies:\n      runtime:\n        \
         - ${{package.name}}=${{package.full-version}}\n    pipeline:\n      \
         - if: '\"${{vars.flavour}}\" == \"plain\"'\n        runs: |\n          \
         mkdir -p ${{targets.contextdir}}/usr/lib\n          \
         mv ${{targets.destdir}}/usr/lib/${{range.key}} ${{targets.contextdir}}/usr/lib/\n      \
         - uses: strip\n",
    );
    Source::new("big.yaml", text)
}

fn compile_all(sources: &[Arc<Source>]) {
    let (pipelines, options) = (PipelineSet::default(), CompileOptions::default());
    for source in sources {
        let compiled = compile(black_box(source), Arch::X86_64, &pipelines, &options);
        black_box(compiled.unwrap_or_else(|mistakes| panic!("{mistakes}")));
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    for (name, sources) in [("definitions", definitions()), ("generated", vec![generated()])] {
        let bytes: usize = sources.iter().map(|source| source.text.len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| compile_all(&sources)));
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
