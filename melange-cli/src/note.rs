//! Standard error: everything but results. Nothing that happens to it changes what the command does: whoever closes
//! it or fills its disk loses messages, not a build.
//!
//! On a terminal the last line may be a status that is rewritten; messages go above it.

use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use melange_remote_sdk::error::Error;

use crate::args::Output;
use crate::{render, shown};

static TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stderr().is_terminal());

/// The status line as it stands on the terminal; empty when there is none.
static STATUS: Mutex<String> = Mutex::new(String::new());

/// Columns of a terminal that does not tell how many it has.
const COLUMNS: usize = 80;

/// Whether messages go to a person's terminal.
pub(crate) fn is_terminal() -> bool {
    *TERMINAL
}

/// Says whole lines.
pub(crate) fn text(text: &str) {
    if text.is_empty() {
        return;
    }
    let status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if is_terminal() {
        put(&format!("{}{}{}", clear(&status), shown::escaped(text), *status));
    } else {
        put(text);
    }
}

/// Says one line.
pub(crate) fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Says what went wrong, in the form that was asked for.
pub(crate) fn error(error: &Error, output: Output) {
    match output {
        Output::Text => text(&render::error(error)),
        Output::Json => text(&format!("{}\n", shown::json(&render::error_json(error)))),
    }
}

/// Writes the status line anew, on a terminal; an empty one removes it.
pub(crate) fn status(line: &str) {
    if !is_terminal() {
        return;
    }
    let columns = terminal_size::terminal_size_of(std::io::stderr())
        .map_or(COLUMNS, |(width, _)| usize::from(width.0))
        .saturating_sub(1);
    // A line that wraps could not be taken back.
    let line: String = shown::word(line).chars().take(columns).collect();
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if *status != line {
        put(&format!("{}{line}", clear(&status)));
        *status = line;
    }
}

fn clear(status: &str) -> &'static str {
    if status.is_empty() { "" } else { "\r\x1b[K" }
}

fn put(text: &str) {
    let mut err = std::io::stderr().lock();
    // See the module: there is nobody left to tell.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Where the library's messages go; never fails.
pub(crate) struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        text(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
