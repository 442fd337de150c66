//! The operator's and the biller's listener.
//!
//! Owns the paths under the admin address. Must never touch the way of a call: it reads figures,
//! and the ledger through a connection of its own.

mod accounts;
mod app;
mod calls;
mod decisions;
mod guard;
mod licences;
mod listener;
mod metrics;
mod own_figures;
mod page;
mod probes;
mod process;
mod query;
mod router;
mod sources;

pub use listener::CONNECTIONS;

pub(crate) use app::AdminState;
pub(crate) use listener::Bounded;
pub(in crate::control) use router::router;
