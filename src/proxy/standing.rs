//! What the collector last said of the accounts, where a collector has the records of many gates: who
//! is stopped for arrears, and the balances.
//!
//! Owns that what was said last is in force. Must never take a silence for a payment: what was said
//! stays in force until something else is.

use crate::model::{AccountId, Utc};
use crate::proxy::admission::Limiters;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The ledger whose standing it is, and what that knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CollectedBooks {
    /// Its id; empty where that is not known.
    pub collected_in: String,
    /// The ids of the ledgers in whose place an operator has put it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// When that was last, in microseconds since the Unix epoch, and after each adoption before; 0 where
    /// it never was.
    #[serde(default)]
    pub adopted_at: i64,
    /// The accounts that a ledger before it has stopped, and that it has not debited itself yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held: BTreeSet<AccountId>,
    /// The newest month that it has debited, as in `2026-11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debited: Option<String>,
}

/// The standing of all accounts at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CollectedStanding {
    /// It rises each time the collector says it.
    pub generation: u64,
    /// When it was so, by the collector's clock.
    pub as_of: Utc,
    /// By which ledger.
    pub books: CollectedBooks,
    /// The accounts whose paid services are stopped (R17).
    pub stopped: HashSet<AccountId>,
    /// The balances of the accounts that have a debit or an adjustment.
    pub balances: HashMap<AccountId, Box<str>>,
}

/// What was said last; `None` when nothing was.
#[derive(Debug, Default)]
pub(crate) struct HeardStanding {
    said: Mutex<Option<Arc<CollectedStanding>>>,
    /// Whether the collector is heard now: else this is what it said before.
    pub(super) is_current: AtomicBool,
}

impl HeardStanding {
    /// Puts in force what the collector says, from the next call that is decided.
    pub(super) fn hear(&self, limiters: &Limiters, said: Arc<CollectedStanding>) {
        // Under the lock: of two at once the later one stays in force.
        let mut heard = self.said.lock();
        limiters.set_arrears(said.stopped.clone());
        *heard = Some(said);
    }

    /// Puts in force again what was said last, and gives it.
    pub(super) fn again(&self, limiters: &Limiters) -> Option<Arc<CollectedStanding>> {
        let heard = self.said.lock();
        let stopped = heard.as_ref().map(|said| said.stopped.clone());
        limiters.set_arrears(stopped.unwrap_or_default());
        heard.clone()
    }

    /// What was said last.
    pub(super) fn last(&self) -> Option<Arc<CollectedStanding>> {
        self.said.lock().clone()
    }
}
