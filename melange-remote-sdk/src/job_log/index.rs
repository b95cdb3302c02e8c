//! The index behind the blocks of an archived log: where each block is, and the lines of each step. Pure.
//!
//! ```text
//! archive = block* index
//! index   = a skippable frame of Zstandard: mark, numbers, and at its end the frame's size and the mark once more
//! ```
//!
//! Whoever knows the size of an archive reads its last [`FOOTER`] bytes, then the index, then the blocks that he needs.

use std::collections::BTreeMap;

use super::block::{FRAME_HEADER, LogBlock, Parsed, broken, read_skippable, skippable};
use super::varint::{Reader, push_signed, push_unsigned};
use crate::error::Result;
use crate::job::{LogArchive, StepLines};
use crate::limits;

const INDEX_MAGIC: u32 = 0x184D_2A5B;

/// What an index begins and ends with; the last byte is the version.
const INDEX_MARK: &[u8; 4] = b"mri\x01";

/// The bytes at the end of an archive that tell how long its index is.
pub(super) const FOOTER: u64 = 8;

/// A block of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// The number of its first line.
    pub(super) first: u64,
    /// The bytes of text before it.
    pub(super) text_offset: u64,
    /// When its first line was read, in milliseconds since 1970.
    pub(super) begun_ms: i64,
}

/// Where the blocks of an archived log are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogIndex {
    pub(super) entries: Vec<Entry>,
    /// Where the bytes of the last block end.
    pub(super) end: u64,
    lines: u64,
    text_bytes: u64,
    steps: BTreeMap<u32, StepLines>,
}

impl LogIndex {
    /// How many lines the log has.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// How many bytes of text it has.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The steps that wrote lines, and where these are.
    pub fn steps(&self) -> impl Iterator<Item = StepLines> {
        self.steps.values().copied()
    }

    /// Adds the next block, which takes so many bytes.
    pub(super) fn push(&mut self, block: &LogBlock, stored_bytes: usize) {
        self.entries.push(Entry {
            offset: self.end,
            first: block.first(),
            text_offset: block.text_offset(),
            begun_ms: block.begun_ms(),
        });
        self.end = self.end.saturating_add(u64::try_from(stored_bytes).unwrap_or(u64::MAX));
        self.lines = block.next().saturating_sub(1);
        let text = u64::try_from(block.text().len()).unwrap_or(u64::MAX);
        self.text_bytes = block.text_offset().saturating_add(text);
        self.add_steps(block);
    }

    /// Adds where the lines of a block's steps are.
    pub(super) fn add_steps(&mut self, block: &LogBlock) {
        for (step, first, last) in block.spans() {
            if self.steps.len() >= limits::STEPS_RECORDED_MAX && !self.steps.contains_key(&step) {
                continue;
            }
            let known = self.steps.entry(step).or_insert(StepLines::new(step, first, last));
            (known.first, known.last) = (known.first.min(first), known.last.max(last));
        }
    }

    /// What is known of a log with this index.
    pub(super) fn summary(&self, stored_bytes: u64) -> LogArchive {
        let mut archive = LogArchive::new(self.lines, self.text_bytes, stored_bytes);
        archive.steps = self.steps().collect();
        archive
    }

    /// The place of the last block that begins at or before what `key` is compared with.
    pub(super) fn place_by<K: Ord>(&self, key: impl Fn(&Entry) -> K, wanted: &K) -> usize {
        self.entries.partition_point(|entry| key(entry) <= *wanted).saturating_sub(1)
    }

    /// The bytes of a block.
    pub(super) fn bytes_of(&self, place: usize) -> Option<std::ops::Range<u64>> {
        let begin = self.entries.get(place)?.offset;
        let end = self.entries.get(place.saturating_add(1)).map_or(self.end, |next| next.offset);
        Some(begin..end)
    }

    /// The index as bytes, to be put behind the blocks.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut content = INDEX_MARK.to_vec();
        push_unsigned(&mut content, self.lines);
        push_unsigned(&mut content, self.text_bytes);
        push_unsigned(&mut content, self.end);
        push_unsigned(&mut content, count(self.steps.len()));
        for StepLines { step, first, last } in self.steps.values() {
            push_unsigned(&mut content, u64::from(*step));
            push_unsigned(&mut content, *first);
            push_unsigned(&mut content, *last);
        }
        push_unsigned(&mut content, count(self.entries.len()));
        let mut before = Entry { offset: 0, first: 0, text_offset: 0, begun_ms: 0 };
        for entry in &self.entries {
            push_unsigned(&mut content, entry.offset.saturating_sub(before.offset));
            push_unsigned(&mut content, entry.first.saturating_sub(before.first));
            push_unsigned(&mut content, entry.text_offset.saturating_sub(before.text_offset));
            push_signed(&mut content, entry.begun_ms.saturating_sub(before.begun_ms));
            before = *entry;
        }
        let size = FRAME_HEADER + content.len() + 8;
        content.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        content.extend_from_slice(INDEX_MARK);
        skippable(INDEX_MAGIC, &content)
    }

    /// How long the index is, from the last [`FOOTER`] bytes of an archive.
    pub(super) fn size_of(footer: &[u8]) -> Result<u64> {
        let parts = footer.split_first_chunk::<4>().filter(|(_, mark)| mark == INDEX_MARK);
        let size =
            parts.map(|(size, _)| u32::from_le_bytes(*size)).ok_or_else(|| broken("it has no index"))?;
        if usize::try_from(size).unwrap_or(usize::MAX) > limits::LOG_INDEX_BYTES_MAX {
            return Err(broken("its index is too long"));
        }
        Ok(u64::from(size))
    }

    /// The index that [`Self::encode`] made.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let Parsed::Whole(content, _) = read_skippable(bytes, INDEX_MAGIC) else {
            return Err(broken("its index is none"));
        };
        let content = content.strip_prefix(INDEX_MARK).ok_or_else(|| broken("its index is none"))?;
        let mut reader = Reader::new(content);
        let early = || broken("its index ends early");
        let mut number = || reader.unsigned().ok_or_else(early);
        let (lines, text_bytes, end) = (number()?, number()?, number()?);
        let mut index = Self { lines, text_bytes, end, ..Self::default() };
        for _ in 0..number()? {
            let step = u32::try_from(number()?).map_err(|_| broken("a step's number"))?;
            index.steps.insert(step, StepLines::new(step, number()?, number()?));
        }
        let blocks = number()?;
        let mut entry = Entry { offset: 0, first: 0, text_offset: 0, begun_ms: 0 };
        for _ in 0..blocks {
            entry.offset = entry.offset.saturating_add(reader.unsigned().ok_or_else(early)?);
            entry.first = entry.first.saturating_add(reader.unsigned().ok_or_else(early)?);
            entry.text_offset = entry.text_offset.saturating_add(reader.unsigned().ok_or_else(early)?);
            entry.begun_ms = entry.begun_ms.saturating_add(reader.signed().ok_or_else(early)?);
            index.entries.push(entry);
        }
        Ok(index)
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
