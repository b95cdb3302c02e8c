//! The bounded way from a builder's events to the job store: it never blocks the builder.
//!
//! Lines that find the queue full are dropped and counted, and the log says how many. Phases and steps have a
//! bound of their own, so that a flood of lines does not push them out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::attempt::step_failure;
use crate::builder::{BuildEvent, BuildSink, Phase, TestStatus};
use crate::job::{JobEvent, JobPhase};
use crate::limits;

/// What the recorder takes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Lines of the log, each with its newline.
    Lines(Bytes),
    /// An event of the job.
    Event(JobEvent),
}

#[derive(Debug)]
enum Waiting {
    Line(String),
    Event(JobEvent),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    lines: usize,
    dropped: u64,
    closed: bool,
    phases: BTreeSet<Phase>,
}

/// The queue; builders see it as their sink.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
    arrived: Notify,
}

impl EventQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the items that are there the reader gets its end; later events are forgotten.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The next item; `None` once the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            {
                let mut state = self.lock();
                if let Some(item) = state.take() {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            // There is one reader, and the permit of `notify_one` waits for it: no wake-up is lost.
            self.arrived.notified().await;
        }
    }

    /// Adds the phases of an outcome that no event told of.
    pub(super) fn complete(&self, timings: &BTreeMap<Phase, Duration>) {
        for (phase, took) in timings {
            if !self.lock().phases.contains(phase) {
                self.emit(BuildEvent::PhaseFinished { phase: *phase, took: *took });
            }
        }
    }

    /// Adds a line of the scheduler's own.
    pub(super) fn line(&self, line: String) {
        self.lock().push_line(line);
        self.arrived.notify_one();
    }
}

impl BuildSink for EventQueue {
    fn emit(&self, event: BuildEvent) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match event {
            BuildEvent::Log { line, .. } => state.push_line(line),
            BuildEvent::PhaseFinished { phase, took } => {
                state.phases.insert(phase);
                state.push_event(phase_event(phase, took));
            }
            BuildEvent::StepStarted { index, total, name } => {
                state.push_line(format!("--- step {} of {total}: {name}", index.saturating_add(1)));
                state.push_event(JobEvent::StepStarted { index, name });
            }
            BuildEvent::StepFinished { index, took, cached } => {
                state.push_event(JobEvent::StepFinished { index, took_ms: millis(took), cached });
            }
            BuildEvent::TestStarted { index, total, subject } => {
                state.push_event(JobEvent::TestStarted { index, package: subject.clone(), log_offset: 0 });
                state.push_line(format!("--- test {} of {total}: {subject}", index.saturating_add(1)));
            }
            BuildEvent::TestFinished { index, report } => {
                let (how, reason, step) = match report.status {
                    TestStatus::Passed => ("passed".to_owned(), None, None),
                    TestStatus::Failed { reason, failure } => {
                        (format!("failed: {reason}"), Some(reason), failure.map(step_failure))
                    }
                };
                state.push_line(format!("--- the test of {} {how}", report.subject));
                let took_ms = millis(report.took);
                state.push_event(JobEvent::TestFinished {
                    index,
                    took_ms,
                    error: reason,
                    step,
                    log_offset: 0,
                });
            }
            BuildEvent::PhaseStarted { .. } => {}
        }
        drop(state);
        self.arrived.notify_one();
    }
}

impl State {
    fn push_line(&mut self, mut line: String) {
        if self.lines >= limits::EVENT_QUEUE_MAX {
            self.dropped += 1;
            return;
        }
        if line.len() > limits::LOG_LINE_BYTES_MAX {
            line.truncate(line.floor_char_boundary(limits::LOG_LINE_BYTES_MAX));
            line.push_str(" [cut]");
        }
        self.lines += 1;
        self.waiting.push_back(Waiting::Line(line));
    }

    fn push_event(&mut self, event: JobEvent) {
        // The bound is above the events of any definition; nothing depends on those behind it.
        if self.waiting.len() - self.lines < limits::STEPS_MAX * 2 {
            self.waiting.push_back(Waiting::Event(event));
        }
    }

    /// The next event, or as many lines in a row as one write may have.
    fn take(&mut self) -> Option<Item> {
        let mut text = String::new();
        while text.len() < limits::LOG_WRITE_BYTES {
            match self.waiting.pop_front() {
                Some(Waiting::Line(line)) => {
                    self.lines -= 1;
                    text.push_str(&line);
                    text.push('\n');
                }
                Some(Waiting::Event(event)) if text.is_empty() => return Some(Item::Event(event)),
                Some(event) => {
                    self.waiting.push_front(event);
                    break;
                }
                None if self.dropped > 0 => {
                    text.push_str(&format!("[{} lines are missing: they came too fast]\n", self.dropped));
                    self.dropped = 0;
                }
                None => break,
            }
        }
        (!text.is_empty()).then(|| Item::Lines(Bytes::from(text)))
    }
}

/// The event of a phase's end.
pub(super) fn phase_event(phase: Phase, took: Duration) -> JobEvent {
    JobEvent::PhaseFinished { phase: JobPhase { name: phase.name().to_owned(), took_ms: millis(took) } }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::LogStream;

    fn log(line: &str) -> BuildEvent {
        BuildEvent::Log { stream: LogStream::Stdout, step: None, line: line.to_owned() }
    }

    async fn drain(queue: &EventQueue) -> Vec<Item> {
        queue.close();
        let mut items = Vec::new();
        while let Some(item) = queue.next().await {
            items.push(item);
        }
        items
    }

    #[tokio::test]
    async fn order_is_kept_and_lines_in_a_row_are_one_write() {
        let queue = EventQueue::default();
        queue.emit(log("a"));
        queue.emit(BuildEvent::StepStarted { index: 0, total: 2, name: "make".to_owned() });
        queue.emit(log("b"));
        let items = drain(&queue).await;
        let expected = [
            Item::Lines("a\n--- step 1 of 2: make\n".into()),
            Item::Event(JobEvent::StepStarted { index: 0, name: "make".to_owned() }),
            Item::Lines("b\n".into()),
        ];
        assert_eq!(items, expected);
    }

    #[tokio::test]
    async fn a_flood_loses_lines_and_says_so_but_no_event() {
        let queue = EventQueue::default();
        for _ in 0..limits::EVENT_QUEUE_MAX + 7 {
            queue.emit(log("x"));
        }
        queue.emit(BuildEvent::PhaseFinished { phase: Phase::Steps, took: Duration::from_millis(5) });
        let items = drain(&queue).await;
        assert!(items.contains(&Item::Event(phase_event(Phase::Steps, Duration::from_millis(5)))));
        assert_eq!(items.last(), Some(&Item::Lines("[7 lines are missing: they came too fast]\n".into())));
    }

    #[tokio::test]
    async fn a_long_line_is_cut_between_characters() {
        let queue = EventQueue::default();
        queue.emit(log(&"ä".repeat(limits::LOG_LINE_BYTES_MAX)));
        let Some(Item::Lines(text)) = drain(&queue).await.pop() else { panic!("lines") };
        assert!(text.ends_with(" [cut]\n".as_bytes()) && text.len() < limits::LOG_LINE_BYTES_MAX + 10);
    }
}
