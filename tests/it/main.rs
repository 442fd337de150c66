//! The gate as its users meet it: on real sockets, with real processes and real clients.

mod cap;
mod hang_up;
mod harness;
mod way;
