//! Against a daemon of our own that gathers lines and breaks calls off as BuildKit before v0.9 does.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::sync::watch;

use super::*;

/// Bytes of a line.
const LINE_BYTES: usize = 32 << 10;
/// Lines that break a call when they come at once.
const TOO_MANY: usize = BATCH_LOG_BYTES / LINE_BYTES + 1;

/// What a step printed, and how often a call was made. Line `n` has time `n + 1`.
struct Daemon {
    printed: watch::Sender<(usize, bool)>,
    calls: Mutex<usize>,
}

/// One call: it tells what happens after it began.
struct Call {
    printed: watch::Receiver<(usize, bool)>,
    next: usize,
    begun: bool,
    parts: VecDeque<StatusResponse>,
    broken: bool,
}

impl Daemon {
    fn new() -> Arc<Self> {
        Arc::new(Self { printed: watch::Sender::new((0, false)), calls: Mutex::new(0) })
    }

    fn print(&self, lines: usize) {
        self.printed.send_modify(|(printed, _)| *printed += lines);
    }

    fn end(&self) {
        self.printed.send_modify(|(_, ended)| *ended = true);
    }

    fn call(self: &Arc<Self>) -> Messages {
        let daemon = Arc::clone(self);
        let begin = async move {
            *daemon.calls.lock().unwrap() += 1;
            let printed = daemon.printed.subscribe();
            let next = printed.borrow().0;
            Call { printed, next, begun: false, parts: VecDeque::new(), broken: false }
        };
        let calls = futures_util::stream::once(begin).map(|call| {
            futures_util::stream::unfold(call, |mut call| async {
                let message = call.message().await?;
                Some((Ok(message), call))
            })
        });
        calls.flatten().boxed()
    }

    fn reader(self: &Arc<Self>, with_spares: bool) -> StatusReader {
        let daemon = Arc::clone(self);
        let open: OpenSpare = Box::new(move || daemon.call());
        StatusReader::new(self.call(), with_spares.then_some(open))
    }
}

impl Call {
    async fn message(&mut self) -> Option<StatusResponse> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Some(part);
            }
            if self.broken {
                // As the daemon does it, without end.
                return Some(StatusResponse::default());
            }
            let (printed, ended) = *self.printed.borrow_and_update();
            let (from, first) =
                (std::mem::replace(&mut self.next, printed), !std::mem::replace(&mut self.begun, true));
            let lines: Vec<VertexLog> = (from..printed).map(line).collect();
            let vertex = (first || ended && from < printed).then(|| vertex(ended));
            if lines.len() >= TOO_MANY {
                let (head, rest) = lines.split_at(TOO_MANY);
                self.parts.push_back(message(vertex, head.to_vec()));
                self.parts.extend(rest.iter().map(|line| message(None, vec![line.clone()])));
                self.broken = true;
            } else if vertex.is_some() || !lines.is_empty() {
                self.parts.push_back(message(vertex, lines));
            } else if ended {
                return None;
            } else {
                self.printed.changed().await.ok()?;
            }
        }
    }
}

fn line(number: usize) -> VertexLog {
    let seconds = i64::try_from(number + 1).unwrap();
    VertexLog {
        vertex: "step".to_owned(),
        timestamp: Some(Timestamp { seconds, nanos: 0 }),
        stream: 1,
        msg: vec![b'x'; LINE_BYTES],
    }
}

fn vertex(completed: bool) -> Vertex {
    let at = || Some(Timestamp::default());
    Vertex {
        digest: "step".to_owned(),
        started: at(),
        completed: at().filter(|_| completed),
        ..Vertex::default()
    }
}

fn message(vertex: Option<Vertex>, logs: Vec<VertexLog>) -> StatusResponse {
    StatusResponse { vertexes: vertex.into_iter().collect(), logs, ..StatusResponse::default() }
}

/// What a reader told.
#[derive(Default)]
struct Seen {
    lines: Vec<usize>,
    vertexes: usize,
}

impl Seen {
    /// Reads `messages` of them, fewer when nothing comes for a while.
    async fn read(&mut self, reader: &mut StatusReader, messages: usize) {
        for _ in 0..messages {
            let Ok(message) = tokio::time::timeout(SPARE_BEGIN * 3, reader.next()).await else { return };
            self.vertexes += message.vertexes.len();
            let seconds = message.logs.iter().map(|log| log.timestamp.as_ref().unwrap().seconds - 1);
            self.lines.extend(seconds.map(|seconds| usize::try_from(seconds).unwrap()));
            if reader.ended() {
                return;
            }
        }
    }

    async fn read_rest(&mut self, reader: &mut StatusReader) {
        reader.draining = true;
        self.read(reader, usize::MAX).await;
        assert!(reader.ended());
    }
}

#[tokio::test(start_paused = true)]
async fn lines_that_break_every_call_are_all_told_once() {
    let daemon = Daemon::new();
    let mut reader = daemon.reader(true);
    let mut seen = Seen::default();
    // The calls begin with the build.
    seen.read(&mut reader, 1).await;
    for round in 0..50 {
        for _ in 0..SPARE_BATCHES * 2 {
            daemon.print(1);
            seen.read(&mut reader, 2).await;
        }
        daemon.print(TOO_MANY + round);
        seen.read(&mut reader, 10).await;
    }
    daemon.print(5);
    daemon.end();
    seen.read_rest(&mut reader).await;
    let printed = daemon.printed.borrow().0;
    assert!(seen.lines.into_iter().eq(0..printed));
    assert_eq!((reader.incomplete(), seen.vertexes), (None, 2), "begin and end of the step");
    assert!(reader.broken.is_none());
    let calls = *daemon.calls.lock().unwrap();
    assert!((20..150).contains(&calls), "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn without_spares_a_broken_call_is_given_up_and_said() {
    let daemon = Daemon::new();
    let mut reader = daemon.reader(false);
    let mut seen = Seen::default();
    seen.read(&mut reader, 1).await;
    daemon.print(TOO_MANY * 2);
    seen.read_rest(&mut reader).await;
    assert_eq!(seen.lines.len(), TOO_MANY * 2);
    assert!(reader.incomplete().is_some());
    assert_eq!(reader.broken.unwrap().code(), tonic::Code::DataLoss);
}

#[tokio::test(start_paused = true)]
async fn single_empty_messages_break_nothing() {
    let pairs = (0..limits::BUILDKIT_STATUS_EMPTY_MAX)
        .flat_map(|_| [StatusResponse::default(), message(Some(vertex(false)), Vec::new())]);
    let mut reader = StatusReader::new(futures_util::stream::iter(pairs.map(Ok)).boxed(), None);
    while !reader.ended() {
        reader.next().await;
    }
    assert!(reader.incomplete().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_steady_step_costs_a_call_for_every_8_mib() {
    let daemon = Daemon::new();
    let mut reader = daemon.reader(true);
    let mut seen = Seen::default();
    let rounds = SPARE_LOG_BYTES * 4 / LINE_BYTES;
    seen.read(&mut reader, 1).await;
    for _ in 0..rounds {
        daemon.print(1);
        seen.read(&mut reader, 1).await;
    }
    daemon.end();
    seen.read_rest(&mut reader).await;
    assert!(seen.lines.into_iter().eq(0..rounds));
    let calls = *daemon.calls.lock().unwrap();
    assert!((6..=8).contains(&calls), "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn spares_that_cannot_be_had_leave_the_head_as_it_is() {
    let daemon = Daemon::new();
    let refused: OpenSpare =
        Box::new(|| futures_util::stream::iter([Err(Status::unavailable("refused"))]).boxed());
    let mut reader = StatusReader::new(daemon.call(), Some(refused));
    let mut seen = Seen::default();
    daemon.print(3);
    seen.read(&mut reader, 3).await;
    daemon.print(TOO_MANY);
    seen.read(&mut reader, usize::MAX).await;
    assert!(reader.ended() && reader.incomplete().is_some());
    assert_eq!(seen.lines.len(), TOO_MANY);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However a step prints and the reader pauses: in order, nothing twice, and what is missing is said.
    #[test]
    fn nothing_is_told_twice_and_nothing_is_lost_silently(
        rounds in prop::collection::vec((prop_oneof![0..3usize, TOO_MANY - 2..TOO_MANY * 3], 0..60usize), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let daemon = Daemon::new();
            let mut reader = daemon.reader(true);
            let mut seen = Seen::default();
            // The calls begin with the build.
            seen.read(&mut reader, 1).await;
            for (lines, reads) in rounds {
                daemon.print(lines);
                seen.read(&mut reader, reads).await;
            }
            daemon.end();
            seen.read_rest(&mut reader).await;
            prop_assert!(seen.lines.is_sorted_by(|a, b| a < b));
            let printed = daemon.printed.borrow().0;
            if reader.incomplete().is_none() {
                prop_assert_eq!(seen.lines.len(), printed);
            }
            Ok(())
        })?;
    }
}
