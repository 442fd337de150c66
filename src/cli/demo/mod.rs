//! What `tollgate demo` adds: a sample upstream, sample clients, a live table.
//!
//! Owns nothing that the gate uses. Must never compute a figure apart: what it shows is read from
//! the gate's metrics and ledger over HTTP, as an operator would.

mod fetch;
mod run;
mod sample;
mod watch;

pub use run::demo;
pub use sample::sign;
