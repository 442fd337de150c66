//! The small shared types: the terms of the contract, time, and names.
//!
//! Owns what a word means in code. Must never import a room of ours, nor know of a policy, a file
//! or a socket: only the clock asks the system, for the time.

mod clock;
mod local;
mod month;
mod network;
mod terms;
mod time;

pub use clock::{Clock, Mover, Timer};
pub use local::Local;
pub use month::Month;
pub use network::network;
pub use terms::{
    AccountId, Action, Bill, COMMIT, Durability, Fund, GroupId, Mode, Origin, Outcome, QUOTA_PATH,
    Reason, RequestId, RequestIdText, Stop, Threshold, TierBasis, VERSION,
};
pub use time::{Mono, Utc};
