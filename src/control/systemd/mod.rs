//! systemd, where it started the process: the sockets that it passes, what it is told, its watchdog.
//!
//! Owns the environment by which it speaks (`LISTEN_FDS`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`).
//! Must never change anything where systemd is not there, nor wait for it.

mod notify;
mod sockets;
mod watchdog;

pub use sockets::Inherited;

pub(crate) use notify::Systemd;
pub(in crate::control) use watchdog::keep_alive;
