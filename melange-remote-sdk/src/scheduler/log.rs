//! What of an attempt's output goes into its log: all of it up to the bound; beyond, its first half, its last half and
//! every line of the farm's own.
//!
//! ```text
//! lines ─▶ head ───────────────▶ log            up to half of the bound, at once
//!      └─▶ tail (on disk) ─ end ▶ log            two segments; the older is given up when the newer is full
//!                └ the farm's lines of a given-up segment ─▶ log
//! ```
//!
//! The log itself only grows, so that offsets into it stay true.

use std::collections::VecDeque;
use std::io::SeekFrom;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, Take};

use super::events::Lines;
use crate::limits;

/// Bytes of the farm's own lines that are kept of the middle of a log.
const FARM_BYTES_MAX: usize = 4 << 20;

/// The bounded log of one attempt.
#[derive(Debug)]
pub(super) struct BoundedLog {
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
    farm_bytes: usize,
}

/// Lines in a file without a name.
#[derive(Debug)]
struct Segment {
    file: File,
    bytes: u64,
    lines: u64,
    /// The farm's lines among them.
    farm: Vec<Lines>,
}

impl BoundedLog {
    /// A log of at most `bytes`, and a few lines of notices.
    pub(super) fn new(bytes: u64) -> Self {
        Self { half: bytes / 2, head_bytes: 0, tail: None }
    }

    /// Takes lines; returns what goes into the log now.
    pub(super) async fn push(&mut self, lines: Lines) -> Vec<Bytes> {
        let size = lines.bytes.len() as u64;
        if self.tail.is_none() && self.head_bytes.saturating_add(size) <= self.half {
            self.head_bytes += size;
            return vec![lines.bytes];
        }
        let mut now = Vec::new();
        if self.tail.is_none() {
            let notice = format!(
                "[the log has reached {} of its {}: what follows comes when the attempt ends, its last {} of it]\n",
                size_text(self.head_bytes),
                size_text(self.half * 2),
                size_text(self.half)
            );
            now.push(Bytes::from(notice));
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
            segments: [tail.older, tail.newer].into_iter().flatten().collect(),
            reading: None,
            lost_lines: tail.lost_lines,
            lost_bytes: tail.lost_bytes,
            broken: tail.broken,
        }
    }
}

/// The end of a log, read from the disk piece by piece: it may be as large as half of the bound.
#[derive(Debug)]
pub(super) struct Rest {
    segments: VecDeque<Segment>,
    reading: Option<Take<File>>,
    /// Not told yet.
    lost_lines: u64,
    lost_bytes: u64,
    broken: Option<String>,
}

impl Rest {
    /// The next piece: the lines that are missing are told where they would be.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.lost_lines > 0 {
                return Some(self.missing());
            }
            if let Some(source) = &mut self.reading {
                let mut piece = Vec::with_capacity(limits::LOG_WRITE_BYTES);
                let mut bounded = source.take(limits::LOG_WRITE_BYTES as u64);
                match bounded.read_to_end(&mut piece).await {
                    Ok(0) => self.reading = None,
                    Ok(_) => return Some(Bytes::from(piece)),
                    Err(error) => {
                        let rest = source.limit();
                        self.reading = None;
                        return Some(unreadable(rest, &error));
                    }
                }
            } else {
                let mut segment = self.segments.pop_front()?;
                match segment.file.seek(SeekFrom::Start(0)).await {
                    Ok(_) => self.reading = Some(segment.file.take(segment.bytes)),
                    Err(error) => return Some(unreadable(segment.bytes, &error)),
                }
            }
        }
    }

    fn missing(&mut self) -> Bytes {
        let why = self.broken.take().map(|why| format!(" ({why})")).unwrap_or_default();
        let (lines, size) = (std::mem::take(&mut self.lost_lines), size_text(self.lost_bytes));
        let notice =
            format!("[{lines} lines of output, {size}, are missing here: the log is bounded{why}]\n");
        Bytes::from(notice)
    }
}

fn unreadable(bytes: u64, error: &std::io::Error) -> Bytes {
    Bytes::from(format!("\n[{} of output are missing here: {error}]\n", size_text(bytes)))
}

impl Tail {
    async fn push(&mut self, lines: Lines, segment_bytes: u64, now: &mut Vec<Bytes>) {
        let full = self.newer.as_ref().is_some_and(|segment| segment.bytes >= segment_bytes);
        if self.newer.is_none() || full {
            match Segment::new().await {
                Ok(segment) => {
                    let newer = self.newer.replace(segment);
                    if let Some(given_up) = std::mem::replace(&mut self.older, newer) {
                        self.give_up(given_up, now);
                    }
                }
                Err(error) => return self.lose(lines, &error, now),
            }
        }
        let Some(segment) = &mut self.newer else { return };
        if let Err(error) = segment.write(&lines).await {
            self.lose(lines, &error, now);
        }
    }

    /// The farm's lines of a segment go into the log, the others are counted.
    fn give_up(&mut self, segment: Segment, now: &mut Vec<Bytes>) {
        let (mut kept_lines, mut kept_bytes) = (0, 0);
        for lines in segment.farm {
            let size = lines.bytes.len();
            if self.farm_bytes.saturating_add(size) > FARM_BYTES_MAX {
                break;
            }
            self.farm_bytes += size;
            kept_lines += lines.count;
            kept_bytes += size as u64;
            now.push(lines.bytes);
        }
        self.lost_lines += segment.lines.saturating_sub(kept_lines);
        self.lost_bytes += segment.bytes.saturating_sub(kept_bytes);
    }

    /// Without a disk to keep them on, only the farm's lines are left.
    fn lose(&mut self, lines: Lines, error: &std::io::Error, now: &mut Vec<Bytes>) {
        self.broken.get_or_insert_with(|| error.to_string());
        if lines.farm {
            now.push(lines.bytes);
        } else {
            self.lost_lines += lines.count;
            self.lost_bytes += lines.bytes.len() as u64;
        }
    }
}

impl Segment {
    async fn new() -> std::io::Result<Self> {
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(std::io::Error::other)??;
        Ok(Self { file: File::from_std(file), bytes: 0, lines: 0, farm: Vec::new() })
    }

    async fn write(&mut self, lines: &Lines) -> std::io::Result<()> {
        // A write that fails half-way must not leave half a line before the next one.
        self.file.seek(SeekFrom::Start(self.bytes)).await?;
        self.file.write_all(&lines.bytes).await?;
        self.file.flush().await?;
        self.bytes += lines.bytes.len() as u64;
        self.lines += lines.count;
        if lines.farm {
            self.farm.push(lines.clone());
        }
        Ok(())
    }
}

fn size_text(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logged(bound: u64, input: &[(&str, bool)]) -> String {
        let mut log = BoundedLog::new(bound);
        let mut written = Vec::new();
        for (text, farm) in input {
            let bytes = Bytes::from(format!("{text}\n"));
            written.append(&mut log.push(Lines { bytes, count: 1, farm: *farm }).await);
        }
        let mut rest = log.finish();
        while let Some(piece) = rest.next().await {
            written.push(piece);
        }
        String::from_utf8(written.concat()).unwrap()
    }

    #[tokio::test]
    async fn a_log_within_its_bound_is_whole() {
        assert_eq!(logged(100, &[("a", false), ("b", true), ("c", false)]).await, "a\nb\nc\n");
    }

    #[tokio::test]
    async fn beyond_the_bound_head_and_tail_and_the_farms_lines_are_kept_in_order() {
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
