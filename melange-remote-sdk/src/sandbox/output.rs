//! From a step's pipes to log lines.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::builder::lines::{LineSplitter, StepTail};
use crate::builder::{BuildEvent, BuildSink, LogStream};
use crate::error::{Error, Result};

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
    let mut tail = StepTail::default();
    let failed = |e: std::io::Error| Error::unexpected("cannot read a step's output").source(e);
    let (Some(mut out), Some(mut err)) = (out, err) else {
        return Err(Error::unexpected("a step has no output pipes"));
    };
    let (mut out_lines, mut err_lines) = (LineSplitter::default(), LineSplitter::default());
    let (mut out_open, mut err_open) = (true, true);
    let (mut out_buffer, mut err_buffer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    while out_open || err_open {
        tokio::select! {
            read = read(&mut out, &mut out_buffer), if out_open => {
                let chunk = &out_buffer[..read.map_err(failed)?];
                out_open = take(&mut out_lines, chunk, (step, LogStream::Stdout), &mut tail, &**sink);
            }
            read = read(&mut err, &mut err_buffer), if err_open => {
                let chunk = &err_buffer[..read.map_err(failed)?];
                err_open = take(&mut err_lines, chunk, (step, LogStream::Stderr), &mut tail, &**sink);
            }
            () = cancel.cancelled() => {
                // The sandbox dies with its parent; dropping the guest waits until it has.
                child.kill().await.map_err(|e| Error::unexpected("cannot stop a step").source(e))?;
                return Ok(None);
            }
        }
        // A reader that lags slows the step down: its pipes fill up.
        if cancel.run_until_cancelled(sink.ready()).await.is_none() {
            continue;
        }
    }
    let status = child.wait().await.map_err(|e| Error::unexpected("cannot wait for a step").source(e))?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Some(Pumped { status, tail: tail.lines() }))
}

async fn read(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    pipe.read(buffer).await
}

/// One stream of the step: its bytes become lines of the step.
fn take(
    lines: &mut LineSplitter,
    chunk: &[u8],
    (step, stream): (usize, LogStream),
    tail: &mut StepTail,
    sink: &dyn BuildSink,
) -> bool {
    let mut emit = |line: String| {
        tail.push(stream, line.clone());
        sink.emit(BuildEvent::Log { stream, step: Some(step), line });
    };
    if chunk.is_empty() {
        lines.finish(&mut emit);
    } else {
        lines.push(chunk, &mut emit);
    }
    !chunk.is_empty()
}
