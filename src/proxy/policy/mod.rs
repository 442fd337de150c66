//! One immutable generation of what was sold: from a credential to its account, from an account and
//! an action to its limiter.
//!
//! Must never change after it was built, nor be held over an await: a call keeps its account.

mod account;
mod describe;
mod generation;
mod keys;
mod licence_keys;
mod proven;

pub use generation::Policy;

pub(crate) use account::{KnownAccount, Operation};
pub(crate) use describe::{Described, Why};
pub(crate) use keys::{KeyBar, KeyUsage, KnownKey};
pub(crate) use licence_keys::KnownLicenceKey;
pub(crate) use proven::ProvenKey;
