//! Counting: one durable record for each admitted call (P3).
//!
//! Owns what a record is, which calls are billable, and the ledger that keeps both. Must never decide
//! whether a call is admitted, what it costs, or how an answer looks.

pub mod ledger;
pub mod record;
pub mod report;

pub use ledger::{
    ClockWatch, CloseError, Commit, Committed, Cursor, Debit, Entry, Ledger, LedgerError,
    LedgerOptions, LedgerStats, Mismatch, NotDurable, ReadError, Reader, Restored, Seal,
    Settlement, Slot, StatementsDigest, StoreError, StoredNotice, StoredRecord, StoredStatement,
    Trouble, UsageLine, Verified, backup, create, restore,
};
pub use record::{Record, billable};
pub use report::usage_table;
