//! Recomputing what the ledger says of itself from the records that it keeps, also while they
//! become more.
//!
//! Owns the walk over the chain and the seals, and the order in which it looks. Must never hold
//! more than one step of the roll-up and the hours that are open there. Must never hold a
//! transaction for longer than a step: a reader that stays keeps the WAL from being copied back.
//!
//! A record that was changed breaks its own link and all later ones, and the marks tell which was
//! the first. A row of `hours` is counted from the record that it names as its first to the one
//! that it names as its last. Of records that were deleted the seals tell: each stands for its rows
//! of `hours`, or its month, and for every seal before. A chain that was made anew from some record
//! on, with its seals and all that follows from it, cannot be seen. The checkpoint is there for
//! that: a head that somebody kept elsewhere.

mod bounds;
mod days;
mod finding;
mod seals;
mod sources;
mod walk;

use crate::ledger::chain::{self, Link};
use crate::ledger::error::ReadError;
use crate::ledger::header;
use crate::ledger::read::Reader;
use crate::ledger::verify::bounds::bounds;
use crate::ledger::verify::finding::{key, misfit, number};
use crate::ledger::verify::walk::ChainWalk;
use crate::model::Utc;
use rusqlite::{OptionalExtension, params};

pub use crate::ledger::verify::finding::Mismatch;
pub(crate) use crate::ledger::verify::finding::Verified;

impl Reader {
    /// The seq of the newest linked record, and its link.
    pub fn head(&self) -> Result<(u64, Link), ReadError> {
        let (last_seq, link) = chain::head(&self.connection)?;
        Ok((number(last_seq), link))
    }

    /// Links all records again that are kept, counts them again, and compares links, sealed days,
    /// settlements and hours with what stands in the ledger. The chain must pass through
    /// `checkpoint`: a head that was published. Reads every record; memory does not grow with them.
    pub fn verify(&self, checkpoint: Option<[u8; 32]>) -> Result<Verified, Mismatch> {
        if let Err(error) = header::check_objects(&self.connection) {
            return misfit("sqlite_schema", "of the file", error.to_string());
        }
        let mut walk = ChainWalk::new(&self.connection, checkpoint)?;
        loop {
            let page = self.connection.unchecked_transaction()?;
            if walk.step(&page)? {
                break;
            }
        }
        self.every_hour_has_records()?;
        self.every_record_is_counted()?;
        self.sealed_rows_are_unchanged()?;
        self.every_hour_ends_where_it_does()?;
        self.sources_follow()?;
        let page = self.connection.unchecked_transaction()?;
        walk.seals_follow(&page)?;
        drop(page);
        walk.end(&self.connection)
    }

    /// The walk has seen the rows of `hours` to which records belong, each from the record that it
    /// names as its first on. Is there one that has none, or did one not end with the record that
    /// it names as its last?
    fn every_hour_has_records(&self) -> Result<(), Mismatch> {
        const PAGE: usize = 1_000;
        let (mut hour, mut series, mut first_seq) = (i64::MIN, i64::MIN, i64::MIN);
        loop {
            let page = self.connection.unchecked_transaction()?;
            let (first_kept, rolled_up) = bounds(&page)?;
            let mut select = page.prepare_cached(
                "SELECT hours.hour, hours.series, hours.first_seq, hours.last_seq, raw.series, raw.admitted_at
                 FROM hours LEFT JOIN raw ON raw.seq = hours.last_seq
                 WHERE (hours.hour, hours.series, hours.first_seq) > (?1, ?2, ?3)
                 ORDER BY hours.hour, hours.series, hours.first_seq LIMIT ?4",
            )?;
            let mut rows = select.query(params![hour, series, first_seq, PAGE as i64])?;
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                seen += 1;
                (hour, series, first_seq) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let last_seq: i64 = row.get(3)?;
                if last_seq < first_kept {
                    // Of records that were deleted.
                    continue;
                }
                let record: (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
                let belongs = record.0 == Some(series)
                    && record.1.is_some_and(|at| Utc(at).hour() == hour)
                    && last_seq <= rolled_up;
                if !belongs {
                    let why =
                        format!("its last record is said to be {last_seq}, which is another's");
                    return misfit("hours", key(hour, series), why);
                }
            }
            if seen < PAGE {
                return Ok(());
            }
        }
    }

    /// Also rows of records that were deleted say how many they were, and no seq was left out but
    /// by a restore.
    fn every_record_is_counted(&self) -> Result<(), Mismatch> {
        let (calls, rolled_up): (i64, i64) = self.connection.query_row(
            "SELECT (SELECT coalesce(sum(calls), 0) FROM hours),
                    rolled_up - (SELECT coalesce(sum(next_seq - 1 - last_seq), 0) FROM restores) FROM bounds",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if calls != rolled_up {
            let why = format!("they count {calls} calls, and {rolled_up} records are rolled up");
            return misfit("hours", "of all times", why);
        }
        Ok(())
    }

    /// Late calls are found by `hour_ends`. An hour that ends too early there would hide some.
    fn every_hour_ends_where_it_does(&self) -> Result<(), Mismatch> {
        let differs: Option<(i64, i64, Option<i64>)> = self
            .connection
            .query_row(
                "SELECT hour, max(hours.last_seq) AS last, hour_ends.last_seq AS said FROM hours
                 LEFT JOIN hour_ends USING (hour) GROUP BY hour HAVING said IS NOT last LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?;
        match differs {
            None => Ok(()),
            Some((hour, last, said)) => {
                let said = said.map_or("nothing".to_owned(), |said| said.to_string());
                let why = format!("its last record is {last}, and {said} is said");
                misfit("hour_ends", format!("hour {hour}"), why)
            }
        }
    }
}

#[cfg(test)]
mod tests;
