//! Requests that are answered before their bodies were read to the end: a refusal must reach a client that still sends.
//!
//! A socket that is closed while bytes of its peer lie unread resets the connection, and the peer loses the answer that
//! it was about to read. So the server ends its own direction first and takes what still comes, within bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use melange_remote_sdk::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bodies that came whole with their headers are skipped without the end of the connection; larger ones do not.
const SKIPPED_BYTES_MAX: u64 = 4 << 10;

/// Bytes that are taken at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Whether the body of the last request of a connection has parts that nobody has read.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body of a new request, watched.
    pub(super) fn watch(&self, body: Incoming) -> WatchedBody {
        self.0.store(!body.is_end_stream(), Ordering::Relaxed);
        WatchedBody { body, unread: self.clone() }
    }

    /// Tells the client that its connection ends with this answer when the rest of its request is not read.
    pub(super) fn announce_close<B>(&self, skipped: bool, response: &mut Response<B>) {
        if self.get() && !skipped {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether a body that nobody reads is skipped, and its connection goes on.
pub(super) fn is_skipped(headers: &HeaderMap, body: &Incoming) -> bool {
    let small = body.size_hint().upper().is_some_and(|bytes| bytes <= SKIPPED_BYTES_MAX);
    small && !headers.contains_key(header::EXPECT)
}

/// A body that notes when it was read to its end.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Incoming,
    unread: Unread,
}

impl Body for WatchedBody {
    type Data = <Incoming as Body>::Data;
    type Error = <Incoming as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.unread.0.store(false, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends the own direction of a connection and takes what the client still sends until it ends its own, is silent, or has
/// sent as much, or for as long, as it may.
pub(super) async fn drain(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let taken = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = limits::REQUEST_DRAIN_BYTES_MAX;
        while left > 0 {
            match tokio::time::timeout(limits::REQUEST_DRAIN_IDLE, stream.read(&mut chunk)).await {
                Ok(Ok(count @ 1..)) => left = left.saturating_sub(count),
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            }
        }
    };
    // The connection ends whether the client has told all or not.
    let _ = tokio::time::timeout(limits::REQUEST_DRAIN_TIME, taken).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;

    /// The time and the bytes that a client is listened to that does something for ever.
    async fn drained(client: impl AsyncFnOnce(DuplexStream)) -> std::time::Duration {
        let (near, far) = tokio::io::duplex(1 << 20);
        let begun = Instant::now();
        let client = async {
            client(far).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drain(near) => {}
            () = client => {}
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_is_bounded() {
        let took = drained(async |_silent| std::future::pending().await).await;
        assert_eq!(took, limits::REQUEST_DRAIN_IDLE);
        let took = drained(async |mut slow| {
            while slow.write_all(b"x").await.is_ok() {
                tokio::time::sleep(limits::REQUEST_DRAIN_IDLE / 2).await;
            }
        });
        assert_eq!(took.await, limits::REQUEST_DRAIN_TIME);
        let mut sent = 0;
        drained(async |mut endless| {
            let chunk = vec![0; 1 << 20];
            while endless.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
        })
        .await;
        let most = limits::REQUEST_DRAIN_BYTES_MAX;
        assert!((most..=most + (2 << 20)).contains(&sent), "{sent}");
        assert_eq!(drained(async |ended| drop(ended)).await, std::time::Duration::ZERO);
    }
}
