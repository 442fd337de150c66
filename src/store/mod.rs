//! The quota that many replicas share: the windows of starts live in a store, a Redis or Valkey.
//!
//! Owns what is asked of the store and what a replica may conclude from its answers. Must never
//! read a clock of the machine, start a call on an answer that came too late, or let a call wait
//! without an end.
//!
//! # Words
//! - **epoch**: the time over which one process of the store has kept the windows. A restart, a
//!   promotion or a flush begins another one.
//! - **anchor**: an instant of the store's clock and the instant on our monotonic clock at which
//!   the question was sent that brought it. The store's clock cannot be further than the anchor
//!   plus what has passed since.
//! - **hold**: the time after the begin of an epoch in which nothing starts, because starts of the
//!   epoch before may still count.
//! - **budget**: the time within which an answer must come (5 ms). A later one is void.
//!
//! # Why the cap is kept (P1)
//! 1. Within an epoch the list of starts is trimmed by age alone and its clock never runs back. So
//!    at most Q starts fall in any second of the store's clock.
//! 2. A call leaves at (answer received + offset of its start): never before its start and at most
//!    the budget after it.
//! 3. When the store's clock jumps forward by more than the budget, each replica that has an anchor
//!    is answered LATE. It starts nothing for a second, the longest `max_delay` and the budget.
//! 4. A replica that hears of an epoch for the first time holds by its own clock as well. So a
//!    clock that jumps during the hold of the store, or before the first anchor, does no harm.
//! 5. Another process and an empty store hold before their first start. The hold is longer than
//!    the time that the process before can still grant, plus a second, `max_delay` and the budget.
//!    Those are the largest that any gate may have: gates need not have the same settings.
//! 6. A window outlives its use, and the store evicts nothing; its library is ours. Both are looked
//!    at for as long as it is asked.
//!
//! Two limits are known:
//! - Two jumps of the store's clock in opposite directions within 100 ms, between two heartbeats,
//!   are not noticed. The second one must be as long as the store was idle before the first one.
//! - A machine of a replica may be paused together with its monotonic clock while a question is in
//!   flight. Then a late answer seems to be in time, and its calls leave late by the pause.

mod asks;
mod breaker;
mod bucket;
mod call_faults;
mod check;
mod check_error;
mod clock;
mod clock_watch;
mod cluster;
mod core;
mod dial;
mod failure;
mod fcall;
mod fitness;
mod line;
mod link;
mod options;
mod question;
mod routes;
mod seek;
mod sentinel;
mod status;
#[cfg(test)]
mod tests;
mod unanswered;

pub use bucket::Bucket;
pub use check::{Checked, check};
pub use check_error::{CheckError, CheckWarning, NodeFault};
pub use dial::{BadCertificates, NoConnection};
pub use link::{Link, LinkHandle};
pub use options::{NodeAddress, StoreOptions, TlsOptions, Topology};
pub use question::{Question, QuestionTerms, Said};
pub use status::{Counts, NodeStatus, SAID, StoreListener, StoreStatus};
pub use unanswered::Unanswered;

pub(crate) use asks::{Asks, NextAsk, Told};
pub(crate) use clock::{Grant, Heard, NoAnswer, Silence, Silent, StoreClock, StoreNow};
#[cfg(test)]
pub(crate) use question::{MOST_STARTS, SaidValue};
#[cfg(test)]
pub(crate) use tests::{Machine, StoreProcess};
