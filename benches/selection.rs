//! How long a choice among backends takes: with a free one, and when all are busy.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend_selector::least_loaded::LeastLoaded;
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::backend_selector::{BackendSelector, Candidate};
use melange_remote_sdk::conformance::backend_selector::{candidate, requirements};

/// Half of the backends have each architecture, half of those each tier.
fn backends(count: usize, running: u32) -> Vec<Candidate> {
    let backend = |number: usize| {
        let arch = if number.is_multiple_of(2) { Arch::X86_64 } else { Arch::Aarch64 };
        let tier = if number % 4 < 2 { "standard" } else { "high-memory" };
        candidate(&format!("b{number}"), arch, &[("disk", "ssd"), ("tier", tier)], running)
    };
    (0..count).map(backend).collect()
}

fn selection(c: &mut Criterion) {
    let needs = requirements(Arch::X86_64, &[("tier", "high-memory")]);
    let selectors: [(&str, &dyn BackendSelector); 2] =
        [("selection", &RoundRobin), ("selection least loaded", &LeastLoaded)];
    for (title, selector) in selectors {
        let mut group = c.benchmark_group(title);
        for count in [10, 1_000] {
            for (name, running) in [("free", 0), ("busy", 4)] {
                let set = backends(count, running);
                group.bench_with_input(BenchmarkId::new(name, count), &set, |b, set| {
                    b.iter(|| selector.select(std::hint::black_box(&needs), std::hint::black_box(set)));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, selection);
criterion_main!(benches);
