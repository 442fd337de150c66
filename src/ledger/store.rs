//! The SQL that writes.
//!
//! Owns the one writing connection. Must never decide what happens when it fails.
//!
//! # Decided
//! - **A commit counts only if the ledger's files are still at their paths** (two stats a commit).
//!   SQLite in WAL mode goes on writing into a file that was deleted, and the records would go with
//!   the process.

mod chores;
mod collect;
mod fit;
mod notes;
mod series;
mod sources;

use crate::ledger::chain::{self, Digests, Link, Linked};
use crate::ledger::error::named;
use crate::ledger::files::LedgerFiles;
use crate::ledger::header::{self, FileKind};
use crate::ledger::known::KnownLedger;
use crate::ledger::restores;
use crate::ledger::rows::{let_nobody_copy_at_close, newest_seq};
use crate::ledger::schema;
use crate::ledger::source_chain::SourceLinks;
use crate::ledger::store::series::{SeriesCache, SeriesKey};
use crate::ledger::store::sources::SourceCache;
use crate::ledger::uncertain::Uncertain;
use crate::ledger::{LedgerError, Record, migrate};
use crate::model::{Outcome, Reason, RequestId, Utc};
use rusqlite::OptionalExtension;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use std::path::Path;
use std::time::Duration;

/// How long a write waits for another process that holds the file (an operator with an SQLite
/// client) before it is trouble. Calls wait that long, so it is far below the clients' patience.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The size in bytes to which SQLite cuts the WAL back when a long reader has gone. Below it the
/// WAL keeps its size: a sync of space that was written before costs half.
const WAL_KEPT_BYTES: u32 = 64 << 20;

/// One record. The columns are those of [`Linked`], in order.
const INSERT_RAW: &str =
    "INSERT INTO raw (seq, id, series, admitted_at, start_ns, run, status, duration_us, store_epoch, store_start_us)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// The most records that are kept in memory until they are linked, give or take a commit. A bound,
/// not a size.
const UNLINKED_KEPT: usize = 1 << 15;

/// Records that one step of pruning deletes: less than a millisecond of work.
const PRUNE_STEP: i64 = 512;

/// The open file. After an error it must be dropped and opened again, because only the file knows
/// what was written.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    files: LedgerFiles,
    next_seq: i64,
    /// The newest seq that `hours` has counted.
    rolled_up: i64,
    /// The link after it.
    link: Link,
    /// Rows of `hours` whose first record is not newer are sealed, or about to be.
    frozen: i64,
    /// The newest records that are not linked yet, as they stand in the file: all from the first of
    /// them on. Older ones are read from the file.
    unlinked: Vec<Linked>,
    digests: Digests,
    series: SeriesCache,
    sources: SourceCache,
    source_links: SourceLinks,
}

impl Store {
    /// Opens an existing file; makes it a ledger of this schema when it is empty or older, and
    /// `create`.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, LedgerError> {
        Self::try_open(path, create).map_err(named(path))
    }

    fn try_open(path: &Path, create: bool) -> Result<Self, LedgerError> {
        // Without CREATE: when the volume is gone, an empty ledger in its mount point would hide
        // it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let_nobody_copy_at_close(&connection)?;
        let kind = header::identify(&connection)?;
        match kind {
            FileKind::Ledger => {}
            FileKind::Empty | FileKind::Older(_) if create => {}
            FileKind::Empty => return Err(LedgerError::NotALedger),
            FileKind::Older(found) => return Err(LedgerError::Outdated { found }),
        }
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(LedgerError::NoWal);
        }
        // FULL: one fdatasync of the WAL at each commit. Checkpoints are made by the checkpointer.
        connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
        ))?;
        match kind {
            FileKind::Ledger => {}
            FileKind::Empty => schema::create(&connection)?,
            FileKind::Older(found) => migrate::migrate(&mut connection, path, found)?,
        }
        header::check_objects(&connection)?;
        let (rolled_up, frozen) =
            connection.query_row("SELECT rolled_up, frozen FROM bounds", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        Ok(Self {
            // After the first read: the WAL file is there since.
            files: LedgerFiles::at(path)?,
            next_seq: newest_seq(&connection)? + 1,
            rolled_up,
            frozen,
            link: chain::head(&connection)?.1,
            unlinked: Vec::new(),
            digests: Digests::default(),
            connection,
            series: SeriesCache::default(),
            sources: SourceCache::default(),
            source_links: SourceLinks::default(),
        })
    }

    /// Opens the ledger again after an error. It must hold all that was durable before: another
    /// file may lie at its path now.
    pub(super) fn reopen(path: &Path, known: &KnownLedger) -> Result<Self, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::Replaced(path.to_owned()));
        }
        let store = Self::open(path, false)?;
        store.is_known(known, path)?;
        Ok(store)
    }

    /// Checks that this file is the one that is `known`, with at least what was durable in it.
    pub(super) fn is_known(&self, known: &KnownLedger, path: &Path) -> Result<(), LedgerError> {
        known.check(&self.connection, path)
    }

    /// Notes a start of the process and gives its number.
    pub(super) fn begin_run(&self, replica: &str, now: Utc) -> Result<i64, rusqlite::Error> {
        self.connection.execute(
            "INSERT INTO runs (replica, opened_at) VALUES (?1, ?2)",
            params![replica, now.0],
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    /// When the first process opened it.
    pub(super) fn created_at(&self) -> Result<Utc, rusqlite::Error> {
        let opened_at = "SELECT min(opened_at) FROM runs WHERE source IS NULL";
        self.connection
            .query_row(opened_at, [], |row| Ok(Utc(row.get(0)?)))
    }

    /// The state by which the file is known again when it is opened again.
    pub(super) fn known(&self) -> Result<KnownLedger, rusqlite::Error> {
        KnownLedger::read(&self.connection)
    }

    /// The newest record that is linked, and its link.
    pub(super) fn linked(&self) -> (i64, Link) {
        (self.rolled_up, self.link)
    }

    /// The seq of the next record.
    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// The newest record. It is not the newest seq as long as there is none since a restore.
    pub(super) fn last_record(&self) -> Result<i64, rusqlite::Error> {
        Ok(restores::left_after(&self.connection, self.next_seq)?
            .map_or(self.next_seq - 1, |gap| gap.last_seq))
    }

    /// The number of records that are not rolled up.
    pub(super) fn tail(&self) -> i64 {
        self.next_seq - 1 - self.rolled_up
    }

    /// Whether all records that are not rolled up are in memory.
    fn knows_tail(&self) -> bool {
        let first = self.unlinked.first().map(|record| record.seq);
        let is_whole = i64::try_from(self.unlinked.len()) == Ok(self.tail());
        first == Some(self.rolled_up + 1) && is_whole
    }

    /// Appends `records` in one transaction. An error when they went into a file that is not at its
    /// path any more.
    pub(super) fn commit(&mut self, run: i64, records: &[Record]) -> Result<(), LedgerError> {
        // Prepared once, which rusqlite's own transactions are not: some 5 % of a commit. Where
        // this ends early the connection is dropped, and the transaction with it.
        let execute = |sql| self.connection.prepare_cached(sql)?.execute([]);
        execute("BEGIN IMMEDIATE")?;
        let mut insert = self.connection.prepare_cached(INSERT_RAW)?;
        let mut written = Vec::with_capacity(records.len());
        for (seq, record) in (self.next_seq..).zip(records) {
            let series = self.series.id(&self.connection, &SeriesKey::of(record))?;
            let row = Linked::of(seq, run, series, record);
            insert.execute(params![
                row.seq,
                row.id,
                row.series,
                row.admitted_at,
                row.start_ns,
                row.run,
                row.status,
                row.duration_us,
                row.store.0,
                row.store.1
            ])?;
            written.push(row);
        }
        execute("COMMIT")?;
        self.files.still_there()?;
        self.next_seq += i64::try_from(written.len()).unwrap_or(i64::MAX);
        if self.unlinked.len() > UNLINKED_KEPT {
            self.unlinked.clear();
        }
        self.unlinked.append(&mut written);
        Ok(())
    }

    /// Whether the row `seq` is that of the call `id`: whether a batch that began with it was
    /// committed.
    pub(super) fn holds(&self, seq: i64, id: RequestId) -> Result<bool, rusqlite::Error> {
        Ok(id_of(&self.connection, seq)? == Some(id))
    }

    /// Makes the rows from `first_seq` on say what `records` say, in one transaction. They are the
    /// newest of the ledger: nothing is rolled up while the fate of a batch is in doubt, so `hours`
    /// has not counted them.
    pub(super) fn correct(
        &mut self,
        first_seq: i64,
        records: &[Record],
    ) -> Result<(), rusqlite::Error> {
        // What was written before is not what stands there then.
        self.unlinked.clear();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (seq, record) in (first_seq..).zip(records) {
            let series = self.series.id(&transaction, &SeriesKey::of(record))?;
            transaction
                .prepare_cached("UPDATE raw SET series = ?2, status = ?3 WHERE seq = ?1")?
                .execute(params![seq, series, record.status])?;
        }
        transaction.commit()
    }

    /// Makes the rows of a batch `gate_failed` when it was committed: its calls were told an error.
    /// Gives how many were changed. A batch that is rolled up is left as it is: the process that
    /// did so had settled it before.
    pub(super) fn fail_uncertain(&mut self, batch: &Uncertain) -> Result<usize, rusqlite::Error> {
        self.unlinked.clear();
        if batch.first_seq <= self.rolled_up || !self.holds(batch.first_seq, batch.first)? {
            return Ok(0);
        }
        let records = i64::try_from(batch.records).unwrap_or(i64::MAX);
        let (from, to) = (batch.first_seq, batch.first_seq.saturating_add(records));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let failed = (Outcome::GateFailed.as_str(), Reason::GateFailed.as_str());
        transaction.execute(
            r#"INSERT INTO series (account, "group", action, mode, outcome, reason, billable, key)
               SELECT account, "group", action, mode, ?3, ?4, 0, key FROM series
               WHERE id IN (SELECT series FROM raw WHERE seq >= ?1 AND seq < ?2) ON CONFLICT DO NOTHING"#,
            params![from, to, failed.0, failed.1],
        )?;
        let changed = transaction.execute(
            r#"UPDATE raw SET status = NULL, series = (
                 SELECT failed.id FROM series was JOIN series failed USING (account, "group", action, mode, key)
                 WHERE was.id = raw.series AND failed.outcome = ?3 AND failed.reason = ?4)
               WHERE seq >= ?1 AND seq < ?2"#,
            params![from, to, failed.0, failed.1],
        )?;
        transaction.commit()?;
        Ok(changed)
    }

    /// Copies the WAL into the file as far as no reader stands in the way.
    pub(super) fn checkpoint(&self, how: &str) -> Result<(), rusqlite::Error> {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
    }

    /// Copies the WAL into the file; `false` when a reader or another copy stood in the way, so
    /// that some of it is not copied yet.
    pub(super) fn copies_all(&self) -> Result<bool, rusqlite::Error> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (busy, frames, copied): (i64, i64, i64) =
            self.connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], read)?;
        // While another connection copies, both counts are -1.
        Ok(busy == 0 && frames >= 0 && frames == copied)
    }

    /// The files that are open.
    pub(super) fn files(&self) -> &LedgerFiles {
        &self.files
    }

    /// From here on a commit reaches the page cache and nothing more.
    pub(super) fn sync_nothing(&self) -> Result<(), rusqlite::Error> {
        self.connection.execute_batch("PRAGMA synchronous = OFF")
    }

    /// Closes the file after its WAL was copied, and takes the empty WAL away.
    pub(super) fn close_without_wal(self) -> Result<(), LedgerError> {
        // The one place where SQLite may do so: everything is copied and synced, nothing has
        // failed.
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(self.connection.close().map_err(|(_, error)| error)?)
    }

    #[cfg(test)]
    pub(super) fn synchronous(&self) -> i64 {
        self.connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap()
    }
}

fn id_of(connection: &Connection, seq: i64) -> Result<Option<RequestId>, rusqlite::Error> {
    let id: Option<[u8; 16]> = connection
        .query_row("SELECT id FROM raw WHERE seq = ?1", [seq], |row| row.get(0))
        .optional()?;
    Ok(id.map(|id| RequestId(uuid::Uuid::from_bytes(id))))
}
