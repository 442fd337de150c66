//! What the status page keeps between two looks.

use crate::control::admin::page::history::History;
use crate::control::admin::page::hours::Hours;
use crate::control::admin::page::tally::LastTally;
use crate::ledger::LedgerStats;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Pages that are told each second. Further ones ask now and then, so that scrapers and probes always
/// find a connection.
const LISTENERS: usize = 16;

/// The memory of the status page.
pub(in crate::control::admin) struct Page {
    /// The hour of the gate.
    pub(super) history: Mutex<History>,
    /// The hours of single accounts.
    pub(super) hours: Mutex<Hours>,
    /// What the file system last said of the ledger; `None` before it said anything.
    pub(super) disk: Mutex<Option<LedgerStats>>,
    /// The count over all accounts, when somebody needs it.
    pub(super) tally: LastTally,
    /// What is told each second, made once for all.
    pub(super) told: watch::Sender<Arc<str>>,
    /// The places of those who are told.
    pub(super) listeners: Arc<Semaphore>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            hours: Mutex::default(),
            disk: Mutex::default(),
            tally: LastTally::default(),
            told: watch::Sender::new(Arc::from("")),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
        }
    }
}
