//! An account's records, page by page.
//!
//! Owns which rows are looked at for a page. Must never look at more rows than it is told to,
//! whosever they are, nor tell of a record that is not the account's.
//!
//! # Decided
//! - **A page is bounded by the rows that are looked at, not by the records that are found.** The
//!   records have no index by account (SCHEMA): few calls of an account among millions of others
//!   would be one scan over all of them. The hours say where the account called, and the rest is
//!   not looked at.
//! - **A cursor past the account's newest record is one at it**, whatever it names. Were it refused,
//!   an account could try numbers until it knows how many calls all accounts have made by now.

use crate::ledger::count::{Span, hours, rolled_up, united};
use crate::ledger::cursor::Cursor;
use crate::ledger::error::ReadError;
use crate::ledger::read::{RECORDS, Reader, StoredRecord, in_this_restore, record, restore_count};
use crate::ledger::rows::{first_kept, signed};
use crate::model::{AccountId, Utc};
use rusqlite::{Connection, OptionalExtension, params};

/// The records that are asked for, and how many of them at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordsOf<'a> {
    /// Whose.
    pub account: &'a AccountId,
    /// The first instant of admission.
    pub from: Utc,
    /// The end of the instants, excluded.
    pub until: Utc,
    /// The last seq.
    pub through: u64,
    /// The most records of a page.
    pub records: usize,
    /// The most rows that are looked at for a page, at least 1.
    pub rows: u64,
}

/// A page of an account's records.
#[derive(Clone, Debug)]
pub(crate) struct RecordPage {
    /// In order of seq.
    pub records: Vec<StoredRecord>,
    /// Behind the last row that was looked at.
    pub next: Cursor,
    /// Nothing comes after it.
    pub is_last: bool,
}

impl Reader {
    /// A page of the account's records behind the cursor `after`, in order. It may have none, and
    /// not be the last.
    ///
    /// # Errors
    /// A cursor of another restore, and [`ReadError::Pruned`] when a record of them was deleted.
    pub(crate) fn records_of(
        &self,
        asked: &RecordsOf<'_>,
        after: impl Into<Cursor>,
    ) -> Result<RecordPage, ReadError> {
        let (page, newest) = self.page()?;
        let through = signed(asked.through).min(newest);
        let own = own_ranges(&page, asked, through)?;
        let after = match in_this_restore(&page, after.into()) {
            Ok(after) => signed(after),
            Err(ReadError::Restored { cursor, on }) => {
                let seq = own_newest(&page, asked, &own, signed(on.seq))?;
                let on = Cursor { seq, ..on };
                return Err(ReadError::Restored { cursor, on });
            }
            Err(error) => return Err(error),
        };
        let after = after.min(own.last().map_or(0, |(_, last)| *last));
        let ahead = own.into_iter().filter(|(_, last)| *last > after);
        let ahead: Vec<_> = ahead
            .map(|(first, last)| (first.max(after + 1), last))
            .collect();
        let first_kept = first_kept(&page)?;
        if ahead.iter().any(|(first, _)| *first < signed(first_kept)) {
            return Err(ReadError::Pruned { first_kept });
        }
        let (records, next, is_last) = looked_at(&page, asked, &ahead, after)?;
        let next = Cursor {
            restore_count: restore_count(&page)?,
            seq: u64::try_from(next).unwrap_or(0),
        };
        Ok(RecordPage {
            records,
            next,
            is_last,
        })
    }
}

/// The seqs up to `through` between which the account called in the span, in order. Of each hour
/// the first and the last of a range are the account's own; so are those of the records that are
/// not rolled up yet.
fn own_ranges(
    page: &Connection,
    asked: &RecordsOf<'_>,
    through: i64,
) -> Result<Vec<(i64, i64)>, ReadError> {
    let span = Span {
        from: asked.from,
        until: asked.until,
        account: Some(asked.account),
        seqs: (0, through),
    };
    let mut ranges = Vec::new();
    hours(page, &span, |hour| {
        if hour.first_seq <= through {
            ranges.push((hour.first_seq, hour.last_seq.min(through)));
        }
    })?;
    let tail: (Option<i64>, Option<i64>) = page
        .prepare_cached(
            "SELECT min(seq), max(seq) FROM raw WHERE seq > ?1 AND seq <= ?2 AND admitted_at >= ?3 AND admitted_at < ?4
             AND series IN (SELECT id FROM series WHERE account = ?5)",
        )?
        .query_row(
            params![
                rolled_up(page)?,
                through,
                asked.from.0,
                asked.until.0,
                asked.account.as_str()
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    if let (Some(first), Some(last)) = tail {
        ranges.push((first, last));
    }
    Ok(united(ranges))
}

/// The account's newest record of the span up to `at_most`; 0 when there is none.
fn own_newest(
    page: &Connection,
    asked: &RecordsOf<'_>,
    own: &[(i64, i64)],
    at_most: i64,
) -> Result<u64, ReadError> {
    let Some((first, last)) = own.iter().rev().find(|(first, _)| *first <= at_most) else {
        return Ok(0);
    };
    let found: Option<i64> = page
        .prepare_cached(
            "SELECT seq FROM raw WHERE seq >= ?1 AND seq <= ?2
             AND series IN (SELECT id FROM series WHERE account = ?3) ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(
            params![first, at_most.min(*last), asked.account.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    // Of a range whose records were deleted its first is known to be the account's.
    Ok(u64::try_from(found.unwrap_or(*first)).unwrap_or(0))
}

/// The records in the ranges, as many as a page takes; the last seq that was looked at; and
/// whether nothing is left.
fn looked_at(
    page: &Connection,
    asked: &RecordsOf<'_>,
    ranges: &[(i64, i64)],
    after: i64,
) -> Result<(Vec<StoredRecord>, i64, bool), ReadError> {
    let mut select = page.prepare_cached(&format!(
        "{RECORDS} WHERE seq >= ?1 AND seq <= ?2 AND account = ?3 AND admitted_at >= ?4 AND admitted_at < ?5
         ORDER BY seq LIMIT ?6"
    ))?;
    let mut records: Vec<StoredRecord> = Vec::new();
    let mut rows_left = signed(asked.rows);
    let mut next = after;
    for (first, last) in ranges {
        if rows_left <= 0 {
            return Ok((records, next, false));
        }
        let until = (*last).min(first.saturating_add(rows_left - 1));
        let mut rows = select.query(params![
            first,
            until,
            asked.account.as_str(),
            asked.from.0,
            asked.until.0,
            signed((asked.records - records.len()) as u64)
        ])?;
        while let Some(row) = rows.next()? {
            records.push(record(row)?);
        }
        if records.len() >= asked.records {
            next = records.last().map_or(next, |last| signed(last.seq));
            return Ok((records, next, false));
        }
        rows_left -= until - first + 1;
        next = until;
        if until < *last {
            return Ok((records, next, false));
        }
    }
    let next = records.last().map_or(after, |last| signed(last.seq));
    Ok((records, next, true))
}
