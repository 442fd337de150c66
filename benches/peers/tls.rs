//! TLS and HTTP/2 as the load speaks them, the certificate of all servers, and their cases.
//!
//! Every connection has TLS 1.3 with TLS_AES_128_GCM_SHA256, X25519 and a certificate of ECDSA P-256: the
//! load offers nothing else, so that all servers pay for the same. Connections are kept; the handshake
//! is before the measurement.

use crate::cases::{Bench, Contender, MEASURED, SMALL_BUFFER};
use crate::envoy::{self, Work};
use crate::load::{Calls, SMALL_BODY, Wire};
use crate::servers::{Accounts, Gate, Server};
use crate::table;
use bytes::Bytes;
use h2::client::SendRequest;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Calls at once on one connection of HTTP/2.
const STREAMS: usize = 8;

/// What every server shows.
pub(crate) static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(Certificate::new);

/// A certificate that signs itself, in files as each server wants them.
pub(crate) struct Certificate {
    dir: tempfile::TempDir,
    trusted: RootCertStore,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cert.pem", &chain),
            ("key.pem", &key),
            ("both.pem", &(chain.clone() + &key)),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        private(dir.path().join("key.pem"));
        let mut trusted = RootCertStore::empty();
        trusted.add(made.cert.der().clone()).unwrap();
        Self { dir, trusted }
    }

    /// `cert.pem`, `key.pem`, or `both.pem`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn connector(&self, protocol: &[u8]) -> TlsConnector {
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.trusted.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn private(key: PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Connects, and agrees on the protocol.
pub(crate) async fn connect(address: SocketAddr, protocol: &'static str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = CERTIFICATE.connector(protocol.as_bytes());
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(protocol.as_bytes())
    );
    stream
}

/// One of several calls at once on a connection of HTTP/2.
#[derive(Clone)]
pub(crate) struct Stream(SendRequest<Bytes>);

impl Stream {
    /// So many of them, on as few connections as it takes.
    pub(crate) async fn open(address: SocketAddr, count: usize) -> Vec<Self> {
        let mut streams = Vec::new();
        while streams.len() < count {
            let (sender, connection) = h2::client::handshake(connect(address, "h2").await)
                .await
                .unwrap();
            // It ends with its last stream, or with the server, which the calls then see.
            tokio::spawn(connection);
            let more = STREAMS.min(count - streams.len());
            streams.extend(std::iter::repeat_n(Self(sender), more));
        }
        streams
    }

    /// Sends a request that is written as HTTP/1.1 and reads the whole answer; gives its status.
    pub(crate) async fn call(&mut self, request: &[u8]) -> u16 {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(request).unwrap() else {
            panic!("a request that is not whole");
        };
        let mut sent = http::Request::post(format!("https://localhost{}", head.path.unwrap()));
        for field in head.headers.iter() {
            if !field.name.eq_ignore_ascii_case("host") {
                sent = sent.header(field.name, field.value);
            }
        }
        let mut sender = self.0.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(sent.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::copy_from_slice(&request[length..]), true)
            .unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        while let Some(data) = body.data().await {
            let length = data.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        head.status.as_u16()
    }
}

/// What a call costs over TLS, beside the peers.
pub(crate) async fn run(bench: &Bench) {
    let accounts = Accounts { large: 1 };
    let over_tls = |gate| Gate {
        has_tls: true,
        ..gate
    };
    let strict = over_tls(Gate::STRICT);
    let strict = Server::gate("tollgate, strict", strict, accounts, &bench.upstream).await;
    let relaxed = over_tls(Gate::RELAXED);
    let relaxed = Server::gate("tollgate, relaxed", relaxed, accounts, &bench.upstream).await;
    let nginx = Server::nginx(accounts, &bench.upstream, true).await;
    let haproxy = Server::haproxy(accounts, &bench.upstream, SMALL_BUFFER, true).await;
    let forwards = envoy::start(accounts, &bench.upstream, Work::Forward, true).await;
    let refuses = envoy::start(accounts, &bench.upstream, Work::Refuse, true).await;
    let peers: Vec<Server> = nginx.into_iter().chain(haproxy).collect();

    let admitted = Calls::with_keys(0..1, SMALL_BODY);
    let throttled = accounts.throttled();
    let throttled = Calls::with_keys(throttled..throttled + 1, SMALL_BODY);
    let all = || {
        [&strict, &relaxed]
            .into_iter()
            .chain(&peers)
            .chain(&forwards)
    };
    let refusing = || std::iter::once(&strict).chain(&peers).chain(&refuses);
    for (wire, named) in [(Wire::Tls, "TLS, HTTP/1.1"), (Wire::H2, "TLS, HTTP/2")] {
        let contenders: Vec<_> = all()
            .map(|server| Contender {
                wire,
                ..Contender::new(server, &admitted)
            })
            .collect();
        let rows = bench.compare(&contenders, MEASURED).await;
        table::print(&format!("A {named}: POST of 300 B"), &rows, "nginx");
        let contenders: Vec<_> = refusing()
            .map(|server| Contender {
                wire,
                status: 429,
                ..Contender::new(server, &throttled)
            })
            .collect();
        let rows = bench.compare(&contenders, MEASURED).await;
        table::print(&format!("B {named}: throttled"), &rows, "nginx");
    }
}
