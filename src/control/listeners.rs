//! Where the process listens: on sockets of its own, or on those that it was started with.
//!
//! Owns the refusal of an address that cannot be had. Must never listen elsewhere than the settings
//! say.

use crate::config::Settings;
use crate::control::systemd::Inherited;
use crate::proxy::listener;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Why the process cannot listen.
#[derive(thiserror::Error, Debug)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address} (`{key}`): {cause}{}", remedy(cause))]
    Refused {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The socket that was passed listens elsewhere.
    #[error(
        "`{key}` is {address}, and the socket that systemd passes listens on {passed}: write the same address in both"
    )]
    Elsewhere {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The socket's.
        passed: SocketAddr,
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

/// The public listeners, one for each worker, and the operators' one.
pub(in crate::control) async fn bind(
    settings: &Settings,
    workers: usize,
    inherited: Inherited,
) -> Result<(Vec<TcpListener>, tokio::net::TcpListener), ListenError> {
    let (key, address) = ("listen", settings.listen);
    let public = match &inherited.calls[..] {
        [] => listener::bind(address, workers),
        calls => {
            check(key, address, calls)?;
            shared(calls, workers)?
        }
    };
    let failed = |key, address| {
        move |cause| ListenError::Refused {
            key,
            address,
            cause,
        }
    };
    let public = public.map_err(failed(key, address))?;
    let (key, address) = ("admin.listen", settings.admin.listen);
    let admin = match inherited.admin {
        None => tokio::net::TcpListener::bind(address).await,
        Some(admin) => {
            check(key, address, std::slice::from_ref(&admin))?;
            let admin = non_blocking(admin);
            admin.and_then(tokio::net::TcpListener::from_std)
        }
    };
    Ok((public, admin.map_err(failed(key, address))?))
}

/// The settings are what `check`, `probe` and a reader of them go by.
fn check(
    key: &'static str,
    address: SocketAddr,
    passed: &[TcpListener],
) -> Result<(), ListenError> {
    for socket in passed {
        let refused = |cause| ListenError::Refused {
            key,
            address,
            cause,
        };
        let passed = socket.local_addr().map_err(refused)?;
        if passed != address {
            return Err(ListenError::Elsewhere {
                key,
                address,
                passed,
            });
        }
    }
    Ok(())
}

/// One for each worker. They accept from the same queue, which outlives the process.
fn shared(
    calls: &[TcpListener],
    workers: usize,
) -> Result<io::Result<Vec<TcpListener>>, ListenError> {
    let sockets = calls.len();
    if sockets > workers {
        return Err(ListenError::TooMany { sockets, workers });
    }
    let each = calls.iter().cycle().take(workers);
    Ok(each
        .map(|of| of.try_clone().and_then(non_blocking))
        .collect())
}

fn non_blocking(socket: TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    Ok(socket)
}
