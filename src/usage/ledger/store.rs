//! The SQL that writes.
//!
//! Owns the one writing connection. Must never decide what happens when it fails.

use super::chain::{self, Link, MARK_BYTES};
use super::schema::{self, Kind};
use super::{Entry, LedgerError, Seal, io_error, suffixed};
use crate::usage::Record;
use crate::words::{AccountId, Action, GroupId, Mode, Outcome, Reason, RequestId, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a write waits for another process that holds the file (an operator with an SQLite
/// client) before it is trouble. Calls wait that long, so it is far below the clients' patience.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// What the WAL file is cut back to after a reader that held it open for long has gone, in bytes. Below
/// this it is kept: overwriting written space makes a sync twice as cheap (PERFORMANCE).
const WAL_KEPT_BYTES: u32 = 64 << 20;

/// Series whose ids are remembered. All accounts in all groups fit; it is a bound, not a size.
const SERIES_CACHED: usize = 1 << 17;

/// Rows that one step of pruning looks at: less than a millisecond of work.
const PRUNE_STEP: u32 = 500;

/// Records that a migration links at a time.
const MIGRATION_STEP: i64 = 4_096;

type SeriesKey = (AccountId, GroupId, Action, Mode, Outcome, Reason);
type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Faults that tests inject. Nothing of it exists in the program.
#[cfg(test)]
#[derive(Default, Debug)]
pub(super) struct Faults {
    /// Fail this many commits before they reach the file.
    pub(super) before_commit: std::sync::atomic::AtomicU32,
    /// Report this many commits as failed although they are in the file.
    pub(super) after_commit: std::sync::atomic::AtomicU32,
    /// Fail this many steps of the roll-up before they reach the file.
    pub(super) before_roll_up: std::sync::atomic::AtomicU32,
    /// Report this many steps of the roll-up as failed although they are in the file.
    pub(super) after_roll_up: std::sync::atomic::AtomicU32,
    /// Fail this many times to open the file.
    pub(super) open: std::sync::atomic::AtomicU32,
    /// Pages that the file may have; 0: no limit. A full disk.
    pub(super) max_page_count: std::sync::atomic::AtomicU32,
}

#[cfg(test)]
impl Faults {
    fn strike(count: &std::sync::atomic::AtomicU32) -> Result<(), rusqlite::Error> {
        use std::sync::atomic::Ordering::SeqCst;
        match count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
                Some("injected by a test".into()),
            )),
            Err(_) => Ok(()),
        }
    }
}

/// The files that were opened. A file that was deleted or replaced takes writes as before and
/// forgets them with the process; SQLite does not look in WAL mode.
#[derive(Debug)]
struct Files([(PathBuf, Inode); 2]);

/// Device (major, minor) and number.
type Inode = (u32, u32, u64);

impl Files {
    fn at(path: &Path) -> Result<Self, LedgerError> {
        let with_inode = |path: PathBuf| Ok::<_, LedgerError>((path.clone(), inode(&path)?));
        let wal = with_inode(suffixed(path, "-wal"))?;
        Ok(Self([with_inode(path.to_owned())?, wal]))
    }

    /// Two system calls a commit, some 1 % of what it costs.
    fn still_there(&self) -> Result<(), LedgerError> {
        for (path, opened) in &self.0 {
            if inode(path)? != *opened {
                return Err(LedgerError::Replaced(path.clone()));
            }
        }
        Ok(())
    }
}

fn inode(path: &Path) -> Result<Inode, LedgerError> {
    // The number alone: a file whose times were asked for has to get new ones, and its inode dirty,
    // with each write from then on.
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)
        .map_err(|error| io_error(path)(error.into()))?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// The open file. After an error it must be dropped and opened again, because only the file knows
/// what was written.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    files: Files,
    next_seq: i64,
    /// The newest seq that `hours` has counted and the chain holds.
    rolled_up: i64,
    /// Of that record.
    link: Link,
    series: FastMap<SeriesKey, i64>,
    kinds: Kinds,
    #[cfg(test)]
    faults: std::sync::Arc<Faults>,
}

impl Store {
    /// Opens an existing file; makes it a ledger when it is empty and `create`.
    pub(super) fn open(
        path: &Path,
        create: bool,
        #[cfg(test)] faults: std::sync::Arc<Faults>,
    ) -> Result<Self, LedgerError> {
        #[cfg(test)]
        Faults::strike(&faults.open)?;
        // Without CREATE: when the volume is gone, an empty ledger in its mount point would hide it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let kind = schema::identify(&connection)?;
        if kind != Kind::Ledger && !create {
            return Err(LedgerError::NotALedger);
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
            Kind::Empty => schema::create(&connection)?,
            Kind::Older => migrate(&connection, path)?,
            Kind::Ledger => {}
        }
        let (rolled_up, link) = connection.query_row(
            "SELECT rolled_up, link FROM bounds JOIN links ON last_seq = rolled_up",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(Self {
            // After the first read: the WAL file is there since.
            files: Files::at(path)?,
            next_seq: last_seq(&connection)? + 1,
            rolled_up,
            link,
            connection,
            series: FastMap::default(),
            kinds: Kinds::default(),
            #[cfg(test)]
            faults,
        })
    }

    /// Notes a start of the process and gives its number.
    pub(super) fn begin_run(&self, replica: &str, now: Utc) -> Result<i64, rusqlite::Error> {
        self.connection.execute(
            "INSERT INTO runs (replica, opened_at) VALUES (?1, ?2)",
            params![replica, now.0],
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    /// The seq of the next record.
    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// How many records are not rolled up.
    pub(super) fn tail(&self) -> i64 {
        self.next_seq - 1 - self.rolled_up
    }

    /// Appends `records` in one transaction. An error when they went into a file that is not at its path
    /// any more.
    pub(super) fn commit(&mut self, run: i64, records: &[Record]) -> Result<(), LedgerError> {
        #[cfg(test)]
        self.limit_pages()?;
        // Prepared once, which rusqlite's own transactions are not: some 5 % of a commit. Where this ends early
        // the connection is dropped, and the transaction with it.
        let execute = |sql| self.connection.prepare_cached(sql)?.execute([]);
        execute("BEGIN IMMEDIATE")?;
        let mut seq = self.next_seq;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO raw (seq, id, series, admitted_at, start_ns, run, status, duration_us)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for record in records {
            let series = series_id(&self.connection, &mut self.series, record)?;
            insert.execute(params![
                seq,
                record.id.0.as_bytes(),
                series,
                record.admitted_at.0,
                i64::try_from(record.start.0).unwrap_or(i64::MAX),
                run,
                record.status,
                i64::try_from(record.duration.as_micros()).unwrap_or(i64::MAX),
            ])?;
            seq += 1;
        }
        #[cfg(test)]
        Faults::strike(&self.faults.before_commit)?;
        execute("COMMIT")?;
        #[cfg(test)]
        Faults::strike(&self.faults.after_commit)?;
        self.files.still_there()?;
        self.next_seq = seq;
        Ok(())
    }

    /// Whether the row `seq` is that of the call `id`: whether a batch that began with it was committed.
    pub(super) fn holds(&self, seq: i64, id: RequestId) -> Result<bool, rusqlite::Error> {
        let found: Option<[u8; 16]> = self
            .connection
            .query_row("SELECT id FROM raw WHERE seq = ?1", [seq], |row| row.get(0))
            .optional()?;
        Ok(found.as_ref() == Some(id.0.as_bytes()))
    }

    /// Makes the rows from `first_seq` on say what `records` say, in one transaction. They are the newest of the
    /// ledger: nothing is rolled up while the fate of a batch is in doubt, so `hours` has not counted them.
    pub(super) fn correct(
        &mut self,
        first_seq: i64,
        records: &[Record],
    ) -> Result<(), rusqlite::Error> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (seq, record) in (first_seq..).zip(records) {
            let series = series_id(&transaction, &mut self.series, record)?;
            transaction
                .prepare_cached("UPDATE raw SET series = ?2, status = ?3 WHERE seq = ?1")?
                .execute(params![seq, series, record.status])?;
        }
        transaction.commit()
    }

    /// Adds up to `step` records, the oldest that are not in `hours` and in the chain yet, to both, and notes how far it
    /// came in the same transaction: whatever happens to it, `hours` and the tail together are the recount of all records.
    pub(super) fn roll_up(&mut self, step: i64) -> Result<(), rusqlite::Error> {
        #[cfg(test)]
        self.limit_pages()?;
        let until = (self.next_seq - 1).min(self.rolled_up + step);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let link = link_and_count(
            &transaction,
            &mut self.kinds,
            self.rolled_up,
            self.link,
            until,
            true,
        )?;
        transaction
            .prepare_cached("UPDATE bounds SET rolled_up = ?1")?
            .execute([until])?;
        #[cfg(test)]
        Faults::strike(&self.faults.before_roll_up)?;
        transaction.commit()?;
        #[cfg(test)]
        Faults::strike(&self.faults.after_roll_up)?;
        (self.rolled_up, self.link) = (until, link);
        Ok(())
    }

    /// Seals `day` with all that is rolled up; gives what is stored when it was sealed before.
    pub(super) fn seal(&mut self, day: &str) -> Result<Seal, rusqlite::Error> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT INTO days (day, first_seq, last_seq, head)
             SELECT ?1, coalesce((SELECT max(last_seq) + 1 FROM days), first_kept), ?2, ?3 FROM bounds
             WHERE true ON CONFLICT DO NOTHING",
            params![day, self.rolled_up, self.link],
        )?;
        let seal = transaction.query_row(
            "SELECT day, first_seq, last_seq, head FROM days WHERE day = ?1",
            [day],
            Seal::read,
        )?;
        transaction.commit()?;
        Ok(seal)
    }

    /// Writes the entries in one transaction. What is there already stays as it is.
    pub(super) fn keep(&mut self, entries: &[Entry]) -> Result<(), rusqlite::Error> {
        #[cfg(test)]
        self.limit_pages()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let execute = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
            transaction.prepare_cached(sql)?.execute(params).map(|_| ())
        };
        for entry in entries {
            match entry {
                Entry::Settlement {
                    month,
                    through_seq,
                    head,
                    fixed_at,
                } => execute(
                    "INSERT INTO settlements (month, through_seq, head, fixed_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                    params![month, signed(*through_seq), head, fixed_at.0],
                )?,
                Entry::Statement {
                    month,
                    account,
                    due,
                    inputs,
                    statement,
                } => execute(
                    "INSERT INTO statements (month, account, due, inputs, statement) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO NOTHING",
                    params![month, account.as_str(), due, inputs, statement],
                )?,
                Entry::Settled { month, at } => execute(
                    "UPDATE settlements SET settled_at = ?2 WHERE month = ?1 AND settled_at IS NULL",
                    params![month, at.0],
                )?,
                Entry::Notice {
                    id,
                    account,
                    order,
                    raised_at,
                    body,
                } => execute(
                    r#"INSERT INTO notices (id, account, "order", raised_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT DO NOTHING"#,
                    params![id, account.as_str(), order, raised_at.0, body],
                )?,
                Entry::NoticeSent { id, at } => execute(
                    "UPDATE notices SET sent_at = ?2 WHERE id = ?1 AND sent_at IS NULL",
                    params![id, at.0],
                )?,
            }
        }
        transaction.commit()
    }

    /// Deletes the oldest records in one small step: those of the oldest step of the chain, when all of them were
    /// admitted before `keep_from`. So what is kept can always be verified from the link before it. `true` when there
    /// may be more to delete.
    pub(super) fn prune(&mut self, keep_from: Utc) -> Result<bool, rusqlite::Error> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let steps: Vec<i64> = transaction
            .prepare_cached("SELECT last_seq FROM links ORDER BY last_seq LIMIT 2")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let [base, last] = steps[..] else {
            // Nothing left of what is rolled up, and perhaps something of what is not yet.
            return Ok(self.next_seq - 1 > self.rolled_up);
        };
        let newest: Option<i64> = transaction
            .prepare_cached("SELECT max(admitted_at) FROM raw WHERE seq <= ?1")?
            .query_row([last], |row| row.get(0))?;
        if newest.is_some_and(|newest| newest >= keep_from.0) {
            return Ok(false);
        }
        transaction
            .prepare_cached(
                "DELETE FROM raw WHERE seq <= min(?1, (SELECT min(seq) FROM raw) + ?2 - 1)",
            )?
            .execute(params![last, PRUNE_STEP])?;
        let first_left: Option<i64> = transaction
            .prepare_cached("SELECT min(seq) FROM raw WHERE seq <= ?1")?
            .query_row([last], |row| row.get(0))?;
        if first_left.is_none() {
            transaction
                .prepare_cached("DELETE FROM links WHERE last_seq = ?1")?
                .execute([base])?;
        }
        transaction
            .prepare_cached("UPDATE bounds SET first_kept = ?1")?
            .execute([first_left.unwrap_or(last + 1)])?;
        transaction.commit()?;
        Ok(true)
    }

    /// Copies the WAL into the file as far as no reader stands in the way.
    pub(super) fn checkpoint(&self, how: &str) -> Result<(), rusqlite::Error> {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
    }

    #[cfg(test)]
    fn limit_pages(&self) -> Result<(), rusqlite::Error> {
        let pages = self
            .faults
            .max_page_count
            .load(std::sync::atomic::Ordering::SeqCst);
        let pages = if pages == 0 { u32::MAX - 1 } else { pages };
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }

    #[cfg(test)]
    pub(super) fn synchronous(&self) -> i64 {
        self.connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap()
    }
}

/// The half hashes of [`chain::kind`] by series and run.
pub(super) type Kinds = FastMap<(i64, i64), [u8; 16]>;

/// Links the records after `after`, whose link is `link`, up to `until`; and counts them in `hours` when `count`. Gives the
/// link of the last.
fn link_and_count(
    connection: &Connection,
    kinds: &mut Kinds,
    after: i64,
    mut link: Link,
    until: i64,
    count: bool,
) -> Result<Link, rusqlite::Error> {
    let mut hours: FastMap<(i64, i64), (i64, i64, i64)> = FastMap::default();
    let mut marks = Vec::new();
    let mut select = connection.prepare_cached(
        "SELECT seq, id, series, admitted_at, start_ns, run, status, duration_us FROM raw
         WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
    )?;
    let mut rows = select.query([after, until])?;
    while let Some(row) = rows.next()? {
        let (series, row) = chained(connection, kinds, row)?;
        link = row.link(&link);
        marks.extend_from_slice(&link[..MARK_BYTES]);
        let hour = Utc(row.admitted_at).hour();
        let (calls, _, last) = hours.entry((hour, series)).or_insert((0, row.seq, row.seq));
        (*calls, *last) = (*calls + 1, row.seq);
    }
    connection
        .prepare_cached("INSERT INTO links (last_seq, link, marks) VALUES (?1, ?2, ?3)")?
        .execute(params![until, link, marks])?;
    if count {
        // In the order of the key: neighbours go into the same page.
        let mut hours: Vec<_> = hours.into_iter().collect();
        hours.sort_unstable();
        let mut upsert = connection.prepare_cached(
            "INSERT INTO hours (hour, series, calls, first_seq, last_seq) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (hour, series) DO UPDATE SET calls = calls + excluded.calls, last_seq = excluded.last_seq",
        )?;
        for ((hour, series), (calls, first, last)) in hours {
            upsert.execute([hour, series, calls, first, last])?;
        }
    }
    Ok(link)
}

/// A row of `seq, id, series, admitted_at, start_ns, run, status, duration_us` as it goes into the chain, and its series.
pub(super) fn chained(
    connection: &Connection,
    kinds: &mut Kinds,
    row: &rusqlite::Row<'_>,
) -> Result<(i64, chain::Row), rusqlite::Error> {
    let (series, run) = (row.get(2)?, row.get(5)?);
    let kind = match kinds.get(&(series, run)) {
        Some(kind) => *kind,
        None => {
            let kind = connection
                .prepare_cached(
                    r#"SELECT account, "group", action, mode, outcome, reason, billable, replica
                       FROM series, runs WHERE series.id = ?1 AND run = ?2"#,
                )?
                .query_row([series, run], |row| {
                    let text = |column| -> Result<&str, rusqlite::Error> {
                        Ok(row.get_ref(column)?.as_str()?)
                    };
                    let texts = [text(0)?, text(1)?, text(2)?, text(3)?, text(4)?, text(5)?];
                    Ok(chain::kind(texts, row.get(6)?, text(7)?))
                })?;
            if kinds.len() >= SERIES_CACHED {
                kinds.clear();
            }
            kinds.insert((series, run), kind);
            kind
        }
    };
    let row = chain::Row {
        seq: row.get(0)?,
        id: row.get(1)?,
        kind,
        admitted_at: row.get(3)?,
        start_ns: row.get(4)?,
        run,
        status: row.get(6)?,
        duration_us: row.get(7)?,
    };
    Ok((series, row))
}

/// Copies the file aside and brings it to the schema of today, as a whole or not at all.
fn migrate(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let copy = suffixed(path, &format!(".schema-{}.bak", schema::BEFORE));
    // One that is there is of an earlier try, which changed nothing, or somebody's own.
    if !copy.exists() {
        super::read::copy_to(connection, &copy)?;
    }
    let transaction = connection.unchecked_transaction()?;
    schema::migrate(&transaction)?;
    let (first, rolled_up): (i64, i64) =
        transaction.query_row("SELECT first_kept, rolled_up FROM bounds", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (mut after, mut link, mut kinds) = (first - 1, chain::GENESIS, Kinds::default());
    while after < rolled_up {
        let until = rolled_up.min(after + MIGRATION_STEP);
        link = link_and_count(&transaction, &mut kinds, after, link, until, false)?;
        after = until;
    }
    transaction.commit()?;
    tracing::info!(
        from = schema::BEFORE,
        to = schema::VERSION,
        copy = %copy.display(),
        "migrated the ledger; the copy is as it was before"
    );
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The newest seq that was ever given, also when its record has been pruned; 0 before the first.
pub(super) fn last_seq(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row(
        "SELECT max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds",
        [],
        |row| row.get(0),
    )
}

/// The id of the record's series, from the cache or the table, new when it never occurred.
fn series_id(
    connection: &Connection,
    cache: &mut FastMap<SeriesKey, i64>,
    record: &Record,
) -> Result<i64, rusqlite::Error> {
    let key = (
        record.account.clone(),
        record.group.clone(),
        record.action.clone(),
        record.mode,
        record.outcome,
        record.reason,
    );
    if let Some(id) = cache.get(&key) {
        return Ok(*id);
    }
    let texts = params![
        key.0.as_str(),
        key.1.as_str(),
        key.2.as_str(),
        key.3.as_str(),
        key.4.as_str(),
        key.5.as_str(),
        record.billable(),
    ];
    connection
        .prepare_cached(
            r#"INSERT INTO series (account, "group", action, mode, outcome, reason, billable)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING"#,
        )?
        .execute(texts)?;
    let id = connection
        .prepare_cached(
            r#"SELECT id FROM series WHERE account = ?1 AND "group" = ?2 AND action = ?3 AND mode = ?4
               AND outcome = ?5 AND reason = ?6"#,
        )?
        .query_row(&texts[..6], |row| row.get(0))?;
    if cache.len() >= SERIES_CACHED {
        cache.clear();
    }
    cache.insert(key, id);
    Ok(id)
}
