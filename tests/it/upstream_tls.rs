//! TLS towards an upstream: whom the gate trusts, by which name, and who it says it is.

use crate::harness::*;
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::harness::Sandbox;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// A server that speaks TLS, and what it saw.
struct TlsServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsServer {
    /// Its certificate has this name. `asks`: for a certificate of this authority.
    async fn start(authority: &Authority, name: &str, asks: Option<&Authority>) -> Self {
        let (cert, key) = authority.sign(name);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match asks {
            None => builder.with_no_client_auth(),
            Some(of) => {
                let mut roots = RootCertStore::empty();
                roots.add(of.0.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            connections: Arc::default(),
            names: Arc::default(),
        };
        let (connections, names) = (server.connections.clone(), server.names.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, connections, names) =
                    (acceptor.clone(), connections.clone(), names.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (_, session) = stream.get_ref();
                    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
                    names.lock().push(session.server_name().map(str::to_owned));
                    let service = service_fn(echo);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }
}

/// Answers with the body that came.
async fn echo(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

/// A gate whose upstream is this server; `tls` is its section.
fn house(server: &TlsServer, authority: &Authority, tls: &str) -> Sandbox {
    let plain = format!("endpoints: [http://{}]", server.address);
    let house = Sandbox::new(server.address, &[("workers: auto", "workers: 1")]);
    let secure = format!("endpoints: [https://{}]\n  tls: {{{tls}}}", server.address);
    house.edit("tollgate.yaml", &plain, &secure);
    std::fs::write(house.file("ca.pem"), authority.0.pem()).unwrap();
    house
}

async fn call(house: &Sandbox) -> StatusCode {
    send(house.public, segment(RETAIL_KEY)).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_a_private_authority_and_its_connection_is_kept() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "api.example", None).await;
    let house = house(&server, &authority, "ca: ca.pem, server_name: api.example");
    let _process = house.start().await;
    let probed = server.connections.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(call(&house).await, StatusCode::OK, "{}", house.log());
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    assert!(server.connections.load(Ordering::SeqCst) <= probed + 2);
    let names = server.names.lock().clone();
    assert!(
        names
            .iter()
            .all(|name| name.as_deref() == Some("api.example")),
        "{names:?}"
    );
    let large: String = (0..3_000_000)
        .map(|at| char::from(b'a' + (at % 23) as u8))
        .collect();
    let request = plain("POST", "/v1/portrait/segment", RETAIL_KEY, &large);
    let (status, _, body) = send(house.public, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body == large.as_bytes(), "it passes whole, both ways");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_name_or_of_another_authority_gets_no_call() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&authority, "api.example", None).await;
    for (signer, tls) in [
        (&authority, "ca: ca.pem, server_name: api.elsewhere"),
        (&authority, "ca: ca.pem"),
        (&other, "ca: ca.pem, server_name: api.example"),
    ] {
        let house = house(&server, signer, tls);
        let _process = house.start().await;
        assert_eq!(call(&house).await, StatusCode::BAD_GATEWAY, "{tls}");
        assert!(house.log().contains("certificate"), "{}", house.log());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_who_the_gate_is_is_shown_its_certificate() {
    let (authority, of_gates) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&authority, "api.example", Some(&of_gates)).await;
    let trusts = "ca: ca.pem, server_name: api.example";
    let nobody = house(&server, &authority, trusts);
    let process = nobody.start().await;
    assert_eq!(call(&nobody).await, StatusCode::BAD_GATEWAY);
    drop(process);

    let (cert, key) = of_gates.sign("gate.example");
    let known = format!("{trusts}, certificate: gate.pem, key: {{file: gate.key}}");
    let house = house(&server, &authority, &known);
    std::fs::write(house.file("gate.pem"), cert.pem()).unwrap();
    std::fs::write(house.file("gate.key"), key.serialize_pem()).unwrap();
    let said = house.run(&["check"]);
    assert_eq!(said.code, Some(1), "others may read the key: {said:?}");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(house.file("gate.key"), mode).unwrap();
    let _process = house.start().await;
    assert_eq!(call(&house).await, StatusCode::OK, "{}", house.log());

    // The certificate is read again at a reload, and is another one then.
    let stranger = Authority::new().sign("gate.example");
    std::fs::write(house.file("gate.pem"), stranger.0.pem()).unwrap();
    std::fs::write(house.file("gate.key"), stranger.1.serialize_pem()).unwrap();
    let (status, said) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert!(
        said["changes"]
            .to_string()
            .contains("TLS is spoken otherwise"),
        "{said}"
    );
    assert_eq!(call(&house).await, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authority_of_its_own_a_server_is_trusted_as_the_machine_does() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "127.0.0.1", None).await;
    let house = house(&server, &authority, "");
    house.edit("tollgate.yaml", "\n  tls: {}", "");
    let trusted = house.file("ca.pem");
    let wrapper = format!("SSL_CERT_FILE={}", trusted.display());
    let process = house.start_under(&["env", &wrapper]).await;
    assert_eq!(call(&house).await, StatusCode::OK, "{}", house.log());
    drop(process);
}
