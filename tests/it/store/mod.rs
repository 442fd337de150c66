//! The way to the store, on real servers.

mod asker;
mod checks;
mod many;
mod single;
mod tls;
