//! The records of many gates in one ledger: real gates, a real collector, a real NATS.
//!
//! `COLLECT_KILLS` makes the drill of the kills so long, and `NATS_SERVER` chooses the server.

pub mod clocks;
mod cut_off;
mod damaged;
pub mod fleet;
mod kept;
mod kills;
mod lost;
mod months;
mod refused;
mod restored;
mod two;
