//! Bytes of a step's output → lines. Pure.

use crate::limits::LOG_LINE_BYTES_MAX;

/// Cuts one stream of output into lines.
///
/// A carriage return starts its line anew, as on a terminal: what a progress bar overwrote is gone, and
/// `\r\n` is one line end. Invalid UTF-8 is replaced. A line above [`LOG_LINE_BYTES_MAX`] is cut and says how
/// much is missing.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    line: Vec<u8>,
    dropped_bytes: u64,
    returned: bool,
}

impl LineSplitter {
    /// Takes more output; every line that it completes goes to `emit`.
    pub(super) fn push(&mut self, mut bytes: &[u8], emit: &mut dyn FnMut(String)) {
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
    pub(super) fn finish(&mut self, emit: &mut dyn FnMut(String)) {
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

/// The text with which a daemon says that it drops output of a step, such as
/// `[output clipped, log limit 200KiB/s reached]`.
pub(super) fn is_clip_notice(line: &str) -> bool {
    line.starts_with("[output clipped, log limit ") && line.ends_with(" reached]")
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
    fn notices_of_dropped_output_are_known() {
        assert!(is_clip_notice("[output clipped, log limit 200KiB/s reached]"));
        assert!(is_clip_notice("[output clipped, log limit 2MiB reached]"));
        assert!(!is_clip_notice("output clipped"));
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
