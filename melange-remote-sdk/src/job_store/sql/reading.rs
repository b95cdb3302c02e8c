//! The calls that read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{QueryBuilder, Row};

use super::codec::{build, count, from_doc, group_of, ids_of, job_id, micros, number, size, state, token};
use super::*;
use crate::arch::Arch;
use crate::job::{Event, Project, ResultDigest, SourceDigest};
use crate::job_store::listing::median;
use crate::job_store::working_set::{Reason, check_sources, forgotten, is_unarchived, joined};
use crate::job_store::{BuildPage, BuildQuery, EndedJob, EndedQuery, PackageDuration, QueueSummary, Usage};

/// Events that one read looks through for those of a project.
const EVENTS_SCANNED_MAX: i64 = 20_000;

/// The job of a row, as it is told.
fn told(row: &StoredRow) -> sqlx::Result<Arc<Job>> {
    let job = Arc::new(super::codec::job(row)?);
    let reason: Option<&str> = row.try_get("reason")?;
    let reason: Option<Reason> = reason.map(from_doc).transpose()?;
    Ok(reason.map_or_else(|| Arc::clone(&job), |reason| reason.told(&job)))
}

impl Store {
    pub(super) async fn read_demand(&self, now: Timestamp) -> sqlx::Result<Vec<Demand>> {
        // The first job of each group by its place in the queue, and how many there are up to the bound.
        let groups = sqlx::query(
            "SELECT g.key, f.id, f.priority, f.rank, \
             (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = g.id AND not_before <= $1 LIMIT $2) firsts) AS ready \
             FROM groups g JOIN jobs f ON f.id = (SELECT id FROM jobs WHERE queue = g.id AND not_before <= $1 \
             ORDER BY priority DESC, rank DESC, id LIMIT 1) \
             ORDER BY f.priority DESC, f.id LIMIT $3",
        )
        .bind(micros(now))
        .bind(size(limits::DEMAND_COUNT_MAX))
        .bind(size(limits::DEMAND_GROUPS_MAX));
        let jobs = sqlx::query("SELECT project, count(*) AS running FROM jobs WHERE state = 2 GROUP BY 1");
        let (rows, jobs) = tokio::try_join!(groups.fetch_all(&self.readers), jobs.fetch_all(&self.readers))?;
        let mut running = BTreeMap::new();
        for row in jobs {
            let (project, count): (String, i64) = (row.try_get("project")?, row.try_get("running")?);
            running.insert(project, usize::try_from(count).unwrap_or(0));
        }
        let mut demand = Vec::new();
        for row in rows {
            let group = group_of(row.try_get("key")?)?;
            let (priority, ready): (i64, i64) = (row.try_get("priority")?, row.try_get("ready")?);
            let priority = u16::try_from(priority).ok().and_then(|priority| Priority::new(priority).ok());
            let running = running.get(group.project.as_str()).copied().unwrap_or(0);
            demand.push(Demand {
                group,
                ready: usize::try_from(ready).unwrap_or(0),
                first: job_id(row.try_get("id")?)?,
                priority: priority.unwrap_or_default(),
                rank: row.try_get("rank")?,
                running,
            });
        }
        Ok(demand)
    }

    pub(super) async fn read_cancel_requests(&self, server: &ServerId) -> sqlx::Result<Vec<Fence>> {
        let rows = sqlx::query(
            "SELECT id, attempt, token FROM jobs WHERE state = 2 AND cancel_requested AND server = $1 ORDER BY id",
        )
        .bind(server.as_str().to_owned())
        .fetch_all(&self.readers)
        .await?;
        let fence = |row: &StoredRow| {
            let attempt: i64 = row.try_get("attempt")?;
            Ok(Fence {
                job: job_id(row.try_get("id")?)?,
                attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
                token: token(row.try_get("token")?)?,
            })
        };
        rows.iter().map(fence).collect()
    }

    async fn read_job(&self, id: JobId) -> sqlx::Result<Option<Arc<Job>>> {
        let row = sqlx::query(
            "SELECT j.doc, g.reason, b.needs AS blocked_by FROM jobs j \
             LEFT JOIN groups g ON g.id = j.queue LEFT JOIN blocked b ON b.job = j.id WHERE j.id = $1",
        )
        .bind(id.as_bytes().to_vec())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(told).transpose()
    }

    async fn read_spec(&self, id: JobId) -> sqlx::Result<Option<JobSpec>> {
        let row = sqlx::query("SELECT s.body FROM jobs j JOIN specs s ON s.digest = j.spec WHERE j.id = $1")
            .bind(id.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| from_doc(row.try_get("body")?)).transpose()
    }

    async fn read_blocked_by(&self, id: JobId, limit: usize) -> sqlx::Result<Vec<JobId>> {
        let rows = sqlx::query(
            "SELECT j.id FROM waits w JOIN jobs j ON j.id = w.needs WHERE w.job = $1 AND j.state <> $2 \
             ORDER BY j.id LIMIT $3",
        )
        .bind(id.as_bytes().to_vec())
        .bind(state(JobState::Success))
        .bind(size(limit.min(limits::PAGE_ITEMS_MAX)))
        .fetch_all(&self.readers)
        .await?;
        ids_of(&rows)
    }

    async fn read_ahead(&self, id: JobId) -> sqlx::Result<Option<Option<usize>>> {
        let row = sqlx::query(
            "SELECT j.queue, (SELECT count(*) FROM (SELECT 1 FROM jobs b WHERE b.queue = j.queue AND \
             (b.priority > j.priority OR b.priority = j.priority AND (b.rank > j.rank OR b.rank = j.rank AND \
             b.id < j.id)) LIMIT $2) firsts) AS ahead FROM jobs j WHERE j.id = $1",
        )
        .bind(id.as_bytes().to_vec())
        .bind(size(limits::DEMAND_COUNT_MAX))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (queue, ahead): (Option<i64>, i64) = (row.try_get("queue")?, row.try_get("ahead")?);
        Ok(Some(queue.map(|_| usize::try_from(ahead).unwrap_or(0))))
    }

    /// The attempts of a job, or the one with a number.
    async fn read_attempts(&self, id: JobId, only: Option<u32>) -> sqlx::Result<Vec<JobAttempt>> {
        let job = id.as_bytes().to_vec();
        let select =
            "SELECT number, doc FROM attempts WHERE job = $1 AND ($2 IS NULL OR number = $2) ORDER BY number";
        let only = only.map(i64::from);
        let rows = sqlx::query(select).bind(job.clone()).bind(only).fetch_all(&self.readers).await?;
        let mut attempts: BTreeMap<i64, JobAttempt> = BTreeMap::new();
        for row in rows {
            attempts.insert(row.try_get("number")?, from_doc(row.try_get("doc")?)?);
        }
        let select = "SELECT attempt, doc FROM progress WHERE job = $1 AND ($2 IS NULL OR attempt = $2) \
                      ORDER BY attempt, number";
        for row in sqlx::query(select).bind(job).bind(only).fetch_all(&self.readers).await? {
            let number: i64 = row.try_get("attempt")?;
            let told: ProgressRow = from_doc(row.try_get("doc")?)?;
            if let Some(attempt) = attempts.get_mut(&number) {
                attempt.apply(told);
            }
        }
        Ok(attempts.into_values().collect())
    }

    async fn read_page(&self, query: &ListQuery) -> sqlx::Result<JobPage> {
        let limit = query.limit.min(limits::PAGE_ITEMS_MAX);
        let mut select: QueryBuilder<Db> = QueryBuilder::new(
            "SELECT j.doc, g.reason, b.needs AS blocked_by FROM jobs j \
             LEFT JOIN groups g ON g.id = j.queue LEFT JOIN blocked b ON b.job = j.id WHERE TRUE",
        );
        if let Some(project) = &query.project {
            select.push(" AND j.project = ").push_bind(project.as_str().to_owned());
        }
        if let Some(wanted) = query.state {
            select.push(" AND j.state = ").push_bind(state(wanted));
        }
        if let Some(build) = query.build {
            select.push(" AND j.build = ").push_bind(build.as_bytes().to_vec());
        }
        if let Some(package) = &query.package {
            select.push(" AND j.package = ").push_bind(package.clone());
        }
        if let Some(arch) = query.arch {
            select.push(" AND j.arch = ").push_bind(arch.to_string());
        }
        if let Some(before) = query.before {
            select.push(" AND j.id < ").push_bind(before.as_bytes().to_vec());
        }
        if let Some(after) = query.after {
            select.push(" AND j.id > ").push_bind(after.as_bytes().to_vec());
        }
        select.push(if query.oldest_first { " ORDER BY j.id" } else { " ORDER BY j.id DESC" });
        select.push(" LIMIT ").push_bind(size(limit.saturating_add(1)));
        let rows = select.build().fetch_all(&self.readers).await?;
        let more = rows.len() > limit;
        let jobs = rows.iter().take(limit).map(told).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(JobPage { jobs, more })
    }

    async fn read_build(&self, id: BuildId) -> sqlx::Result<Option<Build>> {
        let row = sqlx::query("SELECT doc, facts FROM builds WHERE id = $1")
            .bind(id.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(build).transpose()
    }

    async fn read_builds(&self, query: &BuildQuery) -> sqlx::Result<BuildPage> {
        let limit = query.limit.min(limits::PAGE_ITEMS_MAX);
        let mut select: QueryBuilder<Db> = QueryBuilder::new("SELECT doc, facts FROM builds WHERE TRUE");
        if let Some(project) = &query.project {
            select.push(" AND project = ").push_bind(project.as_str().to_owned());
        }
        if let Some(state) = query.state {
            select.push(" AND state = ").push_bind(size(state.index()));
        }
        if let Some(before) = query.before {
            select.push(" AND id < ").push_bind(before.as_bytes().to_vec());
        }
        select.push(" ORDER BY id DESC LIMIT ").push_bind(size(limit.saturating_add(1)));
        let rows = select.build().fetch_all(&self.readers).await?;
        let builds = rows.iter().take(limit).map(build).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(BuildPage::new(builds, rows.len() > limit))
    }

    async fn read_with_result(
        &self,
        project: &Project,
        result: ResultDigest,
    ) -> sqlx::Result<Option<Arc<Job>>> {
        // Artifacts may be empty, so that their bytes do not tell whether they were removed.
        let mut rows = sqlx::query(
            "SELECT j.doc FROM jobs j \
             WHERE j.result = $1 AND j.state = 3 AND j.project = $2 ORDER BY j.ended_at DESC, j.id DESC",
        )
        .bind(result.as_bytes().to_vec())
        .bind(project.as_str().to_owned())
        .fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            let job: Job = from_doc(row.try_get("doc")?)?;
            if job.artifacts_removed_at.is_none() {
                return Ok(Some(Arc::new(job)));
            }
        }
        Ok(None)
    }

    async fn read_durations(&self, project: &Project, arch: Arch) -> sqlx::Result<Vec<PackageDuration>> {
        let mut rows = sqlx::query(
            "SELECT package, took FROM (SELECT package, took, row_number() OVER \
             (PARTITION BY package ORDER BY ended_at DESC, id DESC) AS place FROM jobs \
             WHERE project = $1 AND arch = $2 AND state = 3 AND took IS NOT NULL) AS last \
             WHERE place <= $3 ORDER BY package",
        )
        .bind(project.as_str().to_owned())
        .bind(arch.to_string())
        .bind(size(limits::DURATIONS_OF_PACKAGE))
        .fetch(&self.readers);
        let (mut told, mut times): (Vec<PackageDuration>, Vec<Duration>) = (Vec::new(), Vec::new());
        let mut package = String::new();
        let mut close = |package: &str, times: &mut Vec<Duration>| {
            let median = median(std::mem::take(times)).filter(|_| told.len() < limits::DURATIONS_MAX);
            told.extend(median.map(|took| PackageDuration::new(package, took)));
        };
        while let Some(row) = rows.try_next().await? {
            let (next, took): (&str, i64) = (row.try_get("package")?, row.try_get("took")?);
            if next != package {
                close(&package, &mut times);
                package = next.to_owned();
            }
            times.push(Duration::from_millis(number(took)));
        }
        close(&package, &mut times);
        Ok(told)
    }

    async fn read_bytes(&self, id: JobId, offset: u64, limit: usize) -> sqlx::Result<Result<LogChunk>> {
        let job = id.as_bytes().to_vec();
        let row = sqlx::query("SELECT log_bytes FROM jobs WHERE id = $1")
            .bind(job.clone())
            .fetch_optional(&self.readers);
        let Some(row) = row.await? else { return Ok(Err(not_found(id))) };
        let len = number(row.try_get("log_bytes")?);
        let limit = limit.min(limits::LOG_READ_BYTES_MAX);
        let mut bytes = Vec::new();
        if offset < len && limit > 0 {
            let end = offset.saturating_add(number(size(limit))).min(len);
            let rows = sqlx::query(
                "SELECT start, bytes FROM logs WHERE job = $1 AND start < $3 AND start >= \
                 (SELECT max(start) FROM logs WHERE job = $1 AND start <= $2) ORDER BY start",
            )
            .bind(job)
            .bind(count(offset))
            .bind(count(end))
            .fetch_all(&self.readers)
            .await?;
            let mut parts: Vec<(u64, &[u8])> = Vec::with_capacity(rows.len());
            for row in &rows {
                parts.push((number(row.try_get("start")?), row.try_get("bytes")?));
            }
            bytes = joined(parts, offset, limit);
            if bytes.is_empty() {
                return Ok(Err(forgotten(id, offset)));
            }
        }
        Ok(Ok(LogChunk { bytes: bytes.into(), len }))
    }

    async fn read_events(&self, query: &EventQuery) -> sqlx::Result<EventPage> {
        let row = sqlx::query(
            "SELECT events AS last, (SELECT coalesce(min(seq), 0) FROM events) AS oldest FROM counters",
        );
        let row = row.fetch_one(&self.readers).await?;
        let (last, oldest): (i64, i64) = (row.try_get("last")?, row.try_get("oldest")?);
        let limit = query.limit.min(limits::EVENTS_PER_READ_MAX);
        let after = count(query.after);
        // No index finds the events of a project: a part of all of them is looked through.
        let is_scan = query.project.is_some() && query.job.is_none() && query.build.is_none();
        let most =
            if is_scan { after.max(oldest).saturating_add(EVENTS_SCANNED_MAX).min(last) } else { last };
        let mut select: QueryBuilder<Db> = QueryBuilder::new("SELECT seq, doc FROM events WHERE seq > ");
        select.push_bind(after).push(" AND seq <= ").push_bind(most);
        if let Some(job) = query.job {
            select.push(" AND job = ").push_bind(job.as_bytes().to_vec());
        }
        if let Some(build) = query.build {
            select.push(" AND build = ").push_bind(build.as_bytes().to_vec());
        }
        if let Some(project) = &query.project {
            select.push(" AND project = ").push_bind(project.as_str().to_owned());
        }
        select.push(" ORDER BY seq LIMIT ").push_bind(size(limit));
        let mut events = Vec::new();
        for row in select.build().fetch_all(&self.readers).await? {
            let event: Event = from_doc(row.try_get("doc")?)?;
            events.push(Event { seq: number(row.try_get("seq")?), ..event });
        }
        let last = match events.last() {
            Some(event) if events.len() == limit => event.seq,
            _ => number(most),
        };
        Ok(EventPage { events, oldest: number(oldest), last })
    }

    async fn read_unarchived(&self, ended_by: Timestamp, limit: usize) -> sqlx::Result<Vec<(JobId, u32)>> {
        // One step of the index for each job whose log is here, however many parts that has.
        let jobs = "WITH RECURSIVE found (job) AS ( \
                    SELECT * FROM (SELECT job FROM logs ORDER BY job LIMIT 1) AS least UNION ALL \
                    SELECT (SELECT l.job FROM logs l WHERE l.job > found.job ORDER BY l.job LIMIT 1) FROM found \
                    WHERE found.job IS NOT NULL) \
                    SELECT a.job, a.doc FROM found JOIN attempts a ON a.job = found.job ORDER BY a.job, a.number";
        let limit = limit.min(limits::PAGE_ITEMS_MAX);
        let mut rows = sqlx::query(jobs).fetch(&self.readers);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let attempt: JobAttempt = from_doc(row.try_get("doc")?)?;
            if is_unarchived(&attempt, ended_by) {
                found.push((job_id(row.try_get("job")?)?, attempt.number));
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// That the job is there.
    async fn exists(&self, id: JobId) -> Result<()> {
        let row = sqlx::query("SELECT 1 FROM jobs WHERE id = $1")
            .bind(id.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)?;
        row.map(drop).ok_or_else(|| not_found(id))
    }
}

#[async_trait]
impl JobReading for Store {
    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.read_job(id).await.map_err(unavailable)?.ok_or_else(|| not_found(id))
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        self.read_spec(id).await.map_err(unavailable)?.map(Arc::new).ok_or_else(|| not_found(id))
    }

    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        self.exists(id).await?;
        self.read_blocked_by(id, limit).await.map_err(unavailable)
    }

    async fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        self.read_ahead(id).await.map_err(unavailable)?.ok_or_else(|| not_found(id))
    }

    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        self.read_queue(now).await.map_err(unavailable)
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.exists(id).await?;
        self.read_attempts(id, None).await.map_err(unavailable)
    }

    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        self.exists(id).await?;
        let attempt = self.read_attempts(id, Some(number)).await.map_err(unavailable)?.pop();
        attempt.ok_or_else(|| no_attempt(id, number))
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        self.read_page(query).await.map_err(unavailable)
    }

    async fn build(&self, id: BuildId) -> Result<Build> {
        self.read_build(id).await.map_err(unavailable)?.ok_or_else(|| no_build(id))
    }

    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        self.read_builds(query).await.map_err(unavailable)
    }

    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>> {
        self.read_with_result(project, result).await.map_err(unavailable)
    }

    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>> {
        self.read_durations(project, arch).await.map_err(unavailable)
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        self.read_bytes(id, offset, limit).await.map_err(unavailable)?
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        self.read_events(query).await.map_err(unavailable)
    }

    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        self.read_unarchived(ended_by, limit).await.map_err(unavailable)
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        self.read_ended(query).await.map_err(unavailable)
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.exists(id).await?;
        self.read_is_needed(id).await.map_err(unavailable)
    }

    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        check_sources(sources)?;
        self.read_needed_sources(sources).await.map_err(unavailable)
    }

    async fn usage(&self) -> Result<Usage> {
        self.read_usage().await.map_err(unavailable)
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.hints.subscribe(subject)
    }
}
