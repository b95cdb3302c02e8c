//! What a call is about, loaded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{QueryBuilder, Row};

use super::codec::{from_doc, ids_of, job_id, number, token};
use super::dialect::{Connection, Db, StoredRow};
use super::{Bounds, DatabaseBounds};
use crate::job::{BuildId, Job, JobId, JobState};
use crate::job_store::Selection;
use crate::job_store::working_set::{Entry, Known, WorkingSet};

/// Ids of one statement.
const IDS_MAX: usize = 500;

/// A call under way.
pub(super) struct Session<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) set: WorkingSet,
    /// The states of jobs as they were loaded, and the groups that they waited in.
    pub(super) before: HashMap<JobId, (JobState, Option<i64>)>,
    bounds: DatabaseBounds,
}

/// `select` with the ids in place of what follows it.
fn with_ids(select: &str, ids: &[JobId]) -> QueryBuilder<Db> {
    let mut query = QueryBuilder::new(select);
    query.push("(");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
    query.push(")");
    query
}

impl<'c> Session<'c> {
    pub(super) fn new(connection: &'c mut Connection, bounds: DatabaseBounds) -> Self {
        let all = Bounds { jobs: usize::MAX, pending: usize::MAX, bytes: usize::MAX };
        Self { connection, set: WorkingSet::new(all), before: HashMap::new(), bounds }
    }

    /// Loads the jobs that are there.
    pub(super) async fn jobs(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        let missing: Vec<JobId> = ids.iter().filter(|id| !self.set.jobs.contains_key(id)).copied().collect();
        for ids in missing.chunks(IDS_MAX) {
            let select = "SELECT j.submission, j.queue, j.lease_until, j.token, j.place, j.lost_needs, \
                          j.released, j.progress, j.log_bytes, j.doc, a.doc AS attempt \
                          FROM jobs j LEFT JOIN attempts a ON a.job = j.id AND a.number = j.attempt \
                          WHERE j.id IN ";
            for row in with_ids(select, ids).build().fetch_all(&mut *self.connection).await? {
                self.adopt(&row)?;
            }
        }
        Ok(())
    }

    fn adopt(&mut self, row: &StoredRow) -> sqlx::Result<()> {
        let job: Job = from_doc(row.try_get("doc")?)?;
        let until: i64 = row.try_get("lease_until")?;
        let released: Option<&str> = row.try_get("released")?;
        let attempt: Option<&str> = row.try_get("attempt")?;
        let owner: Option<&[u8]> = row.try_get("token")?;
        let place: i64 = row.try_get("place")?;
        let lost_needs: i64 = row.try_get("lost_needs")?;
        self.before.insert(job.id, (job.state, row.try_get("queue")?));
        self.set.adopt(Entry {
            job: Arc::new(job),
            spec: None,
            submission: number(row.try_get("submission")?),
            waits_for: Vec::new(),
            dependents: Vec::new(),
            lost_needs: u32::try_from(lost_needs).unwrap_or(u32::MAX),
            finished: 0,
            token: owner.map(token).transpose()?,
            place: usize::try_from(place).unwrap_or(0),
            lease_until: jiff::Timestamp::from_microsecond(until).unwrap_or(jiff::Timestamp::MIN),
            released: released.map(from_doc).transpose()?,
            attempts: attempt.map(from_doc).transpose()?.into_iter().collect(),
            progress: number(row.try_get("progress")?),
            log_bytes: number(row.try_get("log_bytes")?),
        });
        Ok(())
    }

    /// Loads what jobs wait for: the edges, and the jobs.
    pub(super) async fn needs(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        let mut all = HashSet::new();
        for ids in ids.chunks(IDS_MAX) {
            let mut select = with_ids("SELECT job, needs FROM waits WHERE job IN ", ids);
            for row in select.build().fetch_all(&mut *self.connection).await? {
                let (job, need) = (job_id(row.try_get("job")?)?, job_id(row.try_get("needs")?)?);
                if let Some(entry) = self.set.jobs.get_mut(&job)
                    && !entry.waits_for.contains(&need)
                {
                    entry.waits_for.push(need);
                }
                all.insert(need);
            }
        }
        self.jobs(&all.into_iter().collect::<Vec<_>>()).await
    }

    /// Loads what waits for jobs: the edges, and the jobs. Returns those.
    pub(super) async fn dependents(&mut self, ids: &[JobId]) -> sqlx::Result<Vec<JobId>> {
        let mut all = HashSet::new();
        for ids in ids.chunks(IDS_MAX) {
            let mut select = with_ids("SELECT needs, job FROM waits WHERE needs IN ", ids);
            for row in select.build().fetch_all(&mut *self.connection).await? {
                let (need, job) = (job_id(row.try_get("needs")?)?, job_id(row.try_get("job")?)?);
                if let Some(entry) = self.set.jobs.get_mut(&need)
                    && !entry.dependents.contains(&job)
                {
                    entry.dependents.push(job);
                }
                all.insert(job);
            }
        }
        let all: Vec<JobId> = all.into_iter().collect();
        self.jobs(&all).await?;
        Ok(all)
    }

    /// Loads everything that a bad end of these jobs reaches: those that wait for them in a state, by way of others too.
    pub(super) async fn reach(&mut self, ids: &[JobId], state: JobState) -> sqlx::Result<()> {
        let mut seen: HashSet<JobId> = ids.iter().copied().collect();
        let mut frontier = ids.to_vec();
        while !frontier.is_empty() {
            let next = self.dependents(&frontier).await?;
            let in_state = |id: &JobId| self.set.jobs.get(id).is_some_and(|entry| entry.job.state == state);
            frontier = next.into_iter().filter(|id| in_state(id) && seen.insert(*id)).collect();
        }
        Ok(())
    }

    /// Loads the builds of all jobs that are loaded; before they change.
    pub(super) async fn builds(&mut self) -> sqlx::Result<()> {
        let builds: HashSet<BuildId> = self.set.jobs.values().filter_map(|entry| entry.job.build).collect();
        for id in builds {
            self.build(id).await?;
        }
        Ok(())
    }

    /// Loads a build; whether it is there.
    pub(super) async fn build(&mut self, id: BuildId) -> sqlx::Result<bool> {
        let select = sqlx::query("SELECT doc FROM builds WHERE id = $1").bind(id.as_bytes().to_vec());
        let Some(row) = select.fetch_optional(&mut *self.connection).await? else { return Ok(false) };
        let build = from_doc(row.try_get("doc")?)?;
        self.set.builds.entry(id).or_insert((build, Default::default()));
        Ok(true)
    }

    /// Loads the jobs of a selection.
    pub(super) async fn select(&mut self, selection: Selection) -> sqlx::Result<Vec<JobId>> {
        let ids = match selection {
            Selection::Job(id) => vec![id],
            Selection::Build(id) => {
                let select = sqlx::query("SELECT id FROM jobs WHERE build = $1").bind(id.as_bytes().to_vec());
                let rows = select.fetch_all(&mut *self.connection).await?;
                ids_of(&rows)?
            }
        };
        self.jobs(&ids).await?;
        if let Selection::Build(id) = selection
            && self.build(id).await?
            && let Some((_, jobs)) = self.set.builds.get_mut(&id)
        {
            jobs.extend(&ids);
        }
        Ok(ids)
    }

    /// Loads a submission.
    pub(super) async fn submission(&mut self, id: u64) -> sqlx::Result<()> {
        let select = sqlx::query(
            "SELECT project, key, content, build, jobs, \
             (SELECT count(*) FROM jobs WHERE submission = s.id) AS remaining FROM submissions s WHERE id = $1",
        );
        let row = select.bind(super::codec::count(id)).fetch_optional(&mut *self.connection).await?;
        let Some(row) = row else { return Ok(()) };
        let project: String = row.try_get("project")?;
        let project = project.parse().map_err(|_| sqlx::Error::RowNotFound)?;
        let key: Option<String> = row.try_get("key")?;
        let key = key.map(|key| (project, key));
        let content: Vec<u8> = row.try_get("content")?;
        let jobs: Vec<u8> = row.try_get("jobs")?;
        let build: Option<Vec<u8>> = row.try_get("build")?;
        let remaining: i64 = row.try_get("remaining")?;
        let known = Known {
            key: key.clone(),
            content: content.try_into().map_err(|_| sqlx::Error::RowNotFound)?,
            jobs: jobs.chunks(16).map(job_id).collect::<sqlx::Result<Vec<_>>>()?,
            build: build
                .map(|build| BuildId::from_bytes(&build))
                .transpose()
                .map_err(|_| sqlx::Error::RowNotFound)?,
            left: usize::try_from(remaining).unwrap_or(0),
        };
        if let Some(key) = key {
            self.set.keys.insert(key, id);
        }
        self.set.submissions.insert(id, known);
        Ok(())
    }

    /// Loads how many jobs wait, so that the bound on them holds.
    pub(super) async fn room(&mut self) -> sqlx::Result<()> {
        let row = sqlx::query("SELECT waiting FROM counters").fetch_one(&mut *self.connection).await?;
        let waiting: i64 = row.try_get("waiting")?;
        let loaded = self.set.jobs.values().filter(|entry| waits(entry.job.state)).count();
        let elsewhere = usize::try_from(waiting).unwrap_or(0).saturating_sub(loaded);
        self.set.bounds.pending = self.bounds.pending.saturating_sub(elsewhere);
        Ok(())
    }
}

/// Whether a job in this state counts towards the bound on waiting jobs.
pub(super) fn waits(state: JobState) -> bool {
    matches!(state, JobState::Blocked | JobState::Pending)
}
