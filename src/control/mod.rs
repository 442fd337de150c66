//! The process and its operators: start and drain, reloads, settlement in its time, events, the
//! operators' listener.
//!
//! Owns when each of these happens. Must never be on the way of a call, nor decide a rule: the
//! rules are the rooms' below.

mod certificates;
mod collector;
mod licences;
mod listeners;
mod open_files;
mod outbox;
mod pulse;
mod reload_notes;
mod replica;
mod settler;
mod standing;
mod start;
mod store;
mod turned_away;
mod unix_socket;
mod upstreams;

pub(crate) mod admin;
pub(crate) mod delivery;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod systemd;

pub use collector::collect;
pub use start::start;
pub use systemd::Inherited;

pub(crate) use collector::{adopt, give_up, told_lost};
pub(crate) use settler::{EVIDENCE, Settler};
