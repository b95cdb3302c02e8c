//! What the calls of a transaction are about, loaded.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sqlx::{QueryBuilder, Row};

use super::codec::{from_doc, ids_of, job_id, number, token};
use super::dialect::{Connection, Db, StoredRow};
use super::{Bounds, Changes, DatabaseBounds};
use crate::job::{Build, BuildId, Event, JobId, JobState};
use crate::job_store::working_set::{Entry, Known, WorkingSet};
use crate::job_store::{Fence, Selection};

/// Ids of one statement.
const IDS_MAX: usize = 512;

/// What a call needs, as far as that is known before it begins.
#[derive(Debug)]
pub(super) enum Wanted {
    /// These jobs.
    Jobs(Vec<JobId>),
    /// This job, which has succeeded, and those that wait for it.
    Success(JobId),
    /// The database knows.
    Unknown,
}

/// A blocked job of which no more is known than how many others it waits for.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) count: u32,
    pub(super) changed: bool,
}

/// A row that an attempt told.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) fence: Fence,
    pub(super) number: u64,
    pub(super) doc: String,
}

/// A part of a log.
#[derive(Debug)]
pub(super) struct LogPart {
    pub(super) job: JobId,
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

/// A transaction under way.
pub(super) struct Session<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) set: WorkingSet,
    /// What has changed so far, for whoever wants to know.
    pub(super) told: Changes,
    /// The states of jobs as the database has them, and the groups that they wait in.
    pub(super) before: HashMap<JobId, (JobState, Option<i64>)>,
    /// The builds as the database has them.
    pub(super) builds_before: HashMap<BuildId, Build>,
    /// The numbers of groups by their keys.
    pub(super) groups: HashMap<String, i64>,
    /// Jobs that are not in the database yet, with the digests of what they ask.
    pub(super) new: HashMap<JobId, Vec<u8>>,
    /// Jobs whose progress, log or lease changed, and nothing else.
    pub(super) counters: BTreeSet<JobId>,
    /// What waits for jobs, by the job that is waited for.
    edges: HashMap<JobId, Vec<JobId>>,
    /// Blocked jobs that are not loaded.
    pub(super) blocked: HashMap<JobId, Blocked>,
    /// What attempts told, not written yet.
    pub(super) rows: Vec<NewRow>,
    /// What logs grew by, not written yet.
    pub(super) parts: Vec<LogPart>,
    /// What happened, in order.
    pub(super) events: Vec<Event>,
    /// Jobs whose specs this program does not understand, and why.
    pub(super) unreadable: HashMap<JobId, String>,
    /// Statements kept for the end, without values to bind.
    pub(super) last: Vec<String>,
    bounds: DatabaseBounds,
}

/// What a job's row has for a session.
const COLUMNS: &str = "j.id, j.submission, j.queue, j.lease_until, j.token, j.place, j.lost_needs, j.released, \
                       j.progress, j.log_bytes, j.doc, a.doc AS attempt, b.needs AS blocked_by";

/// Where that stands.
const TABLES: &str = "jobs j LEFT JOIN attempts a ON a.job = j.id AND a.number = j.attempt \
                      LEFT JOIN blocked b ON b.job = j.id";

/// `select` with the ids behind it. Their number is a power of two, the last one repeated, so that there are few different
/// statements for a database to prepare.
fn with_ids(select: &str, ids: &[JobId]) -> QueryBuilder<Db> {
    let mut query = QueryBuilder::new(select);
    query.push("(");
    let mut list = query.separated(", ");
    let surplus = ids.len().next_power_of_two().saturating_sub(ids.len());
    for id in ids.iter().chain(ids.last().into_iter().cycle().take(surplus)) {
        list.push_bind(id.as_bytes().to_vec());
    }
    query.push(")");
    query
}

impl<'c> Session<'c> {
    pub(super) fn new(connection: &'c mut Connection, bounds: DatabaseBounds) -> Self {
        let all = Bounds { jobs: usize::MAX, pending: usize::MAX, bytes: usize::MAX };
        Self {
            connection,
            set: WorkingSet::new(all),
            told: Changes::default(),
            before: HashMap::new(),
            builds_before: HashMap::new(),
            groups: HashMap::new(),
            new: HashMap::new(),
            counters: BTreeSet::new(),
            edges: HashMap::new(),
            blocked: HashMap::new(),
            rows: Vec::new(),
            parts: Vec::new(),
            events: Vec::new(),
            unreadable: HashMap::new(),
            last: Vec::new(),
            bounds,
        }
    }

    /// Loads what calls need, in as few statements as one of them would take.
    pub(super) async fn prefetch(&mut self, wanted: &[Wanted]) -> sqlx::Result<()> {
        let (mut jobs, mut successes) = (Vec::new(), Vec::new());
        for wanted in wanted {
            match wanted {
                Wanted::Jobs(ids) => jobs.extend(ids),
                Wanted::Success(id) => successes.push(*id),
                Wanted::Unknown => {}
            }
        }
        jobs.extend(&successes);
        self.jobs(&jobs).await?;
        self.followers(&successes).await?;
        // Those that all of this unlocks.
        let mut ends: HashMap<JobId, u32> = HashMap::new();
        for dependent in successes.iter().filter_map(|id| self.edges.get(id)).flatten() {
            *ends.entry(*dependent).or_default() += 1;
        }
        let unlocked = |(id, ends): (&JobId, &u32)| {
            self.blocked.get(id).is_some_and(|blocked| blocked.count <= *ends).then_some(*id)
        };
        let unlocked: Vec<JobId> = ends.iter().filter_map(unlocked).collect();
        self.jobs(&unlocked).await?;
        self.builds().await
    }

    /// Loads the jobs that are there and not loaded yet.
    pub(super) async fn jobs(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        let mut seen = HashSet::new();
        let missing = |id: &&JobId| !self.set.jobs.contains_key(id) && seen.insert(**id);
        let missing: Vec<JobId> = ids.iter().filter(missing).copied().collect();
        if missing.iter().any(|id| self.blocked.get(id).is_some_and(|blocked| blocked.changed)) {
            self.save_blocked().await?;
        }
        for ids in missing.chunks(IDS_MAX) {
            let mut select = with_ids(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE j.id IN "), ids);
            for row in select.build().fetch_all(&mut *self.connection).await? {
                self.adopt(&row)?;
            }
        }
        missing.iter().for_each(|id| _ = self.blocked.remove(id));
        Ok(())
    }

    /// Loads the first jobs in the queue of a group that may begin, with what they ask for.
    pub(super) async fn first_of(&mut self, group: &str, now: i64, most: i64) -> sqlx::Result<()> {
        let select = format!(
            "SELECT {COLUMNS}, s.body FROM {TABLES} JOIN specs s ON s.digest = j.spec \
             WHERE j.queue = (SELECT id FROM groups WHERE key = $1) AND j.not_before <= $2 \
             ORDER BY j.priority DESC, j.rank DESC, j.id LIMIT $3"
        );
        let select = sqlx::query(sqlx::AssertSqlSafe(select)).bind(group.to_owned()).bind(now).bind(most);
        for row in select.fetch_all(&mut *self.connection).await? {
            if !self.set.jobs.contains_key(&job_id(row.try_get("id")?)?) {
                self.adopt(&row)?;
            }
            self.adopt_spec(&row)?;
        }
        Ok(())
    }

    /// Loads what jobs ask for that are loaded.
    pub(super) async fn specs(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        let select = "SELECT j.id, s.body FROM jobs j JOIN specs s ON s.digest = j.spec WHERE j.id IN ";
        for ids in ids.chunks(IDS_MAX) {
            for row in with_ids(select, ids).build().fetch_all(&mut *self.connection).await? {
                self.adopt_spec(&row)?;
            }
        }
        Ok(())
    }

    fn adopt_spec(&mut self, row: &StoredRow) -> sqlx::Result<()> {
        let id = job_id(row.try_get("id")?)?;
        let Some(entry) = self.set.jobs.get_mut(&id) else { return Ok(()) };
        match from_doc(row.try_get("body")?) {
            Ok(spec) => entry.spec = Some(Arc::new(spec)),
            // One job that cannot be built must not hold up the others.
            Err(error) => _ = self.unreadable.insert(id, error.to_string()),
        }
        Ok(())
    }

    fn adopt(&mut self, row: &StoredRow) -> sqlx::Result<()> {
        let job = super::codec::job(row)?;
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
            forgotten_bytes: 0,
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

    /// Loads what waits for jobs: the edges, and of those that are blocked and not loaded how many others they wait for.
    async fn followers(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        let missing: Vec<JobId> = ids.iter().filter(|id| !self.edges.contains_key(id)).copied().collect();
        for ids in missing.chunks(IDS_MAX) {
            ids.iter().for_each(|id| _ = self.edges.insert(*id, Vec::new()));
            let select = "SELECT w.needs, w.job, b.needs AS blocked_by FROM waits w \
                          LEFT JOIN blocked b ON b.job = w.job WHERE w.needs IN ";
            for row in with_ids(select, ids).build().fetch_all(&mut *self.connection).await? {
                let (need, job) = (job_id(row.try_get("needs")?)?, job_id(row.try_get("job")?)?);
                self.edges.entry(need).or_default().push(job);
                if let Some(count) = super::codec::blocked_by(&row)?
                    && !self.set.jobs.contains_key(&job)
                {
                    self.blocked.entry(job).or_insert(Blocked { count, changed: false });
                }
            }
        }
        Ok(())
    }

    /// Loads what waits for jobs: the edges, and the jobs. Returns those.
    pub(super) async fn dependents(&mut self, ids: &[JobId]) -> sqlx::Result<Vec<JobId>> {
        self.followers(ids).await?;
        let all: HashSet<JobId> = ids.iter().filter_map(|id| self.edges.get(id)).flatten().copied().collect();
        let all: Vec<JobId> = all.into_iter().collect();
        self.jobs(&all).await?;
        ids.iter().for_each(|id| self.join(*id));
        Ok(all)
    }

    /// Puts the loaded jobs that wait for a job into its entry.
    fn join(&mut self, id: JobId) {
        let dependents =
            self.edges.get(&id).into_iter().flatten().filter(|id| self.set.jobs.contains_key(id));
        let dependents: Vec<JobId> = dependents.copied().collect();
        if let Some(entry) = self.set.jobs.get_mut(&id) {
            for dependent in dependents {
                if !entry.dependents.contains(&dependent) {
                    entry.dependents.push(dependent);
                }
            }
        }
    }

    /// Asks again what waits for jobs: that has changed.
    pub(super) fn forget_edges(&mut self) {
        self.edges.clear();
    }

    /// Loads what the success of a job reaches: those that it unlocks, not those behind them.
    pub(super) async fn success(&mut self, id: JobId) -> sqlx::Result<()> {
        self.jobs(&[id]).await?;
        self.followers(&[id]).await?;
        let last = |id: &&JobId| self.blocked.get(id).is_some_and(|blocked| blocked.count <= 1);
        let last: Vec<JobId> = self.edges.get(&id).into_iter().flatten().filter(last).copied().collect();
        self.jobs(&last).await?;
        self.join(id);
        self.builds().await
    }

    /// A job has succeeded: what waits for it and is not loaded waits for one less.
    pub(super) fn succeeded(&mut self, id: JobId) {
        for dependent in self.edges.get(&id).into_iter().flatten() {
            if let Some(blocked) = self.blocked.get_mut(dependent) {
                blocked.count = blocked.count.saturating_sub(1);
                blocked.changed = true;
                self.told.jobs.insert(*dependent);
            }
        }
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
        let builds = self.set.jobs.values().filter_map(|entry| entry.job.build);
        let missing: HashSet<BuildId> = builds.filter(|id| !self.set.builds.contains_key(id)).collect();
        for id in missing {
            self.build(id).await?;
        }
        Ok(())
    }

    /// Loads a build; whether it is there.
    pub(super) async fn build(&mut self, id: BuildId) -> sqlx::Result<bool> {
        if self.set.builds.contains_key(&id) {
            return Ok(true);
        }
        let select = sqlx::query("SELECT doc, facts FROM builds WHERE id = $1").bind(id.as_bytes().to_vec());
        let Some(row) = select.fetch_optional(&mut *self.connection).await? else { return Ok(false) };
        let build = super::codec::build(&row)?;
        self.builds_before.insert(id, build.clone());
        self.set.builds.insert(id, (build, BTreeSet::new()));
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
        self.set.contents.insert((known.content, id));
        self.set.submissions.insert(id, known);
        Ok(())
    }

    /// Loads how many jobs wait, so that the bound on them holds, and the number of the last submission; the database knows
    /// all changes.
    pub(super) async fn room(&mut self) -> sqlx::Result<()> {
        let select = "SELECT waiting, (SELECT coalesce(max(id), 0) FROM submissions) AS last FROM counters";
        let row = sqlx::query(select).fetch_one(&mut *self.connection).await?;
        self.set.submitted = number(row.try_get("last")?);
        let waiting: i64 = row.try_get("waiting")?;
        let loaded = self.set.jobs.values().filter(|entry| waits(entry.job.state)).count();
        let elsewhere = usize::try_from(waiting).unwrap_or(0).saturating_sub(loaded);
        self.set.bounds.pending = self.bounds.pending.saturating_sub(elsewhere);
        Ok(())
    }

    /// The bound of a log, in bytes.
    pub(super) fn log_bound(&self) -> u64 {
        self.bounds.log_bytes
    }
}

/// Whether a job in this state counts towards the bound on waiting jobs.
pub(super) fn waits(state: JobState) -> bool {
    matches!(state, JobState::Blocked | JobState::Pending)
}
