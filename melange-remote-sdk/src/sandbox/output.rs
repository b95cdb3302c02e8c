//! From a step's bytes to log lines.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::builder::{BuildEvent, BuildSink, LogStream};
use crate::limits;

/// The lines of one step: its two streams, and the end of both together.
pub(super) struct Lines {
    sink: Arc<dyn BuildSink>,
    step: usize,
    tail: VecDeque<String>,
    /// Lines that have no end yet.
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    pub(super) fn new(sink: &Arc<dyn BuildSink>, step: usize) -> Self {
        Self { sink: Arc::clone(sink), step, tail: VecDeque::new(), out: Vec::new(), err: Vec::new() }
    }

    /// Takes bytes of a stream.
    pub(super) fn take(&mut self, stream: LogStream, bytes: &[u8]) {
        let mut rest = std::mem::take(self.rest(stream));
        for byte in bytes {
            if *byte == b'\n' {
                self.line(&mut rest, stream);
            } else if rest.len() < limits::LOG_LINE_BYTES_MAX + 1 {
                rest.push(*byte);
            }
        }
        *self.rest(stream) = rest;
    }

    /// A line of the sandbox's own about the step.
    pub(super) fn note(&mut self, line: &str) {
        self.flush();
        self.line(&mut line.as_bytes().to_vec(), LogStream::Stderr);
    }

    /// Ends both streams; tells the last lines.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.flush();
        self.tail.into()
    }

    fn flush(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let mut rest = std::mem::take(self.rest(stream));
            if !rest.is_empty() {
                self.line(&mut rest, stream);
            }
        }
    }

    fn rest(&mut self, stream: LogStream) -> &mut Vec<u8> {
        if stream == LogStream::Stderr { &mut self.err } else { &mut self.out }
    }

    fn line(&mut self, rest: &mut Vec<u8>, stream: LogStream) {
        let cut = rest.len() > limits::LOG_LINE_BYTES_MAX;
        rest.truncate(limits::LOG_LINE_BYTES_MAX);
        let text = String::from_utf8_lossy(rest);
        // A carriage return overwrites the line on a terminal: its last state is what counts.
        let shown = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let line = if cut { format!("{shown} [line cut]") } else { shown.to_owned() };
        rest.clear();
        if self.tail.len() == limits::LOG_TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        self.sink.emit(BuildEvent::Log { stream, step: Some(self.step), line });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl BuildSink for Kept {
        fn emit(&self, event: BuildEvent) {
            if let BuildEvent::Log { line, .. } = event {
                self.0.lock().unwrap().push(line);
            }
        }
    }

    #[test]
    fn lines_are_split_cut_and_kept() {
        let kept = Arc::new(Kept::default());
        let sink: Arc<dyn BuildSink> = kept.clone();
        let mut lines = Lines::new(&sink, 0);
        lines.take(LogStream::Stdout, b"one\ntw");
        lines.take(LogStream::Stdout, b"o\n10%\r20%\r\n\xff\n");
        lines.take(LogStream::Stdout, &vec![b'x'; limits::LOG_LINE_BYTES_MAX + 9]);
        assert_eq!(lines.finish().len(), 5);
        let seen = kept.0.lock().unwrap();
        assert_eq!(seen[..4], ["one", "two", "20%", "\u{fffd}"]);
        assert!(seen[4].ends_with("x [line cut]"));
    }
}
