//! A server on this machine that has one source, or has it not. Its threads end with the process.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::watch;

/// What a server answers to every request.
#[derive(Debug, Clone)]
pub enum UpstreamAnswer {
    /// These bytes.
    Gives(Vec<u8>),
    /// These bytes, once somebody opens it.
    Holds(Vec<u8>),
    /// The first half of these bytes; then the connection ends.
    BreaksOff(Vec<u8>),
    /// That it has nothing.
    HasNone,
}

/// Whether it is open, and who waits for it.
type Gate = (Mutex<bool>, Condvar);

/// A server with one source.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<watch::Sender<usize>>,
    gate: Arc<Gate>,
}

impl Upstream {
    /// Starts one.
    pub fn start(answer: UpstreamAnswer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let address = listener.local_addr().expect("it is bound");
        let (asked, gate) = (Arc::new(watch::Sender::new(0)), Arc::<Gate>::default());
        let (count, opened) = (Arc::clone(&asked), Arc::clone(&gate));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, count, opened) = (answer.clone(), Arc::clone(&count), Arc::clone(&opened));
                // A client that goes is none of the server's trouble.
                std::thread::spawn(move || serve(stream, &answer, &count, &opened).unwrap_or_default());
            }
        });
        Self { address, asked, gate }
    }

    /// Where the source is.
    pub fn url(&self) -> String {
        format!("http://{}/source.tar", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until somebody asked.
    pub async fn until_asked(&self) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|count| *count > 0).await.expect("the server is there");
    }

    /// Lets go what it holds.
    pub fn open(&self) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.gate.1.notify_all();
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &UpstreamAnswer,
    asked: &watch::Sender<usize>,
    gate: &Gate,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    asked.send_modify(|count| *count += 1);
    let (status, content) = match answer {
        UpstreamAnswer::Gives(content)
        | UpstreamAnswer::Holds(content)
        | UpstreamAnswer::BreaksOff(content) => ("200 OK", content.as_slice()),
        UpstreamAnswer::HasNone => ("404 Not Found", &[][..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", content.len())?;
    let sent = match answer {
        UpstreamAnswer::BreaksOff(_) => content.len() / 2,
        _ => content.len(),
    };
    if matches!(answer, UpstreamAnswer::Holds(_)) {
        let is_open = gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate.1.wait_while(is_open, |is_open| !*is_open).unwrap_or_else(PoisonError::into_inner));
    }
    stream.write_all(content.get(..sent).unwrap_or_default())
}
