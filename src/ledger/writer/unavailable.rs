//! What the writer knows of its trouble while nothing can be written.

use crate::ledger::repair::Repair;
use crate::ledger::store::Store;
use crate::model::Mono;

/// Why nothing is written at present.
#[derive(Debug)]
pub(super) struct Unavailable {
    /// The reason that was last logged.
    pub(super) reason: String,
    /// After an error of the disk: what has been done to make the ledger sound again. `None`: the
    /// file is what it says.
    pub(super) repair: Option<Repair>,
    /// A connection whose WAL was deleted, as long as a reader keeps some of that from being
    /// copied: it is in no other file.
    pub(super) orphan: Option<Store>,
    /// When it is tried again.
    pub(super) try_at: Mono,
    /// A ledger that is closed in trouble gets one more try.
    pub(super) tried_since_close: bool,
}
