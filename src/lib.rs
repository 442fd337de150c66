//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
#![doc = ""]
#![doc = include_str!("../ARCHITECTURE.md")]
#![doc = ""]
#![doc = include_str!("DECISIONS.md")]
// An item is public because somebody outside needs it: the binary, or the tests by their door.
#![deny(unreachable_pub)]
// The rooms are read with `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

mod billing;
pub mod cli;
mod config;
mod control;
mod http;
mod ledger;
mod licence;
mod metrics;
mod model;
mod nats;
mod portal;
mod proxy;
mod store;

#[doc(hidden)]
pub mod testing;
