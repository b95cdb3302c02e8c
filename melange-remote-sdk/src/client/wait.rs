//! Waiting for a job: its log as it grows, its steps as they begin, and the finished job at the end.

use std::time::Duration;

use futures_util::StreamExt;

use super::{Client, LogQuery};
use crate::api::v1::JobView;
use crate::error::Result;
use crate::job::JobId;
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

fn is_finished(job: &JobView) -> bool {
    matches!(job.status.as_str(), "success" | "failed" | "cancelled" | "skipped")
}

impl Client {
    /// Waits until a job has finished. A broken connection is taken up again where it ended, by the offset in
    /// the log, so that no line is lost or shown twice.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn wait(&self, id: JobId, poll: Duration, observer: &mut dyn WaitObserver) -> Result<JobView> {
        let mut offset = 0u64;
        let mut rest: Vec<u8> = Vec::new();
        let mut failures = 0;
        loop {
            match self.follow(id, poll, &mut offset, &mut rest, observer).await {
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
                self.read_rest(id, &mut offset, &mut rest, observer).await?;
                return Ok(job);
            }
            tokio::time::sleep(poll).await;
        }
    }

    async fn follow(
        &self,
        id: JobId,
        poll: Duration,
        offset: &mut u64,
        rest: &mut Vec<u8>,
        observer: &mut dyn WaitObserver,
    ) -> Result<()> {
        let mut log = self.log(id, &LogQuery::default().from_offset(*offset).following()).await?;
        loop {
            match tokio::time::timeout(poll, log.next()).await {
                Ok(Some(chunk)) => take(&chunk?, offset, rest, observer),
                Ok(None) => return Ok(()),
                // Nothing was written for a while: look at the job itself.
                Err(_) => {
                    let job = self.job(id).await?;
                    observer.observe(WaitEvent::Job(&job));
                }
            }
        }
    }

    async fn read_rest(
        &self,
        id: JobId,
        offset: &mut u64,
        rest: &mut Vec<u8>,
        observer: &mut dyn WaitObserver,
    ) -> Result<()> {
        let mut log = self.log(id, &LogQuery::default().from_offset(*offset)).await?;
        while let Some(chunk) = log.next().await {
            take(&chunk?, offset, rest, observer);
        }
        if !rest.is_empty() {
            rest.push(b'\n');
            let text = String::from_utf8_lossy(rest).into_owned();
            rest.clear();
            observer.observe(WaitEvent::Log(&text));
        }
        Ok(())
    }
}

/// Hands whole lines on and keeps the beginning of the last one.
fn take(chunk: &[u8], offset: &mut u64, rest: &mut Vec<u8>, observer: &mut dyn WaitObserver) {
    *offset += chunk.len() as u64;
    rest.extend_from_slice(chunk);
    if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
        let lines: Vec<u8> = rest.drain(..=end).collect();
        observer.observe(WaitEvent::Log(&String::from_utf8_lossy(&lines)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let mut seen = String::new();
        let (mut offset, mut rest) = (0, Vec::new());
        let mut observer = |event: WaitEvent<'_>| {
            if let WaitEvent::Log(text) = event {
                assert!(text.ends_with('\n'));
                seen.push_str(text);
            }
        };
        for chunk in ["on", "e\ntwo\nth", "ree\n", "four"] {
            take(chunk.as_bytes(), &mut offset, &mut rest, &mut observer);
        }
        assert_eq!((seen.as_str(), offset, rest.as_slice()), ("one\ntwo\nthree\n", 18, &b"four"[..]));
    }
}
