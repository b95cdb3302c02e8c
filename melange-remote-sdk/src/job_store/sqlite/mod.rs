//! The store in a SQLite database: one file beside the server, nothing to set up.
//!
//! One task writes: it takes the calls that wait, applies them in one transaction and answers when that is on the disk,
//! so that many calls cost one sync. What a call is about is loaded into a working set, changed by the rules that the
//! store in memory has too, and what changed is written back. Readers have connections of their own and wait for nobody.
//! A database belongs to one server at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::sync::watch;

use super::database::{self, DatabaseBounds, unavailable};
use super::hints::Hints;
use super::working_set::{Bounds, Changes, check_leases, no_attempt, no_build, not_found};
use super::{
    Claim, ClaimRequest, Demand, EventPage, EventQuery, ExpireRequest, Fence, Finished, GiveUp, GroupWaiting,
    JobIntake, JobPage, JobProgress, JobQueue, JobReading, ListQuery, LogChunk, Release, Renewal, Selection,
    Subject, Submission, Submitted,
};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    Build, BuildId, Job, JobAttempt, JobId, JobSpec, JobState, Outcome, Priority, ProgressRow, ServerId,
};
use crate::limits;

#[cfg(test)]
#[path = "../sql/tests.rs"]
mod beside_memory;
#[path = "../sql/calls.rs"]
mod calls;
#[path = "../sql/codec.rs"]
mod codec;
#[path = "../sql/fleet.rs"]
mod fleet;
#[path = "../sql/queue.rs"]
mod queue;
#[path = "../sql/reading.rs"]
mod reading;
#[path = "../sql/retention.rs"]
mod retention;
#[path = "../sql/save.rs"]
mod save;
mod schema;
#[path = "../sql/session.rs"]
mod session;
#[path = "../sql/writer.rs"]
mod writer;

/// What the files that stores on databases share call the parts of this one.
mod dialect {
    pub(super) use sqlx::sqlite::{
        Sqlite as Db, SqliteConnectOptions as ConnectOptions, SqliteConnection as Connection,
        SqliteRow as StoredRow,
    };

    use super::Changes;
    pub(super) use super::SqliteJobStore as Store;
    use super::writer::Outlives;

    /// Begins a transaction that will write. Without a sync it is in the hands of the system, and on the disk with the
    /// next one that has its own.
    pub(super) fn begin(outlives: Outlives) -> &'static str {
        match outlives {
            Outlives::Process => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            Outlives::Machine => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
        }
    }

    /// Gives room of removed jobs back to the file system, at most so many pages of 4 KiB in each transaction that removed
    /// some. A database that was made before it could keeps the room for later jobs.
    pub(super) const AFTER_REMOVALS: Option<&str> = Some("PRAGMA incremental_vacuum(64)");

    /// There are no other servers to tell.
    pub(super) struct Teller;

    impl Teller {
        pub(super) fn tell(&self, _: Changes) {}
    }
}

use dialect::{Db, Store, StoredRow};
use session::{LogPart, NewRow, Session, Wanted};
use writer::{Outlives, Writer};

/// Connections that read.
const READERS_MAX: u32 = 4;

/// How long a connection waits for a lock.
const BUSY: Duration = Duration::from_secs(10);

/// A [`super::JobStore`] in a SQLite database. Clones share one writer.
#[derive(Debug, Clone)]
pub struct SqliteJobStore {
    writer: Writer,
    readers: SqlitePool,
    hints: Arc<Hints>,
    /// Locked for as long as the database is this server's.
    lock: Arc<File>,
}

impl SqliteJobStore {
    /// Opens a database, and makes it when there is none; an older schema is brought to the present one.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened or written, or is another server's; `Unsupported` when a newer program
    /// wrote it.
    pub async fn open(path: &Path, bounds: DatabaseBounds) -> Result<Self> {
        let lock = Arc::new(own(path)?);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(false);
        let failed = |error: sqlx::Error| {
            let error = unavailable(error).with("database", path.display());
            error.hint("is the folder there, with room on the disk, and may this user write it?")
        };
        // Holds for new databases; one that is there stays as it is, and takes no notice.
        let shrinking = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let mut connection = sqlx::ConnectOptions::connect(&shrinking).await.map_err(failed)?;
        database::migrator(&schema::VERSIONS)
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| database::migration_error(error, path.display()))?;
        let readers = SqlitePoolOptions::new().max_connections(READERS_MAX).min_connections(0);
        let readers = readers.connect_with(options.clone().read_only(true)).await.map_err(failed)?;
        let hints = Arc::new(Hints::default());
        let writer = Writer::start(connection, options, bounds, Arc::clone(&hints), dialect::Teller);
        Ok(Self { writer, readers, hints, lock })
    }

    /// Ends the leases of all running jobs, so that the next [`JobQueue::expire`] settles them: for the start of the only
    /// server that uses the database, when it knows that the one before it is gone with all that it ran.
    ///
    /// # Errors
    /// `Unavailable` when the database cannot be written.
    pub async fn end_leases(&self) -> Result<()> {
        self.writer
            .call(Wanted::Unknown, Outlives::Machine, |session| {
                Box::pin(async move {
                    sqlx::query("UPDATE jobs SET lease_until = 0 WHERE state = $1")
                        .bind(codec::state(JobState::Running))
                        .execute(&mut *session.connection)
                        .await?;
                    Ok(Ok(()))
                })
            })
            .await
    }

    /// Ends the writer once it has done what was asked, and closes the database.
    pub async fn close(self) {
        self.writer.close().await;
        self.readers.close().await;
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the lock of the job database is kept until the end");
        }
    }
}

/// Takes a database for this server.
fn own(path: &Path) -> Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = File::options().create(true).append(true).open(&beside);
    let file = file.map_err(|source| Error::io("open", &beside, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let error = Error::new(ErrorKind::Unavailable, "another server uses this job database");
            Err(error.with("database", path.display()).hint("give each server a --database of its own"))
        }
        Err(TryLockError::Error(source)) => Err(Error::io("lock", &beside, source)),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::sync::Mutex;

    use super::*;
    use crate::arch::Arch;
    use crate::backend::registry::{BackendRegistry, BackendSpec, FleetChange};
    use crate::conformance::backend_registry as fleet_suite;
    use crate::conformance::job_store as suite;
    use crate::job::{BackendPlace, ClaimToken};
    use crate::job_store::{JobStore, Patience};
    use crate::labels::Labels;

    /// One database in a folder of its own.
    struct Database {
        folder: TempDir,
        store: Mutex<Option<SqliteJobStore>>,
        bounds: DatabaseBounds,
    }

    impl Database {
        async fn new(bounds: DatabaseBounds) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteJobStore::open(&folder.path().join("jobs.db"), bounds).await.unwrap();
            Self { folder, store: Mutex::new(Some(store)), bounds }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("jobs.db")
        }

        async fn store(&self) -> SqliteJobStore {
            self.store.lock().await.clone().unwrap()
        }
    }

    #[async_trait]
    impl suite::StoreUnderTest for Database {
        async fn handle(&self) -> Arc<dyn JobStore> {
            Arc::new(self.store().await)
        }

        async fn reopen(&self) -> Arc<dyn JobStore> {
            let mut store = self.store.lock().await;
            store.take().unwrap().close().await;
            let opened = SqliteJobStore::open(&self.path(), self.bounds).await.unwrap();
            *store = Some(opened.clone());
            Arc::new(opened)
        }
    }

    #[async_trait]
    impl fleet_suite::RegistryUnderTest for Database {
        async fn handle(&self) -> Arc<dyn BackendRegistry> {
            Arc::new(self.store().await)
        }

        async fn reopen(&self) -> Arc<dyn BackendRegistry> {
            suite::StoreUnderTest::reopen(self).await;
            Arc::new(self.store().await)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_fleet() {
        let database = Database::new(DatabaseBounds::default()).await;
        fleet_suite::all(&database).await;
        let store = database.store().await;
        suite::jobs_and_fleet_are_of_one_store(&store, &store).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        suite::all(&Database::new(DatabaseBounds::default()).await).await;
        let database = Database::new(DatabaseBounds { pending: 5, ..DatabaseBounds::default() }).await;
        suite::waiting_jobs_are_bounded(&database.store().await, 5).await;
    }

    #[tokio::test]
    async fn does_the_same_as_memory() {
        for seed in 0..3 {
            let database = Database::new(DatabaseBounds::default()).await;
            beside_memory::do_the_same(&database.store().await, seed, 60).await;
        }
    }

    /// What the writer's connection waits for at a commit: 1 is nothing, 2 the disk.
    async fn synchronous(store: &SqliteJobStore, outlives: Outlives) -> i64 {
        let asked = store.writer.call(Wanted::Unknown, outlives, |session| {
            Box::pin(async move {
                let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut *session.connection).await?;
                Ok(Ok(sqlx::Row::try_get::<i64, _>(&row, 0)?))
            })
        });
        asked.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_must_outlive_the_machine_waits_for_the_disk() {
        let database = Database::new(DatabaseBounds::default()).await;
        let store = database.store().await;
        for _ in 0..2 {
            assert_eq!(synchronous(&store, Outlives::Process).await, 1);
            assert_eq!(synchronous(&store, Outlives::Machine).await, 2);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_cannot_be_read_fails_and_holds_up_no_other_one() {
        let database = Database::new(DatabaseBounds::default()).await;
        let store = database.store().await;
        let broken = suite::submit(&store, suite::new_job("package: {name: a}\n")).await;
        let whole = suite::submit(&store, suite::new_job("package: {name: b}\n")).await;
        let spoil = store.writer.call(Wanted::Unknown, Outlives::Machine, move |session| {
            Box::pin(async move {
                let spoil =
                    "UPDATE specs SET body = '{}' WHERE digest = (SELECT spec FROM jobs WHERE id = $1)";
                let spoil = sqlx::query(spoil).bind(broken.as_bytes().to_vec());
                spoil.execute(&mut *session.connection).await?;
                Ok(Ok(()))
            })
        });
        spoil.await.unwrap();
        let mut claimed = Vec::new();
        for _ in 0..2 {
            let request = suite::filled::request(ClaimToken::new(), suite::filled::offer(1), 1);
            claimed.extend(store.claim(&request).await.unwrap().into_iter().map(|claim| claim.job.id));
        }
        assert_eq!(claimed, [whole]);
        let job = store.get(broken).await.unwrap();
        assert_eq!(job.state, JobState::Failed);
        assert!(job.error.as_ref().unwrap().message.starts_with("what the job asks for"), "{job:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_that_cannot_be_read_hides_no_other_one() {
        let (database, server) = (Database::new(DatabaseBounds::default()).await, ServerId::unique());
        let store = database.store().await;
        let add = |name: &str| FleetChange::Add {
            place: BackendPlace { addr: format!("tcp://{name}:1"), machine: None },
            spec: BackendSpec::new(Arch::X86_64, Labels::default(), 1),
        };
        store.change_fleet(&server, &[add("a"), add("b")], suite::START).await.unwrap();
        let spoil = store.writer.call(Wanted::Unknown, Outlives::Machine, move |session| {
            Box::pin(async move {
                let spoil = sqlx::query("UPDATE backends SET doc = '{}' WHERE key = 'tcp://a:1'");
                spoil.execute(&mut *session.connection).await?;
                Ok(Ok(()))
            })
        });
        spoil.await.unwrap();
        let told = [
            store.fleet(&server).await.unwrap(),
            store.change_fleet(&server, &[add("c")], suite::START).await.unwrap(),
        ];
        for (fleet, readable) in told.iter().zip([1, 2]) {
            assert_eq!(fleet.backends.len(), readable);
            assert_eq!(fleet.unreadable.keys().collect::<Vec<_>>(), ["tcp://a:1"]);
        }
        store.change_fleet(&server, &[add("a")], suite::START).await.unwrap();
        let fleet = store.fleet(&server).await.unwrap();
        assert_eq!((fleet.backends.len(), fleet.unreadable.len()), (3, 0), "it was written anew");
    }

    /// The rules hold on ten thousand jobs, and the file is smaller afterwards.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_kept_is_removed_and_the_file_shrinks() {
        let database = Database::new(DatabaseBounds::default()).await;
        let size = || std::fs::metadata(database.path()).unwrap().len();
        let farm = crate::retention::tests::filled(Arc::new(database.store().await), 10_000).await;
        suite::StoreUnderTest::reopen(&database).await;
        let before = size();
        let farm = farm.with_store(Arc::new(database.store().await));
        crate::retention::tests::keeps_its_rules(&farm).await;
        crate::retention::tests::removes_nearly_everything(&farm).await;
        drop(farm);
        suite::StoreUnderTest::reopen(&database).await;
        let after = size();
        println!("the database had {before} bytes, and has {after}");
        assert!(after < before / 3, "{after} of {before} bytes");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_belongs_to_one_server() {
        let database = Database::new(DatabaseBounds::default()).await;
        let second = SqliteJobStore::open(&database.path(), DatabaseBounds::default()).await.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Unavailable);
        database.store.lock().await.take().unwrap().close().await;
        SqliteJobStore::open(&database.path(), DatabaseBounds::default()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leases_end_with_their_server() {
        let database = Database::new(DatabaseBounds::default()).await;
        let store = database.store().await;
        suite::filled::fill(&store).await;
        // The fill's last lease ends later than this.
        let request = ExpireRequest::new(suite::at(20), Patience::ENDLESS);
        assert!(store.expire(&request).await.unwrap().is_empty());
        store.end_leases().await.unwrap();
        assert_eq!(store.expire(&request).await.unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_is_bounded_and_has_room_for_a_last_word() {
        let bounds = DatabaseBounds { log_bytes: 100_000, ..DatabaseBounds::default() };
        suite::logs_are_bounded(&Database::new(bounds).await.store().await, 100_000).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_filled_database_is_opened_anew() {
        let database = Database::new(DatabaseBounds::default()).await;
        suite::filled::fill(&database.store().await).await;
        suite::filled::check_filled(&*suite::StoreUnderTest::reopen(&database).await).await;
    }

    /// What `suite::filled::fill` left behind with the first version of the schema, as `sqlite3 jobs.db .dump` tells it.
    /// A new version adds the file of the one before it.
    #[tokio::test(flavor = "multi_thread")]
    async fn filled_databases_of_all_earlier_versions_are_migrated() {
        for dump in [
            include_str!("filled/version-1.sql"),
            include_str!("filled/version-2.sql"),
            include_str!("filled/version-3.sql"),
            include_str!("filled/version-4.sql"),
            include_str!("filled/version-5.sql"),
            include_str!("filled/version-6.sql"),
            include_str!("filled/version-7.sql"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("jobs.db");
            let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
            sqlx::Executor::execute(&mut connection, dump).await.unwrap();
            sqlx::Connection::close(connection).await.unwrap();
            let store = SqliteJobStore::open(&path, DatabaseBounds::default()).await.unwrap();
            suite::filled::check_filled(&store).await;
            store.close().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_of_a_newer_program_is_refused_with_what_to_do() {
        let database = Database::new(DatabaseBounds::default()).await;
        let path = database.path();
        database.store().await.close().await;
        let mut connection =
            sqlx::ConnectOptions::connect(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (99, 'later', 1, x'00', 0)";
        sqlx::Executor::execute(&mut connection, newer).await.unwrap();
        let refused = SqliteJobStore::open(&path, DatabaseBounds::default()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.chain().contains("schema 99"), "{}", refused.chain());
    }
}
