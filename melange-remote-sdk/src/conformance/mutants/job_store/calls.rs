//! Submissions, claims and settled leases with a mistake.

use super::*;

impl Mutant {
    pub(super) async fn submit_with_bug(&self, submission: &Submission) -> Result<Submitted> {
        self.notes().waits_for.extend(submission.jobs.iter().map(|job| (job.id, job.waits_for.clone())));
        if submission.key.is_some()
            && submission.check().is_ok()
            && let Some(told) = self.submit_by_key(submission).await
        {
            return told;
        }
        match self.bug {
            Bug::SubmitForgetsIds => {
                let told = self.inner.submit(submission).await?;
                if !told.created && submission.key.is_none() {
                    return Err(refused("the ids are taken"));
                }
                return Ok(told);
            }
            Bug::SubmitOneByOne if submission.jobs.len() > 1 && submission.check().is_ok() => {
                let mut created = false;
                for place in submission.order()? {
                    let jobs = vec![submission.jobs[place].clone()];
                    let one = Submission { jobs, key: None, build: None, ..submission.clone() };
                    created |= self.inner.submit(&one).await?.created;
                    yield_now().await;
                }
                let jobs = submission.jobs.iter().map(|job| job.id).collect();
                return Ok(Submitted { created, jobs, build: submission.build });
            }
            _ => {}
        }
        let told = self.inner.submit(&self.changed(submission).await).await?;
        if let (Bug::RemoveKeepsKey, Some(key)) = (self.bug, &submission.key) {
            self.notes().keys.insert((None, key.clone()), told.clone());
        }
        Ok(told)
    }

    /// The mistakes about keys.
    async fn submit_by_key(&self, submission: &Submission) -> Option<Result<Submitted>> {
        let project = Some(submission.project.clone());
        let key = submission.key.clone().unwrap_or_default();
        Some(match self.bug {
            Bug::SubmitRacesForKey => self.submit_in_two_looks(submission, project).await,
            Bug::SubmitKeysAreGlobal => self.submit_in_two_looks(submission, None).await,
            Bug::SubmitIgnoresContent => {
                let known = self.notes().keys.get(&(project.clone(), key.clone())).cloned();
                if let Some(known) = known
                    && self.inner.get(known.jobs[0]).await.is_ok()
                {
                    return Some(Ok(Submitted { created: false, ..known }));
                }
                let told = self.inner.submit(submission).await;
                if let Ok(told) = &told {
                    self.notes().keys.insert((project, key), told.clone());
                }
                told
            }
            Bug::RemoveKeepsKey if self.notes().reserved.contains(&key) => Err(refused("the key was used")),
            _ => return None,
        })
    }

    /// What the mistake makes of a submission before it is handed in.
    async fn changed(&self, submission: &Submission) -> Submission {
        let mut changed = submission.clone();
        let jobs = &mut changed.jobs;
        match self.bug {
            Bug::SubmitCutsKeys => {
                let bound = limits::IDEMPOTENCY_KEY_BYTES_MAX;
                let cut = |key: String| key.get(..bound).map(str::to_owned).unwrap_or(key);
                changed.key = changed.key.map(cut);
            }
            Bug::SubmitForgetsPriority => jobs.iter_mut().for_each(|job| job.priority = Priority::default()),
            Bug::SubmitForgetsFacts => changed.facts = Arc::default(),
            Bug::SubmitForgetsFailFast => Arc::make_mut(&mut changed.facts).fail_fast = false,
            Bug::SubmitForgetsRank => jobs.iter_mut().for_each(|job| job.rank = 0),
            Bug::SubmitJoinsNothing => changed.joins_since = None,
            Bug::SubmitJoinsAnyAge => {
                changed.joins_since = changed.joins_since.map(|_| Timestamp::MIN);
            }
            Bug::SubmitForgetsProject => changed.project = Project::default(),
            Bug::SubmitForgetsWaits => jobs.iter_mut().for_each(|job| job.waits_for.clear()),
            Bug::SubmitForgetsOneWait => {
                let forget = |job: &mut NewJob| job.waits_for.truncate(job.waits_for.len().max(2) - 1);
                jobs.iter_mut().for_each(forget);
            }
            Bug::SubmitTakesCircles if !submission.jobs.is_empty() && submission.order().is_err() => {
                jobs.iter_mut().for_each(|job| job.waits_for.clear());
            }
            Bug::SubmitTakesStrangers => {
                let inside: HashSet<JobId> = submission.jobs.iter().map(|job| job.id).collect();
                for job in jobs {
                    let mut known = Vec::new();
                    for id in &job.waits_for {
                        let there = self.inner.get(*id).await;
                        if inside.contains(id) || there.is_ok_and(|job| job.project == submission.project) {
                            known.push(*id);
                        }
                    }
                    job.waits_for = known;
                }
            }
            Bug::RestartLosesKeys if self.reopened => {
                changed.key = None;
                jobs.iter_mut().for_each(|job| job.id = JobId::new(submission.at));
            }
            _ => {}
        }
        changed
    }

    async fn submit_in_two_looks(
        &self,
        submission: &Submission,
        project: Option<Project>,
    ) -> Result<Submitted> {
        let key = (project, submission.key.clone().unwrap_or_default());
        let known = self.notes().keys.get(&key).cloned();
        yield_now().await;
        if let Some(known) = known
            && self.inner.get(known.jobs[0]).await.is_ok()
        {
            return self.compare(submission, known).await;
        }
        let told = self.inner.submit(&Submission { key: None, ..submission.clone() }).await?;
        self.notes().keys.insert(key, told.clone());
        Ok(told)
    }

    /// What an earlier submission with the same key made, when the content is the same.
    async fn compare(&self, submission: &Submission, known: Submitted) -> Result<Submitted> {
        let mut same = submission.clone();
        for (job, id) in same.jobs.iter_mut().zip(&known.jobs) {
            job.id = *id;
        }
        same.key = None;
        self.inner.submit(&same).await.map(|_| Submitted { created: false, ..known })
    }

    /// A claim that was never made, of a job that is somebody else's.
    async fn forged(&self, job: &Arc<Job>, request: &ClaimRequest) -> Result<Claim> {
        let fence = Fence { job: job.id, attempt: job.attempt, token: request.token };
        Ok(Claim { job: Arc::clone(job), fence, log_bytes: 0, spec: self.inner.spec(job.id).await? })
    }

    pub(super) async fn in_state(&self, state: JobState) -> Vec<Arc<Job>> {
        let query = ListQuery::newest(limits::PAGE_ITEMS_MAX).in_state(state);
        self.inner.list(&query).await.map(|page| page.jobs).unwrap_or_default()
    }

    pub(super) async fn claim_with_bug(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut changed = request.clone();
        let offers = &mut changed.offers;
        match self.bug {
            Bug::ClaimIgnoresPause => changed.now = changed.now.max(crate::conformance::job_store::at(1_000)),
            Bug::ClaimIgnoresToken => changed.token = ClaimToken::new(),
            Bug::ClaimForgetsTokens => {
                let known = self.notes().claims.values().any(|claim| claim.fence.token == request.token);
                if known && self.inner.claim(request).await?.is_empty() {
                    changed.token = ClaimToken::new();
                }
            }
            Bug::ClaimIgnoresRoom => offers.iter_mut().for_each(|offer| offer.max_jobs = u32::MAX),
            Bug::ClaimIgnoresCapacity => {
                offers.iter_mut().for_each(|offer| offer.capacity = Default::default());
            }
            Bug::ClaimIgnoresMachine => offers.iter_mut().for_each(|offer| offer.backend.machine = None),
            Bug::ClaimCountsOwnJobs => {
                let running = self.in_state(JobState::Running).await;
                for offer in offers {
                    let of_others = |job: &&Arc<Job>| {
                        job.server.as_ref() != Some(&request.server)
                            && job.backend.as_ref() == Some(&offer.backend)
                    };
                    let others = running.iter().filter(of_others).count();
                    offer.max_jobs += u32::try_from(others).unwrap_or(0);
                }
            }
            Bug::ClaimSettles => {
                let limit = limits::SETTLED_PER_CALL_MAX;
                let ended = ExpireRequest { now: request.now, patience: Patience::ENDLESS, limit };
                self.inner.expire(&ended).await?;
            }
            Bug::ClaimMixesSpecs => {
                let mut claims = self.inner.claim(request).await?;
                if let Some((first, others)) = claims.split_first_mut() {
                    others.iter_mut().for_each(|other| other.spec = Arc::clone(&first.spec));
                }
                return Ok(claims);
            }
            Bug::ClaimsOneByOne => return self.claim_one_by_one(request).await,
            Bug::ClaimIgnoresBound => return self.claim_without_bound(request).await,
            Bug::ClaimRaces => return self.claim_in_two_looks(request).await,
            Bug::ClaimAgain => {
                let mut claims = self.inner.claim(request).await?;
                if claims.is_empty() {
                    let running = self.in_state(JobState::Running).await;
                    if let Some(again) = running.iter().find(|job| is_offered(job, request)) {
                        claims.push(self.forged(again, request).await?);
                    }
                }
                return Ok(claims);
            }
            _ => {}
        }
        self.inner.claim(&changed).await
    }

    pub(super) async fn expire_with_bug(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        let mut request = *request;
        match self.bug {
            Bug::ExpireNever => return Ok(Vec::new()),
            Bug::ExpireIgnoresTime => request.now = Timestamp::MAX,
            Bug::ExpireIgnoresAttempts => request.patience = Patience::ENDLESS,
            Bug::ExpireIgnoresPatience => request.patience.time = Duration::ZERO,
            _ => {}
        }
        let mut settled = self.inner.expire(&request).await?;
        match self.bug {
            Bug::ExpireTellsNothing => settled.clear(),
            Bug::ExpireIgnoresBound => loop {
                let more = self.inner.expire(&request).await?;
                if more.is_empty() {
                    break;
                }
                settled.extend(more);
            },
            Bug::ExpireRevivesCancelled => {
                for job in settled.iter().filter(|job| job.state == JobState::Cancelled) {
                    self.inner.retry(Selection::Job(job.id), request.now).await?;
                }
            }
            _ => {}
        }
        Ok(settled)
    }

    async fn claim_one_by_one(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for offer in &request.offers {
            for _ in 0..offer.slots.min(limits::CLAIMS_PER_ROUND_MAX) {
                let offers = vec![Offer { slots: 1, ..offer.clone() }];
                let one = ClaimRequest { token: ClaimToken::new(), offers, ..request.clone() };
                let claimed = self.inner.claim(&one).await?;
                if claimed.is_empty() {
                    break;
                }
                claims.extend(claimed);
                yield_now().await;
            }
        }
        Ok(claims)
    }

    async fn claim_without_bound(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut claims = self.inner.claim(request).await?;
        let slots = request.offers.iter().fold(0usize, |sum, offer| sum.saturating_add(offer.slots));
        while claims.len() >= limits::CLAIMS_PER_ROUND_MAX && claims.len() < slots {
            let more = ClaimRequest { token: ClaimToken::new(), ..request.clone() };
            let more = self.inner.claim(&more).await?;
            if more.is_empty() {
                break;
            }
            claims.extend(more);
        }
        Ok(claims)
    }

    async fn claim_in_two_looks(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let before = self.in_state(JobState::Pending).await;
        yield_now().await;
        let mut claims = self.inner.claim(request).await?;
        for job in before.iter().filter(|job| is_offered(job, request)) {
            let now = self.inner.get(job.id).await?;
            let ours = claims.iter().any(|claim| claim.job.id == job.id);
            if now.state == JobState::Running && !ours {
                claims.push(self.forged(&now, request).await?);
            }
        }
        Ok(claims)
    }
}

/// Whether slots are offered to the job's group.
fn is_offered(job: &Job, request: &ClaimRequest) -> bool {
    request.offers.iter().any(|offer| offer.group == Group::of(job))
}
