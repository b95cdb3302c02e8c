//! The calls that write.

use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;
use sqlx::{QueryBuilder, Row};

use super::codec::{count, from_doc, group_key, ids_of, job_id, micros, number, size, to_doc};
use super::fleet::{LOADS, load};
use super::save::write_attempts;
use super::*;
use crate::job::{BackendLoad, Event, FailureClass, JobError, LogArchive};
use crate::job_store::working_set::{Reason, WorkingSet, check_room, no_attempt, note_archive};
use crate::job_store::{Group, Holding};

impl Store {
    /// Makes a call that asks the database what it is about, and whose changes outlive the machine.
    async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'s, 'c> FnOnce(&'s mut Session<'c>) -> BoxFuture<'s, sqlx::Result<Result<T>>> + Send + 'static,
    {
        self.writer.call(Wanted::Unknown, Outlives::Machine, work).await
    }
}

impl Session<'_> {
    /// Loads what the end of jobs reaches, whatever end it is.
    async fn ends(&mut self, ids: &[JobId]) -> sqlx::Result<()> {
        self.jobs(ids).await?;
        self.reach(ids, JobState::Blocked).await?;
        self.builds().await?;
        // The failure of one may end its build.
        let jobs = ids.iter().filter_map(|id| self.set.jobs.get(id)).map(|entry| &entry.job);
        let ending: HashSet<BuildId> =
            jobs.filter(|job| self.set.ends_build(job)).filter_map(|job| job.build).collect();
        for build in ending {
            let all = self.select(Selection::Build(build)).await?;
            self.reach(&all, JobState::Blocked).await?;
        }
        self.builds().await
    }

    /// Brings a job to its end.
    async fn finish(
        &mut self,
        fence: Fence,
        outcome: &Outcome,
        at: Timestamp,
    ) -> sqlx::Result<Result<Finished>> {
        if !matches!(outcome, Outcome::Succeeded { .. }) {
            self.ends(&[fence.job]).await?;
            return Ok(self.set.finish(fence, outcome, at));
        }
        self.success(fence.job).await?;
        let state = |set: &WorkingSet| set.jobs.get(&fence.job).map(|entry| entry.job.state);
        let before = state(&self.set);
        let told = self.set.finish(fence, outcome, at);
        if before == Some(JobState::Running) && state(&self.set) == Some(JobState::Success) {
            self.succeeded(fence.job);
        }
        Ok(told)
    }

    /// Gives a job back, which reaches no other one unless it shall stop.
    async fn release(
        &mut self,
        fence: Fence,
        release: &Release,
        at: Timestamp,
    ) -> sqlx::Result<Result<Arc<Job>>> {
        self.jobs(&[fence.job]).await?;
        if self.set.jobs.get(&fence.job).is_some_and(|entry| entry.job.cancel_requested) {
            self.ends(&[fence.job]).await?;
        }
        self.builds().await?;
        Ok(self.set.release(fence, release, at))
    }

    async fn renew(
        &mut self,
        server: &ServerId,
        fences: &[Fence],
        until: Timestamp,
    ) -> sqlx::Result<Vec<Renewal>> {
        let ids: Vec<JobId> = fences.iter().map(|fence| fence.job).collect();
        self.jobs(&ids).await?;
        let mut answers = Vec::new();
        for fence in fences {
            let answer = self.set.renew(server, *fence, until);
            if matches!(answer, Renewal::Kept { .. }) {
                self.counters.insert(fence.job);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn submit(
        &mut self,
        submission: &Submission,
        content: [u8; 32],
    ) -> sqlx::Result<Result<Submitted>> {
        if let Some(key) = &submission.key {
            let row = sqlx::query("SELECT id FROM submissions WHERE project = $1 AND key = $2")
                .bind(submission.project.as_str().to_owned())
                .bind(key.clone())
                .fetch_optional(&mut *self.connection)
                .await?;
            if let Some(row) = row {
                self.submission(number(row.try_get("id")?)).await?;
            }
        }
        if submission.joins_since.is_some() {
            let newest = "SELECT id FROM submissions WHERE content = $1 ORDER BY id DESC LIMIT 1";
            let newest =
                sqlx::query(newest).bind(content.to_vec()).fetch_optional(&mut *self.connection).await?;
            if let Some(row) = newest {
                let id = number(row.try_get("id")?);
                self.submission(id).await?;
                let jobs = self.set.submissions.get(&id).map(|known| known.jobs.clone()).unwrap_or_default();
                self.jobs(&jobs).await?;
            }
        }
        let ids: Vec<JobId> = submission.jobs.iter().map(|job| job.id).collect();
        self.jobs(&ids).await?;
        let known: HashSet<u64> = self.set.jobs.values().map(|entry| entry.submission).collect();
        for id in known {
            self.submission(id).await?;
        }
        if let Some(build) = submission.build {
            self.build(build).await?;
        }
        let needs: HashSet<JobId> =
            submission.jobs.iter().flat_map(|job| job.waits_for.iter().copied()).collect();
        self.jobs(&needs.into_iter().collect::<Vec<_>>()).await?;
        let causes: Vec<JobId> = self.set.jobs.values().filter_map(|entry| entry.job.skipped_for).collect();
        self.jobs(&causes).await?;
        self.room().await?;
        let told = match self.set.submit(submission, content) {
            Ok(told) => told,
            Err(error) => return Ok(Err(error)),
        };
        if told.created {
            self.insert(submission, content).await?;
            self.forget_edges();
        }
        Ok(Ok(told))
    }

    async fn retry(&mut self, selection: Selection, at: Timestamp) -> sqlx::Result<Result<usize>> {
        let ids = self.select(selection).await?;
        self.reach(&ids, JobState::Skipped).await?;
        let all: Vec<JobId> = self.set.jobs.keys().copied().collect();
        self.needs(&all).await?;
        self.builds().await?;
        self.room().await?;
        Ok(self.set.retry(selection, at))
    }

    async fn remove(&mut self, id: JobId) -> sqlx::Result<Result<()>> {
        self.jobs(&[id]).await?;
        self.dependents(&[id]).await?;
        // Rows of builds and submissions go with their last job; the set has neither, but for the counts.
        self.builds().await?;
        if let Some(build) = self.set.jobs.get(&id).and_then(|entry| entry.job.build)
            && let Some((_, jobs)) = self.set.builds.get_mut(&build)
        {
            let row = sqlx::query("SELECT id FROM jobs WHERE build = $1 AND id <> $2 LIMIT 1")
                .bind(build.as_bytes().to_vec())
                .bind(id.as_bytes().to_vec())
                .fetch_optional(&mut *self.connection)
                .await?;
            jobs.insert(id);
            jobs.extend(row.map(|row| job_id(row.try_get("id")?)).transpose()?);
        }
        self.forget_edges();
        Ok(self.set.remove(id))
    }

    async fn claim(&mut self, request: &ClaimRequest) -> sqlx::Result<Result<Vec<Claim>>> {
        let token = request.token.as_bytes().to_vec();
        let mut own = Vec::new();
        if request.until > request.now {
            let insert = "INSERT INTO tokens (token, until) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let insert = sqlx::query(insert).bind(token.clone()).bind(micros(request.until));
            if insert.execute(&mut *self.connection).await?.rows_affected() > 0 {
                self.fitting(request).await?;
                self.fail_unreadable(request.now).await?;
            } else {
                let rows = sqlx::query("SELECT id FROM jobs WHERE token = $1 AND state = 2 ORDER BY place")
                    .bind(token)
                    .fetch_all(&mut *self.connection)
                    .await?;
                own = ids_of(&rows)?;
                self.jobs(&own).await?;
                self.specs(&own).await?;
                self.set.claims.insert(request.token, own.clone());
                self.set.tokens.insert(request.token, request.until);
            }
        }
        self.builds().await?;
        let claims = self.set.claim(request);
        // A repeated claim extends leases, which is no event.
        self.set.changes.jobs.extend(own);
        Ok(Ok(claims))
    }

    /// Loads the jobs that the offers may get, and how full the backends are.
    async fn fitting(&mut self, request: &ClaimRequest) -> sqlx::Result<()> {
        let mut running: HashMap<String, BackendLoad> = HashMap::new();
        let mut slots: HashMap<&Group, usize> = HashMap::new();
        for offer in &request.offers {
            running.insert(offer.backend.key(), BackendLoad::default());
            let slots = slots.entry(&offer.group).or_default();
            *slots = slots.saturating_add(offer.slots).min(limits::CLAIMS_PER_ROUND_MAX);
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut select: QueryBuilder<Db> = QueryBuilder::new(LOADS);
        select.push(" AND backend IN (");
        let mut list = select.separated(", ");
        running.keys().for_each(|key| _ = list.push_bind(key.clone()));
        select.push(") GROUP BY backend");
        for row in select.build().fetch_all(&mut *self.connection).await? {
            if let Some(running) = running.get_mut(row.try_get::<&str, _>("backend")?) {
                *running = load(&row)?;
            }
        }
        for (group, slots) in slots {
            self.first_of(&group_key(group)?, micros(request.now), size(slots)).await?;
        }
        // Afterwards: loading running jobs counts them, and not all of them are loaded.
        self.set.running.extend(running);
        Ok(())
    }

    /// Ends the jobs that nobody could build.
    async fn fail_unreadable(&mut self, at: Timestamp) -> sqlx::Result<()> {
        let unreadable = std::mem::take(&mut self.unreadable);
        let ids: Vec<JobId> = unreadable.keys().copied().collect();
        self.ends(&ids).await?;
        for (id, why) in unreadable {
            tracing::error!(job = %id, error = why, "the database holds what is no spec of a job");
            let message = format!("what the job asks for cannot be read any more: {why}");
            let error = JobError::new(FailureClass::Infrastructure, message);
            // Only jobs of the queue are looked at, and the table lets them fail.
            let ended = self.set.end(id, Outcome::Failed { error }, at);
            debug_assert!(ended.is_ok(), "{ended:?}");
        }
        Ok(())
    }

    async fn expire(&mut self, request: ExpireRequest) -> sqlx::Result<Result<Vec<Arc<Job>>>> {
        // A token whose jobs still run is remembered for as long as they do.
        sqlx::query(
            "DELETE FROM tokens WHERE until <= $1 AND NOT EXISTS \
             (SELECT 1 FROM jobs WHERE jobs.token = tokens.token AND jobs.state = 2)",
        )
        .bind(micros(request.now))
        .execute(&mut *self.connection)
        .await?;
        sqlx::query("DELETE FROM events WHERE seq <= (SELECT events FROM counters) - $1")
            .bind(count(limits::EVENTS_KEPT))
            .execute(&mut *self.connection)
            .await?;
        let rows = sqlx::query(
            "SELECT id FROM jobs WHERE state = 2 AND lease_until <= $1 ORDER BY lease_until, id LIMIT $2",
        )
        .bind(micros(request.now))
        .bind(size(request.limit.min(limits::SETTLED_PER_CALL_MAX)))
        .fetch_all(&mut *self.connection)
        .await?;
        let ids = ids_of(&rows)?;
        self.ends(&ids).await?;
        Ok(Ok(self.set.expire(&request)))
    }

    async fn give_up(&mut self, request: &GiveUp) -> sqlx::Result<Result<usize>> {
        let rows = sqlx::query(
            "SELECT id FROM jobs WHERE queue = (SELECT id FROM groups WHERE key = $1) AND ready_at <= $2 \
             ORDER BY priority DESC, rank DESC, id LIMIT $3",
        )
        .bind(group_key(&request.group)?)
        .bind(micros(request.ready_before))
        .bind(size(limits::SETTLED_PER_CALL_MAX))
        .fetch_all(&mut *self.connection)
        .await?;
        let ids = ids_of(&rows)?;
        self.ends(&ids).await?;
        Ok(Ok(self.set.give_up(request)))
    }

    async fn note_waiting(&mut self, waiting: &GroupWaiting, at: Timestamp) -> sqlx::Result<Timestamp> {
        let row = sqlx::query("SELECT id, reason FROM groups WHERE key = $1")
            .bind(group_key(&waiting.group)?)
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(row) = row else { return Ok(at) };
        let (id, stored): (i64, Option<String>) = (row.try_get("id")?, row.try_get("reason")?);
        let known: Option<Reason> = stored.as_deref().map(from_doc).transpose()?;
        let new = known.is_none();
        let mut reason = known.unwrap_or_else(|| Reason::new(waiting, at));
        let changed = reason.note(waiting, at) || new;
        sqlx::query("UPDATE groups SET reason = $1 WHERE id = $2")
            .bind(to_doc(&reason)?)
            .bind(id)
            .execute(&mut *self.connection)
            .await?;
        if changed {
            let rows = sqlx::query("SELECT id FROM jobs WHERE queue = $1 LIMIT $2")
                .bind(id)
                .bind(size(limits::DEMAND_COUNT_MAX))
                .fetch_all(&mut *self.connection)
                .await?;
            for row in rows {
                self.told.jobs.insert(job_id(row.try_get("id")?)?);
            }
        }
        Ok(reason.kind_since)
    }

    async fn append(&mut self, fence: Fence, first: u64, rows: &[ProgressRow]) -> sqlx::Result<Result<u64>> {
        self.jobs(&[fence.job]).await?;
        let new = match self.set.new_rows(fence, first, rows) {
            Ok(new) => new,
            Err(error) => return Ok(Err(error)),
        };
        let Some(entry) = self.set.jobs.get_mut(&fence.job) else { return Ok(Err(not_found(fence.job))) };
        let before = entry.progress;
        entry.progress = before.saturating_add(number(size(new.len())));
        let (told, job) = (entry.progress, Arc::clone(&entry.job));
        if new.is_empty() {
            return Ok(Ok(told));
        }
        self.set.changes.events.extend(new.iter().filter_map(|row| Event::job_progress(&job, row)));
        for (number, row) in (before..).zip(new) {
            self.rows.push(NewRow { fence, number, doc: to_doc(row)? });
        }
        self.counters.insert(fence.job);
        self.told.jobs.insert(fence.job);
        Ok(Ok(told))
    }

    async fn append_log(&mut self, fence: Fence, offset: u64, bytes: &[u8]) -> sqlx::Result<Result<u64>> {
        let (id, bound) = (fence.job, self.log_bound());
        self.jobs(&[id]).await?;
        let Some(entry) = self.set.jobs.get_mut(&id) else { return Ok(Err(not_found(id))) };
        if let Err(error) = entry.check_fence(fence) {
            return Ok(Err(error));
        }
        let length = entry.log_bytes;
        let bytes = match entry.new_bytes(offset, bytes) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        if bytes.is_empty() {
            return Ok(Ok(length));
        }
        if let Err(error) = check_room(bound, length, bytes.len()) {
            return Ok(Err(error));
        }
        entry.log_bytes = length.saturating_add(number(size(bytes.len())));
        let told = entry.log_bytes;
        self.parts.push(LogPart { job: id, start: length, bytes: bytes.to_vec() });
        self.counters.insert(id);
        self.told.logs.insert(id);
        Ok(Ok(told))
    }

    async fn archive_log(
        &mut self,
        id: JobId,
        attempt: u32,
        archive: &LogArchive,
    ) -> sqlx::Result<Result<()>> {
        // Locked, so that nobody writes the attempt's row back without the archive.
        self.jobs(&[id]).await?;
        let Some(entry) = self.set.jobs.get_mut(&id) else { return Ok(Err(not_found(id))) };
        let row = sqlx::query("SELECT doc FROM attempts WHERE job = $1 AND number = $2")
            .bind(id.as_bytes().to_vec())
            .bind(i64::from(attempt))
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(row) = row else { return Ok(Err(no_attempt(id, attempt))) };
        let mut known: JobAttempt = from_doc(row.try_get("doc")?)?;
        let range = match note_archive(id, &mut known, archive) {
            Ok(range) => range,
            Err(error) => return Ok(Err(error)),
        };
        if range.is_empty() {
            return Ok(Ok(()));
        }
        if let Some(loaded) = entry.attempts.iter_mut().find(|loaded| loaded.number == attempt) {
            loaded.log.clone_from(&known.log);
        }
        write_attempts(self.connection, &[(id, attempt, to_doc(&known)?)]).await?;
        sqlx::query("DELETE FROM logs WHERE job = $1 AND start >= $2 AND start < $3")
            .bind(id.as_bytes().to_vec())
            .bind(count(range.start))
            .bind(count(range.end))
            .execute(&mut *self.connection)
            .await?;
        self.count_archive(id, archive.stored_bytes).await?;
        self.told.jobs.insert(id);
        Ok(Ok(()))
    }
}

#[async_trait]
impl JobIntake for Store {
    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        submission.check()?;
        let (submission, content) = (submission.clone(), submission.content());
        self.change(move |session| Box::pin(async move { session.submit(&submission, content).await })).await
    }

    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.change(move |session| {
            Box::pin(async move {
                let ids = session.select(selection).await?;
                session.ends(&ids).await?;
                Ok(session.set.cancel(selection, at))
            })
        })
        .await
    }

    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.change(move |session| Box::pin(async move { session.retry(selection, at).await })).await
    }

    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        self.change(move |session| {
            Box::pin(async move {
                session.select(selection).await?;
                Ok(session.set.set_priority(selection, priority))
            })
        })
        .await
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        self.change(move |session| Box::pin(async move { session.remove(id).await })).await
    }

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.change(move |session| Box::pin(async move { session.note_removed(id, what, at).await })).await
    }
}

#[async_trait]
impl JobQueue for Store {
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        self.read_demand(now).await.map_err(unavailable)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let request = request.clone();
        self.change(move |session| Box::pin(async move { session.claim(&request).await })).await
    }

    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        check_leases(fences)?;
        let (server, fences) = (server.clone(), fences.to_vec());
        let wanted = Wanted::Jobs(fences.iter().map(|fence| fence.job).collect());
        self.writer
            .call(wanted, Outlives::Process, move |session| {
                Box::pin(async move { session.renew(&server, &fences, until).await.map(Ok) })
            })
            .await
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        self.read_cancel_requests(server).await.map_err(unavailable)
    }

    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let release = release.clone();
        self.writer
            .call(Wanted::Jobs(vec![fence.job]), Outlives::Machine, move |session| {
                Box::pin(async move { session.release(fence, &release, at).await })
            })
            .await
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let outcome = outcome.clone();
        let wanted = match outcome {
            Outcome::Succeeded { .. } => Wanted::Success(fence.job),
            _ => Wanted::Jobs(vec![fence.job]),
        };
        self.writer
            .call(wanted, Outlives::Machine, move |session| {
                Box::pin(async move { session.finish(fence, &outcome, at).await })
            })
            .await
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        let request = *request;
        self.change(move |session| Box::pin(async move { session.expire(request).await })).await
    }

    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        let groups = groups.to_vec();
        self.change(move |session| {
            Box::pin(async move {
                let mut since = Vec::new();
                for waiting in &groups {
                    since.push(session.note_waiting(waiting, at).await?);
                }
                Ok(Ok(since))
            })
        })
        .await
    }

    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        let request = request.clone();
        self.change(move |session| Box::pin(async move { session.give_up(&request).await })).await
    }
}

#[async_trait]
impl JobProgress for Store {
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        let rows = rows.to_vec();
        self.writer
            .call(Wanted::Jobs(vec![fence.job]), Outlives::Process, move |session| {
                Box::pin(async move { session.append(fence, first, &rows).await })
            })
            .await
    }

    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.writer
            .call(Wanted::Jobs(vec![fence.job]), Outlives::Process, move |session| {
                Box::pin(async move { session.append_log(fence, offset, &bytes).await })
            })
            .await
    }

    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        let archive = archive.clone();
        self.change(move |session| Box::pin(async move { session.archive_log(id, attempt, &archive).await }))
            .await
    }
}
