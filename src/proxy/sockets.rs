//! The sockets on which clients connect, and those of their connections.
//!
//! Owns how a TCP port is bound. Must never read from a connection.
//!
//! # Decided
//! - **`SO_REUSEPORT` listeners, after a bind without it**: a second gate on the same port must
//!   fail loudly instead of taking half of the calls.
//! - **The client of a Unix socket has the address 127.0.0.1**: it is on this machine, and whatever
//!   is said of addresses (`trusted_proxies`, networks of keys) can be said of it.

use crate::http::SocketRef;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use tokio::net::{TcpStream, UnixStream};

/// The connections that wait to be accepted.
pub(crate) const BACKLOG: i32 = 1024;

/// A socket on which clients connect; it does not block.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// Of an IP address.
    Tcp(TcpListener),
    /// Of a path.
    Unix(UnixListener),
}

impl ListeningSocket {
    /// Another handle of the socket: both accept from one queue.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Gives it to the runtime of the calling thread.
    pub(crate) fn on_this_runtime(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(socket) => Listener::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Listener::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

/// A socket on which clients connect, of a worker.
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// The connection of a client.
pub(crate) enum ClientStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ClientStream {
    /// The socket.
    pub(crate) fn socket(&self) -> SocketRef<'_> {
        match self {
            Self::Tcp(stream) => SocketRef::Tcp(stream),
            Self::Unix(stream) => SocketRef::Unix(stream),
        }
    }
}

impl Listener {
    /// The next connection, and the address at its other end.
    pub(super) async fn accept(&self) -> io::Result<(ClientStream, IpAddr)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // An IPv4 client of a socket that takes both.
                (ClientStream::Tcp(stream), peer.ip().to_canonical())
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                (ClientStream::Unix(stream), Ipv4Addr::LOCALHOST.into())
            }
        })
    }
}

/// Listeners for `address`, one for each worker, so that the kernel spreads the connections. One of
/// IPv6 `is_dual` when it takes IPv4 too, whatever the system's default is.
///
/// `SO_REUSEPORT` would let a second process share the port in silence. A first bind without it
/// fails then.
pub(crate) fn bind(
    address: SocketAddr,
    is_dual: bool,
    workers: usize,
) -> io::Result<Vec<ListeningSocket>> {
    if address.port() != 0 {
        listen(address, is_dual, false)?;
    }
    let first = listen(address, is_dual, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![ListeningSocket::Tcp(first)];
    while listeners.len() < workers {
        listeners.push(ListeningSocket::Tcp(listen(address, is_dual, true)?));
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, is_dual: bool, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
