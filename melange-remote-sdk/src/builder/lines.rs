//! Bytes of a step's output → lines, and the last of them. Pure.

use std::collections::VecDeque;

use super::LogStream;
use crate::limits::{LOG_LINE_BYTES_MAX, LOG_TAIL_LINES, LOG_TAIL_STREAM_LINES};

/// Cuts one stream of output into lines.
///
/// A carriage return starts its line anew, as on a terminal: what a progress bar overwrote is gone, and
/// `\r\n` is one line end. Invalid UTF-8 is replaced. A line above [`LOG_LINE_BYTES_MAX`] is cut and says how
/// much is missing.
#[derive(Debug, Default)]
pub struct LineSplitter {
    line: Vec<u8>,
    dropped_bytes: u64,
    returned: bool,
}

impl LineSplitter {
    /// Takes more output; every line that it completes goes to `emit`.
    pub fn push(&mut self, mut bytes: &[u8], emit: &mut dyn FnMut(String)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len());
            let (text, rest) = bytes.split_at(end);
            if !text.is_empty() {
                self.append(text);
            }
            match rest.first() {
                Some(b'\n') => emit(self.take()),
                Some(_) => self.returned = true,
                None => {}
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// The line that has no end yet, if there is one.
    pub fn finish(&mut self, emit: &mut dyn FnMut(String)) {
        if !self.line.is_empty() {
            emit(self.take());
        }
    }

    fn append(&mut self, text: &[u8]) {
        if self.returned {
            self.line.clear();
            self.dropped_bytes = 0;
            self.returned = false;
        }
        let room = LOG_LINE_BYTES_MAX - self.line.len();
        let kept = text.len().min(room);
        self.line.extend_from_slice(&text[..kept]);
        self.dropped_bytes += (text.len() - kept) as u64;
    }

    fn take(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.line);
        let mut dropped = std::mem::take(&mut self.dropped_bytes);
        self.returned = false;
        if dropped > 0 {
            let half_character = bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
            bytes.truncate(bytes.len() - half_character);
            dropped += half_character as u64;
        }
        let mut line = String::from_utf8_lossy(&bytes).into_owned();
        if dropped > 0 {
            line.push_str(&format!(" [line cut, {dropped} bytes dropped]"));
        }
        line
    }
}

/// The last lines of a step, of both its streams: a flood on one of them does not push out what the other said.
#[derive(Debug, Default)]
pub struct StepTail {
    streams: [VecDeque<(u64, String)>; 2],
    lines: u64,
}

impl StepTail {
    /// Takes the next line of a stream.
    pub fn push(&mut self, stream: LogStream, line: String) {
        let kept = &mut self.streams[usize::from(stream == LogStream::Stderr)];
        if kept.len() == LOG_TAIL_LINES {
            kept.pop_front();
        }
        kept.push_back((self.lines, line));
        self.lines += 1;
    }

    /// Forgets all lines, for the next step.
    pub fn clear(&mut self) {
        self.streams.iter_mut().for_each(VecDeque::clear);
    }

    /// The newest [`LOG_TAIL_LINES`] lines in their order, at least [`LOG_TAIL_STREAM_LINES`] of each stream if it
    /// has so many.
    pub fn lines(&self) -> Vec<String> {
        let [stdout, stderr] = &self.streams;
        let newest_errors = {
            let mut numbers: Vec<(u64, bool)> = stdout.iter().map(|(number, _)| (*number, false)).collect();
            numbers.extend(stderr.iter().map(|(number, _)| (*number, true)));
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            numbers.iter().take(LOG_TAIL_LINES).filter(|(_, is_error)| *is_error).count()
        };
        let most = LOG_TAIL_LINES - stdout.len().min(LOG_TAIL_STREAM_LINES);
        let errors = newest_errors.max(stderr.len().min(LOG_TAIL_STREAM_LINES)).min(most);
        let others = stdout.len().min(LOG_TAIL_LINES - errors);
        let newest =
            stdout.iter().skip(stdout.len() - others).chain(stderr.iter().skip(stderr.len() - errors));
        let mut lines: Vec<&(u64, String)> = newest.collect();
        lines.sort_unstable_by_key(|(number, _)| *number);
        lines.into_iter().map(|(_, line)| line.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in chunks {
            splitter.push(chunk, &mut |line| lines.push(line));
        }
        splitter.finish(&mut |line| lines.push(line));
        lines
    }

    #[test]
    fn ends_of_lines_in_every_form() {
        assert_eq!(split(&[b"a\nb\r\nc"]), ["a", "b", "c"]);
        assert_eq!(split(&[b"a\r", b"\nb\n"]), ["a", "b"]);
        assert_eq!(split(&[b"\n\n"]), ["", ""]);
        assert_eq!(split(&[b"1%\r2%\r", b"3%\rdone\n"]), ["done"]);
        assert_eq!(split(&[b"kept\r\r"]), ["kept"]);
        assert_eq!(split(&[b"par", b"tial"]), ["partial"]);
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn bad_bytes_are_replaced_and_a_character_in_two_chunks_is_whole() {
        assert_eq!(split(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        assert_eq!(split(&["é".as_bytes().split_at(1).0, b"\xa9\n"]), ["é"]);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_says_so() {
        let mut text = "x".repeat(LOG_LINE_BYTES_MAX - 1);
        text.push_str("ééé\nnext\n");
        let lines = split(&[text.as_bytes()]);
        assert_eq!(lines[0], format!("{} [line cut, 6 bytes dropped]", "x".repeat(LOG_LINE_BYTES_MAX - 1)));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_flood_on_one_stream_leaves_the_last_lines_of_the_other() {
        let mut tail = StepTail::default();
        tail.push(LogStream::Stderr, "the error".to_owned());
        (0..1_000).for_each(|number| tail.push(LogStream::Stdout, number.to_string()));
        let lines = tail.lines();
        assert_eq!(
            (lines.len(), lines[0].as_str(), lines[39].as_str()),
            (LOG_TAIL_LINES, "the error", "999")
        );
        (0..1_000).for_each(|number| tail.push(LogStream::Stderr, format!("e{number}")));
        let lines = tail.lines();
        assert_eq!((lines[0].as_str(), lines[9].as_str(), lines[10].as_str()), ("990", "999", "e970"));
        assert_eq!(lines.len(), LOG_TAIL_LINES);
        tail.clear();
        assert!(tail.lines().is_empty());
    }

    proptest! {
        /// Where chunks end does not matter.
        #[test]
        fn chunks_do_not_matter(bytes in proptest::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), cut in 0usize..200) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(split(&[&bytes]), split(&[one, two]));
        }
    }
}
