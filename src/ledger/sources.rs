//! Reading what is known of the ledgers whose records are collected here, and how far this one's own
//! are collected elsewhere.

use crate::ledger::collected::{CollectedBy, OutboxCursor, SourceLedger};
use crate::ledger::read::restore_count;
use crate::ledger::rows::unsigned;
use crate::ledger::{ReadError, Reader};
use crate::model::Utc;
use rusqlite::Connection;

impl Reader {
    /// The ledgers whose records are collected in this one, in the order in which they were first
    /// heard of. None: this is not a collected ledger.
    pub fn sources(&self) -> Result<Vec<SourceLedger>, ReadError> {
        let mut select = self.connection.prepare_cached(
            "SELECT ledger_id, replica, restore_count, seq, told_us, told_seq, reached_us, first_seen_at, retired_at, retired_why
             FROM sources ORDER BY source",
        )?;
        let sources = select.query_map([], |row| {
            let told: (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
            let retired: (Option<i64>, Option<String>) = (row.get(8)?, row.get(9)?);
            Ok(SourceLedger {
                ledger_id: row.get(0)?,
                replica: row.get(1)?,
                restore_count: unsigned(row, 2)?,
                seq: unsigned(row, 3)?,
                watermark: told
                    .0
                    .zip(told.1)
                    .map(|(at, seq)| (Utc(at), u64::try_from(seq).unwrap_or(0))),
                admitted_before: row.get::<_, Option<i64>>(6)?.map(Utc),
                first_seen_at: Utc(row.get(7)?),
                retired: retired.0.map(|at| (Utc(at), retired.1.unwrap_or_default())),
            })
        })?;
        Ok(sources.collect::<Result<_, _>>()?)
    }

    /// The instant before which every call of every ledger is collected, save those of ledgers that
    /// were retired: the end of time when all were. `None` when it is not known of one of them, and
    /// where there is none.
    pub fn all_admitted_before(&self) -> Result<Option<Utc>, ReadError> {
        let (all, alive, heard, least): (u64, u64, u64, Option<i64>) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE retired_at IS NULL), count(reached_us) FILTER (WHERE retired_at IS NULL),
                        min(reached_us) FILTER (WHERE retired_at IS NULL) FROM sources",
            )?
            .query_row([], |row| {
                Ok((unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?, row.get(3)?))
            })?;
        Ok(match (all, alive) {
            (0, _) => None,
            // Nothing is waited for any more.
            (_, 0) => Some(Utc(i64::MAX)),
            _ => least.filter(|_| heard == alive).map(Utc),
        })
    }

    /// This ledger, as those are told of it whose records it collects.
    pub fn collected_by(&self) -> Result<CollectedBy, ReadError> {
        Ok(CollectedBy {
            ledger_id: self.ledger_id()?,
            restore_count: restore_count(&self.connection)?,
        })
    }

    /// The ids of the ledgers in whose place this one was put, and when that was last: 0 microseconds
    /// where it never was.
    pub fn adopted(&self) -> Result<(Vec<String>, Utc), ReadError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT ledger_id, adopted_at FROM adopted ORDER BY ledger_id")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, i64)> = rows.collect::<Result<_, _>>()?;
        let last = rows.iter().map(|(_, at)| *at).max().unwrap_or(0);
        Ok((rows.into_iter().map(|(id, _)| id).collect(), Utc(last)))
    }

    /// How often something was closed in this ledger for good: days, months, their debits, and sources
    /// that were given up. It never falls, but for a restore.
    pub fn closings(&self) -> Result<u64, ReadError> {
        let closings: i64 = self
            .connection
            .prepare_cached(
                "SELECT (SELECT count(*) FROM days) + (SELECT count(*) + count(settled_at) + count(debited_at) FROM settlements)
                        + (SELECT count(retired_at) FROM sources)",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(u64::try_from(closings).unwrap_or(0))
    }

    /// Where the outbox of this ledger goes on.
    pub fn outbox(&self) -> Result<OutboxCursor, ReadError> {
        Ok(outbox(&self.connection)?)
    }
}

/// Where the outbox of a ledger goes on.
pub(super) fn outbox(connection: &Connection) -> Result<OutboxCursor, rusqlite::Error> {
    connection
        .prepare_cached(
            "WITH billed AS (SELECT max(floor - 1, (SELECT coalesce(max(through_seq), 0) FROM settlements
                                                     WHERE settled_at IS NOT NULL)) AS seq FROM bounds)
             SELECT max(first_kept - 1, coalesce((SELECT collected_seq FROM outbox), 0), billed.seq), billed.seq,
                    coalesce((SELECT ledger_id FROM outbox), '')
             FROM bounds, billed",
        )?
        .query_row([], |row| {
            Ok(OutboxCursor {
                collected_seq: unsigned(row, 0)?,
                billed_seq: unsigned(row, 1)?,
                collected_in: row.get(2)?,
            })
        })
}
