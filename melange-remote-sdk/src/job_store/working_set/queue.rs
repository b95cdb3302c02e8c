//! The queue as a whole.

use super::*;
use crate::job_store::{QueueGroup, QueueProject, QueueSummary};

impl WorkingSet {
    /// As [`JobReading::queue`](crate::job_store::JobReading::queue).
    pub fn queue(&self, now: Timestamp) -> QueueSummary {
        let mut groups = Vec::new();
        for (group, places) in &self.queue {
            let entries = places.iter().filter_map(|place| self.jobs.get(&place.2));
            let Some(since) = entries.clone().filter_map(|entry| entry.job.ready_at).min() else { continue };
            let pausing = entries.filter(|entry| !entry.is_due(now)).count();
            groups.push(QueueGroup::new(group.clone(), number(places.len()), number(pausing), since));
        }
        groups.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.group.cmp(&b.group)));
        groups.truncate(limits::DEMAND_GROUPS_MAX);
        let mut projects: BTreeMap<Project, QueueProject> = BTreeMap::new();
        for state in [JobState::Blocked, JobState::Pending, JobState::Running] {
            for job in self.by_state[state.index()].iter().filter_map(|id| self.jobs.get(id)) {
                let name = &job.job.project;
                let project = projects.entry(name.clone()).or_insert_with(|| QueueProject::new(name.clone()));
                match state {
                    JobState::Blocked => project.blocked += 1,
                    JobState::Pending => project.pending += 1,
                    _ => project.running += 1,
                }
            }
        }
        let oldest_blocked = self.by_state[JobState::Blocked.index()].first().copied();
        QueueSummary::new(groups, projects.into_values().collect(), oldest_blocked)
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
