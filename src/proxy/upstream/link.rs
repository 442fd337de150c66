//! A connection to a server: plain, or under TLS.
//!
//! Owns the difference. Must never say that a connection is quiet on which something waits, in the
//! socket or in TLS.

use crate::http::{ByteReader, ByteWriter, Pipe, TlsConnection, is_quiet, read_now};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to a server.
pub(super) enum Link {
    Plain(TcpStream),
    /// Boxed: it is ten times as large.
    Tls(Box<TlsConnection>),
}

impl Link {
    /// Whether it is open and nothing waits to be read. Asks the system.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => is_quiet(stream),
            Self::Tls(stream) => is_quiet(stream.transport()) && has_nothing(stream),
        }
    }

    /// The same, as far as the runtime has heard.
    pub(super) fn seems_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                let nothing = stream.try_read(&mut [0]);
                nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => has_nothing(stream),
        }
    }

    /// Reads at once or not at all; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come.
    pub(super) fn read_now(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => read_now(stream, into),
            Self::Tls(stream) => {
                let mut read = ReadBuf::new(into);
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(&mut **stream).poll_read(&mut cx, &mut read) {
                    Poll::Ready(done) => done.map(|()| read.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }
}

/// What waits in TLS counts, too: a second answer may have come in the last record of the first. A
/// ticket for later sessions (RFC 8446 §4.6.1) is taken here and is nothing to be read.
fn has_nothing(stream: &mut TlsConnection) -> bool {
    let mut byte = [0];
    let mut cx = Context::from_waker(Waker::noop());
    let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
    read.is_pending()
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

impl ByteReader for Link {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl ByteWriter for Link {
    fn socket(&self) -> Option<&TcpStream> {
        ByteReader::socket(self)
    }

    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_pour(pipe, cx),
            Self::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}
