//! Admit: may this call start now, in a moment, or not.
//!
//! Owns the sold cap: the window (the rule, pure) and the limiters (one per account and group, or
//! action in a free group). Must never count what it throttled, forget a start younger than a
//! second, or ask a clock: `now` is an argument.

mod at_store;
mod calls_at_store;
mod limiters;
mod terms;
mod window;

pub use limiters::{Limiter, LimiterKey, Limiters};
pub use terms::{Now, Quota, Terms};

pub(crate) use at_store::{SharedWindows, StoreVerdict};
pub(crate) use calls_at_store::Wish;
pub(crate) use terms::{Denied, InForce, Purchase, Reservation, Started};
pub(crate) use window::{SECOND, Verdict, Window};
