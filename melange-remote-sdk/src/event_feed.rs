//! The newest events of a farm in memory, for the many who follow them: one read of the store serves all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::error::Result;
use crate::job::Event;
use crate::job_store::{EventPage, EventQuery, JobStore, Subject};
use crate::limits;

/// How long what was read counts as new when no hint came.
const FRESH: Duration = limits::SCHEDULER_POLL;

/// The newest events of a store. Clones share them.
#[derive(Debug, Clone)]
pub struct EventFeed {
    job_store: Arc<dyn JobStore>,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Debug)]
struct Recent {
    hint: watch::Receiver<u64>,
    /// In a row, without gaps.
    events: VecDeque<Event>,
    /// All events up to this one were read; none before the first read.
    last: Option<u64>,
    oldest: u64,
    read_at: Instant,
}

impl EventFeed {
    /// The events of a store.
    pub fn new(job_store: Arc<dyn JobStore>) -> Self {
        let hint = job_store.changed(Subject::Events);
        let recent = Recent { hint, events: VecDeque::new(), last: None, oldest: 0, read_at: Instant::now() };
        Self { job_store, recent: Arc::new(Mutex::new(recent)) }
    }

    /// As [`JobReading::events`](crate::job_store::JobReading::events).
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, query: &EventQuery) -> Result<EventPage> {
        let mut recent = self.recent.lock().await;
        recent.refresh(&*self.job_store).await?;
        if let Some(page) = recent.page(query) {
            return Ok(page);
        }
        // What is older than all that is in memory is the business of who asks for it.
        drop(recent);
        self.job_store.events(query).await
    }
}

impl Recent {
    /// Reads what is new, unless nothing can be.
    async fn refresh(&mut self, job_store: &dyn JobStore) -> Result<()> {
        // Marked before the read: what comes during it is read by the next one.
        let has_news = self.hint.has_changed().unwrap_or(true);
        if self.last.is_some() && !has_news && self.read_at.elapsed() < FRESH {
            return Ok(());
        }
        self.hint.mark_unchanged();
        let mut last = match self.last {
            Some(last) => last,
            None => job_store.events(&EventQuery::after(u64::MAX)).await?.last,
        };
        loop {
            let page = job_store.events(&EventQuery::after(last)).await?;
            if page.last < last {
                // Another store, or one that forgot everything.
                self.events.clear();
            }
            let is_full = page.events.len() >= limits::EVENTS_PER_READ_MAX;
            self.events.extend(page.events);
            (last, self.oldest) = (page.last, page.oldest);
            self.last = Some(last);
            let surplus = self.events.len().saturating_sub(limits::EVENTS_FED_MAX);
            self.events.drain(..surplus);
            if !is_full {
                self.read_at = Instant::now();
                return Ok(());
            }
        }
    }

    /// What the query asks for, when all of it is in memory.
    fn page(&self, query: &EventQuery) -> Option<EventPage> {
        let last = self.last?;
        let first = self.events.front().map_or(last.saturating_add(1), |event| event.seq);
        if query.after.saturating_add(1) < first {
            return None;
        }
        Some(EventPage::among(&self.events, query, self.oldest, last))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::conformance::job_store as suite;
    use crate::job_store::forward::{Forward, ForwardJobStore};
    use crate::job_store::memory::MemoryJobStore;

    /// Counts the reads.
    #[derive(Debug)]
    struct Counting(MemoryJobStore, Arc<AtomicUsize>);

    #[async_trait]
    impl ForwardJobStore for Counting {
        fn inner(&self) -> &dyn JobStore {
            &self.0
        }

        async fn events(&self, query: &EventQuery) -> Result<EventPage> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.inner().events(query).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_followers_cost_one_read() {
        let (memory, reads) = (MemoryJobStore::default(), Arc::<AtomicUsize>::default());
        let old = suite::submit(&memory, suite::new_job("package: {}\n")).await;
        let store = Arc::new(Forward(Counting(memory.clone(), Arc::clone(&reads))));
        let feed = EventFeed::new(store);
        assert_eq!(feed.read(&EventQuery::after(1)).await.unwrap().events, []);
        let begun = reads.load(Ordering::Relaxed);
        for number in 2..=5 {
            let job = suite::submit(&memory, suite::new_job("package: {}\n")).await;
            for _ in 0..10 {
                let page = feed.read(&EventQuery::after(number - 1)).await.unwrap();
                assert_eq!((page.events.len(), page.last), (1, number));
                assert_eq!(page.events[0].job, Some(job));
                assert_eq!(feed.read(&EventQuery::after(number - 1).of_job(old)).await.unwrap().events, []);
            }
        }
        assert_eq!(reads.load(Ordering::Relaxed) - begun, 4, "one read for each change");
        // What is older than the feed is there too.
        let page = feed.read(&EventQuery::after(0)).await.unwrap();
        assert_eq!((page.events.len(), page.oldest, page.last), (5, 1, 5));
    }
}
