//! Where and how a ledger is kept.

use crate::model::Durability;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The SQLite file. Missing directories are created.
    pub path: PathBuf,
    /// Whether an answer waits until its record is durable.
    pub durability: Durability,
    /// The name of this replica, written to each record.
    pub replica: String,
    /// Whether a missing ledger is created. Otherwise it is an error: a volume that is not mounted
    /// would look like one.
    pub create: bool,
    /// The most slots that may be taken at once. Calls in flight and records that are not durable
    /// hold them.
    pub pending_limit: usize,
    /// How long a record may wait for the disk. After it calls are refused until the disk answers.
    pub stall_after: Duration,
}
