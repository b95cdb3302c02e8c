//! Logs, as text and line by line.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt, stream};

use super::{Client, encode, transport};
use crate::api::v1::{self, LogLineView};
use crate::error::{Error, Result};
use crate::job::{JobId, LogPosition};
use crate::limits;

/// A line of a log as JSON: each byte of its text may become six, and some words stand around it.
const JSON_LINE_BYTES_MAX: usize = 6 * limits::LOG_LINE_BYTES_MAX + 1_024;

/// Which part of a log is asked for; all that is there of it when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogQuery {
    /// Only lines of this attempt.
    pub attempt: Option<u32>,
    /// Only lines behind a place (`2:120`), or read at a time (RFC 3339) or within a duration (`10m`).
    pub since: Option<String>,
    /// Only lines of the step with this index, from 0, or this name.
    pub step: Option<String>,
    /// Only lines of this stream: `stdout`, `stderr` or `engine`.
    pub stream: Option<String>,
    /// Only so many of the last lines that there are.
    pub tail: Option<u64>,
    /// The part that the test of this package wrote.
    pub test: Option<String>,
    /// Only lines of the step that failed.
    pub failed: bool,
    /// Also what will come, until the job has finished.
    pub follow: bool,
}

impl LogQuery {
    /// The same behind a place.
    #[must_use]
    pub fn behind(mut self, place: LogPosition) -> Self {
        // What is there is known by now.
        (self.since, self.tail) = (Some(place.to_string()), None);
        self
    }

    /// The same, and what will come until the job has finished.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Of the same what the test of a package wrote.
    #[must_use]
    pub fn of_test(mut self, package: impl Into<String>) -> Self {
        self.test = Some(package.into());
        self
    }

    fn path(&self, id: JobId, format: &str) -> String {
        let mut path = format!("{}?format={format}&follow={}", v1::job_logs(id), self.follow);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(&value)));
            }
        };
        add("attempt", self.attempt.map(|attempt| attempt.to_string()));
        add("since", self.since.clone());
        add("step", self.step.clone());
        add("stream", self.stream.clone());
        add("tail", self.tail.map(|lines| lines.to_string()));
        add("test", self.test.clone());
        add("failed", self.failed.then(|| "true".to_owned()));
        path
    }
}

impl Client {
    /// A job's log, or a part of it, as text.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`]; in the stream `Unavailable` when the connection breaks.
    pub async fn log(
        &self,
        id: JobId,
        query: &LogQuery,
    ) -> Result<impl Stream<Item = Result<bytes::Bytes>> + Unpin + use<>> {
        let path = query.path(id, "text");
        let response = self.answer(|| self.get(&path)).await?;
        Ok(response.bytes_stream().map(|chunk| chunk.map_err(|e| transport("the log", e))))
    }

    /// The lines of a job's log, or of a part of it, as many at once as come together. Whoever is cut off goes on behind
    /// the last line that he has: [`LogQuery::behind`].
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`]; in the stream `Unavailable` when the connection breaks.
    pub async fn log_lines(
        &self,
        id: JobId,
        query: &LogQuery,
    ) -> Result<impl Stream<Item = Result<Vec<LogLineView>>> + Unpin + use<>> {
        let path = query.path(id, "jsonl");
        let response = self.answer(|| self.get(&path)).await?;
        let chunks = response.bytes_stream().map(|chunk| chunk.map_err(|e| transport("the log", e)));
        let lines = stream::try_unfold((chunks, Vec::new()), |(mut chunks, mut rest)| async move {
            while let Some(chunk) = chunks.next().await {
                let lines = take(&mut rest, &chunk?)?;
                if !lines.is_empty() {
                    return Ok(Some((lines, (chunks, rest))));
                }
            }
            // Half a line is none: it comes again.
            Ok(None)
        });
        Ok(Box::pin(lines))
    }
}

/// The lines that a chunk completes; the beginning of the next one is kept.
fn take(rest: &mut Vec<u8>, chunk: &[u8]) -> Result<Vec<LogLineView>> {
    let mut lines = Vec::new();
    let mut parts: VecDeque<&[u8]> = chunk.split(|byte| *byte == b'\n').collect();
    let last = parts.pop_back().unwrap_or_default();
    for part in parts {
        rest.extend_from_slice(part);
        if !rest.is_empty() {
            let line = serde_json::from_slice(rest);
            lines.push(line.map_err(|e| Error::unexpected("the server's log cannot be read").source(e))?);
        }
        rest.clear();
    }
    rest.extend_from_slice(last);
    if rest.len() > JSON_LINE_BYTES_MAX {
        return Err(Error::unexpected("a line of the server's log is too long"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let line = |n: u64| {
            format!(
                "{{\"attempt\":1,\"n\":{n},\"time\":\"1970-01-01T00:00:00Z\",\"stream\":\"stdout\",\"text\":\"é {n}\"}}\n"
            )
        };
        let all = (1..=5).map(line).collect::<String>();
        for size in [1, 7, 100, 1_000] {
            let (mut rest, mut numbers) = (Vec::new(), Vec::new());
            for chunk in all.as_bytes().chunks(size) {
                numbers.extend(take(&mut rest, chunk).unwrap().into_iter().map(|line| line.n));
            }
            assert_eq!(numbers, [1, 2, 3, 4, 5], "{size}");
            assert!(rest.is_empty());
        }
        assert!(take(&mut Vec::new(), b"no json\n").is_err());
        assert!(take(&mut Vec::new(), &vec![b'x'; JSON_LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_query_is_written_as_parameters() {
        let id = JobId::new(jiff::Timestamp::UNIX_EPOCH);
        let query = LogQuery { step: Some("a: make&x".to_owned()), tail: Some(3), ..LogQuery::default() };
        let path = query.path(id, "text");
        assert!(path.ends_with("?format=text&follow=false&step=a:%20make%26x&tail=3"), "{path}");
        let path = query.behind(LogPosition { attempt: 2, line: 7 }).following().path(id, "jsonl");
        assert!(path.ends_with("?format=jsonl&follow=true&since=2:7&step=a:%20make%26x"), "{path}");
    }
}
