//! What of an attempt's output goes into its log: all of it up to the bound; beyond, its first half, its last half and
//! every line of the engine's own.
//!
//! ```text
//! lines ─▶ head ───────────────▶ log            up to half of the bound, at once
//!      └─▶ tail (on disk) ─ end ▶ log            two segments; the older is given up when the newer is full
//!                └ the engine's lines of a given-up segment ─▶ log
//! ```
//!
//! The log itself only grows, so that the numbers of its lines stay true.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::builder::LogStream;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::job_log::block::{Parsed, read_block};
use crate::job_log::{Lines, Origin};
use crate::limits;

/// Bytes of the engine's own lines that are kept of the middle of a log.
const ENGINE_BYTES_MAX: u64 = 4 << 20;

/// The bounded log of one attempt.
#[derive(Debug)]
pub(super) struct BoundedLog {
    clock: Arc<dyn Clock>,
    half: u64,
    head_bytes: u64,
    tail: Option<Tail>,
}

/// What comes behind the head.
#[derive(Debug, Default)]
struct Tail {
    older: Option<Segment>,
    newer: Option<Segment>,
    lost_lines: u64,
    lost_bytes: u64,
    /// Why the end could not be kept, when it could not.
    broken: Option<String>,
    engine_bytes: u64,
}

/// Blocks of lines in a file without a name.
#[derive(Debug)]
struct Segment {
    file: File,
    file_bytes: u64,
    text_bytes: u64,
    lines: u64,
    /// The engine's lines among them.
    engine: Vec<Lines>,
}

/// A line that the log says of itself.
pub(super) fn notice(clock: &dyn Clock, text: &str) -> Lines {
    let mut lines = Lines::default();
    lines.push(Origin::new(clock.now(), None, LogStream::Engine), text);
    lines
}

impl BoundedLog {
    /// A log of at most `bytes` of text, and a few lines of notices.
    pub(super) fn new(bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self { clock, half: bytes / 2, head_bytes: 0, tail: None }
    }

    /// Takes lines; returns what goes into the log now.
    pub(super) async fn push(&mut self, lines: Lines) -> Vec<Lines> {
        let size = lines.text_bytes();
        if self.tail.is_none() && self.head_bytes.saturating_add(size) <= self.half {
            self.head_bytes += size;
            return vec![lines];
        }
        let mut now = Vec::new();
        if self.tail.is_none() {
            let text = format!(
                "[the log has reached {} of its {}: what follows comes when the attempt ends, its last {} of it]",
                size_text(self.head_bytes),
                size_text(self.half * 2),
                size_text(self.half)
            );
            now.push(notice(&*self.clock, &text));
        }
        let half = self.half;
        let tail = self.tail.get_or_insert_default();
        tail.push(lines, half / 2, &mut now).await;
        now
    }

    /// What is left to go into the log once the attempt has said its last word.
    pub(super) fn finish(self) -> Rest {
        let tail = self.tail.unwrap_or_default();
        Rest {
            clock: self.clock,
            segments: [tail.older, tail.newer].into_iter().flatten().collect(),
            reading: None,
            lost_lines: tail.lost_lines,
            lost_bytes: tail.lost_bytes,
            broken: tail.broken,
        }
    }
}

/// The end of a log, read from the disk block by block: it may be as large as half of the bound.
#[derive(Debug)]
pub(super) struct Rest {
    clock: Arc<dyn Clock>,
    segments: VecDeque<Segment>,
    reading: Option<Reading>,
    /// Not told yet.
    lost_lines: u64,
    lost_bytes: u64,
    broken: Option<String>,
}

impl Rest {
    /// The next lines: those that are missing are told where they would be.
    pub(super) async fn next(&mut self) -> Option<Lines> {
        loop {
            if self.lost_lines > 0 {
                return Some(self.missing());
            }
            if let Some(reading) = &mut self.reading {
                match reading.next().await {
                    Ok(Some(lines)) => return Some(lines),
                    Ok(None) => self.reading = None,
                    Err(error) => {
                        let left = reading.lines;
                        self.reading = None;
                        return Some(self.unreadable(left, &error));
                    }
                }
            } else {
                let segment = self.segments.pop_front()?;
                let lines = segment.lines;
                match Reading::new(segment).await {
                    Ok(reading) => self.reading = Some(reading),
                    Err(error) => return Some(self.unreadable(lines, &error)),
                }
            }
        }
    }

    fn missing(&mut self) -> Lines {
        let why = self.broken.take().map(|why| format!(" ({why})")).unwrap_or_default();
        let (lines, size) = (std::mem::take(&mut self.lost_lines), size_text(self.lost_bytes));
        let text = format!("[{lines} lines of output, {size}, are missing here: the log is bounded{why}]");
        notice(&*self.clock, &text)
    }

    fn unreadable(&self, lines: u64, error: &Error) -> Lines {
        let text = format!("[{lines} lines of output are missing here: {}]", error.chain());
        notice(&*self.clock, &text)
    }
}

/// A segment on its way back.
#[derive(Debug)]
struct Reading {
    file: File,
    left: u64,
    read: BytesMut,
    /// Lines that did not come yet.
    lines: u64,
}

impl Reading {
    async fn new(mut segment: Segment) -> Result<Self> {
        segment.file.seek(SeekFrom::Start(0)).await.map_err(read_error)?;
        let Segment { file, file_bytes, lines, .. } = segment;
        Ok(Self { file, left: file_bytes, read: BytesMut::new(), lines })
    }

    async fn next(&mut self) -> Result<Option<Lines>> {
        loop {
            if self.read.is_empty() && self.left == 0 {
                return Ok(None);
            }
            match read_block(&self.read)? {
                Parsed::Whole(block, size) => {
                    _ = self.read.split_to(size);
                    self.lines = self.lines.saturating_sub(block.count());
                    let mut lines = Lines::default();
                    lines.extend(&block);
                    return Ok(Some(lines));
                }
                Parsed::Part(_) if self.left > 0 => {
                    let before = self.read.len();
                    let most = self.left.min(limits::LOG_WRITE_BYTES as u64);
                    (&mut self.file).take(most).read_buf(&mut self.read).await.map_err(read_error)?;
                    let read = u64::try_from(self.read.len().saturating_sub(before)).unwrap_or(0);
                    if read == 0 {
                        return Err(Error::unexpected("the file of its end is shorter than it was"));
                    }
                    self.left = self.left.saturating_sub(read);
                }
                _ => return Err(Error::unexpected("the file of its end is damaged")),
            }
        }
    }
}

fn read_error(error: std::io::Error) -> Error {
    Error::unexpected("the file of its end cannot be read").source(error)
}

impl Tail {
    async fn push(&mut self, lines: Lines, segment_bytes: u64, now: &mut Vec<Lines>) {
        let full = self.newer.as_ref().is_some_and(|segment| segment.text_bytes >= segment_bytes);
        if self.newer.is_none() || full {
            match Segment::new().await {
                Ok(segment) => {
                    let newer = self.newer.replace(segment);
                    if let Some(given_up) = std::mem::replace(&mut self.older, newer) {
                        self.give_up(given_up, now);
                    }
                }
                Err(error) => return self.lose(&lines, error.to_string(), now),
            }
        }
        let Some(segment) = &mut self.newer else { return };
        if let Err((lines, why)) = segment.write(lines).await {
            self.lose(&lines, why, now);
        }
    }

    /// The engine's lines of a segment go into the log, the others are counted.
    fn give_up(&mut self, segment: Segment, now: &mut Vec<Lines>) {
        let (mut kept_lines, mut kept_bytes) = (0, 0);
        for lines in segment.engine {
            let size = lines.text_bytes();
            if self.engine_bytes.saturating_add(size) > ENGINE_BYTES_MAX {
                break;
            }
            self.engine_bytes += size;
            kept_lines += lines.count();
            kept_bytes += size;
            now.push(lines);
        }
        self.lost_lines += segment.lines.saturating_sub(kept_lines);
        self.lost_bytes += segment.text_bytes.saturating_sub(kept_bytes);
    }

    /// Without a disk to keep them on, only the engine's lines are left.
    fn lose(&mut self, lines: &Lines, why: String, now: &mut Vec<Lines>) {
        self.broken.get_or_insert(why);
        let engine = lines.of_engine();
        self.lost_lines += lines.count().saturating_sub(engine.count());
        self.lost_bytes += lines.text_bytes().saturating_sub(engine.text_bytes());
        if !engine.is_empty() {
            now.push(engine);
        }
    }
}

impl Segment {
    async fn new() -> std::io::Result<Self> {
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(std::io::Error::other)??;
        Ok(Self { file: File::from_std(file), file_bytes: 0, text_bytes: 0, lines: 0, engine: Vec::new() })
    }

    /// Adds lines; gives them back, and tells why, when they could not be written.
    async fn write(&mut self, lines: Lines) -> Result<(), (Lines, String)> {
        let (engine, count, text_bytes) = (lines.of_engine(), lines.count(), lines.text_bytes());
        // Numbers come when the lines go into the log.
        let block = lines.into_block(0, 1, 0);
        let written = match block.encode() {
            Ok(bytes) => self.write_bytes(bytes.into()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.chain()),
        };
        if let Err(why) = written {
            let mut lines = Lines::default();
            lines.extend(&block);
            return Err((lines, why));
        }
        self.lines += count;
        self.text_bytes += text_bytes;
        if !engine.is_empty() {
            self.engine.push(engine);
        }
        Ok(())
    }

    async fn write_bytes(&mut self, bytes: Bytes) -> std::io::Result<()> {
        // A write that fails half-way must not leave half a block before the next one.
        self.file.seek(SeekFrom::Start(self.file_bytes)).await?;
        self.file.write_all(&bytes).await?;
        self.file.flush().await?;
        self.file_bytes += bytes.len() as u64;
        Ok(())
    }
}

fn size_text(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    async fn logged(bound: u64, input: &[(&str, bool)]) -> String {
        let mut log = BoundedLog::new(bound, Arc::new(SystemClock));
        let mut written = Vec::new();
        for (text, engine) in input {
            let mut lines = Lines::default();
            let stream = if *engine { LogStream::Engine } else { LogStream::Stdout };
            lines.push(Origin::new(jiff::Timestamp::UNIX_EPOCH, None, stream), text);
            written.append(&mut log.push(lines).await);
        }
        let mut rest = log.finish();
        while let Some(piece) = rest.next().await {
            written.push(piece);
        }
        let texts: Vec<Bytes> =
            written.into_iter().map(|lines| lines.into_block(1, 1, 0).text().clone()).collect();
        String::from_utf8(texts.concat()).unwrap()
    }

    #[tokio::test]
    async fn a_log_within_its_bound_is_whole() {
        assert_eq!(logged(100, &[("a", false), ("b", true), ("c", false)]).await, "a\nb\nc\n");
    }

    #[tokio::test]
    async fn beyond_the_bound_head_and_tail_and_the_engines_lines_are_kept_in_order() {
        let texts: Vec<String> = (0..1_000).map(|number| format!("{number:09}")).collect();
        let mut input: Vec<(&str, bool)> = texts.iter().map(|text| (text.as_str(), false)).collect();
        input.insert(500, ("--- step 2", true));
        input.insert(999, ("--- the build failed", true));
        let log = logged(2_000, &input).await;
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[..100].iter().copied().eq(texts[..100].iter().map(String::as_str)), "the head");
        assert_eq!(lines[101], "--- step 2");
        let last = lines.len() - 1;
        assert_eq!((lines[last - 2], lines[last]), ("--- the build failed", "000000999"));
        let notice = lines[102].strip_prefix('[').unwrap().split_once(' ').unwrap();
        let missing: usize = notice.0.parse().unwrap();
        let shown = lines.len() - 100 - 3 - 1;
        assert_eq!(100 + missing + shown, 1_000, "every line is there or counted: {}", lines[102]);
        assert!(shown >= 50, "at least a quarter of the bound is kept of the end");
        assert!(log.len() < 2_300);
    }

    #[tokio::test]
    async fn a_tail_that_fits_follows_without_a_gap() {
        let log = logged(40, &[("0123456789", false), ("0123456789", false), ("end", false)]).await;
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with('[')).collect();
        assert_eq!(lines, ["0123456789", "0123456789", "end"]);
    }
}
