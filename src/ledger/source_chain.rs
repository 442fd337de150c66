//! The chain of a ledger whose records are collected here: linked again from the records that this
//! ledger has.
//!
//! Owns the way back from a record to what it was in its own ledger: its seq there, and its run.
//! The texts of its series and the name of its replica are the same in both.

use crate::ledger::chain::{self, Digests, Link, Linked};
use crate::ledger::rows::FastMap;
use rusqlite::{Connection, OptionalExtension, Row};

/// The columns of [`CollectedRow`].
pub(super) const COLLECTED: &str =
    "SELECT first_seq, last_seq, source, source_first, source_last, restore_count, left_after,
    link_before, link, version FROM collected";

/// Runs that are remembered. A bound, not a size.
const RUNS_CACHED: usize = 1 << 16;

/// A row of `collected`: records that came in one range.
#[derive(Clone, Copy, Debug)]
pub(super) struct CollectedRow {
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) source: i64,
    pub(super) source_first: i64,
    pub(super) source_last: i64,
    pub(super) restore_count: i64,
    /// The newest record of the source before a restore, where these are the first since.
    pub(super) left_after: Option<i64>,
    pub(super) link_before: Link,
    pub(super) link: Link,
    pub(super) version: i64,
}

impl CollectedRow {
    /// Reads a row of [`COLLECTED`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            first_seq: row.get(0)?,
            last_seq: row.get(1)?,
            source: row.get(2)?,
            source_first: row.get(3)?,
            source_last: row.get(4)?,
            restore_count: row.get(5)?,
            left_after: row.get(6)?,
            link_before: row.get(7)?,
            link: row.get(8)?,
            version: row.get(9)?,
        })
    }
}

/// Why records do not give a link: the first one that does not fit, by its seq here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NotLinked {
    pub(super) seq: i64,
    pub(super) why: &'static str,
}

/// Links records of sources again. It keeps what it has read of series and runs.
#[derive(Default, Debug)]
pub(super) struct SourceLinks {
    digests: Digests,
    runs: FastMap<i64, (Option<i64>, Option<i64>)>,
}

impl SourceLinks {
    /// The link after each record of `row`, in order; `each` sees the record's seq in its own ledger
    /// and the link after it. Gives the last.
    pub(super) fn of(
        &mut self,
        connection: &Connection,
        row: &CollectedRow,
        mut each: impl FnMut(i64, &Link),
    ) -> Result<Result<Link, NotLinked>, rusqlite::Error> {
        let mut link = row.link_before;
        let mut expected = row.first_seq;
        let mut select = connection.prepare_cached(chain::LINKED)?;
        let mut rows = select.query([row.first_seq - 1, row.last_seq])?;
        while let Some(record) = rows.next()? {
            let seq: i64 = record.get(0)?;
            let not = |why| Ok(Err(NotLinked { seq, why }));
            if seq != expected {
                break;
            }
            expected += 1;
            let Ok(record) = Linked::read(record) else {
                return not("its values are not those of a record");
            };
            let (source, source_run) = self.run(connection, record.run)?;
            let Some(source_run) = source_run.filter(|_| source == Some(row.source)) else {
                return not("its run is not one of the ledger that it was collected from");
            };
            let Some(texts) = self.digests.of(connection, &record, row.version)? else {
                return not("there is no such series or no such run");
            };
            let in_its_ledger = Linked {
                seq: row.source_first + (seq - row.first_seq),
                run: source_run,
                ..record
            };
            link = in_its_ledger.link(&link, &texts, row.version);
            each(in_its_ledger.seq, &link);
        }
        Ok(match expected <= row.last_seq {
            true => Err(NotLinked {
                seq: expected,
                why: "this record is missing",
            }),
            false => Ok(link),
        })
    }

    fn run(
        &mut self,
        connection: &Connection,
        run: i64,
    ) -> Result<(Option<i64>, Option<i64>), rusqlite::Error> {
        if let Some(found) = self.runs.get(&run) {
            return Ok(*found);
        }
        let found = connection
            .prepare_cached("SELECT source, source_run FROM runs WHERE run = ?1")?
            .query_row([run], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .unwrap_or((None, None));
        if self.runs.len() >= RUNS_CACHED {
            self.runs.clear();
        }
        self.runs.insert(run, found);
        Ok(found)
    }

    /// The link after the record `seq` of a source; `None` where its records are not here any more,
    /// or never were.
    pub(super) fn after(
        &mut self,
        connection: &Connection,
        source: i64,
        seq: i64,
    ) -> Result<Option<Link>, rusqlite::Error> {
        let row = connection
            .prepare_cached(&format!(
                "{COLLECTED} WHERE source = ?1 AND source_first <= ?2 ORDER BY source_first DESC LIMIT 1"
            ))?
            .query_row([source, seq.saturating_add(1)], CollectedRow::read)
            .optional()?;
        let Some(row) = row.filter(|row| seq <= row.source_last) else {
            return Ok(None);
        };
        if seq < row.source_first {
            // Where a restore lies before it, that is the link of an older record.
            return Ok(row.left_after.is_none().then_some(row.link_before));
        }
        let mut found = None;
        // Records that are gone give none, which is told to nobody: the caller can do without.
        let _ = self.of(connection, &row, |at, link| {
            if at == seq {
                found = Some(*link);
            }
        })?;
        Ok(found)
    }
}
