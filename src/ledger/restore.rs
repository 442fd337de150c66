//! Putting a backup back in the place of a ledger.
//!
//! Owns the steps and their order. Must never give a seq a second time, change the ledger that was
//! there, nor put a database where a WAL lies: SQLite would read the one into the other.
//!
//! A backup ends before the ledger that it replaces did. So the seqs go on far beyond: no cursor
//! that was given out by then can pass over a new record. `links` has a row of the last seq that
//! was left out, with the link of the backup's last record and no marks; `restores` has a row as
//! well.
//!
//! # Decided
//! - **A restored ledger leaves out 10^12 seqs**: what was recorded after the backup has seqs that
//!   readers know already, and to give them again would pass over calls in silence. The count of
//!   restores in a cursor says so to who reads on.

use crate::ledger::backup::copy_to;
use crate::ledger::error::{io_error, named};
use crate::ledger::files::{lock, suffixed, sync_directory};
use crate::ledger::header::{self, FileKind};
use crate::ledger::known::{Identity, KnownLedger};
use crate::ledger::seal::{self, Before};
use crate::ledger::store::Store;
use crate::ledger::uncertain::refuse_noted;
use crate::ledger::{LedgerError, migrate};
use crate::model::Utc;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use rustix::process::geteuid;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The number of seqs that are left out: more than thirty years have at 1,000 calls a second.
const GAP: i64 = 1_000_000_000_000;

/// The most restores of a ledger. The seqs that they leave out are a ninth of all.
const MAX_RESTORES: i64 = 1_000_000;

/// Records that are rolled up at a time.
const STEP: i64 = 4_096;

/// The result of a restore: which records the ledger has, and where the ledger before it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Restored {
    /// The real path of the ledger.
    pub path: PathBuf,
    /// The id of the ledger, which a restore keeps.
    pub ledger_id: String,
    /// How often this ledger was restored, this time included: the first part of a cursor.
    pub restore_count: u64,
    /// The newest record of the backup.
    pub last_seq: u64,
    /// The seq of the next record.
    pub next_seq: u64,
    /// The seal of the restore, to be kept with those of the days.
    pub seal: [u8; 32],
    /// The ledger that was there, with its WAL beside it; `None` when there was none.
    pub moved: Option<PathBuf>,
}

/// Puts the backup `from` in the place of the ledger `to`, of which no process may have the lock.
/// What was there is moved aside. `to` is complete and synced, or it is missing; then the same
/// restore may be started again. Its owner is that of the ledger that was there, or else that of
/// the folder.
///
/// # Errors
/// [`LedgerError::Locked`] while a tollgate runs; [`LedgerError::NotItsBackup`] when `to` is
/// another ledger; [`LedgerError::NotALedger`] and others when `from` is no ledger. Then nothing is
/// changed.
pub(crate) fn restore(from: &Path, to: &Path, now: Utc) -> Result<Restored, LedgerError> {
    let source = open_backup(from).map_err(named(from))?;
    refuse_noted(&source, from)?;
    let (path, lock) = lock(to)?;
    if from.canonicalize().map_err(io_error(from))? == path {
        return Err(LedgerError::Itself(path));
    }
    let earlier = earlier_restores(&path)?;
    // A restore that was killed may have moved it aside already.
    let before = [path.clone(), aside(&path, earlier)];
    let before = before.iter().find(|before| bytes(before) > 0);
    let owner = Owner::of(before, &path)?;
    if geteuid().is_root() {
        // It may be of this restore, or of one that failed.
        owner.give(&lock, &path)?;
    }
    // Not of one that was moved aside: SQLite would make it a WAL, and its own may still be at the
    // path.
    let (backup, there) = (Origin::read(&source), Origin::at(&path));
    if there.is_another(&backup) {
        return Err(LedgerError::NotItsBackup { path });
    }
    let count = 1 + earlier.max(counted(from, backup.count())?);
    let new = suffixed(&path, ".restoring");
    // Of a restore that was killed: nobody else writes these, for the ledger is locked.
    clear(&new)?;
    let made = copy_to(&source, &new).and_then(|()| {
        let gone_on = go_on_beyond(&new, count, now, there.ledger_id()).map_err(named(&new))?;
        let file = File::open(&new).map_err(io_error(&new))?;
        owner.give(&file, &new)?;
        file.sync_all().map_err(io_error(&new))?;
        Ok(gone_on)
    });
    let (known, last_seq, seal) = made.inspect_err(|_| {
        // The disk may be full. That error says more than one of this could.
        let _ = clear(&new);
    })?;
    drop(source);
    let moved = move_aside(&path, count)?;
    fs::rename(&new, &path).map_err(io_error(&path))?;
    sync_directory(&path)?;
    let unsigned = |seq: i64| u64::try_from(seq).unwrap_or(0);
    Ok(Restored {
        ledger_id: known.identity.ledger_id,
        restore_count: unsigned(count),
        last_seq: unsigned(last_seq),
        next_seq: unsigned(known.linked.0 + 1),
        seal,
        moved,
        path,
    })
}

fn clear(new: &Path) -> Result<(), LedgerError> {
    let ends = [
        "",
        "-wal",
        "-shm",
        "-journal",
        ".partial",
        ".partial-journal",
    ];
    ends.iter().try_for_each(|end| remove(&suffixed(new, end)))
}

/// The owner and the mode of the ledger's file.
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Owner {
    /// The owner of the ledger that was there before, or else of the folder of `path`. A user who
    /// is not root, and makes a ledger where there was none, owns it.
    fn of(before: Option<&PathBuf>, path: &Path) -> Result<Self, LedgerError> {
        let from = before.map_or(path.parent().unwrap_or(path), |before| before);
        let found = fs::metadata(from).map_err(io_error(from))?;
        let keeps = before.is_none() && !geteuid().is_root();
        Ok(Self {
            uid: if keeps {
                geteuid().as_raw()
            } else {
                found.uid()
            },
            gid: found.gid(),
            mode: found.mode() & 0o666,
        })
    }

    fn give(&self, file: &File, path: &Path) -> Result<(), LedgerError> {
        let found = file.metadata().map_err(io_error(path))?;
        let (uid, gid) = (self.uid, self.gid);
        if (found.uid(), found.gid()) != (uid, gid) {
            fchown(file, Some(uid), Some(gid)).map_err(|error| LedgerError::NotGiven {
                uid,
                gid,
                error,
            })?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(io_error(path))
    }
}

/// A ledger of this schema or an older one, for reading.
fn open_backup(path: &Path) -> Result<Connection, LedgerError> {
    if !path.is_file() {
        return Err(LedgerError::NoBackup(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let backup = Connection::open_with_flags(path, flags)?;
    match header::identify(&backup)? {
        FileKind::Ledger | FileKind::Older(_) => Ok(backup),
        FileKind::Empty => Err(LedgerError::NotALedger),
    }
}

/// What a file says of where it comes from, as far as it can be read.
#[derive(Default)]
struct Origin {
    /// None in an older schema.
    identity: Option<Identity>,
    /// When the first process opened it.
    began: Option<i64>,
}

impl Origin {
    fn read(connection: &Connection) -> Self {
        let began = "SELECT opened_at FROM runs ORDER BY run LIMIT 1";
        Self {
            identity: Identity::read(connection).ok(),
            began: connection.query_row(began, [], |row| row.get(0)).ok(),
        }
    }

    /// Nothing where there is no file, another one, or a damaged one.
    fn at(path: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite would delete the WAL beside an empty file.
        let open = (bytes(path) > 0).then(|| Connection::open_with_flags(path, flags));
        match open {
            Some(Ok(connection)) => Self::read(&connection),
            _ => Self::default(),
        }
    }

    /// Whether the two are certain to be of two ledgers.
    fn is_another(&self, other: &Self) -> bool {
        match (&self.identity, &other.identity) {
            (Some(one), Some(other)) => one.ledger_id != other.ledger_id,
            _ => self
                .began
                .is_some_and(|began| other.began.is_some_and(|other| other != began)),
        }
    }

    fn ledger_id(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.ledger_id)
    }

    /// How often it was restored; 0 where that cannot be told.
    fn count(&self) -> i64 {
        self.identity
            .as_ref()
            .map_or(0, |identity| identity.restore_count)
    }
}

/// The highest count that was given here: a backup may be older than the last restore, and no two
/// may have the same.
fn earlier_restores(path: &Path) -> Result<i64, LedgerError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let aside = aside(path, "");
    let prefix = aside.file_name().unwrap_or_default().to_string_lossy();
    let mut highest = counted(path, Origin::at(path).count())?;
    for entry in fs::read_dir(directory).map_err(io_error(directory))? {
        let name = entry.map_err(io_error(directory))?.file_name();
        let text = name.to_string_lossy();
        let count = text
            .strip_prefix(&*prefix)
            .and_then(|rest| rest.trim_end_matches("-wal").parse::<i64>().ok());
        if let Some(count) = count {
            highest = highest.max(counted(&directory.join(&name), count)?);
        }
    }
    Ok(highest)
}

/// The count that the file at `path` states, when there can be so many restores and one more.
fn counted(path: &Path, count: i64) -> Result<i64, LedgerError> {
    let path = path.to_owned();
    match count < MAX_RESTORES {
        true => Ok(count.max(0)),
        false => Err(LedgerError::TooManyRestores { path, count }),
    }
}

fn aside(path: &Path, count: impl std::fmt::Display) -> PathBuf {
    suffixed(path, &format!(".before-restore-{count}"))
}

/// Notes the restore in the copy at `path`, and makes its seqs go on beyond the gap. It is one file
/// afterwards, without a WAL. Where its schema is so old that it has no id, it gets
/// `ledger_id`. Gives what it is
/// then, the newest record, and the seal.
fn go_on_beyond(
    path: &Path,
    count: i64,
    now: Utc,
    ledger_id: Option<&str>,
) -> Result<(KnownLedger, i64, [u8; 32]), LedgerError> {
    let mut copy = Connection::open(path)?;
    if let FileKind::Older(found) = header::identify(&copy)? {
        migrate::change(&mut copy, found, ledger_id)?;
    }
    drop(copy);
    let mut store = Store::open(path, false)?;
    while store.tail() > 0 {
        store.roll_up(STEP)?;
    }
    let last_seq = store.next_seq() - 1;
    drop(store);

    let mut copy = Connection::open(path)?;
    let transaction = copy.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A count that was passed over leaves its seqs out as well.
    let counts = (count - counted(path, Identity::read(&transaction)?.restore_count)?).max(1);
    let Some(next_seq) = last_seq.checked_add(1 + GAP * counts) else {
        return Err(LedgerError::Damaged(format!(
            "its last record is {last_seq}"
        )));
    };
    let restore = seal::Restore {
        count,
        last_seq,
        next_seq,
        restored_at: now.0,
    };
    let seal = restore.seal(&Before::newest(&transaction)?);
    transaction.execute("UPDATE identity SET restore_count = ?1", [count])?;
    transaction.execute(
        "INSERT INTO restores (restore_count, last_seq, next_seq, restored_at) VALUES (?1, ?2, ?3, ?4)",
        params![count, last_seq, restore.next_seq, now.0],
    )?;
    transaction.execute(
        "INSERT INTO links (last_seq, link, marks, version) SELECT ?2, link, zeroblob(0), version FROM links WHERE last_seq = ?1",
        params![last_seq, restore.next_seq - 1],
    )?;
    transaction.execute("UPDATE bounds SET rolled_up = ?1", [restore.next_seq - 1])?;
    seal::add(&transaction, &seal::of_restore(count), &seal)?;
    let known = KnownLedger::read(&transaction)?;
    transaction.commit()?;
    let mode: String = copy.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    copy.close().map_err(|(_, error)| error)?;
    if mode != "delete" || suffixed(path, "-wal").exists() {
        return Err(LedgerError::LoneWal(suffixed(path, "-wal")));
    }
    Ok((known, last_seq, seal))
}

/// Moves the ledger at `path` and its WAL aside, the database first: with the WAL gone first it
/// would look whole, and not be. Gives where it is now.
fn move_aside(path: &Path, count: i64) -> Result<Option<PathBuf>, LedgerError> {
    let (wal, aside_now) = (suffixed(path, "-wal"), aside(path, count));
    let mut moved = None;
    if bytes(path) > 0 {
        fs::rename(path, &aside_now).map_err(io_error(path))?;
        moved = Some(aside_now.clone());
    } else {
        remove(path)?;
    }
    if bytes(&wal) == 0 {
        remove(&wal)?;
    } else {
        // Alone, it is of a restore that was killed after it had moved the database.
        let before = aside(path, count - 1);
        let of_before = moved.is_none()
            && before.exists()
            && suffixed(&before, "-wal").symlink_metadata().is_err();
        let to = if of_before { before } else { aside_now };
        fs::rename(&wal, suffixed(&to, "-wal")).map_err(io_error(&wal))?;
        moved.get_or_insert(to);
    }
    // Made anew from the WAL whenever it is needed.
    remove(&suffixed(path, "-shm"))?;
    sync_directory(path)?;
    Ok(moved)
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> Result<(), LedgerError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
