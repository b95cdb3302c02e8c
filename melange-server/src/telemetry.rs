//! The log on standard error, set up once. A line that cannot be written is dropped, and nothing else changes: neither
//! a full disk under the log, nor a reader that goes away or stops reading, may stop the server.

use std::io::{IsTerminal, Write};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// What is logged unless somebody asks for more. Object stores would tell every request that they repeat.
const FILTER: &str = "info,object_store=warn";
/// Lines that may wait for standard error; what comes when they do is dropped.
const LINES_MAX: usize = 8_192;

/// Writes the lines that wait when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Standard error that takes everything.
struct Forgiving;

impl Write for Forgiving {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Half a line would stand before the next one; what is lost is lost whole.
        let _ = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}

/// Starts the log; `filter` is a list such as `info,melange_remote_sdk=debug`. A second call changes nothing.
pub fn start(format: LogFormat, filter: Option<&str>) -> LogGuard {
    let filter =
        filter.and_then(|text| EnvFilter::try_new(text).ok()).unwrap_or_else(|| EnvFilter::new(FILTER));
    let (writer, worker): (NonBlocking, WorkerGuard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(Forgiving);
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        // It would complain on standard error about standard error.
        .log_internal_errors(false)
        .with_writer(writer);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
    LogGuard { _worker: worker }
}
