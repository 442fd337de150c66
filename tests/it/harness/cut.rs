//! A way to a server that can be cut without a word: nothing is forwarded, nothing is closed.

use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections to a port of this machine, until it is cut.
pub struct Cut {
    pub port: u16,
    is_cut: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Cut {
    pub async fn to(server: u16) -> Self {
        Self::between(None, server).await
    }

    /// The same of which a cut concerns only those who come from `side`.
    pub async fn from(side: IpAddr, server: u16) -> Self {
        Self::between(Some(side), server).await
    }

    async fn between(side: Option<IpAddr>, server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_cut, cut) = watch::channel(false);
        let never = watch::Sender::new(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, peer) = listener.accept().await.unwrap();
                let is_concerned = side.is_none_or(|side| side == peer.ip());
                let mut cut = match is_concerned {
                    true => cut.clone(),
                    false => never.subscribe(),
                };
                connections.spawn(async move {
                    // One that is opened in the cut is served after it.
                    if cut.wait_for(|cut| !cut).await.is_err() {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    let (near_reads, near_writes) = near.into_split();
                    let (far_reads, far_writes) = far.into_split();
                    tokio::select! {
                        () = forward(near_reads, far_writes, cut.clone()) => {}
                        () = forward(far_reads, near_writes, cut.clone()) => {}
                    }
                });
            }
        });
        Self {
            port,
            is_cut,
            _task: task,
        }
    }

    /// Whoever is connected now never hears anything again.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// New connections are forwarded.
    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

/// Until one side closes; for ever once it was cut.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cut: watch::Receiver<bool>,
) {
    let mut bytes = [0; 4096];
    loop {
        let read = tokio::select! {
            biased;
            _ = cut.changed() => return std::future::pending().await,
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
