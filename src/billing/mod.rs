//! From counted calls to money, by the contract's rules (R10-R18).
//!
//! Owns the rules: what a pack covers, which tier is reached, what is due, what is paid back. The
//! rules are pure: no clock, no I/O, no floats; [`books`] brings them the orders and the ledger's
//! counts. Must never decide whether a call is admitted, nor change what was fixed.
#![doc = ""]
#![doc = include_str!("CONTRACT.md")]

mod balance;
mod balances;
mod explain;
mod inputs;
mod ladder;
mod months;
mod notice;
mod packs;
mod price;
mod refund;
mod settlement;
mod statement;
#[cfg(test)]
mod tests;
mod verify;
mod window;

pub mod books;
pub mod text;

pub use balance::{balance, in_arrears};
pub use inputs::{Calls, GroupInputs, Inputs, Interval, PackOrder, PriceTerms, QpsOrder, money};
pub use months::{
    closing_day, due, furthest, keep_from, last_day_over, newest, next_seal, told, unsettled,
};
pub use notice::{Notice, notices};
pub use packs::{PackState, boundaries, pack_in_use};
pub use price::{Goods, NotSold, Period, Quote, pack_price, qps_price};
pub use refund::{NotRefundable, Refund, refund};
pub use settlement::{SettleError, Settled, settle_month};
pub use statement::{
    ActionCalls, Fixed, FreeUse, GroupStatement, NotBillable, PackUse, PaidKind, PaidLine,
    PerCallUse, PostpaidUse, Statement, StatementLine, statement,
};
pub use verify::{
    VerifiedMonth, check_digests, check_settlement, check_time_zone, verify_statements,
};
pub use window::{calls_on_none, first_month};
