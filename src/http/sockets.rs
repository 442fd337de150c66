//! The state of a socket, told without a read.

use futures_util::FutureExt;
use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// Whether the connection was reset, as far as the runtime has heard.
pub(crate) fn is_reset(socket: &TcpStream) -> bool {
    heard_of(socket).is_error()
}

/// Waits until the connection is reset; for ever when there is no socket.
pub(crate) async fn reset(socket: Option<&TcpStream>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let _ = socket.ready(Interest::ERROR).await;
}

/// Resets the connection, so that its peer knows that the answer is not whole.
pub(crate) fn cut(socket: &TcpStream) {
    // It may be gone already.
    let _ = rustix::net::connect_unspec(socket);
}

/// Whether the connection is open and nothing waits to be read. Asks the system (`MSG_PEEK`), for
/// the runtime may not have heard yet of what has come.
pub(crate) fn is_quiet(socket: &TcpStream) -> bool {
    let nothing = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether `bytes` more can never be read: the connection was reset, or the peer has closed its
/// sending side and fewer bytes have come.
pub(crate) fn ends_before(socket: &TcpStream, bytes: u64) -> bool {
    let heard = heard_of(socket);
    heard.is_error()
        || (heard.is_read_closed()
            && rustix::io::ioctl_fionread(socket).is_ok_and(|unread| unread < bytes))
}

fn heard_of(socket: &TcpStream) -> Ready {
    let ready = socket.ready(Interest::READABLE | Interest::ERROR);
    let heard = ready.now_or_never().and_then(Result::ok);
    heard.unwrap_or(Ready::EMPTY)
}
