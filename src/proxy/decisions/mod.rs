//! Why calls were not let through, kept for a day so that each can be explained by its request id.
//!
//! Owns what is kept of a refusal, and how much memory that takes. Must never tell an account of a
//! call of another one, nor make a refusal wait for another worker's.

mod entry;
mod explain;
mod ring;

pub(crate) use ring::{DecisionRing, Decisions};

pub(super) use entry::{Name, Throttle, TurnedAwayCall, Verdict};
