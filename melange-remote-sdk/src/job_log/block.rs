//! Blocks of lines: what the log of an attempt is made of, in memory and as bytes. Pure.
//!
//! ```text
//! log   = block*        in order, without gaps
//! block = head text
//! head  = a skippable frame of Zstandard: numbers, times, steps and streams of the lines
//! text  = a frame of Zstandard: the lines, each with its newline
//! ```
//!
//! So `zstd -d` makes the text of a log, and heads are read without decompressing anything.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use bytes::Bytes;
use jiff::Timestamp;
use zstd::bulk::{Compressor, Decompressor};

use super::varint::{Reader, push_signed, push_unsigned};
use crate::builder::LogStream;
use crate::error::{Error, Result};
use crate::limits;

/// The magic number of heads: one of the sixteen that Zstandard leaves to others.
pub(super) const HEAD_MAGIC: u32 = 0x184D_2A5A;

/// What a head begins with, so that no other skippable frame is taken for one; the last byte is the version.
const HEAD_MARK: &[u8; 4] = b"mrl\x01";

/// The magic number and the size of a skippable frame.
pub(super) const FRAME_HEADER: usize = 8;

/// The quickest level: text of compilers becomes a tenth, at hundreds of megabytes a second.
const LEVEL: i32 = 1;

thread_local! {
    // Most blocks are small: making what compresses them would cost more than compressing them.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Does something with what a thread has, once it could be made.
fn with<T, R>(
    kept: &RefCell<Option<T>>,
    make: impl FnOnce() -> io::Result<T>,
    work: impl FnOnce(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    let mut kept = kept.borrow_mut();
    match &mut *kept {
        Some(known) => work(known),
        none => work(none.insert(make()?)),
    }
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with(|kept| with(kept, || Compressor::new(LEVEL), |compressor| compressor.compress(text)))
}

fn decompress(bytes: &[u8], length: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with(|kept| with(kept, Decompressor::new, |known| known.decompress(bytes, length)))
}

/// Lines in a row that have the time, the step and the stream in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    lines: u64,
    at_ms: i64,
    step: Option<u32>,
    stream: LogStream,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// When it was read; logs keep milliseconds.
    pub at: Timestamp,
    /// The step that wrote it, from 0.
    pub step: Option<u32>,
    /// Which of its streams.
    pub stream: LogStream,
}

impl Origin {
    /// A line of a stream, perhaps of a step, that was read at a time.
    pub fn new(at: Timestamp, step: Option<u32>, stream: LogStream) -> Self {
        Self { at, step, stream }
    }
}

/// Lines in a row, without numbers yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    text: Vec<u8>,
    runs: Vec<Run>,
    count: u64,
}

impl Lines {
    /// Adds a line, given without its newline; newlines within it become spaces.
    pub fn push(&mut self, origin: Origin, line: &str) {
        let begin = self.text.len();
        self.text.extend_from_slice(line.as_bytes());
        self.text[begin..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        self.text.push(b'\n');
        self.add_run(Run {
            lines: 1,
            at_ms: origin.at.as_millisecond(),
            step: origin.step,
            stream: origin.stream,
        });
    }

    fn add_run(&mut self, run: Run) {
        self.count += run.lines;
        match self.runs.last_mut() {
            Some(last) if (last.at_ms, last.step, last.stream) == (run.at_ms, run.step, run.stream) => {
                last.lines += run.lines;
            }
            _ => self.runs.push(run),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many bytes they have, each with its newline.
    pub fn text_bytes(&self) -> u64 {
        u64::try_from(self.text.len()).unwrap_or(u64::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds lines behind these.
    pub fn extend(&mut self, block: &LogBlock) {
        self.text.extend_from_slice(&block.text);
        block.runs.iter().for_each(|run| self.add_run(*run));
    }

    /// The lines of the engine itself.
    #[must_use]
    pub fn of_engine(&self) -> Self {
        let mut kept = Self::default();
        let mut rest = self.text.as_slice();
        for run in &self.runs {
            let length = length_of(rest, run.lines);
            let (text, behind) = rest.split_at(length);
            if run.stream == LogStream::Engine {
                kept.text.extend_from_slice(text);
                kept.add_run(*run);
            }
            rest = behind;
        }
        kept
    }

    /// The same as a block of an attempt: the first line has the number `first`, and `text_offset` bytes of text are before
    /// it.
    pub fn into_block(self, attempt: u32, first: u64, text_offset: u64) -> LogBlock {
        let Self { text, runs, count } = self;
        LogBlock { attempt, first, text_offset, text: text.into(), runs, count, made: Made::default() }
    }
}

/// The bytes of so many lines at the beginning of a text.
fn length_of(text: &[u8], lines: u64) -> usize {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    match lines.checked_sub(1) {
        None => 0,
        Some(before) => {
            let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            ends.nth(before).map_or(text.len(), |(at, _)| at + 1)
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine<'b> {
    /// Its number in the log of its attempt, from 1.
    pub number: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// Its text without the newline; bytes that are no UTF-8 were replaced when it was written.
    pub text: &'b [u8],
}

/// Lines in a row of the log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBlock {
    attempt: u32,
    first: u64,
    text_offset: u64,
    text: Bytes,
    runs: Vec<Run>,
    count: u64,
    made: Made,
}

/// In which form a server sends lines: what it makes of a whole block is kept with the block, for all who follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogForm {
    /// A line of JSON for each line.
    JsonLines,
    /// Messages of several lines.
    Messages,
}

/// What was made of a block; it says nothing that the block does not say.
#[derive(Default)]
struct Made([OnceLock<Arc<[Bytes]>>; 2]);

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

/// Made again where it is asked for.
impl Clone for Made {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Made {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Made {}

impl LogBlock {
    /// What it takes in memory once all forms are made of it, about.
    pub(super) fn weight(&self) -> usize {
        let lines =
            usize::try_from(self.count).unwrap_or(usize::MAX).saturating_mul(limits::LOG_LINE_FORMS_BYTES);
        // What JSON writes in more bytes than one: control characters in six, quotes and backslashes in two, in each form.
        let escaped: usize = self
            .text
            .iter()
            .map(|byte| match byte {
                0..b' ' => 10,
                b'"' | b'\\' => 2,
                _ => 0,
            })
            .sum();
        self.text.len().saturating_mul(3).saturating_add(lines).saturating_add(escaped)
    }

    /// What was made of it for a form.
    pub(super) fn made(&self, form: LogForm) -> &OnceLock<Arc<[Bytes]>> {
        let Made([json_lines, messages]) = &self.made;
        match form {
            LogForm::JsonLines => json_lines,
            LogForm::Messages => messages,
        }
    }

    /// The number of the attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The number of the first line, from 1.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the line behind the last one.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// How many lines there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many bytes of text are before the first line, in the log of the attempt.
    pub fn text_offset(&self) -> u64 {
        self.text_offset
    }

    /// The lines, each with its newline.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The lines one by one.
    pub fn lines(&self) -> impl Iterator<Item = LogLine<'_>> {
        let mut texts = self.text.split(|byte| *byte == b'\n');
        let runs = self.runs.iter().flat_map(|run| (0..run.lines).map(move |_| run));
        runs.zip(self.first..).map(move |(run, number)| {
            let at = Timestamp::from_millisecond(run.at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
            let origin = Origin { at, step: run.step, stream: run.stream };
            LogLine { number, origin, text: texts.next().unwrap_or_default() }
        })
    }

    /// The steps of the lines, and the numbers of the first and the last line that each has in a row.
    pub(super) fn spans(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let mut next = self.first;
        self.runs.iter().filter_map(move |run| {
            let first = next;
            next = next.saturating_add(run.lines);
            Some((run.step?, first, next.saturating_sub(1)))
        })
    }

    /// When the first line was read, in milliseconds since 1970.
    pub(super) fn begun_ms(&self) -> i64 {
        self.runs.first().map_or(0, |run| run.at_ms)
    }

    /// The block as bytes.
    ///
    /// # Errors
    /// `Unexpected` when the compressor fails.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let text = compress(&self.text)
            .map_err(|error| Error::unexpected("lines could not be compressed").source(error))?;
        let mut head = HEAD_MARK.to_vec();
        let begun = self.begun_ms();
        push_unsigned(&mut head, u64::from(self.attempt));
        push_unsigned(&mut head, self.first);
        push_unsigned(&mut head, self.count);
        push_unsigned(&mut head, self.text_offset);
        push_unsigned(&mut head, length(&self.text));
        push_unsigned(&mut head, length(&text));
        push_signed(&mut head, begun);
        push_unsigned(&mut head, u64::try_from(self.runs.len()).unwrap_or(u64::MAX));
        let mut at_ms = begun;
        for run in &self.runs {
            push_unsigned(&mut head, run.lines);
            push_signed(&mut head, run.at_ms.saturating_sub(at_ms));
            at_ms = run.at_ms;
            let step = run.step.map_or(0, |step| u64::from(step) + 1);
            push_unsigned(&mut head, step << 2 | stream_number(run.stream));
        }
        let mut bytes = skippable(HEAD_MAGIC, &head);
        bytes.extend_from_slice(&text);
        Ok(bytes)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn stream_number(stream: LogStream) -> u64 {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
        LogStream::Engine => 2,
    }
}

/// A frame of Zstandard that its programs skip.
pub(super) fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    [&magic.to_le_bytes(), &size.to_le_bytes(), content].concat()
}

/// What bytes of a log begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// This, and so many bytes of it.
    Whole(T, usize),
    /// The beginning of something that has so many bytes at least.
    Part(usize),
    /// Something else.
    Other,
}

/// The head of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) block: LogBlock,
    pub(super) text_bytes: u64,
    pub(super) stored_bytes: usize,
}

/// Something among the bytes of a log that is none.
pub(super) fn broken(what: &str) -> Error {
    Error::unexpected(format!("the stored log is damaged: {what}"))
}

/// The content of a skippable frame with a magic number at the beginning of `bytes`.
pub(super) fn read_skippable(bytes: &[u8], magic: u32) -> Parsed<&[u8]> {
    let Some((begin, rest)) = bytes.split_first_chunk::<4>() else { return Parsed::Part(FRAME_HEADER) };
    if u32::from_le_bytes(*begin) != magic {
        return Parsed::Other;
    }
    let Some((size, rest)) = rest.split_first_chunk::<4>() else { return Parsed::Part(FRAME_HEADER) };
    let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
    match rest.get(..size) {
        Some(content) => Parsed::Whole(content, FRAME_HEADER + size),
        None => Parsed::Part(FRAME_HEADER.saturating_add(size)),
    }
}

/// The head at the beginning of `bytes`: a block without its text.
pub(super) fn read_head(bytes: &[u8]) -> Result<Parsed<Head>> {
    let (content, size) = match read_skippable(bytes, HEAD_MAGIC) {
        Parsed::Whole(content, size) => (content, size),
        Parsed::Part(least) if least > limits::LOG_BLOCK_BYTES_MAX => {
            return Err(broken("a head is too long"));
        }
        Parsed::Part(least) => return Ok(Parsed::Part(least)),
        Parsed::Other => return Ok(Parsed::Other),
    };
    let Some(content) = content.strip_prefix(HEAD_MARK) else { return Err(broken("a head is none")) };
    let mut reader = Reader::new(content);
    let mut number = || reader.unsigned().ok_or_else(|| broken("a head ends early"));
    let attempt = u32::try_from(number()?).map_err(|_| broken("an attempt's number"))?;
    let (first, count, text_offset) = (number()?, number()?, number()?);
    let (text_bytes, stored) = (number()?, number()?);
    let most = u64::try_from(limits::LOG_BLOCK_BYTES_MAX).unwrap_or(u64::MAX);
    if text_bytes > most || stored > most || count > text_bytes || first == 0 {
        return Err(broken("a head has numbers that no block has"));
    }
    let runs = read_runs(&mut reader, count)?;
    let block =
        LogBlock { attempt, first, text_offset, text: Bytes::new(), runs, count, made: Made::default() };
    let stored_bytes = size.saturating_add(usize::try_from(stored).unwrap_or(usize::MAX));
    Ok(Parsed::Whole(Head { block, text_bytes, stored_bytes }, size))
}

fn read_runs(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Run>> {
    let early = || broken("a head ends early");
    let mut at_ms = reader.signed().ok_or_else(early)?;
    let many = reader.unsigned().ok_or_else(early)?;
    let (mut runs, mut lines) = (Vec::new(), 0u64);
    for _ in 0..many {
        let length = reader.unsigned().ok_or_else(early)?;
        at_ms = at_ms.saturating_add(reader.signed().ok_or_else(early)?);
        let word = reader.unsigned().ok_or_else(early)?;
        let stream = match word & 3 {
            0 => LogStream::Stdout,
            1 => LogStream::Stderr,
            _ => LogStream::Engine,
        };
        let step = (word >> 2).checked_sub(1).map(|step| u32::try_from(step).unwrap_or(u32::MAX));
        lines = lines.saturating_add(length);
        runs.push(Run { lines: length, at_ms, step, stream });
    }
    if lines != count {
        return Err(broken("a head has other lines than it says"));
    }
    Ok(runs)
}

/// The block at the beginning of `bytes`.
///
/// # Errors
/// `Unexpected` for bytes that no log has.
pub fn read_block(bytes: &[u8]) -> Result<Parsed<LogBlock>> {
    let (head, size) = match read_head(bytes)? {
        Parsed::Whole(head, size) => (head, size),
        Parsed::Part(least) => return Ok(Parsed::Part(least)),
        Parsed::Other => return Ok(Parsed::Other),
    };
    let Some(text) = bytes.get(size..head.stored_bytes) else { return Ok(Parsed::Part(head.stored_bytes)) };
    let length = usize::try_from(head.text_bytes).unwrap_or(usize::MAX);
    let text =
        decompress(text, length).map_err(|error| broken("its text cannot be decompressed").source(error))?;
    let ends = u64::try_from(text.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX);
    if text.len() != length || ends != head.block.count || text.last().is_some_and(|byte| *byte != b'\n') {
        return Err(broken("its text is not as long as its head says"));
    }
    Ok(Parsed::Whole(LogBlock { text: text.into(), ..head.block }, head.stored_bytes))
}
