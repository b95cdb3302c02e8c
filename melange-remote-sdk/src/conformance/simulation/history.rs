//! What was seen of the jobs, call by call, and the rules that hold at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::world::short;
use crate::job::{ClaimToken, Job, JobId, JobState, ServerId};
use crate::job_store::{Claim, ClaimRequest, Fence};

/// Who holds the lease on a job, or held the last one.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) fence: Fence,
    server: ServerId,
    /// When the lease ends.
    pub(super) until: Timestamp,
    claimed_at: Instant,
}

/// A change that was seen.
#[derive(Debug, Clone, Copy)]
struct Change {
    job: JobId,
    from: Option<JobState>,
    to: JobState,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) jobs: BTreeMap<JobId, Arc<Job>>,
    pub(super) needs: BTreeMap<JobId, Vec<JobId>>,
    pub(super) owners: BTreeMap<JobId, Owner>,
    /// The call that ended an attempt.
    pub(super) ended_by: BTreeMap<(JobId, u32), &'static str>,
    /// How many jobs each backend runs at once.
    pub(super) max_jobs: BTreeMap<String, u32>,
    pub(super) violations: Vec<String>,
    /// From here on leases end only because of a mistake.
    pub(super) calm_from: Option<Instant>,
    /// When the leases end that a claim with this token asked for at first.
    tokens: BTreeMap<ClaimToken, Timestamp>,
    /// What the latest call changed.
    changes: Vec<Change>,
    told: Vec<String>,
}

fn is_bad_end(state: JobState) -> bool {
    state.is_terminal() && state != JobState::Success
}

impl History {
    fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    /// What is new since it was last asked.
    pub(super) fn take_told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn state(&self, id: JobId) -> Option<JobState> {
        self.jobs.get(&id).map(|job| job.state)
    }

    fn needs(&self, id: JobId) -> &[JobId] {
        self.needs.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Takes note of all jobs as they are after a call.
    pub(super) fn observe(&mut self, cause: &'static str, jobs: Vec<Arc<Job>>) {
        self.changes.clear();
        // Most calls change nothing that a job tells.
        let known = |job: &Arc<Job>| self.jobs.get(&job.id).is_some_and(|before| Arc::ptr_eq(before, job));
        if jobs.len() == self.jobs.len() && jobs.iter().all(known) {
            return;
        }
        let before = std::mem::take(&mut self.jobs);
        self.jobs = jobs.into_iter().map(|job| (job.id, job)).collect();
        for id in before.keys().filter(|id| !self.jobs.contains_key(id)) {
            self.violations.push(format!("{} is gone", short(*id)));
        }
        let now: Vec<Arc<Job>> = self.jobs.values().map(Arc::clone).collect();
        for job in &now {
            self.compare(before.get(&job.id), job, cause);
        }
        self.check_waits(&now);
        self.check_backends();
    }

    fn compare(&mut self, before: Option<&Arc<Job>>, job: &Arc<Job>, cause: &'static str) {
        let (from, to) = (before.map(|before| before.state), job.state);
        let name = short(job.id);
        if from != Some(to) {
            self.changes.push(Change { job: job.id, from, to });
            let from = from.map_or("new", JobState::name);
            let attempt = job.attempt;
            self.told.push(format!("{name} {from} -> {to} (attempt {attempt}) by {cause}"));
        }
        let Some(before) = before else {
            if !matches!(to, JobState::Blocked | JobState::Pending | JobState::Skipped) {
                self.violate(format!("{name} began as {to}"));
            }
            return;
        };
        self.check_step(before, job, cause);
        if before.state == JobState::Running && to != JobState::Running {
            self.ended_by.insert((job.id, before.attempt), cause);
        }
        let same = (&before.artifacts, &before.error, &before.note, before.finished_at)
            == (&job.artifacts, &job.error, &job.note, job.finished_at);
        if before.state.is_terminal() && before.state == to && !same {
            self.violate(format!("the end of {name} changed afterwards, by {cause}"));
        }
    }

    /// One step of a job's life.
    fn check_step(&mut self, before: &Job, job: &Job, cause: &'static str) {
        let name = short(job.id);
        let claimed = before.state == JobState::Pending && job.state == JobState::Running;
        if job.attempt != before.attempt + u32::from(claimed) {
            let (from, to) = (before.attempt, job.attempt);
            self.violate(format!("{name} went from attempt {from} to {to} by {cause}"));
        }
        if before.state == job.state {
            if before.cancel_requested && !job.cancel_requested && job.state == JobState::Running {
                self.violate(format!("the request to stop {name} is lost, by {cause}"));
            }
            return;
        }
        let legal = match (before.state, job.state) {
            (JobState::Blocked, JobState::Pending) => matches!(cause, "finish" | "look"),
            (JobState::Blocked, JobState::Skipped | JobState::Cancelled)
            | (JobState::Pending, JobState::Cancelled) => true,
            (JobState::Pending, JobState::Running) => cause == "claim",
            (JobState::Pending, JobState::Failed) => cause == "give_up",
            (JobState::Running, JobState::Pending) if before.cancel_requested => {
                return self.violate(format!("{name} was asked to stop and is tried again, by {cause}"));
            }
            (JobState::Running, JobState::Pending) => matches!(cause, "release" | "expire"),
            (JobState::Running, JobState::Success) => cause == "finish",
            (JobState::Running, JobState::Failed) => matches!(cause, "finish" | "expire"),
            (JobState::Running, JobState::Cancelled) => matches!(cause, "finish" | "release" | "expire"),
            (from, JobState::Pending | JobState::Blocked) if is_bad_end(from) => cause == "retry",
            _ => false,
        };
        if !legal {
            let (from, to) = (before.state, job.state);
            self.violate(format!("{name} went from {from} to {to} by {cause}"));
        }
    }

    /// Nothing begins before what it waits for, and nothing waits for what has ended.
    fn check_waits(&mut self, now: &[Arc<Job>]) {
        let mut found = Vec::new();
        for job in now {
            let needs = self.needs(job.id);
            let unmet = needs.iter().filter(|need| self.state(**need) != Some(JobState::Success)).count();
            let hopeless = needs.iter().find(|need| self.state(**need).is_some_and(is_bad_end));
            let name = short(job.id);
            match job.state {
                JobState::Pending | JobState::Running if unmet > 0 => {
                    found.push(format!("{name} is {} before what it waits for has succeeded", job.state));
                }
                JobState::Blocked if unmet == 0 => {
                    found.push(format!("{name} is blocked, and all that it waits for has succeeded"));
                }
                JobState::Blocked => {
                    let ended = |need| format!("{name} is blocked by {}, which ended badly", short(need));
                    found.extend(hopeless.copied().map(ended));
                }
                _ => {}
            }
        }
        self.violations.append(&mut found);
    }

    /// How many jobs each backend runs.
    pub(super) fn running_on(&self) -> BTreeMap<String, u32> {
        let mut running = BTreeMap::new();
        let jobs = self.jobs.values().filter(|job| job.state == JobState::Running);
        for backend in jobs.filter_map(|job| job.backend.as_ref()) {
            *running.entry(backend.addr.clone()).or_default() += 1;
        }
        running
    }

    fn check_backends(&mut self) {
        for (addr, count) in self.running_on() {
            let most = self.max_jobs.get(&addr).copied().unwrap_or(0);
            if count > most {
                self.violate(format!("{addr} runs {count} jobs, more than {most}"));
            }
        }
    }

    /// Whether the fence is that of the owner of a running job.
    fn owns(&self, fence: Fence) -> bool {
        self.state(fence.job) == Some(JobState::Running) && self.is_last(fence)
    }

    fn is_last(&self, fence: Fence) -> bool {
        self.owners.get(&fence.job).is_some_and(|owner| owner.fence == fence)
    }

    /// Claims that the store gave, before anybody learns of them.
    pub(super) fn claimed(&mut self, claims: &[Claim], request: &ClaimRequest) {
        let (server, until) = (&request.server, request.until);
        let repeated = self.tokens.get(&request.token).is_some_and(|until| *until > request.now);
        self.tokens.entry(request.token).or_insert(until);
        for (place, claim) in claims.iter().enumerate() {
            let (fence, name) = (claim.fence, short(claim.fence.job));
            if fence.token != request.token {
                self.violate(format!("{name} was claimed by another token than the one that was shown"));
            }
            if claims[..place].iter().any(|other| other.fence.job == fence.job) {
                self.violate(format!("one claim gave {name} twice"));
            }
            if self.is_last(fence) {
                if !self.owns(fence) {
                    self.violate(format!("a repeated claim gave {name}, whose attempt has ended"));
                }
                self.prolong(fence, until);
                continue;
            }
            let begun = |change: &Change| change.job == fence.job && change.to == JobState::Running;
            if !self.changes.iter().any(begun) {
                self.violate(format!("{name} has two owners"));
            }
            if repeated {
                self.violate(format!("a repeated claim began {name}"));
            }
            let owner = Owner { fence, server: server.clone(), until, claimed_at: Instant::now() };
            self.owners.insert(fence.job, owner);
        }
        let begun: Vec<JobId> =
            self.changes.iter().filter(|change| change.to == JobState::Running).map(|c| c.job).collect();
        for job in begun {
            if !claims.iter().any(|claim| claim.fence.job == job) {
                self.violate(format!("{} runs, and nobody was told", short(job)));
            }
        }
    }

    fn prolong(&mut self, fence: Fence, until: Timestamp) {
        if let Some(owner) = self.owners.get_mut(&fence.job) {
            owner.until = owner.until.max(until);
        }
    }

    /// A lease was renewed.
    pub(super) fn renewed(&mut self, fence: Fence, server: &ServerId, until: Timestamp) {
        let of_server = self.owners.get(&fence.job).is_some_and(|owner| owner.server == *server);
        if self.owns(fence) && of_server {
            self.prolong(fence, until);
        } else {
            self.violate(format!("a lease on {} was renewed that had ended", short(fence.job)));
        }
    }

    /// What only the owner of a running job may do was done.
    pub(super) fn wrote(&mut self, fence: Fence, what: &str) {
        if !self.owns(fence) {
            self.violate(format!("{what} of a stale attempt of {} was taken", short(fence.job)));
        }
    }

    /// An owner ended his attempt, or said again that he had.
    pub(super) fn ended(&mut self, fence: Fence, states: &[JobState]) {
        let name = short(fence.job);
        if !self.is_last(fence) {
            self.violate(format!("a stale attempt ended {name}"));
        } else if !self.state(fence.job).is_some_and(|state| states.contains(&state)) {
            let state = self.state(fence.job).map_or("gone", JobState::name);
            self.violate(format!("an attempt ended {name}, which is {state}"));
        }
    }

    /// Leases were settled at `now`; `all` when none should be left.
    pub(super) fn expired(&mut self, now: Timestamp, all: bool) {
        let mut found = Vec::new();
        for change in self.changes.iter().filter(|change| change.from == Some(JobState::Running)) {
            let Some(owner) = self.owners.get(&change.job) else { continue };
            let name = short(change.job);
            if owner.until > now {
                found.push(format!("the lease on {name} was settled before its end"));
            }
            if self.calm_from.is_some_and(|calm_from| owner.claimed_at >= calm_from) {
                found.push(format!("the lease on {name} ended, and nothing had failed"));
            }
        }
        let left = |owner: &&Owner| owner.until <= now && self.owns(owner.fence);
        if let Some(owner) = self.owners.values().find(left).filter(|_| all) {
            found.push(format!("the lease on {} ended and was not settled", short(owner.fence.job)));
        }
        self.violations.append(&mut found);
    }

    /// Somebody was told that a job was asked to stop.
    pub(super) fn cancelled(&mut self, id: JobId) {
        let heard = |job: &Arc<Job>| job.state.is_terminal() || job.cancel_requested;
        if !self.jobs.get(&id).is_some_and(heard) {
            self.violate(format!("{} was asked to stop, and nobody knows", short(id)));
        }
    }

    /// Somebody was told that jobs were handed in.
    pub(super) fn submitted(&mut self, jobs: &[JobId]) {
        for id in jobs.iter().filter(|id| !self.jobs.contains_key(id)).copied().collect::<Vec<_>>() {
            self.violate(format!("{} was handed in and is not there", short(id)));
        }
    }
}
