//! A daemon's progress of one build, complete also where the daemon breaks it off.
//!
//! BuildKit before v0.9 loses the rest of a log stream when more than 1 MiB of log lines have gathered for one message:
//! it sends them to their end, and from then on nothing but empty messages, without end. Lines gather whenever a
//! loaded daemon or its reader pauses for some milliseconds while a step prints fast. A second call to such a daemon
//! tells only what happens from then on.
//!
//! So calls are made ahead of need and left unread, the *spares*. Flow control stops each after a few messages; what
//! follows gathers on the daemon and comes as its next one. When the call that is read breaks, the oldest spare is
//! read, and what it tells again is left out.
//!
//! ```text
//! head   ├──────── read ────────× breaks
//! spare      ├ not read ─────────── read ────×
//! spare             ├ not read ───────────────── read …
//! ```
//!
//! There are two, because the messages that a spare sends before it is stopped may break it as well, and before a
//! spare is read another one has begun.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusRequest, StatusResponse, Vertex, VertexLog};
use futures_util::stream::Peekable;
use futures_util::{Stream, StreamExt, future};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::probe::Control;
use super::progress::Progress;
use crate::limits;

/// Calls that stand behind the one that is read.
const SPARES: usize = 2;
/// Bytes of log lines after which a younger spare takes the place of the oldest: about what the daemon keeps for each.
const SPARE_LOG_BYTES: usize = 8 << 20;
/// How long the first message of a spare is waited for. It comes with the next line that a step prints, so a call
/// that has none yet has begun before whatever comes.
const SPARE_BEGIN: Duration = Duration::from_secs(2);
/// Batches with lines that are told while a call is open, after which what it sent before flow control stopped it, and
/// what the head had on its way, are of the past.
const SPARE_BATCHES: u32 = 256;
/// Log lines in a message that is the first part of a batch: BuildKit splits those above.
const BATCH_LOG_BYTES: usize = 1 << 20;

/// Messages of one call.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

/// Makes another call that tells of the same build.
pub(super) type OpenSpare = Box<dyn Fn() -> Messages + Send>;

/// The daemon's progress.
pub(super) struct StatusReader {
    head: Head,
    /// `None` for daemons that need no spares, and once no further call can be made.
    open_spare: Option<OpenSpare>,
    spares: VecDeque<Spare>,
    /// Bytes of log lines since the youngest spare was opened.
    since_spare: usize,
    /// What was told so far; nothing when there never was a spare.
    told: Option<Told>,
    /// The solve is over, so that no call can begin that tells more.
    draining: bool,
    any_message: bool,
    ended: bool,
    broken: Option<Status>,
}

/// The call that is read.
struct Head {
    messages: Messages,
    /// How many of the last messages were empty.
    empty: u32,
    /// A message was as large as the first part of a batch.
    split: bool,
    /// It was a spare.
    took_over: bool,
    /// Its reading began.
    read: bool,
    /// Batches with lines that were told since it began.
    batches: u32,
    /// It surely began before the end of what was told before it.
    joins: bool,
    /// Time of its last lines.
    newest: Option<Time>,
}

/// A call that is not read yet.
struct Spare {
    messages: Pin<Box<Peekable<Messages>>>,
    opened: Instant,
    /// It tells whatever happens from now on.
    begun: bool,
    /// See [`Head`].
    batches: u32,
    joins: bool,
    /// It had begun before the head was read.
    before_head: bool,
}

/// What was told, so that it is not told again.
#[derive(Debug, Default)]
struct Told {
    /// Time of the last lines by vertex and stream; they come in order.
    lines: BTreeMap<(String, i64), Time>,
    /// Time of the last lines at all.
    newest: Option<Time>,
    /// By digest.
    vertexes: BTreeMap<String, Stage>,
    /// Lines between two calls may be missing.
    gap: bool,
}

/// Seconds and nanoseconds.
type Time = (i64, i32);

/// How far a vertex is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Known,
    Started,
    Completed,
}

impl StatusReader {
    /// The progress of the build `name` by a connection; a second one, for spares, when the daemon needs them.
    pub(super) fn open(control: Control, spares: Option<Control>, name: &str) -> Self {
        let open_spare = spares.map(|control| -> OpenSpare {
            let name = name.to_owned();
            Box::new(move || status_messages(control.clone(), name.clone()))
        });
        Self::new(status_messages(control, name.to_owned()), open_spare)
    }

    fn new(messages: Messages, open_spare: Option<OpenSpare>) -> Self {
        let told = open_spare.is_some().then(Told::default);
        Self {
            head: Head::first(messages),
            open_spare,
            spares: VecDeque::new(),
            since_spare: 0,
            told,
            draining: false,
            any_message: false,
            ended: false,
            broken: None,
        }
    }

    /// Whether there is nothing more to read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the daemon has told anything of the build.
    pub(super) fn any_message(&self) -> bool {
        self.any_message
    }

    /// Why lines may be missing, if they may.
    pub(super) fn incomplete(&self) -> Option<&str> {
        let gap = self.told.as_ref().is_some_and(|told| told.gap);
        let gap = gap.then_some("a step printed faster than the daemon can tell");
        self.broken.as_ref().map(Status::message).or(gap)
    }

    /// The next message, an empty one at the end. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> StatusResponse {
        loop {
            self.open_spares();
            let waits = self.head.took_over
                && !self.draining
                && self.open_spare.is_some()
                && self.begun_spares() < SPARES;
            if self.head.took_over && !waits {
                let begun = self.spares.iter_mut().filter(|spare| spare.begun);
                begun.for_each(|spare| spare.before_head |= !self.head.read);
                self.head.read = true;
            }
            tokio::select! {
                biased;
                () = next_begun(&mut self.spares) => self.drop_spares(),
                message = self.head.messages.next(), if !waits => {
                    if let Some(message) = self.take(message) {
                        return message;
                    }
                }
            }
            if self.ended {
                return StatusResponse::default();
            }
        }
    }

    /// Reads to the end, or until it is silent for `quiet`. Says whether it ended as it should.
    pub(super) async fn drain(&mut self, progress: &mut Progress, quiet: Duration) -> bool {
        self.draining = true;
        while !self.ended {
            match tokio::time::timeout(quiet, self.next()).await {
                Ok(message) => {
                    progress.update(message);
                    progress.ready().await;
                }
                Err(_) => return false,
            }
        }
        self.broken.is_none()
    }

    fn begun_spares(&self) -> usize {
        self.spares.iter().filter(|spare| spare.begun).count()
    }

    fn open_spares(&mut self) {
        let Some(open) = self.open_spare.as_ref().filter(|_| !self.draining) else { return };
        if self.since_spare >= SPARE_LOG_BYTES && self.spares.iter().all(|spare| spare.begun) {
            self.spares.push_back(Spare::new(open()));
            self.since_spare = 0;
        }
        while self.spares.len() < SPARES {
            self.spares.push_back(Spare::new(open()));
            self.since_spare = 0;
        }
    }

    /// Lets go of spares that cannot be had, and of the oldest when there are enough younger ones.
    fn drop_spares(&mut self) {
        let before = self.spares.len();
        self.spares.retain_mut(|spare| !spare.failed());
        if self.spares.len() < before {
            self.open_spare = None;
        }
        while self.begun_spares() > SPARES {
            self.spares.pop_front();
        }
    }

    /// The message to tell, if this is one.
    fn take(&mut self, message: Option<Result<StatusResponse, Status>>) -> Option<StatusResponse> {
        let message = match message {
            Some(Ok(message)) => message,
            over => {
                self.ended = true;
                match (over, &mut self.told) {
                    // A call that begins when the build is gone, or breaks with it.
                    (Some(Err(_)), Some(told)) if self.draining && self.head.took_over => {
                        told.gap |= !told.is_complete();
                    }
                    (over, _) => self.broken = over.and_then(Result::err),
                }
                return None;
            }
        };
        self.any_message = true;
        if self.head.breaks(&message, self.told.is_some()) {
            self.go_on();
            return None;
        }
        let Some(told) = &mut self.told else { return Some(message) };
        let message = told.only_new(message, &mut self.head);
        let bytes = log_bytes(&message);
        if bytes > 0 && !self.head.split {
            self.since_spare = self.since_spare.saturating_add(bytes);
            self.head.batches += 1;
            let begun = self.spares.iter_mut().filter(|spare| spare.begun);
            begun.for_each(|spare| spare.batches += 1);
        }
        Some(message)
    }

    /// The head is broken: the oldest spare takes its place.
    fn go_on(&mut self) {
        if self.told.as_ref().is_some_and(|told| self.head.told_all(told)) {
            let joins = |spare: &Spare| spare.begun && (spare.before_head || spare.batches >= SPARE_BATCHES);
            self.spares.iter_mut().for_each(|spare| spare.joins |= joins(spare));
        }
        if let Some(spare) = self.spares.pop_front() {
            self.head = Head::of(spare);
            return;
        }
        match &self.open_spare {
            // Whatever began has ended, so that nothing is left to tell.
            Some(_) if self.told.as_ref().is_some_and(Told::is_complete) => self.ended = true,
            Some(open) => self.head = Head::of(Spare::new(open())),
            // The call is given up, which ends the loop on the daemon too.
            None => {
                self.head = Head::first(futures_util::stream::empty().boxed());
                self.broken = Some(Status::data_loss("the daemon sends nothing but empty messages"));
                self.ended = true;
            }
        }
    }
}

impl Head {
    fn first(messages: Messages) -> Self {
        let (took_over, read) = (false, false);
        Self { messages, empty: 0, split: false, took_over, read, batches: 0, joins: true, newest: None }
    }

    fn of(spare: Spare) -> Self {
        let Spare { messages, batches, joins, .. } = spare;
        Self { took_over: true, batches, joins, ..Self::first(messages) }
    }

    /// Whether it told all that had happened by the time it was read, rather than having broken long before.
    fn told_all(&self, told: &Told) -> bool {
        self.batches >= SPARE_BATCHES && self.newest == told.newest
    }

    /// Whether the call tells nothing more, as far as `message` shows.
    fn breaks(&mut self, message: &StatusResponse, with_spares: bool) -> bool {
        self.split |= log_bytes(message) > BATCH_LOG_BYTES;
        self.empty = if *message == StatusResponse::default() { self.empty + 1 } else { 0 };
        // To go on with a spare is right also after a single one that meant nothing.
        let most = if with_spares && self.split { 1 } else { limits::BUILDKIT_STATUS_EMPTY_MAX };
        self.empty >= most
    }
}

impl Spare {
    fn new(messages: Messages) -> Self {
        let messages = Box::pin(messages.peekable());
        Self { messages, opened: Instant::now(), begun: false, batches: 0, joins: false, before_head: false }
    }

    /// Waits until it has begun. Its messages stay.
    async fn begin(&mut self) {
        let _ = tokio::time::timeout_at(self.opened + SPARE_BEGIN, self.messages.as_mut().peek()).await;
        self.begun = true;
    }

    /// Whether its first message is that it cannot be had.
    fn failed(&mut self) -> bool {
        self.begun
            && matches!(future::FutureExt::now_or_never(self.messages.as_mut().peek()), Some(Some(Err(_))))
    }
}

/// Waits until one more spare has begun.
async fn next_begun(spares: &mut VecDeque<Spare>) {
    let beginning: Vec<_> =
        spares.iter_mut().filter(|spare| !spare.begun).map(|spare| Box::pin(spare.begin())).collect();
    if beginning.is_empty() {
        return future::pending().await;
    }
    future::select_all(beginning).await;
}

impl Told {
    /// Leaves out what was told before, and remembers the rest.
    fn only_new(&mut self, mut message: StatusResponse, head: &mut Head) -> StatusResponse {
        message.logs.retain(|log| self.is_new_log(log, head));
        message.vertexes.retain(|vertex| self.is_new_vertex(vertex, head));
        message
    }

    fn is_new_log(&mut self, log: &VertexLog, head: &mut Head) -> bool {
        let at = time(log.timestamp.as_ref());
        // Its first line is behind the last one before, and there may have been others in between.
        self.gap |= head.newest.is_none() && !head.joins && self.newest.is_some_and(|newest| newest < at);
        head.newest = head.newest.max(Some(at));
        self.newest = self.newest.max(Some(at));
        let last = self.lines.insert((log.vertex.clone(), log.stream), at);
        match last.filter(|_| head.took_over) {
            Some(last) if last >= at => {
                self.lines.insert((log.vertex.clone(), log.stream), last);
                false
            }
            _ => true,
        }
    }

    fn is_new_vertex(&mut self, vertex: &Vertex, head: &Head) -> bool {
        let stage = match (&vertex.started, &vertex.completed) {
            (_, Some(_)) => Stage::Completed,
            (Some(_), None) => Stage::Started,
            (None, None) => Stage::Known,
        };
        let last = self.vertexes.get(&vertex.digest).copied().filter(|_| head.took_over);
        if last.is_some_and(|last| last >= stage) {
            return false;
        }
        self.vertexes.insert(vertex.digest.clone(), stage);
        true
    }

    /// Whether every vertex that began has ended.
    fn is_complete(&self) -> bool {
        !self.vertexes.values().any(|stage| *stage == Stage::Started)
    }
}

fn time(timestamp: Option<&Timestamp>) -> Time {
    timestamp.map_or((0, 0), |timestamp| (timestamp.seconds, timestamp.nanos))
}

fn log_bytes(message: &StatusResponse) -> usize {
    message.logs.iter().map(|log| log.msg.len()).sum()
}

/// Opens the progress of the build `name`, again if the daemon does not know it yet. Once a message came it is
/// not opened again: a daemon may tell everything from the beginning.
fn status_messages(control: Control, name: String) -> Messages {
    let opened = async move {
        let mut control = control;
        for _ in 1..limits::BUILDKIT_STATUS_TRIES_MAX {
            if let Ok(opened) = first_message(&mut control, &name).await {
                return Ok(opened);
            }
        }
        first_message(&mut control, &name).await
    };
    Box::pin(futures_util::stream::once(opened).flat_map(|opened| match opened {
        Ok(Some((first, rest))) => {
            futures_util::stream::once(std::future::ready(Ok(first))).chain(rest).boxed()
        }
        Ok(None) => futures_util::stream::empty().boxed(),
        Err(status) => futures_util::stream::once(std::future::ready(Err(status))).boxed(),
    }))
}

async fn first_message(
    control: &mut Control,
    name: &str,
) -> Result<Option<(StatusResponse, Streaming<StatusResponse>)>, Status> {
    let request = StatusRequest { r#ref: name.to_owned() };
    let mut stream = control.status(request).await?.into_inner();
    Ok(stream.message().await?.map(|first| (first, stream)))
}

#[cfg(test)]
mod tests;
