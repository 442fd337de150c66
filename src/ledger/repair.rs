//! Making a ledger sound again after an error of the disk, and at a start after a process that did
//! not end well.
//!
//! Owns the order of the steps, and that each of them ends with a sync that was not told of an
//! error. Must never decide what was durable from what it reads back alone, nor run while a
//! connection of this process is open.
//!
//! After a failed sync the page cache shows what the disk may not have, and marks it clean, so that
//! no later sync writes it. Hence everything that counts is written again: the WAL byte for byte,
//! then all of its pages into the database. Ledger files are read, written and synced through
//! `std::fs` and SQLite only.
//!
//! # Decided
//! - **A failed commit is not durable, whatever the file shows afterwards.** After a failed sync
//!   the page cache marks as clean what the disk does not have, so a row that is read back proves
//!   nothing. After an error of the disk the ledger is written again as a whole, WAL and database.
//!   It is compared with what the process knows before a call is recorded.

use crate::ledger::LedgerError;
use crate::ledger::chain::{self, Digests, Link, Linked};
use crate::ledger::error::io_error;
use crate::ledger::files::{length, suffixed, sync_directory};
use crate::ledger::header::{self, FileKind};
use crate::ledger::known::KnownLedger;
use crate::ledger::rows::let_nobody_copy_at_close;
use crate::ledger::running::{self, FactGuard};
use crate::ledger::schema::LINK_VERSION;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a repair waits for queries of this process that have the ledger open, before it is
/// tried anew.
const HELD_OPEN: Duration = Duration::from_millis(500);

/// Records that are linked again between two lines of the log.
const PROGRESS: i64 = 1_000_000;

/// A repair that goes on where an earlier try of it ended.
///
/// As long as there is one, this process refuses new queries of the ledger. Their answers could not
/// be trusted, and one after the other they would hold it open for ever.
#[derive(Debug)]
pub(super) struct Repair {
    path: PathBuf,
    /// The WAL as it was read, until it is known to be on the disk: a later read may find less.
    wal: Option<Vec<u8>>,
    rewritten: bool,
    _suspect: FactGuard,
}

impl Repair {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            wal: None,
            rewritten: false,
            _suspect: running::suspect(path),
        }
    }

    /// Makes the ledger sound, or says why it is not yet. What is `known` to be durable must be
    /// found in it.
    pub(super) fn run(&mut self, known: Option<&KnownLedger>) -> Result<(), LedgerError> {
        let path = &self.path.clone();
        let wal_bytes = length(&suffixed(path, "-wal"))?;
        // SQLite would delete the WAL beside an empty file.
        if wal_bytes > 0 && length(path)? == 0 {
            return Err(LedgerError::LoneWal(suffixed(path, "-wal")));
        }
        self.rewrite_wal(path)?;
        let connection = open_alone(path)?;
        // What is no ledger is left as it is.
        let kind = header::identify(&connection)?;
        copy_wal(&connection)?;
        sync_emptied(path)?;
        if matches!(kind, FileKind::Ledger) {
            if let Some(known) = known {
                known.check(&connection, path)?;
            }
            link_again(&connection)?;
        }
        Ok(connection.close().map_err(|(_, error)| error)?)
    }

    /// Writes the bytes of the WAL to the places where they are, and syncs them.
    fn rewrite_wal(&mut self, path: &Path) -> Result<(), LedgerError> {
        if self.rewritten {
            return Ok(());
        }
        let path = suffixed(path, "-wal");
        let Some(mut file) = open_wal(&path)? else {
            return Ok(());
        };
        let wal = match &self.wal {
            Some(wal) => wal,
            None => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(io_error(&path))?;
                self.wal.insert(bytes)
            }
        };
        file.write_all_at(wal, 0)
            .and_then(|()| file.sync_all())
            .map_err(io_error(&path))?;
        (self.wal, self.rewritten) = (None, true);
        Ok(())
    }
}

/// Repairs a ledger whose WAL was left behind: nobody knows what the process before this one was
/// told of its disk.
pub(super) fn at_start(path: &Path) -> Result<(), LedgerError> {
    let left = length(&suffixed(path, "-wal"))?;
    if left == 0 {
        return Ok(());
    }
    tracing::info!(
        bytes = left,
        "the last process left a WAL behind: it is written again and copied into the ledger"
    );
    match Repair::new(path).run(None) {
        Err(LedgerError::HeldOpen) => {
            tracing::warn!(
                "another program holds the ledger open, so what the last process left could not be checked; end that program \
                 and restart the gate if its disk has failed"
            );
            Ok(())
        }
        done => done,
    }
}

fn open_wal(path: &Path) -> Result<Option<File>, LedgerError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// A connection that shares nothing with an earlier one. In this mode SQLite keeps its index of the
/// WAL in its own memory. So it reads and checks every frame, and takes none for copied.
fn open_alone(path: &Path) -> Result<Connection, LedgerError> {
    // Longer tries than SQLite's own: a lock that is asked for outright does not wait.
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..HELD_OPEN.as_millis() / PAUSE.as_millis() {
        match try_open_alone(path) {
            Err(error) if is_busy(&error) => std::thread::sleep(PAUSE),
            opened => return Ok(opened?),
        }
    }
    Err(LedgerError::HeldOpen)
}

fn try_open_alone(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // The waiting is done by who calls: some 5 s a try, which is the default, would be minutes.
    connection.busy_timeout(Duration::ZERO)?;
    let_nobody_copy_at_close(&connection)?;
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Writes every page of the WAL into the database and syncs it, then empties the WAL.
fn copy_wal(connection: &Connection) -> Result<(), LedgerError> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    match busy {
        0 => Ok(()),
        _ => Err(LedgerError::HeldOpen),
    }
}

fn sync_emptied(path: &Path) -> Result<(), LedgerError> {
    let wal = suffixed(path, "-wal");
    if let Some(file) = open_wal(&wal)? {
        file.sync_all().map_err(io_error(&wal))?;
    }
    sync_directory(path)
}

/// A step of the roll-up as it was linked.
#[derive(Clone, Copy)]
struct Step {
    last_seq: i64,
    link: Link,
    version: i64,
}

/// Links the records since the last sealed day again. Pages that the disk has lost would give other
/// links.
fn link_again(connection: &Connection) -> Result<(), LedgerError> {
    let (first_kept, rolled_up): (i64, i64) =
        connection.query_row("SELECT first_kept, rolled_up FROM bounds", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let sealed: i64 =
        connection.query_row("SELECT coalesce(max(last_seq), 0) FROM days", [], |row| {
            row.get(0)
        })?;
    let from = sealed.max(first_kept - 1);
    let mut link = stored_link(connection, from)?;
    let mut digests = Digests::default();
    let mut expected = from + 1;
    let mut steps = connection.prepare(
        "SELECT last_seq, link, version FROM links WHERE last_seq > ?1 ORDER BY last_seq",
    )?;
    let mut steps = steps.query_map([from], |row| {
        let (last_seq, link, version) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Step {
            last_seq,
            link,
            version,
        })
    })?;
    let mut next_step = || -> Result<Option<Step>, LedgerError> { Ok(steps.next().transpose()?) };
    let mut step = next_step()?;
    let mut select = connection.prepare(chain::LINKED)?;
    let mut rows = select.query([from, i64::MAX])?;
    while let Some(row) = rows.next()? {
        let record = Linked::read(row)?;
        let seq = record.seq;
        while let Some(next_seq) = beyond_a_restore(connection, expected, step, &link)? {
            (expected, step) = (next_seq, next_step()?);
        }
        let version = step.map_or(LINK_VERSION, |step| step.version);
        let texts = digests.of(connection, &record, version)?;
        let Some(texts) = texts.filter(|_| seq == expected) else {
            return Err(LedgerError::Broken(expected));
        };
        link = record.link(&link, &texts, version);
        if let Some(ended) = step.filter(|step| step.last_seq == seq) {
            if ended.link != link {
                return Err(LedgerError::Broken(seq));
            }
            step = next_step()?;
        }
        if (seq - from) % PROGRESS == 0 {
            tracing::info!(records = seq - from, "linking the ledger's records again");
        }
        expected += 1;
    }
    while let Some(next_seq) = beyond_a_restore(connection, expected, step, &link)? {
        (expected, step) = (next_seq, next_step()?);
    }
    // A step whose last record is not there, or records that are rolled up and in no step.
    match step {
        Some(_) => Err(LedgerError::Broken(expected)),
        None if expected <= rolled_up => Err(LedgerError::Broken(expected)),
        None => Ok(()),
    }
}

/// The link after the record `seq`, as it is stored.
fn stored_link(connection: &Connection, seq: i64) -> Result<Link, LedgerError> {
    let stored = connection
        .prepare_cached("SELECT link FROM links WHERE last_seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    match stored {
        Some(link) => Ok(link),
        None if seq == 0 => Ok(chain::ORIGIN),
        None => Err(LedgerError::Broken(seq)),
    }
}

/// The seq that follows when the ledger was restored before `expected` was given: `step` is the gap
/// then, and its link is the one before it.
fn beyond_a_restore(
    connection: &Connection,
    expected: i64,
    step: Option<Step>,
    link: &Link,
) -> Result<Option<i64>, LedgerError> {
    let Some(Step { last_seq, .. }) = step.filter(|step| step.link == *link) else {
        return Ok(None);
    };
    let gap = connection
        .prepare_cached("SELECT next_seq FROM restores WHERE last_seq = ?1 AND next_seq = ?2")?
        .query_row([expected - 1, last_seq + 1], |row| row.get(0))
        .optional()?;
    Ok(gap)
}
