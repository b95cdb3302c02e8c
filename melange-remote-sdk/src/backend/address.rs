//! Addresses of backends as text: one reading of them at the file, the flag and the API. Pure: nothing is resolved
//! or opened here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits;

/// Where Docker's daemon listens unless told otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Where builds run.
///
/// ```
/// use melange_remote_sdk::backend::BackendAddress;
/// let address: BackendAddress = "tcp://10.0.0.7:1234".parse().unwrap();
/// assert_eq!(address, BackendAddress::Tcp { host: "10.0.0.7".to_owned(), port: 1234 });
/// let docker: BackendAddress = "docker://".parse().unwrap();
/// assert_eq!(docker.to_string(), "docker:///var/run/docker.sock");
/// assert!("10.0.0.7:1234".parse::<BackendAddress>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendAddress {
    /// `tcp://host:port`: a `buildkitd`, with TLS when the operator gave certificates.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:///path`: the socket of a `buildkitd`.
    Unix(PathBuf),
    /// `docker:///path`: the socket of a dockerd, which has a BuildKit inside.
    Docker(PathBuf),
    /// `sandbox://local`: the sandbox of this machine.
    Sandbox,
}

impl BackendAddress {
    /// Whether it means another backend on each machine: a socket file, or the sandbox.
    pub fn is_local(&self) -> bool {
        !matches!(self, Self::Tcp { .. })
    }
}

impl FromStr for BackendAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > limits::BACKEND_ADDR_BYTES_MAX {
            return Err(refused("…", "it is too long"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refused(text, "it holds a space or a control character"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(refused(text, "it has no scheme"));
        };
        match scheme {
            "tcp" => parse_tcp(text, rest),
            "unix" => Ok(Self::Unix(parse_path(text, rest)?)),
            "docker" if rest.is_empty() => Ok(Self::Docker(DOCKER_SOCKET.into())),
            "docker" => Ok(Self::Docker(parse_path(text, rest)?)),
            "sandbox" if rest == "local" => Ok(Self::Sandbox),
            "sandbox" => Err(refused(text, "the only sandbox is sandbox://local")),
            _ => Err(refused(text, "its scheme is unknown")),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Docker(path) => write!(f, "docker://{}", path.display()),
            Self::Sandbox => f.write_str("sandbox://local"),
        }
    }
}

fn refused(text: &str, why: &str) -> Error {
    Error::invalid(format!("not the address of a backend: {text:?}, {why}")).hint(
        "an address is tcp://host:port, unix:///path/to/buildkitd.sock, docker:///path/to/docker.sock or sandbox://local",
    )
}

fn parse_path(text: &str, rest: &str) -> Result<PathBuf> {
    if !rest.starts_with('/') || rest.ends_with('/') {
        return Err(refused(text, "its path is not the absolute path of a socket"));
    }
    Ok(PathBuf::from(rest))
}

fn parse_tcp(text: &str, rest: &str) -> Result<BackendAddress> {
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(refused(text, "it has no port"));
    };
    let port: u16 = port.parse().map_err(|e| refused(text, "its port is not a number").source(e))?;
    if port == 0 {
        return Err(refused(text, "its port is 0"));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let malformed = |e| refused(text, "its IPv6 address is malformed").source(e);
        let address: std::net::Ipv6Addr = inner.parse().map_err(malformed)?;
        return Ok(BackendAddress::Tcp { host: address.to_string(), port });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err(refused(text, "its host is malformed"));
    }
    Ok(BackendAddress::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn anything_else_is_refused_with_a_reason_and_the_forms_that_work() {
        for text in [
            "",
            "x",
            "host:1",
            "http://host:1",
            "tcp://host",
            "tcp://:1",
            "tcp://host:0",
            "tcp://host:99999",
            "tcp://host:port",
            "tcp://host/path:1",
            "tcp://[::1:1",
            "tcp://[x]:1",
            "tcp://a b:1",
            "unix://",
            "unix://relative",
            "unix:/path",
            "unix:///path/",
            "docker://host",
            "docker:///",
            "sandbox://",
            "sandbox://elsewhere",
        ] {
            let error = text.parse::<BackendAddress>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.hint_text().unwrap().contains("tcp://host:port"), "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_keeps_its_brackets() {
        let address: BackendAddress = "tcp://[::1]:1234".parse().unwrap();
        assert_eq!(address, BackendAddress::Tcp { host: "::1".to_owned(), port: 1234 });
        assert_eq!(address.to_string(), "tcp://[::1]:1234");
    }

    fn address() -> impl Strategy<Value = BackendAddress> {
        let path = "/[a-z0-9._/-]{0,20}[a-z0-9]".prop_map(PathBuf::from).boxed();
        prop_oneof![
            ("[a-z0-9.-]{1,30}", 1..=u16::MAX).prop_map(|(host, port)| BackendAddress::Tcp { host, port }),
            (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(|(segments, port)| {
                let host = std::net::Ipv6Addr::from(segments).to_string();
                BackendAddress::Tcp { host, port }
            }),
            path.clone().prop_map(BackendAddress::Unix),
            path.prop_map(BackendAddress::Docker),
            Just(BackendAddress::Sandbox),
        ]
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same(address in address()) {
            prop_assert_eq!(address.to_string().parse::<BackendAddress>().unwrap(), address);
        }

        #[test]
        fn no_text_panics_and_what_parses_survives_a_round_trip(text in "(tcp|unix|docker|sandbox|x)?(://)?\\PC{0,20}") {
            if let Ok(address) = text.parse::<BackendAddress>() {
                prop_assert_eq!(address.to_string().parse::<BackendAddress>().unwrap(), address);
            }
        }
    }
}
