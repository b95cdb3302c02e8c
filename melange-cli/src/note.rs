//! Standard error: everything but results. Nothing that happens to it changes what the command does: whoever closes
//! it or fills its disk loses messages, not a build.
//!
//! On a terminal the last line may be a status that is rewritten; messages go above it.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use melange_remote_sdk::error::Error;

use crate::args::Output;
use crate::{render, shown};

static TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stderr().is_terminal());

/// The status line as it stands on the terminal; empty when there is none.
static STATUS: Mutex<String> = Mutex::new(String::new());

/// Where messages go that are no errors; nothing is said where they go nowhere. Standard error when it is not set.
static PLACE: OnceLock<Option<File>> = OnceLock::new();

/// Sends messages that are no errors to the end of a file, or nowhere.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn send_to(file: Option<&Path>) -> std::io::Result<()> {
    let open = |path: &Path| File::options().append(true).create(true).open(path);
    let _ = PLACE.set(file.map(open).transpose()?);
    Ok(())
}

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
    match PLACE.get() {
        Some(Some(file)) => {
            // See the module.
            let _ = (&*file).write_all(text.as_bytes());
        }
        Some(None) => {}
        None => say(text),
    }
}

/// Says whole lines on standard error, whatever becomes of other messages: what went wrong.
pub(crate) fn say(text: &str) {
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
        Output::Text => say(&render::error(error)),
        Output::Json => say(&format!("{}\n", shown::json(&render::error_json(error)))),
    }
}

/// Writes the status line anew, on a terminal; an empty one removes it.
pub(crate) fn status(line: &str) {
    if !is_terminal() || PLACE.get().is_some() {
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
