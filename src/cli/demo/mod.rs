//! `tollgate demo`: a sample upstream, sample clients, a live table.
//!
//! Owns nothing that the gate uses. Must never compute a figure apart: like an operator it
//! reads the gate's metrics and ledger over HTTP.

mod exposition;
mod fetch;
mod run;
mod sample;
mod watch;

pub use run::demo;
pub use sample::sign;
