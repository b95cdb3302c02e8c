//! What changed, told to the other servers of a database. These are hints: whoever misses one reads the truth at its
//! next look.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{Changes, Hints};
use crate::backoff::Backoff;
use crate::job::JobId;

/// Where servers tell each other.
const CHANNEL: &str = "melange_jobs";

/// Jobs told one by one; with more of them everybody looks at everything. PostgreSQL takes 8,000 bytes, a job 33.
const JOBS_MAX: usize = 200;

/// The pause between two notifications: PostgreSQL makes them one after the other for the whole database.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a listener that lost its connection waits before it tries again, at first and at most.
const LISTEN_AGAIN: Duration = Duration::from_millis(100);
const LISTEN_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Everything changed, or may have.
const ALL: &str = "*";

impl Changes {
    fn subjects(&self) -> usize {
        self.jobs.len() + self.logs.len() + self.forgotten.len()
    }

    fn is_empty(&self) -> bool {
        self.subjects() == 0 && !self.queue && !self.cancellations && !self.backends
    }

    fn extend(&mut self, more: Self) {
        self.jobs.extend(more.jobs);
        self.logs.extend(more.logs);
        self.forgotten.extend(more.forgotten);
        self.queue |= more.queue;
        self.cancellations |= more.cancellations;
        self.backends |= more.backends;
    }
}

/// What is still to be told.
#[derive(Debug, Default)]
struct Untold {
    changes: Mutex<Option<Changes>>,
    more: Notify,
}

/// The way to tell the other servers. Nobody waits for it.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    untold: Arc<Untold>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Teller {
    /// Starts the task that tells, in the name of a server.
    pub(super) fn start(pool: PgPool, server: String) -> Self {
        let untold = Arc::new(Untold::default());
        let task = tokio::spawn(tell(pool, server, Arc::clone(&untold)));
        Self { untold, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Tells what changed, soon.
    pub(super) fn tell(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut untold = self.untold.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match untold.as_mut() {
            // It will be told as everything: more of it changes nothing.
            Some(known) if known.subjects() > JOBS_MAX => {}
            Some(known) => known.extend(changes),
            None => *untold = Some(changes),
        }
        self.untold.more.notify_one();
    }
}

async fn tell(pool: PgPool, server: String, untold: Arc<Untold>) {
    loop {
        untold.more.notified().await;
        let changes = untold.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(changes) = changes else { continue };
        let message = format!("{server} {}", written(&changes));
        let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(message);
        if let Err(error) = notify.execute(&pool).await {
            tracing::debug!(%error, "other servers are not told what changed; they will see it at their next look");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Hears what other servers tell, until it is aborted.
pub(super) async fn listen(pool: PgPool, server: String, hints: Arc<Hints>) {
    let mut backoff = Backoff::new(LISTEN_AGAIN, LISTEN_AGAIN_MAX);
    loop {
        match hear(&pool, &server, &hints).await {
            Ok(()) => backoff = Backoff::new(LISTEN_AGAIN, LISTEN_AGAIN_MAX),
            Err(sqlx::Error::PoolClosed) => return,
            Err(error) => tracing::debug!(%error, "what other servers tell is not heard for now"),
        }
        // Something may have been told meanwhile.
        hints.tell_all();
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Hears what is told until the connection breaks.
async fn hear(pool: &PgPool, server: &str, hints: &Hints) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    hints.tell_all();
    while let Some(told) = listener.try_recv().await? {
        match told.payload().split_once(' ') {
            // It knows already what it told itself.
            Some((by, _)) if by == server => {}
            Some((_, text)) => match read(text) {
                Some(changes) => hints.tell(&changes),
                None => hints.tell_all(),
            },
            None => hints.tell_all(),
        }
    }
    Ok(())
}

/// Changes as servers tell each other: a letter, and the id of a job where one belongs to it.
fn written(changes: &Changes) -> String {
    if changes.subjects() > JOBS_MAX {
        return ALL.to_owned();
    }
    let mut text = String::new();
    if changes.queue {
        text.push('q');
    }
    if changes.cancellations {
        text.push('c');
    }
    if changes.backends {
        text.push('b');
    }
    let mut list = |letter: char, id: &JobId| {
        // Writing to a string does not fail.
        write!(text, "{letter}{}", hex::encode(id.as_bytes())).unwrap_or_default();
    };
    changes.jobs.iter().for_each(|id| list('j', id));
    changes.logs.iter().for_each(|id| list('l', id));
    changes.forgotten.iter().for_each(|id| list('f', id));
    text
}

/// What [`written`] made; none for everything, and for what a server of another version tells.
fn read(text: &str) -> Option<Changes> {
    let mut changes = Changes::default();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = rest.get(letter.len_utf8()..)?;
        match letter {
            'q' => changes.queue = true,
            'c' => changes.cancellations = true,
            'b' => changes.backends = true,
            'j' | 'l' | 'f' => {
                let id = JobId::from_bytes(&hex::decode(rest.get(..32)?).ok()?).ok()?;
                rest = rest.get(32..)?;
                match letter {
                    'j' => _ = changes.jobs.insert(id),
                    'l' => _ = changes.logs.insert(id),
                    _ => changes.forgotten.push(id),
                }
            }
            _ => return None,
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(second: usize) -> JobId {
        JobId::new(jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap())
    }

    #[test]
    fn what_is_told_is_understood() {
        let ids: Vec<JobId> = (1..=3).map(id).collect();
        let changes = Changes {
            jobs: BTreeSet::from([ids[0], ids[1]]),
            logs: BTreeSet::from([ids[1]]),
            forgotten: vec![ids[2]],
            queue: true,
            cancellations: true,
            backends: true,
            events: Vec::new(),
        };
        assert_eq!(read(&written(&changes)), Some(changes));
        assert_eq!(read(&written(&Changes::default())), Some(Changes::default()));
    }

    #[test]
    fn too_much_to_tell_and_what_is_not_understood_are_everything() {
        let many = Changes { jobs: (0..=JOBS_MAX).map(id).collect(), ..Changes::default() };
        assert_eq!(written(&many), ALL);
        let most = Changes { jobs: (0..JOBS_MAX).map(id).collect(), ..Changes::default() };
        assert!(written(&most).len() < 7_900);
        for text in [ALL, "x", "j12", "jzz", "q\u{e9}"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
