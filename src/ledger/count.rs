//! Counting calls between any two instants and in any range of seqs: whole hours from the rollup,
//! parts of hours and of ranges from the records.
//!
//! Owns which of the two is asked. Must never give a number that a recount of all records would not
//! give: where records that it takes were deleted it is an error.

use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::{FastMap, first_kept, signed, text, word};
use crate::model::{AccountId, Action, GroupId, KeyId, Mode, Outcome, Reason, Utc};
use rusqlite::OptionalExtension;
use rusqlite::{Connection, params};
use serde::Serialize;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The longest span of hours, some more than a year, in which one account is looked up hour by
/// hour.
const LOOKED_UP_HOURS: i64 = 24 * 400;

const HOUR_US: i64 = 3_600_000_000;

/// Calls that are alike in all that a bill asks, in the span asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UsageLine {
    /// The account that called.
    #[serde(serialize_with = "text")]
    pub account: AccountId,
    /// The group of the action.
    #[serde(serialize_with = "text")]
    pub group: GroupId,
    /// The action that was called.
    #[serde(serialize_with = "text")]
    pub action: Action,
    /// The mode in force at the admission (R3).
    #[serde(serialize_with = "text")]
    pub mode: Mode,
    /// The key that proved the account. Empty for calls from before keys had ids.
    #[serde(serialize_with = "text")]
    pub key: KeyId,
    /// How the calls ended.
    #[serde(serialize_with = "text")]
    pub outcome: Outcome,
    /// Whether the biller may count them.
    pub billable: bool,
    /// The reason why the calls are not billable. Empty when they are.
    #[serde(serialize_with = "text")]
    pub reason: Reason,
    /// The number of calls.
    pub calls: u64,
    /// The seq of the first of them.
    pub first_seq: u64,
    /// The seq of the last of them.
    pub last_seq: u64,
}

/// The calls that are to be counted.
pub(super) struct Span<'a> {
    pub(super) from: Utc,
    pub(super) until: Utc,
    pub(super) account: Option<&'a AccountId>,
    /// The first and the last seq, both included.
    pub(super) seqs: (i64, i64),
}

/// A row of `hours`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hour {
    pub(super) hour: i64,
    pub(super) series: i64,
    pub(super) calls: i64,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
}

/// The calls of one series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) calls: i64,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
}

pub(super) type Counts = FastMap<i64, Count>;

pub(super) fn add(counts: &mut Counts, series: i64, more: Count) {
    counts
        .entry(series)
        .and_modify(|count| {
            count.calls += more.calls;
            count.first_seq = count.first_seq.min(more.first_seq);
            count.last_seq = count.last_seq.max(more.last_seq);
        })
        .or_insert(more);
}

impl Reader {
    /// The calls admitted in [`from`, `until`) whose records have a seq in `seqs`, summed up by all
    /// that a bill asks, of one account or all. In order of account, group, action, mode, outcome,
    /// reason.
    ///
    /// Whole hours are also counted when their records were deleted since. For a part of an hour,
    /// or of its seqs, the records are read: it is [`ReadError::Pruned`] when they are gone.
    pub fn usage(
        &self,
        from: Utc,
        until: Utc,
        account: Option<&AccountId>,
        seqs: RangeInclusive<u64>,
    ) -> Result<Vec<UsageLine>, ReadError> {
        let (page, newest) = self.page()?;
        let span = Span {
            from,
            until,
            account,
            seqs: (signed(*seqs.start()), signed(*seqs.end()).min(newest)),
        };
        let counts = count(&page, &span)?;
        lines(&page, counts)
    }

    /// The accounts that [`Reader::usage`] of all would name, in order.
    pub fn called(
        &self,
        from: Utc,
        until: Utc,
        seqs: RangeInclusive<u64>,
    ) -> Result<Vec<AccountId>, ReadError> {
        let lines = self.usage(from, until, None, seqs)?;
        let mut accounts: Vec<AccountId> = lines.into_iter().map(|line| line.account).collect();
        accounts.dedup();
        Ok(accounts)
    }

    /// The accounts whose records have a seq above `after`, up to `until_seq`; in order. Reads
    /// these records.
    pub fn accounts_since(&self, after: u64, until_seq: u64) -> Result<Vec<AccountId>, ReadError> {
        let page = self.connection.unchecked_transaction()?;
        let first_kept = first_kept(&page)?;
        if after < until_seq && after.saturating_add(1) < first_kept {
            return Err(ReadError::Pruned { first_kept });
        }
        let mut select = page.prepare_cached(
            "SELECT DISTINCT account FROM series
             WHERE id IN (SELECT series FROM raw WHERE seq > ?1 AND seq <= ?2) ORDER BY account",
        )?;
        let mut rows = select.query(params![signed(after), signed(until_seq)])?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            accounts.push(word(row, 0, AccountId::new)?);
        }
        Ok(accounts)
    }

    /// The begin of the oldest hour in which a call was admitted, of those that begin at
    /// `not_before` or later; `None` before the first such call.
    pub fn first_admitted(&self, not_before: Utc) -> Result<Option<Utc>, ReadError> {
        let oldest: Option<i64> = self.connection.query_row(
            "SELECT min(hour) FROM (SELECT min(hour) AS hour FROM hour_ends WHERE hour >= ?1
             UNION ALL SELECT min(hour) FROM tail WHERE hour >= ?1)",
            [Utc(not_before.0.saturating_add(HOUR_US - 1)).hour()],
            |row| row.get(0),
        )?;
        Ok(oldest.map(begin_of))
    }

    /// The newest instant at which a call was admitted, as far as the records tell that are kept;
    /// else the begin of its hour. `None` before the first call.
    pub fn last_admitted(&self) -> Result<Option<Utc>, ReadError> {
        let page = self.connection.unchecked_transaction()?;
        let hour: Option<(i64, Option<i64>)> = page
            .query_row(
                "SELECT hour, admitted_at FROM hour_ends LEFT JOIN raw ON raw.seq = last_seq ORDER BY hour DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let tail: Option<i64> = page.query_row(
            "SELECT max(admitted_at) FROM raw WHERE seq > (SELECT rolled_up FROM bounds)",
            [],
            |row| row.get(0),
        )?;
        let rolled_up = hour.map(|(hour, at)| at.map_or(begin_of(hour), Utc));
        Ok(rolled_up.max(tail.map(Utc)))
    }

    /// The hours before `until`, united to spans in order, in which calls were admitted whose
    /// records have a seq above `after`. The last span ends with `until` at the latest.
    pub fn spans_after(&self, after: u64, until: Utc) -> Result<Vec<(Utc, Utc)>, ReadError> {
        // By the index on `last_seq`: few hours have records that are newer than the last
        // settlement.
        let mut select = self.connection.prepare_cached(
            "SELECT hour FROM hour_ends WHERE last_seq > ?1 AND +hour <= ?2
             UNION SELECT hour FROM tail WHERE first_seq > ?1 AND hour <= ?2 ORDER BY 1",
        )?;
        let last = Utc(until.0.saturating_sub(1)).hour();
        let mut rows = select.query(params![signed(after), last])?;
        let mut spans: Vec<(Utc, Utc)> = Vec::new();
        while let Some(row) = rows.next()? {
            let hour: i64 = row.get(0)?;
            let (begin, end) = (begin_of(hour), begin_of(hour.saturating_add(1)).min(until));
            match spans.last_mut() {
                Some(span) if span.1 == begin => span.1 = end,
                _ => spans.push((begin, end)),
            }
        }
        Ok(spans)
    }
}

pub(super) fn begin_of(hour: i64) -> Utc {
    Utc(hour.saturating_mul(HOUR_US))
}

pub(super) fn rolled_up(page: &Connection) -> Result<i64, rusqlite::Error> {
    page.query_row("SELECT rolled_up FROM bounds", [], |row| row.get(0))
}

fn count(page: &Connection, span: &Span<'_>) -> Result<Counts, ReadError> {
    let mut counts = Counts::default();
    let (first, last) = span.seqs;
    // The rows of `hours` that are asked for in part: the ranges of their records, by hour and
    // series. An hour and series may have other rows that are asked for as a whole.
    let mut parts: FastMap<(i64, i64), Vec<(i64, i64)>> = FastMap::default();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    hours(page, span, |row| {
        let begin = row.hour.saturating_mul(HOUR_US);
        let whole_hour = span.from.0 <= begin && begin.saturating_add(HOUR_US) <= span.until.0;
        if row.last_seq < first || last < row.first_seq {
        } else if whole_hour && first <= row.first_seq && row.last_seq <= last {
            let Hour {
                calls,
                first_seq,
                last_seq,
                ..
            } = row;
            add(
                &mut counts,
                row.series,
                Count {
                    calls,
                    first_seq,
                    last_seq,
                },
            );
        } else {
            let range = (row.first_seq.max(first), row.last_seq.min(last));
            parts.entry((row.hour, row.series)).or_default().push(range);
            ranges.push(range);
        }
    })?;
    let first_kept = first_kept(page)?;
    if ranges.iter().any(|(from, _)| *from < signed(first_kept)) {
        return Err(ReadError::Pruned { first_kept });
    }
    for (from, until) in united(ranges) {
        records(page, span, (from, until), |hour, series, count| {
            let is_asked_for =
                |range: &(i64, i64)| range.0 <= count.first_seq && count.first_seq <= range.1;
            let parts = parts.get(&(hour, series));
            if parts.is_some_and(|parts| parts.iter().any(is_asked_for)) {
                add(&mut counts, series, count);
            }
        })?;
    }
    // The records that are not rolled up yet.
    let own = match span.account {
        Some(account) => Some(series_of(page, account)?),
        None => None,
    };
    let tail = (first.max(rolled_up(page)? + 1), last);
    records(page, span, tail, |_, series, count| {
        if own.as_ref().is_none_or(|own| own.contains(&series)) {
            add(&mut counts, series, count);
        }
    })?;
    Ok(counts)
}

/// The rows of `hours` that have calls of the account in the hours of the span, be it in part.
pub(super) fn hours(
    page: &Connection,
    span: &Span<'_>,
    mut each: impl FnMut(Hour),
) -> Result<(), ReadError> {
    let first = span.from.hour();
    let end = Utc(span.until.0.saturating_add(HOUR_US - 1)).hour();
    let looked_up = span
        .account
        .filter(|_| end.saturating_sub(first) <= LOOKED_UP_HOURS);
    let sql = if looked_up.is_some() {
        // The hours are the key's first part: one account's few series are looked up hour by hour,
        // where a scan would read everybody's month.
        "WITH RECURSIVE span(hour) AS
             (SELECT ?1 WHERE ?1 < ?2 UNION ALL SELECT hour + 1 FROM span WHERE hour + 1 < ?2)
         SELECT hours.hour, hours.series, calls, first_seq, last_seq FROM series CROSS JOIN span
         CROSS JOIN hours ON hours.hour = span.hour AND hours.series = series.id WHERE account = ?3"
    } else {
        "SELECT hour, series, calls, first_seq, last_seq FROM hours WHERE hour >= ?1 AND hour < ?2
         AND (?3 IS NULL OR series IN (SELECT id FROM series WHERE account = ?3))"
    };
    let mut select = page.prepare_cached(sql)?;
    let mut rows = select.query(params![first, end, span.account.map(AccountId::as_str)])?;
    while let Some(row) = rows.next()? {
        each(Hour {
            hour: row.get(0)?,
            series: row.get(1)?,
            calls: row.get(2)?,
            first_seq: row.get(3)?,
            last_seq: row.get(4)?,
        });
    }
    Ok(())
}

/// The records with a seq in the range that were admitted in the span: hour, series, and what one
/// record counts.
pub(super) fn records(
    page: &Connection,
    span: &Span<'_>,
    (first, last): (i64, i64),
    mut each: impl FnMut(i64, i64, Count),
) -> Result<(), ReadError> {
    let mut select = page.prepare_cached(
        "SELECT seq, series, admitted_at FROM raw
         WHERE seq >= ?1 AND seq <= ?2 AND admitted_at >= ?3 AND admitted_at < ?4",
    )?;
    let mut rows = select.query([first, last, span.from.0, span.until.0])?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        let count = Count {
            calls: 1,
            first_seq: seq,
            last_seq: seq,
        };
        each(Utc(row.get(2)?).hour(), row.get(1)?, count);
    }
    Ok(())
}

/// The same seqs in ranges that do not overlap, in order.
pub(super) fn united(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut united: Vec<(i64, i64)> = Vec::new();
    for (first, last) in ranges {
        match united.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => united.push((first, last)),
        }
    }
    united
}

pub(super) fn series_of(
    page: &Connection,
    account: &AccountId,
) -> Result<HashSet<i64, foldhash::fast::RandomState>, rusqlite::Error> {
    let mut select = page.prepare_cached("SELECT id FROM series WHERE account = ?1")?;
    let ids = select.query_map([account.as_str()], |row| row.get(0))?;
    ids.collect()
}

pub(super) fn lines(page: &Connection, counts: Counts) -> Result<Vec<UsageLine>, ReadError> {
    let mut select = page.prepare_cached(
        r#"SELECT account, "group", action, mode, outcome, billable, reason, key FROM series WHERE id = ?1"#,
    )?;
    let mut lines = Vec::with_capacity(counts.len());
    for (series, count) in counts {
        let mut rows = select.query([series])?;
        let Some(row) = rows.next()? else {
            return Err(ReadError::Unknown(format!("series {series}")));
        };
        lines.push(UsageLine {
            account: word(row, 0, AccountId::new)?,
            group: word(row, 1, GroupId::new)?,
            action: word(row, 2, Action::new)?,
            mode: word(row, 3, Mode::parse)?,
            outcome: word(row, 4, Outcome::parse)?,
            billable: row.get(5)?,
            reason: word(row, 6, Reason::parse)?,
            key: word(row, 7, KeyId::new)?,
            calls: u64::try_from(count.calls).unwrap_or(0),
            first_seq: u64::try_from(count.first_seq).unwrap_or(0),
            last_seq: u64::try_from(count.last_seq).unwrap_or(0),
        });
    }
    let codes = |line: &UsageLine| {
        (
            line.mode.as_str(),
            line.outcome.as_str(),
            line.reason.as_str(),
        )
    };
    lines.sort_by(|a, b| {
        let names = (&a.account, &a.group, &a.action).cmp(&(&b.account, &b.group, &b.action));
        names
            .then_with(|| codes(a).cmp(&codes(b)))
            .then_with(|| a.key.cmp(&b.key))
    });
    Ok(lines)
}

#[cfg(test)]
mod tests;
