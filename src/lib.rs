//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
#![doc = ""]
#![doc = include_str!("../ARCHITECTURE.md")]
#![doc = ""]
#![doc = include_str!("DECISIONS.md")]

pub mod billing;
pub mod cli;
pub mod config;
pub mod control;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod portal;
pub mod proxy;
