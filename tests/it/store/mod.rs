//! The way to the store, on real servers.

mod asker;
mod many;
mod single;
