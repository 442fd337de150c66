//! The state of a socket, told without a read.

use futures_util::FutureExt;
use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket of either kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SocketRef<'a> {
    /// Of TCP.
    Tcp(&'a TcpStream),
    /// Of a path.
    Unix(&'a UnixStream),
}

impl AsFd for SocketRef<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl SocketRef<'_> {
    /// Waits until the runtime has heard of one of these.
    pub(crate) async fn ready(self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Asks the system as [`TcpStream::try_io`] does.
    pub(crate) fn try_io<R>(
        self,
        interest: Interest,
        ask: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, ask),
            Self::Unix(stream) => stream.try_io(interest, ask),
        }
    }
}

/// Whether the connection was reset, as far as the runtime has heard.
pub(crate) fn is_reset(socket: SocketRef<'_>) -> bool {
    heard_of(socket).is_error()
}

/// Waits until the connection is reset; for ever when there is no socket.
pub(crate) async fn reset(socket: Option<SocketRef<'_>>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let _ = socket.ready(Interest::ERROR).await;
}

/// Resets the connection, so that its peer knows that the answer is not whole. A Unix socket cannot
/// say that: its peer sees a usual end.
pub(crate) fn cut(socket: SocketRef<'_>) {
    if let SocketRef::Tcp(socket) = socket {
        // It may be gone already.
        let _ = rustix::net::connect_unspec(socket);
    }
}

/// Whether the connection is open and nothing waits to be read. Asks the system (`MSG_PEEK`), for
/// the runtime may not have heard yet of what has come.
pub(crate) fn is_quiet(socket: &TcpStream) -> bool {
    let nothing = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether `bytes` more can never be read: the connection was reset, or the peer has closed its
/// sending side and fewer bytes have come.
pub(crate) fn ends_before(socket: SocketRef<'_>, bytes: u64) -> bool {
    let heard = heard_of(socket);
    heard.is_error()
        || (heard.is_read_closed()
            && rustix::io::ioctl_fionread(socket).is_ok_and(|unread| unread < bytes))
}

fn heard_of(socket: SocketRef<'_>) -> Ready {
    let ready = socket.ready(Interest::READABLE | Interest::ERROR);
    let heard = ready.now_or_never().and_then(Result::ok);
    heard.unwrap_or(Ready::EMPTY)
}
