//! A selector of one's own: the backend with the most free slots, instead of taking turns.
//!
//! A selector is a pure function of requirements and candidates, so it is tested without a server; the suite
//! `conformance` proves that it keeps the contract.
//!
//! `cargo run --example 04_custom_selector`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::BTreeSet;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use melange_remote_sdk::conformance::backend_selector as suite;

/// Chooses the matching backend with the most free slots; the address decides between equals.
#[derive(Debug)]
struct MostFree;

impl BackendSelector for MostFree {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let free = |candidate: &Candidate| candidate.backend.max_jobs().saturating_sub(candidate.running);
        let matching: Vec<usize> =
            (0..candidates.len()).filter(|at| requirements.matched_by(&candidates[*at].backend)).collect();
        let best = matching.iter().copied().filter(|at| candidates[*at].has_free_slot()).max_by_key(|at| {
            (free(&candidates[*at]), std::cmp::Reverse(candidates[*at].backend.addr().to_owned()))
        });
        let known: BTreeSet<Arch> = candidates.iter().map(|candidate| candidate.backend.arch()).collect();
        best.ok_or_else(|| {
            if !known.contains(&requirements.arch) {
                Refusal::NoArch { arch: requirements.arch, known }
            } else if matching.is_empty() {
                Refusal::NoLabels { arch: requirements.arch, labels: requirements.labels.clone() }
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
