//! Clients that speak TLS, and HTTP/2 on it, frame by frame where a test needs it.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Trusts these certificates, and offers these protocols.
pub fn trusting(certs: &[&Path], protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        for cert in CertificateDer::pem_file_iter(cert).unwrap() {
            roots.add(cert.unwrap()).unwrap();
        }
    }
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

pub async fn connect(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
}

/// A connection of HTTP/2.
pub struct Http2 {
    pub requests: SendRequest<Bytes>,
    /// Drives it; its end is the connection's.
    pub driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    pub async fn connect(to: SocketAddr, cert: &Path) -> Self {
        let stream = connect(to, &trusting(&[cert], &["h2"]), "localhost").await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self {
            requests,
            driver: tokio::spawn(connection),
        }
    }

    /// Begins a request; whether it ends with its head.
    pub async fn begin(
        &mut self,
        request: http::Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.requests.clone().ready().await.unwrap();
        ready.send_request(request, ends).unwrap()
    }

    /// A whole request and its answer.
    pub async fn send(&mut self, request: http::Request<Bytes>) -> Answered {
        let (parts, body) = request.into_parts();
        let request = http::Request::from_parts(parts, ());
        let (answer, mut stream) = self.begin(request, body.is_empty()).await;
        if !body.is_empty() {
            send_all(&mut stream, body, true).await;
        }
        answered(answer).await.unwrap()
    }
}

/// Sends a body within the windows of the server.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut body: Bytes, ends: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        // A server that has answered takes no more.
        let Some(Ok(room)) = room else { return };
        let part = body.split_to(room.min(body.len()));
        let ends = ends && body.is_empty();
        if stream.send_data(part, ends).is_err() {
            return;
        }
    }
}

#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

pub async fn answered(answer: ResponseFuture) -> Result<Answered, h2::Error> {
    let (head, mut body): (_, RecvStream) = answer.await?.into_parts();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read.extend_from_slice(&data);
    }
    Ok(Answered {
        status: head.status.as_u16(),
        headers: head.headers,
        body: read,
    })
}
