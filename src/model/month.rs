//! A calendar month, as bills know it (R16).

use crate::model::Utc;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A calendar month of no time zone yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Month(Date);

impl Month {
    /// The first that [`Month::parse`] reads: no call was admitted before it, whatever a clock that
    /// was never set says.
    pub const FIRST: Self = Self(jiff::civil::date(2000, 1, 1));

    /// Reads `2026-11`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits =
            |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
        let date = text
            .split_once('-')
            .filter(|(year, month)| digits(year, 4) && digits(month, 2))
            .and_then(|(year, month)| Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok())
            // Years in which a zone that the catalogue takes has whole hours.
            .filter(|date| (2000..=2100).contains(&date.year()));
        date.map(Self).ok_or_else(|| {
            format!("`{text}` is not a month from 2000 to 2100; write it as 2026-11")
        })
    }

    /// The month in which `now` falls in `zone`.
    pub fn of(now: Utc, zone: &TimeZone) -> Self {
        let timestamp = jiff::Timestamp::from_microsecond(now.0).unwrap_or_default();
        Self(
            timestamp
                .to_zoned_datetime(zone.clone())
                .date()
                .first_of_month(),
        )
    }

    /// The month before; the same at the beginning of time.
    pub fn previous(self) -> Self {
        Self(
            self.0
                .checked_sub(jiff::Span::new().months(1))
                .unwrap_or(self.0),
        )
    }

    /// The month after; the same at the end of time.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(jiff::Span::new().months(1))
                .unwrap_or(self.0),
        )
    }

    /// The day on which it ends.
    pub fn last_day(self) -> Date {
        self.0.last_of_month()
    }

    /// `[from, until)` in `zone`.
    pub fn bounds(self, zone: &TimeZone) -> (Utc, Utc) {
        let begin = |date: Date| match date.to_zoned_datetime(zone.clone()) {
            Ok(begin) => Utc(begin.timestamp().as_microsecond()),
            Err(_) => Utc(i64::MAX),
        };
        (begin(self.0), begin(self.next().0))
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_at_local_midnight_of_the_first() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let utc = |text: &str| Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let november = Month::parse("2026-11").unwrap();
        assert_eq!(
            november.bounds(&zone),
            (utc("2026-10-31T16:00:00Z"), utc("2026-11-30T16:00:00Z"))
        );
        assert_eq!(
            Month::of(utc("2026-10-31T15:59:59Z"), &zone),
            november.previous()
        );
        assert_eq!(Month::of(utc("2026-10-31T16:00:00Z"), &zone), november);
        assert_eq!(
            Month::parse("2026-01").unwrap().previous().to_string(),
            "2025-12"
        );
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "2026-1",
            "26-11",
            "2026-11-01",
            "+026-11",
            "2026-1a",
            "1900-01",
            "2101-01",
        ] {
            assert!(Month::parse(text).is_err(), "{text}");
        }
    }
}
