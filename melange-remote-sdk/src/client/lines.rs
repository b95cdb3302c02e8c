//! Answers that come as JSON, an object in each line.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt, stream};

use super::{encode, transport};
use crate::error::{Error, Result};

/// How the lines of an answer are read.
#[derive(Debug)]
pub(super) struct Reading<T> {
    /// What is read, for errors.
    pub(super) what: &'static str,
    /// Bytes of a line.
    pub(super) line_bytes_max: usize,
    /// The object of a line; none for one that is left out.
    pub(super) read: fn(&[u8]) -> Result<Option<T>>,
}

impl<T: Send + 'static> Reading<T> {
    /// The objects as they come, as many at once as come together. Half a line at the end is none.
    pub(super) fn stream(
        &'static self,
        response: reqwest::Response,
    ) -> impl Stream<Item = Result<Vec<T>>> + Unpin + Send + use<T> {
        let chunks = response.bytes_stream().map(move |chunk| chunk.map_err(|e| transport(self.what, e)));
        Box::pin(stream::try_unfold((chunks, Vec::new()), move |(mut chunks, mut rest)| async move {
            while let Some(chunk) = chunks.next().await {
                let objects = self.take(&mut rest, &chunk?)?;
                if !objects.is_empty() {
                    return Ok(Some((objects, (chunks, rest))));
                }
            }
            Ok(None)
        }))
    }

    /// The objects that a chunk completes; the beginning of the next one is kept.
    pub(super) fn take(&self, rest: &mut Vec<u8>, chunk: &[u8]) -> Result<Vec<T>> {
        let mut objects = Vec::new();
        let mut parts: VecDeque<&[u8]> = chunk.split(|byte| *byte == b'\n').collect();
        let last = parts.pop_back().unwrap_or_default();
        for part in parts {
            self.extend(rest, part)?;
            if !rest.is_empty() {
                objects.extend((self.read)(rest)?);
            }
            rest.clear();
        }
        self.extend(rest, last)?;
        Ok(objects)
    }

    fn extend(&self, rest: &mut Vec<u8>, part: &[u8]) -> Result<()> {
        rest.extend_from_slice(part);
        if rest.len() > self.line_bytes_max {
            return Err(Error::unexpected(format!("a line of {} is too long", self.what)));
        }
        Ok(())
    }
}

/// Adds a parameter to the query of a path that has one already.
pub(super) fn add_parameter(path: &mut String, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        path.push_str(&format!("&{name}={}", encode(&value.to_string())));
    }
}
