//! What happened: events of a build, processes of the machine.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use melange_remote_sdk::builder::{BuildEvent, BuildSink};
use rustix::process::Pid;

/// Waiting for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps every event.
#[derive(Default)]
pub(crate) struct Collected {
    events: Mutex<Vec<BuildEvent>>,
    more: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl BuildSink for Collected {
    fn emit(&self, event: BuildEvent) {
        self.events.lock().unwrap().push(event);
        self.more.notify_waiters();
    }

    async fn ready(&self) {}
}

impl Collected {
    pub(crate) fn all(&self) -> Vec<BuildEvent> {
        self.events.lock().unwrap().clone()
    }

    /// All events; times are zero, and the lines of a step stand standard output first, because nothing
    /// orders the two streams.
    pub(crate) fn sorted_lines(&self) -> Vec<BuildEvent> {
        let mut events = self.all();
        // Whether a daemon has an environment already depends on what ran before.
        events.retain(|event| {
            !matches!(event, BuildEvent::PhaseStarted { .. } | BuildEvent::PhaseFinished { .. })
        });
        for event in &mut events {
            if let BuildEvent::StepFinished { took, .. } = event {
                *took = Duration::ZERO;
            }
        }
        let is_log = |event: &BuildEvent| matches!(event, BuildEvent::Log { .. });
        for group in events.chunk_by_mut(|a, b| is_log(a) && is_log(b)) {
            group.sort_by_key(|event| match event {
                BuildEvent::Log { stream, .. } => format!("{stream:?}").replace("Stdout", "A"),
                _ => String::new(),
            });
        }
        events
    }

    /// Waits until a step has written `line`.
    pub(crate) async fn wait_for(&self, line: &str) {
        let seen = async {
            loop {
                let more = self.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if self.text().lines().any(|seen| seen == line) {
                    return;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, seen).await;
        assert!(waited.is_ok(), "no line {line:?} in:\n{}", self.text());
    }

    /// Every line, the engine's too.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for event in self.all() {
            if let BuildEvent::Log { line, .. } = event {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    }

    /// The lines of the step called `name`, or of all of them.
    pub(crate) fn lines_of(&self, name: &str) -> Vec<String> {
        let started = self.all().into_iter().filter_map(|event| match event {
            BuildEvent::StepStarted { index, name: found, .. } if found == name => Some(index),
            _ => None,
        });
        let started: Vec<usize> = started.collect();
        assert!(!started.is_empty(), "no step {name:?} began:\n{}", self.text());
        started.into_iter().flat_map(|index| self.lines(index)).collect()
    }

    /// The lines of one step.
    pub(crate) fn lines(&self, index: usize) -> Vec<String> {
        let lines = self.all().into_iter().filter_map(|event| match event {
            BuildEvent::Log { step, line, .. } if step == Some(index) => Some(line),
            _ => None,
        });
        lines.collect()
    }
}

/// Digits that no other process has in its arguments: a time to sleep.
pub(crate) fn marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("{}{count:02}{nanos:09}", 1_000 + std::process::id() % 9_000)
}

pub(crate) async fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "it did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes of this machine that have `marker` as an argument. The daemon's guests are among them.
pub(crate) fn processes_with(marker: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let id = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        arguments.split(|b| *b == 0).any(|argument| argument == marker.as_bytes()).then_some(id)
    });
    processes.collect()
}
