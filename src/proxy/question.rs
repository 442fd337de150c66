//! Why a customer's question about its own account is not answered.

use crate::model::AccountId;
use std::fmt;

/// Why a question is not answered. Its `Display` is a sentence for the client, with the remedy. It
/// holds nothing that the client sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadQuestion {
    /// The parameters cannot be read.
    #[error(
        "the parameters cannot be read: write NAME=VALUE&NAME=VALUE in the query, or a JSON object of texts in the body of a POST"
    )]
    Unreadable,
    /// A parameter is not known.
    #[error("a parameter is not known here: there is {0}")]
    Unknown(&'static str),
    /// A parameter is not given.
    #[error("the parameter {0} is missing: give it, with {1}")]
    Missing(&'static str, &'static str),
    /// A parameter is given twice.
    #[error("the parameter {0} is given twice: give it once")]
    Twice(&'static str),
    /// A month that is none.
    #[error("the parameter month is no month from 2000 to 2100: write it as in 2026-11")]
    Month,
    /// Another value than those that there are.
    #[error("the parameter {0} has another value than those there are: {1}")]
    Value(&'static str, &'static str),
    /// What is no cursor.
    #[error(
        "the parameter after is no cursor: give the cursor of the last record that you have, as it came, or leave it out to begin anew"
    )]
    Cursor,
    /// The cursor of another account.
    #[error(
        "the cursor is of another account: give one that this credential's account was given, or leave it out to begin anew"
    )]
    CursorOfAnother,
    /// The cursor of a ledger that was put back to a backup since.
    #[error(
        "the records were put back to a backup since the cursor was given out: forget those that you have beyond the cursor {0}, and go on after that"
    )]
    CursorRestored(CursorText),
    /// The cursor of another ledger.
    #[error(
        "the cursor is of no record here: leave it out to begin anew, and forget the records that you have"
    )]
    CursorForeign,
    /// The records were deleted.
    #[error(
        "records of that month were deleted, as they are after a while: its counts are at /v1/usage, and its bill at /v1/statements"
    )]
    RecordsGone,
    /// The month has no statement of this account.
    #[error(
        "there is no statement of that month: nothing was called, bought or paid in it, or it has not begun; /v1/statements lists those there are"
    )]
    NoStatement,
    /// No refusal of this account has this id.
    #[error(
        "no refused call of this account has this id: give the id of an answer's X-Request-Id, within a day, to the gate that gave it; \
         the calls that were admitted are at /v1/records"
    )]
    NoDecision,
    /// This gate is one of several, and makes no bills.
    #[error(
        "the bills are made elsewhere, because this gate is one of several and knows a part of the calls: ask the provider for them; \
         the calls that this gate admitted are at /v1/usage and /v1/records"
    )]
    BillsElsewhere,
}

/// The cursor of an account, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CursorText {
    /// The account.
    pub account: Option<AccountId>,
    /// The number of restores before it was given out.
    pub restore_count: u64,
    /// The last record that was read.
    pub seq: u64,
}

impl fmt::Display for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.account.as_ref().map_or("ACCOUNT", AccountId::as_str);
        write!(f, "{account}:{}:{}", self.restore_count, self.seq)
    }
}
