//! The promises of [`BackendSelector`].

use std::sync::Arc;

use crate::arch::Arch;
use crate::backend::Backend;
use crate::backend_selector::{BackendSelector, Candidate, Closed, Refusal, Requirements};
use crate::labels::{LabelSelector, Labels};

/// A candidate at `tcp://<name>:1`.
pub fn candidate(name: &str, arch: Arch, labels: &[(&str, &str)], running: u32) -> Candidate {
    let labels = Labels::from_pairs(labels.iter().copied()).expect("the labels are legal");
    let backend = Backend::new(format!("tcp://{name}:1"), arch, labels).expect("the address is legal");
    Candidate { backend: Arc::new(backend), running, last_chosen: 0, closed: None }
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
    equal_candidates_get_equal_shares(selector);
    closed_backends_get_nothing(selector);
}

/// Name, architecture, labels and jobs of a backend.
type Row = (&'static str, Arch, &'static [(&'static str, &'static str)], u32);

const SET: [Row; 6] = [
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

/// No one of equal candidates gets two choices more than another, wherever it stands in the list.
pub fn equal_candidates_get_equal_shares(selector: &dyn BackendSelector) {
    let needs = requirements(Arch::X86_64, &[]);
    for count in 2..6 {
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let mut set: Vec<Candidate> =
            names.iter().map(|name| candidate(name, Arch::X86_64, &[], 0)).collect();
        let mut choices = vec![0u32; count];
        for turn in 1..=24 {
            let index = selector.select(&needs, &set).expect("all are free");
            choices[index] += 1;
            set[index].last_chosen = turn;
            let (least, most) = (choices.iter().min(), choices.iter().max());
            let spread = most.zip(least).map_or(0, |(most, least)| most - least);
            assert!(spread <= 1, "after {turn} turns the choices are {choices:?}");
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
}
