//! What changed, written back: all of a transaction in a few statements.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::query_builder::Separated;
use sqlx::{Executor, QueryBuilder, Row};

use super::codec::{count, group_key, micros, size, state, to_doc};
use super::dialect::{AFTER_REMOVALS, Connection, Db};
use super::session::waits;
use super::{Changes, Session};
use crate::job::{Build, JobBackend, JobId, JobState};
use crate::job_store::working_set::{Entry, artifact_bytes, took};
use crate::job_store::{Group, Submission};

/// Rows of one statement, a power of two.
const ROWS_MAX: usize = 64;

/// Parts of `all` whose lengths are powers of two, so that there are few different statements for a database to prepare.
fn parts<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = 1 << all.len().min(ROWS_MAX).checked_ilog2()?;
        let (part, rest) = all.split_at(length);
        all = rest;
        Some(part)
    })
}

fn id_bytes(id: JobId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// The columns of a job that change, in the order of [`push_changing`].
const CHANGING: [&str; 24] = [
    "state",
    "queue",
    "priority",
    "rank",
    "not_before",
    "ready_at",
    "lease_until",
    "token",
    "place",
    "attempt",
    "lost_needs",
    "server",
    "backend",
    "cancel_requested",
    "released",
    "progress",
    "log_bytes",
    "ended_at",
    "artifact_bytes",
    "result",
    "took",
    "cpu_millis",
    "memory_bytes",
    "doc",
];

/// A job's row.
struct JobRow<'e> {
    entry: &'e Entry,
    queue: Option<i64>,
    released: Option<String>,
    doc: String,
}

impl JobRow<'_> {
    fn push_changing(&self, row: &mut Separated<'_, Db, &'static str>) {
        let (entry, job) = (self.entry, &self.entry.job);
        row.push_bind(state(job.state))
            .push_bind(self.queue)
            .push_bind(i64::from(job.priority.get()))
            .push_bind(job.rank)
            .push_bind(job.not_before.map_or(i64::MIN, micros))
            .push_bind(job.ready_at.map_or(i64::MAX, micros))
            .push_bind(micros(entry.lease_until))
            .push_bind(entry.token.map(|token| token.as_bytes().to_vec()))
            .push_bind(size(entry.place))
            .push_bind(i64::from(job.attempt))
            .push_bind(i64::from(entry.lost_needs))
            .push_bind(job.server.as_ref().map(|server| server.as_str().to_owned()))
            .push_bind(job.backend.as_ref().map(JobBackend::key))
            .push_bind(job.cancel_requested)
            .push_bind(self.released.clone())
            .push_bind(count(entry.progress))
            .push_bind(count(entry.log_bytes))
            .push_bind(job.finished_at.filter(|_| job.state.is_terminal()).map(micros))
            .push_bind(count(artifact_bytes(job)))
            .push_bind(job.result.map(|result| result.as_bytes().to_vec()))
            .push_bind(took(job).map(|took| i64::try_from(took.as_millis()).unwrap_or(i64::MAX)))
            .push_bind(count(job.resources().cpu_millis))
            .push_bind(count(job.resources().memory_bytes))
            .push_bind(self.doc.clone());
    }
}

/// Inserts rows, many with a statement; `behind` says what becomes of those that are there already.
async fn insert_rows<T: Sync>(
    connection: &mut Connection,
    into: &'static str,
    rows: &[T],
    behind: &'static str,
    push: impl Fn(&mut Separated<'_, Db, &'static str>, &T) + Send,
) -> sqlx::Result<()> {
    for rows in parts(rows) {
        let mut insert: QueryBuilder<Db> = QueryBuilder::new(into);
        insert.push_values(rows, |mut row, value| push(&mut row, value));
        insert.push(behind);
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_jobs(connection: &mut Connection, new: &[(JobRow<'_>, Vec<u8>)]) -> sqlx::Result<()> {
    for rows in parts(new) {
        let mut insert: QueryBuilder<Db> = QueryBuilder::new(
            "INSERT INTO jobs (id, submission, project, package, arch, source, build, spec, ",
        );
        insert.push(CHANGING.join(", ")).push(") ");
        insert.push_values(rows, |mut row, (job, spec)| {
            let entry = job.entry;
            row.push_bind(id_bytes(entry.job.id))
                .push_bind(count(entry.submission))
                .push_bind(entry.job.project.as_str().to_owned())
                .push_bind(entry.job.title().to_owned())
                .push_bind(entry.job.facts.arch.to_string())
                .push_bind(entry.job.facts.source.map(|source| source.to_string()))
                .push_bind(entry.job.build.map(|build| build.as_bytes().to_vec()))
                .push_bind(spec.clone());
            job.push_changing(&mut row);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn update_jobs(connection: &mut Connection, changed: &[JobRow<'_>]) -> sqlx::Result<()> {
    for rows in parts(changed) {
        let mut update: QueryBuilder<Db> = QueryBuilder::new("UPDATE jobs SET ");
        let mut columns = update.separated(", ");
        for (place, column) in CHANGING.iter().enumerate() {
            // The database calls the columns of a list of values so; the first is the id.
            columns.push(format!("{column} = v.column{}", place + 2));
        }
        update.push(" FROM (");
        update.push_values(rows, |mut row, job| {
            row.push_bind(id_bytes(job.entry.job.id));
            job.push_changing(&mut row);
        });
        update.push(") AS v WHERE jobs.id = v.column1");
        update.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes the documents of attempts, new ones or instead of those that are there.
pub(super) async fn write_attempts(
    connection: &mut Connection,
    attempts: &[(JobId, u32, String)],
) -> sqlx::Result<()> {
    let into = "INSERT INTO attempts (job, number, doc) ";
    let behind = " ON CONFLICT (job, number) DO UPDATE SET doc = excluded.doc";
    insert_rows(connection, into, attempts, behind, |row, (id, number, doc)| {
        row.push_bind(id_bytes(*id)).push_bind(i64::from(*number)).push_bind(doc.clone());
    })
    .await
}

impl Session<'_> {
    /// Writes all that changed since the last time, so that statements see it.
    pub(super) async fn flush(&mut self) -> sqlx::Result<()> {
        self.write_changes().await?;
        self.run_last().await
    }

    /// Writes all that changed since the last time, and ends the transaction.
    pub(super) async fn commit(mut self) -> sqlx::Result<Changes> {
        self.write_changes().await?;
        self.write_events().await?;
        if !self.told.forgotten.is_empty() {
            self.last.extend(AFTER_REMOVALS.map(str::to_owned));
        }
        self.last.push("COMMIT".to_owned());
        self.run_last().await?;
        Ok(self.told)
    }

    /// Gives the events their numbers. Whoever does so waits for the one before him to commit, so that nobody sees an event
    /// before those with smaller numbers: hence at the end, and once.
    async fn write_events(&mut self) -> sqlx::Result<()> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        let row = sqlx::query("UPDATE counters SET events = events + $1 RETURNING events")
            .bind(size(events.len()))
            .fetch_one(&mut *self.connection)
            .await?;
        let last: i64 = row.try_get("events")?;
        let first = last.saturating_sub(size(events.len())).saturating_add(1);
        let mut rows = Vec::new();
        for (seq, event) in (first..).zip(&events) {
            rows.push((seq, event, to_doc(event)?));
        }
        let into = "INSERT INTO events (seq, project, job, build, doc) ";
        insert_rows(self.connection, into, &rows, "", |row, (seq, event, doc)| {
            row.push_bind(*seq)
                .push_bind(event.project.as_str().to_owned())
                .push_bind(event.job.map(id_bytes))
                .push_bind(event.build.map(|build| build.as_bytes().to_vec()))
                .push_bind(doc.clone());
        })
        .await
    }

    /// Runs the statements that are kept for the end: one way to the database and back for all.
    async fn run_last(&mut self) -> sqlx::Result<()> {
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            // They hold numbers and words of this program's.
            self.connection.execute(sqlx::AssertSqlSafe(last.join("; "))).await?;
        }
        Ok(())
    }

    async fn write_changes(&mut self) -> sqlx::Result<()> {
        let changes = std::mem::take(&mut self.set.changes);
        let mut left = HashSet::new();
        let waiting = self.save_jobs(&changes.jobs, &mut left).await?;
        self.save_counters().await?;
        self.save_blocked().await?;
        let mut gone = 0;
        for id in &changes.forgotten {
            if let Some((before, queue)) = self.before.remove(id) {
                gone += i64::from(waits(before));
                left.extend(queue);
            }
            self.delete(*id).await?;
        }
        self.save_builds().await?;
        self.save_told().await?;
        self.drop_groups(left);
        if waiting != gone {
            self.last.push(format!("UPDATE counters SET waiting = waiting + {}", waiting - gone));
        }
        self.events.extend(changes.events);
        self.told.jobs.extend(changes.jobs);
        self.told.logs.extend(changes.logs);
        self.told.forgotten.extend(changes.forgotten);
        self.told.queue |= changes.queue;
        self.told.cancellations |= changes.cancellations;
        self.told.backends |= changes.backends;
        Ok(())
    }

    /// Writes jobs with their attempts; returns how many more wait now, and adds the groups that they left.
    async fn save_jobs(&mut self, ids: &BTreeSet<JobId>, left: &mut HashSet<i64>) -> sqlx::Result<i64> {
        let mut queues = Vec::new();
        for id in ids {
            let Some(job) = self.set.jobs.get(id).map(|entry| Arc::clone(&entry.job)) else {
                continue;
            };
            let queue = match job.state {
                JobState::Pending => Some(self.group(&Group::of(&job)).await?),
                _ => None,
            };
            queues.push((*id, queue));
        }
        let (mut new, mut changed, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut blocked, mut unblocked, mut waiting) = (Vec::new(), Vec::new(), 0i64);
        for (id, queue) in queues {
            let Some(entry) = self.set.jobs.get(&id) else { continue };
            let known = self.before.insert(id, (entry.job.state, queue));
            waiting += i64::from(waits(entry.job.state));
            waiting -= known.map_or(0, |(before, _)| i64::from(waits(before)));
            left.extend(known.and_then(|(_, queue)| queue));
            self.counters.remove(&id);
            if entry.job.state == JobState::Blocked {
                blocked.push((id, entry.job.blocked_by));
            } else if known.is_some_and(|(before, _)| before == JobState::Blocked) {
                unblocked.push(id);
            }
            for attempt in &entry.attempts {
                attempts.push((id, attempt.number, to_doc(attempt)?));
            }
            let row = JobRow {
                entry,
                queue,
                released: entry.released.as_ref().map(to_doc).transpose()?,
                doc: to_doc(&*entry.job)?,
            };
            match self.new.remove(&id) {
                Some(spec) => new.push((row, spec)),
                None => changed.push(row),
            }
        }
        insert_jobs(self.connection, &new).await?;
        update_jobs(self.connection, &changed).await?;
        write_attempts(self.connection, &attempts).await?;
        self.write_blocked(&blocked, &unblocked).await?;
        Ok(waiting)
    }

    /// Writes how many others blocked jobs wait for, and forgets it of those that are blocked no longer.
    async fn write_blocked(&mut self, blocked: &[(JobId, u32)], unblocked: &[JobId]) -> sqlx::Result<()> {
        let into = "INSERT INTO blocked (job, needs) ";
        let behind = " ON CONFLICT (job) DO UPDATE SET needs = excluded.needs";
        insert_rows(self.connection, into, blocked, behind, |row, (id, needs)| {
            row.push_bind(id_bytes(*id)).push_bind(i64::from(*needs));
        })
        .await?;
        for ids in parts(unblocked) {
            let mut delete: QueryBuilder<Db> = QueryBuilder::new("DELETE FROM blocked WHERE job IN (");
            let mut list = delete.separated(", ");
            ids.iter().for_each(|id| _ = list.push_bind(id_bytes(*id)));
            delete.push(")");
            delete.build().execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Writes how many others the jobs wait for of which no more is known.
    pub(super) async fn save_blocked(&mut self) -> sqlx::Result<()> {
        let mut changed = Vec::new();
        for (id, blocked) in &mut self.blocked {
            if std::mem::take(&mut blocked.changed) {
                changed.push((*id, blocked.count));
            }
        }
        // In one order, which is kinder to indexes.
        changed.sort_unstable();
        self.write_blocked(&changed, &[]).await
    }

    /// Writes progress, log and lease of the jobs of which nothing else changed.
    async fn save_counters(&mut self) -> sqlx::Result<()> {
        let ids = std::mem::take(&mut self.counters);
        let entries: Vec<&Entry> = ids.iter().filter_map(|id| self.set.jobs.get(id)).collect();
        for rows in parts(&entries) {
            let mut update: QueryBuilder<Db> = QueryBuilder::new(
                "UPDATE jobs SET progress = v.column2, log_bytes = v.column3, lease_until = v.column4 FROM (",
            );
            update.push_values(rows, |mut row, entry| {
                row.push_bind(id_bytes(entry.job.id))
                    .push_bind(count(entry.progress))
                    .push_bind(count(entry.log_bytes))
                    .push_bind(micros(entry.lease_until));
            });
            update.push(") AS v WHERE jobs.id = v.column1");
            update.build().execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Writes what attempts told, and what logs grew by.
    async fn save_told(&mut self) -> sqlx::Result<()> {
        let (rows, log) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.parts));
        let into = "INSERT INTO progress (job, attempt, number, doc) ";
        insert_rows(self.connection, into, &rows, "", |row, told| {
            row.push_bind(id_bytes(told.fence.job))
                .push_bind(i64::from(told.fence.attempt))
                .push_bind(count(told.number))
                .push_bind(told.doc.clone());
        })
        .await?;
        insert_rows(self.connection, "INSERT INTO logs (job, start, bytes) ", &log, "", |row, part| {
            row.push_bind(id_bytes(part.job)).push_bind(count(part.start)).push_bind(part.bytes.clone());
        })
        .await
    }

    async fn save_builds(&mut self) -> sqlx::Result<()> {
        for (build, _) in self.set.builds.values() {
            if self.builds_before.get(&build.id) == Some(build) {
                continue;
            }
            // What never changes is written once, and not with the document.
            let facts = Arc::clone(&build.facts);
            let changing = Build { facts: Arc::default(), ..build.clone() };
            let insert = "INSERT INTO builds (id, project, state, facts, doc) VALUES ($1, $2, $3, $4, $5) \
                          ON CONFLICT (id) DO UPDATE SET state = excluded.state, doc = excluded.doc";
            sqlx::query(insert)
                .bind(build.id.as_bytes().to_vec())
                .bind(build.project.as_str().to_owned())
                .bind(size(build.state().index()))
                .bind(to_doc(&*facts)?)
                .bind(to_doc(&changing)?)
                .execute(&mut *self.connection)
                .await?;
            self.builds_before.insert(build.id, build.clone());
        }
        Ok(())
    }

    /// A group is there while something waits in it, and its reason with it.
    fn drop_groups(&mut self, left: HashSet<i64>) {
        // They may be gone then.
        self.groups.retain(|_, known| !left.contains(known));
        self.last.extend(left.into_iter().map(|group| {
            format!("DELETE FROM groups WHERE id = {group} AND NOT EXISTS (SELECT 1 FROM jobs WHERE queue = {group})")
        }));
    }

    /// The number of a group, new or known.
    async fn group(&mut self, group: &Group) -> sqlx::Result<i64> {
        let key = group_key(group)?;
        if let Some(id) = self.groups.get(&key) {
            return Ok(*id);
        }
        // The row is given back only when it is written.
        let insert = "INSERT INTO groups (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id";
        let row = sqlx::query(insert).bind(&key).fetch_one(&mut *self.connection).await?;
        let id = row.try_get("id")?;
        self.groups.insert(key, id);
        Ok(id)
    }

    /// Adds what belongs to new jobs; [`Self::flush`] writes the jobs.
    pub(super) async fn insert(&mut self, submission: &Submission, content: [u8; 32]) -> sqlx::Result<()> {
        let jobs: Vec<u8> = submission.jobs.iter().flat_map(|job| *job.id.as_bytes()).collect();
        sqlx::query(
            "INSERT INTO submissions (id, project, key, content, build, jobs) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(count(self.set.submitted))
        .bind(submission.project.as_str().to_owned())
        .bind(submission.key.clone())
        .bind(content.to_vec())
        .bind(submission.build.map(|build| build.as_bytes().to_vec()))
        .bind(jobs)
        .execute(&mut *self.connection)
        .await?;
        // Equal ones come as one.
        let mut specs: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for job in &submission.jobs {
            let body = to_doc(&*job.spec)?;
            let digest = Sha256::digest(&body).to_vec();
            specs.insert(digest.clone(), body);
            self.new.insert(job.id, digest);
        }
        let specs: Vec<(Vec<u8>, String)> = specs.into_iter().collect();
        let (into, behind) = ("INSERT INTO specs (digest, body) ", " ON CONFLICT DO NOTHING");
        insert_rows(self.connection, into, &specs, behind, |row, (digest, body)| {
            row.push_bind(digest.clone()).push_bind(body.clone());
        })
        .await?;
        let edges: BTreeSet<(JobId, JobId)> =
            submission.jobs.iter().flat_map(|job| job.waits_for.iter().map(|need| (*need, job.id))).collect();
        let edges: Vec<(JobId, JobId)> = edges.into_iter().collect();
        for edges in edges.chunks(1_000) {
            let mut insert: QueryBuilder<Db> = QueryBuilder::new("INSERT INTO waits (needs, job) ");
            insert.push_values(edges, |mut row, (need, job)| {
                row.push_bind(id_bytes(*need)).push_bind(id_bytes(*job));
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
            "DELETE FROM blocked WHERE job = $1",
            "DELETE FROM waits WHERE job = $1",
            "DELETE FROM waits WHERE needs = $1",
            "DELETE FROM attempts WHERE job = $1",
            "DELETE FROM progress WHERE job = $1",
            "DELETE FROM logs WHERE job = $1",
        ];
        for statement in statements {
            sqlx::query(statement).bind(id_bytes(id)).execute(&mut *self.connection).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_powers_of_two_and_everything() {
        for length in [0, 1, 2, 3, 63, 64, 65, 200] {
            let all: Vec<usize> = (0..length).collect();
            let parts: Vec<&[usize]> = parts(&all).collect();
            assert!(parts.iter().all(|part| part.len().is_power_of_two() && part.len() <= ROWS_MAX));
            assert_eq!(parts.concat(), all);
        }
    }
}
