//! Refusals over real connections: whoever is still sending reads the answer.

use std::net::SocketAddr;

use melange_server::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// More than a body may have, and more than the buffers of two sockets hold.
const LARGE: usize = 40 << 20;

const JSON: &str = "content-type: application/json\r\n";

/// A service that listens, and its address.
async fn listening() -> (Service, SocketAddr) {
    let service = Service::start([]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, service.app.clone(), service.shutdown.clone()));
    (service, addr)
}

/// The first part of a request, with the length of its body.
fn head(start: &str, headers: &str, length: usize) -> String {
    format!("{start} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n")
}

/// Sends everything before it reads anything, as many clients do; the whole answer.
async fn send_all(addr: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap_or_else(|error| panic!("{head}: {error}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap_or_else(|error| panic!("{head}: {error}"));
    answer
}

/// Reads an answer of which the end is known by its last bytes, on a connection that goes on.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_client_that_is_still_sending_reads_why_it_was_refused() {
    let (service, addr) = listening().await;
    let body = vec![b' '; LARGE];
    let chunked = |start: &str| {
        format!("{start} HTTP/1.1\r\nhost: a\r\n{JSON}transfer-encoding: chunked\r\n\r\n{LARGE:x}\r\n")
    };
    let cases = [
        ("413 Payload Too Large", head("POST /api/v1/jobs", JSON, LARGE)),
        ("413 Payload Too Large", chunked("POST /api/v1/jobs")),
        ("413 Payload Too Large", chunked("POST /api/v1/backends")),
        ("405 Method Not Allowed", head("PUT /api/v1/jobs", JSON, LARGE)),
        ("405 Method Not Allowed", chunked("PATCH /api/v1/jobs")),
        ("404 Not Found", head("POST /nothing", JSON, LARGE)),
        ("415 Unsupported Media Type", head("POST /api/v1/jobs", "content-type: text/plain\r\n", LARGE)),
        ("403 Forbidden", head("POST /api/v1/jobs", "origin: http://evil.example\r\n", LARGE)),
        // Not HTTP: no length is like this.
        ("400 Bad Request", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned()),
        ("431 Request Header Fields", format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1 << 17))),
    ];
    for (status, head) in &cases {
        let answer = send_all(addr, head, &body).await;
        let told = answer.lines().next().unwrap_or_default();
        assert!(told.contains(status), "{:.80}: {told}", head);
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let room = u32::try_from(limits::REQUEST_BODIES_BYTES_MAX >> 10).unwrap();
    let held = service.app.bodies.try_acquire_many(room).unwrap();
    let submit = head("POST /api/v1/jobs", JSON, limits::REQUEST_BODY_BYTES_MAX);
    let answer = send_all(addr, &submit, &body[..limits::REQUEST_BODY_BYTES_MAX]).await;
    assert!(answer.contains("503 Service Unavailable") && answer.contains("too many requests"), "{answer}");
    drop(held);
    service.app.stopping.cancel();
    let answer = send_all(addr, &submit, &body[..limits::REQUEST_BODY_BYTES_MAX]).await;
    assert!(answer.contains("503 Service Unavailable") && answer.contains("the server stops"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let (_service, addr) = listening().await;
    let asking = format!("{JSON}expect: 100-continue\r\n");
    for (status, start) in
        [("413 ", "POST /api/v1/jobs"), ("404 ", "POST /nothing"), ("405 ", "PUT /healthz")]
    {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(head(start, &asking, LARGE).as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}}").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "nothing follows");
    }
    let body = hello().to_string();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head("POST /api/v1/jobs", &asking, body.len()).as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "}").await.starts_with("HTTP/1.1 201 Created"));
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_does_not_end_its_connection() {
    let (_service, addr) = listening().await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    for _ in 0..3 {
        let request = format!("{}{{\"a\": 1}}", head("POST /nothing", JSON, 8));
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}}").await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("connection: close"), "{answer}");
    }
    stream.write_all(head("GET /healthz", "", 0).as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "}").await.starts_with("HTTP/1.1 200"));
}
