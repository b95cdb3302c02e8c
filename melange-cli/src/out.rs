//! Standard output: results, and nothing else.
//!
//! A reader that goes away, as `head` does, has seen enough: the command ends quietly. An output that cannot be
//! written for another reason, such as a full disk, is an error.

use std::io::{ErrorKind as IoErrorKind, IsTerminal, Write};
use std::sync::LazyLock;

use melange_remote_sdk::error::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::shown;

static TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stdout().is_terminal());

/// Whether results go to a person's terminal.
pub(crate) fn is_terminal() -> bool {
    *TERMINAL
}

/// Marks the error of an output that nobody reads any more.
#[derive(Debug)]
struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its reader went away")
    }
}

impl std::error::Error for ReaderGone {}

/// Whether `error` only says that nobody reads the results any more.
pub(crate) fn reader_is_gone(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<ReaderGone>())
}

/// What a failed write to standard output means.
pub(crate) fn failed(error: std::io::Error) -> Error {
    if error.kind() == IoErrorKind::BrokenPipe {
        return Error::new(ErrorKind::Cancelled, "standard output was closed").source(ReaderGone);
    }
    Error::unexpected("cannot write to standard output")
        .source(error)
        .hint("look whether its disk is full, or send it elsewhere")
}

/// Prints a result of whole lines.
///
/// # Errors
/// One that [`reader_is_gone`] knows, or the output's.
pub(crate) fn text(text: &str) -> Result<()> {
    if is_terminal() { bytes(shown::escaped(text).as_bytes()) } else { bytes(text.as_bytes()) }
}

/// Prints one line of a result; errors as of [`text`].
pub(crate) fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// Prints a value as JSON for people to read; errors as of [`text`].
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(unprintable)?;
    bytes(format!("{}\n", shown::json(&text)).as_bytes())
}

/// Prints a value as one line of JSON; errors as of [`text`].
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string(value).map_err(unprintable)?;
    bytes(format!("{}\n", shown::json(&text)).as_bytes())
}

fn unprintable(error: serde_json::Error) -> Error {
    Error::unexpected("cannot print the result").source(error)
}

/// Prints bytes as they are; errors as of [`text`].
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed)
}

/// A stream of bytes of which pieces come at any place, such as a log: as it is for files and pipes, escaped on a
/// terminal, where only whole characters can be shown.
#[derive(Default)]
pub(crate) struct Raw {
    rest: Vec<u8>,
}

impl Raw {
    /// Prints a piece; errors as of [`text`].
    pub(crate) fn print(&mut self, piece: &[u8]) -> Result<()> {
        if is_terminal() { text(&self.whole(piece)) } else { bytes(piece) }
    }

    /// The whole characters of what was kept and `piece`; the beginning of a last one is kept.
    fn whole(&mut self, piece: &[u8]) -> String {
        self.rest.extend_from_slice(piece);
        let mut end = self.rest.len();
        // A line end of Windows is told from a lone return by what follows.
        if self.rest.last() == Some(&b'\r') {
            end -= 1;
        } else if let Some(last) = self.rest.utf8_chunks().last()
            && (1..4).contains(&last.invalid().len())
            && std::str::from_utf8(last.invalid()).is_err_and(|error| error.error_len().is_none())
        {
            end -= last.invalid().len();
        }
        let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest.drain(..end);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_whatever_the_pieces() {
        let text = "a€\u{1f600}b\r\nc\n".as_bytes();
        for size in 1..text.len() {
            let mut raw = Raw::default();
            let seen: String = text.chunks(size).map(|piece| raw.whole(piece)).collect();
            assert_eq!(seen.as_bytes(), text, "pieces of {size}");
            assert!(raw.rest.is_empty());
        }
        let mut raw = Raw::default();
        assert_eq!(raw.whole(b"\xff\xfex"), "\u{fffd}\u{fffd}x", "what is no character is not waited for");
    }

    #[test]
    fn only_a_reader_that_went_away_ends_quietly() {
        assert!(reader_is_gone(&failed(IoErrorKind::BrokenPipe.into())));
        assert!(!reader_is_gone(&failed(IoErrorKind::StorageFull.into())));
    }
}
