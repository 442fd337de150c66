//! The seqs that restores have left out.

use crate::ledger::range::Gap;
use crate::ledger::rows::{signed, unsigned};
use rusqlite::{Connection, OptionalExtension};

/// A gap with numbers as the tables have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LeftOut {
    /// The newest record before it.
    pub(super) last_seq: i64,
    restored_at: i64,
}

impl LeftOut {
    pub(super) fn before(self, next_seq: u64) -> Gap {
        Gap {
            last_seq: u64::try_from(self.last_seq).unwrap_or(0),
            next_seq,
            restored_at: self.restored_at,
        }
    }
}

/// What was left out right before `next_seq`. Restores without a record in between are one gap.
pub(super) fn left_after(
    connection: &Connection,
    next_seq: i64,
) -> Result<Option<LeftOut>, rusqlite::Error> {
    let mut select = connection
        .prepare_cached("SELECT last_seq, restored_at FROM restores WHERE next_seq = ?1")?;
    let mut before = |next_seq: i64| {
        select
            .query_row([next_seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    };
    let Some((mut last_seq, restored_at)): Option<(i64, i64)> = before(next_seq)? else {
        return Ok(None);
    };
    while let Some((earlier, _)) = before(last_seq + 1)?.filter(|(earlier, _)| *earlier < last_seq)
    {
        last_seq = earlier;
    }
    Ok(Some(LeftOut {
        last_seq,
        restored_at,
    }))
}

/// How often the ledger had been restored when the record `seq` was written.
pub(super) fn count_at(connection: &Connection, seq: u64) -> Result<u64, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT coalesce(max(restore_count), 0) FROM restores WHERE next_seq <= ?1",
        )?
        .query_row([signed(seq)], |row| unsigned(row, 0))
}
