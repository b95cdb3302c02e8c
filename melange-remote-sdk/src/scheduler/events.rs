//! The bounded way from a builder's events to the job store. Nothing is dropped: a builder that is ahead of the
//! store waits for [`BuildSink::ready`] before it reads more of a step's output.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::builder::{BuildEvent, BuildSink, LogStream, Phase, StepFailure, TestStatus};
use crate::clock::Clock;
use crate::job::{JobPhase, JobStepFailure, Progress, ProgressRow};
use crate::job_log::{Lines, Origin};
use crate::limits;

/// Lines of one write.
const LINES_MAX: u64 = 32_768;

/// What the recorder takes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Lines of the log.
    Lines(Lines),
    /// What the attempt tells, in order.
    Progress(Vec<ProgressRow>),
}

#[derive(Debug)]
enum Waiting {
    Line { text: String, origin: Origin },
    Progress(ProgressRow),
}

/// A step that began and has not ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepAtWork {
    /// Its position, from 0, as lines tell it.
    pub(super) number: u32,
    /// Its name.
    pub(super) name: String,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// How many of the first of them must go out now.
    due: usize,
    lines: usize,
    line_bytes: usize,
    closed: bool,
    step_began: bool,
    running: Option<StepAtWork>,
    /// The step with which a test failed: the first one, for the build fails of it once all tests have run.
    failed: Option<StepAtWork>,
    phases: BTreeSet<Phase>,
    /// The most memory that a guest of the attempt used.
    peak_bytes: Option<u64>,
}

/// The queue; builders see it as their sink.
#[derive(Debug)]
pub(super) struct EventQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    arrived: Notify,
    taken: Notify,
}

impl EventQueue {
    /// An empty queue; the clock tells when events come.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), arrived: Notify::new(), taken: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the items that are there the reader gets its end; later events are forgotten.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
        self.taken.notify_waiters();
    }

    /// The next item; `None` once the queue is closed and empty. What comes shortly after one another comes as one item, so
    /// that a step that prints line by line is not a write for each.
    pub(super) async fn next(&self) -> Option<Item> {
        let mut gathered_at = None;
        loop {
            {
                let mut state = self.lock();
                if gathered_at.is_some_and(|at| at <= Instant::now()) {
                    state.due = state.waiting.len();
                }
                if state.due > 0 || !state.may_gather() {
                    let item = state.take();
                    drop(state);
                    self.taken.notify_waiters();
                    return item;
                }
                if state.closed {
                    return None;
                }
                if !state.waiting.is_empty() {
                    gathered_at.get_or_insert_with(|| Instant::now() + limits::EVENTS_GATHER);
                }
            }
            // There is one reader, and the permit of `notify_one` waits for it: no wake-up is lost.
            let arrived = self.arrived.notified();
            match gathered_at {
                Some(at) => tokio::time::timeout_at(at, arrived).await.unwrap_or_default(),
                None => arrived.await,
            }
        }
    }

    /// Adds the most memory that a guest used, when that is known.
    pub(super) fn tell_memory(&self) {
        let at = self.clock.now();
        let mut state = self.lock();
        if let Some(bytes) = state.peak_bytes {
            state.push_event(Progress::MemoryPeak { bytes }, at);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Adds the phases of an outcome that no event told of.
    pub(super) fn complete(&self, timings: &BTreeMap<Phase, Duration>) {
        for (phase, took) in timings {
            if !self.lock().phases.contains(phase) {
                self.emit(BuildEvent::PhaseFinished { phase: *phase, took: *took });
            }
        }
    }

    /// Whether a step of the guest began.
    pub(super) fn step_began(&self) -> bool {
        self.lock().step_began
    }

    /// The step that runs, or that a build ended in.
    pub(super) fn running(&self) -> Option<StepAtWork> {
        self.lock().running.clone()
    }

    /// The number of the step that failed, or else of the one that runs: its lines may tell of a failure.
    pub(super) fn telling(&self) -> Option<u32> {
        let state = self.lock();
        state.failed.as_ref().or(state.running.as_ref()).map(|step| step.number)
    }

    /// Adds a line of the scheduler's own.
    pub(super) fn line(&self, line: String) {
        let origin = self.own();
        self.lock().push_line(line, origin);
        self.arrived.notify_one();
    }

    /// Notes that the step that runs ended badly.
    pub(super) fn step_failed(&self, exit_code: i32) {
        let at = self.clock.now();
        self.lock().push_event(Progress::StepFailed { exit_code }, at);
        self.arrived.notify_one();
    }

    /// Where lines of the scheduler's own come from.
    fn own(&self) -> Origin {
        Origin::new(self.clock.now(), None, LogStream::Engine)
    }
}

#[async_trait]
impl BuildSink for EventQueue {
    fn emit(&self, event: BuildEvent) {
        let own = self.own();
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match event {
            BuildEvent::Log { stream, step, line } => {
                state.push_line(line, Origin::new(own.at, step.map(number), stream));
            }
            BuildEvent::PhaseFinished { phase, took } => {
                state.phases.insert(phase);
                state.push_event(phase_event(phase, took), own.at);
            }
            BuildEvent::StepStarted { index, total, name } => {
                state.push_line(format!("--- step {} of {total}: {name}", index.saturating_add(1)), own);
                state.step_began = true;
                state.running = Some(StepAtWork { number: number(index), name: name.clone() });
                state.push_event(Progress::StepStarted { index, name }, own.at);
            }
            BuildEvent::StepFinished { index, took, cached } => {
                let took_ms = millis(took);
                state.running.take_if(|step| step.number == number(index));
                state.push_event(Progress::StepFinished { index, took_ms, cached }, own.at);
            }
            BuildEvent::TestStarted { index, total, subject } => {
                let started = Progress::TestStarted { index, package: subject.clone(), lines: 0 };
                state.push_event(started, own.at);
                state.push_line(format!("--- test {} of {total}: {subject}", index.saturating_add(1)), own);
            }
            BuildEvent::TestFinished { index, report } => {
                let running = state.running.take();
                if matches!(report.status, TestStatus::Failed { failure: Some(_), .. }) {
                    state.failed = state.failed.take().or(running);
                }
                let (how, reason, step) = match report.status {
                    TestStatus::Passed => ("passed".to_owned(), None, None),
                    TestStatus::Failed { reason, failure } => {
                        (format!("failed: {reason}"), Some(reason), failure.map(step_failure))
                    }
                };
                state.push_line(format!("--- the test of {} {how}", report.subject), own);
                let took_ms = millis(report.took);
                let finished = Progress::TestFinished { index, took_ms, error: reason, step, lines: 0 };
                state.push_event(finished, own.at);
            }
            BuildEvent::Linted { report } => {
                let (items, bytes) = (limits::LINT_DETAILS_TOLD, limits::LINT_DETAILS_TOLD_BYTES);
                state.push_event(Progress::Linted { report: report.shortened(items, bytes) }, own.at);
            }
            BuildEvent::MemoryPeak { bytes } => state.peak_bytes = state.peak_bytes.max(Some(bytes)),
            BuildEvent::PhaseStarted { .. } => {}
        }
        drop(state);
        self.arrived.notify_one();
    }

    async fn ready(&self) {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            // Registered before the look, so that what is taken in between wakes it.
            taken.as_mut().enable();
            if self.lock().has_room() {
                return;
            }
            taken.await;
        }
    }
}

impl State {
    /// Whether more may come into the same write, and nobody waits for this one.
    fn may_gather(&self) -> bool {
        self.waiting.is_empty()
            || !self.closed && self.line_bytes < limits::LOG_WRITE_BYTES && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.closed || self.lines < limits::EVENT_QUEUE_MAX && self.line_bytes < limits::EVENT_QUEUE_BYTES_MAX
    }

    fn push_line(&mut self, mut text: String, origin: Origin) {
        if text.len() > limits::LOG_LINE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(limits::LOG_LINE_BYTES_MAX));
            text.push_str(" [cut]");
        }
        self.lines += 1;
        self.line_bytes += text.len();
        self.waiting.push_back(Waiting::Line { text, origin });
    }

    fn push_event(&mut self, progress: Progress, at: Timestamp) {
        // The bound is above the events of any definition; nothing depends on those behind it.
        if self.waiting.len() - self.lines < limits::STEPS_MAX * 2 {
            self.waiting.push_back(Waiting::Progress(ProgressRow { at, progress }));
        }
    }

    /// As many events in a row, or as many lines, as one write may have.
    fn take(&mut self) -> Option<Item> {
        let before = self.waiting.len();
        let item = self.take_first();
        self.due = self.due.saturating_sub(before.saturating_sub(self.waiting.len()));
        item
    }

    fn take_first(&mut self) -> Option<Item> {
        let mut lines = Lines::default();
        while lines.text_bytes() < limits::LOG_WRITE_BYTES as u64 && lines.count() < LINES_MAX {
            match self.waiting.pop_front() {
                Some(Waiting::Line { text, origin }) => {
                    self.lines -= 1;
                    self.line_bytes -= text.len();
                    lines.push(origin, &text);
                }
                Some(Waiting::Progress(event)) if lines.is_empty() => {
                    return Some(Item::Progress(self.events(event)));
                }
                Some(other) => {
                    self.waiting.push_front(other);
                    break;
                }
                None => break,
            }
        }
        (!lines.is_empty()).then_some(Item::Lines(lines))
    }

    /// An event and those right behind it.
    fn events(&mut self, first: ProgressRow) -> Vec<ProgressRow> {
        let mut events = vec![first];
        while events.len() < limits::PROGRESS_ROWS_MAX
            && let Some(Waiting::Progress(_)) = self.waiting.front()
            && let Some(Waiting::Progress(event)) = self.waiting.pop_front()
        {
            events.push(event);
        }
        events
    }
}

/// The event of a phase's end.
pub(super) fn phase_event(phase: Phase, took: Duration) -> Progress {
    Progress::PhaseFinished { phase: JobPhase { name: phase.name().to_owned(), took_ms: millis(took) } }
}

/// The position of a step, as lines tell it.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// A failed step as jobs tell it.
pub(super) fn step_failure(failure: StepFailure) -> JobStepFailure {
    JobStepFailure { step: failure.step, exit_code: failure.exit_code, tail: failure.tail }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::SteadyClock;

    fn log(line: &str) -> BuildEvent {
        BuildEvent::Log { stream: LogStream::Stdout, step: None, line: line.to_owned() }
    }

    fn queue() -> EventQueue {
        EventQueue::new(Arc::new(SteadyClock::starting_at(Timestamp::UNIX_EPOCH)))
    }

    /// Lines of steps, and of the engine when they begin with `---`.
    fn lines(texts: &[&str]) -> Item {
        let mut lines = Lines::default();
        for text in texts {
            let stream = if text.starts_with("---") { LogStream::Engine } else { LogStream::Stdout };
            lines.push(Origin::new(Timestamp::UNIX_EPOCH, None, stream), text);
        }
        Item::Lines(lines)
    }

    fn row(progress: Progress) -> ProgressRow {
        ProgressRow { at: Timestamp::UNIX_EPOCH, progress }
    }

    fn text(lines: Lines) -> String {
        String::from_utf8(lines.into_block(1, 1, 0).text().to_vec()).unwrap()
    }

    async fn drain(queue: &EventQueue) -> Vec<Item> {
        queue.close();
        let mut items = Vec::new();
        while let Some(item) = queue.next().await {
            items.push(item);
        }
        items
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_and_lines_in_a_row_are_one_write() {
        let queue = queue();
        queue.emit(log("a"));
        queue.emit(log("b"));
        queue.emit(BuildEvent::StepStarted { index: 0, total: 2, name: "make".to_owned() });
        queue.emit(log("c"));
        let expected = [
            lines(&["a", "b", "--- step 1 of 2: make"]),
            Item::Progress(vec![row(Progress::StepStarted { index: 0, name: "make".to_owned() })]),
            lines(&["c"]),
        ];
        assert_eq!(drain(&queue).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_shortly_after_one_another_is_one_write() {
        let queue = queue();
        let begun = Instant::now();
        queue.emit(log("a"));
        let next = queue.next();
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none(), "more may come");
        tokio::time::advance(limits::EVENTS_GATHER / 2).await;
        queue.emit(log("b"));
        queue.emit(BuildEvent::StepStarted { index: 0, total: 1, name: "make".to_owned() });
        let Some(Item::Lines(gathered)) = next.await else { panic!("lines") };
        assert_eq!(text(gathered), "a\nb\n--- step 1 of 1: make\n");
        assert_eq!(begun.elapsed(), limits::EVENTS_GATHER);
        // What was there by then is not held up once more.
        assert!(queue.next().now_or_never().is_some());
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_flood_loses_nothing_and_is_asked_to_wait() {
        let queue = queue();
        assert!(queue.ready().now_or_never().is_some());
        let most = limits::EVENT_QUEUE_MAX + 7;
        for number in 0..most {
            queue.emit(log(&number.to_string()));
        }
        assert!(queue.ready().now_or_never().is_none(), "the queue is full");
        queue.emit(BuildEvent::PhaseFinished { phase: Phase::Steps, took: Duration::from_millis(5) });
        let (mut all, mut wakes) = (String::new(), false);
        let waiting = queue.ready();
        tokio::pin!(waiting);
        while let Some(Item::Lines(lines)) = queue.next().await {
            all.push_str(&text(lines));
            wakes = wakes || waiting.as_mut().now_or_never().is_some();
            if wakes && all.lines().count() == most {
                break;
            }
        }
        assert!(wakes, "there is room again");
        assert!(all.lines().eq((0..most).map(|number| number.to_string())));
        let rest = drain(&queue).await;
        let [Item::Progress(rows)] = &rest[..] else { panic!("{rest:?}") };
        assert_eq!(rows[0].progress, phase_event(Phase::Steps, Duration::from_millis(5)));
    }

    #[tokio::test]
    async fn a_closed_queue_holds_nobody_up() {
        let queue = queue();
        queue.emit(log(&"x".repeat(limits::EVENT_QUEUE_BYTES_MAX)));
        (0..limits::EVENT_QUEUE_MAX).for_each(|_| queue.emit(log("x")));
        assert!(queue.ready().now_or_never().is_none());
        queue.close();
        assert!(queue.ready().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_long_line_is_cut_between_characters() {
        let queue = queue();
        queue.emit(log(&"ä".repeat(limits::LOG_LINE_BYTES_MAX)));
        let Some(Item::Lines(lines)) = drain(&queue).await.pop() else { panic!("lines") };
        let text = text(lines);
        assert!(text.ends_with(" [cut]\n"));
        assert!(text.len() < limits::LOG_LINE_BYTES_MAX + 10);
    }
}
