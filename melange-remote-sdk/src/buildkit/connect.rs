//! Address → connection. Every kind of daemon ends up as one HTTP/2 channel, so that nothing above knows
//! which one it talks to.
//!
//! dockerd serves HTTP/1.1; `POST /grpc` with an upgrade turns the socket into the same HTTP/2.
//!
//! HTTP/2 keep-alive pings stay off: grpc-go allows one per five minutes on a quiet connection and closes it
//! otherwise. TCP's keep-alive finds dead peers.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::failure::DaemonStatus;
use super::probe::{Control, DaemonInfo, list_workers};
use super::tls::TlsOptions;
use crate::backend::BackendAddress;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;

/// Flow control: the defaults of 64 KiB make a session's upload wait for every round trip.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for streams that are not read, so that the daemon soon waits: HTTP/2's default, which a stream has before the
/// settings arrive.
const SPARE_WINDOW_BYTES: u32 = (64 << 10) - 1;
/// All streams of a connection together. The HTTP/2 library ends a connection whose unread frames, short of 256 bytes
/// each, miss more than half of it: log lines that nobody reads for a while are such, and a full window of them misses
/// about its own size.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;
/// How long a TCP connection may be silent before the kernel asks whether its peer is alive.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub(super) struct Connected {
    pub(super) control: Control,
    /// For log streams that are opened ahead of need and not read: on it the daemon has the least window that
    /// HTTP/2 grants a stream. Only for daemons that need it.
    pub(super) spare: Option<Control>,
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects and asks the daemon for its workers: with TLS 1.3 a missing client certificate shows only at the
/// first call.
pub(super) async fn connect(
    address: &BackendAddress,
    tls: Option<&TlsOptions>,
) -> Result<(Connected, DaemonInfo)> {
    let client =
        |channel| ControlClient::new(channel).max_decoding_message_size(limits::BUILDKIT_MESSAGE_BYTES_MAX);
    let attempt = async {
        let control = client(open_channel(address, tls, STREAM_WINDOW_BYTES).await?);
        let info = list_workers(control.clone())
            .await
            .map_err(|status| unreachable(address, DaemonStatus(status)))?;
        let spare = match info.loses_fast_lines {
            true => Some(client(open_channel(address, tls, SPARE_WINDOW_BYTES).await?)),
            false => None,
        };
        Ok((Connected { control, spare }, info))
    };
    match tokio::time::timeout(limits::BUILDKIT_CONNECT, attempt).await {
        Ok(result) => result,
        Err(elapsed) => Err(unreachable(address, elapsed)),
    }
}

async fn open_channel(
    address: &BackendAddress,
    tls: Option<&TlsOptions>,
    stream_window_bytes: u32,
) -> Result<Channel> {
    let endpoint = |uri: &str| endpoint(uri, stream_window_bytes);
    if tls.is_some() && !matches!(address, BackendAddress::Tcp { .. }) {
        return Err(Error::invalid("TLS is for addresses that begin with tcp://").with("address", address));
    }
    match address {
        BackendAddress::Tcp { host, port } => {
            let host_and_port =
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let scheme = if tls.is_some() { "https" } else { "http" };
            let mut endpoint = endpoint(&format!("{scheme}://{host_and_port}"))
                .map_err(|e| Error::invalid("not a usable address").with("address", address).source(e))?;
            if let Some(tls) = tls {
                endpoint = endpoint.tls_config(tls.client_config(host)).map_err(|e| {
                    Error::invalid("the TLS options of a backend cannot be used")
                        .with("address", address)
                        .hint("certificates and key must be PEM, and the key must belong to the certificate")
                        .source(e)
                })?;
            }
            endpoint.connect().await.map_err(|e| unreachable(address, e))
        }
        BackendAddress::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_| open_unix(path.clone()));
            let endpoint = endpoint("http://buildkit.local").map_err(|e| unreachable(address, e))?;
            endpoint.connect_with_connector(connector).await.map_err(|e| unreachable(address, e))
        }
        BackendAddress::Docker(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_| open_docker(path.clone()));
            let endpoint = endpoint("http://docker.local").map_err(|e| unreachable(address, e))?;
            endpoint.connect_with_connector(connector).await.map_err(|e| unreachable(address, e))
        }
        BackendAddress::Sandbox => {
            Err(Error::invalid("the sandbox is no BuildKit daemon").with("address", address))
        }
    }
}

fn endpoint(uri: &str, stream_window_bytes: u32) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(limits::BUILDKIT_CONNECT)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .initial_stream_window_size(stream_window_bytes)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(limits::BUILDKIT_HEADER_BYTES_MAX))
}

async fn open_unix(path: PathBuf) -> Result<TokioIo<UnixStream>, BoxError> {
    Ok(TokioIo::new(UnixStream::connect(&path).await?))
}

/// Asks dockerd to turn the connection into its BuildKit's.
async fn open_docker(path: PathBuf) -> Result<hyper::upgrade::Upgraded, BoxError> {
    let io = open_unix(path).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, String>(io).await?;
    // Ends with the upgraded connection, which the channel owns.
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::post("/grpc")
        .header(http::header::HOST, "docker")
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "h2c")
        .body(String::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("the daemon answered {} to POST /grpc", response.status()).into());
    }
    Ok(hyper::upgrade::on(response).await?)
}

/// The daemon does not answer: address, cause, and what to look at.
pub(super) fn unreachable(address: &BackendAddress, cause: impl Into<BoxError>) -> Error {
    let cause = cause.into();
    if matches!(address, BackendAddress::Tcp { .. })
        && let Some((message, hint)) = tls_failure(&*cause)
    {
        return Error::new(ErrorKind::Untrusted, message)
            .blame(Blame::Backend)
            .with("address", address)
            .hint(hint)
            .source(cause);
    }
    let hint = match address {
        BackendAddress::Tcp { .. } => {
            "is buildkitd listening there? If it expects TLS, give --buildkit-tls-ca, and --buildkit-tls-cert \
             with --buildkit-tls-key if it asks for a certificate"
        }
        BackendAddress::Unix(path) => {
            socket_hint(path, "is buildkitd running, and may this user open its socket?")
        }
        BackendAddress::Docker(path) => {
            socket_hint(path, "is dockerd running, and may this user open its socket?")
        }
        BackendAddress::Sandbox => "the sandbox needs no daemon",
    };
    Error::new(ErrorKind::Unavailable, "cannot reach the BuildKit daemon")
        .blame(Blame::Backend)
        .with("address", address)
        .hint(hint)
        .source(cause)
}

const NOT_ACCEPTED: (&str, &str) = (
    "the BuildKit daemon does not accept this side's certificate",
    "is --buildkit-tls-cert signed by an authority that the daemon knows, and still valid?",
);

/// What went wrong between the two sides of TLS, and what to look at.
fn tls_failure(cause: &(dyn StdError + 'static)) -> Option<(&'static str, &'static str)> {
    let mut next = Some(cause);
    while let Some(error) = next {
        // The layers between TLS and us keep the kind of an alert and drop its type.
        let alert = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
        // An error inside of an input or output error is not among its sources, but that error's own are.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match error.downcast_ref::<rustls::Error>().or(inner) {
            Some(rustls::Error::InvalidMessage(_)) => {
                return Some((
                    "the BuildKit daemon does not speak TLS",
                    "leave --buildkit-tls-ca out, or let the daemon listen with TLS",
                ));
            }
            Some(rustls::Error::AlertReceived(_)) => return Some(NOT_ACCEPTED),
            None if alert => return Some(NOT_ACCEPTED),
            Some(_) => {
                return Some((
                    "the certificate of the BuildKit daemon is not trusted",
                    "is it signed by an authority of --buildkit-tls-ca, for this host, and still valid?",
                ));
            }
            None => next = error.source(),
        }
    }
    None
}

fn socket_hint(path: &Path, otherwise: &'static str) -> &'static str {
    if path.as_os_str().len() > 107 { "the path of a socket is at most 107 bytes long" } else { otherwise }
}

#[cfg(test)]
mod tests;
