//! The promises of [`BackendSelector`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::arch::Arch;
use crate::backend::Backend;
use crate::backend_selector::{BackendSelector, Candidate, Closed, Refusal, Requirements};
use crate::labels::{LabelSelector, Labels};

/// A candidate at `tcp://<name>:1`.
pub fn candidate(name: &str, arch: Arch, labels: &[(&str, &str)], running: u32) -> Candidate {
    let labels = Labels::from_pairs(labels.iter().copied()).expect("the labels are legal");
    let backend = Backend::new(format!("tcp://{name}:1"), arch, labels).expect("the address is legal");
    Candidate { running, ..Candidate::new(Arc::new(backend)) }
}

/// Requirements.
pub fn requirements(arch: Arch, labels: &[(&str, &str)]) -> Requirements {
    let labels = LabelSelector::from_pairs(labels.iter().copied()).expect("the labels are legal");
    Requirements::new(arch, labels)
}

/// Every promise.
pub fn all(selector: &dyn BackendSelector) {
    choices_match_and_are_free(selector);
    refusals_tell_the_strongest_reason(selector);
    the_answer_depends_on_the_arguments_alone(selector);
    order_of_labels_and_candidates_does_not_matter(selector);
    equal_candidates_get_equal_shares(selector);
    closed_backends_get_nothing(selector);
}

/// Name, architecture, labels and jobs of a backend.
type Row = (&'static str, Arch, &'static [(&'static str, &'static str)], u32);

const SET: [Row; 8] = [
    ("a", Arch::X86_64, &[("tier", "standard")], 0),
    ("b", Arch::X86_64, &[("tier", "high"), ("disk", "ssd")], 4),
    ("c", Arch::X86_64, &[("tier", "high"), ("disk", "ssd")], 1),
    ("d", Arch::Aarch64, &[("tier", "high")], 4),
    ("e", Arch::Aarch64, &[("tier", "standard")], 3),
    ("f", Arch::Aarch64, &[], 0),
    ("g", Arch::X86_64, &[("tier", "standard"), ("disk", "hdd")], 0),
    ("h", Arch::X86_64, &[], 5),
];

fn set() -> Vec<Candidate> {
    SET.iter().map(|(name, arch, labels, running)| candidate(name, *arch, labels, *running)).collect()
}

/// The same backends, none of them with fewer than `jobs` jobs.
fn filled(jobs: u32) -> Vec<Candidate> {
    let mut set = set();
    for candidate in &mut set {
        candidate.running = candidate.running.max(jobs);
    }
    set
}

/// A choice has the architecture, every asked label and a free slot, whatever the candidates have to do.
pub fn choices_match_and_are_free(selector: &dyn BackendSelector) {
    let asked: [&[(&str, &str)]; 6] = [
        &[],
        &[("tier", "high")],
        &[("tier", "standard")],
        &[("disk", "ssd")],
        &[("disk", "ssd"), ("tier", "standard")],
        &[("disk", "hdd"), ("tier", "standard")],
    ];
    for mut set in (0..=4).map(filled) {
        for _ in 0..set.len() {
            set.rotate_left(1);
            for arch in [Arch::X86_64, Arch::Aarch64, Arch::S390x] {
                for labels in asked {
                    check_choice(selector, &requirements(arch, labels), &set);
                }
            }
        }
    }
    assert!(selector.select(&requirements(Arch::X86_64, &[]), &[]).is_err());
}

fn check_choice(selector: &dyn BackendSelector, needs: &Requirements, set: &[Candidate]) {
    let possible = set.iter().any(|c| needs.matched_by(&c.backend) && c.has_free_slot());
    match selector.select(needs, set) {
        Ok(index) => {
            let chosen = set.get(index).expect("the index is that of a candidate");
            assert!(needs.matched_by(&chosen.backend), "{needs:?} got {chosen:?}");
            assert!(chosen.has_free_slot(), "{chosen:?} is busy");
        }
        Err(refusal) => assert!(!possible, "{needs:?} was refused: {refusal}"),
    }
}

/// Architecture before labels before capacity.
pub fn refusals_tell_the_strongest_reason(selector: &dyn BackendSelector) {
    let set = set();
    let refusal = |needs: &Requirements| selector.select(needs, &set).expect_err("nothing can match");
    let no_arch = refusal(&requirements(Arch::S390x, &[("no", "such")]));
    let known = [Arch::X86_64, Arch::Aarch64].into();
    assert_eq!(no_arch, Refusal::NoArch { arch: Arch::S390x, known });
    assert!(no_arch.needs_other_backends());
    let needs = requirements(Arch::X86_64, &[("tier", "high"), ("disk", "hdd")]);
    let no_labels = refusal(&needs);
    assert_eq!(no_labels, Refusal::NoLabels { arch: Arch::X86_64, labels: needs.labels });
    assert!(no_labels.needs_other_backends());
    let busy = refusal(&requirements(Arch::Aarch64, &[("tier", "high")]));
    assert_eq!(busy, Refusal::AllBusy { matching: 1 });
    assert!(!busy.needs_other_backends());
}

/// The same question has the same answer.
pub fn the_answer_depends_on_the_arguments_alone(selector: &dyn BackendSelector) {
    let set = set();
    let needs = requirements(Arch::X86_64, &[]);
    let first = selector.select(&needs, &set);
    for _ in 0..10 {
        assert_eq!(selector.select(&needs, &set), first);
    }
}

/// Which backends may be chosen depends on neither order.
pub fn order_of_labels_and_candidates_does_not_matter(selector: &dyn BackendSelector) {
    let mut set = set();
    let there = selector.select(&requirements(Arch::X86_64, &[("tier", "high"), ("disk", "ssd")]), &set);
    let there = set[there.expect("c is free")].backend.addr().to_owned();
    set.reverse();
    let back = selector.select(&requirements(Arch::X86_64, &[("disk", "ssd"), ("tier", "high")]), &set);
    assert_eq!(set[back.expect("c is free")].backend.addr(), there);
}

/// No one of equal candidates gets two choices more than another, wherever it stands in the list and whoever stands
/// between them.
pub fn equal_candidates_get_equal_shares(selector: &dyn BackendSelector) {
    let needs = requirements(Arch::X86_64, &[]);
    for count in 2..6 {
        for turned in [false, true] {
            let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
            let equal = names.iter().map(|name| candidate(name, Arch::X86_64, &[], 0));
            let mut set: Vec<Candidate> = equal.collect();
            set.insert(1, candidate("other", Arch::Aarch64, &[], 0));
            set.insert(0, candidate("busy", Arch::X86_64, &[], 4));
            let mut choices: BTreeMap<String, u32> = BTreeMap::new();
            for turn in 1..=24 {
                let index = selector.select(&needs, &set).expect("all are free");
                *choices.entry(set[index].backend.addr().to_owned()).or_default() += 1;
                set[index].last_chosen = turn;
                let most = choices.values().max().copied().unwrap_or_default();
                let least = choices.values().min().copied().filter(|_| choices.len() == count);
                let spread = most - least.unwrap_or_default();
                assert!(spread <= 1, "after {turn} turns the choices are {choices:?}");
                if turned {
                    set.rotate_left(1);
                }
            }
        }
    }
}

/// A backend that fails or is drained is not chosen, and the refusal says why.
pub fn closed_backends_get_nothing(selector: &dyn BackendSelector) {
    let needs = requirements(Arch::X86_64, &[]);
    let mut set = vec![candidate("a", Arch::X86_64, &[], 0), candidate("b", Arch::X86_64, &[], 0)];
    set[0].closed = Some(Closed::Draining);
    for turn in 1..5 {
        assert_eq!(selector.select(&needs, &set), Ok(1), "the other is drained");
        set[1].last_chosen = turn;
    }
    set[1].closed = Some(Closed::Failing { message: "refused".to_owned() });
    let refusal = selector.select(&needs, &set).expect_err("both are closed");
    assert!(matches!(refusal, Refusal::Closed { matching: 2, .. }), "{refusal:?}");
    assert!(!refusal.needs_other_backends(), "they may come back");
    assert!(refusal.to_string().len() > 10);
    set[0] = candidate("a", Arch::X86_64, &[], 4);
    let refusal = selector.select(&needs, &set).expect_err("one is busy, one is closed");
    assert_eq!(refusal, Refusal::AllBusy { matching: 2 });
    for why in [Closed::Trial, Closed::Draining, Closed::Failing { message: "refused".to_owned() }] {
        let mut alone = [candidate("a", Arch::X86_64, &[], 0)];
        alone[0].closed = Some(why.clone());
        let refusal = selector.select(&needs, &alone).expect_err("it is closed");
        assert_eq!(refusal, Refusal::Closed { matching: 1, why });
    }
}
