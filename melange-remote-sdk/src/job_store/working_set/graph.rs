//! Jobs that wait for jobs: handing in, ends and what follows from them, cancelling and retrying.

use super::*;

impl WorkingSet {
    /// As [`JobIntake::submit`](crate::job_store::JobIntake::submit), of a submission that passed
    /// [`Submission::check`] and has this [`Submission::content`].
    ///
    /// # Errors
    /// As there.
    pub fn submit(&mut self, submission: &Submission, content: [u8; 32]) -> Result<Submitted> {
        if let Some(known) = self.known(submission, content)? {
            return Ok(known);
        }
        let order = submission.order()?;
        let places: HashSet<JobId> = submission.jobs.iter().map(|job| job.id).collect();
        let mut needs = HashSet::new();
        for job in &submission.jobs {
            for id in job.waits_for.iter().filter(|id| !places.contains(id)) {
                if self.jobs.get(id).is_none_or(|entry| entry.job.project != submission.project) {
                    let error = Error::invalid("the job waits for one that is not there").with("job", job.id);
                    return Err(error.with("waits_for", id));
                }
                needs.insert(*id);
            }
        }
        self.check_waiting(submission.jobs.len())?;
        let size = submission.jobs.iter().map(|job| job.spec.size_bytes()).sum();
        if !self.make_room(size, submission.jobs.len(), &needs) {
            let error = Error::new(ErrorKind::LimitExceeded, "the store has no room for so many more jobs");
            return Err(error.hint("submit again when some jobs have finished"));
        }
        self.submitted += 1;
        let number = self.submitted;
        let jobs: Vec<JobId> = submission.jobs.iter().map(|job| job.id).collect();
        let key = submission.key.clone().map(|key| (submission.project.clone(), key));
        if let Some(key) = &key {
            self.keys.insert(key.clone(), number);
        }
        let (build, left) = (submission.build, jobs.len());
        self.contents.insert((content, number));
        self.submissions.insert(number, Known { key, content, jobs: jobs.clone(), build, left });
        if let Some(id) = build {
            let (project, created_at) = (submission.project.clone(), submission.at);
            let (finished_at, counts) = (None, StateCounts::default());
            let facts = Arc::clone(&submission.facts);
            let build = Build { id, project, created_at, finished_at, counts, reused: 0, facts };
            self.builds.insert(id, (build, jobs.iter().copied().collect()));
        }
        for place in order {
            self.insert(&submission.jobs[place], submission, number)?;
        }
        if let Some(first) = jobs.first() {
            self.note_build(*first, None, submission.at);
        }
        Ok(Submitted::new(jobs, build))
    }

    /// What an earlier submission made that has the same key or the same ids, or that this one joins.
    fn known(&self, submission: &Submission, content: [u8; 32]) -> Result<Option<Submitted>> {
        let told = |known: &Known| {
            Ok(Some(Submitted { created: false, jobs: known.jobs.clone(), build: known.build }))
        };
        if let Some(key) = &submission.key {
            let known = self.keys.get(&(submission.project.clone(), key.clone()));
            if let Some(known) = known.and_then(|number| self.submissions.get(number)) {
                if known.content == content {
                    return told(known);
                }
                let error =
                    Error::new(ErrorKind::Conflict, "the idempotency key was used for another submission");
                return Err(error.hint("use a new key for every new submission"));
            }
        }
        let taken = submission.jobs.iter().find_map(|job| self.jobs.get(&job.id));
        if let Some(entry) = taken {
            let known = self.submissions.get(&entry.submission);
            let same = |known: &&Known| {
                let ids = submission.jobs.iter().map(|job| job.id);
                known.content == content
                    && known.build == submission.build
                    && ids.eq(known.jobs.iter().copied())
            };
            return known.filter(same).map(told).unwrap_or_else(|| {
                Err(conflict(entry.job.id, "the id of the job was used for another submission"))
            });
        }
        if let Some(build) = submission.build.filter(|build| self.builds.contains_key(build)) {
            let error =
                Error::new(ErrorKind::Conflict, "the id of the build was used for another submission");
            return Err(error.with("build", build));
        }
        let joined = submission.joins_since.and_then(|since| self.joinable(content, since));
        joined.map_or(Ok(None), told)
    }

    /// The newest submission of something, when it was made since then and none of its jobs went wrong.
    fn joinable(&self, content: [u8; 32], since: Timestamp) -> Option<&Known> {
        let (_, newest) = self.contents.range((content, 0)..=(content, u64::MAX)).next_back()?;
        let known = self.submissions.get(newest)?;
        let sound = |id: &JobId| {
            self.jobs.get(id).is_some_and(|entry| {
                let job = &entry.job;
                let ended_badly = job.state.is_terminal() && job.state != JobState::Success;
                job.created_at >= since && !ended_badly && !job.cancel_requested
            })
        };
        known.jobs.iter().all(sound).then_some(known)
    }

    /// Adds a job behind those that it waits for.
    fn insert(&mut self, new: &NewJob, submission: &Submission, number: u64) -> Result<()> {
        let mut waits_for = new.waits_for.clone();
        waits_for.sort();
        waits_for.dedup();
        let mut job = Job::new(new.id, &new.spec, submission.at);
        job.project = submission.project.clone();
        job.build = submission.build;
        (job.priority, job.rank) = (new.priority, new.rank);
        let (blocked_by, ended_badly) = self.unmet(&waits_for, &BTreeSet::new());
        job.blocked_by = blocked_by;
        if blocked_by > 0 {
            (job.state, job.ready_at) = (JobState::Blocked, None);
        }
        for id in &waits_for {
            // What has succeeded already holds nobody up, now or later.
            if let Some(entry) = self.jobs.get_mut(id).filter(|entry| entry.job.state != JobState::Success) {
                entry.dependents.push(new.id);
            }
        }
        let job = Arc::new(job);
        let entry = Entry {
            job: Arc::clone(&job),
            spec: Some(Arc::clone(&new.spec)),
            submission: number,
            waits_for,
            dependents: Vec::new(),
            lost_needs: 0,
            finished: 0,
            token: None,
            place: 0,
            lease_until: Timestamp::MIN,
            released: None,
            attempts: Vec::new(),
            progress: 0,
            log_bytes: 0,
            forgotten_bytes: 0,
        };
        self.bytes = self.bytes.saturating_add(entry.size());
        self.jobs.insert(new.id, entry);
        self.changes.jobs.insert(new.id);
        self.enter(&job, submission.at);
        self.changes.events.push(Event::job_state(&job, submission.at));
        if let Some(by) = ended_badly {
            self.skip(new.id, by, submission.at)?;
        }
        Ok(())
    }

    /// How many of the jobs have not succeeded, and the first of them, `again` apart, that never will.
    fn unmet(&self, jobs: &[JobId], again: &BTreeSet<JobId>) -> (u32, Option<JobId>) {
        let (mut unmet, mut ended_badly) = (0, None);
        for id in jobs {
            // A job that was removed since is in nobody's way.
            let Some(entry) = self.jobs.get(id) else { continue };
            let state = entry.job.state;
            unmet += u32::from(state != JobState::Success);
            if state.is_terminal() && state != JobState::Success && !again.contains(id) {
                ended_badly.get_or_insert(*id);
            }
        }
        (unmet, ended_badly)
    }

    /// Skips a blocked job because of one that ended badly.
    fn skip(&mut self, id: JobId, by: JobId, at: Timestamp) -> Result<()> {
        let Some(cause) = self.jobs.get(&by).map(|entry| Arc::clone(&entry.job)) else { return Ok(()) };
        // The first cause, not the last link of the chain.
        let by = cause.skipped_for.unwrap_or(by);
        let first = self.jobs.get(&by).map_or(cause, |entry| Arc::clone(&entry.job));
        let how = match first.state {
            JobState::Cancelled => "was cancelled",
            JobState::Skipped => "was skipped",
            _ => "failed",
        };
        let message = format!("{} {how}, and this job waits for it", first.title());
        let error = JobError::new(FailureClass::Dependency, message);
        self.apply(id, JobEvent::Skipped { by, error }, at).map(drop)
    }

    /// Brings a job to its end, with what follows for the jobs that wait for it.
    pub(in crate::job_store) fn end(
        &mut self,
        id: JobId,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<Finished> {
        let is_failure = matches!(outcome, Outcome::Failed { .. });
        let job = self.apply(id, JobEvent::Finished { outcome }, at)?;
        let (unlocked, mut skipped) = self.follow(id, at)?;
        if is_failure {
            skipped += self.stop_build(&job, at)?;
        }
        Ok(Finished { job, unlocked, skipped })
    }

    /// Whether the failure of a job ends its build.
    pub(in crate::job_store) fn ends_build(&self, job: &Job) -> bool {
        job.build.and_then(|id| self.builds.get(&id)).is_some_and(|(build, _)| build.facts.fail_fast)
    }

    /// Skips what has not begun of the build of a job that failed, where the build is to stop then; how many.
    fn stop_build(&mut self, failed: &Job, at: Timestamp) -> Result<usize> {
        if !self.ends_build(failed) {
            return Ok(0);
        }
        let build = failed.build.and_then(|id| self.builds.get(&id));
        let jobs: Vec<JobId> = build.map(|(_, jobs)| jobs.iter().copied().collect()).unwrap_or_default();
        let mut skipped = 0;
        for id in jobs {
            let state = self.jobs.get(&id).map(|entry| entry.job.state);
            if matches!(state, Some(JobState::Blocked | JobState::Pending)) {
                let message = format!("{} failed, and the build stops at the first failure", failed.title());
                let error = JobError::new(FailureClass::Dependency, message);
                self.apply(id, JobEvent::Skipped { by: failed.id, error }, at)?;
                skipped += 1;
                // What waits for it from elsewhere.
                skipped += self.follow(id, at)?.1;
            }
        }
        Ok(skipped)
    }

    /// What the end of a job means for those that wait for it: how many are unlocked, how many skipped.
    fn follow(&mut self, id: JobId, at: Timestamp) -> Result<(usize, usize)> {
        let entry = self.entry_mut(id)?;
        let (mut unlocked, mut skipped) = (0, 0);
        if entry.job.state == JobState::Success {
            let mut dependents = std::mem::take(&mut entry.dependents);
            // Oldest first, so that events have one order however the jobs came into the set.
            dependents.sort();
            for dependent in dependents {
                let Some(entry) = self.jobs.get_mut(&dependent) else { continue };
                if entry.job.state != JobState::Blocked {
                    continue;
                }
                let job = Arc::make_mut(&mut entry.job);
                job.blocked_by = job.blocked_by.saturating_sub(1);
                let unlocks = job.blocked_by == 0;
                self.changes.jobs.insert(dependent);
                if unlocks {
                    self.apply(dependent, JobEvent::Unlocked, at)?;
                    unlocked += 1;
                }
            }
            return Ok((unlocked, skipped));
        }
        let mut reached: BTreeSet<JobId> = entry.dependents.iter().copied().collect();
        while let Some(dependent) = reached.pop_first() {
            let Some(entry) = self.jobs.get(&dependent) else { continue };
            if entry.job.state == JobState::Blocked {
                reached.extend(entry.dependents.iter().copied());
                self.skip(dependent, id, at)?;
                skipped += 1;
            }
        }
        Ok((unlocked, skipped))
    }

    /// As [`JobIntake::cancel`](crate::job_store::JobIntake::cancel).
    ///
    /// # Errors
    /// As there.
    pub fn cancel(&mut self, selection: Selection, at: Timestamp) -> Result<usize> {
        let jobs = self.selected(selection)?;
        if let Selection::Job(id) = selection {
            match self.entry(id)?.job.state {
                JobState::Success => return Err(conflict(id, "the job has succeeded already")),
                JobState::Failed => return Err(conflict(id, "the job has failed already")),
                JobState::Skipped => return Err(conflict(id, "the job was skipped already")),
                _ => {}
            }
        }
        let (mut changed, mut ended) = (0, Vec::new());
        for id in jobs {
            let job = Arc::clone(&self.entry(id)?.job);
            match job.state {
                JobState::Blocked | JobState::Pending => {
                    self.apply(id, JobEvent::Finished { outcome: Outcome::Cancelled }, at)?;
                    ended.push(id);
                    changed += 1;
                }
                JobState::Running if !job.cancel_requested => {
                    self.apply(id, JobEvent::CancelRequested, at)?;
                    self.changes.cancellations = true;
                    changed += 1;
                }
                _ => {}
            }
        }
        // Afterwards, so that jobs of a build are cancelled, and only those outside of it skipped.
        for id in ended {
            self.follow(id, at)?;
        }
        Ok(changed)
    }

    /// As [`JobIntake::retry`](crate::job_store::JobIntake::retry).
    ///
    /// # Errors
    /// As there.
    pub fn retry(&mut self, selection: Selection, at: Timestamp) -> Result<usize> {
        let mut again = BTreeSet::new();
        match selection {
            Selection::Job(id) => match self.entry(id)?.job.state {
                JobState::Blocked | JobState::Pending | JobState::Running => return Ok(0),
                JobState::Success => {
                    let error = conflict(id, "the job has succeeded already");
                    return Err(error.hint("submit its definition again to build it again"));
                }
                JobState::Failed | JobState::Cancelled | JobState::Skipped => _ = again.insert(id),
            },
            Selection::Build(_) => {
                let ended_badly = |id: &JobId| {
                    let state = self.jobs.get(id).map(|entry| entry.job.state);
                    state.is_some_and(|state| state.is_terminal() && state != JobState::Success)
                };
                again.extend(self.selected(selection)?.into_iter().filter(ended_badly));
            }
        }
        self.add_skipped(&mut again);
        self.leave_out_hopeless(&mut again);
        if let Selection::Job(id) = selection
            && !again.contains(&id)
        {
            let error = conflict(id, "a job that it waits for has not succeeded");
            return Err(error.hint("try that one again first"));
        }
        self.check_waiting(again.len())?;
        for id in &again {
            let waits_for = self.entry(*id)?.waits_for.clone();
            let (blocked_by, _) = self.unmet(&waits_for, &again);
            self.apply(*id, JobEvent::Retried { blocked_by }, at)?;
        }
        Ok(again.len())
    }

    /// Adds the jobs that were skipped because of those in the set.
    fn add_skipped(&self, again: &mut BTreeSet<JobId>) {
        let mut reached: Vec<JobId> = again.iter().copied().collect();
        while let Some(id) = reached.pop() {
            let Some(entry) = self.jobs.get(&id) else { continue };
            for dependent in &entry.dependents {
                let skipped =
                    self.jobs.get(dependent).is_some_and(|entry| entry.job.state == JobState::Skipped);
                if skipped && again.insert(*dependent) {
                    reached.push(*dependent);
                }
            }
        }
    }

    /// Takes out the jobs that wait for one that came to a bad end and is not tried again.
    fn leave_out_hopeless(&self, again: &mut BTreeSet<JobId>) {
        let hopeless = |id: &&JobId| {
            let waits =
                |entry: &Entry| entry.lost_needs > 0 || self.unmet(&entry.waits_for, again).1.is_some();
            self.jobs.get(id).is_some_and(waits)
        };
        let mut hopeless: Vec<JobId> = again.iter().filter(hopeless).copied().collect();
        hopeless.iter().for_each(|id| _ = again.remove(id));
        // What waits for one that is left out is left out too.
        while let Some(id) = hopeless.pop() {
            let dependents = self.jobs.get(&id).map(|entry| entry.dependents.as_slice()).unwrap_or_default();
            hopeless.extend(dependents.iter().copied().filter(|dependent| again.remove(dependent)));
        }
    }

    /// As [`JobIntake::set_priority`](crate::job_store::JobIntake::set_priority).
    ///
    /// # Errors
    /// As there.
    pub fn set_priority(&mut self, selection: Selection, priority: Priority) -> Result<usize> {
        let mut changed = 0;
        for id in self.selected(selection)? {
            let job = Arc::clone(&self.entry(id)?.job);
            if job.priority == priority {
                continue;
            }
            let entry = self.entry_mut(id)?;
            let changing = Arc::make_mut(&mut entry.job);
            changing.priority = priority;
            changing.version += 1;
            let now = Arc::clone(&entry.job);
            self.changes.jobs.insert(id);
            if let Some(places) =
                self.queue.get_mut(&Group::of(&job)).filter(|_| job.state == JobState::Pending)
            {
                places.remove(&place(&job));
                places.insert(place(&now));
            }
            changed += 1;
        }
        Ok(changed)
    }
}
