//! Events of a farm: what is asked of a store, and a bounded log of them for stores that live in memory.

use std::collections::VecDeque;

use crate::job::{BuildId, Event, JobId, Project};
use crate::limits;

/// Which events are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Only those behind this one.
    pub after: u64,
    /// Only those of this job.
    pub job: Option<JobId>,
    /// Only those of this build and of its jobs.
    pub build: Option<BuildId>,
    /// Only those of this project.
    pub project: Option<Project>,
    /// At most so many, and at most [`limits::EVENTS_PER_READ_MAX`].
    pub limit: usize,
}

impl EventQuery {
    /// All events behind one.
    pub fn after(seq: u64) -> Self {
        Self { after: seq, limit: limits::EVENTS_PER_READ_MAX, ..Self::default() }
    }

    /// Of the same only those of a job.
    #[must_use]
    pub fn of_job(mut self, job: impl Into<Option<JobId>>) -> Self {
        self.job = job.into();
        self
    }

    /// Of the same only those of a build and of its jobs.
    #[must_use]
    pub fn of_build(mut self, build: impl Into<Option<BuildId>>) -> Self {
        self.build = build.into();
        self
    }

    /// Of the same only those of a project.
    #[must_use]
    pub fn in_project(mut self, project: impl Into<Option<Project>>) -> Self {
        self.project = project.into();
        self
    }

    /// Whether it asks for an event.
    pub fn has(&self, event: &Event) -> bool {
        event.seq > self.after
            && self.job.is_none_or(|job| event.job == Some(job))
            && self.build.is_none_or(|build| event.build == Some(build))
            && self.project.as_ref().is_none_or(|project| event.project == *project)
    }
}

/// Events, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// The number of the oldest event that is kept, whatever was asked for; 0 when there was none yet. Of what was before
    /// it nothing is known.
    pub oldest: u64,
    /// All events up to this number were looked at: the next page is asked for behind it.
    pub last: u64,
}

impl EventPage {
    /// Events that were found among those from `oldest` to `last`.
    pub fn new(events: Vec<Event>, oldest: u64, last: u64) -> Self {
        Self { events, oldest, last }
    }

    /// What a query asks for among events in a row, the last of which is `last`.
    pub(crate) fn among(kept: &VecDeque<Event>, query: &EventQuery, oldest: u64, last: u64) -> Self {
        let first = kept.front().map_or(0, |event| event.seq);
        let skipped = query.after.saturating_add(1).saturating_sub(first);
        let limit = query.limit.min(limits::EVENTS_PER_READ_MAX);
        let behind = kept.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        let events: Vec<Event> = behind.filter(|event| query.has(event)).take(limit).cloned().collect();
        let looked_at = events.last().filter(|_| events.len() == limit).map_or(last, |event| event.seq);
        Self { events, oldest, last: looked_at }
    }
}

/// The newest events of a farm, at most [`limits::EVENTS_KEPT_IN_MEMORY`].
#[derive(Debug, Default)]
pub struct EventLog {
    events: VecDeque<Event>,
    last: u64,
}

impl EventLog {
    /// Adds events, which get the next numbers.
    pub fn add(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.last += 1;
            if self.events.len() >= limits::EVENTS_KEPT_IN_MEMORY {
                self.events.pop_front();
            }
            self.events.push_back(Event { seq: self.last, ..event });
        }
    }

    /// As [`JobReading::events`](super::JobReading::events).
    pub fn read(&self, query: &EventQuery) -> EventPage {
        let oldest = self.events.front().map_or(0, |event| event.seq);
        EventPage::among(&self.events, query, oldest, self.last)
    }
}
