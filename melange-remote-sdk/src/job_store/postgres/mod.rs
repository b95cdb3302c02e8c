//! The store in a PostgreSQL database, which several servers may share.
//!
//! Each server has one task that writes: it takes the calls that wait, applies them in one transaction and answers when
//! that is committed. What a call is about is loaded into a working set, changed by the rules that the store in memory
//! has too, and what changed is written back. A lock of the database lets one such transaction run at a time, so that
//! what servers do to the same jobs comes one after the other, whatever rows it touches. Readers wait for nobody.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::database::{self, DatabaseBounds, unavailable};
use super::hints::Hints;
use super::working_set::{Bounds, Changes, check_leases, no_attempt, no_build, not_found};
use super::{
    Claim, ClaimRequest, Demand, EventPage, EventQuery, ExpireRequest, Fence, Finished, GiveUp, GroupWaiting,
    JobIntake, JobPage, JobProgress, JobQueue, JobReading, ListQuery, LogChunk, Release, Renewal, Selection,
    Subject, Submission, Submitted,
};
use crate::error::{Error, Result};
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
mod notify;
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
    pub(super) use sqlx::postgres::{
        PgConnectOptions as ConnectOptions, PgConnection as Connection, PgRow as StoredRow, Postgres as Db,
    };

    /// The database cleans up by itself.
    pub(super) const AFTER_REMOVALS: Option<&str> = None;

    pub(super) use super::PostgresJobStore as Store;
    pub(super) use super::notify::Teller;

    /// Begins a transaction that will write, when no other server's does. The number is this lock's alone. All of them are
    /// on the disk when they are answered: the database may die alone, and the attempts go on.
    pub(super) fn begin(_: super::writer::Outlives) -> &'static str {
        "BEGIN; SELECT pg_advisory_xact_lock(7810203125437212016)"
    }
}

use dialect::{Db, Store, StoredRow, Teller};
use session::{LogPart, NewRow, Session, Wanted};
use writer::{Outlives, Writer};

/// Connections that read.
const READERS_MAX: u32 = 8;

/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// For how long an idle connection is taken to be there.
const TRUSTED: Duration = Duration::from_secs(1);

/// What the database ends by itself, so that a server that is cut off holds nobody up: statements, and transactions in
/// which nothing is asked; in milliseconds.
const ENDS: [(&str, &str); 2] =
    [("statement_timeout", "30000"), ("idle_in_transaction_session_timeout", "10000")];

/// A [`super::JobStore`] in a PostgreSQL database. Clones share one writer.
#[derive(Debug, Clone)]
pub struct PostgresJobStore {
    writer: Writer,
    readers: PgPool,
    hints: Arc<Hints>,
    /// Hears other servers.
    listener: Arc<AbortOnDropHandle<()>>,
}

impl PostgresJobStore {
    /// Connects to a database, such as `postgres://user:password@host/database`; an older schema is brought to the
    /// present one.
    ///
    /// # Errors
    /// `InvalidRequest` for an address that is none; `Unavailable` when the database does not answer; `Unsupported` when
    /// a newer program wrote it.
    pub async fn open(url: &str, bounds: DatabaseBounds) -> Result<Self> {
        // The address holds a password: no error shows it.
        let options =
            Some(url).filter(|url| url.starts_with("postgres://") || url.starts_with("postgresql://"));
        let options = options.and_then(|url| PgConnectOptions::from_str(url).ok()).ok_or_else(|| {
            let error = Error::invalid("this is not the address of a PostgreSQL database");
            error.hint("it looks like postgres://user:password@host:5432/database")
        })?;
        let options = options.application_name("melange-server").options(ENDS);
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let failed = |error: sqlx::Error| unavailable(error).with("database", &at);
        // A connection that was used a moment ago is not asked whether it is still there.
        let pool = PgPoolOptions::new().max_connections(READERS_MAX).acquire_timeout(CONNECT);
        let pool = pool.test_before_acquire(false).before_acquire(|connection, known| {
            Box::pin(async move {
                if known.idle_for >= TRUSTED {
                    sqlx::Connection::ping(connection).await?;
                }
                Ok(true)
            })
        });
        let readers = pool.connect_with(options.clone()).await.map_err(failed)?;
        let mut connection = sqlx::ConnectOptions::connect(&options).await.map_err(failed)?;
        database::migrator(&schema::VERSIONS)
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| database::migration_error(error, &at))?;
        let hints = Arc::new(Hints::default());
        let name = uuid::Uuid::new_v4().simple().to_string();
        let listener = tokio::spawn(notify::listen(readers.clone(), name.clone(), Arc::clone(&hints)));
        let teller = Teller::start(readers.clone(), name);
        let writer = Writer::start(connection, options, bounds, Arc::clone(&hints), teller);
        Ok(Self { writer, readers, hints, listener: Arc::new(AbortOnDropHandle::new(listener)) })
    }

    /// Ends the writer once it has done what was asked, and closes the connections.
    pub async fn close(self) {
        self.writer.close().await;
        self.listener.abort();
        self.readers.close().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Mutex;

    use super::*;
    use crate::backend::registry::BackendRegistry;
    use crate::conformance::backend_registry as fleet_suite;
    use crate::conformance::job_store as suite;
    use crate::error::ErrorKind;
    use crate::job_store::JobStore;

    /// A database of its own on the server that `MELANGE_TEST_POSTGRES` names, removed at the end.
    struct Database {
        server: String,
        name: String,
        stores: Mutex<Vec<PostgresJobStore>>,
        bounds: DatabaseBounds,
    }

    /// The server for tests; without one they say so, and fail where nothing may be missing.
    fn server() -> Option<String> {
        let server = std::env::var("MELANGE_TEST_POSTGRES").ok().filter(|server| !server.is_empty());
        if server.is_none() {
            assert!(std::env::var_os("CI").is_none(), "MELANGE_TEST_POSTGRES names no server");
            eprintln!("NOT TESTED: MELANGE_TEST_POSTGRES names no server");
        }
        server
    }

    async fn statement(server: &str, statement: String) {
        let options = PgConnectOptions::from_str(server).unwrap();
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
    }

    impl Database {
        async fn new(server: &str, bounds: DatabaseBounds) -> Self {
            let name = format!("melange_{}", uuid::Uuid::new_v4().simple());
            statement(server, format!("CREATE DATABASE {name}")).await;
            Self { server: server.to_owned(), name, stores: Mutex::default(), bounds }
        }

        fn url(&self) -> String {
            let (before, options) = match self.server.split_once('?') {
                Some((before, options)) => (before, format!("?{options}")),
                None => (self.server.as_str(), String::new()),
            };
            let base = before.rsplit_once('/').map_or(before, |(base, _)| base);
            format!("{base}/{}{options}", self.name)
        }

        /// One more server's store.
        async fn open(&self) -> PostgresJobStore {
            let store = PostgresJobStore::open(&self.url(), self.bounds).await.unwrap();
            self.stores.lock().await.push(store.clone());
            store
        }

        async fn close(&self) {
            for store in self.stores.lock().await.drain(..) {
                store.close().await;
            }
        }

        async fn remove(self) {
            self.close().await;
            statement(&self.server, format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        }
    }

    #[async_trait]
    impl suite::StoreUnderTest for Database {
        async fn handle(&self) -> Arc<dyn JobStore> {
            Arc::new(self.open().await)
        }

        async fn reopen(&self) -> Arc<dyn JobStore> {
            self.close().await;
            Arc::new(self.open().await)
        }
    }

    #[async_trait]
    impl fleet_suite::RegistryUnderTest for Database {
        async fn handle(&self) -> Arc<dyn BackendRegistry> {
            Arc::new(self.open().await)
        }

        async fn reopen(&self) -> Arc<dyn BackendRegistry> {
            self.close().await;
            Arc::new(self.open().await)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_fleet() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        fleet_suite::all(&database).await;
        let (store, other) = (database.open().await, database.open().await);
        suite::jobs_and_fleet_are_of_one_store(&store, &other).await;
        let mut hint = BackendRegistry::fleet_changed(&other);
        hint.mark_unchanged();
        fleet_suite::changes_are_seen(&store, &store).await;
        let told = tokio::time::timeout(Duration::from_secs(20), hint.changed());
        told.await.expect("the other server is told").unwrap();
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        suite::all(&database).await;
        database.remove().await;
        let bounds = DatabaseBounds { pending: 5, ..DatabaseBounds::default() };
        let database = Database::new(&server, bounds).await;
        suite::waiting_jobs_are_bounded(&database.open().await, 5).await;
        database.remove().await;
    }

    #[tokio::test]
    async fn does_the_same_as_memory() {
        let Some(server) = server() else { return };
        for seed in 100..103 {
            let database = Database::new(&server, DatabaseBounds::default()).await;
            beside_memory::do_the_same(&database.open().await, seed, 60).await;
            database.remove().await;
        }
    }

    /// More than a listener says by itself when its connection comes and goes.
    const INSERTED: usize = 5;

    /// Inserts jobs one by one; another server is told of each.
    async fn insert_and_hear(store: &PostgresJobStore, other: &PostgresJobStore) {
        let mut queue = other.changed(Subject::Queue);
        for _ in 0..INSERTED {
            suite::insert(store).await;
            let told = tokio::time::timeout(Duration::from_secs(20), queue.changed());
            told.await.expect("the other server is told").unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_begin_at_once_on_an_empty_database_and_tell_each_other() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        let stores = futures_util::future::join_all((0..4).map(|_| database.open())).await;
        insert_and_hear(&stores[3], &stores[0]).await;
        assert_eq!(stores[0].demand(suite::at(1)).await.unwrap()[0].ready, INSERTED);
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_break_are_made_anew() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        let (store, other) = (database.open().await, database.open().await);
        for _ in 0..3 {
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
                database.name
            );
            statement(&server, end).await;
            insert_and_hear(&store, &other).await;
        }
        assert_eq!(other.list(&ListQuery::newest(100)).await.unwrap().jobs.len(), 3 * INSERTED);
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_filled_database_is_opened_anew() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        suite::filled::fill(&database.open().await).await;
        suite::filled::check_filled(&*suite::StoreUnderTest::reopen(&database).await).await;
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_of_a_newer_program_is_refused_with_what_to_do() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        database.open().await;
        database.close().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (99, 'later', true, '', 0)";
        statement(&database.url(), newer.to_owned()).await;
        let refused = PostgresJobStore::open(&database.url(), database.bounds).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.chain().contains("schema 99"), "{}", refused.chain());
        database.remove().await;
    }

    /// The rules hold on ten thousand jobs, also when several servers apply them at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_kept_is_removed() {
        let Some(server) = server() else { return };
        let database = Database::new(&server, DatabaseBounds::default()).await;
        let farm = crate::retention::tests::filled(Arc::new(database.open().await), 10_000).await;
        crate::retention::tests::keeps_its_rules(&farm).await;
        let other = farm.with_store(Arc::new(database.open().await));
        crate::retention::tests::two_at_once(&farm, &other).await;
        database.remove().await;
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_and_not_shown() {
        for address in ["mysql://user:secret@host/db", "postgres://user:secret@host:port/db"] {
            let refused = PostgresJobStore::open(address, DatabaseBounds::default()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
            assert!(!format!("{refused:?}").contains("secret"));
        }
    }
}
