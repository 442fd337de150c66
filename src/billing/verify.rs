//! Computing again what was fixed.
//!
//! Owns what a fixed statement is compared with. Must never write to the ledger, nor take what a
//! stored statement says of itself for proof.

use crate::billing::books::{BooksError, GRACE_US, count, parse, used_after};
use crate::billing::window::SealedWindow;
use crate::billing::{self, Fixed, Inputs, PackOrder, Statement};
use crate::ledger::{ReadError, Reader, Settlement, StatementsDigest, StoredStatement};
use crate::model::Month;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

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
    let inputs: Inputs =
        serde_json::from_str(&stored.inputs).map_err(|error| misfit(error.to_string()))?;
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
    if let Some(pack) = pack_that_differs(reader, stored, &inputs)? {
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

/// The first order whose use before the month is not what the statement before says.
fn pack_that_differs<'i>(
    reader: &Reader,
    stored: &StoredStatement,
    inputs: &'i Inputs,
) -> Result<Option<&'i PackOrder>, BooksError> {
    let Some(before) = reader.last_statement(&stored.account, &stored.month)? else {
        return Ok(None);
    };
    let used = used_after(&parse(&stored.account, &before)?);
    let mut packs = inputs.groups.iter().flat_map(|group| &group.packs);
    // An order that was out of the files for a month is not on the statement before.
    Ok(packs.find(|pack| {
        used.get(&pack.order)
            .is_some_and(|used| *used != pack.used_before)
    }))
}
