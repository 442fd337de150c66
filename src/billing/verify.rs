//! Computing again what was fixed.
//!
//! Owns what a fixed statement is compared with. Must never write to the ledger, nor take what a
//! stored statement says of itself for proof.

use crate::billing::books::{BooksError, GRACE_US};
use crate::billing::count::{calls_between, count};
use crate::billing::entries::states;
use crate::billing::history::{Carried, fixed_months, inputs_of, parse};
use crate::billing::late::{again, charged};
use crate::billing::orders::OrdersOnce;
use crate::billing::window::SealedWindow;
use crate::billing::{self, Calls, Fixed, Inputs, MonthAgain, PackOrder, Statement};
use crate::ledger::{ReadError, Reader, Settlement, StatementsDigest, StoredStatement};
use crate::model::{AccountId, GroupId, Month, Utc};
use jiff::tz::TimeZone;
use std::collections::{BTreeSet, HashMap};

/// Months that were settled by another zone begin and end at other instants: calls would be on two
/// statements, or on none. Any statement tells the zone. The first month that is settled has one,
/// for it is that of the first call.
pub(crate) fn check_time_zone(reader: &Reader, zone: &TimeZone) -> Result<(), BooksError> {
    let Some(stored) = reader.newest_statement()? else {
        return Ok(());
    };
    let fixed = parse(&stored.account, &stored)?;
    if zone.iana_name() == Some(&*fixed.time_zone) {
        return Ok(());
    }
    Err(BooksError::OtherZone {
        settled: fixed.time_zone,
        now: zone.iana_name().unwrap_or("UTC").to_owned(),
    })
}

/// Checks that a month was fixed in order: after the month before, when it was over, and with a day
/// that was sealed at its end or later. A month that is only fixed has no seal yet. Without this
/// check an edit of the ledger could choose the calls that it counts.
pub(crate) fn check_settlement(
    reader: &Reader,
    zone: &TimeZone,
    fixed: &Settlement,
) -> Result<(), BooksError> {
    let month = Month::parse(&fixed.month).map_err(BooksError::Month)?;
    let (_, until) = month.bounds(zone);
    let days = reader.days_from(&month.last_day().to_string())?;
    let its_day = days
        .iter()
        .any(|day| day.last_seq == fixed.through_seq && day.head == fixed.head);
    let before = reader.settlement_before(&fixed.month)?;
    let follows = before.is_none_or(|before| {
        before.month == month.previous().to_string() && before.settled_at.is_some()
    });
    let why = if !follows {
        "the month before is not settled".to_owned()
    } else if !its_day {
        format!(
            "no day that was sealed at its end or later ends with record {} and that head",
            fixed.through_seq
        )
    } else if fixed.fixed_at.0 < until.0.saturating_add(GRACE_US) {
        "it was fixed before it was over".to_owned()
    } else {
        return Ok(());
    };
    Err(BooksError::Month(format!(
        "{month} was not fixed by a gate: {why}. Put a backup back (`tollgate restore`)"
    )))
}

/// A month whose fixed statements fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VerifiedMonth {
    /// The month, as in `2026-11`.
    pub month: String,
    /// The number of its statements.
    pub statements: u64,
    /// The SHA-256 of all of them with their inputs: what settlement logged.
    pub digest: [u8; 32],
}

/// Computes every fixed statement again from its stored inputs, and the counts of the inputs from
/// the ledger, as far as its records are kept. Every account with calls must have a statement. What
/// inputs say of prices and orders is proven by the digest alone, when the one that was logged is
/// at hand. `zone`: the catalogue's.
pub(crate) fn verify_statements(
    reader: &Reader,
    zone: &TimeZone,
) -> Result<Vec<VerifiedMonth>, BooksError> {
    let mut months: Vec<(VerifiedMonth, StatementsDigest)> = Vec::new();
    let (mut month, mut account) = (String::new(), String::new());
    while let Some(stored) = reader.next_statement(&month, &account)? {
        verify_statement(reader, &stored)?;
        if months
            .last()
            .is_none_or(|(last, _)| last.month != stored.month)
        {
            let verified = VerifiedMonth {
                month: stored.month.clone(),
                statements: 0,
                digest: [0; 32],
            };
            months.push((verified, StatementsDigest::default()));
        }
        if let Some((verified, digest)) = months.last_mut() {
            verified.statements += 1;
            digest.add(&stored);
        }
        (month, account) = (stored.month, stored.account.to_string());
    }
    check_time_zone(reader, zone)?;
    everybody_is_billed(reader, zone)?;
    let with_digest = |(verified, digest): (VerifiedMonth, StatementsDigest)| VerifiedMonth {
        digest: digest.end(),
        ..verified
    };
    let mut months: Vec<VerifiedMonth> = months.into_iter().map(with_digest).collect();
    for settled in reader.settlements()? {
        check_settlement(reader, zone, &settled)?;
        let at = months.binary_search_by(|known| known.month.cmp(&settled.month));
        let digest = match at {
            Ok(at) => months[at].digest,
            // Nobody called in it, and nobody ordered.
            Err(at) => {
                let digest = StatementsDigest::default().end();
                let none = VerifiedMonth {
                    month: settled.month.clone(),
                    statements: 0,
                    digest,
                };
                months.insert(at, none);
                digest
            }
        };
        if settled.digest.is_some_and(|sealed| sealed != digest) {
            return Err(BooksError::Month(format!(
                "the statements of {} are not those that were settled: one was changed, added or removed",
                settled.month
            )));
        }
    }
    Ok(months)
}

/// Checks that the statements of the months have the digests that were published when these were
/// settled.
pub(crate) fn check_digests(
    months: &[VerifiedMonth],
    published: &[(Month, [u8; 32])],
) -> Result<(), BooksError> {
    for (month, digest) in published {
        let month = month.to_string();
        let found = months.iter().find(|verified| verified.month == month);
        let why = match found {
            None => "it is not settled".to_owned(),
            Some(found) if found.digest != *digest => {
                format!("its digest is {}", hex::encode(found.digest))
            }
            Some(_) => continue,
        };
        return Err(BooksError::Month(format!(
            "{month} is not what was published with the digest {}: {why}",
            hex::encode(digest)
        )));
    }
    Ok(())
}

/// Checks that each month was settled, from the first one that was fixed to the last one that is
/// settled. Each account that has calls of such a month must have a statement of it.
fn everybody_is_billed(reader: &Reader, zone: &TimeZone) -> Result<(), BooksError> {
    let (Some(first), Some(last)) = (reader.first_settlement()?, reader.last_settled()?) else {
        return Ok(());
    };
    let mut month = Month::parse(&first.month).map_err(BooksError::Month)?;
    let last = Month::parse(&last.month).map_err(BooksError::Month)?;
    while month <= last {
        let text = month.to_string();
        if reader.settlement(&text)?.is_none() {
            return Err(BooksError::Month(format!(
                "an earlier month and a later one than {text} are settled, and it is not"
            )));
        }
        let accounts = match SealedWindow::of(reader, month, zone)?.accounts(reader) {
            // Records that were deleted cannot be counted again.
            Err(ReadError::Pruned { .. }) => BTreeSet::new(),
            accounts => accounts?,
        };
        for account in accounts {
            if reader.stored_statement(&text, &account)?.is_some() {
                continue;
            }
            return Err(BooksError::Mismatch {
                account,
                month: text,
                why: "it is not there, and the ledger has calls for it".to_owned(),
            });
        }
        month = month.next();
    }
    Ok(())
}

fn verify_statement(reader: &Reader, stored: &StoredStatement) -> Result<(), BooksError> {
    let misfit = |why: String| BooksError::Mismatch {
        account: stored.account.clone(),
        month: stored.month.clone(),
        why,
    };
    let fixed = parse(&stored.account, stored)?;
    let inputs = inputs_of(&stored.account, stored)?;
    let again = Statement {
        fixed: fixed.fixed.clone(),
        ..billing::statement(&inputs)
    };
    if again != fixed {
        return Err(misfit("its inputs give another statement".to_owned()));
    }
    if fixed.due.to_string() != stored.due {
        let why = format!("{} was debited, not {}", stored.due, fixed.due);
        return Err(misfit(why));
    }
    if stored.account != inputs.account || stored.month != inputs.month {
        let why = format!("it is of {} for {}", inputs.account, inputs.month);
        return Err(misfit(why));
    }
    let settlement = reader.settlement(&stored.month)?;
    let settlement = settlement.ok_or_else(|| misfit("its month was never settled".to_owned()))?;
    let known = |fixed: &Fixed| {
        fixed.through_seq == settlement.through_seq && fixed.head == hex::encode(settlement.head)
    };
    if !fixed.fixed.as_ref().is_some_and(known) {
        return Err(misfit(
            "it names another record or head than its settlement".to_owned(),
        ));
    }
    let month = Month::parse(&stored.month).map_err(misfit)?;
    let zone = TimeZone::get(&inputs.time_zone).map_err(|error| misfit(error.to_string()))?;
    let (from, until) = month.bounds(&zone);
    if (inputs.from, inputs.until, inputs.counted_until) != (from, until, until) {
        return Err(misfit("its inputs are not of the whole month".to_owned()));
    }
    if let Some(why) = late_entries_differ(reader, stored, &inputs, &zone)? {
        return Err(misfit(why));
    }
    if let Some(pack) = pack_that_differs(reader, stored, &inputs, &zone)? {
        let (order, used) = (&pack.order, pack.used_before);
        return Err(misfit(format!(
            "order {order} had not used {used} before it"
        )));
    }
    let window = SealedWindow::of(reader, month, &zone)?;
    let mut counted = inputs.groups.clone();
    for group in &mut counted {
        (group.intervals, group.late) = (Vec::new(), Vec::new());
        group.keys = Vec::new();
    }
    match count(reader, &window, until, &stored.account, &mut counted) {
        // Records that were deleted cannot be counted again.
        Err(ReadError::Pruned { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) if counted != inputs.groups => {
            Err(misfit("the ledger has other calls for it".to_owned()))
        }
        Ok(()) => Ok(()),
    }
}

/// The first order whose use before the month is not what the statement before says, or what the
/// fixed months used when they were computed again with it.
fn pack_that_differs<'i>(
    reader: &Reader,
    stored: &StoredStatement,
    inputs: &'i Inputs,
    zone: &TimeZone,
) -> Result<Option<&'i PackOrder>, BooksError> {
    let carried = Carried::before(
        reader,
        &stored.account,
        &[],
        &OrdersOnce::default(),
        &stored.month,
        zone,
    )?;
    let mut states = states(&carried);
    for group in &inputs.groups {
        let months = &group.late_entries.months;
        months.iter().for_each(|month| states.add_used(month));
    }
    let mut packs = inputs.groups.iter().flat_map(|group| &group.packs);
    // An order that was out of the files for a month is not on the statement before.
    Ok(packs.find(|pack| {
        let used = states.used.get(&pack.order);
        used.is_some_and(|used| *used != pack.used_before)
    }))
}

/// Why the months that the statement's late entries change cannot have been computed again so
/// (R16); `None` when they fit.
fn late_entries_differ(
    reader: &Reader,
    stored: &StoredStatement,
    inputs: &Inputs,
    zone: &TimeZone,
) -> Result<Option<String>, BooksError> {
    for group in &inputs.groups {
        let late = &group.late_entries;
        let of_refund = |order: &PackOrder| Some((order.order.clone(), order.refunded?));
        let with_refund = late.orders.iter().chain(&late.refunds);
        let refunds: HashMap<String, Utc> = with_refund.filter_map(of_refund).collect();
        let delivered = late.orders.iter().map(|order| order.delivered);
        let Some(first) = delivered.chain(refunds.values().copied()).min() else {
            continue;
        };
        let first = Month::of(first, zone);
        let id = &stored.account;
        let mut months = fixed_months(reader, id, first, &stored.month)?;
        let mut months = months.remove(&group.group).unwrap_or_default();
        for (month, told) in months.iter_mut().zip(&late.months) {
            for cut in &told.intervals {
                let parts = |from, until| Ok::<_, BooksError>(told_between(told, from, until));
                month.cut(cut.from, parts)?;
            }
        }
        let group = &group.group;
        if again(&months, &late.orders, &refunds) != late.months {
            return Ok(Some(format!(
                "the late entries of {group} give other adjustments"
            )));
        }
        for month in &late.months {
            if !is_counted(reader, id, group, month, zone)? {
                let month = &month.month;
                return Ok(Some(format!(
                    "the ledger has other calls for its adjustment of {month}"
                )));
            }
        }
    }
    Ok(None)
}

/// Whether the ledger has the calls of the month's intervals, as far as it can still be asked.
fn is_counted(
    reader: &Reader,
    id: &AccountId,
    group: &GroupId,
    month: &MonthAgain,
    zone: &TimeZone,
) -> Result<bool, BooksError> {
    let name = Month::parse(&month.month).map_err(BooksError::Month)?;
    let window = SealedWindow::of(reader, name, zone)?;
    for interval in &month.intervals {
        let span = (interval.from, interval.until);
        match calls_between(reader, &window, span, id, group) {
            // Records that were deleted cannot be counted again.
            Err(ReadError::Pruned { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(calls) if charged(&calls) == interval.calls => {}
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// The calls of the intervals that lie in the span, by action.
fn told_between(month: &MonthAgain, from: Utc, until: Utc) -> Vec<Calls> {
    let mut sums: Vec<Calls> = Vec::new();
    let inside = month.intervals.iter();
    let inside = inside.filter(|interval| from <= interval.from && interval.until <= until);
    for calls in inside.flat_map(|interval| &interval.calls) {
        match sums.iter_mut().find(|of| of.action == calls.action) {
            Some(sum) => sum.calls = sum.calls.saturating_add(calls.calls),
            None => sums.push(calls.clone()),
        }
    }
    sums
}
