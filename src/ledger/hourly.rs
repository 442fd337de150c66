//! An account's calls hour by hour.
//!
//! Owns the split of a count by hours. Must never count otherwise than `count.rs` does: it asks the
//! same rows and records.

use crate::ledger::count::{
    Count, Counts, Hour, Span, UsageLine, add, begin_of, hours, lines, records, rolled_up,
    series_of,
};
use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::FastMap;
use crate::model::{AccountId, Utc};

/// The calls of one hour that are alike in all that a bill asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HourlyLine {
    /// The begin of the hour.
    pub hour: Utc,
    /// The calls of that hour.
    pub line: UsageLine,
}

impl Reader {
    /// The account's calls in the hours that begin in [`from`, `until`), by hour and by all that a
    /// bill asks; in order of hour. Both instants must be the begin of an hour.
    pub fn hourly_usage(
        &self,
        from: Utc,
        until: Utc,
        account: &AccountId,
    ) -> Result<Vec<HourlyLine>, ReadError> {
        let (page, newest) = self.page()?;
        let span = Span {
            from,
            until,
            account: Some(account),
            seqs: (0, newest),
        };
        let mut by_hour: FastMap<i64, Counts> = FastMap::default();
        hours(&page, &span, |row| {
            let Hour {
                hour,
                series,
                calls,
                first_seq,
                last_seq,
            } = row;
            let count = Count {
                calls,
                first_seq,
                last_seq,
            };
            add(by_hour.entry(hour).or_default(), series, count);
        })?;
        // The records that are not rolled up yet.
        let own = series_of(&page, account)?;
        let tail = (rolled_up(&page)? + 1, newest);
        records(&page, &span, tail, |hour, series, count| {
            if own.contains(&series) {
                add(by_hour.entry(hour).or_default(), series, count);
            }
        })?;
        let mut hours: Vec<i64> = by_hour.keys().copied().collect();
        hours.sort_unstable();
        let mut all = Vec::new();
        for hour in hours {
            let counts = by_hour.remove(&hour).unwrap_or_default();
            let hour = begin_of(hour);
            let of_hour = lines(&page, counts)?.into_iter();
            all.extend(of_hour.map(|line| HourlyLine { hour, line }));
        }
        Ok(all)
    }
}
