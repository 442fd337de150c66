//! When a month is over, a day can be sealed and a record deleted.
//!
//! Owns the dates. Must never ask a clock.

use crate::billing::books::GRACE_US;
use crate::billing::{SettleError, first_month};
use crate::ledger::{ReadError, Reader, Seal};
use crate::model::{Month, Utc};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::time::Duration;

/// The instant by which days and months are over (R16): now; where the records of other ledgers are
/// collected, an hour after the instant before which every call of each of them is collected, if
/// that comes first. `admitted_before`: that instant of each ledger that is waited for. `None` when
/// it is not known of one: then nothing is over.
pub(crate) fn over_by(
    now: Utc,
    admitted_before: impl IntoIterator<Item = Option<Utc>>,
) -> Option<Utc> {
    let mut marks = admitted_before.into_iter();
    marks.try_fold(now, |by, at| {
        Some(by.min(Utc(at?.0.saturating_add(GRACE_US))))
    })
}

/// The oldest month that is not settled; `None` before the first call.
pub(crate) fn unsettled(reader: &Reader, zone: &TimeZone) -> Result<Option<Month>, ReadError> {
    Ok(match reader.last_settlement()? {
        Some(begun) if begun.settled_at.is_none() => Month::parse(&begun.month).ok(),
        Some(settled) => Month::parse(&settled.month).ok().map(Month::next),
        None => first_month(reader, zone)?,
    })
}

/// The oldest month that is not settled, when it has been over for long enough.
pub(crate) fn due(reader: &Reader, zone: &TimeZone, now: Utc) -> Result<Option<Month>, ReadError> {
    let is_over = |month: &Month| month.bounds(zone).1.0.saturating_add(GRACE_US) <= now.0;
    Ok(unsettled(reader, zone)?.filter(is_over))
}

/// The instant from which the month may be debited: the begin of `settle_day` in the month after
/// it, by the provider's clock (R16).
pub(crate) fn debit_from(month: Month, settle_day: u8, zone: &TimeZone) -> Utc {
    let (_, until) = month.bounds(zone);
    let after = i64::from(settle_day) - 1;
    let day = local_date(until, zone).checked_add(jiff::Span::new().days(after));
    let begin = day.and_then(|day| day.to_zoned_datetime(zone.clone()));
    begin.map_or(Utc(i64::MAX), |begin| {
        Utc(begin.timestamp().as_microsecond())
    })
}

/// The months that are settled and not debited yet, in order, each with the instant from which it
/// is to be debited. One that is settled later than that is debited at once (R16).
pub(crate) fn to_debit(
    reader: &Reader,
    settle_day: u8,
    zone: &TimeZone,
) -> Result<Vec<(Month, Utc)>, ReadError> {
    let settled = reader.not_debited()?.into_iter();
    let settled = settled.filter(|month| month.settled_at.is_some());
    let months = settled.filter_map(|settled| Month::parse(&settled.month).ok());
    Ok(months
        .map(|month| (month, debit_from(month, settle_day, zone)))
        .collect())
}

/// The first instant whose records must stay. It lies within `retain`. Records of the running month
/// stay, those of the one before, which may be disputed (R16), and those of a month that is not
/// settled.
pub(crate) fn keep_from(now: Utc, retain: Duration, unsettled: Month, zone: &TimeZone) -> Utc {
    let retained = now
        .0
        .saturating_sub(i64::try_from(retain.as_micros()).unwrap_or(i64::MAX));
    let stays = Month::of(now, zone).previous().min(unsettled);
    let (stays, _) = stays.bounds(zone);
    Utc(retained).min(stays)
}

/// When the running day can be sealed.
pub(crate) fn next_seal(now: Utc, zone: &TimeZone) -> Utc {
    let next = last_day_over(now, zone).checked_add(jiff::Span::new().days(2));
    let midnight = next.and_then(|day| day.to_zoned_datetime(zone.clone()));
    midnight.map_or(Utc(i64::MAX), |midnight| {
        Utc(midnight.timestamp().as_microsecond() + GRACE_US)
    })
}

/// The newest day that has been over for long enough.
pub(crate) fn last_day_over(now: Utc, zone: &TimeZone) -> Date {
    let then = Utc(now.0.saturating_sub(GRACE_US));
    let today = local_date(then, zone);
    today.yesterday().unwrap_or(today)
}

/// The sealed day up to which the month's calls are counted. It is the first day, from the month's
/// last day on, that is over, and after whose seal no call of the month or an older one came. A day
/// that a wrong clock has sealed may end with any record.
pub(crate) fn closing_day(
    reader: &Reader,
    month: Month,
    zone: &TimeZone,
    now: Utc,
) -> Result<Seal, SettleError> {
    let (_, until) = month.bounds(zone);
    let mut missing = SettleError::Unsealed(month);
    for seal in reader.days_from(&month.last_day().to_string())? {
        let end = day_bounds(&seal.day, zone).map_or(i64::MAX, |(_, end)| end.0);
        let day = seal.day.clone();
        if end.saturating_add(GRACE_US) > now.0 {
            return Err(SettleError::SealedAhead { month, day });
        }
        if reader.spans_after(seal.last_seq, until)?.is_empty() {
            return Ok(seal);
        }
        missing = SettleError::SealedEarly { month, day };
    }
    Err(missing)
}

fn local_date(at: Utc, zone: &TimeZone) -> Date {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).date()
}

/// The latest instant that the ledger knows to have come: the newest call, or the begin of the
/// newest day that is sealed.
pub(crate) fn newest(reader: &Reader, zone: &TimeZone) -> Result<Utc, ReadError> {
    let called = reader.last_admitted()?;
    let sealed = reader.last_day()?;
    let sealed = sealed.and_then(|seal| Some(day_bounds(&seal.day, zone)?.0));
    Ok(called.max(sealed).unwrap_or(Utc(i64::MIN)))
}

/// The latest end that the ledger knows: its name, and the instant.
pub(crate) fn furthest(
    reader: &Reader,
    zone: &TimeZone,
) -> Result<Option<(String, Utc)>, ReadError> {
    let called = reader.last_admitted()?;
    let called = called.map(|at| ("a record".to_owned(), at));
    let sealed = reader.last_day()?.and_then(|seal| {
        let (_, end) = day_bounds(&seal.day, zone)?;
        Some((format!("the sealed day {}", seal.day), end))
    });
    let fixed = reader.last_settlement()?.and_then(|fixed| {
        let (_, end) = Month::parse(&fixed.month).ok()?.bounds(zone);
        Some((format!("the fixed month {}", fixed.month), end))
    });
    let found = [called, sealed, fixed].into_iter().flatten();
    Ok(found.max_by_key(|(_, at)| *at))
}

/// The latest instant that what is sealed and fixed tells of: that is done by a trusted clock
/// alone.
pub(crate) fn told(reader: &Reader, zone: &TimeZone) -> Result<Option<Utc>, ReadError> {
    let sealed = reader.last_day()?;
    let sealed = sealed.and_then(|seal| Some(day_bounds(&seal.day, zone)?.1));
    let fixed = reader.last_settlement()?.map(|fixed| fixed.fixed_at);
    Ok(sealed.max(fixed))
}

/// `[from, until)` of a day as it is sealed; `None` when that is no day.
fn day_bounds(day: &str, zone: &TimeZone) -> Option<(Utc, Utc)> {
    let day: Date = day.parse().ok()?;
    let begin = |day: Date| {
        let midnight = day.to_zoned_datetime(zone.clone()).ok()?;
        Some(Utc(midnight.timestamp().as_microsecond()))
    };
    Some((begin(day)?, begin(day.tomorrow().ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Ledger, LedgerOptions, Record};
    use crate::model::{Clock, *};
    use proptest::prelude::*;
    use std::path::Path;

    fn utc(text: &str) -> Utc {
        Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn records_of_an_unsettled_month_stay_however_short_they_are_retained() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let month = |text| Month::parse(text).unwrap();
        let day = Duration::from_secs(86_400);
        // The 1st in Shanghai, still the 30th in UTC: November's predecessor in Shanghai is
        // October.
        let now = utc("2026-10-31T16:00:00Z");
        let settled = month("2026-11");
        assert_eq!(
            keep_from(now, day, settled, &zone),
            utc("2026-09-30T16:00:00Z")
        );
        let long = keep_from(now, 100 * day, settled, &zone);
        assert_eq!(long, utc("2026-07-23T16:00:00Z"));
        let late = keep_from(now, day, month("2026-08"), &zone);
        assert_eq!(late, utc("2026-07-31T16:00:00Z"));
    }

    #[test]
    fn a_month_is_debited_from_midnight_of_the_settle_day_of_the_month_after_it() {
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        let month = |text| Month::parse(text).unwrap();
        let from = |text, day| debit_from(month(text), day, &shanghai);
        assert_eq!(from("2026-11", 3), utc("2026-12-02T16:00:00Z"));
        assert_eq!(from("2026-12", 1), utc("2026-12-31T16:00:00Z"));
        assert_eq!(from("2027-01", 28), utc("2027-02-27T16:00:00Z"));
        // A day of 23 hours lies before it: local midnight counts, and not so many hours.
        let new_york = TimeZone::get("America/New_York").unwrap();
        let from = debit_from(month("2027-02"), 15, &new_york);
        assert_eq!(from, utc("2027-03-15T04:00:00Z"));
    }

    #[test]
    fn a_day_is_sealed_an_hour_after_its_end_by_the_providers_clock() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let last = |now| last_day_over(utc(now), &zone).to_string();
        assert_eq!(last("2026-11-30T16:59:59Z"), "2026-11-29");
        assert_eq!(last("2026-11-30T17:00:00Z"), "2026-11-30");
        for now in ["2026-11-30T16:59:59Z", "2026-11-30T08:00:00Z"] {
            assert_eq!(next_seal(utc(now), &zone), utc("2026-11-30T17:00:00Z"));
        }
        assert_eq!(
            next_seal(utc("2026-11-30T17:00:00Z"), &zone),
            utc("2026-12-01T17:00:00Z")
        );
        let november = Month::parse("2026-11").unwrap();
        assert_eq!(november.last_day().to_string(), "2026-11-30");
    }

    proptest! {
        /// Against the rule as R16 says it: an hour has gone since the end, by the clock, and every
        /// ledger has passed the end.
        #[test]
        fn a_day_of_many_ledgers_is_over_an_hour_after_its_end_when_each_of_them_has_passed_it(
            // Around the turn of a month, in minutes.
            now in -200_i64..400,
            marks in prop::collection::vec(prop::option::of(-400_i64..400), 0..5),
        ) {
            const MINUTE_US: i64 = 60_000_000;
            let zone = TimeZone::get("Asia/Shanghai").unwrap();
            let end = utc("2026-10-31T16:00:00Z");
            let at = |minutes: i64| Utc(end.0 + minutes * MINUTE_US);
            let by = over_by(at(now), marks.iter().map(|mark| mark.map(at)));
            let is_over = now >= 60 && marks.iter().all(|mark| mark.is_some_and(|mark| mark >= 0));
            let last_day = "2026-10-31".parse::<Date>().unwrap();
            prop_assert_eq!(by.is_some_and(|by| last_day_over(by, &zone) >= last_day), is_over);
            let october = Month::parse("2026-10").unwrap();
            let due_from = october.bounds(&zone).1.0 + GRACE_US;
            prop_assert_eq!(by.is_some_and(|by| due_from <= by.0), is_over);
            prop_assert!(by.is_none_or(|by| by <= at(now)), "a watermark that is ahead ends nothing");
        }
    }

    /// A ledger with calls at these instants.
    fn ledger(dir: &Path, calls: &[&str]) -> Ledger {
        let options = LedgerOptions {
            path: dir.join("ledger.db"),
            durability: Durability::Strict,
            replica: String::new(),
            create: true,
            pending_limit: 100,
            stall_after: Duration::from_secs(1 << 40),
        };
        let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
        for at in calls {
            commit(&ledger, at);
        }
        ledger
    }

    fn commit(ledger: &Ledger, at: &str) {
        let commit = ledger.reserve().unwrap().commit(Record {
            id: RequestId(uuid::Uuid::now_v7()),
            account: AccountId::new("a").unwrap(),
            key: KeyId::new("k").unwrap(),
            group: GroupId::new("g").unwrap(),
            action: Action::new("A").unwrap(),
            mode: Mode::PerCall,
            admitted_at: utc(at),
            start: Mono(1),
            store_start: None,
            outcome: Outcome::Answered,
            status: Some(200),
            reason: Reason::Billable,
            duration: Duration::ZERO,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(commit).unwrap();
    }

    #[test]
    fn the_first_month_is_not_that_of_a_clock_that_was_never_set() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let first = |calls: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let ledger = ledger(dir.path(), calls);
            ledger.seal("2026-01-01").unwrap();
            let reader = Reader::open(ledger.path()).unwrap();
            let first = unsettled(&reader, &zone).unwrap();
            first.map(|month| month.to_string())
        };
        let (never_set, call) = ("1970-01-01T00:00:07Z", "2026-10-31T16:00:00Z");
        assert_eq!(first(&[never_set]), None);
        assert_eq!(first(&[call, never_set]).as_deref(), Some("2026-11"));
    }

    #[test]
    fn a_month_ends_with_no_day_that_is_still_to_come_or_was_sealed_before_its_last_call() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (early, late) = ("2026-10-30T12:00:00Z", "2026-10-31T15:59:59Z");
        let ledger = ledger(dir.path(), &[early]);
        let october = Month::parse("2026-10").unwrap();
        let closes = |now| {
            let reader = Reader::open(ledger.path()).unwrap();
            let day = closing_day(&reader, october, &zone, utc(now));
            day.map(|seal| seal.day).map_err(|error| error.to_string())
        };
        let over = "2026-11-04T17:00:00Z";
        assert!(closes(over).unwrap_err().contains("is not sealed"));
        // By a clock that was ahead; it is set right, and more calls come.
        ledger.seal("2026-11-02").unwrap();
        let ahead = closes("2026-11-02T16:59:59Z").unwrap_err();
        assert!(ahead.contains("2026-11-02 is sealed, which is not over yet"));
        assert_eq!(closes("2026-11-02T17:00:00Z").unwrap(), "2026-11-02");
        commit(&ledger, late);
        ledger.seal("2026-11-03").unwrap();
        let early = closes("2026-11-03T16:59:59Z").unwrap_err();
        assert!(early.contains("2026-11-03 is sealed, which is not over yet"));
        assert_eq!(closes("2026-11-03T17:00:00Z").unwrap(), "2026-11-03");
        commit(&ledger, late);
        assert!(closes(over).unwrap_err().contains("after 2026-11-03"));
        ledger.seal("2026-11-04").unwrap();
        commit(&ledger, "2026-10-31T16:00:00Z");
        assert_eq!(closes(over).unwrap(), "2026-11-04");
    }

    #[test]
    fn a_month_that_was_begun_is_gone_on_with_and_what_ends_last_is_told() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path(), &["2026-11-05T12:00:00Z"]);
        let told = || {
            let reader = Reader::open(ledger.path()).unwrap();
            let (what, end) = furthest(&reader, &zone).unwrap().unwrap();
            let month = unsettled(&reader, &zone).unwrap().unwrap().to_string();
            (what, end, month, newest(&reader, &zone).unwrap())
        };
        let seal = ledger.seal("2026-11-04").unwrap();
        let called = utc("2026-11-05T12:00:00Z");
        assert_eq!(
            told(),
            ("a record".into(), called, "2026-11".into(), called)
        );
        ledger.seal("2026-11-06").unwrap();
        let (begin, end) = (utc("2026-11-05T16:00:00Z"), utc("2026-11-06T16:00:00Z"));
        let sealed = (
            "the sealed day 2026-11-06".into(),
            end,
            "2026-11".into(),
            begin,
        );
        assert_eq!(told(), sealed);
        let month = "2026-11".to_owned();
        let begun = Entry::Settlement {
            month: month.clone(),
            through_seq: seal.last_seq,
            head: seal.head,
            fixed_at: begin,
        };
        ledger.keep(vec![begun]).unwrap();
        let end = utc("2026-11-30T16:00:00Z");
        let fixed = "the fixed month 2026-11".to_owned();
        assert_eq!(told(), (fixed.clone(), end, month.clone(), begin));
        ledger
            .keep(vec![Entry::Settled {
                month,
                at: begin,
                digest: crate::ledger::StatementsDigest::default().end(),
            }])
            .unwrap();
        assert_eq!(told(), (fixed, end, "2026-12".into(), begin));
    }
}
