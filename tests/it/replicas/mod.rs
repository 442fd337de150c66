//! Many gates that share one quota by a store: real processes, a real server, and their faults.
//!
//! One drill runs at a time: each loads both cores and is judged by milliseconds. `REPLICAS_SECONDS`
//! makes the drills of the cap and of P2 that long, the one of the cap with a quota of 200.

mod cap;
mod cut_off;
mod faults;
mod fleet;
mod flood;
mod members;
mod oracle;
mod paced;
mod spray;
mod unfit;
