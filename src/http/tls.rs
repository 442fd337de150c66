//! A connection that speaks TLS, in two halves like a plain one.
//!
//! Owns the bytes between the socket and TLS. Must never read or write the socket past TLS: a
//! splice, or a byte in clear, would end the connection.

use crate::http::{ByteReader, ByteWriter, Pipe, SocketRef};
use parking_lot::Mutex;
use rustix::io::{read, write};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// By this name a client asks for HTTP/2 (RFC 9113 §3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// By this name a client asks for HTTP/1.1 (RFC 7301 §6).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// A TCP connection under TLS. Others may hear of its end ([`ByteReader::transport`]).
#[derive(Debug)]
struct TlsSocket {
    socket: Arc<TcpStream>,
    /// Writes ask the system, whatever the runtime has heard.
    insists: bool,
    /// The bytes that were written while it insisted.
    insisted: usize,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct TlsConnection {
    stream: TlsStream<TlsSocket>,
    socket: Arc<TcpStream>,
}

/// The half of a connection that is read from.
pub(crate) struct TlsReader {
    stream: Arc<Mutex<TlsStream<TlsSocket>>>,
    socket: Arc<TcpStream>,
}

/// The half of a connection that is written to.
pub(crate) struct TlsWriter {
    stream: Arc<Mutex<TlsStream<TlsSocket>>>,
    socket: Arc<TcpStream>,
}

impl TlsSocket {
    fn new(socket: Arc<TcpStream>) -> Self {
        Self {
            socket,
            insists: false,
            insisted: 0,
        }
    }

    fn poll_io(
        &self,
        wanted: usize,
        interest: Interest,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let mut moved = None;
        let tried = self.socket.try_io(interest, || {
            let bytes = attempt(&self.socket)?;
            moved = Some(bytes);
            // Less than asked for: the socket has no more to give or to take. Said so, the runtime
            // does not make another system call to find out.
            match bytes {
                0 => Ok(()),
                bytes if bytes < wanted => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match (moved, tried) {
            (Some(bytes), _) => Ok(Some(bytes)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Ok(None),
        }
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.initialize_unfilled();
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let wanted = room.len();
            let tried = self.poll_io(wanted, Interest::READABLE, |socket| {
                Ok(read(socket, &mut *room)?)
            });
            if let Some(bytes) = tried? {
                into.advance(bytes);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.insists {
            return match write(&*self.socket, bytes) {
                Ok(written) => {
                    self.insisted += written;
                    Poll::Ready(Ok(written))
                }
                Err(rustix::io::Errno::AGAIN) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error.into())),
            };
        }
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let tried = self.poll_io(bytes.len(), Interest::WRITABLE, |socket| {
                Ok(write(socket, bytes)?)
            });
            if let Some(written) = tried? {
                return Poll::Ready(Ok(written));
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.insists {
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(cx, first.map_or(&[], |piece| piece));
        }
        let wanted = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let tried = self.poll_io(wanted, Interest::WRITABLE, |socket| {
                Ok(rustix::io::writev(socket, pieces)?)
            });
            if let Some(written) = tried? {
                return Poll::Ready(Ok(written));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write);
        Poll::Ready(closed.map_err(io::Error::from))
    }
}

impl TlsConnection {
    /// The handshake with a client, and the socket to see when there is something to read for it.
    ///
    /// # Errors
    /// When the client does not speak TLS, or has nothing in common with this side.
    pub(crate) fn accept(
        acceptor: TlsAcceptor,
        socket: TcpStream,
    ) -> (Arc<TcpStream>, impl Future<Output = io::Result<Self>>) {
        let socket = Arc::new(socket);
        let seen = socket.clone();
        let accepting = async move {
            let accepted = acceptor.accept(TlsSocket::new(socket.clone())).await?;
            let stream = accepted.into();
            Ok(Self { stream, socket })
        };
        (seen, accepting)
    }

    /// The handshake with a server that must have this name.
    ///
    /// # Errors
    /// When the server does not speak TLS, or its certificate is not to be trusted.
    pub(crate) async fn connect(
        connector: TlsConnector,
        name: ServerName<'static>,
        socket: TcpStream,
    ) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let connected = connector.connect(name, TlsSocket::new(socket.clone()));
        let stream = connected.await?.into();
        Ok(Self { stream, socket })
    }

    /// The TCP connection that carries it: to hear of its end, never to read from.
    pub(crate) fn transport(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        let (_, session) = self.stream.get_ref();
        session.alpn_protocol() == Some(HTTP_2)
    }

    /// Its two halves.
    pub(crate) fn into_split(self) -> (TlsReader, TlsWriter) {
        let Self { stream, socket } = self;
        let stream = Arc::new(Mutex::new(stream));
        let reader = TlsReader {
            stream: stream.clone(),
            socket: socket.clone(),
        };
        (reader, TlsWriter { stream, socket })
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for TlsReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_read(cx, into)
    }
}

impl ByteReader for TlsReader {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn transport(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef::Tcp(&self.socket))
    }
}

impl AsyncWrite for TlsWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.lock()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.lock()).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)
    }
}

impl ByteWriter for TlsWriter {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn transport(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef::Tcp(&self.socket))
    }

    fn poll_pour(&mut self, _: &mut Pipe, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Records that wait are written first: nothing may overtake them.
    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.stream.lock();
        let insisted = insist(&mut stream, |stream, cx| {
            stream.poll_flush(cx).map_ok(|()| 0)
        })?;
        if insisted.is_none() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = insist(&mut stream, |stream, cx| stream.poll_write(cx, bytes))?;
        written.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush_at_once(&mut self) -> io::Result<usize> {
        let mut stream = self.stream.lock();
        let flushed = insist(&mut stream, |stream, cx| {
            stream.poll_flush(cx).map_ok(|()| 0)
        })?;
        match (flushed, stream.get_ref().0.insisted) {
            (None, 0) => Err(io::ErrorKind::WouldBlock.into()),
            (_, written) => Ok(written),
        }
    }
}

/// Runs one attempt that asks the system; `None` when the socket takes nothing now.
fn insist(
    stream: &mut TlsStream<TlsSocket>,
    attempt: impl FnOnce(Pin<&mut TlsStream<TlsSocket>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
) -> io::Result<Option<usize>> {
    let under = |stream: &mut TlsStream<TlsSocket>, insists| {
        let socket = stream.get_mut().0;
        (socket.insists, socket.insisted) = (insists, if insists { 0 } else { socket.insisted });
    };
    under(stream, true);
    // Nobody is woken by it: the one who asks looks again by himself.
    let polled = attempt(Pin::new(stream), &mut Context::from_waker(Waker::noop()));
    under(stream, false);
    match polled {
        Poll::Ready(done) => done.map(Some),
        Poll::Pending => Ok(None),
    }
}
