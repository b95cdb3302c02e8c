//! Viewers of a log on one of two servers, behind a proxy that cuts them off again and again, while the other server,
//! which runs the job, is killed.

use std::time::Duration;

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{LogLinesView, LogMessage};
use melange_remote_sdk::client::LogQuery;
use melange_remote_sdk::job::JobId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::servers::{Database, Servers, distro, needed};

/// Lets connections through to a server, each for so long; gives its address.
async fn cutting_proxy(server: String, cut: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut viewer, _) = listener.accept().await.unwrap();
            let server = server.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let piped = tokio::io::copy_bidirectional(&mut viewer, &mut server);
                // What was under way is lost, in the middle of a line or not.
                let _ = tokio::time::timeout(cut, piped).await;
            });
        }
    });
    address
}

/// What a viewer saw.
#[derive(Default)]
struct Seen {
    lines: Vec<(u32, u64, String)>,
    /// Where it goes on.
    place: Option<String>,
    connections: usize,
    ended: bool,
}

impl Seen {
    fn take(&mut self, lines: LogLinesView, place: String) {
        self.lines.extend(lines.lines.into_iter().map(|line| (line.attempt, line.n, line.text)));
        self.place = Some(place);
    }
}

/// Follows by server-sent events, and connects again with the last id, as browsers do.
async fn follow_events(proxy: String, id: JobId) -> Seen {
    let mut seen = Seen::default();
    while !seen.ended {
        seen.connections += 1;
        let mut connection = TcpStream::connect(&proxy).await.unwrap();
        let last = seen.place.iter().fold(String::new(), |_, place| format!("Last-Event-ID: {place}\r\n"));
        // Of HTTP/1.0, so that the body is not in chunks.
        let request = format!(
            "GET /api/v1/jobs/{id}/logs HTTP/1.0\r\nHost: test\r\nAccept: text/event-stream\r\n{last}\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(connection).lines();
        let (mut event, mut place, mut data) = (String::new(), String::new(), String::new());
        // A line that was cut off ends the connection too.
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event),
                Some(("id", id)) => id.clone_into(&mut place),
                Some(("data", text)) => text.clone_into(&mut data),
                _ if line.is_empty() => {
                    // What is behind the head, and comments that keep the connection alive, name no event.
                    match event.as_str() {
                        "lines" => seen.take(serde_json::from_str(&data).unwrap(), place.clone()),
                        "end" => seen.ended = true,
                        _ => assert_ne!(event, "error", "{data}"),
                    }
                    event.clear();
                }
                _ => {}
            }
        }
    }
    seen
}

/// Follows by a WebSocket, and connects again with `since`.
async fn follow_socket(proxy: String, id: JobId) -> Seen {
    let mut seen = Seen::default();
    while !seen.ended {
        seen.connections += 1;
        let since = seen.place.iter().fold(String::new(), |_, place| format!("?since={place}"));
        let connection = TcpStream::connect(&proxy).await.unwrap();
        let address = format!("ws://{proxy}/api/v1/jobs/{id}/logs/ws{since}");
        let Ok((mut socket, _)) = tokio_tungstenite::client_async(address, connection).await else {
            continue;
        };
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            match serde_json::from_str(&text).unwrap() {
                LogMessage::Lines { position, lines } => seen.take(lines, position),
                LogMessage::End(_) => seen.ended = true,
                LogMessage::Error(error) => panic!("{error:?}"),
            }
        }
    }
    seen
}

/// All lines of a job, read at once.
async fn all_lines(servers: &Servers, name: &str, id: JobId) -> Vec<(u32, u64, String)> {
    let mut lines = servers.client(name).log_lines(id, &LogQuery::default()).await.unwrap();
    let mut all = Vec::new();
    while let Some(part) = lines.next().await {
        all.extend(part.unwrap().into_iter().map(|line| (line.attempt, line.n, line.text)));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_each_line_once_whatever_is_cut_off_and_whoever_runs_the_job() {
    let Some((distro, postgres)) = distro().zip(needed("MELANGE_TEST_POSTGRES")) else { return };
    let database = Database::new(&postgres);
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::new(folder.path(), distro, Some(database.url.clone()));
    let (size, patience) = (servers.size, Duration::from_secs(240));
    servers.start("one");
    let id = servers.submit_printing("one", 0, size.lines).await;
    while servers.client("one").job(id).await.unwrap().steps.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    servers.start("two");
    let proxy = cutting_proxy(servers.address("two"), size.cut).await;
    let events = tokio::spawn(follow_events(proxy.clone(), id));
    let socket = tokio::spawn(follow_socket(proxy, id));
    tokio::time::sleep(size.pause * u32::try_from(size.lines / 2).unwrap()).await;
    servers.kill("one");
    let ended = tokio::time::timeout(patience, futures_util::future::join(events, socket));
    let (events, socket) = ended.await.expect("the followers see the end");
    let job = servers.client("two").job(id).await.unwrap();
    assert_eq!((job.status.as_str(), job.attempt), ("success", 2), "{job:?}");
    let all = all_lines(&servers, "two", id).await;
    for attempt in 1..=2 {
        let numbers: Vec<u64> = all.iter().filter(|line| line.0 == attempt).map(|line| line.1).collect();
        assert_eq!(numbers, (1..=u64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
        assert!(!numbers.is_empty(), "the attempt {attempt} was seen");
    }
    let printed = |line: &&(u32, u64, String)| line.0 == 2 && line.2.trim_start().starts_with("line ");
    assert_eq!(all.iter().filter(printed).count(), size.lines);
    for (way, seen) in [("events", events.unwrap()), ("socket", socket.unwrap())] {
        eprintln!("{way}: {} lines over {} connections", seen.lines.len(), seen.connections);
        assert!(seen.connections > 2, "it was cut off");
        assert_eq!(seen.lines, all, "{way}");
    }
    servers.check_left_overs().await;
}
