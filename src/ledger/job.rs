//! The jobs that the writer's thread does for the biller, the collector and the outbox between two
//! commits.
//!
//! Owns the list of such jobs. Must never leave the thread that asked without an answer.

use crate::ledger::chain::Link;
use crate::ledger::{
    Collected, CollectedBy, Entry, Range, Seal, StoreError, TrialPlace, Trouble, Watermark,
};
use crate::model::{AccountId, Package, Utc};
use std::sync::mpsc::SyncSender;

/// A job for the writer, with the channel for its answer.
#[derive(Debug)]
pub(super) enum Job {
    Freeze {
        day: String,
        reply: SyncSender<Result<Frozen, StoreError>>,
    },
    Seal {
        day: String,
        last_seq: i64,
        hours: Link,
        reply: SyncSender<Result<Seal, StoreError>>,
    },
    Keep {
        entries: Vec<Entry>,
        reply: SyncSender<Result<(), StoreError>>,
    },
    Collect {
        ranges: Vec<Range>,
        reply: SyncSender<Result<Vec<Collected>, StoreError>>,
    },
    Apply {
        /// The account and the app.
        of: (AccountId, Package),
        apps: u32,
        at: Utc,
        reply: SyncSender<Result<TrialPlace, StoreError>>,
    },
    Note {
        note: Note,
        reply: SyncSender<Result<bool, StoreError>>,
    },
}

/// What is noted of one ledger's records in another.
#[derive(Debug)]
pub(super) enum Note {
    /// What sources have told of their records.
    Watermarks(Vec<Watermark>),
    /// A source was given up.
    Retired {
        ledger_id: String,
        why: String,
        at: Utc,
    },
    /// Records of this ledger are sent to another from here on.
    Sends,
    /// Takes that back, where no record was to be sent.
    SendsNot,
    /// This ledger is put in the place of these.
    Adopted { ledger_ids: Vec<String>, at: Utc },
    /// The records of this ledger up to here are in that one.
    Collected { seq: u64, by: CollectedBy },
}

impl Job {
    /// Answers the job with an error. Where the thread that asked has panicked, nobody takes the
    /// answer.
    pub(super) fn refuse(self, trouble: Trouble) {
        match self {
            Self::Freeze { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Seal { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Keep { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Collect { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Apply { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Note { reply, .. } => drop(reply.send(Err(trouble.into()))),
        }
    }
}

/// The result of [`Store::freeze`](crate::ledger::store::Store::freeze).
#[derive(Debug)]
pub(super) enum Frozen {
    /// The day's seal, which it had already.
    Sealed(Seal),
    /// The rows of `hours` to seal: those whose first record comes after `after` and not after
    /// `last_seq`.
    Rows {
        /// The newest record whose row is sealed.
        after: i64,
        /// The newest record that is frozen.
        last_seq: i64,
    },
}
