//! The addresses of the public listener.
//!
//! Must never be empty.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An address on which the gate listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// IP and port. [`Listens::is_dual`] says whether one of IPv6 takes IPv4 too.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The addresses of the public listener; at least one, none twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listens(Vec<ListenAddress>);

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// The address, if it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether this one takes the connections of the other one too, which is another one.
    pub(in crate::config) fn covers(&self, other: &Self) -> bool {
        let (Self::Tcp(own), Self::Tcp(other)) = (self, other) else {
            return false;
        };
        own.port() != 0
            && own.port() == other.port()
            && own.ip().is_unspecified()
            && !other.ip().is_unspecified()
            && (own.is_ipv6() || other.is_ipv4())
    }
}

impl From<SocketAddr> for Listens {
    fn from(address: SocketAddr) -> Self {
        Self(vec![address.into()])
    }
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, address) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl Listens {
    /// These addresses; `None` when there are none.
    pub fn of(addresses: Vec<ListenAddress>) -> Option<Self> {
        (!addresses.is_empty()).then_some(Self(addresses))
    }

    /// The addresses, in the order of the file.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.0
    }

    /// The first address of TCP.
    pub fn first_tcp(&self) -> Option<SocketAddr> {
        self.tcp().next()
    }

    pub(in crate::config) fn tcp(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(ListenAddress::tcp)
    }

    /// Whether this address takes connections of IPv4 too: `[::]` does, unless `0.0.0.0` with the
    /// same port is there for them.
    pub(crate) fn is_dual(&self, address: SocketAddr) -> bool {
        let any = |other: SocketAddr| other.is_ipv4() && other.ip().is_unspecified();
        address.is_ipv6()
            && address.ip().is_unspecified()
            && !self
                .tcp()
                .any(|other| other.port() == address.port() && any(other))
    }
}
