//! How a lane's clients come to its gate: over plain TCP, or over TLS.

use crate::harness::{Gate, Sandbox, retail_unlimited};
use crate::tls::{certificate, client::trusting, section};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tollgate::testing::config;
use tollgate::testing::control;
use tollgate::testing::model::Clock;

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The public listener of a gate.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    http2: Arc<ClientConfig>,
}

impl Door {
    async fn tcp(&self, peer: [u8; 4]) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((peer, 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// For HTTP/1.1.
    pub async fn connect(&self, peer: [u8; 4]) -> std::io::Result<Box<dyn Stream>> {
        let stream = self.tcp(peer).await?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(config) => Box::new(agree(config, stream).await?),
        })
    }

    /// For HTTP/2, of a gate that speaks TLS.
    pub async fn connect_http2(&self, peer: [u8; 4]) -> std::io::Result<TlsStream<TcpStream>> {
        agree(&self.http2, self.tcp(peer).await?).await
    }
}

async fn agree(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
}

/// A gate with one worker, in which the account of [`crate::harness::RETAIL_KEY`] may call as often as
/// it likes.
pub async fn gate(upstream: SocketAddr, has_tls: bool) -> (Gate, Door) {
    let shown = format!("behind_tls: false\ntls: {}", section(&["tls"]));
    let edits = [("behind_tls: false", shown.as_str())];
    let house = Sandbox::new(upstream, if has_tls { &edits } else { &[] });
    let (cert, _) = certificate(&house.file("tls"), &[]);
    let mut config = config::load(&house.settings).unwrap_or_else(|error| panic!("{error}"));
    retail_unlimited(&mut config);
    config.settings.workers = NonZeroUsize::new(1);
    config.settings.limits.connections = 500;
    config.settings.ledger.path = house.dir.path().join("ledger.db");
    let (clock, mover) = Clock::movable();
    let running = control::start(config, clock.clone(), Default::default())
        .await
        .expect("the gate starts");
    let door = Door {
        address: running.public.first_tcp().unwrap(),
        tls: has_tls.then(|| trusting(&[&cert], &["http/1.1"])),
        http2: trusting(&[&cert], &["h2"]),
    };
    let gate = Gate {
        public: running.public.first_tcp().unwrap(),
        admin: running.admin,
        running: Some(running),
        clock,
        mover,
        dir: house.dir,
    };
    (gate, door)
}
