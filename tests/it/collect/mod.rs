//! The records of many gates in one ledger: real gates, a real collector, a real NATS.
//!
//! `COLLECT_SECONDS` makes the drill of the kills that long.

mod clocks;
mod damaged;
mod fleet;
mod kept;
mod kills;
mod months;
mod refused;
mod restored;
