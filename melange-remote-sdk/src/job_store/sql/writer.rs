//! The one task that writes: many calls, one transaction.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{ConnectOptions as _, Connection as _, Executor};
use tokio::sync::{mpsc, oneshot};

use super::dialect::{ConnectOptions, Connection, Teller, begin};
use super::session::{Session, Wanted};
use super::{Changes, DatabaseBounds, Hints, unavailable};
use crate::error::{Error, ErrorKind, Result};

/// Calls that wait.
const QUEUE_MAX: usize = 1_024;

/// Calls of one transaction.
const BATCH_MAX: usize = 256;

/// After a transaction that the database refused, so many calls get one of their own each, so that only the one that it does
/// not take fails.
const ALONE: usize = 2 * BATCH_MAX;

/// How long a transaction may take before its connection is given up.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// Tells whoever asked what a call came to; with an error when it was not committed.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;

/// What a call does; the answer stands whether the database did it or not.
type Work =
    Box<dyn for<'s, 'c> FnOnce(&'s mut Session<'c>) -> BoxFuture<'s, (sqlx::Result<()>, Answer)> + Send>;

/// What a call's changes outlive before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outlives {
    /// This process; the machine too where other servers use the database. What only an attempt of this machine needs ends
    /// with the machine, as the attempt does: its renewals, what it tells, what it prints. Not the claim: the attempt must
    /// count, or a job that takes the machine down does so for ever.
    Process,
    /// The machine.
    Machine,
}

struct Call {
    wanted: Wanted,
    outlives: Outlives,
    work: Work,
}

/// The way to the task.
#[derive(Clone)]
pub(super) struct Writer {
    calls: mpsc::Sender<Call>,
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
        bounds: DatabaseBounds,
        hints: Arc<Hints>,
        teller: Teller,
    ) -> Self {
        let (calls, waiting) = mpsc::channel(QUEUE_MAX);
        let task = Task { line: Line { connection: Some(connection), options }, bounds, hints, teller };
        tokio::spawn(task.run(waiting));
        Self { calls }
    }

    /// Waits until everything that was asked before is done.
    pub(super) async fn close(self) {
        let done = self.call(Wanted::Unknown, Outlives::Machine, |_| Box::pin(async { Ok(Ok(())) }));
        // Closed already is as good.
        done.await.unwrap_or_default();
    }

    /// Makes a call: what it needs, as far as that is known before, what its changes outlive, and what it does. The answer
    /// comes when they do. What fails must not have changed anything.
    pub(super) async fn call<T, F>(&self, wanted: Wanted, outlives: Outlives, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'s, 'c> FnOnce(&'s mut Session<'c>) -> BoxFuture<'s, sqlx::Result<Result<T>>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move |session| {
            Box::pin(async move {
                let (done, value) = match work(session).await {
                    Ok(value) => (Ok(()), value),
                    Err(error) => (Err(error), Err(gone())),
                };
                // Whoever asked may be gone.
                let answer = move |committed: Result<()>| tell.send(committed.and(value)).unwrap_or_default();
                (done, Box::new(answer) as Answer)
            })
        });
        self.calls.send(Call { wanted, outlives, work }).await.map_err(|_| gone())?;
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
    async fn begin(&mut self, outlives: Outlives) -> sqlx::Result<&mut Connection> {
        let begin = begin(outlives);
        if let Some(mut connection) = self.connection.take() {
            match connection.execute(begin).await {
                Ok(_) => return Ok(self.connection.insert(connection)),
                // Nothing was asked on it yet: another connection may do.
                Err(error) => {
                    tracing::warn!(%error, "the connection to the job database broke; it is made anew")
                }
            }
        }
        let mut connection = self.options.connect().await?;
        connection.execute(begin).await?;
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

struct Task {
    line: Line,
    bounds: DatabaseBounds,
    hints: Arc<Hints>,
    teller: Teller,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Call>) {
        let (mut batch, mut alone) = (Vec::new(), 0usize);
        loop {
            let most = if alone > 0 { 1 } else { BATCH_MAX };
            let taken = waiting.recv_many(&mut batch, most).await;
            if taken == 0 {
                break;
            }
            alone = alone.saturating_sub(taken);
            let mut answers = Vec::new();
            match self.transact(std::mem::take(&mut batch), &mut answers).await {
                Ok(changes) => {
                    self.hints.tell(&changes);
                    answers.into_iter().for_each(|answer| answer(Ok(())));
                    self.teller.tell(changes);
                }
                Err(cause) => {
                    let message = cause.chain();
                    tracing::error!(error = %message, calls = taken, "the job database takes nothing");
                    answers.into_iter().for_each(|answer| {
                        answer(Err(Error::new(ErrorKind::Unavailable, message.clone())));
                    });
                    if taken > 1 {
                        alone = ALONE;
                    }
                }
            }
        }
        let Some(connection) = self.line.connection else { return };
        if let Err(error) = connection.close().await {
            tracing::warn!(%error, "the job database was not closed");
        }
    }

    /// Does calls in one transaction: all of them, or none.
    async fn transact(&mut self, calls: Vec<Call>, answers: &mut Vec<Answer>) -> Result<Changes> {
        let written = write(&mut self.line, self.bounds, calls, answers);
        match tokio::time::timeout(TRANSACTION_MAX, written).await {
            Ok(Ok(changes)) => Ok(changes),
            Ok(Err(error)) => {
                self.line.roll_back().await;
                Err(unavailable(error))
            }
            Err(_) => {
                self.line.connection = None;
                let message = format!("the job database took longer than {} s", TRANSACTION_MAX.as_secs());
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }
}

async fn write(
    line: &mut Line,
    bounds: DatabaseBounds,
    calls: Vec<Call>,
    answers: &mut Vec<Answer>,
) -> sqlx::Result<Changes> {
    let outlives = calls.iter().map(|call| call.outlives).max().unwrap_or(Outlives::Machine);
    let connection = line.begin(outlives).await?;
    let mut session = Session::new(connection, bounds);
    // Those that ask the database what they are about come last: it must know what the others changed. Nobody waits for
    // one of them before he asks for another one.
    let (known, unknown): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| !matches!(call.wanted, Wanted::Unknown));
    let (wanted, known): (Vec<Wanted>, Vec<Work>) =
        known.into_iter().map(|call| (call.wanted, call.work)).unzip();
    session.prefetch(&wanted).await?;
    for work in known {
        let (done, answer) = work(&mut session).await;
        answers.push(answer);
        done?;
    }
    for Call { work, .. } in unknown {
        session.flush().await?;
        let (done, answer) = work(&mut session).await;
        answers.push(answer);
        done?;
    }
    session.commit().await
}
