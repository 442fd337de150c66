//! The balance of an account for post-paid charges (R17).
//!
//! # Decided
//! - **Debits are the stored statements of the months that were debited.** There is no balance that
//!   is written: it is the payments and manual adjustments in the file less the sum of these. So a
//!   settlement that ends half-way and goes on cannot debit twice.

use crate::model::Utc;
use rust_decimal::Decimal;

/// The payments and manual adjustments by `paid_by`, less the debits of settlements (R16). What was
/// paid for packs and QPS is no part of it, on either side.
pub(crate) fn balance(
    entries: impl IntoIterator<Item = (Utc, Decimal)>,
    debited: Decimal,
    paid_by: Utc,
) -> Decimal {
    let counted = entries.into_iter().filter(|(at, _)| *at <= paid_by);
    let paid = counted.fold(Decimal::ZERO, |sum, (_, amount)| sum.saturating_add(amount));
    crate::billing::money(paid.saturating_sub(debited))
}

/// Whether this balance stops the service (R17): it is below zero by more than the credit limit.
/// `credits`: what the next statement takes back of it. A payment that brings the balance back to
/// the limit brings the service back.
pub(crate) fn in_arrears(balance: Decimal, credits: Decimal, credit_limit: Decimal) -> bool {
    balance.saturating_add(credits) < -credit_limit
}
