//! TLS against a server of our own that answers `ListWorkers` and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1::types::WorkerRecord;
use bollard_buildkit_proto::moby::buildkit::v1::{ListWorkersRequest, ListWorkersResponse};
use bollard_buildkit_proto::pb::Platform;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;
use crate::arch::Arch;
use crate::buildkit::tls::TlsIdentity;
use crate::error::Blame;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, in PEM.
fn certificate(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// Answers `ListWorkers`.
#[derive(Clone)]
struct Workers;

impl tonic::server::NamedService for Workers {
    const NAME: &'static str = "moby.buildkit.v1.Control";
}

impl tower::Service<http::Request<tonic::body::Body>> for Workers {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let answer = tower::service_fn(|_: Request<ListWorkersRequest>| async {
            let platform =
                Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), ..Platform::default() };
            let worker = WorkerRecord { platforms: vec![platform], ..WorkerRecord::default() };
            Ok::<_, Status>(Response::new(ListWorkersResponse { record: vec![worker] }))
        });
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/moby.buildkit.v1.Control/ListWorkers");
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(answer, request).await)
        })
    }
}

/// Serves on a port of the loopback; with TLS, clients must show a certificate of `clients`.
async fn serve(tls: Option<(&Authority, &str, &Authority)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = Server::builder();
    if let Some((authority, name, clients)) = tls {
        let (cert, key) = certificate(authority, name);
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(cert, key))
            .client_ca_root(Certificate::from_pem(clients.pem()));
        server = server.tls_config(config).unwrap();
    }
    let router = server.add_service(Workers);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    port
}

fn options(ca: &Authority, client: &Authority, server_name: Option<&str>) -> TlsOptions {
    let (cert, key) = certificate(client, "client");
    TlsOptions {
        ca: ca.pem().into(),
        identity: Some(TlsIdentity { cert: cert.into(), key: key.into() }),
        server_name: server_name.map(str::to_owned),
    }
}

async fn try_connect(port: u16, tls: Option<&TlsOptions>) -> Result<DaemonInfo> {
    let address = BackendAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    Ok(connect(&address, tls).await?.1)
}

/// Not trusted, with the cause told once in the chain and a hint that names the flag to look at.
fn assert_refused(result: Result<DaemonInfo>, cause: &str, flag: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.blamed()), (ErrorKind::Untrusted, Some(Blame::Backend)), "{error:?}");
    assert_eq!(error.chain().matches(cause).count(), 1, "{error:?} does not name {cause:?} once");
    assert!(error.hint_text().unwrap().contains(flag), "{error:?}");
}

#[tokio::test]
async fn without_tls() {
    let info = try_connect(serve(None).await, None).await.unwrap();
    assert!(info.runs(Arch::Aarch64) && !info.runs(Arch::X86_64));
}

#[tokio::test]
async fn both_sides_show_certificates_and_the_name_may_differ_from_the_host() {
    let (daemons, clients) = (authority(), authority());
    let port = serve(Some((&daemons, "builder.example", &clients))).await;
    let options = options(&daemons, &clients, Some("builder.example"));
    try_connect(port, Some(&options)).await.unwrap();

    let port = serve(Some((&daemons, "127.0.0.1", &clients))).await;
    let options = TlsOptions { server_name: None, ..options };
    try_connect(port, Some(&options)).await.unwrap();
}

#[tokio::test]
async fn a_daemon_of_another_authority_is_refused() {
    let (daemons, clients, others) = (authority(), authority(), authority());
    let port = serve(Some((&daemons, "builder.example", &clients))).await;
    let options = options(&others, &clients, Some("builder.example"));
    assert_refused(try_connect(port, Some(&options)).await, "invalid peer certificate", "--buildkit-tls-ca");
}

#[tokio::test]
async fn a_daemon_with_another_name_is_refused() {
    let (daemons, clients) = (authority(), authority());
    let port = serve(Some((&daemons, "builder.example", &clients))).await;
    assert_refused(
        try_connect(port, Some(&options(&daemons, &clients, None))).await,
        "not valid for name",
        "--buildkit-tls-ca",
    );
}

#[tokio::test]
async fn a_certificate_that_the_daemon_does_not_know_is_found_out_while_connecting() {
    let (daemons, clients, others) = (authority(), authority(), authority());
    let port = serve(Some((&daemons, "builder.example", &clients))).await;
    let options = options(&daemons, &others, Some("builder.example"));
    assert_refused(try_connect(port, Some(&options)).await, "alert", "--buildkit-tls-cert");
}

#[tokio::test]
async fn plain_text_to_a_tls_port_is_refused() {
    let (daemons, clients) = (authority(), authority());
    let port = serve(Some((&daemons, "builder.example", &clients))).await;
    let error = try_connect(port, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint_text().unwrap().contains("--buildkit-tls-ca"), "{error:?}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_told_as_such() {
    let (daemons, clients) = (authority(), authority());
    let port = serve(None).await;
    let options = options(&daemons, &clients, None);
    assert_refused(try_connect(port, Some(&options)).await, "InvalidContentType", "--buildkit-tls-ca");
}

#[tokio::test]
async fn a_daemon_that_asks_for_no_certificate_needs_the_authority_alone() {
    let daemons = authority();
    let (cert, key) = certificate(&daemons, "127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
    let router = Server::builder().tls_config(config).unwrap().add_service(Workers);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let options = TlsOptions { ca: daemons.pem().into(), identity: None, server_name: None };
    try_connect(port, Some(&options)).await.unwrap();
}

#[tokio::test]
async fn malformed_options_are_the_callers_mistake() {
    let identity = TlsIdentity { cert: b"pem".to_vec(), key: b"at all".to_vec() };
    let options = TlsOptions { ca: b"no".to_vec(), identity: Some(identity), server_name: None };
    assert_eq!(try_connect(1, Some(&options)).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    let unix: BackendAddress = "unix:///x".parse().unwrap();
    assert_eq!(connect(&unix, Some(&options)).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}
