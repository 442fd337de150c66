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
    /// process without one writes behind such records.
    pub(crate) fn is_one_replicas_part(&self) -> Result<bool, ReadError> {
        let sql = "SELECT store_epoch IS NOT NULL FROM raw
                   WHERE seq > (SELECT coalesce(max(through_seq), 0) FROM settlements)
                   ORDER BY seq DESC LIMIT 1";
        let newest = self.one(sql, &[], |row| Ok(row.get(0)?))?;
        Ok(newest.unwrap_or(false))
    }
}
