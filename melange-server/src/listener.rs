//! Connections: how many there may be, how long they may take to say what they want and to take their answers.

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
use melange_remote_sdk::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

mod shared;
mod stall;
mod unread;

use shared::SharedSocket;
use stall::StallBound;
use unread::Unread;

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
    /// How long a client may take nothing of an answer that waits for it.
    pub stall: Duration,
}

impl Default for ConnectionLimits {
    /// At most half of the descriptors of the process: daemons, files and guests need the others.
    fn default() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = descriptors.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let connections = CONNECTIONS_MAX.min(descriptors / 2).max(1);
        Self { connections, headers: HEADERS, stall: limits::RESPONSE_STALL }
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
        let (router, peer, unread) = (self.router, self.peer, Unread::default());
        let last = unread.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, unread) = (router.clone(), unread.clone());
            async move {
                let skipped = unread::is_skipped(request.headers(), request.body());
                let mut request = request.map(|body| Body::new(unread.watch(body)));
                request.extensions_mut().insert(Peer(peer));
                let response = router.oneshot(request).await;
                let mut response = response.unwrap_or_else(|never| match never {});
                unread.announce_close(skipped, &mut response);
                Ok::<_, Infallible>(response)
            }
        });
        let socket = SharedSocket::new(self.stream);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_buf_size(limits::CONNECTION_BUFFER_BYTES)
            .serve_connection(TokioIo::new(StallBound::new(socket.clone(), self.limits.stall)), service)
            .with_upgrades();
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = &ended {
            tracing::debug!(%error, %peer, "a connection ended with an error");
        }
        // What is no request at all is answered too, and the client may be sending the rest of it.
        if last.get() || ended.is_err_and(|error| error.is_parse()) {
            unread::drain(socket).await;
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
        serving_within(ConnectionLimits { connections, ..ConnectionLimits::default() }).await
    }

    async fn serving_within(limits: ConnectionLimits) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let endless = || async {
            let chunk = || Some((Ok::<_, Infallible>(vec![b'x'; 1 << 16]), ()));
            Body::from_stream(futures_util::stream::unfold((), move |()| std::future::ready(chunk())))
        };
        let router = Router::new().route("/", get(|| async { "here" })).route("/endless", get(endless));
        let shutdown = CancellationToken::new();
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

    /// Short enough to wait for, long enough for a machine that is busy: with sockets a paused clock may run ahead of what
    /// is under way in the kernel.
    fn impatient(connections: usize) -> ConnectionLimits {
        let bound = Duration::from_millis(500);
        ConnectionLimits { connections, headers: bound, stall: bound }
    }

    #[tokio::test]
    async fn clients_that_take_nothing_of_their_answers_end() {
        let (addr, _shutdown) = serving_within(impatient(1)).await;
        let mut deaf = TcpStream::connect(addr).await.unwrap();
        deaf.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut second = TcpStream::connect(addr).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(second).await.contains("200 OK"), "the place of the first one is free");
        let begun = rest(deaf).await;
        assert!(begun.contains("200 OK") && begun.len() > 1 << 16, "it was being answered");
    }

    #[tokio::test]
    async fn hundreds_of_silent_and_deaf_clients_leave_room_for_others() {
        const BOUND: usize = 100;
        let (addr, _shutdown) = serving_within(impatient(BOUND)).await;
        let mut held = Vec::new();
        for number in 0..2 * BOUND {
            let mut client = TcpStream::connect(addr).await.unwrap();
            match number % 3 {
                // Never sends anything.
                0 => {}
                1 => client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap(),
                // Never reads anything.
                _ => client.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap(),
            }
            held.push(client);
        }
        let mut last = TcpStream::connect(addr).await.unwrap();
        last.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(last).await.contains("200 OK"), "those before it fill all places twice, and leave");
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
