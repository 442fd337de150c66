//! Many gates that share one quota by a store: real processes, a real server, and their faults.
//!
//! One drill runs at a time: each loads both cores and is judged by milliseconds. Those that wait for
//! holds most of the time run beside others. `REPLICAS_SECONDS` makes the drills of the cap and of P2
//! that long, the one of the cap with a quota of 200, repeats the failovers and the jumps of the
//! clock, and lets each drill run alone.

mod cap;
mod clocks;
mod cut_off;
mod failover;
mod faults;
mod fleet;
mod flood;
mod members;
mod oracle;
mod paced;
mod spray;
mod stalls;
mod unfit;
mod upgrade;
