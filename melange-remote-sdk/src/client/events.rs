//! The events of a farm, as they come.

use futures_util::{Stream, StreamExt};

use super::Client;
use super::lines::{Reading, add_parameter};
use crate::api::v1;
use crate::backoff::Backoff;
use crate::error::Result;
use crate::job::{BuildId, Event, JobId, Project};
use crate::limits;

/// The texts of an event are bounded by those of errors.
static EVENTS: Reading<Event> = Reading { what: "the events", line_bytes_max: 1 << 20, read };

/// Which events are asked for; all of the farm when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventFilter {
    /// Only those of this job.
    pub job: Option<JobId>,
    /// Only those of this build and of its jobs.
    pub build: Option<BuildId>,
    /// Only those of this project.
    pub project: Option<Project>,
    /// Only those behind this one; without it the farm's begin now, those of a job or a build with the first.
    pub after: Option<u64>,
}

impl EventFilter {
    /// The events of a job.
    pub fn of_job(job: JobId) -> Self {
        Self { job: Some(job), ..Self::default() }
    }

    /// The events of a build and of its jobs.
    pub fn of_build(build: BuildId) -> Self {
        Self { build: Some(build), ..Self::default() }
    }

    fn path(&self) -> String {
        let mut path = format!("{}?follow=true", v1::EVENTS);
        add_parameter(&mut path, "job", self.job);
        add_parameter(&mut path, "build", self.build);
        add_parameter(&mut path, "project", self.project.as_ref());
        add_parameter(&mut path, "after", self.after);
        path
    }
}

impl Client {
    /// Events as they come, as many at once as come together: until the job or the build has ended that is asked for, or
    /// the server stops.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`]; in the stream `Unavailable` when the connection breaks.
    pub async fn events(
        &self,
        filter: &EventFilter,
    ) -> Result<impl Stream<Item = Result<Vec<Event>>> + Unpin + Send + use<>> {
        let path = filter.path();
        let response = self.answer(|| self.get(&path)).await?;
        Ok(EVENTS.stream(response))
    }

    /// Follows events until the job or the build has ended that is asked for, for ever otherwise. A stream that breaks off
    /// is taken up behind the last event that came, on whichever server answers.
    ///
    /// # Errors
    /// As [`Self::events`], when the server does not answer after several tries; those of `observe`.
    pub async fn follow_events(
        &self,
        mut filter: EventFilter,
        observe: &mut (dyn FnMut(&Event) -> Result<()> + Send),
    ) -> Result<()> {
        let mut failures = 0;
        let mut backoff = Backoff::new(limits::CLIENT_PAUSE, limits::RETRY_PAUSE_MAX);
        loop {
            let error = match self.follow_once(&mut filter, &mut failures, observe).await {
                Ok(true) => return Ok(()),
                // The server stopped.
                Ok(false) => None,
                Err(error) if error.kind().is_retryable() => Some(error),
                Err(error) => return Err(error),
            };
            failures += 1;
            match error {
                Some(error) if failures > limits::CLIENT_TRIES_MAX => return Err(error),
                _ => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    /// Follows one stream to its end; whether no more will come.
    async fn follow_once(
        &self,
        filter: &mut EventFilter,
        failures: &mut u32,
        observe: &mut (dyn FnMut(&Event) -> Result<()> + Send),
    ) -> Result<bool> {
        let mut events = self.events(filter).await?;
        let mut ended = false;
        while let Some(some) = events.next().await {
            *failures = 0;
            for event in some? {
                filter.after = Some(event.seq);
                // A job that was tried again has more to tell.
                ended = event.is_end()
                    && (event.job == filter.job || filter.build.is_some() && event.job.is_none());
                observe(&event)?;
            }
        }
        if ended && filter.job.is_some() != filter.build.is_some() {
            return Ok(true);
        }
        // A stream that told nothing may have nothing left to tell.
        match filter.job {
            Some(job) => Ok(super::wait::is_finished(&self.job(job).await?)),
            None => Ok(false),
        }
    }
}

/// Kinds that a later server knows are left out.
fn read(line: &[u8]) -> Result<Option<Event>> {
    let event = serde_json::from_slice(line);
    Ok(event.inspect_err(|error| tracing::debug!(%error, "an event of an unknown kind")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_and_unknown_ones_are_left_out() {
        let event = |seq: u64, kind: &str| {
            format!(
                "{{\"version\":1,\"seq\":{seq},\"time\":\"1970-01-01T00:00:00Z\",\"project\":\"default\",\"type\":\"{kind}\",\
                 \"data\":{{\"state\":\"running\"}}}}\n"
            )
        };
        let all = [event(1, "build.state"), event(2, "build.painted"), event(3, "build.state")].concat();
        for size in [1, 9, 1_000] {
            let (mut rest, mut numbers) = (Vec::new(), Vec::new());
            for chunk in all.as_bytes().chunks(size) {
                numbers.extend(EVENTS.take(&mut rest, chunk).unwrap().into_iter().map(|event| event.seq));
            }
            assert_eq!(numbers, [1, 3], "{size}");
        }
    }
}
