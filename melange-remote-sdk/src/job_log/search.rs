//! Looking things up in logs: outlines, places in the text, searches.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use regex::bytes::{Regex, RegexBuilder};
use tokio::time::Instant;

use super::block::LogBlock;
use super::index::LogIndex;
use super::logs::JobLogs;
use super::reader::Blocks;
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobId;
use crate::limits;

/// What is looked for in the log of an attempt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogSearch {
    pattern: Regex,
    /// Only in lines of this step, from 0.
    pub step: Option<u32>,
    /// Only behind the line with this number.
    pub behind: u64,
    /// How many of the lines are told; at most [`limits::LOG_HITS_MAX`].
    pub limit: usize,
}

/// How a pattern is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PatternOptions {
    /// Whether it is a regular expression, in the syntax of the crate `regex`; a text otherwise.
    pub regex: bool,
    /// Whether upper and lower case are different.
    pub case_sensitive: bool,
}

impl LogSearch {
    /// Looks for a pattern in all lines.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty pattern, one longer than [`limits::LOG_PATTERN_BYTES_MAX`], and one that cannot be read.
    pub fn new(pattern: &str, options: PatternOptions) -> Result<Self> {
        if pattern.is_empty() || pattern.len() > limits::LOG_PATTERN_BYTES_MAX {
            let most = limits::LOG_PATTERN_BYTES_MAX;
            return Err(Error::invalid(format!("a pattern has 1 to {most} bytes")));
        }
        let escaped;
        let source = if options.regex {
            pattern
        } else {
            escaped = regex::escape(pattern);
            &escaped
        };
        let pattern = RegexBuilder::new(source)
            .case_insensitive(!options.case_sensitive)
            .multi_line(true)
            .size_limit(limits::LOG_PATTERN_SIZE_MAX)
            .dfa_size_limit(limits::LOG_PATTERN_SIZE_MAX)
            .build()
            .map_err(|error| Error::invalid("the pattern cannot be read").source(error))?;
        Ok(Self { pattern, step: None, behind: 0, limit: limits::LOG_HITS_MAX })
    }
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogHit {
    /// Its number.
    pub line: u64,
    /// Its step, from 0.
    pub step: Option<u32>,
    /// Its text, without escape sequences.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogHits {
    /// How many lines match, as far as was looked.
    pub total: u64,
    /// Lines that match by step; those of no step under `None`.
    pub per_step: BTreeMap<Option<u32>, u64>,
    /// The first of them.
    pub hits: Vec<LogHit>,
    /// The number of the last line that was looked at.
    pub searched: u64,
    /// Whether that is the last one of the log.
    pub complete: bool,
}

/// Removes the escape sequences of terminals: `ESC [ … letter`, `ESC ] … BEL` or `ESC \`, and `ESC` with one more byte. A
/// sequence never reaches over the end of its line, so that each byte is looked at a few times only.
fn without_escapes(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (mut rest, end) = match line {
            [rest @ .., b'\n'] => (rest, &b"\n"[..]),
            rest => (rest, &b""[..]),
        };
        while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
            kept.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            rest = &rest[sequence(rest).min(rest.len())..];
        }
        kept.extend_from_slice(rest);
        kept.extend_from_slice(end);
    }
    kept
}

/// How many bytes of a line behind an `ESC` belong to it: all of them when its end is missing.
fn sequence(rest: &[u8]) -> usize {
    let end = match rest.first() {
        Some(b'[') => rest.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte)).map(|end| end + 2),
        Some(b']') => rest.iter().enumerate().find_map(|(at, byte)| match byte {
            0x07 => Some(at + 1),
            0x1b if rest.get(at + 1) == Some(&b'\\') => Some(at + 2),
            _ => None,
        }),
        _ => Some(1),
    };
    end.unwrap_or(rest.len())
}

/// Looks through a block. Lines are counted where the pattern is found, not one by one.
fn look_through(block: &LogBlock, search: &LogSearch, found: &mut LogHits) {
    let plain;
    let text: &[u8] = if block.text().contains(&0x1b) {
        plain = without_escapes(block.text());
        &plain
    } else {
        block.text()
    };
    let limit = search.limit.min(limits::LOG_HITS_MAX);
    let (mut at, mut number) = (0, block.first());
    // The lines' steps are asked only where something was found.
    let mut lines = block.lines();
    while let Some(hit) = search.pattern.find_at(text, at) {
        let begin = text[..hit.start()].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let length = text[begin..].iter().position(|byte| *byte == b'\n');
        let Some(length) = length else { break };
        let passed = text[at..begin.max(at)].iter().filter(|byte| **byte == b'\n').count();
        number = number.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
        let step = lines.find(|line| line.number == number).and_then(|line| line.origin.step);
        if number > search.behind && search.step.is_none_or(|wanted| step == Some(wanted)) {
            found.total += 1;
            *found.per_step.entry(step).or_default() += 1;
            if found.hits.len() < limit {
                let text = String::from_utf8_lossy(&text[begin..begin + length]).into_owned();
                found.hits.push(LogHit { line: number, step, text });
            }
        }
        at = begin + length + 1;
        number += 1;
        if at >= text.len() {
            break;
        }
    }
}

impl JobLogs {
    /// Looks for a pattern in the log of an attempt, for [`limits::LOG_SEARCH_TIME`] at most. Lines count without escape
    /// sequences.
    ///
    /// # Errors
    /// `NotFound`; those of the store and of the storage.
    pub async fn search(&self, job: JobId, attempt: u32, search: &LogSearch) -> Result<LogHits> {
        let give_up_at = Instant::now() + limits::LOG_SEARCH_TIME;
        let mut blocks = Blocks::open(self, job, attempt).await?;
        let mut found = LogHits { searched: search.behind, ..LogHits::default() };
        let search = Arc::new(search.clone());
        loop {
            let several = blocks.several_at(found.searched.saturating_add(1)).await?;
            let Some(last) = several.last() else {
                found.complete = true;
                return Ok(found);
            };
            found.searched = last.next().saturating_sub(1);
            let (search, mut so_far) = (Arc::clone(&search), std::mem::take(&mut found));
            let looked = tokio::task::spawn_blocking(move || {
                several.iter().for_each(|block| look_through(block, &search, &mut so_far));
                so_far
            });
            found = looked.await.map_err(|error| Error::unexpected("a search panicked").source(error))?;
            if Instant::now() >= give_up_at {
                return Ok(found);
            }
        }
    }

    /// How many lines and bytes the log of an attempt has so far, and where the lines of its steps are.
    ///
    /// # Errors
    /// `NotFound`; those of the store and of the storage.
    pub async fn outline(&self, job: JobId, attempt: u32) -> Result<Arc<LogIndex>> {
        Blocks::open(self, job, attempt).await?.outline().await
    }

    /// A range of the text of an attempt, or of all attempts one after the other: how many bytes there are, and the bytes
    /// of the range that are among them, piece by piece.
    ///
    /// # Errors
    /// `NotFound`; those of the store and of the storage.
    pub async fn text(&self, job: JobId, attempt: Option<u32>) -> Result<LogText> {
        let attempts: Vec<u32> = match attempt {
            Some(attempt) => vec![attempt],
            None => (1..=self.job_store.get(job).await?.attempt).collect(),
        };
        let (mut parts, mut left) = (Vec::new(), attempts.len());
        let mut length = 0u64;
        for attempt in attempts {
            left -= 1;
            let mut blocks = match Blocks::open(self, job, attempt).await {
                // Of a job that was tried again the logs before that may be gone.
                Err(error) if error.kind() == ErrorKind::Gone && left + parts.len() > 0 => continue,
                blocks => blocks?,
            };
            let outline = blocks.outline().await?;
            let end = length.saturating_add(outline.text_bytes());
            parts.push(TextPart { place: length..end, outline, blocks });
            length = end;
        }
        Ok(LogText { length, parts, range: 0..length, line: 1 })
    }
}

/// The text of logs, to be read from any byte on.
#[derive(Debug)]
pub struct LogText {
    length: u64,
    /// The attempts that are left, with their places in the text.
    parts: Vec<TextPart>,
    /// What is left to be read.
    range: Range<u64>,
    /// The number of the next line of the first attempt.
    line: u64,
}

/// The log of an attempt in the text.
#[derive(Debug)]
struct TextPart {
    /// Its place there.
    place: Range<u64>,
    /// Where its lines are.
    outline: Arc<LogIndex>,
    blocks: Blocks,
}

impl LogText {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads only this range of it.
    #[must_use]
    pub fn only(mut self, range: Range<u64>) -> Self {
        self.range = range.start..range.end.min(self.length);
        self
    }

    /// The next bytes; none at the end of the range.
    ///
    /// # Errors
    /// Those of the store and of the storage.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.range.is_empty() {
            let Some(TextPart { place, outline, blocks }) = self.parts.first_mut() else { return Ok(None) };
            let wanted = self.range.start;
            if wanted >= place.end {
                self.parts.remove(0);
                self.line = 1;
                continue;
            }
            if self.line == 1 {
                let offset = wanted.saturating_sub(place.start);
                let entry = outline.entries.get(outline.place_by(|entry| entry.text_offset, &offset));
                self.line = entry.map_or(1, |entry| entry.first);
            }
            let Some(block) = blocks.at(self.line).await? else { return Ok(None) };
            self.line = block.next();
            let begin = place.start.saturating_add(block.text_offset());
            let text = block.text();
            let end = begin.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX)).min(self.range.end);
            if end <= wanted {
                continue;
            }
            let index =
                |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX).min(text.len());
            self.range.start = end;
            return Ok(Some(text.slice(index(wanted)..index(end))));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::LogStream;
    use crate::job_log::{Lines, Origin};

    fn block(texts: &[&str]) -> LogBlock {
        let mut lines = Lines::default();
        for (place, text) in texts.iter().enumerate() {
            let step = u32::try_from(place / 2).ok();
            lines.push(Origin::new(jiff::Timestamp::UNIX_EPOCH, step, LogStream::Stdout), text);
        }
        lines.into_block(1, 11, 0)
    }

    fn found(texts: &[&str], search: &LogSearch) -> LogHits {
        let mut found = LogHits::default();
        look_through(&block(texts), search, &mut found);
        found
    }

    fn numbers(texts: &[&str], pattern: &str, options: PatternOptions) -> Vec<u64> {
        let search = LogSearch::new(pattern, options).unwrap();
        found(texts, &search).hits.into_iter().map(|hit| hit.line).collect()
    }

    #[test]
    fn lines_are_found_once_with_their_numbers() {
        let texts = ["", "error: a error", "ok", "Error", "", "x error"];
        let plain = PatternOptions::default();
        assert_eq!(numbers(&texts, "error", plain), [12, 14, 16]);
        assert_eq!(numbers(&texts, "error", PatternOptions { case_sensitive: true, ..plain }), [12, 16]);
        assert_eq!(numbers(&texts, "^error|k$", PatternOptions { regex: true, ..plain }), [12, 13, 14]);
        assert_eq!(numbers(&texts, "^$", PatternOptions { regex: true, ..plain }), [11, 15]);
        assert_eq!(numbers(&texts, ".", plain), [0; 0], "a text is no expression");
        assert_eq!(numbers(&texts, "error\nok", plain), [12], "a match counts where it begins");
    }

    #[test]
    fn steps_and_places_choose_among_them_and_all_are_counted() {
        let mut search = LogSearch::new("e", PatternOptions::default()).unwrap();
        let texts = ["e", "e", "e", "-", "e", "e"];
        let all = found(&texts, &search);
        assert_eq!((all.total, all.per_step[&Some(0)], all.per_step[&Some(1)]), (5, 2, 1));
        (search.step, search.limit) = (Some(2), 1);
        let some = found(&texts, &search);
        assert_eq!((some.total, some.hits.len(), some.hits[0].line), (2, 1, 15));
        (search.step, search.behind) = (None, 15);
        assert_eq!(found(&texts, &search).total, 1);
    }

    #[test]
    fn colours_do_not_matter() {
        let texts =
            ["\u{1b}[31mer\u{1b}[0mror", "\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{1b}\\", "\u{1b}[3", "last"];
        let plain = PatternOptions::default();
        assert_eq!(numbers(&texts, "error", plain), [11]);
        assert_eq!(numbers(&texts, "link", plain), [12]);
        assert_eq!(numbers(&texts, "last", plain), [14]);
        assert_eq!(found(&texts, &LogSearch::new("error", plain).unwrap()).hits[0].text, "error");
    }

    #[test]
    fn patterns_are_bounded() {
        let regex = PatternOptions { regex: true, ..PatternOptions::default() };
        for pattern in ["", "(", "(?:a{1000}){1000}", &"x".repeat(limits::LOG_PATTERN_BYTES_MAX + 1)] {
            let error = LogSearch::new(pattern, regex).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRequest, "{pattern}");
        }
    }
}
