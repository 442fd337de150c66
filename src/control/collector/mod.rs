//! The collector: the records of many gates in one ledger, which is settled as that of one gate is.
//!
//! Owns the order of its work: what has come is written before anybody is told that it has.
//! Must never admit a call, nor count a record twice.

mod claim;
mod intake;
mod ledgers;
mod marks;
mod progress;
mod publish;
mod start;

pub(crate) use start::adopt;
pub use start::collect;

pub(in crate::control) use claim::ClaimError;
pub(crate) use ledgers::{GiveUpError, give_up, told_lost};
pub(in crate::control) use ledgers::{WrongLedger, check_collected, check_gate};
pub(in crate::control) use progress::Progress;
