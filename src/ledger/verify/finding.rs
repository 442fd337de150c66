//! What a verification finds: that everything fits, or the first thing that does not.

use crate::ledger::error::ReadError;

/// The result of a verification in which everything fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The seq of the oldest record that is kept.
    pub first_seq: u64,
    /// The seq of the newest record that is linked. Records beyond it came after the last roll-up.
    pub last_seq: u64,
    /// The number of records that were linked again.
    pub records: u64,
    /// The number of records that are not linked yet. Their contents were not checked.
    pub unlinked: u64,
    /// The link after the record `last_seq`.
    pub head: [u8; 32],
    /// The number of sealed days whose heads these records give.
    pub days: u64,
}

/// The first thing that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A row does not fit.
    #[error("{table} {key}: {why}")]
    Row {
        /// The name of the table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// The reason why it does not fit.
        why: String,
    },
    /// The chain does not pass through the checkpoint.
    #[error("the checkpoint is not in the chain: {0}")]
    Checkpoint(String),
    /// The ledger could not be read to the end.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<rusqlite::Error> for Mismatch {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error.into())
    }
}

pub(super) fn misfit<T>(
    table: &'static str,
    key: impl ToString,
    why: impl Into<String>,
) -> Result<T, Mismatch> {
    Err(Mismatch::Row {
        table,
        key: key.to_string(),
        why: why.into(),
    })
}

pub(super) fn key(hour: i64, series: i64) -> String {
    format!("hour {hour} series {series}")
}

pub(super) fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
