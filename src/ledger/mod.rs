//! The ledger: every admitted call, durable and readable with SQL (P3), and what was billed from
//! it.
//!
//! Owns the SQLite file, its lock and the one thread that writes it; the only rusqlite. Must never
//! block a call on the disk, or hold more than `pending_limit` records. Must never bill a call
//! whose client was told an error, or change a record or a statement that was fixed.
//!
//! The file itself is described at the end of this page.
//!
//! # Checkpoints
//! A commit appends to the WAL and syncs that alone. A checkpoint copies the WAL back into the
//! file, which costs milliseconds. So a thread and a connection of its own do it while commits go
//! on: when the WAL has grown by some 4 MiB, or after a second of rest. Under load new commits
//! arrive meanwhile, and SQLite starts the WAL over only when all of it was copied: so the writer
//! then copies the little that came since. Otherwise the WAL would grow for ever. No connection
//! copies the WAL when it is closed, save the last one of an orderly end.
//!
//! # Errors of the disk
//! After `SQLITE_IOERR`, `SQLITE_CORRUPT` or `SQLITE_NOTADB` of a commit, a roll-up, a seal, a step
//! of pruning or a checkpoint the ledger is suspect. Then calls are refused, and nothing is written
//! or copied until `repair` has made it sound, which it tries each second. It also runs at a start
//! that finds a WAL which is not empty, for nobody knows what the disk told the process before. A
//! disk that does not answer within `stall_after` is trouble as well, without a repair: what it
//! answers in the end decides.
#![doc = ""]
#![doc = include_str!("SCHEMA.md")]

mod backup;
mod bills;
mod chain;
mod checkpoint;
mod collected;
mod collecting;
mod commit;
mod count;
mod cursor;
mod error;
mod event;
mod export;
mod files;
mod fixed;
mod handle;
mod header;
mod hourly;
mod job;
mod known;
mod licences;
mod licensing;
mod migrate;
mod options;
mod pace;
mod part;
mod pending;
mod queue;
mod range;
mod range_reader;
mod read;
mod record;
mod record_csv;
mod repair;
mod restore;
mod restores;
mod rows;
mod running;
mod schema;
mod seal;
mod source_chain;
mod sources;
mod stall;
mod store;
mod told;
mod turned_away;
mod turns;
mod uncertain;
mod used;
mod verify;
mod watch;
mod writer;

pub use bills::Entry;
pub use collected::{Collected, CollectedBy, OutboxCursor, SourceLedger, Watermark};
pub use handle::Ledger;
pub(crate) use licences::{LicenceDay, LicenceEntry, LicenceTrial, TrialPlace};
pub use queue::Committed;
pub(crate) use range::is_ledger_id;
pub use range::{Gap, Range, RangeError};
pub use range_reader::RangeReader;
pub use read::{Reader, StoredRecord};
pub use record::Record;
pub(crate) use turned_away::TurnedAwayLine;
pub use verify::Mismatch;
pub use watch::ClockWatch;

pub(crate) use backup::backup;
pub(crate) use backup::uncorrected_note;
pub(crate) use bills::{Seal, StoreError};

pub(crate) use commit::{Commit, NotDurable};
pub(crate) use count::UsageLine;
pub(crate) use cursor::Cursor;
pub(crate) use error::{CloseError, LedgerError, ReadError, Trouble};
pub(crate) use event::{EventEntry, event_id};
pub(crate) use export::{RecordPage, RecordsOf};
pub(crate) use fixed::{AccountMonth, Debit, Settlement, StatementsDigest, StoredStatement};
pub(crate) use handle::{LedgerStats, create};
pub(crate) use hourly::HourlyLine;
pub use options::LedgerOptions;
pub(crate) use queue::Slot;
pub(crate) use record::billable;
pub(crate) use record_csv::RECORD_COLUMNS;
pub(crate) use restore::restore;
pub(crate) use told::{EventState, StoredEvent, Told};
pub(crate) use used::KeysUsed;
pub(crate) use verify::Verified;
