//! What is removed of ended jobs, and which there are.

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::{QueryBuilder, Row};

use super::codec::{count, from_doc, job_id, micros, number, size, state, to_doc};
use super::save::write_attempts;
use super::*;
use crate::job::SourceDigest;
use crate::job_store::working_set::note_log_removed;
use crate::job_store::{EndedJob, EndedQuery, Holding, Usage};

/// What [`ended_job`] needs of a job's document.
#[derive(Deserialize)]
struct Removed {
    #[serde(default)]
    artifacts_removed_at: Option<Timestamp>,
    #[serde(default)]
    log_removed_at: Option<Timestamp>,
}

/// A word that the database holds, as this program writes it.
fn word<T: std::str::FromStr>(row: &StoredRow, column: &str) -> sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| sqlx::Error::Protocol(format!("the database holds no {column} but {text:?}")))
}

fn ended_job(row: &StoredRow) -> sqlx::Result<EndedJob> {
    let (stored, at): (i64, i64) = (row.try_get("state")?, row.try_get("ended_at")?);
    let state = usize::try_from(stored).ok().and_then(|place| JobState::ALL.get(place)).copied();
    let state =
        state.ok_or_else(|| sqlx::Error::Protocol(format!("the database holds the state {stored}")))?;
    let finished_at = Timestamp::from_microsecond(at).unwrap_or(Timestamp::MIN);
    let removed: Removed = from_doc(row.try_get("doc")?)?;
    let build: Option<&str> = row.try_get("build")?;
    let build: Option<Build> = build.map(from_doc).transpose()?;
    let (attempt, newest): (i64, i64) = (row.try_get("attempt")?, row.try_get("newest")?);
    Ok(EndedJob {
        project: word(row, "project")?,
        package: row.try_get("package")?,
        arch: word(row, "arch")?,
        build: build.as_ref().map(|build| build.id),
        build_is_open: build.is_some_and(|build| !build.is_finished()),
        is_newest: newest != 0,
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        artifact_bytes: number(row.try_get("artifact_bytes")?),
        log_bytes: number(row.try_get("archived_bytes")?),
        artifacts_removed_at: removed.artifacts_removed_at,
        log_removed_at: removed.log_removed_at,
        ..EndedJob::new(job_id(row.try_get("id")?)?, state, finished_at)
    })
}

impl Session<'_> {
    pub(super) async fn note_removed(
        &mut self,
        id: JobId,
        what: Holding,
        at: Timestamp,
    ) -> sqlx::Result<Result<()>> {
        self.jobs(&[id]).await?;
        if let Err(error) = self.set.note_removed(id, what, at) {
            return Ok(Err(error));
        }
        // Nothing changed: it was noted before.
        if what == Holding::Artifacts || !self.set.changes.jobs.contains(&id) {
            return Ok(Ok(()));
        }
        let job = id.as_bytes().to_vec();
        let noted = self.set.jobs.get(&id).and_then(|entry| entry.job.log_removed_at);
        let rows = sqlx::query("SELECT doc FROM attempts WHERE job = $1")
            .bind(job.clone())
            .fetch_all(&mut *self.connection)
            .await?;
        let mut attempts = Vec::new();
        for row in rows {
            let mut attempt: JobAttempt = from_doc(row.try_get("doc")?)?;
            note_log_removed(&mut attempt, noted.unwrap_or(at));
            attempts.push((id, attempt.number, to_doc(&attempt)?));
        }
        write_attempts(self.connection, &attempts).await?;
        for statement in
            ["DELETE FROM logs WHERE job = $1", "UPDATE jobs SET archived_bytes = 0 WHERE id = $1"]
        {
            sqlx::query(statement).bind(job.clone()).execute(&mut *self.connection).await?;
        }
        Ok(Ok(()))
    }

    /// Counts the bytes of a log that was put among the artifacts.
    pub(super) async fn count_archive(&mut self, id: JobId, stored_bytes: u64) -> sqlx::Result<()> {
        sqlx::query("UPDATE jobs SET archived_bytes = archived_bytes + $2 WHERE id = $1")
            .bind(id.as_bytes().to_vec())
            .bind(count(stored_bytes))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

impl Store {
    pub(super) async fn read_ended(&self, query: &EndedQuery) -> sqlx::Result<Vec<EndedJob>> {
        let mut select: QueryBuilder<Db> = QueryBuilder::new(
            "SELECT j.id, j.project, j.package, j.arch, j.state, j.attempt, j.ended_at, j.artifact_bytes, \
             j.archived_bytes, j.doc, b.doc AS build, CAST(CASE WHEN j.state = 3 AND NOT EXISTS ( \
             SELECT 1 FROM jobs n WHERE n.state = 3 AND n.project = j.project AND n.package = j.package \
             AND n.arch = j.arch AND (n.ended_at, n.id) > (j.ended_at, j.id)) THEN 1 ELSE 0 END AS BIGINT) AS newest \
             FROM jobs j LEFT JOIN builds b ON b.id = j.build WHERE j.ended_at IS NOT NULL",
        );
        // As the indexes are said to hold them.
        match query.holding {
            None => {}
            Some(Holding::Artifacts) => _ = select.push(" AND j.artifact_bytes > 0"),
            Some(Holding::Logs) => _ = select.push(" AND j.archived_bytes > 0"),
        }
        if let Some(place) = query.behind {
            select.push(" AND (j.ended_at, j.id) > (").push_bind(micros(place.finished_at)).push(", ");
            select.push_bind(place.job.as_bytes().to_vec()).push(")");
        }
        let limit = query.limit.min(limits::PAGE_ITEMS_MAX);
        select.push(" ORDER BY j.ended_at, j.id LIMIT ").push_bind(size(limit));
        let rows = select.build().fetch_all(&self.readers).await?;
        rows.iter().map(ended_job).collect()
    }

    pub(super) async fn read_is_needed(&self, id: JobId) -> sqlx::Result<bool> {
        let row = sqlx::query(
            "WITH RECURSIVE waiting(id) AS (SELECT job FROM waits WHERE needs = $1 UNION \
             SELECT w.job FROM waiting JOIN waits w ON w.needs = waiting.id) \
             SELECT 1 FROM waiting JOIN jobs j ON j.id = waiting.id WHERE j.state IN ($2, $3, $4) LIMIT 1",
        )
        .bind(id.as_bytes().to_vec())
        .bind(state(JobState::Blocked))
        .bind(state(JobState::Pending))
        .bind(state(JobState::Running))
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.is_some())
    }

    pub(super) async fn read_needed_sources(
        &self,
        sources: &[SourceDigest],
    ) -> sqlx::Result<BTreeSet<SourceDigest>> {
        if sources.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut select: QueryBuilder<Db> =
            QueryBuilder::new("SELECT DISTINCT source FROM jobs WHERE state <> ");
        select.push_bind(state(JobState::Success)).push(" AND source IN (");
        let mut list = select.separated(", ");
        sources.iter().for_each(|source| _ = list.push_bind(source.to_string()));
        select.push(")");
        let rows = select.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| word(row, "source")).collect()
    }

    pub(super) async fn read_usage(&self) -> sqlx::Result<Usage> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM jobs WHERE ended_at IS NOT NULL) AS jobs, \
             (SELECT CAST(coalesce(sum(artifact_bytes), 0) AS BIGINT) FROM jobs \
             WHERE ended_at IS NOT NULL AND artifact_bytes > 0) AS artifacts, \
             (SELECT CAST(coalesce(sum(archived_bytes), 0) AS BIGINT) FROM jobs \
             WHERE ended_at IS NOT NULL AND archived_bytes > 0) AS logs",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(Usage {
            jobs: number(row.try_get("jobs")?),
            artifact_bytes: number(row.try_get("artifacts")?),
            log_bytes: number(row.try_get("logs")?),
        })
    }
}
