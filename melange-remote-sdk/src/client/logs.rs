//! Logs, as text and line by line.

use futures_util::{Stream, StreamExt};

use super::lines::{Reading, add_parameter};
use super::{Client, transport};
use crate::api::v1::{self, LogLineView};
use crate::error::{Error, Result};
use crate::job::{JobId, LogPosition};
use crate::limits;

/// Each byte of the text of a line may become six, and some words stand around it.
static LINES: Reading<LogLineView> =
    Reading { what: "the log", line_bytes_max: 6 * limits::LOG_LINE_BYTES_MAX + 1_024, read };

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
        add_parameter(&mut path, "attempt", self.attempt);
        add_parameter(&mut path, "since", self.since.as_ref());
        add_parameter(&mut path, "step", self.step.as_ref());
        add_parameter(&mut path, "stream", self.stream.as_ref());
        add_parameter(&mut path, "tail", self.tail);
        add_parameter(&mut path, "test", self.test.as_ref());
        add_parameter(&mut path, "failed", self.failed.then_some(true));
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
        Ok(LINES.stream(response))
    }
}

fn read(line: &[u8]) -> Result<Option<LogLineView>> {
    let line = serde_json::from_slice(line);
    line.map(Some).map_err(|e| Error::unexpected("the server's log cannot be read").source(e))
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
                numbers.extend(LINES.take(&mut rest, chunk).unwrap().into_iter().map(|line| line.n));
            }
            assert_eq!(numbers, [1, 2, 3, 4, 5], "{size}");
            assert!(rest.is_empty());
        }
        assert!(LINES.take(&mut Vec::new(), b"no json\n").is_err());
        assert!(LINES.take(&mut Vec::new(), &vec![b'x'; LINES.line_bytes_max + 1]).is_err());
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
