//! The runner's side of a launcher: starting it, hearing what it tells, ending it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::protocol::{
    ARGUMENT, FOR_A_GUEST, FOR_AN_ONLINE_GUEST, FRAME_BYTES_MAX, HEADER_BYTES, MESSAGE, Message, Order,
    STDERR, STDOUT, VERSION,
};
use super::{launcher, options::SandboxOptions};
use crate::builder::LogStream;
use crate::error::{Blame, Error, ErrorKind, Result};

/// How long the kernel may take to end the processes of a guest that was stopped.
const QUIET_GRACE: Duration = Duration::from_secs(10);
/// How long the removal of a stopped guest's folder may take before it is left to the next start of the engine.
const REMOVAL_GRACE: Duration = Duration::from_secs(120);
/// The end of what a launcher says on its standard error, which is nothing unless it crashes.
const CRASH_BYTES_MAX: u64 = 4 << 10;

/// How launchers are started.
#[derive(Debug, Clone)]
pub(super) struct Starter {
    program: PathBuf,
    /// Whether this process is root; others work in a user namespace.
    pub(super) privileged: bool,
}

/// Somebody or the kernel killed a process of the sandbox's own: another try may see it through.
#[derive(Debug, thiserror::Error)]
#[error("a process of the sandbox's own was killed")]
pub(super) struct ProcessKilled;

/// One thing that a launcher told.
#[derive(Debug)]
pub(super) enum Told {
    /// Bytes of a step's output.
    Log(LogStream, BytesMut),
    /// Everything else.
    Message(Message),
}

/// A launcher at work. Dropping it ends its guest: its standard input closes.
#[derive(Debug)]
pub(super) struct Launched {
    child: Child,
    /// Open for as long as the guest is wanted.
    input: Option<ChildStdin>,
    output: ChildStdout,
    buffer: BytesMut,
}

impl Starter {
    /// # Errors
    /// `Unsupported` when there is no program that would be the launcher.
    pub(super) fn new(options: &SandboxOptions, privileged: bool) -> Result<Self> {
        if let Some(program) = &options.launcher {
            let program = std::path::absolute(program).map_err(|e| Error::io("find", program, e))?;
            std::fs::metadata(&program).map_err(|e| Error::io("find the sandbox's launcher", &program, e))?;
            return Ok(Self { program, privileged });
        }
        if !launcher::is_ready() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this program cannot start guests of the sandbox",
            )
            .hint("call `sandbox::run_if_asked()` first in `main`, or name a launcher in the options"));
        }
        // By way of this process, because the file may be replaced while it runs.
        let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        Ok(Self { program, privileged })
    }

    /// The command of a launcher: in a process group of its own, so that keys pressed at this program's terminal
    /// do not reach guests.
    fn command(&self) -> std::process::Command {
        use std::os::unix::process::CommandExt;
        let mut command = if self.privileged {
            std::process::Command::new(&self.program)
        } else {
            let mut command = std::process::Command::new("unshare");
            command.args(["--user", "--map-root-user", "--map-auto", "--"]).arg(&self.program);
            command
        };
        command.args([ARGUMENT, VERSION]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a launcher, which waits for its order and ends without one.
    fn start(&self) -> Result<Launched> {
        Self::spawn(self.command())
    }

    /// The same, for the order of a guest of this name, whose steps have a network or not.
    pub(super) fn start_for_a_guest(&self, online: bool, name: &str) -> Result<Launched> {
        let mut command = self.command();
        command.arg(if online { FOR_AN_ONLINE_GUEST } else { FOR_A_GUEST }).arg(name);
        Self::spawn(command)
    }

    fn spawn(command: std::process::Command) -> Result<Launched> {
        let failed = |e: std::io::Error| {
            let error = Error::new(ErrorKind::Unavailable, "cannot start the sandbox's launcher");
            error.blame(Blame::Farm).source(e)
        };
        let mut child = Command::from(command).spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::unexpected("the sandbox's launcher has no pipes"));
        };
        Ok(Launched { child, input: Some(input), output, buffer: BytesMut::new() })
    }

    /// Has a launcher do something that is no guest.
    pub(super) async fn run(&self, order: &Order) -> Result<()> {
        let mut launched = self.start()?;
        launched.order(order).await?;
        let mut done = false;
        while let Some(told) = launched.next().await? {
            match told {
                Told::Message(Message::Done) => done = true,
                Told::Message(message) => return Err(launched.trouble(message).await),
                Told::Log(..) => {}
            }
        }
        if done { launched.wait().await.map(drop) } else { Err(launched.died().await) }
    }

    /// The same on a thread without a runtime.
    pub(super) fn run_blocking(&self, order: &Order) -> Result<()> {
        use std::io::Write;
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let failed = |e| Error::new(ErrorKind::Unavailable, "cannot start the sandbox's launcher").source(e);
        let mut child = command.spawn().map_err(failed)?;
        let line =
            serde_json::to_vec(order).map_err(|e| Error::unexpected("cannot describe an order").source(e))?;
        let mut input = child.stdin.take();
        if let Some(input) = &mut input {
            // When it cannot be written, the launcher's end tells.
            let _ = input.write_all(&line).and_then(|()| input.write_all(b"\n"));
        }
        let status = child.wait().map_err(failed)?;
        drop(input);
        if status.success() { Ok(()) } else { Err(Error::unexpected("the sandbox's launcher failed")) }
    }
}

impl Launched {
    /// Whether the process is there; somebody may have killed it while it waited.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells a launcher that was started what to do.
    pub(super) async fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)
            .map_err(|e| Error::unexpected("cannot describe the guest to the sandbox").source(e))?;
        line.push(b'\n');
        if let Some(input) = &mut self.input {
            // When it cannot be written, the launcher says why.
            let _ = input.write_all(&line).await;
        }
        Ok(())
    }

    /// The next thing that the launcher tells; `None` once it has closed its end. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// When the pipe cannot be read, or holds what no launcher says.
    pub(super) async fn next(&mut self) -> Result<Option<Told>> {
        let failed = |e| Error::unexpected("cannot hear the sandbox's launcher").source(e);
        loop {
            if let Some(told) = take(&mut self.buffer)? {
                return Ok(Some(told));
            }
            if self.buffer.capacity() - self.buffer.len() < HEADER_BYTES {
                self.buffer.reserve(HEADER_BYTES + FRAME_BYTES_MAX);
            }
            if self.output.read_buf(&mut self.buffer).await.map_err(failed)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Ends the guest and waits until nothing of it is left.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.input = None;
        let quiet = async {
            while let Ok(Some(told)) = self.next().await {
                if matches!(told, Told::Message(Message::Quiet)) {
                    break;
                }
            }
        };
        let quiet = tokio::time::timeout(QUIET_GRACE, quiet).await;
        if quiet.is_err() {
            // The guest dies with its launcher; its folder is removed at the next start.
            self.child.start_kill().map_err(|e| Error::unexpected("cannot stop the sandbox").source(e))?;
        }
        match tokio::time::timeout(REMOVAL_GRACE, self.child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(|e| Error::unexpected("cannot stop the sandbox").source(e)),
            Err(_) => Err(Error::unexpected("the sandbox's folder could not be removed in time")),
        }
    }

    /// Waits for the end of a launcher that has done its work. Its standard input stays open meanwhile: it is not to
    /// stop.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .await
            .map_err(|e| Error::unexpected("cannot wait for the sandbox's launcher").source(e))
    }

    /// The error behind a message that tells of one, once the launcher has ended.
    pub(super) async fn trouble(&mut self, message: Message) -> Error {
        if let Err(error) = self.wait().await {
            return error;
        }
        let failed = |why| {
            let error = Error::new(ErrorKind::Unavailable, "the sandbox failed").with("because", why);
            error.blame(Blame::Farm)
        };
        match message {
            Message::Refused(why) => Error::invalid(why).blame(Blame::Definition),
            Message::Failed(why) => failed(why),
            Message::Killed(why) => failed(why).source(ProcessKilled),
            other => Error::unexpected(format!("the sandbox's launcher told out of turn: {other:?}")),
        }
    }

    /// The error of a launcher that ended without a word.
    pub(super) async fn died(&mut self) -> Error {
        self.input = None;
        let mut words = Vec::new();
        if let Some(pipe) = self.child.stderr.take() {
            // Whatever can be read of its last words is told.
            let _ = pipe.take(CRASH_BYTES_MAX).read_to_end(&mut words).await;
        }
        let words = String::from_utf8_lossy(&words).trim().replace('\n', "; ");
        match self.child.wait().await {
            Ok(status) => {
                let error = Error::new(ErrorKind::Unavailable, "the sandbox's launcher ended early")
                    .blame(Blame::Farm)
                    .with("status", status);
                let error = if words.is_empty() { error } else { error.with("because", words) };
                if status.signal().is_some() { error.source(ProcessKilled) } else { error }
            }
            Err(error) => Error::unexpected("cannot wait for the sandbox's launcher").source(error),
        }
    }
}

/// Takes the first whole frame out of a buffer.
fn take(buffer: &mut BytesMut) -> Result<Option<Told>> {
    let Some(&[kind, a, b, c, d]) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::unexpected("the sandbox's launcher sent a frame that is too long"));
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let content = buffer.split_to(length);
    let told = match kind {
        STDOUT => Told::Log(LogStream::Stdout, content),
        STDERR => Told::Log(LogStream::Stderr, content),
        MESSAGE => Told::Message(
            serde_json::from_slice(&content)
                .map_err(|e| Error::unexpected("the sandbox's launcher sent nonsense").source(e))?,
        ),
        other => {
            return Err(Error::unexpected(format!("the sandbox's launcher sent a frame of kind {other}")));
        }
    };
    Ok(Some(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&[kind][..], &length, content].concat()
    }

    #[test]
    fn frames_are_taken_whole_and_nonsense_is_refused() {
        let message = serde_json::to_vec(&Message::Started(3)).unwrap();
        let bytes = [frame(STDOUT, b"one\n"), frame(MESSAGE, &message)].concat();
        let mut buffer = BytesMut::new();
        let mut told = Vec::new();
        for byte in bytes {
            buffer.extend_from_slice(&[byte]);
            told.extend(take(&mut buffer).unwrap());
        }
        assert!(matches!(&told[0], Told::Log(LogStream::Stdout, content) if content[..] == *b"one\n"));
        assert!(matches!(told[1], Told::Message(Message::Started(3))));
        assert_eq!((told.len(), buffer.len()), (2, 0));
        for bad in [frame(b'?', b""), frame(MESSAGE, b"{"), vec![STDOUT, 255, 255, 255, 255]] {
            assert!(take(&mut BytesMut::from(&bad[..])).is_err());
        }
    }
}
