//! The handle of a ledger as one of many: its records are sent to another, or others' are collected
//! in it.

use crate::ledger::{Collected, Ledger, Range, StoreError, Trouble, Watermark};
use crate::model::Utc;

impl Ledger {
    /// Takes the records of these ranges into this ledger, in one transaction; says of each range
    /// what became of it. Blocks. After an error nothing is known: collect the same ranges again,
    /// no record is taken twice.
    pub fn collect(&self, ranges: Vec<Range>) -> Result<Vec<Collected>, StoreError> {
        let _ = ranges;
        Err(Trouble::Closed.into())
    }

    /// Keeps what ledgers have told of their records. A watermark only grows. A ledger that nobody
    /// has heard of is known from here on. Blocks.
    pub fn watermark_of(&self, watermarks: Vec<Watermark>) -> Result<(), StoreError> {
        let _ = watermarks;
        Err(Trouble::Closed.into())
    }

    /// Gives up a source: nothing waits for it any more. Its records are still taken when they come.
    /// Gives `false` when there is no such source. Blocks.
    pub fn retire(&self, ledger_id: &str, why: &str, at: Utc) -> Result<bool, StoreError> {
        let _ = (ledger_id, why, at);
        Err(Trouble::Closed.into())
    }

    /// Notes that the records of this ledger up to `seq` are collected, so that they may be deleted.
    /// The number only grows. Blocks.
    pub fn collected(&self, seq: u64) -> Result<(), StoreError> {
        let _ = seq;
        Err(Trouble::Closed.into())
    }

    /// An instant and a seq of which this holds: every call that was admitted before the instant is
    /// recorded at that seq or before, and durable, or it left no record. `None` before the first is
    /// known. To be asked each second; both only grow. `now` gives the time by the clock that gives
    /// records their `admitted_at`.
    pub fn watermark(&self, now: impl FnOnce() -> Utc) -> Option<(Utc, u64)> {
        let _ = now();
        None
    }
}
