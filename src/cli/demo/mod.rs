//! `tollgate demo`: a sample upstream, sample clients, a live table.
//!
//! Owns nothing that the gate uses. Must never compute a figure apart: like an operator it
//! reads the gate's metrics and ledger over HTTP.
//!
//! `tollgate demo --replicas 3` (`replicas.rs`) runs gates as processes beside one store, and the
//! collector of their records: as an operator would, with files of settings, `tollgate serve` and
//! `tollgate collect`.

mod bill;
mod cap;
mod exposition;
mod fleet;
mod follower;
mod replicas;
mod run;
mod sample;
mod scratch;
mod servers;
mod table;
mod watch;

pub use run::demo;
pub use sample::sign;
