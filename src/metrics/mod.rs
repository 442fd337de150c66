//! The metric families, and the figures that are exported of each account.
//!
//! Owns names, labels and their bounds. The only door to prometheus. Must never decide anything,
//! and never make a series from something that a client chose.

mod accounts;
mod collected;
mod durations;
mod exemplars;
mod families;
mod family;
mod glance;
mod licences;
mod openmetrics;
mod series;
mod shapes;
mod upstreams;

pub use families::{FAMILIES, Metrics};

pub(crate) use accounts::Exposition;
pub(crate) use accounts::{AccountFigures, PackFigures};
pub(crate) use collected::SourceFigures;
pub(crate) use durations::Durations;
pub(crate) use families::{Decision, EventOutcome, IntCounter};
pub(crate) use glance::Glance;
pub(crate) use upstreams::EndpointFigures;
