//! What changed, written back.

use std::collections::{BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, Row};

use super::Session;
use super::codec::{count, group_key, micros, size, state, to_doc};
use super::dialect::Db;
use super::session::waits;
use crate::job::{JobId, JobState};
use crate::job_store::working_set::{Changes, Entry};
use crate::job_store::{Group, Submission};

impl Session<'_> {
    /// Writes the jobs that changed, their last attempts and the builds that are loaded; returns what changed.
    pub(super) async fn save(&mut self) -> sqlx::Result<Changes> {
        let changes = std::mem::take(&mut self.set.changes);
        let ids: Vec<JobId> = changes.jobs.union(&changes.logs).copied().collect();
        let (mut groups, mut left, mut waiting) = (HashMap::new(), HashSet::new(), 0i64);
        for id in &ids {
            let Some(entry) = self.set.jobs.remove(id) else { continue };
            let (before, queue) = self.before.get(id).copied().map_or((None, None), |(s, q)| (Some(s), q));
            waiting += i64::from(waits(entry.job.state)) - i64::from(before.is_some_and(waits));
            left.extend(queue);
            let queue = match entry.job.state {
                JobState::Pending => Some(self.group(&Group::of(&entry.job), &mut groups).await?),
                _ => None,
            };
            self.write_job(&entry, queue).await?;
            self.set.jobs.insert(*id, entry);
        }
        for (before, queue) in changes.forgotten.iter().filter_map(|id| self.before.get(id)) {
            waiting -= i64::from(waits(*before));
            left.extend(*queue);
        }
        for id in &changes.forgotten {
            self.delete(*id).await?;
        }
        let builds: Vec<_> = self.set.builds.values().map(|(build, _)| build.clone()).collect();
        for build in builds {
            sqlx::query("INSERT INTO builds (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc")
                .bind(build.id.as_bytes().to_vec())
                .bind(to_doc(&build)?)
                .execute(&mut *self.connection)
                .await?;
        }
        // A group is there while something waits in it, and its reason with it.
        for group in left {
            sqlx::query(
                "DELETE FROM groups WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE queue = $1)",
            )
            .bind(group)
            .execute(&mut *self.connection)
            .await?;
        }
        if waiting != 0 {
            sqlx::query("UPDATE counters SET waiting = waiting + $1")
                .bind(waiting)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(changes)
    }

    /// The number of a group, new or known.
    async fn group(&mut self, group: &Group, known: &mut HashMap<String, i64>) -> sqlx::Result<i64> {
        let key = group_key(group)?;
        if let Some(id) = known.get(&key) {
            return Ok(*id);
        }
        let insert = "INSERT INTO groups (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id";
        let row = sqlx::query(insert).bind(&key).fetch_one(&mut *self.connection).await?;
        let id = row.try_get("id")?;
        known.insert(key, id);
        Ok(id)
    }

    async fn write_job(&mut self, entry: &Entry, queue: Option<i64>) -> sqlx::Result<()> {
        let job = &entry.job;
        let update = "UPDATE jobs SET state = $2, queue = $3, priority = $4, rank = $5, not_before = $6, \
                      ready_at = $7, lease_until = $8, token = $9, place = $10, attempt = $11, lost_needs = $12, \
                      server = $13, backend = $14, cancel_requested = $15, released = $16, progress = $17, \
                      log_bytes = $18, doc = $19 WHERE id = $1";
        let released = entry.released.as_ref().map(to_doc).transpose()?;
        sqlx::query(update)
            .bind(job.id.as_bytes().to_vec())
            .bind(state(job.state))
            .bind(queue)
            .bind(i64::from(job.priority.get()))
            .bind(job.rank)
            .bind(job.not_before.map_or(i64::MIN, micros))
            .bind(job.ready_at.map_or(i64::MAX, micros))
            .bind(micros(entry.lease_until))
            .bind(entry.token.map(|token| token.as_bytes().to_vec()))
            .bind(size(entry.place))
            .bind(i64::from(job.attempt))
            .bind(i64::from(entry.lost_needs))
            .bind(job.server.as_ref().map(|server| server.as_str().to_owned()))
            .bind(job.backend.as_ref().map(|backend| backend.addr.clone()))
            .bind(job.cancel_requested)
            .bind(released)
            .bind(count(entry.progress))
            .bind(count(entry.log_bytes))
            .bind(to_doc(&**job)?)
            .execute(&mut *self.connection)
            .await?;
        if let Some(attempt) = entry.attempts.last() {
            let insert = "INSERT INTO attempts (job, number, doc) VALUES ($1, $2, $3) \
                          ON CONFLICT (job, number) DO UPDATE SET doc = excluded.doc";
            sqlx::query(insert)
                .bind(job.id.as_bytes().to_vec())
                .bind(i64::from(attempt.number))
                .bind(to_doc(attempt)?)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }

    /// Adds the rows of new jobs; [`Self::save`] fills them in.
    pub(super) async fn insert(&mut self, submission: &Submission, content: [u8; 32]) -> sqlx::Result<()> {
        let number = self.set.submitted;
        let jobs: Vec<u8> = submission.jobs.iter().flat_map(|job| *job.id.as_bytes()).collect();
        sqlx::query(
            "INSERT INTO submissions (id, project, key, content, build, jobs) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(count(number))
        .bind(submission.project.as_str().to_owned())
        .bind(submission.key.clone())
        .bind(content.to_vec())
        .bind(submission.build.map(|build| build.as_bytes().to_vec()))
        .bind(jobs)
        .execute(&mut *self.connection)
        .await?;
        let mut digests = Vec::new();
        for job in &submission.jobs {
            let body = to_doc(&*job.spec)?;
            let digest = Sha256::digest(&body).to_vec();
            sqlx::query("INSERT INTO specs (digest, body) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(digest.clone())
                .bind(body)
                .execute(&mut *self.connection)
                .await?;
            digests.push(digest);
        }
        let jobs: Vec<_> = submission.jobs.iter().zip(digests).collect();
        for jobs in jobs.chunks(500) {
            let mut insert: QueryBuilder<Db> = QueryBuilder::new(
                "INSERT INTO jobs (id, submission, project, build, spec, state, priority, rank, not_before, ready_at, \
                 lease_until, place, attempt, lost_needs, cancel_requested, progress, log_bytes, log_cut, doc) ",
            );
            insert.push_values(jobs, |mut row, (job, digest)| {
                row.push_bind(job.id.as_bytes().to_vec())
                    .push_bind(count(number))
                    .push_bind(submission.project.as_str().to_owned())
                    .push_bind(submission.build.map(|build| build.as_bytes().to_vec()))
                    .push_bind(digest.clone());
                row.push("0, 0, 0, 0, 0, 0, 0, 0, 0, FALSE, 0, 0, FALSE, ''");
            });
            insert.build().execute(&mut *self.connection).await?;
        }
        let edges: BTreeSet<(JobId, JobId)> =
            submission.jobs.iter().flat_map(|job| job.waits_for.iter().map(|need| (*need, job.id))).collect();
        let edges: Vec<(JobId, JobId)> = edges.into_iter().collect();
        for edges in edges.chunks(1_000) {
            let mut insert: QueryBuilder<Db> = QueryBuilder::new("INSERT INTO waits (needs, job) ");
            insert.push_values(edges, |mut row, (need, job)| {
                row.push_bind(need.as_bytes().to_vec()).push_bind(job.as_bytes().to_vec());
            });
            insert.build().execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Deletes all rows of a job, and those that only it needed.
    async fn delete(&mut self, id: JobId) -> sqlx::Result<()> {
        let statements = [
            "DELETE FROM specs WHERE digest = (SELECT spec FROM jobs WHERE id = $1) \
             AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.spec = specs.digest AND j.id <> $1)",
            "DELETE FROM submissions WHERE id = (SELECT submission FROM jobs WHERE id = $1) \
             AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.submission = submissions.id AND j.id <> $1)",
            "DELETE FROM builds WHERE id = (SELECT build FROM jobs WHERE id = $1) \
             AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.build = builds.id AND j.id <> $1)",
            "DELETE FROM jobs WHERE id = $1",
            "DELETE FROM waits WHERE job = $1",
            "DELETE FROM waits WHERE needs = $1",
            "DELETE FROM attempts WHERE job = $1",
            "DELETE FROM progress WHERE job = $1",
            "DELETE FROM logs WHERE job = $1",
        ];
        for statement in statements {
            sqlx::query(statement).bind(id.as_bytes().to_vec()).execute(&mut *self.connection).await?;
        }
        Ok(())
    }
}
