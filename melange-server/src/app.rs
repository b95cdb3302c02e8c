//! What the handlers share.

use std::sync::{Arc, OnceLock};

use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend_selector::BackendSelector;
use melange_remote_sdk::builds::{BuildIndexes, BuildPlanner};
use melange_remote_sdk::clock::Clock;
use melange_remote_sdk::event_feed::EventFeed;
use melange_remote_sdk::git::GitFetcher;
use melange_remote_sdk::job_log::JobLogs;
use melange_remote_sdk::job_store::JobStore;
use melange_remote_sdk::limits;
use melange_remote_sdk::publishing::PublishedRepository;
use melange_remote_sdk::scheduler::{Fleet, LastRound, Scheduler};
use melange_remote_sdk::sources::SourceFolders;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::ends::ExpectedEnds;
use crate::rate::SubmitRate;
use crate::readiness::Readiness;
use crate::submission::SubmissionRules;
use crate::waiting::RecentHistory;
use crate::waiting::queue::RecentQueue;

/// The parts of the service that requests reach. Clones share them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct App {
    /// Where jobs live.
    pub job_store: Arc<dyn JobStore>,
    /// Where artifacts lie.
    pub artifact_storage: Arc<dyn ArtifactStorage>,
    /// Who says whether a job could run at all.
    pub backend_selector: Arc<dyn BackendSelector>,
    /// The fleet, as this server sees and changes it.
    pub fleet: Fleet,
    /// The backends of it.
    pub pool: BackendPool,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// What submissions must keep to.
    pub rules: Arc<SubmissionRules>,
    /// Cancelled when the server stops: no submissions any more, and streams end.
    pub stopping: CancellationToken,
    /// Why the server cannot go on; the health check fails from then on.
    pub failure: Arc<OnceLock<String>>,
    /// KiB of bodies that may still be read at once.
    pub bodies: Arc<Semaphore>,
    /// Where archives of source files lie while they are taken in.
    pub sources: SourceFolders,
    /// KiB of such archives that may still be taken in at once.
    pub archives: Arc<Semaphore>,
    /// The logs of the jobs.
    pub logs: JobLogs,
    /// The events of the farm.
    pub events: EventFeed,
    /// How long jobs took of late.
    pub history: Arc<RecentHistory>,
    /// When builds are expected to end, as it was told last.
    pub ends: Arc<ExpectedEnds>,
    /// What was told of the queue last.
    pub queue: Arc<RecentQueue>,
    /// Followers of logs that there is still room for.
    pub followers: Arc<Semaphore>,
    /// Searches in logs that there is still room for.
    pub searches: Arc<Semaphore>,
    /// How many submissions may still be taken now.
    pub submit_rate: Arc<SubmitRate>,
    /// When the scheduler last looked at the queue.
    pub last_round: LastRound,
    /// What plans builds of many packages; `None` where nothing does.
    pub planner: Option<BuildPlanner>,
    /// What lists what builds have made, for apk; `None` where nothing does.
    pub indexes: Option<BuildIndexes>,
    /// What jobs have made, for apk; `None` where nothing is published.
    pub published: Option<PublishedRepository>,
    /// What reads git repositories; `None` where nothing does.
    pub git: Option<GitFetcher>,
    /// Repositories that may still be read at once.
    pub fetches: Arc<Semaphore>,
    /// Whether the server's parts worked when they were asked last.
    pub readiness: Arc<Readiness>,
}

impl App {
    /// The parts of a scheduler as requests reach them.
    pub fn new(scheduler: &Scheduler, rules: SubmissionRules) -> Self {
        let parts = scheduler.parts();
        Self {
            logs: scheduler.logs().clone(),
            events: EventFeed::new(Arc::clone(&parts.job_store)),
            history: Arc::default(),
            ends: Arc::default(),
            queue: Arc::default(),
            followers: Arc::new(Semaphore::new(limits::LOG_FOLLOWERS_MAX)),
            searches: Arc::new(Semaphore::new(limits::LOG_SEARCHES_MAX)),
            job_store: Arc::clone(&parts.job_store),
            artifact_storage: Arc::clone(&parts.artifact_storage),
            backend_selector: Arc::clone(&parts.backend_selector),
            fleet: scheduler.fleet().clone(),
            pool: parts.pool.clone(),
            clock: Arc::clone(&parts.clock),
            submit_rate: Arc::new(SubmitRate::new(rules.submit_rate)),
            last_round: parts.last_round.clone(),
            planner: None,
            indexes: None,
            published: None,
            git: None,
            fetches: Arc::new(Semaphore::new(limits::GIT_FETCHES_MAX)),
            readiness: Arc::default(),
            rules: Arc::new(rules),
            stopping: CancellationToken::new(),
            failure: Arc::default(),
            sources: parts.sources.clone(),
            archives: Arc::new(Semaphore::new(archives_kib())),
            bodies: Arc::new(Semaphore::new(limits::REQUEST_BODIES_BYTES_MAX >> 10)),
        }
    }
}

/// The room for archives of source files.
fn archives_kib() -> usize {
    usize::try_from(limits::SOURCE_ARCHIVES_BYTES_MAX >> 10).unwrap_or(Semaphore::MAX_PERMITS)
}
