//! From counted calls to money, by the contract's rules (R10-R18).
//!
//! Owns the rules: what a pack covers, which tier is reached, what is due, what is paid back. The
//! rules are pure: no clock, no I/O, no floats; [`books`] brings them the orders and the ledger's
//! counts. Must never decide whether a call is admitted, nor change what was fixed.
#![doc = ""]
#![doc = include_str!("CONTRACT.md")]

mod balance;
mod books_error;
mod compute;
mod conflicts;
mod count;
mod entered_late;
mod entries;
mod explain;
mod history;
mod inputs;
mod ladder;
mod late;
mod months;
mod notice;
mod orders;
mod packs;
mod price;
mod refund;
mod report;
mod settlement;
mod statement;
#[cfg(test)]
mod tests;
mod unpaid;
mod verify;
mod window;

pub(crate) mod balances;
pub(crate) mod books;
pub(crate) mod csv;
pub(crate) mod text;

pub use inputs::Inputs;

pub(crate) use balance::{balance, in_arrears};
pub use compute::statement;
pub(crate) use conflicts::conflicts;
pub(crate) use history::amount;
pub(crate) use inputs::{
    BalanceInputs, Calls, GroupInputs, Interval, KeyCalls, LateEntries, LicenceInput,
    ManualAdjustment, MonthAgain, PackOrder, PaymentInput, PriceTerms, QpsOrder, money,
};
pub(crate) use months::{
    closing_day, debit_from, due, furthest, keep_from, last_day_over, newest, next_seal, over_by,
    to_debit, told, unsettled,
};
pub(crate) use notice::{Notice, notices};
pub(crate) use packs::{PackState, boundaries, pack_in_use};
pub(crate) use price::{Goods, Quote, list_price, off_the_list};
pub(crate) use refund::{NotRefundable, Refund, RefundRule, Standing, refund};
pub(crate) use report::{Report, fixed_sum};
pub(crate) use settlement::{SettleError, settle_month};
pub(crate) use statement::{
    Fixed, FreeUse, GroupStatement, PaidKind, PaidLine, PerCallUse, Statement,
};
pub(crate) use verify::{
    VerifiedMonth, check_digests, check_settlement, check_time_zone, verify_statements,
};
pub(crate) use window::{calls_on_none, first_month};
