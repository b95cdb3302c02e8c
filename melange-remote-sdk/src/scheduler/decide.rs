//! Station 4, the policy: a snapshot of the queue and of the backends in, decisions out. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::backend::Backend;
use crate::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use crate::clock::later;
use crate::job::JobId;
use crate::job_store::QueuedJob;
use crate::limits;

/// What shall happen to a job of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It starts.
    Start {
        /// The job.
        job: JobId,
        /// Where.
        backend: Arc<Backend>,
    },
    /// It waits, for a reason that is not recorded yet.
    Wait {
        /// The job.
        job: JobId,
        /// The version that the decision was made on.
        version: u64,
        /// Why.
        reason: String,
    },
    /// It is given up: no backend could run it for [`limits::UNMATCHED_WAIT`].
    GiveUp {
        /// The job.
        job: JobId,
        /// The version that the decision was made on.
        version: u64,
        /// Why.
        reason: String,
    },
}

/// Decides about jobs in their order. `candidates` is the decision's own copy: each start takes a slot of it.
pub fn decide(
    selector: &dyn BackendSelector,
    jobs: &[QueuedJob],
    candidates: &mut [Candidate],
    now: Timestamp,
) -> Vec<Decision> {
    let mut turn = candidates.iter().map(|candidate| candidate.last_chosen).max().unwrap_or(0);
    // Slots only become fewer while deciding, so a refusal holds for every later job with the same needs.
    let mut refused: HashMap<Requirements, Refusal> = HashMap::new();
    let mut decisions = Vec::new();
    for job in jobs {
        let needs = Requirements { arch: job.arch, labels: job.backend_selector.clone() };
        if let Some(refusal) = refused.get(&needs) {
            decisions.extend(refuse(job, refusal, now));
            continue;
        }
        match selector.select(&needs, candidates) {
            Ok(index) => {
                let usable = |c: &Candidate| needs.matched_by(&c.backend) && c.has_free_slot();
                let Some(candidate) = candidates.get_mut(index).filter(|c| usable(c)) else {
                    // Selectors are other people's code; a wrong choice must not reach a backend.
                    tracing::error!(job = %job.id, index, "the selector chose what it must not choose");
                    continue;
                };
                turn += 1;
                candidate.running += 1;
                candidate.last_chosen = turn;
                let backend = Arc::clone(&candidate.backend);
                decisions.push(Decision::Start { job: job.id, backend });
            }
            Err(refusal) => {
                decisions.extend(refuse(job, &refusal, now));
                refused.insert(needs, refusal);
            }
        }
    }
    decisions
}

fn refuse(job: &QueuedJob, refusal: &Refusal, now: Timestamp) -> Option<Decision> {
    let reason = refusal.to_string();
    match &job.waiting {
        Some(waiting) if waiting.reason == reason => {
            let over = refusal.needs_other_backends() && later(waiting.since, limits::UNMATCHED_WAIT) <= now;
            over.then_some(Decision::GiveUp { job: job.id, version: job.version, reason })
        }
        _ => Some(Decision::Wait { job: job.id, version: job.version, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::backend_selector::round_robin::RoundRobin;
    use crate::conformance::backend_selector::{candidate, requirements};
    use crate::job::Waiting;

    fn queued(arch: Arch, labels: &[(&str, &str)]) -> QueuedJob {
        let needs = requirements(arch, labels);
        let id = JobId::new(Timestamp::UNIX_EPOCH);
        QueuedJob { id, version: 3, arch: needs.arch, backend_selector: needs.labels, waiting: None }
    }

    fn told(jobs: &[QueuedJob], candidates: &mut [Candidate], now: Timestamp) -> Vec<String> {
        let decisions = decide(&RoundRobin, jobs, candidates, now);
        let text = |decision| match decision {
            Decision::Start { backend, .. } => format!("start {}", backend.addr()),
            Decision::Wait { reason, .. } => format!("wait {reason}"),
            Decision::GiveUp { reason, .. } => format!("give up {reason}"),
        };
        decisions.into_iter().map(text).collect()
    }

    #[test]
    fn slots_are_handed_out_in_turn_and_never_twice() {
        let mut set = [candidate("a", Arch::X86_64, &[], 2), candidate("b", Arch::X86_64, &[], 3)];
        let mut jobs = vec![queued(Arch::X86_64, &[]); 4];
        jobs.push(queued(Arch::Aarch64, &[]));
        jobs.push(queued(Arch::X86_64, &[("tier", "high")]));
        assert_eq!(
            told(&jobs, &mut set, Timestamp::UNIX_EPOCH),
            [
                "start tcp://a:1",
                "start tcp://b:1",
                "start tcp://a:1",
                "wait all 2 matching backends are busy",
                "wait no aarch64 backend (there are x86_64)",
                "wait no x86_64 backend with tier=high",
            ]
        );
    }

    /// Chooses what is not there.
    #[derive(Debug)]
    struct Broken(usize);

    impl BackendSelector for Broken {
        fn select(&self, _needs: &Requirements, _candidates: &[Candidate]) -> Result<usize, Refusal> {
            Ok(self.0)
        }
    }

    #[test]
    fn a_wrong_choice_starts_nothing() {
        let mut set = [candidate("a", Arch::X86_64, &[], 4), candidate("b", Arch::Aarch64, &[], 0)];
        for choice in [0, 1, 2] {
            let jobs = [queued(Arch::X86_64, &[])];
            assert_eq!(decide(&Broken(choice), &jobs, &mut set, Timestamp::UNIX_EPOCH), []);
        }
    }

    #[test]
    fn a_reason_is_told_once_and_a_job_that_nobody_can_run_is_given_up() {
        let start = Timestamp::UNIX_EPOCH;
        let mut set = [candidate("a", Arch::X86_64, &[], 4)];
        let mut jobs = [queued(Arch::Aarch64, &[]), queued(Arch::X86_64, &[])];
        let reasons = ["no aarch64 backend (there are x86_64)", "the only matching backend is busy"];
        for (job, reason) in jobs.iter_mut().zip(reasons) {
            job.waiting = Some(Waiting { reason: reason.to_owned(), since: start });
        }
        assert_eq!(told(&jobs, &mut set, start), Vec::<String>::new());
        let much_later = later(start, limits::UNMATCHED_WAIT);
        assert_eq!(told(&jobs, &mut set, much_later), ["give up no aarch64 backend (there are x86_64)"]);
    }
}
