//! The admin listener's connections, which share the open files with the calls' own.
//!
//! Owns their number and how long one may stay silent. Must never let them grow until the public
//! listener cannot accept.

use crate::http::TlsConnection;
use crate::model::ServerTls;
use axum::serve::Listener;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout};

/// Connections at once; further ones wait, unread. They need no token to exist.
pub const CONNECTIONS: usize = 32;
/// A connection that takes no byte of an answer for so long is closed, also one whose head trickles
/// in. Longer than a scrape interval, so that a scraper keeps its own.
const SILENT: Duration = Duration::from_secs(75);
/// TLS has to be agreed on within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// It is tried again much sooner.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A listener with at most [`CONNECTIONS`] open.
pub(crate) struct Bounded {
    listener: TcpListener,
    tls: Option<ServerTls>,
    places: Arc<Semaphore>,
    /// When it was last told that no connection can be accepted.
    told_at: Option<Instant>,
}

impl Bounded {
    /// Around a bound listener.
    pub(crate) fn new(listener: TcpListener, tls: Option<ServerTls>) -> Self {
        Self {
            listener,
            tls,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            told_at: None,
        }
    }
}

impl Listener for Bounded {
    type Io = AdminConnection<OwnedSemaphorePermit>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Never closed, so that there is always a place some time.
            let Ok(place) = self.places.clone().acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let stream = AdminStream::new(stream, self.tls.as_ref());
                    return (AdminConnection::new(stream, place), peer);
                }
                Err(error) => {
                    if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                        tracing::warn!(%error, "cannot accept at the admin listener");
                        self.told_at = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a connection speaks. Its handshake goes on as it is read and written: whoever accepts waits
/// for nobody's.
pub(crate) enum AdminStream {
    Plain(TcpStream),
    Handshake(Pin<Box<dyn Future<Output = io::Result<TlsConnection>> + Send>>),
    Tls(Box<TlsConnection>),
}

impl AdminStream {
    fn new(stream: TcpStream, tls: Option<&ServerTls>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(tls) => {
                let handshake = TlsConnection::accept(tls.acceptor(), stream).1;
                Self::Handshake(Box::pin(async move {
                    let agreed = timeout(HANDSHAKE, handshake).await;
                    agreed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }))
            }
        }
    }

    /// The stream, once it can be read and written.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Duplex>>> {
        if let Self::Handshake(handshake) = self {
            let done = ready!(handshake.as_mut().poll(cx))?;
            *self = Self::Tls(Box::new(done));
        }
        Poll::Ready(match self {
            Self::Plain(stream) => Ok(Pin::new(stream)),
            Self::Tls(stream) => Ok(Pin::new(&mut **stream)),
            Self::Handshake(_) => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl AsyncRead for AdminStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?.poll_shutdown(cx)
    }
}

/// A connection that is given up when it was [`SILENT`] too long. Holds its place till then.
pub(crate) struct AdminConnection<P, S = AdminStream> {
    stream: S,
    silent: Option<Pin<Box<Sleep>>>,
    _place: P,
}

impl<P, S> AdminConnection<P, S> {
    fn new(stream: S, place: P) -> Self {
        Self {
            stream,
            silent: None,
            _place: place,
        }
    }

    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let silent = self
            .silent
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENT)));
        ready!(silent.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<P: Unpin, S: AsyncRead + Unpin> AsyncRead for AdminConnection<P, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_silent(cx).map(Err),
            read => read,
        }
    }
}

impl<P: Unpin, S: AsyncWrite + Unpin> AsyncWrite for AdminConnection<P, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.poll_silent(cx).map(Err),
            written => {
                self.silent = None;
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Under TLS both wait for the peer: it may not have taken what was written.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_silent(cx).map(Err),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.poll_silent(cx).map(Err),
            ended => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_given_up_whose_peer_does_not_take_the_last_bytes() {
        let (client, server) = tokio::io::duplex(64);
        // Like TLS it has taken what the peer has not.
        let buffered = BufWriter::with_capacity(1024, server);
        let mut server = AdminConnection::new(buffered, ());
        let began = Instant::now();
        server.write_all(&[b'x'; 200]).await.unwrap();
        let error = server.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= SILENT);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_given_up_when_it_takes_no_answer_though_bytes_trickle_in() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = AdminConnection::new(server, ());
        let began = Instant::now();
        server.write_all(b"an answer").await.unwrap();
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut step = [0; 8];
        let error = loop {
            match server.read(&mut step).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        trickle.abort();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let lasted = began.elapsed();
        assert!(
            lasted >= SILENT && lasted < SILENT + Duration::from_secs(2),
            "{lasted:?}"
        );
    }
}
