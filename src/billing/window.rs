//! The window of a statement: the calls that are on it.
//!
//! Owns the rule that each record is on exactly one. A settlement fixes a month with the newest seq
//! that it has seen. So a record is on the statement of its own month when it was there before that
//! month was fixed. Otherwise it is a late call of the next month that was fixed after it. Its age
//! decides nothing: a call that was dated by a wrong clock is billed like any other. Must never
//! look at the wall clock.
//!
//! Up to schema 3 a statement had no late calls from before the two months that went before it.
//! Months that were fixed then stay so, and calls that they left out are on none: [`calls_on_none`]
//! counts them.

use crate::billing::books_error::BooksError;
use crate::ledger::{ReadError, Reader, Settlement, UsageLine};
use crate::model::{AccountId, Month, Utc};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The calls of one month's statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealedWindow {
    /// The month.
    pub(super) from: Utc,
    pub(super) until: Utc,
    /// The newest seq that the statement knows.
    through: u64,
    /// The newest seq that the statement before knows; `None` when that is not fixed, and takes
    /// what is late itself.
    after: Option<u64>,
    /// Late calls from before this are left out.
    late_from: Utc,
}

impl SealedWindow {
    /// The window of the month's statement, as it was fixed or as it stands.
    pub(super) fn of(reader: &Reader, month: Month, zone: &TimeZone) -> Result<Self, ReadError> {
        let text = month.to_string();
        let fixed = reader.settlement(&text)?;
        let before = reader.settlement_before(&text)?;
        let mut through = fixed.as_ref().map_or(u64::MAX, |fixed| fixed.through_seq);
        let after = match &before {
            Some(before) if before.month == month.previous().to_string() => {
                Some(before.through_seq)
            }
            Some(_) => None,
            // The first month of all takes what is older, which no other one will.
            None if fixed.is_some() => Some(0),
            None if reader.first_settlement()?.is_none() => first_month(reader, zone)?
                .is_none_or(|first| month <= first)
                .then_some(0),
            // It is older than the first one that was fixed: what was admitted in it is late.
            None => {
                through = 0;
                None
            }
        };
        let (from, until) = month.bounds(zone);
        let limit = fixed.as_ref().and_then(|fixed| fixed.late_months);
        Ok(Self {
            from,
            until,
            through,
            after,
            late_from: match (limit, before) {
                (None, _) => Utc(i64::MIN),
                (Some(months), Some(_)) => late_from(month, months, zone),
                // Once nothing was late before the first month was fixed.
                (Some(_), None) => from,
            },
        })
    }

    /// The spans of time in which the late calls lie, and the seqs of their records.
    fn late(&self, reader: &Reader) -> Result<Vec<Asked>, ReadError> {
        let Some(after) = self.after else {
            return Ok(Vec::new());
        };
        let seqs = after.saturating_add(1)..=self.through;
        let mut asked = Vec::new();
        for (from, until) in reader.spans_after(after, self.from)? {
            if until > self.late_from {
                let from = from.max(self.late_from);
                asked.push((from, until, seqs.clone()));
            }
        }
        Ok(asked)
    }

    /// The account's calls of the month that were admitted in [`from`, `until`).
    pub(super) fn calls(
        &self,
        reader: &Reader,
        id: &AccountId,
        (from, until): (Utc, Utc),
    ) -> Result<Vec<UsageLine>, ReadError> {
        reader.usage(from, until, Some(id), 0..=self.through)
    }

    /// The account's late calls, lines that are alike side by side.
    pub(super) fn late_calls(
        &self,
        reader: &Reader,
        id: &AccountId,
    ) -> Result<Vec<UsageLine>, ReadError> {
        let mut lines = Vec::new();
        for (from, until, seqs) in self.late(reader)? {
            lines.extend(reader.usage(from, until, Some(id), seqs)?);
        }
        // In the order of one span, because what is stored of a fixed month is in it.
        lines.sort_by(|a, b| {
            let codes = |line: &UsageLine| {
                [
                    line.mode.as_str(),
                    line.outcome.as_str(),
                    line.reason.as_str(),
                ]
            };
            (&a.group, &a.action, codes(a)).cmp(&(&b.group, &b.action, codes(b)))
        });
        Ok(lines)
    }

    /// The accounts that have calls on the month's statement.
    pub(super) fn accounts(&self, reader: &Reader) -> Result<BTreeSet<AccountId>, ReadError> {
        let called = reader.called(self.from, self.until, 0..=self.through)?;
        let mut accounts: BTreeSet<AccountId> = called.into_iter().collect();
        for (from, until, seqs) in self.late(reader)? {
            accounts.extend(reader.called(from, until, seqs)?);
        }
        Ok(accounts)
    }
}

type Asked = (Utc, Utc, RangeInclusive<u64>);

/// The first month that has a statement: that of the oldest call that is not dated by a clock which
/// was never set. `None` before the first such call.
pub(crate) fn first_month(reader: &Reader, zone: &TimeZone) -> Result<Option<Month>, ReadError> {
    let (earliest, _) = Month::FIRST.bounds(zone);
    let first = reader.first_admitted(earliest)?;
    Ok(first.map(|first| Month::of(first, zone)))
}

/// The number of calls of the account, or of all, that are on no statement and come on none. These
/// are late ones that a month left out which was fixed before schema 4. Of deleted records, those
/// are counted of which the roll-up tells.
pub(crate) fn calls_on_none(
    reader: &Reader,
    zone: &TimeZone,
    account: Option<&AccountId>,
) -> Result<u64, BooksError> {
    let mut calls = 0;
    for Settlement {
        month,
        through_seq,
        late_months,
        ..
    } in reader.limited_settlements()?
    {
        let before = reader.settlement_before(&month)?;
        let month = Month::parse(&month).map_err(BooksError::Month)?;
        let limit = match &before {
            Some(_) => late_from(month, late_months.unwrap_or(0), zone),
            None => month.bounds(zone).0,
        };
        let after = before.map_or(0, |before| before.through_seq);
        for (from, until) in reader.spans_after(after, limit)? {
            let seqs = after.saturating_add(1)..=through_seq;
            match reader.usage(from, until, account, seqs) {
                Ok(lines) => calls += lines.iter().map(|line| line.calls).sum::<u64>(),
                Err(ReadError::Pruned { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(calls)
}

/// The begin of the month that lies so many before `month`.
fn late_from(month: Month, months: u32, zone: &TimeZone) -> Utc {
    let first = (0..months).fold(month, |month, _| month.previous());
    first.bounds(zone).0
}
