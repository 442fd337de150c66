//! The process and its operators: start and drain, reloads, settlement in its time, notices, the
//! operators' listener.
//!
//! Owns when each of these happens. Must never be on the way of a call, nor decide a rule: the
//! rules are the rooms' below.

mod background;
mod settler;
mod start;

pub mod admin;
pub mod delivery;
pub mod reload;
pub mod serve;

pub use settler::{EVIDENCE, Settler, sent, unsent};
pub use start::{StartError, start};
