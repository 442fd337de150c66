//! Payments and manual adjustments in which the files and the fixed statements differ, because they
//! were entered, changed or removed after a month was fixed (R16).
//!
//! Owns how they are found, and the words. Must never change a bill: the balance has what the files
//! say anyway.
//!
//! # Decided
//! - **Both are walked.** An entry that the files do not have any more is found by its statement
//!   alone. One of before the first fixed month is on no statement: only the balance with which the
//!   account's first statement begins tells of it, and of its amount.

use crate::billing::books::{Books, BooksError};
use crate::billing::history::balance_of;
use crate::billing::{BalanceInputs, balance, money};
use crate::config::Account;
use crate::model::{AccountId, Local, Month, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is entered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryKind {
    /// Money that was received.
    Payment,
    /// A correction that no rule makes.
    Adjustment,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payment => "payment",
            Self::Adjustment => "adjustment",
        })
    }
}

/// An entry that the files have otherwise than the statement of a fixed month, or that one of the
/// two does not have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct EnteredLate {
    /// Whose.
    pub account: AccountId,
    /// The fixed month, as in `2026-11`.
    pub month: String,
    /// What it is.
    pub kind: EntryKind,
    /// The order of a payment, the id of an adjustment.
    pub id: String,
    /// When it counts from by the files; `None` when they do not have it.
    pub at: Option<Local>,
    /// The amount in the files; `None` when it is not there.
    pub amount: Option<Decimal>,
    /// When it counts from by the statement; `None` when it is not there.
    pub shown_at: Option<Local>,
    /// The amount on the statement; `None` when it is not there.
    pub shown: Option<Decimal>,
}

impl fmt::Display for EnteredLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "put it back as it was, and correct by a manual adjustment";
        let Self {
            account,
            month,
            kind,
            id,
            ..
        } = self;
        let at = |at: &Option<Local>| match at {
            Some(at) if self.at != self.shown_at => format!(" at {at}"),
            _ => String::new(),
        };
        let (is_at, was_at) = (at(&self.at), at(&self.shown_at));
        write!(f, "{account}: {kind} {id} is ")?;
        match (self.shown.map(money), self.amount.map(money)) {
            (None, _) => write!(
                f,
                "dated in {month}, which is fixed without it: it changes the balance and not the statement; date it in the running \
                 month"
            ),
            (Some(shown), Some(amount)) => write!(
                f,
                "{shown}{was_at} on the statement of {month}, which is fixed, and {amount}{is_at} in the files: the balance has \
                 what the files say; {REMEDY}"
            ),
            (Some(shown), None) => write!(
                f,
                "{shown}{was_at} on the statement of {month}, which is fixed, and not in the files any more: the balance is \
                 without it; {REMEDY}"
            ),
        }
    }
}

/// The balance with which an account's first statement begins is not what the files say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct EnteredBefore {
    /// Whose.
    pub account: AccountId,
    /// The fixed month of that statement, as in `2026-11`.
    pub month: String,
    /// The balance before it by the files.
    pub before: Decimal,
    /// The balance before it on the statement.
    pub shown: Decimal,
    /// The entry of the files that makes the difference alone, when there is one.
    pub entry: Option<String>,
}

impl fmt::Display for EnteredBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, month, .. } = self;
        let entry = self.entry.iter();
        let entry: String = entry
            .map(|entry| format!(" ({entry} is the difference)"))
            .collect();
        write!(
            f,
            "{account}: the balance before {month} is {} by the files, and {} on the statement of {month}, which is fixed: entries \
             of earlier months were made, changed or removed since{entry}; put them back as they were, and date what is new in \
             the running month",
            money(self.before),
            money(self.shown)
        )
    }
}

/// In what the files and an account's fixed statements differ.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct LateFound {
    /// Entry by entry, by month.
    pub entries: Vec<EnteredLate>,
    /// What lies before the first statement.
    pub before: Option<EnteredBefore>,
}

type EntryKey = (EntryKind, String);
type When = (Utc, Decimal);
/// What a statement shows of the balance, with its month and the instant at which this begins.
type Shown = (String, Utc, BalanceInputs);

impl Books<'_> {
    /// The months of which every statement is stored. While a month is being fixed some are still
    /// to be stored.
    pub(crate) fn settled_months(&self) -> Result<BTreeSet<String>, BooksError> {
        let fixed = self.reader.settlements()?.into_iter();
        let settled = fixed.filter(|month| month.settled_at.is_some());
        Ok(settled.map(|settled| settled.month).collect())
    }

    /// In what the account's entries in the files and on its fixed statements differ: in any of the
    /// `settled` months, or in `only` this one.
    pub(crate) fn entered_late(
        &self,
        account: &Account,
        settled: &BTreeSet<String>,
        only: Option<Month>,
    ) -> Result<LateFound, BooksError> {
        let only = only.map(|month| month.to_string());
        let is_asked = |month: &str| only.as_ref().is_none_or(|only| only == month);
        if !settled.iter().any(|month| is_asked(month)) {
            return Ok(LateFound::default());
        }
        let mut shown = self.shown(&account.id, settled, only.as_deref())?;
        let files = entries(account);
        let before = match shown.first() {
            Some(first) if is_asked(&first.0) => self.before(account, &files, settled, first)?,
            _ => None,
        };
        shown.retain(|(month, ..)| is_asked(month));
        let zone = &self.catalog.time_zone;
        let compared = compare(&files, &shown, zone, |month| {
            settled.contains(month) && is_asked(month)
        });
        let local = |at| Local::new(at, zone);
        let late =
            |((month, (kind, id)), (is, was)): (_, (Option<When>, Option<When>))| EnteredLate {
                account: account.id.clone(),
                month,
                kind,
                id,
                at: is.map(|(at, _)| local(at)),
                amount: is.map(|(_, amount)| amount),
                shown_at: was.map(|(at, _)| local(at)),
                shown: was.map(|(_, amount)| amount),
            };
        Ok(LateFound {
            entries: compared.into_iter().map(late).collect(),
            before,
        })
    }

    /// What the account's statements of `settled` months show of the balance, in order: all of
    /// them, or the first and that of `only`. Those of earlier versions show nothing.
    fn shown(
        &self,
        id: &AccountId,
        settled: &BTreeSet<String>,
        only: Option<&str>,
    ) -> Result<Vec<Shown>, BooksError> {
        let mut shown = Vec::new();
        let mut after = String::new();
        while let Some((month, inputs)) = self.reader.next_inputs(id, &after)? {
            if settled.contains(&month)
                && let Some((from, balance)) = balance_of(id, &month, &inputs)?
            {
                shown.push((month.clone(), from, balance));
                if only.is_some() {
                    break;
                }
            }
            after = month;
        }
        if let Some(only) = only
            && shown.first().is_none_or(|(first, ..)| first != only)
            && let Some(stored) = self.reader.stored_statement(only, id)?
            && let Some((from, balance)) = balance_of(id, only, &stored.inputs)?
        {
            shown.push((only.to_owned(), from, balance));
        }
        Ok(shown)
    }

    /// Whether the account's first statement begins with the balance that the files give.
    fn before(
        &self,
        account: &Account,
        files: &[(EntryKey, When)],
        settled: &BTreeSet<String>,
        (month, from, shown): &Shown,
    ) -> Result<Option<EnteredBefore>, BooksError> {
        let zone = &self.catalog.time_zone;
        let first = Month::parse(month).map_err(BooksError::Month)?;
        let charged = self.charged_before(&account.id, first)?;
        let before = Utc(from.0.saturating_sub(1));
        let is_before = |(at, _): &When| *at <= before;
        let entries = || files.iter().filter(|(_, when)| is_before(when));
        let by_files = balance(entries().map(|(_, when)| *when), charged, before);
        let difference = by_files.saturating_sub(shown.before);
        // One that is dated in a fixed month is named by itself. It may have been entered before
        // this statement was fixed, or afterwards.
        let is_named = |at: Utc| settled.contains(&Month::of(at, zone).to_string());
        let named = entries().filter(|(_, (at, _))| is_named(*at));
        let named: Decimal = named.map(|(_, (_, amount))| *amount).sum();
        if difference.is_zero() || difference == named {
            return Ok(None);
        }
        let mut alone =
            entries().filter(|(_, (at, amount))| !is_named(*at) && *amount == difference);
        let told = |((kind, id), (at, _)): &(EntryKey, When)| {
            format!("{kind} {id} of {}", Local::new(*at, zone))
        };
        Ok(Some(EnteredBefore {
            account: account.id.clone(),
            month: month.clone(),
            before: by_files,
            shown: shown.before,
            entry: alone.next().map(told),
        }))
    }
}

/// The account's entries in the files.
fn entries(account: &Account) -> Vec<(EntryKey, When)> {
    let payments = account.payments.iter();
    let payments = payments.map(|p| ((EntryKind::Payment, p.order.to_string()), (p.at, p.amount)));
    let adjustments = account.adjustments.iter();
    let adjustments =
        adjustments.map(|a| ((EntryKind::Adjustment, a.id.to_string()), (a.at, a.amount)));
    payments.chain(adjustments).collect()
}

/// The entries on a statement.
fn lines(shown: &BalanceInputs) -> impl Iterator<Item = (EntryKey, When)> {
    let payments = shown.payments.iter();
    let payments = payments.map(|p| ((EntryKind::Payment, p.order.clone()), (p.at, p.amount)));
    let adjustments = shown.adjustments.iter();
    let adjustments =
        adjustments.map(|a| ((EntryKind::Adjustment, a.id.clone()), (a.at, a.amount)));
    payments.chain(adjustments)
}

/// The entries that differ, by the month that is fixed: as in the files, and as on its statement.
fn compare(
    files: &[(EntryKey, When)],
    shown: &[Shown],
    zone: &TimeZone,
    is_fixed: impl Fn(&str) -> bool,
) -> BTreeMap<(String, EntryKey), (Option<When>, Option<When>)> {
    let in_files: BTreeMap<&EntryKey, When> =
        files.iter().map(|(key, when)| (key, *when)).collect();
    let mut differ = BTreeMap::new();
    let mut on_statements = BTreeSet::new();
    for (month, _, balance) in shown {
        for (key, was) in lines(balance) {
            let is = in_files.get(&key).copied();
            if is != Some(was) {
                differ.insert((month.clone(), key.clone()), (is, Some(was)));
            }
            on_statements.insert(key);
        }
    }
    for (key, is) in files {
        // One that was dated elsewhere is named by the statement that has it.
        if on_statements.contains(key) {
            continue;
        }
        let month = Month::of(is.0, zone).to_string();
        if is_fixed(&month) {
            differ.insert((month, key.clone()), (Some(*is), None));
        }
    }
    differ
}
