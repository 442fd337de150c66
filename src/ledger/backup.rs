//! A copy of the ledger, also while its process writes it.

use crate::ledger::LedgerError;
use crate::ledger::error::{io_error, named};
use crate::ledger::files::{suffixed, sync_directory};
use crate::ledger::read::Reader;
use crate::ledger::uncertain::{refuse_noted, uncorrected};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Copies the ledger `from` to the new file `to`, also while it is written: one consistent state,
/// checked, in a single file. `to` appears when it is complete or not at all; an existing file is
/// never overwritten.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let reader = Reader::open(from)?;
    refuse_noted(&reader.connection, from)?;
    copy_to(&reader.connection, to)
}

/// Copies an open ledger of any schema to the new file `to`, as [`backup`] does.
pub(super) fn copy_to(source: &Connection, to: &Path) -> Result<(), LedgerError> {
    if to.symlink_metadata().is_ok() {
        return Err(LedgerError::Exists(to.to_owned()));
    }
    let partial = suffixed(to, ".partial");
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
    {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let to = to.to_owned();
            return Err(LedgerError::Unfinished { to, partial });
        }
        // The error names the file that was asked for: nobody knows of the partial one.
        Err(error) => return Err(io_error(to)(error)),
    }
    let copied = copy(source, &partial)
        .map_err(named(to))
        .and_then(|()| put(&partial, to))
        .and_then(|()| sync_directory(to));
    if copied.is_err() {
        // The rest of a failed copy must not be taken for a backup. An error here would say less
        // than the first.
        let _ = fs::remove_file(&partial);
    }
    copied
}

/// Gives a file another name, and never one that another file has.
fn put(partial: &Path, to: &Path) -> Result<(), LedgerError> {
    match fs::hard_link(partial, to) {
        Ok(()) => fs::remove_file(partial).map_err(io_error(partial)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(LedgerError::Exists(to.to_owned()))
        }
        // A file system without a second name for a file. Nobody else is expected to take this one
        // meanwhile.
        Err(_) if to.symlink_metadata().is_err() => fs::rename(partial, to).map_err(io_error(to)),
        Err(_) => Err(LedgerError::Exists(to.to_owned())),
    }
}

fn copy(source: &Connection, partial: &Path) -> Result<(), LedgerError> {
    let mut copy = Connection::open(partial)?;
    {
        // All pages in one step, in one read transaction: with smaller ones, each commit of the
        // writer makes the copy begin anew, and under load it would never end.
        let backup = Backup::new(source, &mut copy)?;
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                )
                .into());
            }
        }
    }
    // A ledger is in WAL mode; a copy of its own must be whole in one file, also on a read-only
    // disk.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let verdict: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(LedgerError::Damaged(verdict));
    }
    copy.close().map_err(|(_, error)| error)?;
    let synced = fs::File::open(partial).and_then(|file| file.sync_all());
    synced.map_err(io_error(partial))
}

/// The note of calls that were told an error while the ledger at `path` may have them as answered.
/// `None` when there is no note, or when its rows say already what the calls were told.
///
/// For commands that read a ledger beside its process: what they count may still be corrected.
/// [`LedgerError::Uncorrected`] with this path says so, and what to do.
pub(crate) fn uncorrected_note(path: &Path) -> Result<Option<PathBuf>, LedgerError> {
    let reader = Reader::open(path)?;
    uncorrected(&reader.connection, path)
}
