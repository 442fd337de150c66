//! The handle of a ledger as one of many: its records are sent to another, or others' are collected
//! in it.

use crate::ledger::job::{Job, Note};
use crate::ledger::{Collected, CollectedBy, Ledger, Range, StoreError, Watermark};
use crate::model::Utc;

impl Ledger {
    /// Takes the records of these ranges into this ledger, in one transaction; says of each range
    /// what became of it. Blocks. After an error nothing is known: collect the same ranges again,
    /// no record is taken twice.
    ///
    /// # Errors
    /// [`StoreError::OwnCalls`] when this ledger has recorded calls of its own.
    pub fn collect(&self, ranges: Vec<Range>) -> Result<Vec<Collected>, StoreError> {
        self.ask(|reply| Job::Collect { ranges, reply })
    }

    /// Keeps what ledgers have told of their records. A watermark only grows. A ledger that nobody
    /// has heard of is known from here on. Blocks.
    pub fn watermark_of(&self, watermarks: Vec<Watermark>) -> Result<(), StoreError> {
        self.note(Note::Watermarks(watermarks)).map(drop)
    }

    /// Gives up a source: nothing waits for it any more. Its records are still taken when they come.
    /// `false` when there is no such source, or it was given up before. Blocks.
    pub fn retire(&self, ledger_id: &str, why: &str, at: Utc) -> Result<bool, StoreError> {
        self.note(Note::Retired {
            ledger_id: ledger_id.to_owned(),
            why: why.to_owned(),
            at,
        })
    }

    /// Notes that records of this ledger are sent to another from here on: what it bills alone later
    /// could be billed there as well. Blocks.
    pub fn sends(&self) -> Result<(), StoreError> {
        self.note(Note::Sends).map(drop)
    }

    /// Takes that back. Only of a ledger of which there was nothing to send: see
    /// [`Reader::is_one_replicas_part`]. Blocks.
    pub fn sends_not(&self) -> Result<(), StoreError> {
        self.note(Note::SendsNot).map(drop)
    }

    /// Notes that this ledger is put in the place of those in which records were collected before.
    /// Blocks.
    pub fn adopt(&self, ledger_ids: Vec<String>, at: Utc) -> Result<(), StoreError> {
        self.note(Note::Adopted { ledger_ids, at }).map(drop)
    }

    /// Notes that the records of this ledger up to `seq` are collected in that one, so that they may
    /// be deleted, and none beyond it: that ledger may have been put back to a backup, and lack what
    /// it had. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Ahead`] when there is no such record: another ledger has the id of this one.
    pub fn collected(&self, seq: u64, by: CollectedBy) -> Result<(), StoreError> {
        self.note(Note::Collected { seq, by }).map(drop)
    }

    fn note(&self, note: Note) -> Result<bool, StoreError> {
        self.ask(|reply| Job::Note { note, reply })
    }

    /// An instant and a seq of which this holds: every call that was admitted before the instant is
    /// recorded at that seq or before, and durable, or it left no record. `None` before the first is
    /// known, and after the clock was set back. To be asked each second; else both only grow. `now`
    /// gives the time by the clock that gives records their `admitted_at`.
    pub fn watermark(&self, now: impl FnOnce() -> Utc) -> Option<(Utc, u64)> {
        self.turns.lock().look(&self.shared, now)
    }
}

#[cfg(test)]
pub(super) mod tests;
