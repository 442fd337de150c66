//! The operator's and the biller's listener.
//!
//! Owns the paths under the admin address. Must never touch the way of a call: it reads figures,
//! and the ledger through a connection of its own.

mod app;
mod guard;
mod listener;
mod query;

pub use app::{AdminState, router};
pub use listener::{Bounded, CONNECTIONS};
