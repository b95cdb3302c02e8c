//! Where the jobs of a build stand: what holds others back, what it differs in from another build, how long it will take.
//!
//! [`BuildStanding::read`] asks the job store once; everything else is pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{LoadedBuild, PlannedArch};
use crate::arch::Arch;
use crate::error::Result;
use crate::job::{Job, JobState};
use crate::job_store::{JobReading, ListQuery, all_jobs};
use crate::planner::PlannedJob;

/// The jobs of a build as they stood at one moment.
#[derive(Debug, Clone)]
pub struct BuildStanding {
    loaded: Arc<LoadedBuild>,
    /// By architecture and place in the plan; `None` for jobs that were removed.
    jobs: Vec<Vec<Option<Arc<Job>>>>,
}

/// A package on an architecture, and what became of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PackageStanding {
    /// The architecture.
    pub arch: Arch,
    /// The name of the main package.
    pub name: String,
    /// Its job; `None` when it was removed.
    pub job: Option<Arc<Job>>,
    /// How many jobs wait for it, directly and over others, or were skipped because of it.
    pub holds_back: usize,
}

/// What differs between a build and one before it, each by architecture and name.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuildChanges {
    /// They failed, and did not before.
    pub newly_failing: Vec<PackageStanding>,
    /// They succeeded, and failed before.
    pub newly_well: Vec<PackageStanding>,
    /// They failed, as before.
    pub still_failing: Vec<PackageStanding>,
    /// They are in this build alone.
    pub new: Vec<PackageStanding>,
    /// They were in the other build alone.
    pub gone: Vec<PackageStanding>,
    /// They neither failed nor succeeded yet: nobody knows.
    pub undecided: usize,
}

/// Whether a package is well: `None` while nobody knows.
fn is_well(job: Option<&Arc<Job>>) -> Option<bool> {
    match job?.state {
        JobState::Success => Some(true),
        JobState::Failed | JobState::Skipped => Some(false),
        JobState::Blocked | JobState::Pending | JobState::Running | JobState::Cancelled => None,
    }
}

impl BuildStanding {
    /// Asks for the jobs of a build.
    ///
    /// # Errors
    /// The job store's.
    pub async fn read(loaded: Arc<LoadedBuild>, job_store: &dyn JobReading) -> Result<Self> {
        let query = ListQuery::default().of_build(loaded.document().id);
        let jobs = all_jobs(job_store, &query).await?;
        Ok(Self::new(loaded, jobs))
    }

    /// A build with its jobs, in any order.
    pub fn new(loaded: Arc<LoadedBuild>, jobs: impl IntoIterator<Item = Arc<Job>>) -> Self {
        let mut all: Vec<Vec<Option<Arc<Job>>>> =
            loaded.document().archs.iter().map(|arch| vec![None; arch.plan.jobs.len()]).collect();
        for job in jobs {
            let place = loaded.indexes_of(job.id);
            let slot = place.and_then(|(arch, number)| all.get_mut(arch)?.get_mut(number));
            if let Some(slot) = slot {
                *slot = Some(job);
            }
        }
        Self { loaded, jobs: all }
    }

    /// The build.
    pub fn build(&self) -> &LoadedBuild {
        &self.loaded
    }

    /// The plans with the jobs of each.
    fn archs(&self) -> impl Iterator<Item = (&PlannedArch, &[Option<Arc<Job>>])> {
        self.loaded.document().archs.iter().zip(self.jobs.iter().map(Vec::as_slice))
    }

    /// The jobs in a state, in the order of the plan, with how many each holds back.
    pub fn in_states(&self, states: &[JobState]) -> Vec<PackageStanding> {
        let mut told = Vec::new();
        for (arch, jobs) in self.archs() {
            let dependents = dependents(&arch.plan.jobs);
            for (number, job) in jobs.iter().enumerate() {
                if let Some(job) = job.as_ref().filter(|job| states.contains(&job.state)) {
                    let is_held = |job: &Job| matches!(job.state, JobState::Blocked | JobState::Skipped);
                    let held = behind(&dependents, number, |at| jobs[at].as_deref().is_some_and(is_held));
                    told.push(standing(arch, number, Some(Arc::clone(job)), held));
                }
            }
        }
        told
    }

    /// What others wait for and nothing else has to happen for: jobs that wait for a backend, run or failed, those that
    /// hold most others back first.
    pub fn blockers(&self) -> Vec<PackageStanding> {
        let mut blockers = self.in_states(&[JobState::Pending, JobState::Running, JobState::Failed]);
        blockers.retain(|blocker| blocker.holds_back > 0);
        blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.holds_back));
        blockers
    }

    /// What differs from a build before this one.
    pub fn changes_since(&self, before: &Self) -> BuildChanges {
        let (ours, theirs) = (self.by_name(), before.by_name());
        let mut changes = BuildChanges::default();
        for (key, package) in &ours {
            let Some(known) = theirs.get(key) else {
                changes.new.push(package.clone());
                continue;
            };
            match (is_well(package.job.as_ref()), is_well(known.job.as_ref())) {
                (Some(false), Some(false)) => changes.still_failing.push(package.clone()),
                (Some(false), _) => changes.newly_failing.push(package.clone()),
                (Some(true), Some(false)) => changes.newly_well.push(package.clone()),
                (Some(true), _) => {}
                (None, _) => changes.undecided = changes.undecided.saturating_add(1),
            }
        }
        changes.gone =
            theirs.into_iter().filter(|(key, _)| !ours.contains_key(key)).map(|(_, it)| it).collect();
        changes
    }

    fn by_name(&self) -> BTreeMap<(Arch, String), PackageStanding> {
        let of_arch = |(arch, jobs): (&PlannedArch, &[Option<Arc<Job>>])| {
            let told = jobs.iter().enumerate().map(|(number, job)| standing(arch, number, job.clone(), 0));
            told.collect::<Vec<_>>()
        };
        self.archs().flat_map(of_arch).map(|it| ((it.arch, it.name.clone()), it)).collect()
    }

    /// How long it will take to the end when so many jobs run at once: the longest chain that is left, or all work that
    /// is left shared evenly, whichever takes longer. `None` when nothing is left. `ran` says how long a running job ran.
    pub fn remaining(&self, slots: usize, ran: impl Fn(&Job) -> Duration) -> Option<Duration> {
        let (mut work, mut longest, mut is_any) = (Duration::ZERO, Duration::ZERO, false);
        for (arch, jobs) in self.archs() {
            for (planned, job) in arch.plan.jobs.iter().zip(jobs) {
                let Some(job) = job.as_ref().filter(|job| !job.state.is_terminal()) else { continue };
                is_any = true;
                let done = if job.state == JobState::Running { ran(job) } else { Duration::ZERO };
                let done = done.min(planned.expected);
                work = work.saturating_add(planned.expected.saturating_sub(done));
                longest = longest.max(planned.remaining.saturating_sub(done));
            }
        }
        let slots = u32::try_from(slots.max(1)).unwrap_or(u32::MAX);
        is_any.then(|| longest.max(work / slots))
    }
}

fn standing(arch: &PlannedArch, number: usize, job: Option<Arc<Job>>, holds_back: usize) -> PackageStanding {
    let name = arch.plan.jobs.get(number).map(|job| job.name.clone()).unwrap_or_default();
    PackageStanding { arch: arch.plan.arch, name, job, holds_back }
}

/// Which jobs wait for each directly.
fn dependents(jobs: &[PlannedJob]) -> Vec<Vec<usize>> {
    let mut dependents = vec![Vec::new(); jobs.len()];
    for (number, job) in jobs.iter().enumerate() {
        for need in &job.waits_for {
            if let Some(waiting) = dependents.get_mut(*need) {
                waiting.push(number);
            }
        }
    }
    dependents
}

/// How many of the jobs that wait for one, directly and over others, are as asked.
fn behind(dependents: &[Vec<usize>], job: usize, is_counted: impl Fn(usize) -> bool) -> usize {
    let (mut seen, mut left, mut count) = (vec![false; dependents.len()], vec![job], 0usize);
    while let Some(next) = left.pop() {
        for waiting in dependents.get(next).into_iter().flatten() {
            if let Some(seen) = seen.get_mut(*waiting).filter(|seen| !**seen) {
                *seen = true;
                count = count.saturating_add(usize::from(is_counted(*waiting)));
                left.push(*waiting);
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::builds::{BuildDocument, BuildOptions};
    use crate::conformance::job_store::new_job;
    use crate::job::{BuildId, BuildSource, JobId, Project};
    use crate::planner::ArchPlan;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A build of packages with the places of those that they wait for, and their states.
    fn build(packages: &[(&str, &[usize], JobState)]) -> BuildStanding {
        let mut plan = ArchPlan {
            arch: Arch::X86_64,
            jobs: Vec::new(),
            edges: Vec::new(),
            cuts: Vec::new(),
            skipped: Vec::new(),
            missing: Vec::new(),
            refused: Vec::new(),
            critical_path: Vec::new(),
            critical_time: Duration::ZERO,
            fewest: None,
        };
        let mut remaining = vec![MINUTE; packages.len()];
        for (number, (_, needs, _)) in packages.iter().enumerate().rev() {
            for need in *needs {
                remaining[*need] = remaining[*need].max(remaining[number] + MINUTE);
            }
        }
        for ((name, needs, _), remaining) in packages.iter().zip(remaining) {
            plan.jobs.push(PlannedJob {
                name: (*name).to_owned(),
                file: format!("{name}.yaml"),
                version: "1-r0".to_owned(),
                packages: vec![(*name).to_owned()],
                level: 0,
                waits_for: needs.to_vec(),
                expected: MINUTE,
                remaining,
                dependents: 0,
            });
        }
        let ids: Vec<JobId> = packages.iter().map(|_| JobId::new(Timestamp::UNIX_EPOCH)).collect();
        let made = packages.iter().zip(&ids).map(|((_, _, state), id)| {
            let mut job = Job::new(*id, &new_job("package: {}\n").spec, Timestamp::UNIX_EPOCH);
            job.state = *state;
            Arc::new(job)
        });
        let jobs: Vec<Arc<Job>> = made.collect();
        let document = BuildDocument {
            format: 1,
            id: BuildId::new(Timestamp::UNIX_EPOCH),
            project: Project::default(),
            source: BuildSource::Unknown,
            options: BuildOptions::default(),
            archs: vec![PlannedArch { plan, jobs: ids, indexes: Vec::new() }],
        };
        BuildStanding::new(Arc::new(LoadedBuild::new(document)), jobs)
    }

    fn names(packages: &[PackageStanding]) -> Vec<(&str, usize)> {
        packages.iter().map(|package| (package.name.as_str(), package.holds_back)).collect()
    }

    #[test]
    fn blockers_are_what_can_move_those_that_hold_most_back_first() {
        use JobState::{Blocked, Failed, Pending, Running, Skipped, Success};
        let build = build(&[
            ("done", &[], Success),
            ("runs", &[0], Running),
            ("broken", &[], Failed),
            ("alone", &[], Pending),
            ("waits", &[1], Blocked),
            ("waits-more", &[4, 0], Blocked),
            ("left-out", &[2], Skipped),
        ]);
        assert_eq!(names(&build.blockers()), [("runs", 2), ("broken", 1)]);
        assert_eq!(names(&build.in_states(&[Failed])), [("broken", 1)]);
    }

    #[test]
    fn changes_say_what_became_worse_better_new_and_gone() {
        use JobState::{Failed, Pending, Running, Skipped, Success};
        let before = build(&[
            ("a", &[], Success),
            ("b", &[], Failed),
            ("c", &[], Failed),
            ("d", &[], Success),
            ("old", &[], Success),
            ("e", &[], Pending),
        ]);
        let now = build(&[
            ("a", &[], Failed),
            ("b", &[], Success),
            ("c", &[], Skipped),
            ("d", &[], Running),
            ("fresh", &[], Success),
            ("e", &[], Failed),
        ]);
        let changes = now.changes_since(&before);
        let told = |packages: &[PackageStanding]| {
            packages.iter().map(|package| package.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&changes.newly_failing), "a e");
        assert_eq!(told(&changes.newly_well), "b");
        assert_eq!(told(&changes.still_failing), "c");
        assert_eq!((told(&changes.new), told(&changes.gone)), ("fresh".to_owned(), "old".to_owned()));
        assert_eq!(changes.undecided, 1);
    }

    #[test]
    fn what_is_left_takes_as_long_as_its_chain_or_its_work() {
        use JobState::{Blocked, Pending, Running, Success};
        let build = build(&[
            ("a", &[], Success),
            ("b", &[0], Running),
            ("c", &[1], Blocked),
            ("d", &[], Pending),
            ("e", &[], Pending),
        ]);
        let half = |_: &Job| Duration::from_secs(30);
        assert_eq!(build.remaining(100, half), Some(Duration::from_secs(90)), "b and c");
        assert_eq!(build.remaining(1, half), Some(Duration::from_secs(210)), "all of it");
        let overdue = |_: &Job| MINUTE * 9;
        assert_eq!(build.remaining(100, overdue), Some(MINUTE));
        let done = super::tests::build(&[("a", &[], Success)]);
        assert_eq!(done.remaining(4, half), None);
    }
}
