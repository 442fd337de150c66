//! The gate as its users meet it: on real sockets, with real processes and real clients.

mod harness;
mod way;
