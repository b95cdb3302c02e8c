//! A daemon's progress → the events of a build, in the order of the plan. Pure: messages in, events out.
//!
//! The daemon tells of ops by digests of its own, in batches, and its last log lines of an op may come after the word
//! that the op has ended. So the end of a step is held back until something after it begins, or until the
//! progress itself ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};

use crate::builder::lines::{LineSplitter, StepTail};
use crate::builder::{BuildEvent, BuildSink, LogStream};

/// The stream number of standard error in a daemon's log messages.
const STDERR: i64 = 2;

/// Follows one solve.
pub(super) struct Progress {
    names: Vec<String>,
    /// By what the daemon calls them.
    by_name: BTreeMap<String, usize>,
    /// By the digests that the daemon has told with those names.
    by_digest: BTreeMap<String, usize>,
    sink: Arc<dyn BuildSink>,
    current: Option<Running>,
    /// Steps below this one have begun.
    begun: usize,
    failed: Option<usize>,
    /// The message of the first op that failed and is no step.
    other_failure: Option<(String, String)>,
}

/// The step whose output is being read.
#[derive(Default)]
struct Running {
    index: usize,
    stdout: LineSplitter,
    stderr: LineSplitter,
    tail: StepTail,
    /// Known once the daemon says that it ended well.
    ended: Option<(Duration, bool)>,
    /// Its end was told.
    told: bool,
}

impl Progress {
    /// Follows a solve whose steps people call `names` and the daemon calls `daemon_names`.
    pub(super) fn new(daemon_names: &[String], names: Vec<String>, sink: Arc<dyn BuildSink>) -> Self {
        let by_name = daemon_names.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        Self {
            names,
            by_name,
            by_digest: BTreeMap::new(),
            sink,
            current: None,
            begun: 0,
            failed: None,
            other_failure: None,
        }
    }

    /// The step to which the daemon gave this digest.
    pub(super) fn step_of(&self, digest: &str) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    /// Takes one message.
    pub(super) fn update(&mut self, message: StatusResponse) {
        let mut steps: BTreeMap<usize, (Vec<Vertex>, Vec<VertexLog>)> = BTreeMap::new();
        for vertex in message.vertexes {
            match self.by_name.get(&vertex.name).copied() {
                Some(index) => {
                    self.by_digest.insert(vertex.digest.clone(), index);
                    steps.entry(index).or_default().0.push(vertex);
                }
                None => self.note_other(vertex),
            }
        }
        for log in message.logs {
            match self.step_of(&log.vertex) {
                Some(index) => steps.entry(index).or_default().1.push(log),
                None => self.log_other(&log),
            }
        }
        // Within a batch: a step's begin, its lines, its end; then the next step.
        for (index, (vertexes, logs)) in steps {
            if !logs.is_empty() || vertexes.iter().any(|vertex| vertex.started.is_some()) {
                self.begin(index);
            }
            logs.iter().for_each(|log| self.log(index, log));
            vertexes.iter().for_each(|vertex| self.end(index, vertex));
        }
    }

    /// The progress is over: tells what was held back. After a success that is the end of every step.
    pub(super) fn finish(&mut self, succeeded: bool) {
        if succeeded {
            if let Some(last) = self.names.len().checked_sub(1) {
                self.begin(last);
            }
            self.assume_ended();
        }
        self.flush();
    }

    /// Where the events go.
    pub(super) fn sink(&self) -> Arc<dyn BuildSink> {
        Arc::clone(&self.sink)
    }

    /// Waits until the reader of the events has room for more lines.
    pub(super) async fn ready(&self) {
        self.sink.ready().await;
    }

    /// The step that failed, when the daemon's progress said so.
    pub(super) fn failed_step(&self) -> Option<usize> {
        self.failed
    }

    /// Whether any step began.
    pub(super) fn any_step_began(&self) -> bool {
        self.begun > 0
    }

    /// The last step that began.
    pub(super) fn last_begun(&self) -> Option<usize> {
        self.begun.checked_sub(1)
    }

    /// Name and message of the first op besides the steps that failed.
    pub(super) fn other_failure(&self) -> Option<&(String, String)> {
        self.other_failure.as_ref()
    }

    /// The last lines of the step that began last. Only after [`Self::finish`] they are all there.
    pub(super) fn tail(&self) -> Vec<String> {
        self.current.as_ref().map(|running| running.tail.lines()).unwrap_or_default()
    }

    /// One line of the engine's own, outside any step.
    pub(super) fn engine_line(&self, step: Option<usize>, line: String) {
        self.sink.emit(BuildEvent::Log { stream: LogStream::Engine, step, line });
    }

    /// Tells the begin of steps up to `index`: they run in order, so a later one implies the earlier.
    fn begin(&mut self, index: usize) {
        while self.begun <= index {
            self.assume_ended();
            self.flush();
            let next = self.begun;
            self.current = Some(Running { index: next, ..Running::default() });
            self.begun += 1;
            let name = self.names.get(next).cloned().unwrap_or_default();
            self.sink.emit(BuildEvent::StepStarted { index: next, total: self.names.len(), name });
        }
    }

    /// The current step must have ended well, whatever the daemon said of it.
    fn assume_ended(&mut self) {
        if let Some(running) = &mut self.current
            && !running.told
        {
            running.ended.get_or_insert((Duration::ZERO, false));
        }
    }

    /// Tells what is left of the current step: an unfinished line, and its end if it ended well.
    fn flush(&mut self) {
        let Some(running) = &mut self.current else { return };
        let (index, sink) = (running.index, &self.sink);
        let Running { stdout, stderr, tail, .. } = running;
        stdout.finish(&mut |line| emit_line(sink.as_ref(), index, LogStream::Stdout, tail, line));
        stderr.finish(&mut |line| emit_line(sink.as_ref(), index, LogStream::Stderr, tail, line));
        if let Some((took, cached)) = running.ended.take() {
            running.told = true;
            self.sink.emit(BuildEvent::StepFinished { index, took, cached });
        }
    }

    fn log(&mut self, index: usize, log: &VertexLog) {
        let sink = self.sink.as_ref();
        let stream = if log.stream == STDERR { LogStream::Stderr } else { LogStream::Stdout };
        match &mut self.current {
            Some(running) if running.index == index => {
                let tail = &mut running.tail;
                let lines = if log.stream == STDERR { &mut running.stderr } else { &mut running.stdout };
                lines.push(&log.msg, &mut |line| emit_line(sink, index, stream, tail, line));
            }
            // The daemon was very late; the lines are told under their step's name all the same.
            _ => {
                let (mut lines, mut tail) = (LineSplitter::default(), StepTail::default());
                let mut emit = |line| emit_line(sink, index, stream, &mut tail, line);
                lines.push(&log.msg, &mut emit);
                lines.finish(&mut emit);
            }
        }
    }

    fn end(&mut self, index: usize, vertex: &Vertex) {
        if vertex.completed.is_none() {
            return;
        }
        if !vertex.error.is_empty() {
            // A step that never began was only called off.
            if index < self.begun {
                self.failed.get_or_insert(index);
            }
            return;
        }
        self.begin(index);
        if let Some(running) = &mut self.current
            && running.index == index
        {
            let took = duration(vertex.started.as_ref(), vertex.completed.as_ref());
            running.ended = Some((took, vertex.cached));
        }
    }

    fn note_other(&mut self, vertex: Vertex) {
        tracing::debug!(
            name = %vertex.name,
            cached = vertex.cached,
            completed = vertex.completed.is_some(),
            "progress of the daemon"
        );
        if !vertex.error.is_empty() && self.other_failure.is_none() {
            self.other_failure = Some((vertex.name, vertex.error));
        }
    }

    fn log_other(&self, log: &VertexLog) {
        for line in String::from_utf8_lossy(&log.msg).lines() {
            self.engine_line(None, line.to_owned());
        }
    }
}

fn emit_line(sink: &dyn BuildSink, index: usize, stream: LogStream, tail: &mut StepTail, line: String) {
    tail.push(stream, line.clone());
    let clipped = is_clip_notice(&line);
    let stream = if clipped { LogStream::Engine } else { stream };
    sink.emit(BuildEvent::Log { stream, step: Some(index), line });
    if clipped {
        let line = "the daemon dropped output of this step; BUILDKIT_STEP_LOG_MAX_SIZE and \
                    BUILDKIT_STEP_LOG_MAX_SPEED in the daemon's environment raise its limits";
        sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: Some(index), line: line.to_owned() });
    }
}

/// The text with which a daemon says that it drops output of a step, such as
/// `[output clipped, log limit 200KiB/s reached]`.
fn is_clip_notice(line: &str) -> bool {
    line.starts_with("[output clipped, log limit ") && line.ends_with(" reached]")
}

fn duration(started: Option<&Timestamp>, completed: Option<&Timestamp>) -> Duration {
    let nanoseconds = |t: &Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
    let (Some(started), Some(completed)) = (started, completed) else { return Duration::ZERO };
    let nanoseconds = nanoseconds(completed) - nanoseconds(started);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use crate::limits::LOG_TAIL_LINES;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    #[async_trait::async_trait]
    impl BuildSink for Told {
        fn emit(&self, event: BuildEvent) {
            let text = match event {
                BuildEvent::StepStarted { index, total, name } => format!("start {index}/{total} {name}"),
                BuildEvent::StepFinished { index, took, cached } => {
                    format!("end {index} {}ms{}", took.as_millis(), if cached { " cached" } else { "" })
                }
                BuildEvent::Log { stream, step, line } => format!("{stream:?} {step:?} {line}"),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(text);
        }

        async fn ready(&self) {}
    }

    fn follow(steps: usize) -> (Progress, Arc<Told>) {
        let told = Arc::new(Told::default());
        let daemon_names: Vec<String> = (0..steps).map(|index| format!("step {index}")).collect();
        let names = (0..steps).map(|index| format!("s{index}")).collect();
        (Progress::new(&daemon_names, names, Arc::clone(&told) as Arc<dyn BuildSink>), told)
    }

    /// At `times` in milliseconds: started, completed.
    fn vertex(index: usize, started: Option<i32>, completed: Option<i32>) -> Vertex {
        let time = |ms: i32| Timestamp { seconds: 100, nanos: ms * 1_000_000 };
        Vertex {
            digest: format!("digest {index}"),
            name: format!("step {index}"),
            started: started.map(time),
            completed: completed.map(time),
            ..Vertex::default()
        }
    }

    fn log(index: usize, stream: i64, text: &str) -> VertexLog {
        let vertex = format!("digest {index}");
        VertexLog { vertex, stream, msg: text.as_bytes().to_vec(), ..VertexLog::default() }
    }

    fn message(vertexes: Vec<Vertex>, logs: Vec<VertexLog>) -> StatusResponse {
        StatusResponse { vertexes, logs, ..StatusResponse::default() }
    }

    #[test]
    fn one_batch_with_everything_is_told_in_order() {
        let (mut progress, told) = follow(2);
        progress.update(message(
            vec![vertex(1, Some(20), Some(50)), vertex(0, Some(0), Some(20))],
            vec![log(1, 1, "b\n"), log(0, 2, "a\n")],
        ));
        progress.finish(true);
        let want = [
            "start 0/2 s0",
            "Stderr Some(0) a",
            "end 0 20ms",
            "start 1/2 s1",
            "Stdout Some(1) b",
            "end 1 30ms",
        ];
        assert_eq!(*told.0.lock().unwrap(), want);
    }

    #[test]
    fn lines_that_come_after_the_end_of_their_step_are_told_before_it() {
        let (mut progress, told) = follow(2);
        progress.update(message(vec![vertex(0, Some(0), None)], vec![log(0, 1, "par")]));
        progress.update(message(vec![vertex(0, Some(0), Some(5))], vec![]));
        progress.update(message(vec![], vec![log(0, 1, "tial\nlast")]));
        progress.update(message(vec![vertex(1, Some(5), None)], vec![]));
        progress.finish(true);
        progress.finish(true);
        let want = [
            "start 0/2 s0",
            "Stdout Some(0) partial",
            "Stdout Some(0) last",
            "end 0 5ms",
            "start 1/2 s1",
            "end 1 0ms",
        ];
        assert_eq!(*told.0.lock().unwrap(), want);
    }

    #[test]
    fn a_failed_step_has_no_end_and_keeps_its_tail() {
        let (mut progress, told) = follow(3);
        progress.update(message(vec![vertex(0, Some(0), Some(1))], vec![]));
        let failed = Vertex { error: "exit code: 1".to_owned(), ..vertex(1, Some(1), Some(2)) };
        let called_off = Vertex { error: "canceled".to_owned(), ..vertex(2, None, Some(2)) };
        let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
        progress.update(message(vec![failed, called_off], vec![log(1, 1, &lines)]));
        progress.finish(false);
        assert_eq!((progress.failed_step(), progress.last_begun()), (Some(1), Some(1)));
        assert_eq!(progress.step_of("digest 1"), Some(1));
        let tail = progress.tail();
        assert_eq!((tail.len(), tail.last().unwrap().as_str()), (LOG_TAIL_LINES, "99"));
        assert!(
            !told.0.lock().unwrap().iter().any(|event| event.starts_with("end 1") || event.contains("s2"))
        );
    }

    #[test]
    fn dropped_output_is_told_by_the_engine() {
        let (mut progress, told) = follow(1);
        let notice = "x\n[output clipped, log limit 200KiB/s reached]\n";
        progress.update(message(vec![vertex(0, Some(0), None)], vec![log(0, 1, notice)]));
        let told = told.0.lock().unwrap();
        assert_eq!(told[2], "Engine Some(0) [output clipped, log limit 200KiB/s reached]");
        assert!(told[3].starts_with("Engine Some(0) the daemon dropped output"));
    }

    #[test]
    fn notices_of_dropped_output_are_known() {
        assert!(is_clip_notice("[output clipped, log limit 200KiB/s reached]"));
        assert!(is_clip_notice("[output clipped, log limit 2MiB reached]"));
        assert!(!is_clip_notice("output clipped"));
    }

    #[test]
    fn other_ops_are_no_steps_and_their_failure_is_kept() {
        let (mut progress, told) = follow(1);
        let upload = Vertex {
            error: "digest mismatch".to_owned(),
            name: "upload".to_owned(),
            ..vertex(9, Some(0), Some(1))
        };
        progress.update(message(vec![upload], vec![log(9, 1, "words\n")]));
        assert!(!progress.any_step_began());
        assert_eq!(progress.other_failure().unwrap().0, "upload");
        assert_eq!(*told.0.lock().unwrap(), ["Engine None words"]);
    }

    #[test]
    fn a_cached_step_is_told_as_such() {
        let (mut progress, told) = follow(1);
        progress.update(message(vec![Vertex { cached: true, ..vertex(0, Some(3), Some(3)) }], vec![]));
        progress.finish(true);
        assert_eq!(*told.0.lock().unwrap(), ["start 0/1 s0", "end 0 0ms cached"]);
    }
}
