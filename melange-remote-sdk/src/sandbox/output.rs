//! From a step's pipes to log lines.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildEvent, BuildSink, LogStream};
use crate::error::{Error, Result};
use crate::limits;

/// How a step ended.
pub(super) struct Pumped {
    pub(super) status: i32,
    pub(super) tail: Vec<String>,
}

/// Passes both pipes on until the step ends; `None` when it was cancelled, after the step was killed.
pub(super) async fn pump(
    child: &mut Child,
    step: usize,
    sink: &Arc<dyn BuildSink>,
    cancel: &CancellationToken,
) -> Result<Option<Pumped>> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut lines = Lines { sink: Arc::clone(sink), step, tail: VecDeque::new() };
    let failed = |e: std::io::Error| Error::unexpected("cannot read a step's output").source(e);
    let (Some(mut out), Some(mut err)) = (out, err) else {
        return Err(Error::unexpected("a step has no output pipes"));
    };
    let (mut out_rest, mut err_rest) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    let (mut out_buffer, mut err_buffer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    while out_open || err_open {
        tokio::select! {
            read = read(&mut out, &mut out_buffer), if out_open => {
                out_open = lines.take(&mut out_rest, &out_buffer[..read.map_err(failed)?], LogStream::Stdout);
            }
            read = read(&mut err, &mut err_buffer), if err_open => {
                err_open = lines.take(&mut err_rest, &err_buffer[..read.map_err(failed)?], LogStream::Stderr);
            }
            () = cancel.cancelled() => {
                // The sandbox dies with its parent; dropping the guest waits until it has.
                child.kill().await.map_err(|e| Error::unexpected("cannot stop a step").source(e))?;
                return Ok(None);
            }
        }
    }
    let status = child.wait().await.map_err(|e| Error::unexpected("cannot wait for a step").source(e))?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Some(Pumped { status, tail: lines.tail.into() }))
}

async fn read(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    pipe.read(buffer).await
}

struct Lines {
    sink: Arc<dyn BuildSink>,
    step: usize,
    tail: VecDeque<String>,
}

impl Lines {
    /// Takes a chunk; an empty one ends the stream and flushes the rest. Returns whether the stream goes on.
    fn take(&mut self, rest: &mut Vec<u8>, chunk: &[u8], stream: LogStream) -> bool {
        for byte in chunk {
            if *byte == b'\n' {
                self.line(rest, stream);
            } else if rest.len() < limits::LOG_LINE_BYTES_MAX + 1 {
                rest.push(*byte);
            }
        }
        if chunk.is_empty() && !rest.is_empty() {
            self.line(rest, stream);
        }
        !chunk.is_empty()
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
        let mut lines = Lines { sink: kept.clone(), step: 0, tail: VecDeque::new() };
        let mut rest = Vec::new();
        assert!(lines.take(&mut rest, b"one\ntw", LogStream::Stdout));
        assert!(lines.take(&mut rest, b"o\n10%\r20%\r\n\xff\n", LogStream::Stdout));
        lines.take(&mut rest, &vec![b'x'; limits::LOG_LINE_BYTES_MAX + 9], LogStream::Stdout);
        assert!(!lines.take(&mut rest, b"", LogStream::Stdout));
        let seen = kept.0.lock().unwrap();
        assert_eq!(seen[..4], ["one", "two", "20%", "\u{fffd}"]);
        assert!(seen[4].ends_with("x [line cut]"));
    }
}
