//! The queue as a whole.

use std::collections::BTreeMap;

use sqlx::Row;

use super::codec::{group_of, job_id, micros, number, size, state};
use super::*;
use crate::job_store::{QueueGroup, QueueProject, QueueSummary};

impl Store {
    pub(super) async fn read_queue(&self, now: Timestamp) -> sqlx::Result<QueueSummary> {
        let groups = sqlx::query(
            "SELECT g.key, w.jobs, w.pausing, w.since FROM groups g JOIN (SELECT queue, count(*) AS jobs, \
             count(CASE WHEN not_before > $1 THEN 1 END) AS pausing, min(ready_at) AS since \
             FROM jobs WHERE queue IS NOT NULL GROUP BY queue) w ON w.queue = g.id ORDER BY w.since, g.key LIMIT $2",
        )
        .bind(micros(now))
        .bind(size(limits::DEMAND_GROUPS_MAX));
        let projects = sqlx::query(
            "SELECT project, state, count(*) AS jobs FROM jobs WHERE state <= $1 GROUP BY project, state",
        )
        .bind(state(JobState::Running));
        let blocked = sqlx::query("SELECT id FROM jobs WHERE state = $1 ORDER BY id LIMIT 1")
            .bind(state(JobState::Blocked));
        let (groups, counts, blocked) = tokio::try_join!(
            groups.fetch_all(&self.readers),
            projects.fetch_all(&self.readers),
            blocked.fetch_optional(&self.readers),
        )?;
        let group = |row: &StoredRow| {
            let since = Timestamp::from_microsecond(row.try_get("since")?).unwrap_or(now);
            let (jobs, pausing) = (number(row.try_get("jobs")?), number(row.try_get("pausing")?));
            Ok(QueueGroup::new(group_of(row.try_get("key")?)?, jobs, pausing, since))
        };
        let groups = groups.iter().map(group).collect::<sqlx::Result<Vec<_>>>()?;
        let mut projects: BTreeMap<String, QueueProject> = BTreeMap::new();
        for row in &counts {
            let (name, jobs): (String, u64) = (row.try_get("project")?, number(row.try_get("jobs")?));
            let Ok(project) = name.parse() else { continue };
            let project = projects.entry(name).or_insert_with(|| QueueProject::new(project));
            let stored: i64 = row.try_get("state")?;
            if stored == state(JobState::Blocked) {
                project.blocked = jobs;
            } else if stored == state(JobState::Pending) {
                project.pending = jobs;
            } else {
                project.running = jobs;
            }
        }
        let oldest_blocked = blocked.map(|row| job_id(row.try_get("id")?)).transpose()?;
        Ok(QueueSummary::new(groups, projects.into_values().collect(), oldest_blocked))
    }
}
