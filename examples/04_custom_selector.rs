//! A selector of one's own: the backend with the most free slots, and turns among those that have as many.
//!
//! A selector is a pure function of requirements and candidates, so it is tested without a server; the suite
//! `conformance` proves that it keeps the contract.
//!
//! `cargo run --example 04_custom_selector`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::cmp::Reverse;
use std::collections::BTreeSet;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use melange_remote_sdk::conformance::backend_selector as suite;

/// Chooses the matching backend with the most free slots; of equals the one whose last turn is longest ago, and the
/// address where that is the same.
#[derive(Debug)]
struct MostFree;

impl BackendSelector for MostFree {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let free = |candidate: &Candidate| candidate.backend.max_jobs().saturating_sub(candidate.running);
        let matching: Vec<usize> =
            (0..candidates.len()).filter(|at| requirements.matched_by(&candidates[*at].backend)).collect();
        let best = matching.iter().copied().filter(|at| candidates[*at].has_free_slot()).max_by_key(|at| {
            let candidate = &candidates[*at];
            (free(candidate), Reverse((candidate.last_chosen, candidate.backend.addr().to_owned())))
        });
        let known: BTreeSet<Arch> = candidates.iter().map(|candidate| candidate.backend.arch()).collect();
        let closed = matching.iter().find_map(|at| candidates[*at].closed.clone());
        let all_closed = matching.iter().all(|at| candidates[*at].closed.is_some());
        best.ok_or_else(|| {
            if !known.contains(&requirements.arch) {
                Refusal::NoArch { arch: requirements.arch, known }
            } else if matching.is_empty() {
                Refusal::NoLabels { arch: requirements.arch, labels: requirements.labels.clone() }
            } else if let (Some(why), true) = (closed, all_closed) {
                Refusal::Closed { matching: matching.len(), why }
            } else {
                Refusal::AllBusy { matching: matching.len() }
            }
        })
    }
}

fn main() {
    suite::all(&MostFree);
    println!("the selector keeps the contract");

    let candidates = [
        suite::candidate("busy", Arch::X86_64, &[("tier", "standard")], 3),
        suite::candidate("idle", Arch::X86_64, &[("tier", "standard")], 0),
    ];
    for (arch, labels) in
        [(Arch::X86_64, vec![]), (Arch::Aarch64, vec![]), (Arch::X86_64, vec![("tier", "high-memory")])]
    {
        match MostFree.select(&suite::requirements(arch, &labels), &candidates) {
            Ok(at) => println!("{arch} {labels:?}: {}", candidates[at].backend.addr()),
            Err(refusal) => println!("{arch} {labels:?}: {refusal}"),
        }
    }
}
