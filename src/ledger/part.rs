//! Whether a ledger has only a part of the calls that its next bills are made of.
//!
//! Owns this one question. Must never say so of the ledger of a machine that decided alone.

use crate::ledger::Reader;
use crate::ledger::error::ReadError;
use rusqlite::Connection;

impl Reader {
    /// Whether the calls behind the last fixed month are those that one of several replicas
    /// admitted: bills that are made of them here would leave out the calls of the others.
    ///
    /// The newest record tells it. A process has a shared store from its start to its end, and no
    /// process without one writes behind such records. Of a ledger that was ever sent elsewhere all
    /// that is not on a statement of its own is billed there, or may be: it is in a stream, perhaps.
    /// A ledger in which others are collected has all calls.
    pub(crate) fn is_one_replicas_part(&self) -> Result<bool, ReadError> {
        let sql = "WITH fixed AS (SELECT coalesce(max(through_seq), 0) AS seq FROM settlements)
                   SELECT NOT EXISTS (SELECT 1 FROM sources)
                      AND (EXISTS (SELECT 1 FROM outbox, fixed, bounds
                                   WHERE max(rolled_up, coalesce((SELECT max(seq) FROM raw), 0)) > fixed.seq)
                           OR coalesce((SELECT store_epoch IS NOT NULL FROM raw, fixed WHERE raw.seq > fixed.seq
                                        ORDER BY raw.seq DESC LIMIT 1), 0))";
        let part = self.one(sql, &[], |row| Ok(row.get(0)?))?;
        Ok(part.unwrap_or(false))
    }

    /// Whether calls are in this ledger that a gate admitted itself.
    pub(crate) fn has_own_calls(&self) -> Result<bool, ReadError> {
        Ok(has_own_calls(&self.connection)?)
    }
}

/// Whether this ledger has calls that a gate admitted itself. A collected one has none, also when it
/// was put back to a backup in which nobody was heard of yet.
pub(super) fn has_own_calls(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM sources) AND (EXISTS (SELECT 1 FROM raw) OR EXISTS (SELECT 1 FROM hours))",
        )?
        .query_row([], |row| row.get(0))
}
