//! The way to the store, on real servers.

mod asker;
mod checks;
mod faults;
mod many;
mod single;
mod tls;
