//! The errors of statements and balances.

use crate::ledger::ReadError;
use crate::model::AccountId;

/// Why a statement or a balance cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored statement is not one that this program understands.
    #[error("the statement of {account} for {month} in the ledger cannot be read: {why}")]
    Stored {
        /// The account of the statement.
        account: AccountId,
        /// The month of the statement, as in `2026-11`.
        month: String,
        /// The reason why it cannot be read.
        why: String,
    },
    /// A month is not settled as it should be.
    #[error("the settlements do not fit: {0}")]
    Month(String),
    /// The catalogue's zone is not the one that months were settled by.
    #[error(
        "the catalogue's time_zone is {now}, and the ledger's months were settled by {settled}: set it back, or give this catalogue a ledger of its own"
    )]
    OtherZone {
        /// The IANA name of the zone in the ledger.
        settled: String,
        /// The IANA name of the zone in the catalogue.
        now: String,
    },
    /// A stored statement is not what it was computed from.
    #[error("the statement of {account} for {month} does not fit: {why}")]
    Mismatch {
        /// The account of the statement.
        account: AccountId,
        /// The month of the statement, as in `2026-11`.
        month: String,
        /// The part that does not fit.
        why: String,
    },
}
