//! Connections: how many there may be, and how long they may take to say what they want.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections at once, where the process may have so many descriptors.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a connection may take for the headers of a request, and how long it may be idle between two requests.
const HEADERS: Duration = Duration::from_secs(30);
/// The least time between two log lines about too many connections.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after an accept that failed: descriptors or memory are short, and asking again at once helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who sent a request; an extension of every request that came over a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long the headers of a request may take, counted from the end of the request before.
    pub headers: Duration,
}

impl Default for ConnectionLimits {
    /// At most half of the descriptors of the process: daemons, files and guests need the others.
    fn default() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = descriptors.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        Self { connections: CONNECTIONS_MAX.min(descriptors / 2).max(1), headers: HEADERS }
    }
}

/// Serves connections until `shutdown` is cancelled and the requests under way are answered.
pub(crate) async fn serve(
    listener: &TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let mut complaints = Complaints(None);
    loop {
        if slots.available_permits() == 0 && complaints.is_due() {
            tracing::warn!(connections = limits.connections, "no more connections are taken until one ends");
        }
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Ok(slot) = slot else { break };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { stream, peer, router: router.clone(), limits, _slot: slot };
                connections.spawn(connection.serve(shutdown.clone()));
            }
            Err(error) => {
                if complaints.is_due() {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// When the last log line about the listener's troubles was written.
struct Complaints(Option<Instant>);

impl Complaints {
    /// Whether another line may be written; it then counts as written.
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: ConnectionLimits,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, shutdown: CancellationToken) {
        let (router, peer) = (self.router, self.peer);
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                let response = router.oneshot(request).await;
                Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .serve_connection(TokioIo::new(self.stream), service)
            .with_upgrades();
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "a connection ended with an error");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server with some limits, and its address.
    async fn serving(connections: usize) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let (shutdown, limits) =
            (CancellationToken::new(), ConnectionLimits { connections, headers: HEADERS });
        let stop = shutdown.clone();
        tokio::spawn(async move { serve(&listener, router, limits, stop).await });
        (addr, shutdown)
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A connection that was reset ends as well as one that was closed.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test(start_paused = true)]
    async fn slow_headers_and_idle_connections_end() {
        let (addr, _shutdown) = serving(10).await;
        let begun = Instant::now();
        for text in ["", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
            let mut slow = TcpStream::connect(addr).await.unwrap();
            slow.write_all(text.as_bytes()).await.unwrap();
            assert!(!rest(slow).await.contains("200 OK"));
        }
        let mut idle = TcpStream::connect(addr).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = rest(idle).await;
        assert!(answer.contains("200 OK") && answer.ends_with("here"), "{answer}");
        assert!(begun.elapsed() < HEADERS * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_above_the_bound_wait_and_are_served_later() {
        let (addr, shutdown) = serving(1).await;
        let idle = TcpStream::connect(addr).await.unwrap();
        let mut second = TcpStream::connect(addr).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(second).await.contains("200 OK"));
        assert_eq!(rest(idle).await, "", "the first one was idle for too long");
        shutdown.cancel();
    }
}
