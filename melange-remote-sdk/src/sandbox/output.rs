//! From the bytes of a step's two streams to log lines.

use std::sync::Arc;

use crate::builder::lines::{LineSplitter, StepTail};
use crate::builder::{BuildEvent, BuildSink, LogStream};

/// The lines of one step: its two streams, and the end of both together.
pub(super) struct Lines {
    sink: Arc<dyn BuildSink>,
    step: usize,
    tail: StepTail,
    out: LineSplitter,
    err: LineSplitter,
}

impl Lines {
    pub(super) fn new(sink: &Arc<dyn BuildSink>, step: usize) -> Self {
        let (out, err) = (LineSplitter::default(), LineSplitter::default());
        Self { sink: Arc::clone(sink), step, tail: StepTail::default(), out, err }
    }

    /// Takes bytes of a stream.
    pub(super) fn take(&mut self, stream: LogStream, bytes: &[u8]) {
        let (step, sink, tail) = (self.step, &*self.sink, &mut self.tail);
        let lines = if stream == LogStream::Stderr { &mut self.err } else { &mut self.out };
        lines.push(bytes, &mut |line| emit(sink, step, stream, tail, line));
    }

    /// A line of the sandbox's own about the step.
    pub(super) fn note(&mut self, line: &str) {
        self.flush();
        emit(&*self.sink, self.step, LogStream::Stderr, &mut self.tail, line.to_owned());
    }

    /// Ends both streams; tells the last lines.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.flush();
        self.tail.lines()
    }

    fn flush(&mut self) {
        let (step, sink, tail) = (self.step, &*self.sink, &mut self.tail);
        self.out.finish(&mut |line| emit(sink, step, LogStream::Stdout, tail, line));
        self.err.finish(&mut |line| emit(sink, step, LogStream::Stderr, tail, line));
    }
}

fn emit(sink: &dyn BuildSink, step: usize, stream: LogStream, tail: &mut StepTail, line: String) {
    tail.push(stream, line.clone());
    sink.emit(BuildEvent::Log { stream, step: Some(step), line });
}
