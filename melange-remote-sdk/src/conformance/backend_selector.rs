//! The promises of [`BackendSelector`].

use std::sync::Arc;

use crate::arch::Arch;
use crate::backend::Backend;
use crate::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use crate::labels::{LabelSelector, Labels};

/// A candidate at `tcp://<name>:1`.
pub fn candidate(name: &str, arch: Arch, labels: &[(&str, &str)], running: u32) -> Candidate {
    let labels = Labels::from_pairs(labels.iter().copied()).expect("the labels are legal");
    let backend = Backend::new(format!("tcp://{name}:1"), arch, labels).expect("the address is legal");
    Candidate { backend: Arc::new(backend), running, last_chosen: 0 }
}

/// Requirements.
pub fn requirements(arch: Arch, labels: &[(&str, &str)]) -> Requirements {
    let labels = LabelSelector::from_pairs(labels.iter().copied()).expect("the labels are legal");
    Requirements { arch, labels }
}

/// Every promise.
pub fn all(selector: &dyn BackendSelector) {
    choices_match_and_are_free(selector);
    refusals_tell_the_strongest_reason(selector);
    the_answer_depends_on_the_arguments_alone(selector);
    order_of_labels_and_candidates_does_not_matter(selector);
}

const SET: [(&str, Arch, &[(&str, &str)], u32); 6] = [
    ("a", Arch::X86_64, &[("tier", "standard")], 0),
    ("b", Arch::X86_64, &[("tier", "high"), ("disk", "ssd")], 4),
    ("c", Arch::X86_64, &[("tier", "high"), ("disk", "ssd")], 1),
    ("d", Arch::Aarch64, &[("tier", "high")], 4),
    ("e", Arch::Aarch64, &[("tier", "standard")], 3),
    ("f", Arch::Aarch64, &[], 0),
];

fn set() -> Vec<Candidate> {
    SET.iter().map(|(name, arch, labels, running)| candidate(name, *arch, labels, *running)).collect()
}

/// A choice has the architecture, every asked label and a free slot.
pub fn choices_match_and_are_free(selector: &dyn BackendSelector) {
    let set = set();
    let asked: [&[(&str, &str)]; 4] = [&[], &[("tier", "high")], &[("tier", "standard")], &[("disk", "ssd")]];
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::S390x] {
        for labels in asked {
            let needs = requirements(arch, labels);
            let possible = set.iter().any(|c| needs.matched_by(&c.backend) && c.has_free_slot());
            match selector.select(&needs, &set) {
                Ok(index) => {
                    assert!(needs.matched_by(&set[index].backend), "{needs:?} got {:?}", set[index]);
                    assert!(set[index].has_free_slot(), "{:?} is busy", set[index]);
                }
                Err(refusal) => assert!(!possible, "{needs:?} was refused: {refusal}"),
            }
        }
    }
    assert!(selector.select(&requirements(Arch::X86_64, &[]), &[]).is_err());
}

/// Architecture before labels before capacity.
pub fn refusals_tell_the_strongest_reason(selector: &dyn BackendSelector) {
    let set = set();
    let refusal = |needs: &Requirements| selector.select(needs, &set).expect_err("nothing can match");
    assert!(matches!(
        refusal(&requirements(Arch::S390x, &[("no", "such")])),
        Refusal::NoArch { arch: Arch::S390x, .. }
    ));
    assert!(matches!(
        refusal(&requirements(Arch::X86_64, &[("tier", "high"), ("disk", "hdd")])),
        Refusal::NoLabels { .. }
    ));
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
