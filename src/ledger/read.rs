//! Reading a ledger's records, also while another process writes it, and copying it.
//!
//! Owns the SQL that reads. Must never write to a ledger, nor hold a transaction open for longer
//! than one page: a reader that stays keeps the WAL from being copied back.

use crate::ledger::cursor::Cursor;
use crate::ledger::error::{ReadError, io_error, named};
use crate::ledger::header::{self, FileKind};
use crate::ledger::known::Identity;
use crate::ledger::queue::{HoldsFile, LedgerShared};
use crate::ledger::rows::{first_kept, last_seq, let_nobody_copy_at_close, signed, unsigned, word};
use crate::ledger::{LedgerError, rows, running};
use crate::model::{
    AccountId, Action, GroupId, KeyId, Mode, Mono, Outcome, Reason, RequestId, Utc,
};
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};
use serde::Serialize;
use std::fs::{self};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a read waits while the file is being created or recovered by another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One record as the ledger has it. Its JSON has the names and the order of the view `records`
/// (SCHEMA); times are numbers: `admitted_at` in microseconds since the Unix epoch, `start_ns`,
/// `duration_us`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StoredRecord {
    /// The number of the record in the ledger: 1, 2, 3 and so on, never reused.
    pub seq: u64,
    /// The `X-Request-Id` of the call.
    #[serde(serialize_with = "rows::text")]
    pub id: RequestId,
    /// The account that called.
    #[serde(serialize_with = "rows::text")]
    pub account: AccountId,
    /// The group of the action.
    #[serde(serialize_with = "rows::text")]
    pub group: GroupId,
    /// The action that was called.
    #[serde(serialize_with = "rows::text")]
    pub action: Action,
    /// The mode in force at the admission (R3).
    #[serde(serialize_with = "rows::text")]
    pub mode: Mode,
    /// The wall clock at the start.
    #[serde(serialize_with = "rows::micros")]
    pub admitted_at: Utc,
    /// The start on the monotonic clock of the machine (P1).
    #[serde(rename = "start_ns", serialize_with = "rows::nanos")]
    pub start: Mono,
    /// The number of the start of the process that wrote it.
    pub run: u64,
    /// How the call ended.
    #[serde(serialize_with = "rows::text")]
    pub outcome: Outcome,
    /// The HTTP status of the upstream's answer. `None` when there was none.
    pub status: Option<u16>,
    /// Whether the biller may count it.
    pub billable: bool,
    /// The reason why it is not billable. Empty when it is.
    #[serde(serialize_with = "rows::text")]
    pub reason: Reason,
    /// The time from the start to the end of the call, in whole microseconds.
    pub duration_us: u64,
    /// The name of the replica that wrote it. Empty in ledgers of before replicas had names.
    pub replica: String,
    /// The id of the key that proved the account. Empty in records from before keys had ids.
    #[serde(serialize_with = "rows::text")]
    pub key: KeyId,
    /// The epoch of the shared store that decided. `None` where a machine decided alone.
    pub store_epoch: Option<i64>,
    /// The start by the clock of that store, in microseconds since the Unix epoch.
    pub store_start_us: Option<i64>,
}

pub(super) const RECORDS: &str = r#"SELECT seq, id, account, "group", action, mode, admitted_at, start_ns, run, outcome, status,
    billable, reason, duration_us, replica, key, store_epoch, store_start_us FROM records"#;

/// A row of [`RECORDS`].
pub(super) fn record(row: &Row<'_>) -> Result<StoredRecord, ReadError> {
    Ok(StoredRecord {
        seq: unsigned(row, 0)?,
        id: word(row, 1, |text| {
            uuid::Uuid::try_parse(text).ok().map(RequestId)
        })?,
        account: word(row, 2, AccountId::new)?,
        group: word(row, 3, GroupId::new)?,
        action: word(row, 4, Action::new)?,
        mode: word(row, 5, Mode::parse)?,
        admitted_at: Utc(row.get(6)?),
        start: Mono(unsigned(row, 7)?),
        run: unsigned(row, 8)?,
        outcome: word(row, 9, Outcome::parse)?,
        status: row.get(10)?,
        billable: row.get(11)?,
        reason: word(row, 12, Reason::parse)?,
        duration_us: unsigned(row, 13)?,
        replica: row.get(14)?,
        key: word(row, 15, KeyId::new)?,
        store_epoch: row.get(16)?,
        store_start_us: row.get(17)?,
    })
}

/// A read-only connection.
///
/// Of a ledger that this process writes it shows no record before that record is known to be
/// durable. So a call that was told an error is never shown as answered, also not while its late
/// commit waits to be corrected.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
    /// The state of the ledger, where this process writes it.
    written_here: Option<Arc<LedgerShared>>,
}

impl Reader {
    /// Opens an existing ledger. Creates nothing.
    ///
    /// # Errors
    /// Of a ledger that this process writes: [`LedgerError::Suspect`] while it is made sound after
    /// an error of the disk, [`LedgerError::Another`] and [`LedgerError::Older`] while another file
    /// lies at its path.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::try_open(path).map_err(named(path))
    }

    fn try_open(path: &Path) -> Result<Self, LedgerError> {
        let expected = running::expected(path)?;
        match fs::metadata(path) {
            // SQLite would delete the WAL beside an empty file.
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {}
            Ok(_) => return Err(LedgerError::NotALedger),
            // A running gate cannot be told to make a new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(match expected {
                    Some(_) => LedgerError::Replaced(path.to_owned()),
                    None => LedgerError::Missing(path.to_owned()),
                });
            }
            Err(error) => return Err(io_error(path)(error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let_nobody_copy_at_close(&connection)?;
        match header::identify(&connection)? {
            FileKind::Ledger => {}
            FileKind::Older(found) => return Err(LedgerError::Outdated { found }),
            FileKind::Empty => return Err(LedgerError::NotALedger),
        }
        let written_here = match expected {
            Some(expected) => {
                expected.check(&connection, path)?;
                Some(expected.shared)
            }
            None => None,
        };
        Ok(Self {
            connection,
            written_here,
        })
    }

    /// Has `holder` told to let go of the file before it is made sound, where this process does that.
    pub(super) fn is_kept_by(&self, holder: Weak<dyn HoldsFile>) {
        if let Some(shared) = &self.written_here {
            shared.is_held_by(holder);
        }
    }

    /// A transaction for one page of what is read, and the newest seq that it may show.
    pub(super) fn page(&self) -> Result<(Transaction<'_>, i64), rusqlite::Error> {
        // Before the transaction sees the file: a correction that comes in between is not in what
        // it sees.
        let durable = self
            .written_here
            .as_ref()
            .map(|shared| shared.last_seq.load(Ordering::Acquire));
        let page = self.connection.unchecked_transaction()?;
        let newest = match durable {
            // Rolled-up records are durable and correct. Without them a counted hour would be cut
            // in two.
            Some(durable) => page
                .prepare_cached("SELECT max(?1, rolled_up) FROM bounds")?
                .query_row([durable], |row| row.get(0))?,
            None => i64::MAX,
        };
        Ok((page, newest))
    }

    /// At most `limit` records behind the cursor `after`, in order. Fewer: there are no more as
    /// yet.
    ///
    /// # Errors
    /// A cursor that would pass over a record: one of another restore, one whose next record was
    /// deleted, one past the newest. The cursor before all records, 0, is of every restore.
    pub fn records(
        &self,
        after: impl Into<Cursor>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, ReadError> {
        let (page, newest) = self.page()?;
        let after = in_this_restore(&page, after.into())?;
        let first_kept = first_kept(&page)?;
        if after.saturating_add(1) < first_kept {
            return Err(ReadError::CursorTooOld { after, first_kept });
        }
        let last = last_seq(&page)?;
        if after > last {
            return Err(ReadError::CursorAhead { after, last });
        }
        let mut select = page.prepare_cached(&format!(
            "{RECORDS} WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
        ))?;
        let mut rows = select.query(params![signed(after), newest, signed(limit as u64)])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(record(row)?);
        }
        Ok(records)
    }

    /// The cursor behind the record `seq` of this ledger.
    pub fn cursor(&self, seq: u64) -> Result<Cursor, ReadError> {
        let restore_count = restore_count(&self.connection)?;
        Ok(Cursor { restore_count, seq })
    }

    /// The id that the ledger was given when it was made: 32 hex digits.
    pub fn ledger_id(&self) -> Result<String, ReadError> {
        Ok(Identity::read(&self.connection)?.ledger_id)
    }

    /// The newest seq that was ever given; 0 before the first.
    pub fn last_seq(&self) -> Result<u64, ReadError> {
        let (page, newest) = self.page()?;
        Ok(last_seq(&page)?.min(u64::try_from(newest).unwrap_or(0)))
    }

    /// The oldest seq that has not been deleted: the first cursor that can be used is one below it.
    /// One past [`Reader::last_seq`] when nothing is kept.
    pub fn first_kept_seq(&self) -> Result<u64, ReadError> {
        first_kept(&self.connection)
    }
}

pub(super) fn restore_count(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection.query_row("SELECT restore_count FROM identity", [], |row| {
        unsigned(row, 0)
    })
}

/// The seq of a cursor that was given out since the last restore.
pub(super) fn in_this_restore(page: &Connection, cursor: Cursor) -> Result<u64, ReadError> {
    let restore_count = restore_count(page)?;
    if cursor.restore_count == restore_count || cursor.seq == 0 {
        return Ok(cursor.seq);
    }
    if cursor.restore_count > restore_count {
        return Err(ReadError::Foreign {
            cursor,
            restore_count,
        });
    }
    // The newest record up to the cursor that all restores since have left.
    let left: Option<u64> = page.query_row(
        "SELECT min(last_seq) FROM restores WHERE restore_count > ?1",
        [signed(cursor.restore_count)],
        |row| {
            Ok(row
                .get::<_, Option<i64>>(0)?
                .and_then(|seq| u64::try_from(seq).ok()))
        },
    )?;
    let seq = left.unwrap_or(0).min(cursor.seq);
    let on = Cursor { restore_count, seq };
    Err(ReadError::Restored { cursor, on })
}
