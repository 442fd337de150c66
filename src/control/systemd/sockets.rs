//! Listening sockets that systemd opened before the process began, and keeps when it ends: a client
//! that connects while there is no process waits in their backlog.
//!
//! Owns which socket is which. Must never listen on one that the settings do not name.
//!
//! # Decided
//! - **By name, `calls` or `admin`**, and not by order: a socket that is added to the unit later
//!   must not become the public listener.
//! - **`LISTEN_PID` has to be there and be this process.** A process that was started by another one
//!   inherits the variables, and the numbers mean other files there.

use crate::proxy::sockets::ListeningSocket;
use listenfd::ListenFd;
use socket2::SockRef;
use std::env;
use std::io;
use std::net::TcpListener;

/// The name of the public listener's sockets.
const CALLS: &str = "calls";
/// Its first descriptor; the others follow.
const FIRST: usize = 3;

/// The listening sockets that the process was started with; none where systemd passed none.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(in crate::control) calls: Vec<ListeningSocket>,
    pub(in crate::control) admin: Option<TcpListener>,
}

/// Why a socket that was passed cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum InheritError {
    /// What the environment says of them is wrong.
    #[error("the sockets that systemd passes (LISTEN_FDS) cannot be taken: {0}")]
    Environment(io::Error),
    /// It is none that tollgate knows.
    #[error(
        "socket {descriptor}, which systemd passes, has the name `{name}`: write FileDescriptorName=calls (for `listen`) or \
         FileDescriptorName=admin (for `admin.listen`) in its unit"
    )]
    Unnamed {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: String,
    },
    /// It is no socket of the kind.
    #[error(
        "socket {descriptor} (`{name}`), which systemd passes, is no TCP socket ({cause}): write ListenStream= with an address and a port{}",
        if name == CALLS { ", or with a path" } else { "" }
    )]
    NotStream {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: String,
        /// What it is not.
        cause: io::Error,
    },
    /// It is a connection.
    #[error(
        "socket {descriptor} (`{name}`), which systemd passes, does not listen: write Accept=no in its unit"
    )]
    NotListening {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: String,
    },
    /// There is one listener for operators.
    #[error("systemd passes two sockets of the name `admin`: one is used")]
    TwoAdmins,
}

impl Inherited {
    /// Takes the sockets that were passed to this very process. To be called before it has a second
    /// thread: the variables are taken out of the environment.
    ///
    /// # Errors
    /// When one of them is not a listening socket of streams with a known name.
    pub fn take() -> Result<Self, InheritError> {
        let own = std::process::id().to_string();
        if env::var("LISTEN_PID").ok().as_deref() != Some(own.as_str()) {
            return Ok(Self::default());
        }
        // Asked first: it sees a number that is no open file, and keeps them all from children.
        let names = sd_notify::listen_fds_with_names().map_err(InheritError::Environment)?;
        let names: Vec<String> = names.map(|(_, name)| name).collect();
        let (mut passed, mut taken) = (ListenFd::from_env(), Self::default());
        for (nth, name) in names.into_iter().enumerate() {
            taken.add(&mut passed, nth, name)?;
        }
        Ok(taken)
    }

    fn add(&mut self, passed: &mut ListenFd, nth: usize, name: String) -> Result<(), InheritError> {
        let descriptor = FIRST + nth;
        if ![CALLS, "admin"].contains(&name.as_str()) {
            return Err(InheritError::Unnamed { descriptor, name });
        }
        if name == CALLS
            && let Ok(Some(socket)) = passed.take_unix_listener(nth)
        {
            return match SockRef::from(&socket).is_listener() {
                Ok(true) => {
                    socket
                        .set_nonblocking(true)
                        .map_err(InheritError::Environment)?;
                    self.calls.push(ListeningSocket::Unix(socket));
                    Ok(())
                }
                _ => Err(InheritError::NotListening { descriptor, name }),
            };
        }
        let socket = match passed.take_tcp_listener(nth) {
            Ok(Some(socket)) => socket,
            Ok(None) => return Ok(()),
            Err(cause) => {
                return Err(InheritError::NotStream {
                    descriptor,
                    name,
                    cause,
                });
            }
        };
        if !SockRef::from(&socket).is_listener().unwrap_or(false) {
            return Err(InheritError::NotListening { descriptor, name });
        }
        if name == CALLS {
            socket
                .set_nonblocking(true)
                .map_err(InheritError::Environment)?;
            self.calls.push(ListeningSocket::Tcp(socket));
        } else if self.admin.replace(socket).is_some() {
            return Err(InheritError::TwoAdmins);
        }
        Ok(())
    }
}
