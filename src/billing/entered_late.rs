//! Payments and manual adjustments that the statement of their month does not have, because they
//! were entered or changed after it was fixed (R16).
//!
//! Owns how they are found and named. Must never change a bill: they count in the balance anyway.

use crate::billing::books::{Books, BooksError};
use crate::billing::{Statement, money};
use crate::config::Account;
use crate::model::{AccountId, Local, Month, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// What is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryKind {
    /// Money that was received.
    Payment,
    /// A correction that no rule makes.
    Adjustment,
}

/// An entry that is dated in a fixed month, and that its statement does not have so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct EnteredLate {
    /// Whose.
    pub account: AccountId,
    /// The month, as in `2026-11`.
    pub month: String,
    /// What it is.
    pub kind: EntryKind,
    /// The order of a payment, the id of an adjustment.
    pub id: String,
    /// When it counts from.
    pub at: Local,
    /// The amount in the files.
    pub amount: Decimal,
    /// The amount on the statement; `None` when it is not there.
    pub shown: Option<Decimal>,
}

impl fmt::Display for EnteredLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account, month, id, ..
        } = self;
        let kind = match self.kind {
            EntryKind::Payment => "payment",
            EntryKind::Adjustment => "adjustment",
        };
        match self.shown {
            None => write!(
                f,
                "{account}: {kind} {id} is dated in {month}, which is fixed: it changes the balance and stands on no statement; \
                 date it in the running month"
            ),
            Some(shown) => write!(
                f,
                "{account}: {kind} {id} is {} on the statement of {month}, which is fixed, and {} in the files: the balance has \
                 what the files say; put it back as it was, and correct by a manual adjustment",
                money(shown),
                money(self.amount)
            ),
        }
    }
}

impl Books<'_> {
    /// The account's entries that the fixed statements of their months do not have, by time; those
    /// of `[from, until)`.
    pub(crate) fn entered_late(
        &self,
        account: &Account,
        (from, until): (Utc, Utc),
    ) -> Result<Vec<EnteredLate>, BooksError> {
        let payments = account.payments.iter();
        let payments = payments.map(|p| (p.at, EntryKind::Payment, &p.order, p.amount));
        let adjustments = account.adjustments.iter();
        let adjustments = adjustments.map(|a| (a.at, EntryKind::Adjustment, &a.id, a.amount));
        let entries = payments.chain(adjustments);
        let mut entries: Vec<_> = entries
            .filter(|(at, ..)| from <= *at && *at < until)
            .collect();
        entries.sort_by_key(|(at, ..)| *at);
        let zone = &self.catalog.time_zone;
        let mut months: BTreeMap<Month, Option<Option<Statement>>> = BTreeMap::new();
        let mut late = Vec::new();
        for (at, kind, id, amount) in entries {
            let month = Month::of(at, zone);
            let fixed = match months.entry(month) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let fixed = self.reader.settlement(&month.to_string())?;
                    // While a month is being fixed some of its statements are still to be stored.
                    let is_fixed = fixed.is_some_and(|fixed| fixed.settled_at.is_some());
                    unknown.insert(match is_fixed {
                        true => Some(self.stored(&account.id, month)?),
                        false => None,
                    })
                }
            };
            let Some(statement) = fixed else {
                continue;
            };
            let shown = statement.as_ref().and_then(|of| shown(of, kind, id));
            if shown != Some(amount) {
                late.push(EnteredLate {
                    account: account.id.clone(),
                    month: month.to_string(),
                    kind,
                    id: id.to_string(),
                    at: Local::new(at, zone),
                    amount,
                    shown,
                });
            }
        }
        Ok(late)
    }
}

/// The amount of the entry on the statement.
fn shown(statement: &Statement, kind: EntryKind, id: &str) -> Option<Decimal> {
    let balance = statement.balance.as_ref()?;
    match kind {
        EntryKind::Payment => {
            let line = balance.payments.iter().find(|line| line.order == id);
            line.map(|line| line.amount)
        }
        EntryKind::Adjustment => {
            let line = balance.adjustments.iter().find(|line| line.id == id);
            line.map(|line| line.amount)
        }
    }
}
