//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
pub mod admin;
pub mod admission;
pub mod clock;
pub mod config;
pub mod demo;
pub mod identity;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod serve;
pub mod server;
pub mod upstream;
pub mod usage;
pub mod words;
