//! The one task that writes: many calls, one transaction.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};
use tokio::sync::{mpsc, oneshot};

use super::{Hints, unavailable};
use crate::error::{Error, ErrorKind, Result};
use crate::job_store::working_set::Changes;

/// Calls that wait.
const QUEUE_MAX: usize = 1_024;

/// Calls of one transaction.
const BATCH_MAX: usize = 256;

/// What a call came to, once it is on the disk.
struct Done {
    changes: Changes,
    answer: Box<dyn FnOnce(Result<()>) + Send>,
}

/// A call: what it does on the connection.
type Work = Box<
    dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, std::result::Result<Done, Failed>> + Send,
>;

/// A call that the database did not do.
struct Failed {
    error: sqlx::Error,
    answer: Box<dyn FnOnce(Result<()>) + Send>,
}

/// The way to the task.
#[derive(Clone)]
pub(super) struct Writer {
    calls: mpsc::Sender<Work>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the job database is closed")
}

impl Writer {
    /// Starts the task; it ends with the last way to it.
    pub(super) fn start(connection: SqliteConnection, hints: Arc<Hints>) -> Self {
        let (calls, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write(connection, waiting, hints));
        Self { calls }
    }

    /// Waits until everything that was asked before is done.
    pub(super) async fn close(self) {
        let done = self.call(|_| Box::pin(async { Ok((Ok(()), Changes::default())) }));
        // Closed already is as good.
        done.await.unwrap_or_default();
    }

    /// Makes a call: what it does, and what it changed. The answer comes when that is on the disk.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<(Result<T>, Changes)>>
            + Send
            + 'static,
    {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                match work(connection).await {
                    Ok((value, changes)) => {
                        let answer = Box::new(move |committed: Result<()>| {
                            // Whoever asked may be gone.
                            tell.send(committed.and(value)).unwrap_or_default();
                        });
                        Ok(Done { changes, answer })
                    }
                    Err(error) => {
                        let answer = Box::new(move |told: Result<()>| {
                            tell.send(told.and(Err(gone()))).unwrap_or_default();
                        });
                        Err(Failed { error, answer })
                    }
                }
            })
        });
        self.calls.send(work).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn write(mut connection: SqliteConnection, mut waiting: mpsc::Receiver<Work>, hints: Arc<Hints>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut done = Vec::new();
        let result = write_batch(&mut connection, &mut batch, &mut done).await;
        batch.clear();
        match result {
            Ok(()) => {
                done.iter().for_each(|done| hints.tell(&done.changes));
                done.into_iter().for_each(|done| (done.answer)(Ok(())));
            }
            Err(error) => {
                let cause = unavailable(error);
                tracing::error!(error = %cause.chain(), "the job database takes nothing");
                connection.execute("ROLLBACK").await.map(drop).unwrap_or_default();
                let message = cause.chain();
                done.into_iter().for_each(|done| {
                    (done.answer)(Err(Error::new(ErrorKind::Unavailable, message.clone())));
                });
            }
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the job database was not closed");
    }
}

/// Does the calls in one transaction; one that the database does not do is taken back alone.
async fn write_batch(
    connection: &mut SqliteConnection,
    batch: &mut Vec<Work>,
    done: &mut Vec<Done>,
) -> sqlx::Result<()> {
    connection.execute("BEGIN IMMEDIATE").await?;
    for work in batch.drain(..) {
        connection.execute("SAVEPOINT one").await?;
        match work(connection).await {
            Ok(this) => done.push(this),
            Err(failed) => {
                connection.execute("ROLLBACK TO one").await?;
                (failed.answer)(Err(unavailable(failed.error)));
            }
        }
        connection.execute("RELEASE one").await?;
    }
    connection.execute("COMMIT").await.map(drop)
}
