//! The ledgers whose records are collected in this one, and the outbox of one whose records are.
//!
//! Owns the words for what is known of them. Reads nothing.

use crate::model::Utc;

/// What became of a range that was to be collected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Collected {
    /// So many of its records are in the collected ledger now; 0 when it was a repeat.
    Taken {
        /// The ledger that wrote the range.
        ledger_id: String,
        /// The newest record of that ledger that is collected.
        seq: u64,
        /// The number of records that were taken.
        records: u64,
    },
    /// Records before it are missing. Nothing of it was taken: it comes again, after the others.
    Gap {
        /// The ledger that wrote the range.
        ledger_id: String,
        /// The newest record of that ledger that is collected.
        have: u64,
    },
    /// It is not of the ledger that is known by that id, or it was changed on its way. Nothing of it
    /// was taken, and nothing that follows can be.
    Broken {
        /// The ledger that the range says it is of.
        ledger_id: String,
        /// The newest record of that ledger that is collected.
        have: u64,
        /// In which respect.
        why: String,
    },
}

/// A ledger whose records are collected in this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceLedger {
    /// Its id: 32 hex digits.
    pub ledger_id: String,
    /// The name of the replica that writes it, as it was last told.
    pub replica: String,
    /// How often it was restored, as far as its records have come.
    pub restore_count: u64,
    /// The newest record of it that is collected; 0 before the first.
    pub seq: u64,
    /// The newest watermark that it has told: all that was admitted before is at this seq or before.
    pub watermark: Option<(Utc, u64)>,
    /// Everything that it admitted before this instant is collected. `None`: that is not known of
    /// any instant.
    pub admitted_before: Option<Utc>,
    /// When it was first heard of.
    pub first_seen_at: Utc,
    /// When it was given up, and why.
    pub retired: Option<(Utc, String)>,
}

/// What a ledger says of its own records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watermark {
    /// The ledger.
    pub ledger_id: String,
    /// The name of the replica that writes it.
    pub replica: String,
    /// All that was admitted before this instant .. `None`: its clock is not trusted, or it knows of
    /// no instant yet. It is known from here on, and waited for.
    pub at: Option<Utc>,
    /// .. is at this seq or before.
    pub seq: u64,
    /// The newest record that was billed in that ledger itself: see [`OutboxCursor`]. A ledger that
    /// has sent none, and needs not, is waited for no longer.
    pub billed_seq: u64,
}

/// The ledger into which the records of others are collected, as those are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectedBy {
    /// Its id: 32 hex digits.
    pub ledger_id: String,
    /// How often it was restored. It may lack records that it had before.
    pub restore_count: u64,
}

/// How far the records of this ledger have come on their way to the collected one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxCursor {
    /// The newest record that need not be sent: it is collected, or it was billed while this ledger
    /// was alone, or it was deleted.
    pub collected_seq: u64,
    /// The newest record that is billed here: on the statements of a month that was fixed while this
    /// ledger was alone, or deleted before there were statements. No collected ledger may have it.
    pub billed_seq: u64,
    /// The id of the ledger that said so last; empty before.
    pub collected_in: String,
}
