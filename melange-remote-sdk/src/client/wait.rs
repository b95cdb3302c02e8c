//! Waiting for a job: its log as it grows, its steps as they begin, and the finished job at the end.

use std::time::Duration;

use futures_util::StreamExt;

use super::{Client, EventFilter, LogQuery};
use crate::api::v1::{JobView, LogLineView};
use crate::error::Result;
use crate::job::{JobId, LogPosition};
use crate::limits;

/// What a waiting caller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitEvent<'a> {
    /// A piece of the log, whole lines.
    Log(&'a str),
    /// The job as it is now.
    Job(&'a JobView),
}

/// Takes the events of a wait.
pub trait WaitObserver: Send {
    /// Takes one.
    fn observe(&mut self, event: WaitEvent<'_>);
}

impl<F: FnMut(WaitEvent<'_>) + Send> WaitObserver for F {
    fn observe(&mut self, event: WaitEvent<'_>) {
        self(event);
    }
}

pub(super) fn is_finished(job: &JobView) -> bool {
    matches!(job.status.as_str(), "success" | "failed" | "cancelled" | "skipped")
}

impl Client {
    /// Waits until a job has finished. A broken connection is taken up again behind the last line that came, so that no
    /// line is lost or shown twice, whichever server runs the job.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn wait(&self, id: JobId, poll: Duration, observer: &mut dyn WaitObserver) -> Result<JobView> {
        let mut place = LogPosition::default();
        let mut failures = 0;
        loop {
            match self.follow(id, poll, &mut place, observer).await {
                Ok(()) => failures = 0,
                Err(error) if error.kind().is_retryable() && failures < limits::CLIENT_TRIES_MAX => {
                    failures += 1;
                    tracing::debug!(error = %error.chain(), "the log stopped, taking it up again");
                }
                Err(error) => return Err(error),
            }
            let job = self.job(id).await?;
            observer.observe(WaitEvent::Job(&job));
            if is_finished(&job) {
                // Whatever was written between the end of the stream and the end of the job.
                let mut rest = self.log_lines(id, &LogQuery::default().behind(place)).await?;
                while let Some(lines) = rest.next().await {
                    tell(&lines?, &mut place, observer);
                }
                return Ok(job);
            }
            tokio::time::sleep(poll).await;
        }
    }

    async fn follow(
        &self,
        id: JobId,
        poll: Duration,
        place: &mut LogPosition,
        observer: &mut dyn WaitObserver,
    ) -> Result<()> {
        let mut log = self.log_lines(id, &LogQuery::default().behind(*place).following()).await?;
        let mut events = self.events(&EventFilter::of_job(id)).await.ok();
        loop {
            let next_event = async {
                match &mut events {
                    Some(events) => events.next().await,
                    None => std::future::pending().await,
                }
            };
            let has_news = tokio::select! {
                biased;
                lines = log.next() => match lines {
                    Some(lines) => {
                        tell(&lines?, place, observer);
                        false
                    }
                    None => return Ok(()),
                },
                event = next_event => {
                    if !matches!(event, Some(Ok(_))) {
                        // The log tells the end, and a look now and then the rest.
                        events = None;
                    }
                    true
                }
                // Nothing happened for a while.
                () = tokio::time::sleep(poll) => true,
            };
            if has_news {
                let job = self.job(id).await?;
                observer.observe(WaitEvent::Job(&job));
            }
        }
    }
}

/// Hands lines on, and notes the place behind them.
fn tell(lines: &[LogLineView], place: &mut LogPosition, observer: &mut dyn WaitObserver) {
    let Some(last) = lines.last() else { return };
    *place = LogPosition { attempt: last.attempt, line: last.n };
    let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
    observer.observe(WaitEvent::Log(&text));
}
