//! The one task that writes: many calls, one transaction.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{ConnectOptions as _, Connection as _, Executor};
use tokio::sync::{mpsc, oneshot};

use super::dialect::{BEGIN, ConnectOptions, Connection, Teller};
use super::{Hints, unavailable};
use crate::error::{Error, ErrorKind, Result};
use crate::job_store::working_set::Changes;

/// Calls that wait.
const QUEUE_MAX: usize = 1_024;

/// Calls of one transaction.
const BATCH_MAX: usize = 256;

/// How long a transaction may take before its connection is given up.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// What a call came to, once it is on the disk.
struct Done {
    changes: Changes,
    answer: Box<dyn FnOnce(Result<()>) + Send>,
}

/// A call: what it does on the connection.
type Work =
    Box<dyn for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, std::result::Result<Done, Failed>> + Send>;

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
    Error::new(ErrorKind::Unavailable, "the job database was closed, or did not do what it was asked")
}

impl Writer {
    /// Starts the task; it ends with the last way to it.
    pub(super) fn start(
        connection: Connection,
        options: ConnectOptions,
        hints: Arc<Hints>,
        teller: Teller,
    ) -> Self {
        let (calls, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write(Line { connection: Some(connection), options }, waiting, hints, teller));
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
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, sqlx::Result<(Result<T>, Changes)>>
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

/// The connection of the writer, made anew when it broke.
struct Line {
    connection: Option<Connection>,
    options: ConnectOptions,
}

impl Line {
    /// A connection on which a transaction has begun.
    async fn begin(&mut self) -> sqlx::Result<&mut Connection> {
        if let Some(mut connection) = self.connection.take() {
            match connection.execute(BEGIN).await {
                Ok(_) => return Ok(self.connection.insert(connection)),
                // Nothing was asked on it yet: another connection may do.
                Err(error) => {
                    tracing::warn!(%error, "the connection to the job database broke; it is made anew")
                }
            }
        }
        let mut connection = self.options.connect().await?;
        connection.execute(BEGIN).await?;
        Ok(self.connection.insert(connection))
    }

    /// Takes back what was begun.
    async fn roll_back(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.execute("ROLLBACK").await.is_ok()
        {
            self.connection = Some(connection);
        }
    }
}

async fn write(mut line: Line, mut waiting: mpsc::Receiver<Work>, hints: Arc<Hints>, teller: Teller) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut done = Vec::new();
        let written = write_batch(&mut line, &mut batch, &mut done);
        let result = match tokio::time::timeout(TRANSACTION_MAX, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                line.roll_back().await;
                Err(unavailable(error))
            }
            Err(_) => {
                line.connection = None;
                let message = format!("the job database took longer than {} s", TRANSACTION_MAX.as_secs());
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        };
        batch.clear();
        match result {
            Ok(()) => {
                for Done { changes, answer } in done {
                    hints.tell(&changes);
                    answer(Ok(()));
                    teller.tell(changes);
                }
            }
            Err(cause) => {
                let message = cause.chain();
                tracing::error!(error = %message, "the job database takes nothing");
                done.into_iter().for_each(|done| {
                    (done.answer)(Err(Error::new(ErrorKind::Unavailable, message.clone())));
                });
            }
        }
    }
    let Some(connection) = line.connection else { return };
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the job database was not closed");
    }
}

/// Does the calls in one transaction; one that the database does not do is taken back alone.
async fn write_batch(line: &mut Line, batch: &mut Vec<Work>, done: &mut Vec<Done>) -> sqlx::Result<()> {
    let connection = line.begin().await?;
    for work in batch.drain(..) {
        connection.execute("SAVEPOINT one").await?;
        match work(connection).await {
            Ok(this) => done.push(this),
            Err(failed) => {
                let taken_back = connection.execute("ROLLBACK TO one").await;
                (failed.answer)(Err(unavailable(failed.error)));
                taken_back?;
            }
        }
        connection.execute("RELEASE one").await?;
    }
    connection.execute("COMMIT").await.map(drop)
}
