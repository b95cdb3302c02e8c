//! Best fit: a job that says how large it is goes to the fullest backend that holds it.

use std::sync::Arc;

use super::{BackendSelector, Candidate, Refusal, Requirements};

/// Keeps large gaps for large jobs: of the backends that hold a job the one that has least left of what jobs ask for, of
/// equally full ones the other selector's choice. Jobs that ask for nothing, and backends of which nobody said what they
/// have, are the other selector's alone.
#[derive(Debug, Clone)]
pub struct BestFit {
    otherwise: Arc<dyn BackendSelector>,
}

impl BestFit {
    /// Asks `otherwise` about jobs that ask for nothing, and among equals.
    pub fn new(otherwise: Arc<dyn BackendSelector>) -> Self {
        Self { otherwise }
    }
}

impl BackendSelector for BestFit {
    fn select(&self, requirements: &Requirements, candidates: &[Candidate]) -> Result<usize, Refusal> {
        if requirements.resources.is_none() {
            return self.otherwise.select(requirements, candidates);
        }
        let share = |candidate: &Candidate| candidate.backend.capacity().share_used(candidate.used);
        let fit = || candidates.iter().enumerate().filter(|(_, candidate)| requirements.fit(candidate));
        let Some(fullest) = fit().map(|(_, candidate)| share(candidate)).max() else {
            return self.otherwise.select(requirements, candidates);
        };
        let (places, equals): (Vec<usize>, Vec<Candidate>) = fit()
            .filter(|(_, candidate)| share(candidate) == fullest)
            .map(|(place, candidate)| (place, candidate.clone()))
            .unzip();
        let chosen = self.otherwise.select(requirements, &equals)?;
        // Selectors are other people's code.
        places.get(chosen).copied().ok_or(Refusal::AllBusy { matching: places.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::backend::Backend;
    use crate::backend_selector::least_loaded::LeastLoaded;
    use crate::backend_selector::round_robin::RoundRobin;
    use crate::job::{BackendCapacity, JobResources};
    use crate::labels::{LabelSelector, Labels};

    fn candidate(number: usize, cores: Option<u64>, used: u64) -> Candidate {
        let backend = Backend::new(format!("tcp://b{number}:1"), Arch::X86_64, Labels::default()).unwrap();
        let capacity = BackendCapacity::new(cores.map(|cores| cores * 1_000), None);
        let mut candidate = Candidate::new(Arc::new(backend.with_capacity(capacity)));
        candidate.used = JobResources::new(used * 1_000, 0);
        candidate
    }

    fn chosen(cores: u64, candidates: &[Candidate]) -> Result<usize, Refusal> {
        let needs = Requirements::new(Arch::X86_64, LabelSelector::default());
        let needs = needs.with_resources(JobResources::new(cores * 1_000, 0));
        BestFit::new(Arc::new(LeastLoaded)).select(&needs, candidates)
    }

    #[test]
    fn keeps_the_contract() {
        crate::conformance::backend_selector::all(&BestFit::new(Arc::new(RoundRobin)));
        crate::conformance::backend_selector::all(&BestFit::new(Arc::new(LeastLoaded)));
    }

    #[test]
    fn the_fullest_backend_that_holds_the_job_gets_it() {
        let set = [candidate(0, Some(64), 0), candidate(1, Some(8), 2), candidate(2, Some(8), 6)];
        assert_eq!(chosen(2, &set), Ok(2));
        assert_eq!(chosen(4, &set), Ok(1));
        assert_eq!(chosen(16, &set), Ok(0));
        assert!(matches!(chosen(65, &set), Err(Refusal::TooLarge { .. })));
        let full = [candidate(0, Some(8), 6), candidate(1, Some(2), 0)];
        assert_eq!(chosen(4, &full), Err(Refusal::AllBusy { matching: 1 }));
    }

    #[test]
    fn among_equals_and_for_jobs_that_ask_for_nothing_the_other_selector_chooses() {
        let mut set = [candidate(0, Some(8), 4), candidate(1, Some(4), 2), candidate(2, None, 0)];
        assert_eq!(chosen(1, &set), Ok(0));
        set[0].last_chosen = 3;
        assert_eq!(chosen(1, &set), Ok(1));
        set[0].last_chosen = 0;
        set[0].running = 1;
        assert_eq!(chosen(0, &set), Ok(1), "the least loaded one");
        assert_eq!(chosen(100, &set), Ok(2), "nobody said what it has");
    }
}
