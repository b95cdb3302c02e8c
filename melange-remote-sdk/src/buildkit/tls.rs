//! TLS for daemons at `tcp://` addresses.

use std::fmt;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::error::{Error, Result};

/// TLS for [`crate::backend::BackendAddress::Tcp`]. All in PEM.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The certificates of the authorities that may vouch for the daemon; no others do.
    pub ca: Vec<u8>,
    /// What we show to daemons that ask for it.
    pub identity: Option<TlsIdentity>,
    /// The name in the daemon's certificate when it is not the host of the address.
    pub server_name: Option<String>,
}

/// What a client shows of itself. All in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Our certificate and those between it and its authority.
    pub cert: Vec<u8>,
    /// The private key of our certificate.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsOptions {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl TlsOptions {
    /// TLS with these authorities, showing nothing of ourselves.
    pub fn new(ca: impl Into<Vec<u8>>) -> Self {
        Self { ca: ca.into(), identity: None, server_name: None }
    }

    /// Whether the certificates and the key can be used at all, so that a wrong file is told at the start and not by
    /// the first job.
    ///
    /// # Errors
    /// `InvalidRequest` with the cause.
    pub fn check(&self) -> Result<()> {
        // tonic takes a file without any certificate for an authority that vouches for nobody.
        for (what, pem) in [("certificate authority", &self.ca)]
            .into_iter()
            .chain(self.identity.iter().map(|identity| ("client certificate", &identity.cert)))
        {
            if !pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
                return Err(Error::invalid(format!("the {what} for BuildKit holds no certificate"))
                    .hint("it is a PEM file that begins with -----BEGIN CERTIFICATE-----"));
            }
        }
        let endpoint = Endpoint::from_static("https://buildkit.invalid");
        endpoint.tls_config(self.client_config("buildkit.invalid")).map(drop).map_err(|error| {
            Error::invalid("the TLS files for BuildKit cannot be used")
                .hint("certificates and key must be PEM, and the key must belong to the certificate")
                .source(error)
        })
    }

    /// The client's side of a connection to `host`.
    pub(super) fn client_config(&self, host: &str) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(self.server_name.as_deref().unwrap_or(host));
        if let Some(identity) = &self.identity {
            config = config.identity(Identity::from_pem(&identity.cert, &identity.key));
        }
        config
    }
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_in_the_debug_form() {
        let identity = TlsIdentity { cert: b"B".to_vec(), key: b"SECRET".to_vec() };
        let options =
            TlsOptions { ca: b"A".to_vec(), identity: Some(identity), server_name: Some("build".to_owned()) };
        let text = format!("{options:?}");
        assert!(text.contains("build") && !text.contains("83") && !text.contains("SECRET"), "{text}");
    }

    #[test]
    fn files_that_cannot_work_are_told_at_once() {
        let of = |subject: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![subject.to_owned()]).unwrap();
            (params.self_signed(&key).unwrap().pem().into_bytes(), key.serialize_pem().into_bytes())
        };
        let ((ca, ca_key), (cert, key)) = (of("authority"), of("client"));
        let options = |ca: &[u8], identity: Option<(&[u8], &[u8])>| TlsOptions {
            ca: ca.to_vec(),
            identity: identity.map(|(cert, key)| TlsIdentity { cert: cert.to_vec(), key: key.to_vec() }),
            server_name: None,
        };
        options(&ca, None).check().unwrap();
        options(&ca, Some((&cert, &key))).check().unwrap();
        assert!(options(&ca_key, None).check().is_err(), "a key is no authority");
        assert!(options(b"", None).check().is_err());
        assert!(options(&ca, Some((&key, &cert))).check().is_err(), "swapped");
        assert!(options(&ca, Some((&cert, &ca_key))).check().is_err(), "the key of another certificate");
    }
}
