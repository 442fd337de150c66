//! The turns of connections that begin TLS.
//!
//! Owns that a flood of handshakes delays no call. A handshake computes for 0.1 to 1 ms, ten to a
//! hundred times as long as a call. Must never let a client that is slow to answer keep the turn.

use crate::http::TlsConnection;
use crate::model::{ServerTls, network};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex as Turn;
use tokio::time::timeout;

/// The first byte of a handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// What a client is told that speaks plain HTTP.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 33\r\nconnection: close\r\n\r\n\
    This port speaks TLS: use https.\n";

/// A client that speaks plain HTTP is told within this time.
const TELLING: Duration = Duration::from_secs(1);

/// The handshakes of one worker. One at a time computes, in the order in which their peers came.
/// Between two of them every call that is ready has its turn.
#[derive(Default)]
pub(crate) struct Handshakes {
    turn: Turn<()>,
    /// Each peer waits for the turn once, however many connections it opens.
    peers: Mutex<HashMap<IpAddr, Arc<Turn<()>>, foldhash::fast::RandomState>>,
}

/// Why there is no TLS.
pub(super) enum NoHandshake {
    /// The client speaks plain HTTP. It has been told.
    Plain,
    /// Another reason.
    Failed(io::Error),
}

/// Tells a client that speaks plain HTTP. What it has sent is read: a reset would lose the answer.
async fn tell_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN).await?;
    stream.shutdown().await?;
    let mut sent = [0; 4096];
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

impl From<io::Error> for NoHandshake {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Handshakes {
    /// Takes a client's connection once TLS is agreed on. Bound it in time.
    pub(super) async fn accept(
        &self,
        peer: IpAddr,
        tls: &ServerTls,
        stream: TcpStream,
    ) -> Result<TlsConnection, NoHandshake> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if first[0] != HANDSHAKE_RECORD {
            let _ = timeout(TELLING, tell_plain(stream)).await;
            return Err(NoHandshake::Plain);
        }
        let own = self.turn_of(network(peer));
        let (socket, accepting) = TlsConnection::accept(tls.acceptor(), stream);
        let mut accepting = pin!(accepting);
        let accepted = loop {
            // Without the turn: what a client has not sent yet is waited for by nobody else.
            socket.readable().await?;
            let before_own = own.turn.lock().await;
            let turn = self.turn.lock().await;
            let polled = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
            // Comes back when all tasks that were ready have run and the system was asked for more.
            tokio::task::yield_now().await;
            drop((turn, before_own));
            if let Poll::Ready(accepted) = polled {
                break accepted;
            }
        };
        Ok(accepted?)
    }

    fn turn_of(&self, peer: IpAddr) -> PeerTurn<'_> {
        let turn = self.peers.lock().entry(peer).or_default().clone();
        PeerTurn {
            handshakes: self,
            peer,
            turn,
        }
    }
}

/// A peer's turn, as one of its handshakes has it. The last one to go takes the peer out of the
/// table, however it ends.
struct PeerTurn<'h> {
    handshakes: &'h Handshakes,
    peer: IpAddr,
    turn: Arc<Turn<()>>,
}

impl Drop for PeerTurn<'_> {
    fn drop(&mut self) {
        let mut peers = self.handshakes.peers.lock();
        // The table's, and this one.
        if Arc::strong_count(&self.turn) == 2 {
            peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_is_forgotten_when_its_last_handshake_goes_also_when_it_is_dropped() {
        let handshakes = Handshakes::default();
        let peer = IpAddr::from([192, 0, 2, 1]);
        let (one, other) = (handshakes.turn_of(peer), handshakes.turn_of(peer));
        assert!(
            Arc::ptr_eq(&one.turn, &other.turn),
            "they wait for one turn"
        );
        drop(one);
        assert_eq!(handshakes.peers.lock().len(), 1);
        let waits = async move {
            let _turn = other.turn.lock().await;
            std::future::pending::<()>().await;
        };
        let given_up = timeout(Duration::from_millis(10), waits).await;
        assert!(given_up.is_err());
        assert!(handshakes.peers.lock().is_empty());
    }
}
