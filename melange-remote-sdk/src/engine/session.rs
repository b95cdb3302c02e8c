//! A session: the steps of a test as one script of one guest, so that what one step leaves running in the
//! background is there for the next. The script marks where its steps begin and end in both of its streams, and a
//! sink in between makes the events of single steps out of the marks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::builder::lines::StepTail;
use crate::builder::{BuildEvent, BuildSink, LogStream, StepFailure};
use crate::guest::script::quote;
use crate::guest::{self, GuestStep};
use crate::limits;

/// Steps joined into one, with the scripts that it calls.
pub(super) struct Joined {
    /// The step that runs them all.
    pub(super) step: GuestStep,
    /// The scripts of the steps, as [`guest::GuestPlan::scripts`].
    pub(super) scripts: Vec<String>,
    /// What begins every mark.
    pub(super) mark: String,
}

/// Joins `steps`, which have the variables `base` in common.
pub(super) fn join(name: &str, steps: Vec<GuestStep>) -> Joined {
    let mark = format!("@@melange-{} ", uuid::Uuid::now_v7().simple());
    let base = common(&steps);
    // A mark begins a line of its own, whatever the output before it ended with, and however long that line is.
    let mut script = format!("say() {{ echo \"\n{mark}$1\"; echo \"\n{mark}$1\" >&2; }}\n");
    let mut scripts = Vec::with_capacity(steps.len());
    for (index, step) in steps.into_iter().enumerate() {
        let own: Vec<_> = step.environment.into_iter().filter(|variable| !base.contains(variable)).collect();
        script.push_str(&format!("say 'begin {index}'\n("));
        script.push_str(&call(&own, &guest::script_path(index)));
        script.push_str(&format!(
            ")\ncode=$?\n[ $code = 0 ] || {{ say 'failed {index}'; exit $code; }}\nsay 'end {index}'\n"
        ));
        scripts.push(step.script);
    }
    // Nothing is taken out of a test's guest; the folder is there for the runner to find.
    let output = guest::OUTPUT;
    script.push_str(&format!("rm -rf {output} && mkdir -p {output}\n"));
    let step = GuestStep { name: name.to_owned(), script, environment: base, network: true };
    Joined { step, scripts, mark }
}

/// The variables that all steps have with the same value.
fn common(steps: &[GuestStep]) -> Vec<(String, String)> {
    let Some((first, others)) = steps.split_first() else { return Vec::new() };
    let everywhere =
        |variable: &&(String, String)| others.iter().all(|step| step.environment.contains(*variable));
    first.environment.iter().filter(everywhere).cloned().collect()
}

/// The command that runs a script with further variables.
fn call(own: &[(String, String)], path: &str) -> String {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut text = String::new();
    let mut by_env = String::new();
    for (name, value) in own {
        if is_name(name) {
            text.push_str(&format!("export {name}={}; ", quote(value)));
        } else {
            by_env.push_str(&format!("{} ", quote(&format!("{name}={value}"))));
        }
    }
    let env = if by_env.is_empty() { "" } else { "env " };
    text.push_str(&format!("exec {env}{by_env}/bin/sh {path}"));
    text
}

/// Makes the events of single steps out of a session's marks.
pub(super) struct SessionSink {
    sink: Arc<dyn BuildSink>,
    mark: String,
    names: Vec<String>,
    /// The number of the first step, and of all.
    first: usize,
    total: usize,
    state: Mutex<State>,
}

/// What arrived and is not told yet: the lines of a later step wait until both streams have ended the earlier.
#[derive(Default)]
struct State {
    open: usize,
    begun: Option<Instant>,
    streams: [Stream; 2],
    tail: StepTail,
    /// The step of which the script itself says that it failed.
    failed: Option<usize>,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Item>,
    /// An empty line that is the beginning of a mark if a mark comes next.
    empty: bool,
    /// How many steps this stream has ended, which is the number of the step that its next line is of.
    ended: usize,
}

enum Item {
    Line(String),
    Mark(Mark),
}

/// What the script says of the step with a number.
#[derive(Clone, Copy)]
enum Mark {
    Begin(usize),
    End(usize),
    Failed(usize),
}

impl Mark {
    /// Reads what follows the beginning of a mark; of `steps` steps.
    fn parse(text: &str, steps: usize) -> Option<Self> {
        let (word, index) = text.split_once(' ')?;
        let index: usize = index.parse().ok().filter(|index| *index < steps)?;
        match word {
            "begin" => Some(Self::Begin(index)),
            "end" => Some(Self::End(index)),
            "failed" => Some(Self::Failed(index)),
            _ => None,
        }
    }
}

impl SessionSink {
    pub(super) fn new(
        sink: Arc<dyn BuildSink>,
        mark: String,
        names: Vec<String>,
        first: usize,
        total: usize,
    ) -> Self {
        Self { sink, mark, names, first, total, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what is left and, of a step that did not end well, its name and last lines.
    pub(super) fn finish(&self, exit_code: i32) -> StepFailure {
        let mut state = self.lock();
        state.streams.iter_mut().for_each(Stream::release);
        self.advance(&mut state);
        while state.streams.iter().any(|stream| stream.ended > state.open || !stream.waiting.is_empty()) {
            self.close(&mut state);
            self.advance(&mut state);
        }
        // Where the script's own word is lost, it is the last step that began.
        let last = if state.begun.is_none() { state.open.saturating_sub(1) } else { state.open };
        let step = self.names.get(state.failed.unwrap_or(last)).cloned().unwrap_or_default();
        StepFailure { tail: state.tail.lines(), ..StepFailure::new(step, exit_code) }
    }

    fn take(&self, stream: LogStream, line: &str) {
        let mut state = self.lock();
        let source = state.of(stream);
        let found = line.split_once(&self.mark);
        match found.and_then(|(before, mark)| Some((before, Mark::parse(mark, self.names.len())?))) {
            Some((before, mark)) => {
                if !before.is_empty() {
                    source.release();
                    source.waiting.push_back(Item::Line(before.to_owned()));
                }
                source.empty = false;
                source.waiting.push_back(Item::Mark(mark));
            }
            None => {
                source.release();
                if line.is_empty() {
                    source.empty = true;
                } else {
                    source.waiting.push_back(Item::Line(line.to_owned()));
                }
            }
        }
        self.advance(&mut state);
    }

    /// Tells everything that belongs to the open step, and goes on to the next one when both streams have ended it.
    fn advance(&self, state: &mut State) {
        loop {
            for stream in [LogStream::Stdout, LogStream::Stderr] {
                while state.of(stream).ended <= state.open
                    && let Some(item) = state.of(stream).waiting.pop_front()
                {
                    self.tell(state, stream, item);
                }
            }
            let ended = |stream: &Stream| stream.ended > state.open;
            let full = state.streams.iter().any(|stream| stream.waiting.len() > limits::EVENT_QUEUE_MAX);
            if !(state.streams.iter().all(ended) || state.streams.iter().any(ended) && full) {
                return;
            }
            self.close(state);
        }
    }

    fn tell(&self, state: &mut State, stream: LogStream, item: Item) {
        match item {
            Item::Line(line) => {
                // A stream that lags behind the other tells of an earlier step than the open one.
                let step = state.of(stream).ended.min(self.names.len().saturating_sub(1));
                if state.of(stream).ended >= state.open {
                    state.tail.push(stream, line.clone());
                }
                self.sink.emit(BuildEvent::Log { stream, step: Some(self.first + step), line });
            }
            Item::Mark(mark @ Mark::Begin(index)) => {
                let source = state.of(stream);
                source.ended = source.ended.max(index);
                if index > state.open {
                    state.of(stream).waiting.push_front(Item::Mark(mark));
                } else if index == state.open {
                    self.open(state);
                }
            }
            Item::Mark(Mark::End(index)) => {
                let source = state.of(stream);
                source.ended = source.ended.max(index + 1);
            }
            Item::Mark(Mark::Failed(index)) => state.failed = Some(index),
        }
    }

    /// The open step begins, unless it has.
    fn open(&self, state: &mut State) {
        if state.begun.is_none() {
            state.begun = Some(Instant::now());
            state.tail.clear();
            let name = self.names.get(state.open).cloned().unwrap_or_default();
            let index = self.first + state.open;
            self.sink.emit(BuildEvent::StepStarted { index, total: self.total, name });
        }
    }

    /// The open step is over; also one whose marks are lost.
    fn close(&self, state: &mut State) {
        if state.open < self.names.len() {
            self.open(state);
            let took = state.begun.take().map(|begun| begun.elapsed()).unwrap_or_default();
            let index = self.first + state.open;
            self.sink.emit(BuildEvent::StepFinished { index, took, cached: false });
        }
        state.open += 1;
    }
}

impl Stream {
    /// The empty line that was held back is one of the step's own.
    fn release(&mut self) {
        if std::mem::take(&mut self.empty) {
            self.waiting.push_back(Item::Line(String::new()));
        }
    }
}

impl State {
    fn of(&mut self, stream: LogStream) -> &mut Stream {
        &mut self.streams[usize::from(stream == LogStream::Stderr)]
    }
}

#[async_trait]
impl BuildSink for SessionSink {
    fn emit(&self, event: BuildEvent) {
        match event {
            BuildEvent::Log { stream: stream @ (LogStream::Stdout | LogStream::Stderr), line, .. } => {
                self.take(stream, &line);
            }
            // The session is one step to the runner only.
            BuildEvent::StepStarted { .. } | BuildEvent::StepFinished { .. } => {}
            other => self.sink.emit(other),
        }
    }

    async fn ready(&self) {
        self.sink.ready().await;
    }
}

#[cfg(test)]
mod tests;
