//! Logs of attempts: every line with its number, its time, its step and its stream.
//!
//! ```text
//! attempt ─▶ Lines ─▶ LogBlock ─▶ bytes ─▶ job store          while it runs; followers share the newest blocks
//!                                    └──▶ archive             when it has ended: one artifact, blocks and an index
//! JobLogs ─▶ LogReader ─▶ LogPart                             from wherever the lines are
//! ```
//!
//! Lines are numbered from 1 in each attempt, without gaps. What a job store and a storage keep is described in
//! [`block`]; the job store takes it for bytes.

mod archive;
pub mod block;
mod index;
mod logs;
mod reader;
mod search;
mod source;
#[cfg(test)]
mod tests;
mod varint;

pub use block::{Lines, LogBlock, LogForm, LogLine, Origin};
pub use index::LogIndex;
pub use logs::{JobLogs, LogWriter};
pub use reader::{LogPart, LogQuery, LogReader};
pub use search::{LogHit, LogHits, LogSearch, LogText, PatternOptions};
