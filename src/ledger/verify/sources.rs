//! The chains of the ledgers whose records are collected in this one.
//!
//! Owns the walk over the ranges that were taken. Must never hold more than one range, and of each
//! source where it stands.

use crate::ledger::read::Reader;
use crate::ledger::rows::FastMap;
use crate::ledger::source_chain::{COLLECTED, CollectedRow, SourceLinks};
use crate::ledger::verify::bounds::bounds;
use crate::ledger::verify::finding::{Mismatch, misfit};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// Ranges that are looked at in one transaction.
const PAGE: usize = 16;

/// How far the walk has come in the chain of a source.
#[derive(Default)]
struct Walked {
    /// Its newest range.
    newest: Option<CollectedRow>,
    /// The links that have to stand after these records: those before a restore.
    stated: BTreeMap<i64, [u8; 32]>,
}

struct SourceWalk {
    links: SourceLinks,
    sources: FastMap<i64, Walked>,
    /// The newest seq here that a range was taken to.
    at: Option<i64>,
}

impl Reader {
    /// Links the records of each source again, in its own chain.
    pub(super) fn sources_follow(&self) -> Result<(), Mismatch> {
        let mut walk = SourceWalk {
            links: SourceLinks::default(),
            sources: FastMap::default(),
            at: None,
        };
        walk.before_restores(&self.connection)?;
        loop {
            let page = self.connection.unchecked_transaction()?;
            if walk.page(&page)? {
                return walk.end(&page);
            }
        }
    }
}

impl SourceWalk {
    /// Reads which links have to stand where: a restore may go back far behind what was collected.
    fn before_restores(&mut self, connection: &Connection) -> Result<(), Mismatch> {
        let mut select = connection.prepare(
            "SELECT source, left_after, link_before FROM collected WHERE left_after IS NOT NULL",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let walked = self.sources.entry(row.get(0)?).or_default();
            walked.stated.insert(row.get(1)?, row.get(2)?);
        }
        Ok(())
    }

    /// Looks at the next ranges; `true` when there is none left.
    fn page(&mut self, page: &Connection) -> Result<bool, Mismatch> {
        let (first_kept, _) = bounds(page)?;
        let mut select = page.prepare_cached(&format!(
            "{COLLECTED} WHERE first_seq > ?1 AND last_seq >= ?2 ORDER BY first_seq LIMIT ?3"
        ))?;
        let mut rows = select.query(params![self.at.unwrap_or(0), first_kept, PAGE as i64])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            let row = CollectedRow::read(row)?;
            self.follows_here(page, &row, first_kept)?;
            self.follows_there(page, &row)?;
            if row.first_seq >= first_kept {
                self.link_again(page, &row)?;
            }
            self.at = Some(row.last_seq);
            self.sources.entry(row.source).or_default().newest = Some(row);
        }
        Ok(seen < PAGE)
    }

    /// The ranges take all seqs of this ledger, and as many as of the source.
    fn follows_here(
        &self,
        page: &Connection,
        row: &CollectedRow,
        first_kept: i64,
    ) -> Result<(), Mismatch> {
        if row.last_seq - row.first_seq != row.source_last - row.source_first
            || row.last_seq < row.first_seq
        {
            let why = "it has not as many records here as there";
            return misfit("collected", key(page, row)?, why);
        }
        let expected = self.at.unwrap_or(0) + 1;
        if self.at.is_some() && row.first_seq < expected {
            let why = format!("record {} here is in another one", row.first_seq);
            return misfit("collected", key(page, row)?, why);
        }
        // What was deleted meanwhile was looked at or not.
        if row.first_seq <= expected.max(first_kept) || restored(page, expected, row.first_seq)? {
            return Ok(());
        }
        no_source(expected.max(first_kept))
    }

    /// The range goes on where the one before it of its source ends.
    fn follows_there(&mut self, page: &Connection, row: &CollectedRow) -> Result<(), Mismatch> {
        let Some(before) = self.sources.get(&row.source).and_then(|at| at.newest) else {
            return Ok(());
        };
        let goes_on = match row.left_after {
            None => {
                row.restore_count == before.restore_count
                    && row.source_first == before.source_last + 1
                    && row.link_before == before.link
            }
            Some(left) => {
                row.restore_count > before.restore_count
                    && row.source_first > before.source_last
                    && left <= before.source_last
            }
        };
        match goes_on {
            true => Ok(()),
            false => {
                let why = format!(
                    "it does not go on where the range before it ends: with record {}",
                    before.source_last
                );
                misfit("collected", key(page, row)?, why)
            }
        }
    }

    fn link_again(&mut self, page: &Connection, row: &CollectedRow) -> Result<(), Mismatch> {
        let stated = match self.sources.get(&row.source) {
            Some(walked) => &walked.stated,
            None => &BTreeMap::new(),
        };
        let mut unlike = None;
        let linked = self.links.of(page, row, |seq, link| {
            if stated.get(&seq).is_some_and(|stated| stated != link) {
                unlike.get_or_insert(seq);
            }
        })?;
        match linked {
            Err(not) => {
                let why = format!("{}, of {}", not.why, key(page, row)?);
                misfit("raw", not.seq, why)
            }
            Ok(link) if link != row.link => {
                let why =
                    "its records do not give its link: one of them is not the record that was sent";
                misfit("collected", key(page, row)?, why)
            }
            Ok(_) => match unlike {
                None => Ok(()),
                Some(seq) => {
                    let why = format!(
                        "a restore of its ledger went back to record {seq}, whose link was another"
                    );
                    misfit("collected", key(page, row)?, why)
                }
            },
        }
    }

    /// The cursor of each source is where its ranges end, and each record is in one.
    fn end(self, page: &Connection) -> Result<(), Mismatch> {
        let mut select =
            page.prepare("SELECT source, ledger_id, restore_count, seq, link FROM sources")?;
        let mut rows = select.query([])?;
        let mut sources = 0;
        while let Some(row) = rows.next()? {
            sources += 1;
            let Some(newest) = self.sources.get(&row.get(0)?).and_then(|at| at.newest) else {
                continue;
            };
            let ledger_id: String = row.get(1)?;
            let cursor: (i64, i64, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            let ends = (newest.restore_count, newest.source_last);
            if (cursor.0, cursor.1) != ends || cursor.2.as_deref() != Some(&newest.link[..]) {
                let why = format!(
                    "it says record {} of restore {}; its ranges end with record {} of restore {}",
                    cursor.1, cursor.0, ends.1, ends.0
                );
                return misfit("sources", ledger_id, why);
            }
        }
        let last: i64 = page.query_row(
            "SELECT max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds",
            [],
            |row| row.get(0),
        )?;
        let (first_kept, _) = bounds(page)?;
        let at = self.at.unwrap_or(0);
        let missing = (at + 1).max(first_kept);
        match sources > 0 && missing <= last && !restored(page, at + 1, last + 1)? {
            true => no_source(missing),
            false => Ok(()),
        }
    }
}

fn no_source<T>(seq: i64) -> Result<T, Mismatch> {
    misfit(
        "raw",
        seq,
        "it was collected from no ledger, and this ledger has no calls of its own",
    )
}

/// Whether a restore of this ledger has left out the seqs from `first` up to `next`.
fn restored(page: &Connection, first: i64, next: i64) -> Result<bool, rusqlite::Error> {
    page.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM restores WHERE last_seq = ?1 AND next_seq = ?2)",
    )?
    .query_row([first - 1, next], |row| row.get(0))
}

fn key(page: &Connection, row: &CollectedRow) -> Result<String, rusqlite::Error> {
    let source: Option<(String, String)> = page
        .query_row(
            "SELECT ledger_id, replica FROM sources WHERE source = ?1",
            [row.source],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (ledger_id, replica) = source.unwrap_or_else(|| ("nobody knows".into(), String::new()));
    Ok(format!(
        "records {} to {} of ledger {ledger_id} ({replica})",
        row.source_first, row.source_last
    ))
}
