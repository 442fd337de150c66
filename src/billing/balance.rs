//! The balance of an account for post-paid charges (R17).
//!
//! # Decided
//! - **Debits are the stored statements.** There is no balance that is written: the balance is the
//!   payments in the file less the sum of what was fixed. So a settlement that ends half-way and
//!   goes on cannot debit twice.

use crate::model::Utc;
use rust_decimal::Decimal;

/// The payments by `paid_by`, less the debits of settlements (R16). The account is in arrears
/// exactly when this is below zero (R17): a payment that brings it back to zero brings the service
/// back. What was paid for packs and QPS is no part of it, on either side.
pub(crate) fn balance(
    payments: impl IntoIterator<Item = (Utc, Decimal)>,
    debited: Decimal,
    paid_by: Utc,
) -> Decimal {
    let counted = payments.into_iter().filter(|(at, _)| *at <= paid_by);
    let paid = counted.fold(Decimal::ZERO, |sum, (_, amount)| sum.saturating_add(amount));
    crate::billing::money(paid.saturating_sub(debited))
}

/// Whether a settlement that left this balance stops the service (R17).
pub(crate) fn in_arrears(balance: Decimal) -> bool {
    balance < Decimal::ZERO
}
