//! Where the process listens: on sockets of its own, or on those that it was started with.
//!
//! Owns the refusal of an address that cannot be had. Must never listen elsewhere than the settings
//! say.

use crate::config::{ListenAddress, Listens, Settings};
use crate::control::systemd::Inherited;
use crate::control::unix_socket::{self, PathError, SocketFile};
use crate::proxy::sockets::{self, ListeningSocket};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

/// Why the process cannot listen.
#[derive(thiserror::Error, Debug)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address} (`{key}`): {cause}{}", remedy(cause))]
    Refused {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: ListenAddress,
        /// The system's error.
        cause: io::Error,
    },
    /// The path of a socket cannot be had.
    #[error("cannot listen on unix:{} (`listen`): {cause}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket that was passed listens elsewhere.
    #[error(
        "`{key}` is {address}, and the socket that systemd passes listens on {passed}: write the same address in both"
    )]
    Elsewhere {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: String,
        /// The socket's.
        passed: ListenAddress,
    },
    /// Nobody would accept on some of them.
    #[error(
        "systemd passes {sockets} sockets of the name `calls` to {workers} worker(s): pass at most one for each"
    )]
    TooMany {
        /// How many were passed.
        sockets: usize,
        /// How many threads accept.
        workers: usize,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has this port: stop it or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// The sockets on which the process listens.
pub(in crate::control) struct Listeners {
    /// For each worker one of every address.
    pub(in crate::control) workers: Vec<Vec<ListeningSocket>>,
    /// The public addresses, with the ports that the system has chosen.
    pub(in crate::control) public: Listens,
    /// The files of sockets, which go when the workers end.
    pub(in crate::control) files: Vec<SocketFile>,
    /// The operators' one.
    pub(in crate::control) admin: tokio::net::TcpListener,
}

/// Listens on every address of the settings. A socket that was passed takes the place of its own.
pub(in crate::control) async fn bind(
    settings: &Settings,
    workers: usize,
    inherited: Inherited,
) -> Result<Listeners, ListenError> {
    let listens = &settings.listen;
    let mut passed = Vec::new();
    for socket in inherited.calls {
        let at = listens.addresses().first().cloned();
        let of = passed_address(&socket).map_err(|cause| ListenError::Refused {
            key: "listen",
            address: at.unwrap_or(settings.admin.listen.into()),
            cause,
        })?;
        if !listens.addresses().contains(&of) {
            return Err(ListenError::Elsewhere {
                key: "listen",
                address: listens.to_string(),
                passed: of,
            });
        }
        passed.push((of, socket));
    }
    let mut files = Vec::new();
    let mut of_workers: Vec<Vec<ListeningSocket>> = (0..workers).map(|_| Vec::new()).collect();
    let mut public = Vec::new();
    for address in listens.addresses() {
        let refused = |cause| refused("listen", address.clone(), cause);
        let of_this = passed.extract_if(.., |(of, _)| of == address);
        let sockets: Vec<ListeningSocket> = of_this.map(|(_, socket)| socket).collect();
        let sockets = match (&sockets[..], address) {
            ([], ListenAddress::Tcp(at)) => {
                sockets::bind(*at, listens.is_dual(*at), workers).map_err(refused)?
            }
            ([], ListenAddress::Unix(path)) => {
                let (socket, file) =
                    unix_socket::bind(path).map_err(|cause| no_path(path, cause))?;
                files.push(file);
                shared(&[socket], workers)?.map_err(refused)?
            }
            (passed, _) => shared(passed, workers)?.map_err(refused)?,
        };
        public.push(match sockets.first() {
            Some(socket) => passed_address(socket).map_err(refused)?,
            None => address.clone(),
        });
        for (of_worker, socket) in of_workers.iter_mut().zip(sockets) {
            of_worker.push(socket);
        }
    }
    Ok(Listeners {
        workers: of_workers,
        public: Listens::of(public).unwrap_or_else(|| listens.clone()),
        files,
        admin: admin(settings.admin.listen, inherited.admin).await?,
    })
}

fn refused(key: &'static str, address: ListenAddress, cause: io::Error) -> ListenError {
    ListenError::Refused {
        key,
        address,
        cause,
    }
}

fn no_path(path: &std::path::Path, cause: PathError) -> ListenError {
    ListenError::Path {
        path: path.to_owned(),
        cause: Box::new(cause),
    }
}

async fn admin(
    address: SocketAddr,
    passed: Option<TcpListener>,
) -> Result<tokio::net::TcpListener, ListenError> {
    const KEY: &str = "admin.listen";
    let refused = |cause| refused(KEY, address.into(), cause);
    let Some(admin) = passed else {
        let bound = tokio::net::TcpListener::bind(address).await;
        return bound.map_err(refused);
    };
    let passed = admin.local_addr().map_err(refused)?;
    if passed != address {
        return Err(ListenError::Elsewhere {
            key: KEY,
            address: address.to_string(),
            passed: passed.into(),
        });
    }
    admin.set_nonblocking(true).map_err(refused)?;
    tokio::net::TcpListener::from_std(admin).map_err(refused)
}

/// Where a socket listens. The settings are what `check`, `probe` and a reader of them go by.
fn passed_address(socket: &ListeningSocket) -> io::Result<ListenAddress> {
    match socket {
        ListeningSocket::Tcp(socket) => Ok(socket.local_addr()?.into()),
        ListeningSocket::Unix(socket) => {
            let address = socket.local_addr()?;
            let path = address.as_pathname().unwrap_or(std::path::Path::new(""));
            Ok(ListenAddress::Unix(path.to_owned()))
        }
    }
}

/// One for each worker. They accept from the same queue, which outlives the process.
fn shared(
    calls: &[ListeningSocket],
    workers: usize,
) -> Result<io::Result<Vec<ListeningSocket>>, ListenError> {
    let sockets = calls.len();
    if sockets > workers {
        return Err(ListenError::TooMany { sockets, workers });
    }
    let each = calls.iter().cycle().take(workers);
    Ok(each.map(ListeningSocket::try_clone).collect())
}
