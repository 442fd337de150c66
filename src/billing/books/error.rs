//! Why a statement or a balance cannot be told.

use crate::ledger::ReadError;
use crate::model::AccountId;

/// Why the books cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The ledger would not.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored statement is not one that this program understands.
    #[error("the statement of {account} for {month} in the ledger cannot be read: {why}")]
    Stored {
        /// Whose.
        account: AccountId,
        /// Of which month.
        month: String,
        /// What is wrong with it.
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
        /// The ledger's.
        settled: String,
        /// The catalogue's.
        now: String,
    },
    /// A stored statement is not what it was computed from.
    #[error("the statement of {account} for {month} does not fit: {why}")]
    Mismatch {
        /// Whose.
        account: AccountId,
        /// Of which month.
        month: String,
        /// What does not.
        why: String,
    },
}
