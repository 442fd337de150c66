//! The standing of the accounts on its way from the collector to the gates: who is stopped for
//! arrears, and the balances (R17).
//!
//! Owns the bytes of it, and the file beside a gate's ledger that has what was said last. Must never
//! decide who is in arrears: the settler of the collected ledger does.

mod assemble;
mod carried;
mod file;
mod follow;
mod known;
mod message;

pub(in crate::control) use assemble::Assembly;
pub(in crate::control) use carried::{carried_into, in_force};
pub(in crate::control) use file::StandingFile;
pub(in crate::control) use follow::{Follower, UnreadStanding, hear_kept};
pub(in crate::control) use known::KnownCollector;
pub(in crate::control) use message::{
    AccountStanding, HEAD, STANDING, StandingError, StandingMessage, Standings, messages,
};
