//! Whether a ledger has only a part of the calls that its next bills are made of.
//!
//! Owns this one question. Must never say so of the ledger of a machine that decided alone.

use crate::ledger::Reader;
use crate::ledger::error::ReadError;

impl Reader {
    /// Whether the calls behind the last fixed month are those that one of several replicas
    /// admitted: bills that are made of them here would leave out the calls of the others.
    ///
    /// The newest record tells it. A process has a shared store from its start to its end, and no
    /// process without one writes behind such records. So does the outbox: what was collected is
    /// billed there. A ledger in which others are collected has all calls.
    pub(crate) fn is_one_replicas_part(&self) -> Result<bool, ReadError> {
        let sql = "WITH fixed AS (SELECT coalesce(max(through_seq), 0) AS seq FROM settlements)
                   SELECT NOT EXISTS (SELECT 1 FROM sources)
                      AND (EXISTS (SELECT 1 FROM outbox, fixed WHERE most_seq > fixed.seq)
                           OR coalesce((SELECT store_epoch IS NOT NULL FROM raw, fixed WHERE raw.seq > fixed.seq
                                        ORDER BY raw.seq DESC LIMIT 1), 0))";
        let part = self.one(sql, &[], |row| Ok(row.get(0)?))?;
        Ok(part.unwrap_or(false))
    }
}
