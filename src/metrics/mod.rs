//! The metric families, and the figures that are exported of each account.
//!
//! Owns names, labels and their bounds. The only door to prometheus. Must never decide anything,
//! and never make a series from something that a client chose.

mod accounts;
mod families;

pub use accounts::{AccountFigures, PackFigures};
pub use families::{Decision, FAMILIES, Family, IntCounter, Kind, Metrics};
