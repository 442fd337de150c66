//! How a month is settled: its statements are fixed and closed by a digest (R16). When that is,
//! and when the month is debited, the settler decides.
//!
//! # Decided
//! - **A month is fixed by the seal of its last day**, an hour after its end, so that the head on a
//!   statement is one that was published.

use crate::billing::books::{AccountRef, Books, BooksError};
use crate::billing::{Calls, Fixed, Inputs, statement};
use crate::config::Account;
use crate::ledger::{Entry, Ledger, LedgerError, ReadError, StoreError};
use crate::model::{AccountId, Mode, Month, Reason};
use rust_decimal::Decimal;
use serde_json::json;
use std::collections::BTreeMap;

/// Statements that are written in one transaction.
const BATCH: usize = 100;

/// Why a step could not be done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// A statement cannot be computed.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger cannot be opened for reading.
    #[error(transparent)]
    Open(#[from] LedgerError),
    /// The ledger cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Days are sealed before months are settled.
    #[error("the last day of {0} is not sealed")]
    Unsealed(Month),
    /// A wrong clock has sealed a day that is still to come, and nothing can be sealed before it.
    #[error(
        "{month} is not settled: {day} is sealed, which is not over yet, so calls of {month} may have come after the seal. If the \
         clock is wrong now, set it. If it was wrong when {day} was sealed, stop the limiter and restore the backup from before \
         (`tollgate restore`)"
    )]
    SealedAhead {
        /// The month.
        month: Month,
        /// The day.
        day: String,
    },
    /// A wrong clock has sealed a day too early.
    #[error(
        "{month} is not settled yet: calls of it came after {day} was sealed, by a wrong clock. It is settled with the next day that \
         is sealed"
    )]
    SealedEarly {
        /// The month.
        month: Month,
        /// The day.
        day: String,
    },
    /// Some accounts of the month could not be settled; the others were.
    #[error("{failed} statements of {month} could not be fixed, the first of them: {why}")]
    Statements {
        /// The month.
        month: Month,
        /// The number of accounts.
        failed: usize,
        /// The error of the first of them.
        why: BooksError,
    },
}

/// A month that was settled now.
pub(crate) struct Settled {
    /// The number of statements that were fixed by this call.
    pub statements: u64,
    /// The sum of what is due by them.
    pub due: Decimal,
    /// The SHA-256 over all statements of the month.
    pub digest: [u8; 32],
    /// Over this and all earlier months.
    pub seal: [u8; 32],
}

/// Fixes the statements of a month that was begun. Goes on where an earlier try ended. `accounts` are those of the files; `between` is called before each statement, and its
/// error ends the work.
///
/// # Errors
/// When a statement cannot be fixed; those that could are, and the month stays open.
pub(crate) fn settle_month<'a>(
    ledger: &Ledger,
    books: &Books<'_>,
    accounts: impl Iterator<Item = &'a Account>,
    month: Month,
    fixed: &Fixed,
    mut between: impl FnMut() -> Result<(), SettleError>,
) -> Result<Settled, SettleError> {
    let (text, reader) = (month.to_string(), books.reader);
    let accounts: BTreeMap<&AccountId, &Account> =
        accounts.map(|account| (&account.id, account)).collect();
    let (mut failed, mut first_failure) = (0, None);
    let (mut statements, mut due) = (0, Decimal::ZERO);
    let mut entries = Vec::new();
    for id in books.on_the_books(accounts.values().copied(), month)? {
        let account = accounts.get(&id).copied();
        if account.is_none() {
            tracing::warn!(account = %id, month = text, "has calls and is not in the files any more: they are priced without its orders");
        }
        between()?;
        if reader.stored_statement(&text, &id)?.is_some() {
            continue;
        }
        let sold = AccountRef { id: &id, account };
        match books.inputs(sold, month).and_then(priced) {
            Ok(inputs) => {
                let mut statement = statement(&inputs);
                statement.fixed = Some(fixed.clone());
                statements += 1;
                due += statement.due;
                entries.push(Entry::Statement {
                    month: text.clone(),
                    account: id,
                    due: statement.due.to_string(),
                    inputs: json!(inputs).to_string(),
                    statement: json!(statement).to_string(),
                });
            }
            Err(error) => {
                failed += 1;
                first_failure.get_or_insert(error);
            }
        }
        if entries.len() >= BATCH {
            ledger.keep(std::mem::take(&mut entries))?;
        }
    }
    ledger.keep(entries)?;
    if let Some(why) = first_failure {
        return Err(SettleError::Statements { month, failed, why });
    }
    let digest = reader.statements_digest(&text)?;
    ledger.keep(vec![Entry::Settled {
        month: text.clone(),
        at: books.now,
        digest,
    }])?;
    let seal = reader.month_seal(&text)?.unwrap_or_default();
    Ok(Settled {
        statements,
        due,
        digest,
        seal,
    })
}

/// A statement that leaves out what is to be charged must not be fixed.
fn priced(inputs: Inputs) -> Result<Inputs, BooksError> {
    let unpriced = inputs.groups.iter().find(|group| {
        let counted = group.intervals.iter().flat_map(|interval| &interval.calls);
        let mut calls = counted.chain(&group.late);
        let is_charged =
            |calls: &Calls| calls.mode == Mode::PerCall && calls.reason == Reason::Billable;
        group.terms.is_none() && calls.any(is_charged)
    });
    match unpriced {
        None => Ok(inputs),
        Some(group) => Err(BooksError::Mismatch {
            why: format!(
                "{} is not in the catalogue, or free there, and has calls that are charged: put its terms back until the \
                 month is settled",
                group.group
            ),
            account: inputs.account,
            month: inputs.month,
        }),
    }
}

#[cfg(test)]
mod tests;
