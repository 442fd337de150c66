//! What the biller asks the writer's thread to do between two commits.
//!
//! Owns the list of such jobs. Must never leave the thread that asked without an answer.

use crate::ledger::chain::Link;
use crate::ledger::store::Frozen;
use crate::ledger::{Entry, Seal, StoreError, Trouble};
use std::sync::mpsc::SyncSender;

/// What a caller asks the writer for, with where the answer goes.
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
}

impl Job {
    /// Nobody waits for the answer of a call that has panicked, hence no error of a channel counts here.
    pub(super) fn refuse(self, trouble: Trouble) {
        match self {
            Self::Freeze { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Seal { reply, .. } => drop(reply.send(Err(trouble.into()))),
            Self::Keep { reply, .. } => drop(reply.send(Err(trouble.into()))),
        }
    }
}
